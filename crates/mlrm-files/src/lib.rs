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

pub use disk::{place, sync_folder};
pub use file::{PendingFile, write, write_with};
pub use folder::{PendingFolder, REPLACED};

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

/// How the name of a file or folder begins and ends while it is written. Between these are the name that it will
/// have, a hyphen, and letters and digits that no other writer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// `.mlrm-`
    pub start: &'static str,
    /// `.partial`
    pub end: &'static str,
}

impl Marks {
    /// Those of files and folders that ask for no others.
    pub const USUAL: Self = Self {
        start: ".mlrm-",
        end: ".partial",
    };

    /// What the name begins with of what is written in place of `path`.
    fn prefix(self, path: &Path) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{}{name}-", self.start)
    }

    /// Makes a file or folder for what is written in place of `path`, with the rights that any new one has: the
    /// umask narrows them. Temporary ones are private by default.
    pub(crate) fn begin<T>(
        self,
        path: &Path,
        mode: u32,
        make: impl FnOnce(&tempfile::Builder<'_, '_>, &Path) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let prefix = self.prefix(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(self.end);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        #[cfg(not(unix))]
        let _other_rights = mode;
        make(&builder, folder_of(path))
    }

    /// The name that what is called `name` while it is written will have; `None` for any other name.
    pub fn target(self, name: &str) -> Option<&str> {
        let rest = name.strip_prefix(self.start)?.strip_suffix(self.end)?;
        Some(rest.rsplit_once('-')?.0)
    }

    /// Removes from `folder` what killed processes were writing in place of names that are `own`. Nobody else may be
    /// writing these. What cannot be removed does no harm.
    pub fn clear(self, folder: &Path, own: impl Fn(&str) -> bool) {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            if self.target(&name.to_string_lossy()).is_some_and(&own) {
                let _left = remove(&entry.path());
            }
        }
    }
}

/// Removes what killed processes, writing the file or folder `path` with the usual marks, have left beside it.
/// Nobody else may be writing it. What cannot be removed does no harm.
pub fn clear_unfinished(path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Marks::USUAL.clear(folder_of(path), |target| target == name);
}
