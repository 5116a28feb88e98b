//! `hf:owner/name` in place of a folder: resolved here, before anything reads the path.

use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, miette};
use mlrm_config::{HubName, HubNameError, ModelPath, RunConfig};

/// Puts folders in the place of all names on the Hub, and their commits into the names, so that what is
/// stored with a run says what it began with.
///
/// # Errors
/// When a path is not there (all of them are named), or a name cannot be resolved.
pub fn resolve(config: &mut RunConfig) -> miette::Result<()> {
    let unread = unread(config);
    let missing: Vec<String> = config
        .model_paths()
        .into_iter()
        .filter(|(key, path)| !unread.contains(key) && path.hub_name().is_none() && !path.exists())
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
        if unread.contains(&key) {
            continue;
        }
        let Some(name) = path.hub_name() else {
            continue;
        };
        let name = name.map_err(|error| miette!(help = HubNameError::HELP, "{key}: {error}"))?;
        let (folder, commit) = hub.fetch(key, &name)?;
        *path = ModelPath::resolved(&name.at(&commit), folder);
    }
    Ok(())
}

/// The keys that the variant reads nothing from: without pictures there is no encoder, and without visual tokens no
/// connector.
fn unread(config: &RunConfig) -> Vec<&'static str> {
    let variant = config.model.variant;
    // A model folder brings a variant of its own.
    let own = config.model.path.is_none();
    let unread = [
        ("model.vision.path", own && !variant.vision()),
        ("model.connector.path", own && !variant.image_tokens()),
    ];
    let unread = unread.into_iter().filter(|(_, is_unread)| *is_unread);
    unread.map(|(key, _)| key).collect()
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

/// A model of which only what it is is wanted.
pub struct Outline {
    /// The folder to read.
    pub folder: PathBuf,
    /// What to call the folder: the path that was given, or the name with its commit.
    pub shown: PathBuf,
    /// Holds the folder where it is made for this.
    _made: Option<tempfile::TempDir>,
}

/// The folder of a model, to say what it is: of a name on the Hub only the headers of its weights are
/// fetched, unless `weights` says that all of them are wanted.
///
/// # Errors
/// When the name cannot be resolved.
pub fn outline(path: &Path, weights: bool) -> miette::Result<Outline> {
    let local = |folder: PathBuf| Outline {
        shown: folder.clone(),
        folder,
        _made: None,
    };
    let Some(name) = HubName::of(path) else {
        return Ok(local(path.to_owned()));
    };
    let name = name.map_err(|error| miette!(help = HubNameError::HELP, "{error}"))?;
    let mut downloads = Downloads::default();
    let (folder, commit, made) = match weights {
        true => {
            let (folder, commit) = downloads.fetch("model", &name)?;
            (folder, commit, None)
        }
        false => {
            let made = tempfile::tempdir().into_diagnostic()?;
            let (folder, commit) = downloads.outline(&name, made.path())?;
            (folder, commit, Some(made))
        }
    };
    Ok(Outline {
        folder,
        shown: PathBuf::from(name.at(&commit).to_string()),
        _made: made,
    })
}

/// Lets names without a revision mean the commits that a run began with, so that going on with it is
/// exact whatever the Hub holds by now.
pub fn pin(config: &mut RunConfig, begun_with: &RunConfig) {
    let begun_with = begun_with.model_paths();
    for (key, path) in config.model_paths_mut() {
        let begun = begun_with.iter().find(|(other, _)| *other == key);
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

    fn outline(&mut self, name: &HubName, _: &Path) -> miette::Result<(PathBuf, String)> {
        self.fetch("model", name)
    }
}

#[cfg(feature = "hub")]
use downloads::Downloads;

#[cfg(feature = "hub")]
mod downloads {
    use std::io::{self, IsTerminal};
    use std::path::{Path, PathBuf};

    use indicatif::ProgressBar;
    use miette::miette;
    use mlrm_config::HubName;
    use mlrm_hub::{Environment, Hub, HubError, Needs, Watch};

    use crate::commands::{bytes, styled};

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
            let hub = self.hub().map_err(report)?;
            let snapshot = hub.fetch(name, needs, &mut Screen::of(name));
            let snapshot = snapshot.map_err(report)?;
            Ok((snapshot.folder, snapshot.commit))
        }

        /// The folder and the commit of a model, without its weights, which is made in `into`.
        pub(super) fn outline(
            &mut self,
            name: &HubName,
            into: &Path,
        ) -> miette::Result<(PathBuf, String)> {
            let report = |error: HubError| miette!(help = error.help(), "model: {error}");
            let hub = self.hub().map_err(report)?;
            let snapshot = hub.outline(name, into, &mut Screen::of(name));
            let snapshot = snapshot.map_err(report)?;
            Ok((snapshot.folder, snapshot.commit))
        }

        fn hub(&mut self) -> Result<&Hub, HubError> {
            let hub = match self.hub.take() {
                Some(hub) => hub,
                None => Hub::new(Environment::read()?),
            };
            Ok(self.hub.insert(hub))
        }
    }

    /// A bar on a terminal, a line a file elsewhere.
    struct Screen {
        name: String,
        bar: ProgressBar,
    }

    impl Screen {
        fn of(name: &HubName) -> Self {
            Self {
                name: name.to_string(),
                bar: ProgressBar::hidden(),
            }
        }
    }

    impl Watch for Screen {
        fn weights(&mut self, files: usize, size: u64) {
            let files = match files {
                1 => "1 file".to_owned(),
                files => format!("{files} files"),
            };
            eprintln!(
                "{}: weights to download: {} in {files}",
                self.name,
                bytes(size)
            );
        }

        fn begin(&mut self, file: &str, held: u64, size: u64) {
            let name = &self.name;
            if !io::stderr().is_terminal() {
                eprintln!("downloading {name}: {file} ({})", bytes(size));
                return;
            }
            let bar = ProgressBar::new(size).with_message(format!("{name}: {file}"));
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            self.bar = styled(bar, template);
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
