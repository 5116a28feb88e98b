//! The run folder: `config.toml`, `events.jsonl`, `checkpoints/`, `best`, `last`, `model/`.

use std::path::{Path, PathBuf};

use mlrm_config::RunConfig;
use mlrm_events::EventLog;

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

/// What a run leaves in its folder.
const RUN_ENTRIES: [&str; 10] = [
    "config.toml",
    "events.jsonl",
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
    /// Opens the folder of a run and its event log, and writes its resolved config.
    pub fn open(config: &RunConfig, existing: Existing) -> Result<(Self, EventLog), TrainError> {
        let root = config.run.dir.clone();
        let events = root.join("events.jsonl");
        let used = events.is_file();
        let mut resume_from = None;
        match existing {
            Existing::Refuse if used => {
                return Err(TrainError::Run(format!(
                    "{} already holds a run; go on with it by --resume, replace it by --overwrite, \
                     or name another folder by --set run.dir=…",
                    root.display()
                )));
            }
            Existing::Resume => resume_from = Some(last_checkpoint(&root)?),
            Existing::Overwrite if used => remove_run(&root)?,
            Existing::Refuse | Existing::Overwrite => {}
        }
        std::fs::create_dir_all(&root).map_err(TrainError::io("create", &root))?;
        let path = root.join("config.toml");
        write_beside(&path, &config.to_toml_string()?)?;
        let log = match existing {
            Existing::Resume => EventLog::append(&events),
            _ => EventLog::create(&events),
        };
        let log = log.map_err(TrainError::io("open", &events))?;
        Ok((Self { root, resume_from }, log))
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
