//! Where the entries of a tar file are, kept so that a large one is walked once.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image_store::{Stamp, stamp_of};
use super::screen::cache_folder;
use crate::error::{DataError, Result, shorten};
use crate::store::{Object, Store};
use crate::write::write_file;

/// Fewer entries than this are listed faster than an index is kept.
const LEAST_KEPT: usize = 256;

/// A regular file of a tar file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TarEntry {
    /// Its name, without `./`.
    pub name: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many these are.
    pub bytes: u64,
}

/// What is kept of a tar file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Size and time of the tar file that was listed.
    stamp: Stamp,
    entries: Vec<TarEntry>,
}

/// The regular files of a tar file, in its order: from the user's cache folder, where size and time are
/// those of the file that was listed, else from the file.
///
/// # Errors
/// A file that cannot be read or is no uncompressed tar file.
pub(super) fn entries(path: &Path) -> Result<Vec<TarEntry>> {
    entries_with(path, index_path(path).as_deref(), LEAST_KEPT)
}

/// As [`entries`], of a tar file in an object store: its headers are read by ranges, and listed again when its size or
/// entity tag is another. Small entries come with these ranges, and are kept while the cache has room.
///
/// # Errors
/// As [`entries`]; a store that does not answer.
pub(super) fn entries_of(store: &Store, object: &Object) -> Result<Vec<TarEntry>> {
    let kept = store.kept_index(object);
    if let Some(entries) = kept.and_then(|kept| serde_json::from_slice(&kept).ok()) {
        return Ok(entries);
    }
    let address = store.address(object);
    let keep = |entry: &TarEntry, content: &mut dyn Read| {
        if !store.keeps_passing(entry.bytes) {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(entry.bytes as usize);
        content.read_to_end(&mut bytes)?;
        store.keep_part(object, entry.offset, &bytes);
        Ok(())
    };
    let entries = list_in(&address, store.reader(object), object.bytes, keep)?;
    // However few they are: each took a request.
    if let Ok(text) = serde_json::to_vec(&entries) {
        store.keep_index(object, &text);
    }
    Ok(entries)
}

fn entries_with(path: &Path, index: Option<&Path>, least: usize) -> Result<Vec<TarEntry>> {
    let metadata = fs::metadata(path).map_err(DataError::io("read", path))?;
    let stamp = stamp_of(&metadata);
    if let Some(entries) = index.and_then(|index| read_index(index, stamp)) {
        return Ok(entries);
    }
    let entries = list(path)?;
    if let Some(index) = index.filter(|_| entries.len() >= least) {
        write_index(
            index,
            &Kept {
                stamp,
                entries: entries.clone(),
            },
        );
    }
    Ok(entries)
}

fn list(path: &Path) -> Result<Vec<TarEntry>> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let file_bytes = file.metadata().map_err(DataError::io("read", path))?.len();
    list_in(path, BufReader::new(file), file_bytes, |_, _| Ok(()))
}

/// Lists the regular files, each of which `passing` may read on the way.
fn list_in(
    path: &Path,
    file: impl Read + Seek,
    file_bytes: u64,
    mut passing: impl FnMut(&TarEntry, &mut dyn Read) -> std::io::Result<()>,
) -> Result<Vec<TarEntry>> {
    let broken = |error: std::io::Error| {
        DataError::file(
            path,
            format!("no readable tar file: {}", shorten(&error.to_string())),
            "write the shard again, uncompressed",
        )
    };
    let mut archive = tar::Archive::new(file);
    let mut entries = Vec::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut content = entry.map_err(broken)?;
        if !content.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&content.path_bytes()).into_owned();
        let entry = TarEntry {
            name: name.strip_prefix("./").unwrap_or(&name).to_owned(),
            offset: content.raw_file_position(),
            bytes: content.size(),
        };
        if entry.offset.saturating_add(entry.bytes) > file_bytes {
            let reason = format!("`{}` goes past its end", shorten(&entry.name));
            return Err(broken(std::io::Error::other(reason)));
        }
        passing(&entry, &mut content).map_err(broken)?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Where the index of a tar file is kept; `None` on systems without a cache folder.
fn index_path(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    let name = blake3::hash(real.as_os_str().as_encoded_bytes()).to_hex();
    Some(cache_folder()?.join(format!("{name}.tar.json")))
}

/// The entries of the tar file that has this stamp. An index that is damaged is none: its first line is
/// the hash of the rest.
fn read_index(path: &Path, stamp: Stamp) -> Option<Vec<TarEntry>> {
    let text = fs::read_to_string(path).ok()?;
    let (hash, text) = text.split_once('\n')?;
    if blake3::hash(text.as_bytes()).to_hex().as_str() != hash {
        return None;
    }
    let kept: Kept = serde_json::from_str(text).ok()?;
    (kept.stamp == stamp).then_some(kept.entries)
}

/// Without an index the file is listed again: that it cannot be written does no harm.
fn write_index(path: &Path, kept: &Kept) {
    use std::io::Write;
    let Ok(text) = serde_json::to_string(kept) else {
        return;
    };
    let hash = blake3::hash(text.as_bytes()).to_hex();
    // What killed processes left; one that is at it now does without an index.
    mlrm_files::clear_unfinished(path);
    let _unkept = write_file(path, |out| write!(out, "{hash}\n{text}")).is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_tar(path: &Path, files: &[(&str, &str)]) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, content.as_bytes())
                .unwrap();
        }
        builder.finish().unwrap();
    }

    #[test]
    fn an_index_is_taken_while_the_file_is_the_same_and_it_is_whole() {
        let home = tempfile::tempdir().unwrap();
        let (path, index) = (home.path().join("a.tar"), home.path().join("cache/a.json"));
        write_tar(&path, &[("./x.png", "one"), ("sub/y.png", "two2")]);
        let read = || entries_with(&path, Some(&index), 2).unwrap();
        let names = |entries: &[TarEntry]| -> Vec<(String, u64)> {
            entries
                .iter()
                .map(|entry| (entry.name.clone(), entry.bytes))
                .collect()
        };
        let first = read();
        assert_eq!(
            names(&first),
            [("x.png".to_owned(), 3), ("sub/y.png".to_owned(), 4)]
        );
        let bytes = fs::read(&path).unwrap();
        let at = first[1].offset as usize;
        assert_eq!(&bytes[at..at + 4], b"two2");
        // The index is what is read: here it says something else, and is whole.
        let stamp = stamp_of(&fs::metadata(&path).unwrap());
        let other = TarEntry {
            name: "z".into(),
            ..first[0].clone()
        };
        write_index(
            &index,
            &Kept {
                stamp,
                entries: vec![other.clone()],
            },
        );
        assert_eq!(read(), [other]);
        // Damaged, half of it, or empty: the file is listed again, and the index is whole again.
        for damage in ["", "x\ny", &fs::read_to_string(&index).unwrap()[..90]] {
            fs::write(&index, damage).unwrap();
            assert_eq!(read(), first);
            assert_eq!(read_index(&index, stamp).unwrap(), first);
        }
        // Another size, and another time.
        write_tar(&path, &[("x.png", "one")]);
        assert_eq!(names(&read()), [("x.png".to_owned(), 3)]);
        write_tar(&path, &[("v.png", "one"), ("w.png", "two2")]);
        assert_eq!(read().len(), 2);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        write_tar(&path, &[("a.png", "one"), ("b.png", "two2")]);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(time + std::time::Duration::from_secs(1))
            .unwrap();
        assert_eq!(read()[0].name, "a.png");
        // Few entries are not worth an index.
        let none = home.path().join("none.json");
        assert_eq!(entries_with(&path, Some(&none), 3).unwrap().len(), 2);
        assert!(!none.exists());
    }
}
