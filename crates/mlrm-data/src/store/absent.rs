//! What stands for object stores in a program that is built without them: nothing.

use std::io::Empty;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Object, check};
use crate::error::{Problem, Result};

/// There is none.
#[derive(Debug)]
pub(crate) enum Store {}

impl Store {
    /// Refuses every address by the name of the feature.
    pub fn open(path: &Path, _cache_bytes: u64) -> Result<Self> {
        check(path)?;
        unreachable!("no address passes the check")
    }

    pub fn shards(&self) -> Result<Vec<Object>> {
        match *self {}
    }

    pub fn listed(&self) -> Result<Option<(usize, Vec<Object>)>> {
        match *self {}
    }

    pub fn address(&self, _object: &Object) -> PathBuf {
        match *self {}
    }

    pub fn kept_index(&self, _object: &Object) -> Option<Vec<u8>> {
        match *self {}
    }

    pub fn keep_index(&self, _object: &Object, _content: &[u8]) {
        match *self {}
    }

    pub fn reader(&self, _object: &Object) -> Empty {
        match *self {}
    }

    pub fn keeps_passing(&self, _bytes: u64) -> bool {
        match *self {}
    }

    pub fn keep_part(&self, _object: &Object, _start: u64, _content: &[u8]) {
        match *self {}
    }

    pub fn read(&self, _object: &Object, _range: Range<u64>) -> Result<Vec<u8>, Problem> {
        match *self {}
    }

    pub fn fetch(&self, _wanted: &[(&Object, Range<u64>)]) -> Vec<Result<Vec<u8>, Problem>> {
        match *self {}
    }

    pub fn kept_row(&self, _object: &Object, _row: u64) -> Option<Vec<u8>> {
        match *self {}
    }

    pub fn has_row(&self, _object: &Object, _row: u64) -> bool {
        match *self {}
    }

    pub fn keep_row(&self, _object: &Object, _row: u64, _content: &[u8]) {
        match *self {}
    }

    pub fn read_ahead(&self, _wanted: &[(&Object, Range<u64>)]) -> Vec<Option<Vec<u8>>> {
        match *self {}
    }
}

/// Refuses every address by the name of the feature.
pub(crate) fn copy_of(path: &Path) -> Result<PathBuf> {
    check(path)?;
    unreachable!("no address passes the check")
}

/// Refuses every address by the name of the feature.
pub(crate) fn list_files(path: &Path, _wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    check(path)?;
    unreachable!("no address passes the check")
}

/// Nothing is fetched.
pub fn told() -> Option<String> {
    None
}
