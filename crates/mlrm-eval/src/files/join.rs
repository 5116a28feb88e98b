//! Several embedding files as one, of which a block is in memory at a time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::{Numbers, Shape, Writer, for_each_block, for_each_id, writer};
use crate::error::Error;

/// Notes that are read at a time.
const BLOCK_NOTES: usize = 4096;

/// A file that is to be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFile {
    /// Where it is.
    pub path: PathBuf,
    /// How many embeddings it has.
    pub notes: usize,
}

/// What was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Embeddings in the file.
    pub notes: usize,
    /// Their dimensions.
    pub dim: usize,
}

/// Writes the parts of one corpus (the shards of `embed --shard i/n`), in the order given, as the file that
/// [`write_embeddings`](super::write_embeddings) would write of all of them: the same bytes. Held are all ids, of which each takes
/// its letters and up to 33 bytes, and the embeddings of a block of notes; of Parquet those of a row group, too.
/// With `dim` they are [cut](crate::EmbeddingSet::cut_to).
///
/// # Errors
///
/// If there is no embedding, one part cannot be read, has another number of embeddings than it should have, or other
/// dimensions than the first; if an id is in two parts; if the file cannot be written.
pub fn join_embeddings(
    path: &Path,
    parts: &[PartFile],
    dim: Option<usize>,
    numbers: Numbers,
) -> Result<Joined, Error> {
    let ids = all_ids(parts)?;
    let mut begun: Option<(Box<dyn Writer>, Shape)> = None;
    for part in parts {
        let mut notes = 0;
        for_each_block(&part.path, BLOCK_NOTES, &mut |set| {
            notes += set.multimodal().len();
            if set.multimodal().is_empty() {
                // It does not tell how long its embeddings would be.
                return Ok(());
            }
            let set = match dim {
                Some(dim) => set.cut_to(dim)?,
                None => set,
            };
            let own = Shape {
                notes: ids.notes,
                dim: set.multimodal().dim(),
                visual: set.visual().map(|visual| visual.dim()),
                numbers,
            };
            let (out, shape) = match &mut begun {
                Some(begun) => begun,
                None => begun.insert((writer(path, &ids.text, own)?, own)),
            };
            same_shape(shape, &own)?;
            out.append(&set)
        })?;
        check_count(part, notes)?;
    }
    let (out, shape) = begun.ok_or(Error::Mismatch {
        what: "shards of one corpus",
        problem: "there is none".into(),
    })?;
    out.finish()?;
    Ok(Joined {
        notes: ids.notes,
        dim: shape.dim,
    })
}

fn check_count(part: &PartFile, notes: usize) -> Result<(), Error> {
    match notes == part.notes {
        true => Ok(()),
        false => Err(Error::file(
            &part.path,
            format!("it has {notes} embeddings, and should have {}", part.notes),
        )),
    }
}

fn same_shape(first: &Shape, own: &Shape) -> Result<(), Error> {
    if first == own {
        return Ok(());
    }
    let visual = |shape: &Shape| match shape.visual {
        Some(dim) => format!(" and visual ones of {dim}"),
        None => String::new(),
    };
    Err(Error::Mismatch {
        what: "shards of one corpus",
        problem: format!(
            "one has {} dimensions{}, another {}{}; they come from different models",
            first.dim,
            visual(first),
            own.dim,
            visual(own)
        ),
    })
}

/// The ids of a corpus.
struct Ids {
    /// One a line.
    text: String,
    notes: usize,
}

fn all_ids(parts: &[PartFile]) -> Result<Ids, Error> {
    let mut text = String::new();
    let mut hashes = Vec::new();
    for part in parts {
        let before = hashes.len();
        for_each_id(&part.path, &mut |id| {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            hashes.push((hasher.finish(), hashes.len()));
            text += id;
            text.push('\n');
        })?;
        check_count(part, hashes.len() - before)?;
    }
    let notes = hashes.len();
    if u32::try_from(notes).is_err() {
        return Err(Error::TooManyNotes { notes });
    }
    hashes.sort_unstable();
    let at = |row: usize| text.lines().nth(row).unwrap_or_default();
    for of_hash in hashes.chunk_by(|one, other| one.0 == other.0) {
        for (place, &(_, first)) in of_hash.iter().enumerate() {
            for &(_, second) in &of_hash[place + 1..] {
                if at(first) == at(second) {
                    let id = at(first).to_owned();
                    return Err(Error::DuplicateId { id, first, second });
                }
            }
        }
    }
    Ok(Ids { text, notes })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::embeddings::{EmbeddingSet, Embeddings};
    use crate::files::{embedding_files, write_embeddings};

    fn set(rows: std::ops::Range<usize>, dim: usize, visual: bool) -> EmbeddingSet {
        let of = |salt: usize| {
            let value = |n: usize| ((n * 37 + salt) % 101) as f32 / 50.0 - 1.01;
            let values = (rows.start * dim..rows.end * dim).map(value).collect();
            let ids = rows.clone().map(|row| format!("note {row}")).collect();
            Embeddings::new(ids, dim, values).unwrap()
        };
        EmbeddingSet::new(of(0), visual.then(|| of(7))).unwrap()
    }

    #[test]
    fn joined_files_are_those_of_the_whole_in_every_format() {
        // More notes than the columns of Parquet are made of at a time.
        let ends = [0, 1, 700, 700, 20_000, 40_001];
        for (ending, part_ending) in [
            ("npy", "safetensors"),
            ("safetensors", "npy"),
            ("parquet", "parquet"),
        ] {
            for (visual, numbers, dim) in [
                (false, Numbers::F32, None),
                (true, Numbers::F32, Some(3)),
                (true, Numbers::Int8, None),
            ] {
                let home = tempfile::tempdir().unwrap();
                let at = |name: &str| home.path().join(name);
                let whole = at(&format!("whole.{ending}"));
                let all = set(0..40_001, 5, visual);
                let cut = dim.map_or(all.clone(), |dim| all.cut_to(dim).unwrap());
                write_embeddings(&whole, &cut, numbers).unwrap();
                let parts: Vec<PartFile> = (0..5)
                    .map(|part| {
                        let path = at(&format!("part-{part}.{part_ending}"));
                        let rows = ends[part]..ends[part + 1];
                        write_embeddings(&path, &set(rows.clone(), 5, visual), Numbers::F32)
                            .unwrap();
                        let notes = rows.len();
                        PartFile { path, notes }
                    })
                    .filter(|part| part.notes > 0 || part_ending != "parquet")
                    .collect();
                let joined = at(&format!("joined.{ending}"));
                let said = join_embeddings(&joined, &parts, dim, numbers).unwrap();
                assert_eq!((said.notes, said.dim), (40_001, dim.unwrap_or(5)));
                let pairs = embedding_files(&whole)
                    .into_iter()
                    .zip(embedding_files(&joined));
                for (whole, joined) in pairs.filter(|(whole, _)| whole.exists()) {
                    assert!(
                        fs::read(&whole).unwrap() == fs::read(&joined).unwrap(),
                        "{whole:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_file_is_read_a_block_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let whole = set(0..20_000, 3, true);
        for ending in ["npy", "safetensors", "parquet"] {
            let path = home.path().join(format!("x.{ending}"));
            write_embeddings(&path, &whole, Numbers::F32).unwrap();
            for (most, blocks) in [(BLOCK_NOTES, 5), (7000, 3), (1, 20_000), (usize::MAX, 1)] {
                let (mut count, mut ids, mut values) = (0, Vec::new(), Vec::new());
                for_each_block(&path, most, &mut |block| {
                    count += 1;
                    assert!(block.multimodal().len() <= most);
                    ids.extend_from_slice(block.multimodal().ids());
                    values.extend_from_slice(block.multimodal().values());
                    let visual = block.visual().unwrap();
                    assert_eq!(visual.ids(), block.multimodal().ids());
                    values.extend_from_slice(visual.values());
                    Ok(())
                })
                .unwrap();
                assert_eq!(count, blocks, "{ending}");
                assert_eq!(ids, whole.multimodal().ids());
                let mut expected = Vec::new();
                let rows = most.min(20_000) * 3;
                let visual = whole.visual().unwrap().values().chunks(rows);
                for (one, other) in whole.multimodal().values().chunks(rows).zip(visual) {
                    expected.extend_from_slice(one);
                    expected.extend_from_slice(other);
                }
                assert!(values == expected, "{ending} {most}");
            }
        }
        // Rows are numbered as those of the file.
        let path = home.path().join("x.npy");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let read = for_each_block(&path, 4096, &mut |_| Ok(())).unwrap_err();
        assert!(format!("{read:?}").contains("row: 19999"), "{read:?}");
    }

    #[test]
    fn parts_that_do_not_belong_together_leave_no_file() {
        let home = tempfile::tempdir().unwrap();
        let part = |name: &str, set: &EmbeddingSet, notes: usize| {
            let path = home.path().join(format!("{name}.npy"));
            write_embeddings(&path, set, Numbers::F32).unwrap();
            PartFile { path, notes }
        };
        let first = part("first", &set(0..4, 3, false), 4);
        let out = home.path().join("out.npy");
        for (other, says) in [
            (
                part("short", &set(4..6, 3, false), 3),
                "it has 2 embeddings, and should have 3",
            ),
            (part("again", &set(3..6, 3, false), 3), "rows 3 and 4"),
            (
                part("wide", &set(4..6, 5, false), 2),
                "one has 3 dimensions, another 5",
            ),
            (
                part("seen", &set(4..6, 3, true), 2),
                "another 3 and visual ones of 3",
            ),
        ] {
            let parts = [first.clone(), other];
            let message = join_embeddings(&out, &parts, None, Numbers::F32).unwrap_err();
            assert!(message.to_string().contains(says), "{message}");
        }
        assert!(join_embeddings(&out, &[], None, Numbers::F32).is_err());
        let left = fs::read_dir(home.path()).unwrap().flatten();
        let mut left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
        assert!(left.all(|name| !name.starts_with(['.', 'o'])));
    }
}
