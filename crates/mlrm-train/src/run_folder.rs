//! The run folder: `config.toml`, `template.toml`, `data.json`, `events.jsonl`, `checkpoints/`, `best`,
//! `last`, `model/`, and the lock of the process that it belongs to.

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use mlrm_config::RunConfig;
use mlrm_events::EventLog;
use serde::{Deserialize, Serialize};
use sysinfo::System;

use crate::changes::{Change, Changes, check_names, flags, listed};
use crate::checkpoint;
use crate::data_record::DataRecord;
use crate::error::TrainError;
use crate::folders::{recover, remove, write_beside};
use crate::plan::Computes;

/// What is done when the folder already holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// An error that says how to go on.
    #[default]
    Refuse,
    /// The run is continued from its last checkpoint.
    Resume,
    /// The run is removed first.
    Overwrite,
}

/// How a run folder is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// What is done when it already holds a run.
    pub existing: Existing,
    /// Settings, or sections of them, that a run may go on with although they are not those that it
    /// was begun with.
    pub accepted: Vec<String>,
    /// Which of its devices this process computes on.
    pub computes: Computes,
}

/// An open run folder. No other process trains in it while this lives.
pub struct RunFolder {
    /// The folder.
    pub root: PathBuf,
    /// Whether the run that is in it goes on.
    pub resumes: bool,
    /// The settings that the run was begun with, where it goes on and they are known.
    pub previous: Option<RunConfig>,
    /// Settings whose change was accepted.
    pub accepted: Vec<String>,
    /// What a person should know of how the run goes on.
    pub notes: Vec<String>,
    /// Held as long as this lives; `None` on file systems without locks.
    lock: Option<File>,
}

const CONFIG: &str = "config.toml";
const EVENTS: &str = "events.jsonl";
const LOCK: &str = "run.lock";

/// What a run leaves in its folder, but for its lock.
const RUN_ENTRIES: [&str; 12] = [
    CONFIG,
    "data.json",
    "checkpoints",
    "best",
    "last",
    "model",
    "eval.json",
    "queries.json",
    "report",
    "report.html",
    "tensorboard",
    // The last: until it is gone, the folder holds a run that may be overwritten.
    EVENTS,
];

impl RunFolder {
    /// Whether a run can begin, or go on, in its folder; changes nothing.
    ///
    /// # Errors
    /// A folder that holds a run already or belongs to another process, nothing to go on from, or
    /// settings that are not those of the run.
    pub fn check(config: &RunConfig, options: &RunOptions) -> Result<(), TrainError> {
        check_names(&options.accepted)?;
        let root = &config.run.dir;
        if root.join(LOCK).is_file() {
            // Given back at once: the run is prepared first.
            lock(root)?;
        }
        match options.existing {
            Existing::Refuse if holds_run(root) => Err(TrainError::Refused(format!(
                "{} already holds a run; go on with it by --resume, replace it by --overwrite, or \
                 name another folder by --set run.dir=…",
                root.display()
            ))),
            Existing::Refuse | Existing::Overwrite => Ok(()),
            Existing::Resume => {
                if checkpoint::list(root)?.is_empty() && !is_before_checkpoints(root) {
                    return Err(TrainError::Refused(format!(
                        "{} holds no checkpoint to resume from; begin without --resume, or name the run's folder by \
                         --set run.dir=…",
                        root.display()
                    )));
                }
                let mut changes = setting_changes(root, config)?;
                changes.accept(&options.accepted);
                refuse(root, &changes)
            }
        }
    }

    /// Opens the folder of a run and its event log. What earlier processes left half-written is
    /// cleared. [`Self::record`] is to follow once nothing can be refused any more.
    ///
    /// # Errors
    /// As [`Self::check`], data that is not that of the run, and whatever the file system says.
    pub fn open(
        config: &RunConfig,
        data: &DataRecord,
        options: &RunOptions,
    ) -> Result<(Self, EventLog), TrainError> {
        let root = config.run.dir.clone();
        std::fs::create_dir_all(&root).map_err(TrainError::io("create", &root))?;
        let lock = lock(&root)?;
        // Another process may have come between.
        Self::check_held(config, options)?;
        let resumes = options.existing == Existing::Resume;
        let mut folder = Self {
            root,
            resumes,
            previous: None,
            accepted: Vec::new(),
            notes: Vec::new(),
            lock,
        };
        if resumes {
            folder.go_on(config, data, options)?;
        } else if holds_run(&folder.root) {
            for entry in RUN_ENTRIES {
                remove(&folder.root.join(entry))?;
            }
        }
        folder.sign()?;
        folder.clear_leftovers()?;
        let events = folder.root.join(EVENTS);
        let log = match resumes {
            true => EventLog::append(&events),
            false => EventLog::create(&events),
        };
        let log = log.map_err(TrainError::io("open", &events))?;
        Ok((folder, log))
    }

    /// Writes the resolved config of the run and what its data holds: what it goes on with from now on.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn record(&self, config: &RunConfig, data: &DataRecord) -> Result<(), TrainError> {
        data.write(&self.root)?;
        write_beside(&self.root.join(CONFIG), &config.to_toml_string()?)
    }

    fn check_held(config: &RunConfig, options: &RunOptions) -> Result<(), TrainError> {
        match options.existing {
            Existing::Refuse if holds_run(&config.run.dir) => {
                let options = RunOptions::default();
                Self::check(config, &options)
            }
            _ => Ok(()),
        }
    }

    /// Compares settings and data with those that the run was begun with, and notes what may differ.
    fn go_on(
        &mut self,
        config: &RunConfig,
        data: &DataRecord,
        options: &RunOptions,
    ) -> Result<(), TrainError> {
        let mut changes = setting_changes(&self.root, config)?;
        self.previous = earlier_config(&self.root)?;
        if let Some(previous) = DataRecord::read(&self.root)? {
            changes.refused.extend(previous.changes(data));
        }
        self.accepted = changes.accept(&options.accepted);
        refuse(&self.root, &changes)?;
        if !changes.told.is_empty() {
            self.notes.push(format!(
                "goes on with other settings than it was begun with: {}",
                listed(&changes.told)
            ));
        }
        Ok(())
    }

    /// Writes into the lock who holds it.
    fn sign(&mut self) -> Result<(), TrainError> {
        let Some(file) = &mut self.lock else {
            return Ok(());
        };
        let holder = Holder {
            host: System::host_name().unwrap_or_else(|| "this host".into()),
            process: std::process::id(),
        };
        let text = serde_json::to_string(&holder).unwrap_or_default() + "\n";
        file.set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(TrainError::io("write", &self.root.join(LOCK)))
    }

    fn clear_leftovers(&mut self) -> Result<(), TrainError> {
        let whole = |folder: &Path| checkpoint::check(folder).is_ok();
        let mut cleared = recover(&self.root.join("checkpoints"), whole)?;
        cleared.extend(recover(&self.root, |_| true)?);
        cleared.extend(recover(&self.root.join("report"), |_| true)?);
        if !cleared.is_empty() {
            self.notes.push(format!(
                "cleared what earlier processes left half-written: {}",
                cleared.join(", ")
            ));
        }
        Ok(())
    }
}

/// Refuses to measure a finished run with a split, a seed or data that it was not trained with,
/// unless `accepted` names what differs.
///
/// # Errors
/// Names what differs, and how it is accepted.
pub fn check_measured(
    root: &Path,
    config: &RunConfig,
    data: &DataRecord,
    accepted: &[String],
) -> Result<Vec<Change>, TrainError> {
    check_names(accepted)?;
    let mut changes = match earlier_config(root)? {
        Some(previous) => Changes::of_split(&previous, config)?,
        None => Changes::default(),
    };
    if let Some(previous) = DataRecord::read(root)? {
        changes.refused.extend(previous.changes(data));
    }
    changes.accept(accepted);
    if changes.refused.is_empty() {
        return Ok(changes.told);
    }
    Err(TrainError::Refused(format!(
        "{} was trained with other data: {}. Notes that it is measured on may be notes that it was \
         trained on; to measure it all the same: {}",
        root.display(),
        listed(&changes.refused),
        flags(&changes.refused)
    )))
}

/// How the settings that the run in a folder was begun with differ from `config`, where they change what
/// is learnt or measured; nothing where no run is known.
///
/// # Errors
/// A config in the folder that cannot be read.
pub fn other_settings(root: &Path, config: &RunConfig) -> Result<Vec<Change>, TrainError> {
    let changes = setting_changes(root, config)?;
    Ok([changes.brought, changes.refused, changes.told].concat())
}

/// Whether a run was begun in the folder and has not written a checkpoint yet.
fn is_before_checkpoints(root: &Path) -> bool {
    let saved = |line: &str| line.starts_with("{\"event\":\"checkpoint_saved\"");
    let log = std::fs::read_to_string(root.join(EVENTS)).unwrap_or_default();
    root.join(LOCK).is_file() && !log.lines().any(saved)
}

fn holds_run(root: &Path) -> bool {
    root.join(EVENTS).is_file()
}

/// The settings that the run in a folder was begun with; `None` where nothing is known of them.
///
/// # Errors
/// A config in the folder that cannot be read.
pub fn earlier_config(root: &Path) -> Result<Option<RunConfig>, TrainError> {
    let path = root.join(CONFIG);
    let known = path.is_file().then(|| RunConfig::load(&path, &[]));
    Ok(known.transpose()?)
}

fn setting_changes(root: &Path, config: &RunConfig) -> Result<Changes, TrainError> {
    match earlier_config(root)? {
        Some(previous) => Changes::of_run(&previous, config),
        None => Ok(Changes::default()),
    }
}

/// Refuses changes that would be read by nobody, or that make another run of it.
fn refuse(root: &Path, changes: &Changes) -> Result<(), TrainError> {
    let (brought, refused) = (&changes.brought, &changes.refused);
    if brought.is_empty() && refused.is_empty() {
        return Ok(());
    }
    let root = root.display();
    let all = [brought.as_slice(), refused.as_slice()].concat();
    let of_model = if brought.is_empty() {
        ""
    } else {
        " of the model"
    };
    let mut message = format!(
        "{root} was begun with other settings{of_model}: {}.",
        listed(&all)
    );
    if !brought.is_empty() {
        message += " A checkpoint brings its model, tokenizer and prompts with it.";
    }
    message += &format!(
        " Go on with `mlrm train {root}/config.toml --resume`, or begin a new run by --set run.dir=…"
    );
    if !refused.is_empty() {
        message += &format!("; to go on all the same: {}", flags(refused));
    }
    Err(TrainError::Refused(message))
}

/// Who holds a run folder.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    host: String,
    process: u32,
}

/// Takes the lock of a run folder; `None` where the file system has none.
fn lock(root: &Path) -> Result<Option<File>, TrainError> {
    let path = root.join(LOCK);
    let mut options = File::options();
    options.read(true).write(true).truncate(false).create(true);
    let mut file = options.open(&path).map_err(TrainError::io("lock", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text).ok();
            let holder = read.and_then(|_| serde_json::from_str::<Holder>(&text).ok());
            let holder = match holder {
                Some(Holder { host, process }) => format!("process {process} on {host}"),
                None => "another process".into(),
            };
            return Err(TrainError::Refused(format!(
                "{} is in use: {holder} trains in it; stop that one first, or name another folder by \
                 --set run.dir=…",
                root.display()
            )));
        }
        // A file system without locks is no reason not to train.
        Err(TryLockError::Error(_)) => return Ok(None),
    }
    Ok(Some(file))
}
