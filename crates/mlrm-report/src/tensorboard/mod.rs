//! TensorBoard event files: scalars, gate histograms, and the saliency heat map as a picture.
//!
//! A file is a sequence of TFRecords, each holding one `tensorflow.Event` protocol buffer. Both are
//! small and stable, so they are encoded here by hand.

mod heat_map;
mod proto;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mlrm_events::{
    EmbeddingProbe, Evaluation, Event, EventSink, GateHistogram, Saliency, Stamped, System,
    TrainStep, means,
};

use proto::{Histogram, Picture, Value};

/// Writes a run's events into a folder that `tensorboard --logdir` reads.
#[derive(Debug)]
pub struct TensorBoardWriter {
    path: PathBuf,
    file: File,
}

impl TensorBoardWriter {
    /// Starts a new event file in `folder`, which is made where it is missing. Earlier files stay:
    /// TensorBoard reads them all as one run.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(folder: impl AsRef<Path>) -> io::Result<Self> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder)?;
        let now = crate::unix_time();
        // TensorBoard takes the files in the order of their names; the process keeps two runs of
        // the same second apart.
        let name = format!(
            "events.out.tfevents.{:010}.mlrm.{}",
            now as u64,
            std::process::id()
        );
        let path = folder.join(name);
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let mut writer = Self { path, file };
        writer.write(proto::file_version(now))?;
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, event: Vec<u8>) -> io::Result<()> {
        self.file
            .write_all(&record::framed(&event))
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
            })
    }

    fn write_values(&mut self, time_seconds: f64, step: u64, values: &[Value]) -> io::Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.write(proto::summary(time_seconds, step, values))
    }
}

impl EventSink for TensorBoardWriter {
    fn emit(&mut self, stamped: &Stamped) -> io::Result<()> {
        let (step, values) = match &stamped.event {
            Event::RunStarted(started) => {
                return match started.resumed_from_step {
                    // Tells TensorBoard to drop what an earlier process wrote past this step.
                    Some(step) => self.write(proto::session_start(stamped.time_seconds, step + 1)),
                    None => Ok(()),
                };
            }
            Event::TrainStep(step) => (step.step, train_step(step)),
            Event::GateHistogram(gate) => (gate.step, vec![gate_histogram(gate)]),
            Event::Evaluation(evaluation) => (evaluation.step, evaluation_values(evaluation)),
            Event::Saliency(saliency) => (saliency.step, saliency_values(saliency)?),
            Event::EmbeddingProbe(probe) => (probe.step, embedding_values(probe)),
            Event::System(system) => (system.step, system_values(system)),
            Event::AttentionMass(_)
            | Event::Preflight(_)
            | Event::CheckpointSaved(_)
            | Event::Warning(_)
            | Event::Control(_)
            | Event::RunEnded(_)
            | Event::Unknown(_) => return Ok(()),
        };
        self.write_values(stamped.time_seconds, step, &values)
    }
}

fn scalar(tag: impl Into<String>, value: f64) -> Value {
    Value::Scalar {
        tag: tag.into(),
        value: value as f32,
    }
}

fn train_step(step: &TrainStep) -> Vec<Value> {
    let mut values = vec![
        scalar("train/loss", step.loss),
        scalar("train/loss_multimodal", step.loss_multimodal),
        scalar("train/learning_rate", step.learning_rate),
        scalar("train/temperature", (-step.temperature_logit).exp()),
        scalar("train/gradient_norm", step.gradient_norm),
        scalar("train/epoch", step.epoch),
        scalar("speed/notes_per_second", step.notes_per_second),
    ];
    let visual = step.loss_visual;
    values.extend(visual.map(|loss| scalar("train/loss_visual", loss)));
    values.extend(step.gate_mean.map(|gate| scalar("train/gate_mean", gate)));
    let phases = step.seconds_by_phase.iter();
    values.extend(phases.map(|(phase, seconds)| scalar(format!("seconds/{phase}"), *seconds)));
    values
}

/// Under `probe`: uniformity and alignment under `embeddings` are those of evaluations.
fn embedding_values(probe: &EmbeddingProbe) -> Vec<Value> {
    let mut values = vec![
        scalar("probe/positive_similarity", probe.positive_similarity),
        scalar("probe/negative_similarity", probe.negative_similarity),
        scalar("probe/effective_rank", probe.effective_rank),
        scalar("probe/uniformity", probe.uniformity),
        scalar("probe/alignment", probe.alignment),
    ];
    let share = probe.picture_share;
    values.extend(share.map(|share| scalar("probe/picture_share", share)));
    let gate = probe.gate_mean;
    values.extend(gate.map(|gate| scalar("probe/gate_mean", gate)));
    values
}

fn system_values(system: &System) -> Vec<Value> {
    let mut values = vec![
        scalar("machine/host_memory_bytes", system.host_memory_bytes as f64),
        scalar("machine/host_cpu_percent", system.host_cpu_percent),
    ];
    let memory = system.device_memory_bytes.map(|bytes| bytes as f64);
    values.extend(memory.map(|bytes| scalar("machine/device_memory_bytes", bytes)));
    let used = system.device_use_percent;
    values.extend(used.map(|percent| scalar("machine/device_use_percent", percent)));
    values
}

fn evaluation_values(evaluation: &Evaluation) -> Vec<Value> {
    let split = crate::describe::split(evaluation.split);
    let slices = evaluation.slices.iter();
    let own = slices.map(|(slice, metrics)| (format!("{split}_{slice}"), metrics));
    let baselines = evaluation
        .baselines
        .iter()
        .filter_map(|(baseline, slices)| {
            Some((format!("{split}_baseline_{baseline}"), slices.get("all")?))
        });
    let mut values = Vec::new();
    for (tag, metrics) in own.chain(baselines) {
        let metrics = means(metrics);
        values.extend(metrics.map(|(name, value)| scalar(format!("{tag}/{name}"), value)));
    }
    let geometry = [
        ("embeddings/uniformity", evaluation.uniformity),
        ("embeddings/alignment", evaluation.alignment),
    ];
    let measured = geometry.into_iter();
    values.extend(measured.filter_map(|(tag, value)| Some(scalar(tag, value?))));
    values
}

fn gate_histogram(gate: &GateHistogram) -> Value {
    Value::Histogram {
        tag: "gate".into(),
        histogram: Histogram::over_unit_interval(&gate.counts),
    }
}

fn saliency_values(saliency: &Saliency) -> io::Result<Vec<Value>> {
    let Some(picture) = heat_map::picture(&saliency.layers)? else {
        return Ok(Vec::new());
    };
    let tag = format!("saliency/{}", saliency.formula);
    Ok(vec![Value::Picture { tag, picture }])
}

/// A PNG with its size.
fn png(image: &image::RgbImage) -> io::Result<Picture> {
    let mut encoded = io::Cursor::new(Vec::new());
    image
        .write_to(&mut encoded, image::ImageFormat::Png)
        .map_err(io::Error::other)?;
    Ok(Picture {
        width: image.width(),
        height: image.height(),
        png: encoded.into_inner(),
    })
}
