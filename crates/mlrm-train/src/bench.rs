//! Speed of training, measured as `mlrm bench train` reports it.

use std::sync::Arc;
use std::time::Instant;

use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::{LoaderSettings, PairBatches};
use mlrm_data::order::Cursor;
use mlrm_events::Named;
use mlrm_model::weights::parameter_count;
use serde::Serialize;

use crate::corpus::Modality;
use crate::error::TrainError;
use crate::optimiser::AdamW;
use crate::plan::RunPlan;
use crate::step::{StepContext, train_step};

/// Medians over the measured steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainBench {
    /// `train`.
    pub what: &'static str,
    /// Device name.
    pub device: String,
    /// Number format.
    pub dtype: String,
    /// Sizes of the model and the batch.
    pub shape: Named<usize>,
    /// Notes trained on a second.
    pub notes_per_second: f64,
    /// Positions of the language model a second, visual tokens and padding included.
    pub tokens_per_second: f64,
    /// A step, without waiting for data.
    pub seconds_per_step: f64,
    /// Phase → seconds.
    pub seconds_by_phase: Named<f64>,
    /// Largest resident memory of the process.
    pub peak_host_bytes: u64,
    /// Device memory, where the backend tells.
    pub peak_device_bytes: Option<u64>,
    /// Model FLOPs utilisation, where the device's matrix rate is known.
    pub mfu: Option<f64>,
    /// Measured steps.
    pub runs: usize,
    /// (slowest − fastest) / median.
    pub spread: f64,
}

/// Takes `warmup` steps, then measures `runs` of them.
pub fn bench_train(
    mut plan: RunPlan,
    warmup: usize,
    runs: usize,
) -> Result<TrainBench, TrainError> {
    let config = plan.config.clone();
    let variant = plan.embedder.config.variant;
    let encoder = plan
        .encoding
        .encoder(&plan.notes, variant, Modality::Both)?;
    let pairs = Arc::from(plan.pairs.pairs.train.as_slice());
    let loader = LoaderSettings::new(&config.data, &config.train);
    let cursor = Cursor::default();
    let mut batches = PairBatches::new(Arc::new(encoder), pairs, config.run.seed, cursor, loader)?;
    let budget = encoder_budget(&plan)?;
    let mut optimiser = AdamW::new(&config.train);
    let context = StepContext {
        sync_phases: true,
        ..StepContext::new(&plan)
    };
    let mut steps = Vec::new();
    let mut positions = 0;
    for index in 0..warmup + runs {
        let ended = || TrainError::Run("the data loader ended before the measurement did".into());
        let (_, mut batch) = batches.next().ok_or_else(ended)??;
        fill_to(&mut batch, budget);
        positions = batch.seq + plan.encoding.visual_tokens.saturating_sub(1);
        let begin = Instant::now();
        let rate = config.train.learning_rate;
        let stats = train_step(
            &mut plan.embedder,
            &mut optimiser,
            batch,
            rate,
            &context,
            false,
        )?;
        if index >= warmup {
            steps.push((begin.elapsed().as_secs_f64(), stats.seconds_by_phase));
        }
    }
    let seconds = median(steps.iter().map(|(seconds, _)| *seconds).collect());
    let phases = steps
        .first()
        .map(|(_, phases)| phases.keys())
        .into_iter()
        .flatten();
    let phase = |name: &String| {
        let all = steps
            .iter()
            .filter_map(|(_, phases)| phases.get(name).copied());
        (name.clone(), median(all.collect()))
    };
    let fastest = steps.iter().map(|s| s.0).fold(f64::INFINITY, f64::min);
    let slowest = steps.iter().map(|s| s.0).fold(0.0, f64::max);
    let notes = 2 * config.train.batch_pairs;
    Ok(TrainBench {
        what: "train",
        device: config.backend.device.names().join(", "),
        dtype: format!("{:?}", config.backend.dtype).to_lowercase(),
        shape: shape(&plan, positions),
        notes_per_second: notes as f64 / seconds,
        tokens_per_second: (notes * positions) as f64 / seconds,
        seconds_per_step: seconds,
        seconds_by_phase: phases.map(phase).collect(),
        peak_host_bytes: peak_resident_bytes(),
        peak_device_bytes: None,
        mfu: None,
        runs,
        spread: (slowest - fastest) / seconds,
    })
}

/// Ids of a prompt that uses the whole token budget.
fn encoder_budget(plan: &RunPlan) -> Result<usize, TrainError> {
    let variant = plan.embedder.config.variant;
    let encoder = plan
        .encoding
        .encoder(&plan.notes, variant, Modality::Both)?;
    let added = match plan.embedder.config.layout {
        _ if !variant.image_tokens() => 0,
        mlrm_config::ImageLayout::Replace => plan.encoding.visual_tokens.saturating_sub(1),
        mlrm_config::ImageLayout::After => plan.encoding.visual_tokens,
    };
    Ok(encoder.prompts().max_tokens().saturating_sub(added))
}

/// Lengthens every prompt to `seq` ids with ordinary words of the batch, so that a measurement
/// depends on the config's sizes and not on how long the notes happen to be.
fn fill_to(batch: &mut NoteBatch, seq: usize) {
    let (old, seq) = (batch.seq, seq.max(batch.seq));
    let mut ids = Vec::with_capacity(batch.notes * seq);
    for (row, &length) in batch.input_ids.chunks_exact(old.max(1)).zip(&batch.lengths) {
        ids.extend_from_slice(&row[..length]);
        // The last id of a prompt is an ordinary one.
        ids.extend(std::iter::repeat_n(row[length - 1], seq - length));
    }
    batch.input_ids = ids;
    batch.lengths = vec![seq; batch.notes];
    batch.seq = seq;
}

fn shape(plan: &RunPlan, positions: usize) -> Named<usize> {
    let llm = &plan.embedder.config.llm;
    let vision = plan.embedder.config.vision.as_ref();
    [
        ("pairs", plan.config.train.batch_pairs),
        ("positions", positions),
        ("llm_hidden_size", llm.hidden_size),
        ("llm_layers", llm.num_hidden_layers),
        ("vocabulary", llm.vocab_size),
        ("vision_hidden_size", vision.map_or(0, |v| v.hidden_size)),
        ("vision_layers", vision.map_or(0, |v| v.num_hidden_layers)),
        ("visual_tokens", plan.encoding.visual_tokens),
        ("trained_parameters", parameter_count(&plan.embedder.core)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The kernel's high-water mark on Linux; 0 where it is not told.
fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
