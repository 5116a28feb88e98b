//! `hf:owner/name` in place of a folder: resolved here, before anything reads the path.

use std::path::{Path, PathBuf};

use miette::miette;
use mlrm_config::{HubName, HubNameError, ModelPath, RunConfig};

/// Puts folders in the place of all names on the Hub, and their commits into the names, so that what is
/// stored with a run says what it began with.
///
/// # Errors
///
/// When a path is not there (all of them are named), or a name cannot be resolved.
pub fn resolve(config: &mut RunConfig) -> miette::Result<()> {
    let missing: Vec<String> = config
        .model_paths()
        .into_iter()
        .filter(|(_, path)| path.hub_name().is_none() && !path.exists())
        .map(|(key, path)| {
            let path = path.display();
            format!(
                "{key} = \"{path}\": it is not there; it should be {}",
                holds(key)
            )
        })
        .collect();
    if !missing.is_empty() {
        return Err(miette!(
            help = "paths are seen from the current folder; a repository on the Hub is written \
                    hf:owner/name",
            "{}",
            missing.join("\n")
        ));
    }
    let mut hub = Downloads::default();
    for (key, path) in config.model_paths_mut() {
        let Some(name) = path.hub_name() else {
            continue;
        };
        let name = name.map_err(|error| miette!(help = HubNameError::HELP, "{key}: {error}"))?;
        let (folder, commit) = hub.fetch(key, &name)?;
        *path = ModelPath::resolved(&name.at(&commit), folder);
    }
    Ok(())
}

/// What the path of a key leads to.
fn holds(key: &str) -> &'static str {
    match key {
        "model.path" => "a model folder of mlrm, with mlrm.toml",
        "model.llm.lora.path" => "a folder with adapter_config.json and adapter_model.safetensors",
        "tokenizer.path" => "a tokenizer.json, or a folder with one",
        _ => "a folder with config.json and safetensors",
    }
}

/// The folder of a model that is named on the command line.
pub fn folder(path: &Path) -> miette::Result<PathBuf> {
    match HubName::of(path) {
        None => Ok(path.to_owned()),
        Some(name) => {
            let name = name.map_err(|error| miette!(help = HubNameError::HELP, "{error}"))?;
            Ok(Downloads::default().fetch("model", &name)?.0)
        }
    }
}

/// Lets names without a revision mean the commits that a run began with, so that going on with it is
/// exact whatever the Hub holds by now.
pub fn pin(config: &mut RunConfig, earlier: &RunConfig) {
    let earlier = earlier.model_paths();
    for (key, path) in config.model_paths_mut() {
        let begun = earlier.iter().find(|(other, _)| *other == key);
        let begun = begun.and_then(|(_, path)| path.hub_name()?.ok());
        if let (Some(begun), Some(Ok(now))) = (begun, path.hub_name())
            && now.revision.is_none()
            && begun.repo == now.repo
        {
            *path = PathBuf::from(begun.to_string()).into();
        }
    }
}

#[cfg(not(feature = "hub"))]
#[derive(Default)]
struct Downloads;

#[cfg(not(feature = "hub"))]
impl Downloads {
    fn fetch(&mut self, key: &str, name: &HubName) -> miette::Result<(PathBuf, String)> {
        Err(miette!(
            help = "build it with the cargo feature `hub`, or download the folder and name it",
            "{key} = {name}: this build of mlrm does not download from the Hub"
        ))
    }
}

#[cfg(feature = "hub")]
use downloads::Downloads;

#[cfg(feature = "hub")]
mod downloads {
    use std::io::{self, IsTerminal};
    use std::path::PathBuf;

    use indicatif::{ProgressBar, ProgressStyle};
    use miette::miette;
    use mlrm_config::HubName;
    use mlrm_hub::{Environment, Hub, HubError, Needs, Watch};

    use crate::commands::bytes;

    /// The Hub, asked when the first name is met.
    #[derive(Default)]
    pub(super) struct Downloads {
        hub: Option<Hub>,
    }

    impl Downloads {
        /// The folder and the commit of what a key names.
        pub(super) fn fetch(
            &mut self,
            key: &str,
            name: &HubName,
        ) -> miette::Result<(PathBuf, String)> {
            let needs = match key {
                "tokenizer.path" => Needs::Tokenizer,
                "model.llm.lora.path" => Needs::Adapter,
                _ => Needs::Model,
            };
            let report = |error: HubError| miette!(help = error.help(), "{key}: {error}");
            let hub = match &mut self.hub {
                Some(hub) => hub,
                None => self
                    .hub
                    .insert(Hub::new(Environment::read().map_err(report)?)),
            };
            let mut screen = Screen {
                name: name.to_string(),
                bar: ProgressBar::hidden(),
            };
            let snapshot = hub.fetch(name, needs, &mut screen).map_err(report)?;
            Ok((snapshot.folder, snapshot.commit))
        }
    }

    /// A bar on a terminal, a line a file elsewhere.
    struct Screen {
        name: String,
        bar: ProgressBar,
    }

    impl Watch for Screen {
        fn begin(&mut self, file: &str, held: u64, size: u64) {
            let name = &self.name;
            if !io::stderr().is_terminal() {
                eprintln!("downloading {name}: {file} ({})", bytes(size));
                return;
            }
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template);
            self.bar = ProgressBar::new(size).with_message(format!("{name}: {file}"));
            self.bar
                .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar.set_position(held);
            // What an earlier download left says nothing of this one's speed.
            self.bar.reset_eta();
        }

        fn at(&mut self, held: u64) {
            self.bar.set_position(held);
        }

        fn end(&mut self) {
            self.bar.finish_and_clear();
        }

        fn say(&mut self, text: &str) {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }
}
