//! Pairs that were made elsewhere.

use std::path::Path;

use mlrm_config::{PairSettings, Split};

use super::parts::{Part, assign_parts, by_part, may_pair};
use super::{Pair, PairData, same_everywhere};
use crate::error::{DataError, Result, shorten};
use crate::notes::{NearIds, NoteSet};
use crate::pairs::PairList;

/// Splits ready-made pairs, read from `path`.
pub(super) fn split_pairs(
    list: &PairList,
    path: &Path,
    notes: &NoteSet,
    rules: &PairSettings,
    seed: u64,
) -> Result<PairData> {
    let mut pairs = Vec::with_capacity(list.pairs.len());
    let dropped = |note: u32| notes.is_dropped(&list.notes[note]);
    for pair in &list.pairs {
        if dropped(pair.query) || dropped(pair.target) {
            continue;
        }
        let row = |note: u32| {
            notes.row(&list.notes[note]).ok_or_else(|| {
                DataError::file(
                    path,
                    format!(
                        "no note has the id `{}`{}",
                        shorten(&list.notes[note]),
                        NearIds::new(notes.rows().iter().map(|note| note.id.as_str()))
                            .hint(&list.notes[note])
                    ),
                    "add the note, or let `mlrm data check --fix DIR` leave such rows out",
                )
            })
        };
        let (query, target) = (row(pair.query)?, row(pair.target)?);
        if query != target {
            pairs.push(Pair {
                query,
                target,
                weight: pair.weight,
            });
        }
    }
    let (pairs, parts) = match rules.split {
        Split::Note => {
            let parts = assign_parts(notes, rules, seed);
            let part = |note: u32| parts[note as usize];
            pairs.retain(|pair| may_pair(part(pair.query), part(pair.target), rules.test_targets));
            (by_part(pairs, &parts), parts)
        }
        Split::None => (
            same_everywhere(pairs, rules),
            vec![Part::Train; notes.len()],
        ),
        Split::Time => {
            return Err(DataError::setting(
                "data.pairs.split",
                "ready-made pairs have no time",
                "set \"note\" or \"none\", or give a log instead of `data.pairs_file`",
            ));
        }
    };
    let mut note_users = vec![0; notes.len()];
    for pair in &pairs.train {
        note_users[pair.target as usize] += 1;
    }
    Ok(PairData {
        pairs,
        parts,
        note_users,
        ..PairData::default()
    })
}
