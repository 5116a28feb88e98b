//! `[objective]` and `[train]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DType;

/// `[objective]`: what training minimises (method §3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §3; NoteLLM-2 released code"))]
pub struct ObjectiveSettings {
    /// Which notes are negatives.
    pub kind: ObjectiveKind,
    /// Logits are cosine * exp(temperature_logit). Released code: 3.0.
    #[schemars(range(min = -20, max = 20))]
    pub temperature_logit: Option<f64>,
    /// The same as a temperature: tau = exp(-temperature_logit). Set at most one of the two.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: Option<f64>,
    /// Whether the temperature learns.
    pub learn_temperature: bool,
    /// Most that a learnt temperature_logit may become. CLIP: 4.6052, logits of at most 100. Not set: no
    /// bound.
    #[schemars(range(min = -20, max = 20), extend("x-source" = "CLIP (arXiv 2103.00020)"))]
    pub max_temperature_logit: Option<f64>,
    /// Weight of the multimodal loss (alpha_m). Paper: 9.
    #[schemars(range(min = 0))]
    pub multimodal_weight: f64,
    /// Weight of the visual loss (alpha_v), with mICL only. Paper: 1.
    #[schemars(range(min = 0))]
    pub visual_weight: f64,
    /// Leave a note's other known partners and its own duplicates out of its negatives.
    pub mask_false_negatives: bool,
    /// Take the logarithm of how often a note is drawn off its logits. Negatives come from the
    /// batch, where popular notes stand more often; uncorrected, the model learns to play them down.
    #[schemars(extend("x-source" = "Yi et al. (RecSys 2019), equation 3"))]
    pub correct_sampling_bias: bool,
    /// Sizes that embeddings may be cut to: their first so many dimensions, normalised, are trained as
    /// embeddings too. The loss is the weighted mean over these sizes and the whole, which always counts.
    #[schemars(inner(range(min = 1)), extend("x-source" = "Matryoshka (arXiv 2205.13147)"))]
    pub matryoshka_dims: Vec<usize>,
    /// Weights of their losses, one for each of `matryoshka_dims`; default: 1, as the whole has.
    #[schemars(inner(range(min = 0)), extend("x-source" = "Matryoshka (arXiv 2205.13147)"))]
    pub matryoshka_weights: Option<Vec<f64>>,
}

impl ObjectiveSettings {
    /// The temperature logit that training starts at: from whichever of the two keys is set, 3.0
    /// (released code) when neither is.
    pub fn initial_temperature_logit(&self) -> f64 {
        self.temperature_logit
            .or(self.temperature.map(|temperature| -temperature.ln()))
            .unwrap_or(3.0)
    }
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            kind: ObjectiveKind::OneTower,
            temperature_logit: None,
            temperature: None,
            learn_temperature: true,
            max_temperature_logit: None,
            multimodal_weight: 9.0,
            visual_weight: 1.0,
            mask_false_negatives: true,
            correct_sampling_bias: false,
            matryoshka_dims: Vec::new(),
            matryoshka_weights: None,
        }
    }
}

/// Which notes of a batch are negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveKind {
    /// Every other note of the batch, of either side.
    #[default]
    OneTower,
    /// Only the other side: queries against targets and back, mean of the two.
    Dual,
}

/// `[train]`: how training minimises the objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §3; NoteLLM-2 released code"))]
pub struct TrainSettings {
    /// Pairs per step (B); the batch holds 2B notes. Paper: 128 over 8 devices.
    #[schemars(range(min = 2))]
    pub batch_pairs: usize,
    /// Notes whose activations a device holds at a time; 0 holds those of its whole share of the batch. Loss
    /// and gradient are those of the whole batch either way; in parts, each note is embedded twice (GradCache).
    /// `auto`: before the first step, as many as are predicted to fit; the run keeps that number.
    #[schemars(extend("x-source" = "GradCache (arXiv 2101.06983)"))]
    pub micro_batch_notes: MicroBatchNotes,
    /// Of every layer of the language model, hold only what it reads, and run it again for its
    /// gradient: less memory, more time.
    #[schemars(extend("x-source" = "Chen et al. (arXiv 1604.06174)"))]
    pub checkpoint_layers: bool,
    /// Embed a note once that stands in several pairs of a batch. Loss and gradient are the same; with
    /// dropout it has one mask instead of several. A note that shows parts of others is another note.
    #[schemars(extend("x-source" = "mlrm"))]
    pub merge_duplicates: bool,
    /// Sort pairs by length among so many batches, and shuffle the batches, so that less is padded: the
    /// notes of a batch are then of like length. 0 takes pairs as they are drawn.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub length_window_batches: usize,
    /// Where features of the frozen vision encoder are kept, so that no picture is encoded twice, by
    /// this run or another one: a folder, `off`, or `auto` for the user's cache folder, where the
    /// encoder is a pre-trained one, pictures come more than once and all of them fit.
    #[schemars(length(min = 1), extend("x-source" = "mlrm"))]
    pub feature_cache: String,
    /// Most bytes of that folder, over all encoders; pictures past it are encoded each time.
    #[schemars(extend("x-source" = "mlrm"))]
    pub feature_cache_max_bytes: u64,
    /// Number format in which they are kept; a shorter one than `backend.dtype` rounds them. Not set:
    /// `backend.dtype`, which changes no bit.
    #[schemars(extend("x-source" = "mlrm"))]
    pub feature_cache_dtype: Option<DType>,
    /// Stop after this many steps; with 0 the model is evaluated as it is, and its folder written.
    #[schemars(extend("x-source" = "mlrm"))]
    pub max_steps: Option<usize>,
    /// Stop after this many passes over the pairs (used when `max_steps` is not set). Paper: 1.
    #[schemars(range(min = 0))]
    pub epochs: f64,
    /// Peak learning rate. Paper: 3e-6 (pre-trained weights).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// That of the connector, which warms up and falls alike: one that begins from nothing may want another one than a
    /// language model that was pre-trained. Not set: `learning_rate`.
    #[schemars(extend("exclusiveMinimum" = 0, "x-source" = "ms-swift (aligner_lr)"))]
    pub connector_learning_rate: Option<f64>,
    /// That of late fusion, the last projection and the temperature. Not set: `learning_rate`.
    #[schemars(extend("exclusiveMinimum" = 0, "x-source" = "mlrm"))]
    pub head_learning_rate: Option<f64>,
    /// Decoupled weight decay of matrices; norms, biases and the temperature have none. Paper: 1e-3.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// AdamW's two averaging factors, each in [0, 1).
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// Share of the steps in which the learning rate rises linearly from 0. Paper: 0.1.
    #[schemars(range(min = 0, max = 1))]
    pub warmup_ratio: f64,
    /// How the learning rate falls after the warm-up.
    pub schedule: Schedule,
    /// Largest global L2 norm of the gradient; larger ones are scaled down. 0 turns it off.
    #[schemars(range(min = 0))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub clip_norm: f64,
    /// Measure retrieval on the validation notes every so many steps; 0 only at the end.
    #[schemars(extend("x-source" = "mlrm"))]
    pub eval_every_steps: usize,
    /// Write a checkpoint every so many steps; 0 only by time, at the end and on stop.
    #[schemars(extend("x-source" = "mlrm"))]
    pub save_every_steps: usize,
    /// Write a checkpoint when so many minutes have passed since the last one; 0 never.
    #[schemars(range(min = 0, max = 525_600))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub save_every_minutes: f64,
    /// Checkpoints kept besides the best one.
    #[schemars(range(min = 1))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub keep_checkpoints: usize,
    /// Measure modality saliency (method §4) every so many steps; 0 never.
    #[schemars(extend("x-source" = "method §4"))]
    pub saliency_every_steps: usize,
    /// Notes of the fixed saliency probe set.
    #[schemars(range(min = 2))]
    #[schemars(extend("x-source" = "method §4"))]
    pub saliency_notes: usize,
    /// Largest share of run time that saliency probes may take; a probe over budget is put off.
    #[schemars(range(min = 0, max = 1))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub saliency_max_ratio: f64,
    /// Look every so many steps, and at each evaluation, how the embeddings of a fixed batch of pairs
    /// lie to each other (event `embedding_probe`); 0 only at evaluations.
    #[schemars(extend("x-source" = "mlrm"))]
    pub probe_every_steps: usize,
    /// Notes of that batch, two a pair; fewer than 4 turn the probe off.
    #[schemars(range(min = 0, max = 512))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub probe_notes: usize,
    /// Emit a `train_step` event every so many steps.
    #[schemars(range(min = 1))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub log_every_steps: usize,
    /// Write TensorBoard event files into the run folder.
    #[schemars(extend("x-source" = "mlrm"))]
    pub tensorboard: bool,
    /// Notes that show parts of other notes in training.
    pub swap: SwapSettings,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            batch_pairs: 16,
            micro_batch_notes: MicroBatchNotes::Notes(0),
            checkpoint_layers: false,
            merge_duplicates: true,
            length_window_batches: 0,
            feature_cache: "auto".into(),
            feature_cache_max_bytes: 8 << 30,
            feature_cache_dtype: None,
            max_steps: None,
            epochs: 1.0,
            learning_rate: 3e-6,
            connector_learning_rate: None,
            head_learning_rate: None,
            weight_decay: 1e-3,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            warmup_ratio: 0.1,
            schedule: Schedule::Linear,
            clip_norm: 1.0,
            eval_every_steps: 200,
            save_every_steps: 200,
            save_every_minutes: 30.0,
            keep_checkpoints: 2,
            saliency_every_steps: 100,
            saliency_notes: 16,
            saliency_max_ratio: 0.03,
            probe_every_steps: 50,
            probe_notes: 64,
            log_every_steps: 1,
            tensorboard: false,
            swap: SwapSettings::default(),
        }
    }
}

/// How many notes are held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MicroBatchNotes {
    /// So many; 0 for all of the batch.
    Notes(usize),
    /// As many as fit.
    Auto(AsMany),
}

impl MicroBatchNotes {
    /// As many as fit.
    pub const AUTO: Self = Self::Auto(AsMany::Auto);

    /// The number that is set; `None` for `auto`.
    pub fn set(self) -> Option<usize> {
        match self {
            Self::Notes(notes) => Some(notes),
            Self::Auto(_) => None,
        }
    }
}

/// The word for a number that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AsMany {
    /// As many as fit.
    Auto,
}

/// `[train.swap]`: some notes of a training batch show the title, content or picture of other
/// training notes. What is left of their own then has to tell where they belong, as it has to for a
/// note that training has never seen; the notes that show all of their own are learnt by heart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct SwapSettings {
    /// Share of the notes that show parts of others; 0 turns it off.
    #[schemars(range(min = 0, max = 1))]
    pub share: f64,
    /// Which notes of a pair may do so.
    pub side: SwapSide,
    /// Which parts they show of others, each part of another note.
    pub fields: Vec<SwapField>,
    /// Last characters (graphemes) of a title that stay the note's own, such as a year or a model
    /// number that says where it belongs.
    pub keep_title_end_chars: usize,
}

impl Default for SwapSettings {
    fn default() -> Self {
        Self {
            share: 0.0,
            side: SwapSide::Both,
            fields: vec![SwapField::Title, SwapField::Content, SwapField::Image],
            keep_title_end_chars: 0,
        }
    }
}

/// Which notes of a pair may show parts of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SwapSide {
    /// Queries and targets, each by a draw of its own.
    #[default]
    Both,
    /// Queries; targets show all of their own.
    Query,
}

/// A part of a note that can be another note's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SwapField {
    /// The headline.
    Title,
    /// All topics.
    Topics,
    /// The body text.
    Content,
    /// The picture.
    Image,
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Linearly to 0 at the last step (paper).
    #[default]
    Linear,
    /// Half a cosine to 0 at the last step.
    Cosine,
    /// Not at all.
    Constant,
}
