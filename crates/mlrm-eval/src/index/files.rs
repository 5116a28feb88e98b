//! The files of an index: written whole, and opened where they lie.

use std::path::{Path, PathBuf};

use super::{Index, IndexRecall, IndexReport};
use crate::error::Error;
use crate::files::{begin, begin_text, place, remove, sync};

pub(super) fn ids_path(path: &Path) -> PathBuf {
    beside(path, ".ids.txt")
}

pub(super) fn report_path(path: &Path) -> PathBuf {
    beside(path, ".json")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn utf8(path: &Path) -> Result<&str, Error> {
    path.to_str()
        .ok_or_else(|| Error::file(path, "the name of an index must be UTF-8"))
}

impl Index {
    /// Writes the index with its ids and what was measured: all beside, then renamed, the index last, so that a
    /// file of this name is always whole and its own.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &Path, recall: IndexRecall) -> Result<IndexReport, Error> {
        let index = begin(path)?;
        self.inner
            .save(utf8(index.beside())?)
            .map_err(|error| Error::file(path, format!("cannot be written: {error}")))?;
        let written = std::fs::metadata(index.beside()).map_err(Error::io(path, "write"))?;
        let report = IndexReport {
            notes: self.len(),
            dim: self.inner.dimensions(),
            options: self.options,
            build_seconds: self.build_seconds,
            threads: rayon::current_num_threads(),
            bytes: written.len(),
            recall,
        };
        let report_file = report_path(path);
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Error::file(&report_file, error.to_string()))?;
        let ids = begin_text(&ids_path(path), &(self.ids.join("\n") + "\n"))?;
        let json = begin_text(&report_file, &(json + "\n"))?;
        [&ids, &json, &index].into_iter().try_for_each(sync)?;
        remove(path)?;
        [ids, json, index].into_iter().try_for_each(place)?;
        Ok(report)
    }

    /// Opens an index where it lies: only what a search looks at is read.
    ///
    /// # Errors
    /// A file that is no index, is cut off, or is not that of the ids and the report beside it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let size = std::fs::metadata(path)
            .map_err(Error::io(path, "open"))?
            .len();
        let broken = |problem: String| Error::file(path, problem);
        let no_index = |error: String| broken(format!("no index of usearch: {error}"));
        let header = || {
            let header = usearch::Index::metadata(utf8(path)?);
            header.map_err(|error| no_index(error.to_string()))
        };
        let report_file = report_path(path);
        let text = match std::fs::read_to_string(&report_file) {
            Ok(text) => text,
            // A file of another kind is told as such.
            Err(error) => {
                header()?;
                return Err(Error::io(&report_file, "read what belongs to the index")(
                    error,
                ));
            }
        };
        let report: IndexReport = serde_json::from_str(&text).map_err(|error| {
            Error::file(&report_file, format!("no report of an index: {error}"))
        })?;
        if size != report.bytes {
            return Err(broken(format!(
                "{size} bytes, but {} says {}; it is cut off or of another build",
                report_file.display(),
                report.bytes
            )));
        }
        let header = header()?;
        let ids_file = ids_path(path);
        let ids = std::fs::read_to_string(&ids_file).map_err(Error::io(
            &ids_file,
            "read the ids of the index (one a line)",
        ))?;
        let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
        if ids.len() as u64 != header.count_present {
            return Err(broken(format!(
                "{} notes, but {} has {} ids; they must belong together",
                header.count_present,
                ids_file.display(),
                ids.len()
            )));
        }
        let inner = usearch::Index::restore_view(utf8(path)?);
        let inner = inner.map_err(|error| no_index(error.to_string()))?;
        inner.change_expansion_search(report.options.expansion_search);
        Ok(Self {
            inner,
            ids,
            options: report.options,
            build_seconds: report.build_seconds,
        })
    }
}
