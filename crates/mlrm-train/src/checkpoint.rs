//! Checkpoints: model, optimiser and the place in the run, written beside and renamed into place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_data::order::Cursor;
use mlrm_model::checksums::{CHECKSUMS, Checksums, verify};
use mlrm_model::embedder::{Embedder, Provenance};
use mlrm_model::weights::{Checkpoint, WriteOptions, write_each};
use serde::{Deserialize, Serialize};

use crate::corpus::Encoding;
use crate::error::TrainError;
use crate::folders::{entries, remove, replace_folder};
use crate::loss_scale::LossScale;
use crate::optimiser::{AdamW, Moments};
use crate::plan::prompt_record;
use crate::watch::Watched;

/// Everything besides weights and moments that a run needs to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps taken.
    pub step: usize,
    /// Optimiser updates taken (refused steps are not updates).
    pub updates: usize,
    /// Where the data order stands.
    pub cursor: Cursor,
    /// Best validation score so far, and the step that reached it.
    pub best: Option<(f64, usize)>,
    /// Seconds that training has taken, pauses left out.
    pub seconds: f64,
    /// What learning rates are multiplied by: 1, or less after a run that diverged went back.
    #[serde(default = "one")]
    pub rate_factor: f64,
    /// Whether the step was due to be measured on the validation notes and was not yet.
    #[serde(default)]
    pub validation_due: bool,
    /// Settings whose change was accepted when the run went on.
    #[serde(default)]
    pub accepted: Vec<String>,
    /// Loss scaling, of a model in f16.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// Notes that the run holds at a time at most, since its device ran out of memory.
    #[serde(default)]
    pub most_notes_held: Option<usize>,
    /// What its warnings hang on.
    #[serde(default)]
    pub watched: Watched,
    /// Version of the checkpoint's format; 0 before it was written down.
    #[serde(default)]
    pub format: u32,
}

/// The format that this version writes.
const FORMAT: u32 = 1;

/// From this format on, a checkpoint has checksums.
const CHECKED_FORMAT: u32 = 1;

fn one() -> f64 {
    1.0
}

impl Default for RunState {
    fn default() -> Self {
        Self {
            step: 0,
            updates: 0,
            cursor: Cursor::default(),
            best: None,
            seconds: 0.0,
            rate_factor: 1.0,
            validation_due: false,
            accepted: Vec::new(),
            loss_scale: None,
            most_notes_held: None,
            watched: Watched::default(),
            format: FORMAT,
        }
    }
}

const CHECKPOINTS: &str = "checkpoints";
const STATE: &str = "state.json";
const OPTIMISER: &str = "optimiser.safetensors";

/// Writes the model folder `root`: weights, configs, tokenizer, preprocessor, template. `previous` is
/// a model folder of the same run, to share on disk what training does not change.
///
/// # Errors
/// What cannot be read from the device, or written.
pub fn write_model(
    root: &Path,
    embedder: &Embedder,
    encoding: &Encoding,
    provenance: &Provenance,
    previous: Option<&Path>,
) -> Result<(), TrainError> {
    replace_folder(root, |folder| {
        let record = prompt_record(encoding);
        let weights = WriteOptions::default();
        embedder.write(folder, &record, provenance, weights, previous)?;
        encoding.tokenizer.save(&folder.join("llm"))?;
        if let Some(preprocessor) = &encoding.preprocessor {
            preprocessor.config().save(&folder.join("vision"))?;
        }
        if let Some(template) = &encoding.prompt.template_file {
            let copy = folder.join("template.toml");
            std::fs::copy(template, &copy).map_err(TrainError::io("write", &copy))?;
        }
        Ok(Checksums::write(folder, previous)?)
    })
}

/// Writes `checkpoints/step-N` of a run, with the checksums of its files, and returns its path relative to the run folder.
///
/// # Errors
/// What cannot be read from the device, or written; nothing half-written is left.
pub fn save(
    run: &Path,
    embedder: &Embedder,
    encoding: &Encoding,
    optimiser: &AdamW,
    state: &RunState,
    provenance: &Provenance,
    previous: Option<&Path>,
) -> Result<PathBuf, TrainError> {
    let relative = folder_of(state.step);
    replace_folder(&run.join(&relative), |folder| {
        let model = folder.join("model");
        write_model(&model, embedder, encoding, provenance, previous)?;
        write_moments(&folder.join(OPTIMISER), optimiser)?;
        let path = folder.join(STATE);
        let state = RunState {
            format: FORMAT,
            ..state.clone()
        };
        let text = serde_json::to_string_pretty(&state)
            .map_err(|e| TrainError::io("write", &path)(e.into()))?;
        std::fs::write(&path, text).map_err(TrainError::io("write", &path))?;
        let previous = previous.and_then(Path::parent);
        Ok(Checksums::write(folder, previous)?)
    })?;
    Ok(relative)
}

/// Writes the moments, one at a time: all of them take as much memory again as the optimiser.
fn write_moments(path: &Path, optimiser: &AdamW) -> Result<(), TrainError> {
    let moments = optimiser.moments.iter().flat_map(|(name, moments)| {
        let both = [("first", &moments.first), ("second", &moments.second)];
        let master = moments.master.iter().map(|master| ("master", master));
        both.into_iter()
            .chain(master)
            .map(move |(kind, tensor)| (format!("{name}.{kind}"), tensor))
    });
    let shapes = moments
        .clone()
        .map(|(name, tensor)| (name, tensor.dims().to_vec()));
    let values = moments.map(|(name, tensor)| {
        let values = tensor.clone().try_into_vec_as::<f32>();
        let values = values.map_err(|e| {
            TrainError::device(format!("moment `{name}` cannot be read from the device"), e)
        });
        values.map(Cow::Owned)
    });
    write_each(path, shapes.collect(), values)
}

/// Reads the optimiser from a checkpoint folder at `state`; the weights are read by
/// [`crate::plan::open_model`] from `model/` in it.
///
/// # Errors
/// A file that cannot be read, or lacks a moment.
pub fn load(
    folder: &Path,
    state: &RunState,
    optimiser: &mut AdamW,
    device: &Device,
) -> Result<(), TrainError> {
    let tensors = Checkpoint::open(&folder.join(OPTIMISER))?;
    let device = device.clone().without_autodiff();
    let mut moments = BTreeMap::new();
    for name in tensors
        .names()
        .filter_map(|name| name.strip_suffix(".first"))
    {
        let read = |kind: &str| -> Result<Option<Tensor<1>>, TrainError> {
            let stored = tensors.get(&format!("{name}.{kind}"))?;
            Ok(stored.map(|stored| {
                let count = stored.values.len();
                let data = TensorData::new(stored.values, [count]);
                Tensor::from_data(data, (&device, DType::F32))
            }))
        };
        let required = |kind: &str| {
            read(kind)?
                .ok_or_else(|| TrainError::file(folder, format!("`{name}.{kind}` is missing")))
        };
        let all = Moments {
            first: required("first")?,
            second: required("second")?,
            master: read("master")?,
        };
        moments.insert(name.to_owned(), all);
    }
    optimiser.moments = moments;
    optimiser.updates = state.updates;
    Ok(())
}

/// The checkpoints of a run, the newest first: the step in the name, and the folder.
///
/// # Errors
/// A folder that cannot be listed.
pub fn list(run: &Path) -> Result<Vec<(usize, PathBuf)>, TrainError> {
    let step = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let step = name.strip_prefix("step-")?.parse().ok()?;
        Some((step, path))
    };
    let entries = entries(&run.join(CHECKPOINTS))?;
    let mut found: Vec<_> = entries.into_iter().filter_map(step).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The folder of the checkpoint of `step`, relative to the run folder.
pub fn folder_of(step: usize) -> PathBuf {
    Path::new(CHECKPOINTS).join(format!("step-{step}"))
}

/// The step of the checkpoint that the link `name` of a run points at, whether it is there or not.
pub fn linked_step(run: &Path, name: &str) -> Option<usize> {
    let link = run.join(name);
    #[cfg(unix)]
    let target = std::fs::read_link(link).ok()?;
    #[cfg(not(unix))]
    let target = PathBuf::from(std::fs::read_to_string(link).ok()?);
    target
        .file_name()?
        .to_str()?
        .strip_prefix("step-")?
        .parse()
        .ok()
}

/// Reads the place in the run from a checkpoint folder, every file of which is checked against what
/// was written.
///
/// # Errors
/// Names the files that are damaged.
pub fn check(folder: &Path) -> Result<RunState, TrainError> {
    let path = folder.join(STATE);
    let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    let state: RunState =
        serde_json::from_str(&text).map_err(|e| TrainError::file(&path, e.to_string()))?;
    if state.format > FORMAT {
        return Err(TrainError::file(
            &path,
            format!(
                "format {} is newer than the format {FORMAT} that this version reads",
                state.format
            ),
        ));
    }
    let sums = folder.join(CHECKSUMS);
    if state.format >= CHECKED_FORMAT && !sums.is_file() {
        return Err(TrainError::file(&sums, "it is missing"));
    }
    verify(folder)?;
    Ok(state)
}

/// Removes all but the newest `keep` checkpoints up to the step `newest`; never those in `spared`.
/// What lies beyond was passed over, and is not a reason to remove one that was not.
///
/// # Errors
/// A folder that cannot be listed or removed.
pub fn prune(
    run: &Path,
    newest: usize,
    keep: usize,
    spared: Option<usize>,
) -> Result<(), TrainError> {
    let kept = list(run)?.into_iter().filter(|(step, _)| *step <= newest);
    kept.skip(keep.max(1))
        .filter(|(step, _)| Some(*step) != spared)
        .try_for_each(|(_, path)| remove(&path))
}
