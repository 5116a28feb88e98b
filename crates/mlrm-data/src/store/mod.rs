//! Objects at `s3://`, `gs://`, `az://`, `http://` and `https://` addresses, with a cache on disk.
//!
//! Whoever reads pictures or tables asks here and waits: requests run on threads of this module, as many at once as
//! the servers like, and nothing outside of it is asynchronous. Without the cargo feature `object-store`
//! every address is refused by name.

#[cfg(not(feature = "object-store"))]
mod absent;
#[cfg(feature = "object-store")]
mod address;
#[cfg(feature = "object-store")]
mod cache;
#[cfg(feature = "object-store")]
mod client;
#[cfg(feature = "object-store")]
mod fault;
#[cfg(feature = "object-store")]
mod files;
#[cfg(feature = "object-store")]
mod http;
#[cfg(feature = "object-store")]
mod ranges;
#[cfg(feature = "object-store")]
mod reader;
#[cfg(all(test, feature = "object-store"))]
mod tests;

use std::borrow::Cow;
use std::path::Path;

use mlrm_config::{check_address, is_address};

#[cfg(not(feature = "object-store"))]
pub use absent::told;
#[cfg(not(feature = "object-store"))]
pub(crate) use absent::{Store, copy_of, list_files};
#[cfg(feature = "object-store")]
pub use client::told;
#[cfg(feature = "object-store")]
pub(crate) use files::{copy_of, list_files};
#[cfg(feature = "object-store")]
pub(crate) use reader::Store;

use crate::error::{DataError, Result};

/// An object as it was when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its key in the bucket, or its path on the server.
    pub key: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// What tells this content from a later one: the entity tag, else the time of the last change.
    pub mark: String,
}

impl Object {
    /// The mark as a number.
    pub fn version(&self) -> u64 {
        let hash = blake3::hash(self.mark.as_bytes());
        let (first, _) = hash
            .as_bytes()
            .split_first_chunk()
            .expect("a hash has 32 bytes");
        u64::from_le_bytes(*first)
    }
}

/// A file of this machine that holds what is at `path`: itself, or a copy of what an address names.
///
/// # Errors
/// An address that cannot be read; a copy that cannot be written.
pub fn local(path: &Path) -> Result<Cow<'_, Path>> {
    check(path)?;
    match is_address(path) {
        false => Ok(Cow::Borrowed(path)),
        true => copy_of(path).map(Cow::Owned),
    }
}

/// Whether a file is at `path`; of addresses it is taken for granted, until they are read.
pub fn is_named(path: &Path) -> bool {
    is_address(path) || path.is_file()
}

/// That an address can be read by this program.
pub(crate) fn check(path: &Path) -> Result<()> {
    check_address(path).map_err(|error| DataError::file(path, error.message, error.help))
}
