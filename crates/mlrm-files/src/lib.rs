//! Files and folders that are there whole or not at all, whoever kills the process and whenever the power fails.
//!
//! What is written lies beside its place, under a name that tells so ([`Marks`]), until all of it is on the disk.
//! Then it is renamed, and the new name is brought to the disk as well. What fails or is dropped before that is
//! removed, and whatever was in the place stays.
//!
//! ```
//! # let home = tempfile::tempdir()?;
//! # let path = home.path().join("table.csv");
//! use std::io::Write;
//!
//! mlrm_files::write_with(&path, |out| writeln!(out, "id,title"))?;
//! assert_eq!(std::fs::read_to_string(&path)?, "id,title\n");
//! # Ok::<(), std::io::Error>(())
//! ```
#![deny(missing_docs)]

mod disk;
mod file;
mod folder;
mod marks;

pub use disk::{place, sync_folder};
pub use file::{PendingFile, write, write_with};
pub use folder::{PendingFolder, REPLACED};
pub use marks::{Marks, clear_unfinished};

use std::io;
use std::path::Path;

/// The folder that `path` lies in; `.` for a bare file name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes a file, a link or a folder with all that is in it; nothing where there is nothing.
///
/// # Errors
/// What the file system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}
