//! `[data]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[data]`: notes, pictures and the pairs to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct DataSettings {
    /// `folder` reads files below `root`; `synth` draws a sample set into `root` first, if it is
    /// not there yet.
    pub source: DataSource,
    /// Folder that the other paths of this section are relative to. This and the other places may be addresses in an object
    /// store, such as `s3://bucket/folder` (cargo feature `object-store`).
    #[schemars(length(min = 1))]
    pub root: PathBuf,
    /// Notes, a table (JSON Lines, CSV, Parquet): id, title, topics, content, image, category.
    #[schemars(length(min = 1))]
    pub notes: PathBuf,
    /// Behaviour log, a table: user_id, note_id, timestamp; `""` when there is none.
    #[serde(with = "super::absent::empty_path")]
    #[schemars(with = "Option<PathBuf>")]
    pub interactions: Option<PathBuf>,
    /// Unit of the log's times where they are numbers. `auto` takes it from the size of the
    /// numbers, which must be that of one unit in the whole log.
    pub time_unit: TimeUnit,
    /// Ready-made pairs instead of a log, a table: query_id, target_id, weight.
    pub pairs_file: Option<PathBuf>,
    /// Where the notes' `image` keys are looked for: a folder, tar or Parquet shards (a file, or a pattern such as
    /// `shards/*.tar`), or an address in an object store.
    #[schemars(length(min = 1))]
    pub images: PathBuf,
    /// Most bytes of what is kept in the user's cache folder of pictures and files from object stores; what was
    /// not read for longest goes first. 0 keeps no picture.
    pub image_cache_max_bytes: u64,
    /// What becomes of a note without a picture (none named, or none there) in a variant that looks
    /// at pictures: `error` stops before training, `text` reads the note by its text prompt, `drop`
    /// leaves it out of pool, pairs and queries.
    pub on_missing_image: OnImageProblem,
    /// The same for a picture that cannot be used: damaged, cut off, no known format, too large, or
    /// a key that leads outside the folder.
    pub on_bad_image: OnImageProblem,
    /// Whether pictures are turned as the EXIF orientation says. Hugging Face's image processors do
    /// not.
    pub exif_orientation: ExifOrientation,
    /// Most bytes of a picture's file.
    #[schemars(range(min = 1))]
    pub max_image_bytes: u64,
    /// Most pixels of a picture (width times height); a thread needs up to 8 bytes for each.
    #[schemars(range(min = 1))]
    pub max_image_pixels: u64,
    /// Threads that decode and resize pictures ahead of the step; 0 picks by the machine.
    #[schemars(range(max = 1024))]
    pub loader_threads: usize,
    /// Batches prepared ahead of the step.
    #[schemars(range(max = 1024))]
    pub prefetch_batches: usize,
    /// Size of the drawn sample set (`source = "synth"`).
    pub synth: SynthSettings,
    /// From log to pairs (method §5).
    pub pairs: PairSettings,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            source: DataSource::Folder,
            root: PathBuf::from("."),
            notes: PathBuf::from("notes.jsonl"),
            interactions: Some(PathBuf::from("interactions.csv")),
            time_unit: TimeUnit::Auto,
            pairs_file: None,
            images: PathBuf::from("."),
            image_cache_max_bytes: 20 << 30,
            on_missing_image: OnImageProblem::Error,
            on_bad_image: OnImageProblem::Error,
            exif_orientation: ExifOrientation::Ignore,
            max_image_bytes: 64 << 20,
            max_image_pixels: 1 << 26,
            loader_threads: 0,
            prefetch_batches: 2,
            synth: SynthSettings::default(),
            pairs: PairSettings::default(),
        }
    }
}

/// Where notes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    /// Files that are there.
    #[default]
    Folder,
    /// A deterministic drawn sample set, made on first use.
    Synth,
}

/// Unit of times that are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// By the size of the numbers.
    #[default]
    Auto,
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// What becomes of a note whose picture is missing or cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnImageProblem {
    /// The run does not start; the message counts and names them.
    #[default]
    Error,
    /// The note is read by its text prompt, in the same batches, without late fusion.
    Text,
    /// The note is left out of pool, pairs and queries, as if the notes file did not have it.
    Drop,
}

/// What is done with the orientation that a picture's EXIF data tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExifOrientation {
    /// Pixels are taken as they are stored.
    #[default]
    Ignore,
    /// Pictures are turned and mirrored as they are meant to be looked at.
    Apply,
}

/// `[data.synth]`: size of the drawn sample set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct SynthSettings {
    /// Notes to draw.
    #[schemars(range(min = 10))]
    pub notes: usize,
    /// Users that browse them.
    #[schemars(range(min = 1))]
    pub users: usize,
    /// Events a user leaves in the log.
    #[schemars(range(min = 2))]
    pub events_per_user: usize,
    /// Side of the square pictures in pixels.
    #[schemars(range(min = 8, max = 4096))]
    pub image_pixels: u32,
    /// Seed of the sample set; apart from `run.seed`, so that several runs share one set.
    #[schemars(range(max = 9_223_372_036_854_775_807_i64))]
    pub seed: u64,
    /// What the pictures are like.
    pub style: SynthStyle,
}

/// What the pictures of a drawn sample set are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SynthStyle {
    /// One figure of a colour, shape and pattern on a plain ground: an encoder of random weights reads it.
    #[default]
    Drawn,
    /// An object of an outline and a material under any light, among others on a patterned ground: its
    /// colours tell nothing, and it takes an encoder that has learnt to see. Draw them at 128 pixels or more.
    Photographs,
}

impl Default for SynthSettings {
    fn default() -> Self {
        Self {
            notes: 600,
            users: 1500,
            events_per_user: 20,
            image_pixels: 64,
            seed: 7,
            style: SynthStyle::Drawn,
        }
    }
}

/// `[data.pairs]`: co-occurrence pairs from a behaviour log (method §5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §5; NoteLLM (WWW 2024)"))]
pub struct PairSettings {
    /// Longest time from the first view to the second, inclusive.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub window_days: f64,
    /// What two views of one user at the same time are: `ignore` takes no pair from them, as the
    /// order is unknown; `both` takes them for a pair in both directions, as suits baskets and logs
    /// that tell only the day.
    #[schemars(extend("x-source" = "mlrm"))]
    pub ties: Ties,
    /// How co-occurrences add up to a score.
    pub weight: PairWeight,
    /// Pairs that fewer users have in common are dropped before scoring bounds apply.
    #[schemars(range(min = 1))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub min_users: u32,
    /// Smallest score kept, inclusive.
    pub lower: Option<f64>,
    /// Largest score kept, inclusive.
    pub upper: Option<f64>,
    /// Partners kept for each note, best score first, then lower id; 0 keeps all.
    #[serde(with = "super::absent::zero")]
    #[schemars(with = "Option<usize>")]
    pub top_k: Option<usize>,
    /// Partners kept for each training note, where it shall learn from more (or fewer) than count as
    /// the truth of a held-out note; 0 keeps all. Default: `top_k`. Not for a `pairs_file`.
    #[schemars(extend("x-source" = "mlrm"))]
    pub train_top_k: Option<usize>,
    /// Users with more events than this are cut to their most recent ones (bots).
    #[schemars(range(min = 2))]
    pub max_events_per_user: Option<usize>,
    /// What keeps test pairs apart from training pairs.
    #[schemars(extend("x-source" = "mlrm"))]
    pub split: Split,
    /// Share of notes (`split = "note"`) or of the log's time-ordered events (`"time"`) held out
    /// for the final table.
    #[schemars(range(min = 0))]
    #[schemars(extend("exclusiveMaximum" = 1))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub test_fraction: f64,
    /// Share of the remainder held out for choosing the best checkpoint; 0 keeps the last.
    #[schemars(range(min = 0))]
    #[schemars(extend("exclusiveMaximum" = 1))]
    #[schemars(extend("x-source" = "mlrm"))]
    pub validation_fraction: f64,
    /// Which partners count as the truth of a held-out note.
    #[schemars(extend("x-source" = "mlrm"))]
    pub test_targets: TestTargets,
}

impl PairSettings {
    /// Partners kept for each training note; `None` keeps all.
    pub fn training_partners(&self) -> Option<usize> {
        match self.train_top_k {
            Some(0) => None,
            Some(count) => Some(count),
            None => self.top_k,
        }
    }
}

impl Default for PairSettings {
    fn default() -> Self {
        Self {
            window_days: 7.0,
            ties: Ties::Ignore,
            weight: PairWeight::InverseActivity,
            min_users: 1,
            lower: None,
            upper: None,
            top_k: Some(10),
            train_top_k: None,
            max_events_per_user: None,
            split: Split::Note,
            test_fraction: 0.1,
            validation_fraction: 0.1,
            test_targets: TestTargets::HeldOut,
        }
    }
}

/// What two views of one user at the same time are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// No co-occurrence.
    #[default]
    Ignore,
    /// A co-occurrence in both directions.
    Both,
}

/// How co-occurrences of an ordered pair (A, B) add up to its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairWeight {
    /// Users that saw B after A.
    Count,
    /// Every occurrence of B after A.
    Events,
    /// Each user adds 1 / (distinct notes that the user saw). NoteLLM (WWW 2024), equation 1.
    #[default]
    InverseActivity,
    /// users(A, B) / sqrt(users(A) * users(B)), where users(A) saw A at all.
    Cosine,
}

/// What keeps test pairs apart from training pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// A seeded share of the notes is held out: no training pair holds one of them.
    #[default]
    Note,
    /// Pairs of the log's last part are the test; training pairs come from the part before.
    Time,
    /// Every pair is a training pair and the test is the same pairs (a check of fit, not of skill).
    None,
}

/// Which partners count as the truth of a held-out note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestTargets {
    /// Only other held-out notes: both ends of a test pair are unseen in training.
    #[default]
    HeldOut,
    /// Any note: the query is unseen, its partner may be a training note (a new note joins an
    /// existing catalogue).
    All,
}
