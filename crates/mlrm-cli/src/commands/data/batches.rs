//! `mlrm data batches CONFIG --out FILE`: what the steps of a run are fed, as another training loop reads it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use miette::{IntoDiagnostic, miette};
use mlrm_config::RunConfig;
use mlrm_data::batch::{NoteBatch, Picture};
use mlrm_data::order::Cursor;
use mlrm_train::TrainError;
use mlrm_train::folders::write_beside;
use mlrm_train::plan::RunPlan;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{print, table};
use crate::commands::model_source::picture_progress;
use crate::commands::{at_least_one, check_place};
use crate::hub;

#[derive(Debug, Args)]
pub(super) struct BatchesArgs {
    /// The TOML file of the run.
    config: PathBuf,
    /// Override a setting; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps, from the first one on [default: all of the run].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    steps: Option<usize>,
    /// The safetensors file to write; it is made in memory.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A tensor that is to be written.
struct HostTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostTensor {
    fn integers(shape: &[usize], values: impl IntoIterator<Item = i64>) -> Self {
        Self {
            dtype: Dtype::I64,
            shape: shape.to_vec(),
            bytes: values.into_iter().flat_map(i64::to_le_bytes).collect(),
        }
    }
}

/// The pictures of all batches, each once.
#[derive(Default)]
struct Pictures {
    /// Which comes at which place.
    places: HashMap<HostPicture, i64>,
}

/// A picture as the vision encoder reads it.
#[derive(PartialEq, Eq, Hash)]
struct HostPicture {
    /// Height and width.
    size: [usize; 2],
    /// Values in f32, `[3, height, width]`.
    values: Vec<u8>,
}

impl Pictures {
    /// Which picture each note of the batch shows; `None` where they show none. `[notes]`
    fn add(&mut self, batch: &NoteBatch) -> miette::Result<Option<Vec<i64>>> {
        let Some(pictures) = &batch.pictures else {
            return Ok(None);
        };
        let place = |picture: &Picture| -> miette::Result<i64> {
            let values = picture.values.as_ref();
            let values = values.ok_or_else(|| miette!("a picture of the batch has no values"))?;
            let bytes: Vec<u8> = values.iter().copied().flat_map(f32::to_le_bytes).collect();
            let next = self.places.len() as i64;
            let picture = HostPicture {
                size: picture.size,
                values: bytes,
            };
            Ok(*self.places.entry(picture).or_insert(next))
        };
        let distinct = pictures.distinct.iter().map(place);
        let distinct: Vec<i64> = distinct.collect::<miette::Result<_>>()?;
        let of_note = pictures.of_note.iter().map(|&at| distinct[at]);
        Ok(Some(of_note.collect()))
    }

    /// `pixel_values` `[pictures, 3, height, width]`; where sizes differ, each picture in a tensor of its own,
    /// `pixel_values.0`, `pixel_values.1`, …, `[3, height, width]`.
    fn tensors(self) -> Vec<(String, HostTensor)> {
        let mut pictures: Vec<(HostPicture, i64)> = self.places.into_iter().collect();
        pictures.sort_unstable_by_key(|(_, place)| *place);
        let tensor = |shape: Vec<usize>, bytes: Vec<u8>| HostTensor {
            dtype: Dtype::F32,
            shape,
            bytes,
        };
        let Some([height, width]) = pictures.first().map(|(picture, _)| picture.size) else {
            return Vec::new();
        };
        if pictures
            .iter()
            .all(|(picture, _)| picture.size == [height, width])
        {
            let shape = vec![pictures.len(), 3, height, width];
            let values = pictures.into_iter().flat_map(|(picture, _)| picture.values);
            return vec![("pixel_values".into(), tensor(shape, values.collect()))];
        }
        let own = |(HostPicture { size, values }, place)| {
            let [height, width] = size;
            let tensor = tensor(vec![3, height, width], values);
            (format!("pixel_values.{place}"), tensor)
        };
        pictures.into_iter().map(own).collect()
    }
}

/// Runs the command.
pub(super) fn run(args: &BatchesArgs) -> miette::Result<ExitCode> {
    check_place(&args.out)?;
    let mut config = RunConfig::load(&args.config, &args.set).map_err(TrainError::from)?;
    hub::resolve(&mut config)?;
    let plan = RunPlan::prepare(config, &picture_progress())?;
    let steps = args.steps.unwrap_or(plan.total_steps);
    if steps == 0 {
        return Err(miette!(
            help = "raise it, or name a number of steps: --steps N",
            "the run takes no step (train.max_steps = 0), so that there is no batch to write"
        ));
    }
    let (tensors, pictures) = collect(&plan, steps)?;
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in &tensors {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        views.push((name.as_str(), view.into_diagnostic()?));
    }
    let bytes = safetensors::serialize(views, None).into_diagnostic()?;
    write_beside(&args.out, bytes)?;
    let counts = [
        ("steps", steps as u64),
        ("notes a step", 2 * plan.config.train.batch_pairs as u64),
        ("pictures", pictures),
    ];
    print(&format!("{} made\n{}", args.out.display(), table(&counts)))
}

/// The tensors by name, and the number of pictures.
fn collect(plan: &RunPlan, steps: usize) -> miette::Result<(Vec<(String, HostTensor)>, u64)> {
    let batches = plan.batches(&plan.encoder()?, Cursor::default())?;
    let mut tensors = Vec::new();
    let mut pictures = Pictures::default();
    for (step, batch) in (1..=steps).zip(batches) {
        let (_, batch) = batch.map_err(TrainError::from)?;
        for (name, tensor) in of_batch(&batch, &mut pictures)? {
            tensors.push((format!("step.{step}.{name}"), tensor));
        }
    }
    let train = &plan.pairs.pairs.train;
    let pairs = train.iter().flat_map(|pair| [pair.query, pair.target]);
    let pairs = HostTensor::integers(&[train.len(), 2], pairs.map(i64::from));
    tensors.push(("train_pairs".into(), pairs));
    let count = pictures.places.len() as u64;
    tensors.extend(pictures.tensors());
    Ok((tensors, count))
}

/// The tensors of a batch: queries first, then their targets in the same order.
fn of_batch(
    batch: &NoteBatch,
    pictures: &mut Pictures,
) -> miette::Result<Vec<(&'static str, HostTensor)>> {
    let prompts: Vec<&[i32]> = batch.input_ids.chunks_exact(batch.seq.max(1)).collect();
    let prompts = batch.at_places(&prompts);
    let rows = batch.at_places(&batch.rows);
    let places = rows.len();
    let ids = prompts.iter().copied().flatten().map(|&id| i64::from(id));
    let mut tensors = vec![
        ("input_ids", HostTensor::integers(&[places, batch.seq], ids)),
        (
            "rows",
            HostTensor::integers(&[places], rows.into_iter().map(i64::from)),
        ),
    ];
    if let Some(of_note) = pictures.add(batch)? {
        let shown = HostTensor::integers(&[places], batch.at_places(&of_note));
        tensors.push(("pictures", shown));
    }
    if !batch.by_text.is_empty() {
        let by_text = batch.at_places(&batch.by_text).into_iter().map(i64::from);
        tensors.push(("by_text", HostTensor::integers(&[places], by_text)));
    }
    Ok(tensors)
}
