//! What is wrong, all of it, and what was left out, by reason.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{DataError, Problem, Result};

/// How many findings a message shows.
const SHOWN: usize = 20;

/// Collects what is wrong, so that all of it is said at once.
#[derive(Debug, Default)]
pub(super) struct Findings {
    shown: Vec<String>,
    total: u64,
}

impl Findings {
    /// Something about a key of the spec.
    pub(super) fn key(&mut self, key: &str, message: impl std::fmt::Display) {
        self.add(|| format!("`{key}`: {message}"));
    }

    /// Something about a row of a file.
    pub(super) fn row(&mut self, path: &Path, row: u64, problem: &Problem) {
        self.add(|| {
            let Problem { message, mend, .. } = problem;
            format!("{}:{row}: {message}; {mend}", path.display())
        });
    }

    fn add(&mut self, line: impl FnOnce() -> String) {
        self.total += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(line());
        }
    }

    /// The error that says them all, if there are any.
    pub(super) fn end(self) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let mut lines = self.shown;
        if self.total > lines.len() as u64 {
            lines.push(format!("… {} in all", self.total));
        }
        Err(DataError::Several(lines.join("\n")))
    }
}

/// How many rows were left out, by reason.
#[derive(Debug, Default)]
pub(super) struct Dropped(pub(super) BTreeMap<String, u64>);

impl Dropped {
    /// One more.
    pub(super) fn count(&mut self, reason: &str) {
        match self.0.get_mut(reason) {
            Some(count) => *count += 1,
            None => _ = self.0.insert(reason.to_owned(), 1),
        }
    }
}
