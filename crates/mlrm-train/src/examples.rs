//! Queries with what several models found, for the picture grids of the report:
//! `RUN/report/examples.jsonl`.
//!
//! The file's format is told in `mlrm-report` (`examples.rs`), which reads it. The two crates do not
//! know each other, so that a report needs no model and a training no report.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mlrm_data::notes::{ImageStore, Note};
use mlrm_data::order::{Cursor, PairOrder};
use mlrm_eval::{Embeddings, Query, Task, rank_embeddings, top_k};
use serde::Serialize;

use crate::corpus::Notes;
use crate::error::TrainError;
use crate::folders::write_beside;

/// Queries whose first true partner the first model ranks lowest.
const WORST_QUERIES: usize = 60;
/// Queries drawn from the others, so that the failures are not taken for the whole.
const RANDOM_QUERIES: usize = 20;
/// Notes that are shown of each model.
const RESULTS: usize = 8;
/// True partners that are shown; the marks of the results know all of them.
const PARTNERS: usize = 8;
/// Letters of a text that are kept.
const TEXT_LETTERS: usize = 400;

/// A note as the report shows it.
#[derive(Debug, Clone, Serialize)]
struct ShownNote {
    id: String,
    title: String,
    text: String,
    image: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Hit {
    note: ShownNote,
    score: f64,
    right: bool,
}

#[derive(Debug, Serialize)]
struct ModelResults<'a> {
    name: &'a str,
    first_right_rank: Option<u32>,
    results: Vec<Hit>,
}

#[derive(Debug, Serialize)]
struct Example<'a> {
    query: ShownNote,
    partners: Vec<ShownNote>,
    models: Vec<ModelResults<'a>>,
}

/// What one model found for the chosen queries.
struct Found<'a> {
    name: &'a str,
    /// Rank of the first true partner of every query of the task, from 1.
    first_right_rank: Vec<Option<u32>>,
    /// Rows and scores, best first, of each chosen query.
    results: Vec<Vec<(u32, f32)>>,
}

/// Writes `run/report/examples.jsonl`: the queries of `task` that the first of `models` serves worst,
/// and some random ones, each with its true partners and the first results of every model.
///
/// `models` are names with embeddings of all notes; `images` is the folder or shard of the notes'
/// pictures (`data.root` joined with `data.images`). Pictures that are files of their own are named
/// by their full path; those inside a shard are copied to `run/report/pictures`.
///
/// # Errors
/// Embeddings that are not of the task's notes, or files that cannot be written. A picture that
/// cannot be read is left out.
pub fn write_examples(
    run: &Path,
    notes: &Notes,
    images: &Path,
    task: &Task,
    models: &[(&str, &Embeddings)],
    seed: u64,
) -> Result<(), TrainError> {
    let ranks = models
        .iter()
        .map(|(_, embeddings)| first_ranks(task, embeddings));
    let ranks: Vec<Vec<Option<u32>>> = ranks.collect::<Result<_, TrainError>>()?;
    let Some(first) = ranks.first() else {
        return Ok(());
    };
    let chosen = choose(first, seed);
    let mut found = Vec::with_capacity(models.len());
    for (&(name, embeddings), first_right_rank) in models.iter().zip(ranks) {
        found.push(Found {
            name,
            first_right_rank,
            results: first_results(task, embeddings, &chosen)?,
        });
    }
    let folder = run.join("report");
    std::fs::create_dir_all(&folder).map_err(TrainError::io("create", &folder))?;
    let mut album = Album {
        notes,
        images,
        pictures: folder.join("pictures"),
        shown: BTreeMap::new(),
    };
    let path = folder.join("examples.jsonl");
    let mut lines = String::new();
    for (place, &index) in chosen.iter().enumerate() {
        let example = example(&task.queries()[index], (place, index), &found, &mut album)?;
        let line = serde_json::to_string(&example)
            .map_err(|e| TrainError::io("write", &path)(e.into()))?;
        lines += &line;
        lines.push('\n');
    }
    write_beside(&path, &lines)
}

/// Rank of the first true partner of every query, from 1.
fn first_ranks(task: &Task, embeddings: &Embeddings) -> Result<Vec<Option<u32>>, TrainError> {
    let ranks = rank_embeddings(task, embeddings, None)?;
    let first = |query: &mlrm_eval::QueryRanks| query.relevant.first().map(|&(_, rank)| rank);
    Ok(ranks.queries.iter().map(first).collect())
}

/// Indexes of the queries to show, in the order of the task: the worst, and some of the others.
fn choose(ranks: &[Option<u32>], seed: u64) -> Vec<usize> {
    let mut worst_first: Vec<usize> = (0..ranks.len()).collect();
    // The sort is stable: queries that are equally bad stay in the order of the task.
    worst_first.sort_by_key(|&index| std::cmp::Reverse(ranks[index].unwrap_or(u32::MAX)));
    let others = worst_first.split_off(worst_first.len().min(WORST_QUERIES));
    let count = others.len().min(RANDOM_QUERIES);
    let mut order = PairOrder::new(others.len() as u32, seed, Cursor::default());
    let random = order
        .next_batch(count)
        .into_iter()
        .map(|(_, index)| others[index]);
    let chosen: BTreeSet<usize> = worst_first.iter().copied().chain(random).collect();
    chosen.into_iter().collect()
}

/// Rows and scores of the first results of each chosen query, best first.
fn first_results(
    task: &Task,
    embeddings: &Embeddings,
    chosen: &[usize],
) -> Result<Vec<Vec<(u32, f32)>>, TrainError> {
    let rows: Vec<u32> = chosen
        .iter()
        .map(|&index| task.queries()[index].row)
        .collect();
    // Notes outside the pool may come first: as many more are asked for, and left out below.
    let outside = embeddings.len() - task.pool().len();
    let nearest = top_k(embeddings, &rows, RESULTS + outside)?;
    let results = nearest.into_iter().map(|neighbours| {
        let candidates = neighbours.into_iter().filter(|near| task.in_pool(near.row));
        candidates
            .take(RESULTS)
            .map(|near| (near.row, near.score))
            .collect()
    });
    Ok(results.collect())
}

/// One line of the file; `(place, index)` says where the query stands among the chosen ones and in
/// the task.
fn example<'a>(
    query: &Query,
    (place, index): (usize, usize),
    found: &[Found<'a>],
    album: &mut Album<'_>,
) -> Result<Example<'a>, TrainError> {
    let mut models = Vec::with_capacity(found.len());
    for model in found {
        let mut results = Vec::with_capacity(RESULTS);
        for &(row, score) in &model.results[place] {
            results.push(Hit {
                note: album.show(row)?,
                score: score.into(),
                right: query.relevant.binary_search(&row).is_ok(),
            });
        }
        models.push(ModelResults {
            name: model.name,
            first_right_rank: model.first_right_rank[index],
            results,
        });
    }
    let partners = query.relevant.iter().take(PARTNERS);
    Ok(Example {
        query: album.show(query.row)?,
        partners: partners
            .map(|&row| album.show(row))
            .collect::<Result<_, _>>()?,
        models,
    })
}

/// The notes that were shown so far, with the places of their pictures.
struct Album<'a> {
    notes: &'a Notes,
    images: &'a Path,
    /// Where pictures that have no file of their own are copied to.
    pictures: PathBuf,
    shown: BTreeMap<u32, ShownNote>,
}

impl Album<'_> {
    fn show(&mut self, row: u32) -> Result<ShownNote, TrainError> {
        if let Some(shown) = self.shown.get(&row) {
            return Ok(shown.clone());
        }
        let note = &self.notes.set[row];
        let image = match (&note.image, &self.notes.images) {
            (Some(key), Some(store)) => self.picture(row, key, store)?,
            _ => None,
        };
        let shown = ShownNote {
            id: note.id.clone(),
            title: note.title.clone(),
            text: text_of(note),
            image,
        };
        self.shown.insert(row, shown.clone());
        Ok(shown)
    }

    /// The picture's own file, or a copy of what a shard holds; `None` where there is neither.
    fn picture(
        &self,
        row: u32,
        key: &str,
        store: &ImageStore,
    ) -> Result<Option<PathBuf>, TrainError> {
        // The store refuses keys that lead outside its folder, so it is asked first.
        if store.size(key).is_err() {
            return Ok(None);
        }
        let file = self.images.join(key);
        if file.is_file() {
            return Ok(Some(
                file.canonicalize().map_err(TrainError::io("read", &file))?,
            ));
        }
        let Ok(bytes) = store.read(key) else {
            return Ok(None);
        };
        // The report tells formats by their content, so that a copy needs no ending.
        let name = format!("note-{row}");
        let copy = self.pictures.join(&name);
        std::fs::create_dir_all(&self.pictures)
            .and_then(|()| std::fs::write(&copy, bytes))
            .map_err(TrainError::io("write", &copy))?;
        Ok(Some(Path::new("pictures").join(name)))
    }
}

/// Topics and content, cut to what a report may show.
fn text_of(note: &Note) -> String {
    let topics = note.topics.join(", ");
    let parts = [topics.as_str(), note.content.as_str()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" · ").chars().take(TEXT_LETTERS).collect()
}
