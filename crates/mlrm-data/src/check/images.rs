//! Whether the pictures of the notes can be used.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{CheckReport, Finding, SeenNotes, Sources, warnings};
use crate::error::{Problem, Result, shorten};
use crate::image::{DecodeOptions, PictureTraits, decode_with_traits};
use crate::notes::{Fetched, ImageStore};

/// Decodes every picture that a note names.
pub(super) fn check_images(
    sources: &Sources,
    notes: &SeenNotes,
    options: &DecodeOptions,
    report: &mut CheckReport,
) {
    if notes.images.is_empty() {
        return;
    }
    let store = match ImageStore::open_with(&sources.images, sources.image_cache_max_bytes) {
        Ok(store) => store,
        Err(error) => {
            report
                .findings
                .push(Finding::of_file(&sources.images, error));
            return;
        }
    };
    // Notes may share a picture: each is decoded once.
    let mut keys: Vec<&str> = notes.images.iter().map(|(_, key)| key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    report.images = keys.len() as u64;
    let judged: HashMap<&str, Judged> = keys
        .par_chunks(store.together())
        .flat_map_iter(|keys| judge_together(&store, keys, options))
        .collect();
    for (at, key) in &notes.images {
        let of_note = |mut problem: Problem| {
            problem.message = format!("image `{}`: {}", shorten(key), problem.message);
            notes.finding(*at, problem)
        };
        match judged.get(key.as_str()).cloned() {
            Some(Err(problem)) => report.findings.push(of_note(problem)),
            Some(Ok(problems)) => report.warnings.extend(problems.into_iter().map(of_note)),
            None => {}
        }
    }
}

/// What is wrong with a picture, or what may not be meant.
type Judged = Result<Vec<Problem>, Problem>;

fn judge_together<'a>(
    store: &ImageStore,
    keys: &[&'a str],
    options: &DecodeOptions,
) -> Vec<(&'a str, Judged)> {
    let ahead = store.ahead(keys.iter().copied());
    keys.iter()
        .map(|&key| (key, judge(store, key, options, &ahead)))
        .collect()
}

/// Decodes a picture as training will, and throws the result away.
fn judge(store: &ImageStore, key: &str, options: &DecodeOptions, ahead: &Fetched) -> Judged {
    let bytes = store.content(key, options, ahead)?;
    let (_, traits): (_, PictureTraits) = decode_with_traits(&bytes, options)?;
    let twins = warnings::of_twins(&store.twins(key));
    Ok(warnings::of_picture(&traits, options)
        .chain(twins)
        .collect())
}
