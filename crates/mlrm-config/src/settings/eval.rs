//! `[eval]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::words;

/// `[eval]`: how retrieval is measured (method §6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §6"))]
pub struct EvalSettings {
    /// Cut-offs of Recall@k, NDCG@k, MRR@k and hit rate.
    #[schemars(length(min = 1), inner(range(min = 1)))]
    pub k: Vec<usize>,
    /// Texts of at most this many characters count as short (slices `short_query`, `short_target`,
    /// and `long_query`, `long_target` for the others).
    pub short_chars: usize,
    /// Further slices, each on one field of the query note.
    pub slices: Vec<SliceSettings>,
    /// Rankings to compare with on the same pool.
    pub baselines: Vec<Baseline>,
    /// How queries, targets and pool are chosen.
    pub protocol: Protocol,
    /// Weight of popularity in the model's ranking: to the logit of a candidate comes so many times
    /// the logarithm of how often it is a target in training. Negatives from the batch stand there
    /// as often as they are popular, so that cosines tell how much more often than by chance two
    /// notes meet; 1 makes the logit that of meeting at all. 0 ranks by cosine alone.
    #[schemars(range(min = 0), extend("x-source" = "the inverse of Yi et al. (RecSys 2019), equation 3"))]
    pub popularity_prior: f64,
    /// Most queries that are measured, drawn by a hash of their ids, so that every model is asked the same
    /// ones; each still ranks the whole pool. Intervals tell how much the draw may matter. Not set: all.
    #[schemars(range(min = 1), extend("x-source" = "mlrm"))]
    pub max_queries: Option<usize>,
    /// Notes encoded at a time.
    #[schemars(range(min = 1))]
    pub batch_notes: usize,
}

impl Default for EvalSettings {
    fn default() -> Self {
        Self {
            k: vec![1, 10, 100],
            short_chars: 50,
            slices: Vec::new(),
            baselines: vec![
                Baseline::Bm25,
                Baseline::Popularity,
                Baseline::Random,
                Baseline::TextOnly,
                Baseline::ImageOnly,
            ],
            protocol: Protocol::AllPairs,
            popularity_prior: 0.0,
            max_queries: None,
            batch_notes: 32,
        }
    }
}

/// `[[eval.slices]]`: queries whose `field` equals (or, for lists, contains) `value`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-source" = "method §6"))]
pub struct SliceSettings {
    /// Name in the table.
    #[schemars(length(min = 1))]
    pub name: String,
    /// A field of the note: `category`, `topics`, or any further field of the notes file.
    #[schemars(length(min = 1))]
    pub field: String,
    /// The value that selects a note.
    pub value: String,
}

words! {
    /// Rankings to compare with on the same pool.
    pub enum Baseline {
        /// Okapi BM25 over the note text.
        Bm25 = "bm25",
        /// Notes that most training users saw, the same list for every query.
        Popularity = "popularity",
        /// The expected value of a random order, computed.
        Random = "random",
        /// The same model given the text alone.
        TextOnly = "text_only",
        /// The same model given the picture alone.
        ImageOnly = "image_only",
        /// The same model before training.
        ZeroShot = "zero_shot",
        /// The model's embeddings in eight bits a number, as `mlrm embed --dtype int8` writes them.
        Int8 = "int8",
        /// The model's embeddings by cosine alone, where `popularity_prior` ranks by popularity too.
        Cosine = "cosine",
    }
}

/// How queries, targets and pool are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Every test query ranks all notes but itself.
    #[default]
    AllPairs,
    /// The authors' script: each note serves once, the pool leaves all query notes out.
    ReleasedProtocol,
}
