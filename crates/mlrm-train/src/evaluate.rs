//! Retrieval metrics of a model and its baselines (method §6).

use std::sync::Arc;

use mlrm_config::{Baseline, EvalSettings, Protocol, RunConfig, Variant};
use mlrm_data::notes::{Note, NoteSet};
use mlrm_data::split::{Pair, PairData, Part};
use mlrm_eval::{
    Bm25, Bootstrap, Embeddings, EvalReport, Geometry, QueryRecord, Ranks, Relevance, Slice,
    SliceKind, Slices, Task, all_notes, geometry, length_slices, random_expectation,
    rank_by_popularity, rank_embeddings, summarise,
};

use crate::corpus::{Encoding, Modality, Notes};
use crate::encode::{CorpusEmbeddings, EmbedSeconds, Inference};
use crate::error::TrainError;

/// Seed of the confidence intervals: the same ranking always has the same.
const BOOTSTRAP_SEED: u64 = 0;

/// A retrieval task over a corpus: who asks, what is relevant, and how it is sliced.
pub struct Retrieval {
    task: Task,
    /// Queries of which those of the task were drawn.
    all_queries: usize,
    slices: Vec<Slice>,
    cutoffs: Vec<usize>,
    all_rows: Vec<u32>,
    /// Popularity of each note as a logit, where it counts.
    prior: Option<Vec<f64>>,
}

/// `weight · log(1 + times that a note is a target in training)`; notes that training has held out
/// have the mean of the others, for nothing is known of them.
fn popularity_logits(data: &PairData, weight: f64) -> Vec<f64> {
    let mut targets = vec![0_u32; data.parts.len()];
    for pair in &data.pairs.train {
        targets[pair.target as usize] += 1;
    }
    let logit = |&count: &u32| weight * f64::from(count).ln_1p();
    let seen = || {
        let notes = targets.iter().zip(&data.parts);
        notes.filter(|(_, part)| **part == Part::Train)
    };
    let sum: f64 = seen().map(|(count, _)| logit(count)).sum();
    let mean = sum / seen().count().max(1) as f64;
    let notes = targets.iter().zip(&data.parts);
    notes
        .map(|(count, part)| match part {
            Part::Train => logit(count),
            Part::Validation | Part::Test => mean,
        })
        .collect()
}

impl Retrieval {
    /// The task of the held-out pairs `pairs` of `data` over all of `notes`.
    ///
    /// # Errors
    /// Pairs that make no retrieval task.
    pub fn new(
        notes: &NoteSet,
        data: &PairData,
        pairs: &[Pair],
        settings: &EvalSettings,
    ) -> Result<Self, TrainError> {
        let ids: Vec<String> = notes.rows().iter().map(|note| note.id.clone()).collect();
        let named = pairs.iter().map(|pair| {
            let id = |row: u32| ids[row as usize].as_str();
            (id(pair.query), id(pair.target))
        });
        let task = match settings.protocol {
            Protocol::AllPairs => Task::all_pairs(&ids, &Relevance::from_pairs(&ids, named))?,
            Protocol::ReleasedProtocol => Task::released_protocol(&ids, named)?,
        };
        let all_queries = task.queries().len();
        let task = task.sampled(settings.max_queries.unwrap_or(usize::MAX));
        let mut slices = vec![all_notes()];
        let chars: Vec<usize> = notes.rows().iter().map(text_chars).collect();
        slices.extend(length_slices(&chars, settings.short_chars));
        for slice in &settings.slices {
            let member = |note: &Note| has_value(note, &slice.field, &slice.value);
            slices.push(Slice {
                name: slice.name.clone(),
                kind: SliceKind::Queries(notes.rows().iter().map(member).collect()),
            });
        }
        Ok(Self {
            task,
            all_queries,
            slices,
            cutoffs: settings.k.clone(),
            all_rows: (0..notes.len() as u32).collect(),
            prior: (settings.popularity_prior > 0.0)
                .then(|| popularity_logits(data, settings.popularity_prior)),
        })
    }

    /// The queries, what is relevant to them, and the pool.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Queries that have something relevant in the pool.
    pub fn queries(&self) -> usize {
        self.task.queries().len()
    }

    /// Notes that are ranked.
    pub fn pool(&self) -> usize {
        self.task.pool().len()
    }

    /// Metrics of `model`'s embeddings of all notes, ranked by cosine and, where the settings say so,
    /// by popularity; with confidence intervals where `bootstrap` is given.
    ///
    /// # Errors
    /// Embeddings of other notes.
    pub fn measure(
        &self,
        model: &Inference,
        embeddings: &Embeddings,
        bootstrap: Option<&Bootstrap>,
    ) -> Result<Slices, TrainError> {
        let ranks = self.rank(model, embeddings)?;
        Ok(summarise(&ranks, &self.cutoffs, &self.slices, bootstrap)?)
    }

    /// Where the relevant notes of every query rank.
    fn rank(&self, model: &Inference, embeddings: &Embeddings) -> Result<Ranks, TrainError> {
        // Cosines are logits times τ, so the prior's logits are taken times τ.
        let prior = match &self.prior {
            None => None,
            Some(logits) => {
                let temperature = model.temperature()?;
                let scaled = logits.iter().map(|logit| logit * temperature);
                Some(scaled.collect::<Vec<f64>>())
            }
        };
        Ok(rank_embeddings(&self.task, embeddings, prior.as_deref())?)
    }

    /// How embeddings of all notes lie on the sphere.
    ///
    /// # Errors
    /// Embeddings of other notes.
    pub fn geometry(&self, embeddings: &Embeddings) -> Result<Geometry, TrainError> {
        Ok(geometry(&self.task, embeddings)?)
    }

    /// Embeddings of all notes by `model`.
    ///
    /// # Errors
    /// As [`Inference::embed_corpus`].
    pub fn embed(
        &self,
        model: &Inference,
        notes: &Notes,
        encoding: &Encoding,
        modality: Modality,
        batch_notes: usize,
    ) -> Result<CorpusEmbeddings, TrainError> {
        let encoder = Arc::new(encoding.encoder(notes, model.embedder(), modality)?);
        let mut quiet = |_, _: &EmbedSeconds| {};
        model.embed_corpus(&encoder, &self.all_rows, batch_notes, modality, &mut quiet)
    }

    fn bm25(&self, notes: &NoteSet) -> Result<Ranks, TrainError> {
        let texts: Vec<String> = notes.rows().iter().map(full_text).collect();
        Ok(Bm25::from_texts(&texts).rank(&self.task)?)
    }

    fn popularity(&self, note_users: &[u32]) -> Result<Ranks, TrainError> {
        let users: Vec<u64> = note_users.iter().map(|&users| users.into()).collect();
        Ok(rank_by_popularity(&self.task, &users)?)
    }

    fn random(&self) -> Result<Slices, TrainError> {
        Ok(random_expectation(&self.task, &self.cutoffs, &self.slices)?)
    }
}

/// What the baselines of a report are computed from.
pub struct BaselineSources<'a> {
    /// Users of each note in the training log.
    pub note_users: &'a [u32],
    /// The model before training, for `zero_shot`, or why it is not there.
    pub untrained: Result<&'a Inference, &'a str>,
}

/// A report, and the embeddings that it measured.
pub struct Measured {
    /// The metrics.
    pub report: EvalReport,
    /// Name in the report → embeddings of all notes, the model itself first.
    pub embeddings: Vec<(&'static str, Embeddings)>,
    /// The metrics query by query.
    pub queries: QueryRecord,
}

/// The full report, with 95 % confidence intervals over the queries: the model, then every baseline
/// of the settings, then the model's embeddings cut to each of `objective.matryoshka_dims` (`dim_16`). What
/// does not apply to its variant or cannot be computed is left out, with the reason.
///
/// # Errors
/// As [`Inference::embed_corpus`]; baselines that cannot be ranked.
pub fn full_report(
    retrieval: &Retrieval,
    model: &Inference,
    notes: &Notes,
    encoding: &Encoding,
    config: &RunConfig,
    sources: &BaselineSources<'_>,
) -> Result<Measured, TrainError> {
    let settings = &config.eval;
    let variant = model.config().variant;
    let bootstrap = Bootstrap::new(BOOTSTRAP_SEED);
    let mut embeddings = Vec::new();
    let mut rank = |name, model: &Inference, modality| -> Result<Ranks, TrainError> {
        let all = retrieval.embed(model, notes, encoding, modality, settings.batch_notes)?;
        let ranks = retrieval.rank(model, &all.multimodal)?;
        embeddings.push((name, all.multimodal));
        Ok(ranks)
    };
    let mut queries = QueryRecord::of(retrieval.task());
    let mut summary = |name: &str, ranks: &Ranks| -> Result<Slices, TrainError> {
        let (cutoffs, slices) = (&retrieval.cutoffs, &retrieval.slices);
        queries.add(name, ranks, cutoffs)?;
        Ok(summarise(ranks, cutoffs, slices, Some(&bootstrap))?)
    };
    let own = rank(variant.name(), model, Modality::Both)?;
    let mut report = EvalReport {
        pool: retrieval.pool(),
        queries: retrieval.queries(),
        queries_sampled_from: match retrieval.all_queries == retrieval.queries() {
            true => 0,
            false => retrieval.all_queries,
        },
        slices: summary(variant.name(), &own)?,
        read_by_text: notes.without_picture.by_text(),
        dropped: notes.without_picture.dropped(),
        ..EvalReport::default()
    };
    // A model of one modality is its own text-only or image-only self.
    let both = variant.vision() && variant != Variant::Image;
    for &baseline in &settings.baselines {
        let name = baseline.name();
        let ranks = match (baseline, sources.untrained) {
            (Baseline::TextOnly | Baseline::ImageOnly, _) if !both => Err(format!(
                "the variant `{}` reads one modality",
                variant.name()
            )),
            (Baseline::TextOnly, _) => Ok(rank(name, model, Modality::TextOnly)?),
            (Baseline::ImageOnly, _) => Ok(rank(name, model, Modality::ImageOnly)?),
            (Baseline::ZeroShot, Ok(untrained)) => Ok(rank(name, untrained, Modality::Both)?),
            (Baseline::ZeroShot, Err(reason)) => Err(reason.to_owned()),
            // Of the embeddings that are there: below.
            (Baseline::Int8 | Baseline::Cosine, _) => continue,
            (Baseline::Bm25, _) => Ok(retrieval.bm25(&notes.set)?),
            (Baseline::Popularity, _) => Ok(retrieval.popularity(sources.note_users)?),
            (Baseline::Random, _) => {
                // An expected value: there is nothing to rank.
                report.baselines.insert(name.into(), retrieval.random()?);
                continue;
            }
        };
        match ranks {
            Ok(ranks) => {
                let slices = summary(name, &ranks)?;
                report.baselines.insert(name.into(), slices);
            }
            Err(reason) => {
                report.left_out.insert(name.into(), reason);
            }
        }
    }
    for (name, ranks) in ranked_otherwise(retrieval, model, &embeddings[0].1, config)? {
        match ranks {
            Ok(ranks) => {
                let slices = summary(&name, &ranks)?;
                report.baselines.insert(name, slices);
            }
            Err(reason) => {
                report.left_out.insert(name, reason);
            }
        }
    }
    Ok(Measured {
        report,
        embeddings,
        queries,
    })
}

/// A ranking by its name, or why there is none.
type NamedRanks = (String, Result<Ranks, String>);

/// The model's own embeddings ranked otherwise: cut to the sizes that training saw to, and, where the
/// settings ask for it, in eight bits and by cosine alone; or why not.
fn ranked_otherwise(
    retrieval: &Retrieval,
    model: &Inference,
    own: &Embeddings,
    config: &RunConfig,
) -> Result<Vec<NamedRanks>, TrainError> {
    let shorter = config.objective.matryoshka_dims.iter();
    let shorter = shorter.filter(|&&dim| dim != own.dim());
    let mut smaller: Vec<_> = shorter
        .map(|&dim| (format!("dim_{dim}"), own.cut_to(dim)))
        .collect();
    let asked = |baseline| config.eval.baselines.contains(&baseline);
    if asked(Baseline::Int8) {
        smaller.push((Baseline::Int8.name().into(), own.in_eight_bits()));
    }
    let mut all = Vec::new();
    for (name, smaller) in smaller {
        let ranks = match smaller {
            Ok(smaller) => Ok(retrieval.rank(model, &smaller)?),
            Err(reason) => Err(reason.to_string()),
        };
        all.push((name, ranks));
    }
    if asked(Baseline::Cosine) {
        let ranks = match &retrieval.prior {
            Some(_) => Ok(rank_embeddings(&retrieval.task, own, None)?),
            None => Err("`eval.popularity_prior` is 0, so the model ranks so itself".to_owned()),
        };
        all.push((Baseline::Cosine.name().into(), ranks));
    }
    Ok(all)
}

/// Title, topics and content as one text.
pub fn full_text(note: &Note) -> String {
    let topics = note.topics.join(" ");
    [note.title.as_str(), topics.as_str(), note.content.as_str()].join(" ")
}

fn text_chars(note: &Note) -> usize {
    let topics: usize = note.topics.iter().map(|topic| topic.chars().count()).sum();
    note.title.chars().count() + topics + note.content.chars().count()
}

/// Whether a field of the note equals `value`, or, for lists, holds it.
fn has_value(note: &Note, field: &str, value: &str) -> bool {
    let holds = |json: &serde_json::Value| match json {
        serde_json::Value::String(text) => text == value,
        serde_json::Value::Array(items) => items.iter().any(|item| item.as_str() == Some(value)),
        // A number or a truth value, as its JSON spells it.
        other => format!("{other}") == value,
    };
    match field {
        "category" => note.category.as_deref() == Some(value),
        "topics" => note.topics.iter().any(|topic| topic == value),
        "id" => note.id == value,
        "title" => note.title == value,
        other => note.extra.get(other).is_some_and(holds),
    }
}

#[cfg(test)]
mod tests {
    use mlrm_data::split::PairSplit;

    use super::*;

    #[test]
    fn popularity_is_counted_in_training_and_averaged_for_the_rest() {
        let pair = |query, target| Pair {
            query,
            target,
            weight: 1.0,
        };
        let data = PairData {
            pairs: PairSplit {
                train: vec![pair(0, 1), pair(2, 1), pair(1, 0)],
                test: vec![pair(3, 1)],
                ..PairSplit::default()
            },
            parts: vec![Part::Train, Part::Train, Part::Train, Part::Test],
            ..PairData::default()
        };
        let found = popularity_logits(&data, 2.0);
        let (one, two) = (2.0 * 2_f64.ln(), 2.0 * 3_f64.ln());
        let expected = [one, two, 0.0, (one + two) / 3.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}
