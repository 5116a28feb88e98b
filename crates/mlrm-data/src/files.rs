//! Tables in several files: a folder of them, or those whose name fits a pattern.

use std::fs;
use std::path::{Path, PathBuf};

use mlrm_config::is_address;
use mlrm_files::folder_of;

use crate::error::{DataError, Result};
use crate::store::list_files;

/// Endings of tables.
const TABLES: [&str; 7] = ["jsonl", "ndjson", "json", "csv", "tsv", "tab", "parquet"];

/// Endings of packings, which follow that of a table.
const PACKINGS: [&str; 3] = [".gz", ".zst", ".zstd"];

/// The files of a table, by their names: `path` itself; the tables that lie in it, where it is a
/// folder; or, where a `*` stands in its last part, the files of that folder whose names fit.
/// Of an address the objects directly below it, or those that fit the braces and the `*` of its last part.
/// Names that begin with a dot or an underscore are those of what other programs say about a table.
///
/// # Errors
/// A folder that cannot be listed, or in which there is no such file.
pub fn table_files(path: &Path) -> Result<Vec<PathBuf>> {
    if is_address(path) {
        return list_files(path, |name| is_table(name) && !is_about(name));
    }
    if path.is_dir() {
        let files = files_in(path, |name| is_table(name) && !is_about(name))?;
        return match files.is_empty() {
            false => Ok(files),
            true => Err(DataError::file(
                path,
                "there is no table in this folder",
                "name a file, or a folder of .jsonl, .csv or .parquet files",
            )),
        };
    }
    Ok(pattern_files(path)?.unwrap_or_else(|| vec![path.to_path_buf()]))
}

/// The files whose names fit the pattern in the last part of `path`; `None` where it is none, or there is
/// a file of just this name.
///
/// # Errors
/// A folder that cannot be listed, or in which there is no such file.
pub(crate) fn pattern_files(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let pattern = path.file_name().unwrap_or_default().to_string_lossy();
    if !pattern.contains('*') || path.is_file() {
        return Ok(None);
    }
    let files = files_in(folder_of(path), |name| {
        fits(&pattern, name) && !is_about(name)
    })?;
    match files.is_empty() {
        false => Ok(Some(files)),
        true => Err(DataError::file(
            path,
            "no file has such a name",
            "correct the pattern; `*` stands for any characters of a file's name, not for folders",
        )),
    }
}

/// The files of a folder whose names are wanted, by their names.
pub(crate) fn files_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io("list", folder))? {
        let entry = entry.map_err(DataError::io("list", folder))?;
        let path = entry.path();
        if wanted(&entry.file_name().to_string_lossy()) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_about(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

fn is_table(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let bare = PACKINGS.iter().find_map(|ending| name.strip_suffix(ending));
    let ending = bare.unwrap_or(&name).rsplit_once('.');
    ending.is_some_and(|(_, ending)| TABLES.contains(&ending))
}

/// Whether a name is as the pattern says, in which `*` stands for any characters.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(start) else {
        return false;
    };
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    ends.into_iter().any(|at| fits(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_patterns_give_their_tables_by_name() {
        let home = tempfile::tempdir().unwrap();
        let names = |path: &Path| -> Vec<String> {
            let files = table_files(path).unwrap();
            let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            files.iter().map(name).collect()
        };
        for name in [
            "b.jsonl",
            "a.csv.gz",
            "c.PARQUET",
            "_SUCCESS",
            ".a.jsonl.crc",
            "_old.csv",
            "x.png",
            "d*.csv",
        ] {
            fs::write(home.path().join(name), "").unwrap();
        }
        fs::create_dir(home.path().join("folder.csv")).unwrap();
        assert_eq!(
            names(home.path()),
            ["a.csv.gz", "b.jsonl", "c.PARQUET", "d*.csv"]
        );
        assert_eq!(
            names(&home.path().join("*.*s*")),
            ["a.csv.gz", "b.jsonl", "d*.csv"]
        );
        // A file of just this name is meant before a pattern; one that is not there is named later.
        assert_eq!(names(&home.path().join("d*.csv")), ["d*.csv"]);
        assert_eq!(names(&home.path().join("none.csv")), ["none.csv"]);
        let refused = |path: PathBuf| table_files(&path).unwrap_err().to_string();
        assert!(refused(home.path().join("none-*.csv")).contains("no file has such a name"));
        assert!(refused(home.path().join("folder.csv")).contains("no table in this folder"));
        assert!(refused(home.path().join("none/*.csv")).contains("cannot list"));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, wanted) in [
            ("a.csv", "a.csv", true),
            ("*_pairs.csv", "MicroLens-50k_pairs.csv", true),
            ("*.jsonl*", "é.jsonl.gz", true),
            ("meta_*", "x_meta_y", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(fits(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
