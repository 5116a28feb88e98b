//! The run folder: `config.toml`, `events.jsonl`, `checkpoints/`, `best`, `last`, `model/`.

use std::path::{Path, PathBuf};

use mlrm_config::{ModelSettings, PromptSettings, RunConfig, TokenizerSettings};
use mlrm_events::EventLog;
use serde::Serialize;
use serde_json::Value;

use crate::error::TrainError;

/// What is done when the folder already holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// An error that says how to go on.
    Refuse,
    /// The run is continued from its last checkpoint.
    Resume,
    /// The run is removed first.
    Overwrite,
}

/// An open run folder.
pub struct RunFolder {
    /// The folder.
    pub root: PathBuf,
    /// The checkpoint to continue from.
    pub resume_from: Option<PathBuf>,
}

const CONFIG: &str = "config.toml";
const EVENTS: &str = "events.jsonl";

/// What a run leaves in its folder.
const RUN_ENTRIES: [&str; 10] = [
    CONFIG,
    EVENTS,
    "checkpoints",
    "best",
    "last",
    "model",
    "eval.json",
    "report",
    "report.html",
    "tensorboard",
];

impl RunFolder {
    /// Whether a run can begin, or go on, in its folder; changes nothing. Gives the checkpoint to
    /// continue from.
    pub fn check(config: &RunConfig, existing: Existing) -> Result<Option<PathBuf>, TrainError> {
        let root = &config.run.dir;
        match existing {
            Existing::Refuse if holds_run(root) => Err(TrainError::Run(format!(
                "{} already holds a run; go on with it by --resume, replace it by --overwrite, or \
                 name another folder by --set run.dir=…",
                root.display()
            ))),
            Existing::Refuse | Existing::Overwrite => Ok(None),
            Existing::Resume => {
                let checkpoint = last_checkpoint(root)?;
                check_same_model(root, config)?;
                Ok(Some(checkpoint))
            }
        }
    }

    /// Opens the folder of a run and its event log, and writes its resolved config.
    pub fn open(config: &RunConfig, existing: Existing) -> Result<(Self, EventLog), TrainError> {
        let resume_from = Self::check(config, existing)?;
        let root = config.run.dir.clone();
        let events = root.join(EVENTS);
        if existing == Existing::Overwrite && holds_run(&root) {
            remove_run(&root)?;
        }
        std::fs::create_dir_all(&root).map_err(TrainError::io("create", &root))?;
        let path = root.join(CONFIG);
        write_beside(&path, &config.to_toml_string()?)?;
        let log = match existing {
            Existing::Resume => EventLog::append(&events),
            _ => EventLog::create(&events),
        };
        let log = log.map_err(TrainError::io("open", &events))?;
        Ok((Self { root, resume_from }, log))
    }
}

fn holds_run(root: &Path) -> bool {
    root.join(EVENTS).is_file()
}

/// Refuses to resume with other settings of what the checkpoint brings itself: they would be read by
/// nobody.
fn check_same_model(root: &Path, config: &RunConfig) -> Result<(), TrainError> {
    let path = root.join(CONFIG);
    // Without it nothing is known of the earlier settings.
    if !path.is_file() {
        return Ok(());
    }
    let earlier = RunConfig::load(&path, &[])?;
    let start = &config.model.path;
    if start.is_some() && *start == earlier.model.path {
        return Ok(());
    }
    let differences = differences(&checkpointed(&earlier)?, &checkpointed(config)?);
    if differences.is_empty() {
        return Ok(());
    }
    Err(TrainError::Run(format!(
        "{root} was begun with other settings of the model: {}. A checkpoint brings its model, \
         tokenizer and prompts with it: go on with `mlrm train {root}/config.toml --resume`, or begin \
         a new run by --set run.dir=…",
        differences.join("; "),
        root = root.display(),
    )))
}

/// The settings that a checkpoint answers itself.
fn checkpointed(config: &RunConfig) -> Result<Value, TrainError> {
    let mut model = config.model.clone();
    // What learns is asked of the config anew.
    model.llm.tune = Default::default();
    model.llm.quantisation = Default::default();
    model.llm.lora.dropout = 0.0;
    serde_json::to_value(Sections {
        model: &model,
        prompt: &config.prompt,
        tokenizer: &config.tokenizer,
    })
    .map_err(|e| TrainError::Run(format!("the settings cannot be compared: {e}")))
}

#[derive(Serialize)]
struct Sections<'a> {
    model: &'a ModelSettings,
    prompt: &'a PromptSettings,
    tokenizer: &'a TokenizerSettings,
}

/// Where two settings differ: `model.llm.hidden_size is 32 there and 64 here`.
fn differences(there: &Value, here: &Value) -> Vec<String> {
    let Value::Object(fields) = here else {
        return Vec::new();
    };
    let below = |(name, here): (&String, &Value)| match (&there[name], here) {
        (there @ Value::Object(_), Value::Object(_)) => differences(there, here)
            .into_iter()
            .map(|difference| format!("{name}.{difference}"))
            .collect(),
        (there, here) if there == here => Vec::new(),
        (there, here) => vec![format!(
            "{name} is {} there and {} here",
            shown(there),
            shown(here)
        )],
    };
    fields.iter().flat_map(below).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        value => value.to_string(),
    }
}

/// The checkpoint that `last` points at.
pub fn last_checkpoint(root: &Path) -> Result<PathBuf, TrainError> {
    let link = root.join("last");
    let folder = link.canonicalize().map_err(|_| {
        TrainError::Run(format!(
            "{} holds no checkpoint to resume from (no `last`)",
            root.display()
        ))
    })?;
    Ok(folder)
}

fn remove_run(root: &Path) -> Result<(), TrainError> {
    for entry in RUN_ENTRIES {
        let path = root.join(entry);
        let Ok(kind) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let removed = if kind.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(TrainError::io("remove", &path))?;
    }
    Ok(())
}

/// Writes a text file beside its place and renames it there.
pub fn write_beside(path: &Path, text: &str) -> Result<(), TrainError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Readable by others as any file is; a temporary file is its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let file = builder
        .tempfile_in(folder)
        .map_err(TrainError::io("write", path))?;
    std::fs::write(file.path(), text).map_err(TrainError::io("write", path))?;
    file.persist(path)
        .map_err(|e| TrainError::io("write", path)(e.error))?;
    Ok(())
}
