//! Looking at every picture of a run before it begins, as far as its first and last bytes tell.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::image_store::Stamp;
use super::{Fetched, ImageStore, NoteSet};
use crate::error::{Problem, ProblemKind};
use crate::image::DecodeOptions;
use crate::write::write_file;

/// Fewer pictures than this are looked at faster than a list of them is kept.
const LEAST_KEPT: usize = 2_000;

/// Notes whose picture is not there or cannot be used, by row, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Screened {
    /// Notes that name no picture (without a problem), or one that is not there.
    pub missing: Vec<(u32, Option<Problem>)>,
    /// Notes whose picture is there and cannot be used.
    pub bad: Vec<(u32, Problem)>,
}

/// A picture that was found whole, and when.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    options: [u64; 2],
    whole: HashMap<String, Stamp>,
}

impl ImageStore {
    /// Looks at the pictures of `rows` on all threads: whether they are there, of a known format,
    /// within the limits, and not cut off. Their pixels are not decoded. `progress` hears how many
    /// pictures are done, of how many.
    ///
    /// What was found whole is kept in the user's cache folder with size and time of its file, so
    /// that it need not be opened again.
    pub fn screen(
        &self,
        notes: &NoteSet,
        rows: &[u32],
        options: &DecodeOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Screened {
        let list = self.root().and_then(|root| list_path(&root));
        self.screen_with(notes, rows, options, progress, list.as_deref(), LEAST_KEPT)
    }

    fn screen_with(
        &self,
        notes: &NoteSet,
        rows: &[u32],
        options: &DecodeOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
        list: Option<&Path>,
        least: usize,
    ) -> Screened {
        let image = |row: &u32| notes[*row].image.as_deref();
        let mut keys: Vec<&str> = rows.iter().filter_map(image).collect();
        keys.sort_unstable();
        keys.dedup();
        let list = list.filter(|_| keys.len() >= least);
        let limits = [options.file_bytes, options.pixels];
        let known = list
            .and_then(|list| read_list(list, limits))
            .unwrap_or_default();
        let done = AtomicUsize::new(0);
        let is_known = |key: &str, stamp: &Stamp| known.get(key) == Some(stamp);
        let look = |key: &str, ahead: &Fetched| {
            let found = self.stamp(key).and_then(|stamp| {
                if !is_known(key, &stamp) {
                    self.check_ends(key, options, ahead)?;
                }
                Ok(stamp)
            });
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, keys.len());
            found
        };
        let look_together = |keys: &[&str]| {
            let new = keys.iter().copied().filter(|key| {
                let stamp = self.stamp(key);
                stamp.is_ok_and(|stamp| {
                    !is_known(key, &stamp) && options.check_bytes(stamp.bytes).is_ok()
                })
            });
            let ahead = match self.together() {
                1 => Fetched::default(),
                _ => self.ahead(new),
            };
            keys.iter().map(|key| look(key, &ahead)).collect::<Vec<_>>()
        };
        let together = keys.par_chunks(self.together());
        let found: Vec<Result<Stamp, Problem>> = together.flat_map_iter(look_together).collect();
        let (mut whole, mut problems) = (HashMap::new(), HashMap::new());
        for (key, found) in keys.iter().zip(found) {
            match found {
                Ok(stamp) => drop(whole.insert((*key).to_owned(), stamp)),
                Err(problem) => drop(problems.insert(*key, problem)),
            }
        }
        if let Some(list) = list.filter(|_| whole != known) {
            write_list(list, limits, whole);
        }
        let mut screened = Screened::default();
        for &row in rows {
            match image(&row).map(|key| problems.get(key)) {
                None => screened.missing.push((row, None)),
                Some(None) => {}
                Some(Some(problem)) if problem.kind == ProblemKind::MissingImage => {
                    screened.missing.push((row, Some(problem.clone())));
                }
                Some(Some(problem)) => screened.bad.push((row, problem.clone())),
            }
        }
        screened
    }
}

/// Where the list of the pictures below `root` is kept; `None` on systems without a cache folder.
fn list_path(root: &Path) -> Option<PathBuf> {
    let name = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
    Some(cache_folder()?.join(format!("{name}.json")))
}

/// Where it is kept what was found out about pictures.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = folder("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| folder("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(cache.join("mlrm/pictures"))
}

/// The pictures that were found whole by these limits. A list that is damaged is none.
fn read_list(path: &Path, limits: [u64; 2]) -> Option<HashMap<String, Stamp>> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (kept.options == limits).then_some(kept.whole)
}

/// Without a list every picture is opened again: that it cannot be written does no harm.
fn write_list(path: &Path, options: [u64; 2], whole: HashMap<String, Stamp>) {
    let kept = Kept { options, whole };
    // What killed processes left; one that is at it now does without a list.
    mlrm_files::clear_unfinished(path);
    let written = path
        .parent()
        .map(std::fs::create_dir_all)
        .is_some_and(|made| made.is_ok())
        && write_file(path, |out| Ok(serde_json::to_writer(out, &kept)?)).is_ok();
    let _unkept = written;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::RgbImage;

    use super::*;
    use crate::notes::Note;

    fn note(id: usize, image: Option<&str>) -> Note {
        Note {
            id: id.to_string(),
            image: image.map(str::to_owned),
            ..Note::default()
        }
    }

    #[test]
    fn missing_and_bad_pictures_are_found_without_decoding() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let picture = RgbImage::from_fn(300, 300, |x, y| image::Rgb([(x * y) as u8, x as u8, 9]));
        for name in ["good.png", "good.jpg", "cut.png", "cut.jpg"] {
            picture.save(at(name)).unwrap();
        }
        for name in ["cut.png", "cut.jpg"] {
            let bytes = fs::read(at(name)).unwrap();
            fs::write(at(name), &bytes[..bytes.len() - 100]).unwrap();
        }
        fs::write(at("text.png"), "no picture").unwrap();
        let keys = [
            Some("good.png"),
            None,
            Some("none.png"),
            Some("cut.png"),
            Some("cut.jpg"),
            Some("text.png"),
            Some("../x.png"),
            Some("good.jpg"),
            Some("cut.png"),
        ];
        let notes = keys
            .iter()
            .enumerate()
            .map(|(id, key)| note(id, *key))
            .collect();
        let notes = NoteSet::new(notes).unwrap();
        let store = ImageStore::open(home.path()).unwrap();
        let rows: Vec<u32> = (0..keys.len() as u32).collect();
        let options = DecodeOptions::default();
        let most = AtomicUsize::new(0);
        let progress = |done: usize, of: usize| {
            assert_eq!(of, 7);
            most.fetch_max(done, Ordering::Relaxed);
        };
        let list = at("cache/list.json");
        for _ in 0..2 {
            let found = store.screen_with(&notes, &rows, &options, &progress, Some(&list), 1);
            let missing: Vec<_> = found
                .missing
                .iter()
                .map(|(row, p)| (*row, p.is_some()))
                .collect();
            assert_eq!(missing, [(1, false), (2, true)]);
            let bad: Vec<_> = found
                .bad
                .iter()
                .map(|(row, p)| (*row, p.kind.name()))
                .collect();
            assert_eq!(
                bad,
                [
                    (3, "truncated_image"),
                    (4, "truncated_image"),
                    (5, "undecodable_image"),
                    (6, "bad_image_key"),
                    (8, "truncated_image"),
                ]
            );
        }
        assert_eq!(most.into_inner(), 7);
        // What is on the list is not opened again while size and time are the same.
        let kept = read_list(&list, [options.file_bytes, options.pixels]).unwrap();
        assert_eq!(kept.len(), 2);
        let time = fs::metadata(at("good.png")).unwrap().modified().unwrap();
        let zeros = vec![0; kept["good.png"].bytes as usize];
        fs::write(at("good.png"), zeros).unwrap();
        let bad = || {
            let found = store.screen_with(&notes, &[0], &options, &|_, _| {}, Some(&list), 1);
            found.bad.len()
        };
        let file = fs::File::options()
            .write(true)
            .open(at("good.png"))
            .unwrap();
        file.set_modified(time).unwrap();
        assert_eq!(bad(), 0);
        file.set_modified(time + std::time::Duration::from_secs(1))
            .unwrap();
        assert_eq!(bad(), 1);
        fs::write(&list, "damaged").unwrap();
        assert_eq!(bad(), 1);
    }
}
