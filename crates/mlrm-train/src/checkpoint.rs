//! Checkpoints: model, optimiser and the place in the run, written beside and renamed into place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_data::order::Cursor;
use mlrm_model::embedder::{Embedder, Provenance};
use mlrm_model::weights::{Checkpoint, WriteOptions, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::corpus::Encoding;
use crate::error::TrainError;
use crate::optimiser::{AdamW, Moments};
use crate::plan::prompt_record;

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
    /// Seconds that training has taken.
    pub seconds: f64,
}

const STATE: &str = "state.json";
const OPTIMISER: &str = "optimiser.safetensors";

/// Writes the model folder `root`: weights, configs, tokenizer, preprocessor, template. `earlier` is
/// a model folder of the same run, to share on disk what training does not change.
pub fn write_model(
    root: &Path,
    embedder: &Embedder,
    encoding: &Encoding,
    provenance: &Provenance,
    earlier: Option<&Path>,
) -> Result<(), TrainError> {
    replace_folder(root, |folder| {
        let record = prompt_record(encoding);
        let weights = WriteOptions::default();
        embedder.write(folder, &record, provenance, weights, earlier)?;
        encoding.tokenizer.save(&folder.join("llm"))?;
        if let Some(preprocessor) = &encoding.preprocessor {
            preprocessor.config().save(&folder.join("vision"))?;
        }
        if let Some(template) = &encoding.prompt.template_file {
            let copy = folder.join("template.toml");
            std::fs::copy(template, &copy).map_err(TrainError::io("write", &copy))?;
        }
        Ok(())
    })
}

/// Writes `checkpoints/step-N` of a run and returns its path relative to the run folder.
pub fn save(
    run: &Path,
    embedder: &Embedder,
    encoding: &Encoding,
    optimiser: &AdamW,
    state: &RunState,
    provenance: &Provenance,
    earlier: Option<&Path>,
) -> Result<PathBuf, TrainError> {
    let relative = PathBuf::from("checkpoints").join(format!("step-{}", state.step));
    replace_folder(&run.join(&relative), |folder| {
        let model = folder.join("model");
        write_model(&model, embedder, encoding, provenance, earlier)?;
        let moments = optimiser.moments.iter().flat_map(|(name, moments)| {
            let both = [("first", &moments.first), ("second", &moments.second)];
            let master = moments.master.iter().map(|master| ("master", master));
            both.into_iter()
                .chain(master)
                .map(move |(kind, tensor)| (format!("{name}.{kind}"), tensor.clone()))
        });
        let tensors: Result<Vec<_>, TrainError> = moments
            .map(|(name, tensor)| {
                let values = tensor.try_into_vec_as::<f32>();
                let values = values.map_err(|e| {
                    TrainError::Run(format!(
                        "moment `{name}` cannot be read from the device: {e:?}"
                    ))
                })?;
                Ok((name, vec![values.len()], values))
            })
            .collect();
        write_safetensors(&folder.join(OPTIMISER), &tensors?)?;
        let path = folder.join(STATE);
        let text = serde_json::to_string_pretty(state)
            .map_err(|e| TrainError::Run(format!("{} cannot be written: {e}", path.display())))?;
        std::fs::write(&path, text).map_err(TrainError::io("write", &path))
    })?;
    Ok(relative)
}

/// Reads the optimiser and the place in the run from a checkpoint folder; its weights are read by
/// [`crate::plan::open_model`] from `model/` in it.
pub fn load(folder: &Path, optimiser: &mut AdamW, device: &Device) -> Result<RunState, TrainError> {
    let path = folder.join(STATE);
    let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    let state: RunState = serde_json::from_str(&text)
        .map_err(|e| TrainError::Run(format!("{}: {e}", path.display())))?;
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
            read(kind)?.ok_or_else(|| {
                TrainError::Run(format!("{}: `{name}.{kind}` is missing", folder.display()))
            })
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
    Ok(state)
}

/// Points the link `run/name` at `target` (relative to the run folder).
pub fn point(run: &Path, name: &str, target: &Path) -> Result<(), TrainError> {
    let link = run.join(name);
    let beside = run.join(format!(".{name}.tmp"));
    let _absent = std::fs::remove_file(&beside);
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(target, &beside);
    // Where links need rights of their own, a file that names the folder stands in.
    #[cfg(not(unix))]
    let made = std::fs::write(&beside, target.to_string_lossy().as_bytes());
    made.and_then(|()| std::fs::rename(&beside, &link))
        .map_err(TrainError::io("link", &link))
}

/// Removes all but the newest `keep` checkpoints; never those in `spared`.
pub fn prune(run: &Path, keep: usize, spared: &[usize]) -> Result<(), TrainError> {
    let folder = run.join("checkpoints");
    let entries = std::fs::read_dir(&folder).map_err(TrainError::io("read", &folder))?;
    let step = |entry: std::fs::DirEntry| -> Option<usize> {
        entry
            .file_name()
            .to_str()?
            .strip_prefix("step-")?
            .parse()
            .ok()
    };
    let mut steps: Vec<usize> = entries.filter_map(|e| e.ok().and_then(step)).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    for step in steps
        .into_iter()
        .skip(keep.max(1))
        .filter(|s| !spared.contains(s))
    {
        let path = folder.join(format!("step-{step}"));
        std::fs::remove_dir_all(&path).map_err(TrainError::io("remove", &path))?;
    }
    Ok(())
}

/// Fills a folder beside `path` and renames it into place, replacing what was there.
pub fn replace_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(TrainError::io("create", parent))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    // Readable by others as any folder is; a temporary one is its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let beside = builder
        .tempdir_in(parent)
        .map_err(TrainError::io("create a folder in", parent))?;
    fill(beside.path())?;
    // The old folder steps aside first, so that a kill in between loses neither.
    let aside = path.with_extension("replaced");
    let replaces = path.exists();
    if replaces {
        std::fs::rename(path, &aside).map_err(TrainError::io("replace", path))?;
    }
    std::fs::rename(beside.path(), path).map_err(TrainError::io("create", path))?;
    if replaces {
        std::fs::remove_dir_all(&aside).map_err(TrainError::io("remove", &aside))?;
    }
    // The folder has its final name: there is nothing left to clean up.
    let _renamed = beside.keep();
    Ok(())
}
