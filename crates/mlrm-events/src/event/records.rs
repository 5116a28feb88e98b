//! The fields of each event: plain numbers and names, units in the field names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ModalityShares, Named, Slices};
use crate::number;

/// Bins of a [`GateHistogram`].
pub const GATE_BINS: usize = 20;

/// `run_started`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStarted {
    /// The resolved configuration, as it is saved with the run.
    pub config: Value,
    /// The device, in the words of `mlrm devices`.
    pub device: String,
    /// Program or library name → its version.
    pub versions: Named<String>,
    /// Optimiser steps that the whole run will take.
    pub total_steps: u64,
    /// Training pairs per epoch.
    pub train_pairs: u64,
    /// Notes in the data set.
    pub notes: u64,
    /// Scalars of the model, frozen ones included.
    pub parameters_total: u64,
    /// Scalars that learn.
    pub parameters_trained: u64,
    /// The step of the checkpoint that this process continues; what the log holds past that step
    /// was computed by an earlier process and lost with it.
    pub resumed_from_step: Option<u64>,
    /// Features of pictures that are kept; absent where none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_cache: Option<KeptFeatures>,
}

/// Features of the frozen vision encoder that are kept on disk, as a run finds them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptFeatures {
    /// The folder of this encoder.
    pub folder: String,
    /// Distinct pictures of the notes.
    pub pictures: u64,
    /// Those whose features are not there yet, as far as it is known.
    pub missing: u64,
    /// How many of those will be kept.
    pub will_be_kept: u64,
    /// What that takes.
    pub bytes: u64,
}

/// `train_step`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TrainStep {
    /// Optimiser steps taken, this one included (the first is 1).
    pub step: u64,
    /// Passes over the training pairs so far, as a fraction.
    #[serde(with = "number")]
    pub epoch: f64,
    /// The minimised loss (method §3).
    #[serde(with = "number")]
    pub loss: f64,
    /// L(E_m), its multimodal part.
    #[serde(with = "number")]
    pub loss_multimodal: f64,
    /// L(E_v), its visual part; with mICL only.
    #[serde(default, with = "number")]
    pub loss_visual: Option<f64>,
    /// The learning rate of this step.
    #[serde(with = "number")]
    pub learning_rate: f64,
    /// t: logits are cosine · exp(t).
    #[serde(with = "number")]
    pub temperature_logit: f64,
    /// Mean of the fusion gate z over the batch: 1 keeps the language model's state, 0 the picture.
    #[serde(default, with = "number")]
    pub gate_mean: Option<f64>,
    /// Global L2 norm of the gradient before clipping.
    #[serde(with = "number")]
    pub gradient_norm: f64,
    /// Notes (two a pair) trained on per second of this step.
    #[serde(with = "number")]
    pub notes_per_second: f64,
    /// Phase (`data`, `vision`, `connector`, `llm_forward`, `backward`, `optimiser`, …) → seconds.
    #[serde(default, with = "number")]
    pub seconds_by_phase: Named<f64>,
    /// Pictures that passed through the frozen vision encoder; those whose features were kept did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures_encoded: Option<u64>,
    /// What the step moved between host and device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfers: Option<Transfers>,
}

/// What went between host and device in a [`TrainStep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transfers {
    /// Tensors uploaded to the device.
    pub uploads: u64,
    /// Bytes of these.
    pub uploaded_bytes: u64,
    /// Tensors read back from the device, for each of which the host waits.
    pub reads: u64,
    /// Bytes of these.
    pub read_bytes: u64,
}

/// `gate_histogram`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GateHistogram {
    /// The step after which the gate was read.
    pub step: u64,
    /// How many gate values fall into each of [`GATE_BINS`] equal bins over [0, 1].
    pub counts: [u64; GATE_BINS],
}

/// Which notes an evaluation ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Held out to choose the best model.
    #[default]
    Validation,
    /// Held out from every choice.
    Test,
    /// A split of a newer version.
    #[serde(other)]
    Other,
}

/// `evaluation`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// The step after which the model was evaluated.
    pub step: u64,
    /// Which notes were queries.
    pub split: Split,
    /// Notes that were ranked.
    pub pool: u64,
    /// Notes that were queries.
    pub queries: u64,
    /// The model's metrics.
    #[serde(with = "number")]
    pub slices: Slices,
    /// Baseline name (`bm25`, `text_only`, `image_only`, `popularity`, `random`, …) → its metrics.
    #[serde(with = "number")]
    pub baselines: Named<Slices>,
    /// log E exp(−2‖x − y‖²) over pairs of notes: lower is more evenly spread.
    #[serde(with = "number")]
    pub uniformity: Option<f64>,
    /// E ‖x − y‖² over related pairs: lower is closer together.
    #[serde(with = "number")]
    pub alignment: Option<f64>,
    /// Other numbers of the split, in units of their own, such as a loss.
    #[serde(with = "number", skip_serializing_if = "Named::is_empty")]
    pub figures: Named<f64>,
}

/// `saliency`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Saliency {
    /// The step after which the model was probed.
    pub step: u64,
    /// `abs_then_sum` (published) or `sum_then_abs` (released code).
    pub formula: String,
    /// One entry a layer, the first layer first.
    #[serde(with = "number")]
    pub layers: Vec<ModalityShares>,
    /// What the probe cost.
    #[serde(with = "number")]
    pub seconds: f64,
}

/// `attention_mass`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AttentionMass {
    /// The step after which the model was probed.
    pub step: u64,
    /// One entry a layer, over the same spans as [`Saliency::layers`].
    #[serde(with = "number")]
    pub layers: Vec<ModalityShares>,
    /// What the probe cost.
    #[serde(default, with = "number")]
    pub seconds: f64,
}

/// `embedding_probe`: how the embeddings of a fixed batch of pairs lie to each other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingProbe {
    /// The step after which they were looked at.
    pub step: u64,
    /// Notes of the batch, two a pair.
    pub notes: u64,
    /// Mean cosine of partners.
    #[serde(with = "number")]
    pub positive_similarity: f64,
    /// Mean cosine of notes that are not related.
    #[serde(with = "number")]
    pub negative_similarity: f64,
    /// Directions that the embeddings use: `exp` of the entropy of the singular values' shares.
    #[serde(with = "number")]
    pub effective_rank: f64,
    /// As in [`Evaluation::uniformity`], over notes of the batch that are not related.
    #[serde(with = "number")]
    pub uniformity: f64,
    /// As in [`Evaluation::alignment`], over its pairs.
    #[serde(with = "number")]
    pub alignment: f64,
    /// How far embeddings move when notes show the pictures of others, as a share of how far unrelated
    /// notes lie apart: 0 where pictures are ignored; absent for models that see none.
    #[serde(with = "number")]
    pub picture_share: Option<f64>,
    /// Mean of the fusion gate z over the batch.
    #[serde(with = "number")]
    pub gate_mean: Option<f64>,
    /// t: logits are cosine · exp(t).
    #[serde(with = "number")]
    pub temperature_logit: f64,
    /// What the probe cost.
    #[serde(with = "number")]
    pub seconds: f64,
}

/// `system`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct System {
    /// The newest step.
    pub step: u64,
    /// Resident memory of this process.
    pub host_memory_bytes: u64,
    /// Memory of the machine.
    pub host_memory_total_bytes: u64,
    /// Use of all processor cores together, 0 to 100.
    #[serde(with = "number")]
    pub host_cpu_percent: f64,
    /// Device memory that this process holds; absent where the backend does not tell, as none does yet.
    #[serde(default)]
    pub device_memory_bytes: Option<u64>,
    /// Use of the device, 0 to 100; absent as `device_memory_bytes` is.
    #[serde(default, with = "number")]
    pub device_use_percent: Option<f64>,
}

/// `preflight`: before the first step of a process, and again once a few steps are timed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Preflight {
    /// The newest step.
    pub step: u64,
    /// Part → predicted bytes. `program`, `loader`, `weights` and `optimiser` are held throughout, the
    /// others take turns.
    pub memory_bytes: Named<u64>,
    /// Predicted peak on the host.
    pub peak_host_bytes: u64,
    /// Predicted peak on the device; absent where the device computes in the host's memory.
    pub peak_device_bytes: Option<u64>,
    /// What the memory that the model computes in may hold; absent where nothing tells.
    pub memory_limit_bytes: Option<u64>,
    /// What the run folder may grow to.
    pub disk_bytes: u64,
    /// What is free on its disk; absent where the system does not tell.
    pub disk_free_bytes: Option<u64>,
    /// What features of pictures may take where they are kept, which need not be that disk; absent
    /// where none are kept.
    pub feature_cache_bytes: Option<u64>,
    /// Notes that a batch is expected to embed: each of its notes once, or one at each place.
    pub batch_notes: Option<u64>,
    /// Notes of them that are held at a time; 0 for all.
    pub micro_batch_notes: Option<u64>,
    /// Steps that were timed.
    pub timed_steps: Option<u64>,
    /// Seconds to the end of the run, evaluations included, at the speed of the timed steps.
    #[serde(with = "number")]
    pub seconds_left: Option<f64>,
}

/// `checkpoint_saved`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckpointSaved {
    /// The step after which it was saved.
    pub step: u64,
    /// Where, relative to the run folder.
    pub path: String,
    /// Whether the model is the best so far.
    pub best: bool,
    /// Why now: `best`, `interval`, `requested`, `stopped`, `completed`, `failed`.
    pub reason: String,
}

/// `warning`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Warning {
    /// The step that it concerns, where there is one.
    #[serde(default)]
    pub step: Option<u64>,
    /// What is wrong and what was done about it.
    pub message: String,
}

/// What a person can ask of a running trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Wait after the current step.
    Pause,
    /// Go on.
    Resume,
    /// Write a checkpoint after the current step.
    Save,
    /// Save and end after the current step.
    Stop,
    /// An action of a newer version.
    #[serde(other)]
    Other,
}

/// `control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The step after which the trainer did it.
    pub step: u64,
    /// What was asked.
    pub action: Action,
}

/// Why a process ended training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// All steps were taken.
    #[default]
    Completed,
    /// A person or the system asked for it.
    Stopped,
    /// An error.
    Failed,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// `run_ended`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunEnded {
    /// The last step.
    pub step: u64,
    /// Why.
    pub reason: EndReason,
    /// How long the run has trained: from the first step of each of its processes to the last
    /// checkpoint, validation and saving included; pauses, preparation and the final table are left
    /// out, and so is what a killed process did after its last checkpoint.
    #[serde(with = "number")]
    pub seconds: f64,
    /// The error, or a remark.
    #[serde(default)]
    pub message: Option<String>,
    /// The largest resident memory of the process, beside what `preflight` predicted; absent where the
    /// system does not tell.
    #[serde(default)]
    pub peak_host_bytes: Option<u64>,
}
