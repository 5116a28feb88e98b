//! Whole files.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Marks, folder_of, sync_folder};

/// Bytes that are collected for one write.
const BUFFER_BYTES: usize = 1 << 18;

/// A file that is being written beside its place.
#[derive(Debug)]
pub struct PendingFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl PendingFile {
    /// An empty file, to be written in place of `path`.
    ///
    /// # Errors
    /// The folder of `path` is not there, or cannot be written.
    pub fn begin(path: &Path, marks: Marks) -> io::Result<Self> {
        let file = marks.begin(path, 0o666, |builder, folder| builder.tempfile_in(folder))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file is until it is placed.
    pub fn beside(&self) -> &Path {
        self.file.path()
    }

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Puts the file in its place, and waits until it is there on the disk. What the place held is gone then; a link
    /// there is replaced, not followed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn place(self) -> io::Result<()> {
        self.sync()?;
        self.file
            .persist(&self.path)
            .map_err(|refused| refused.error)?;
        sync_folder(folder_of(&self.path))
    }
}

// By way of the file: errors of `NamedTempFile` name the file beside, which nobody knows.
impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Seek for PendingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}

/// Writes the file `path` whole: `fill` writes what it holds.
///
/// # Errors
/// What `fill` fails with, and what the file system says: a folder that is not there is not made.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<PendingFile>) -> io::Result<()>,
) -> io::Result<()> {
    let file = PendingFile::begin(path, Marks::USUAL)?;
    let mut buffer = BufWriter::with_capacity(BUFFER_BYTES, file);
    fill(&mut buffer)?;
    let file = buffer.into_inner().map_err(io::IntoInnerError::into_error);
    file?.place()
}

/// Writes the file `path` whole, with this content.
///
/// # Errors
/// What the file system says: a folder that is not there is not made.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = PendingFile::begin(path, Marks::USUAL)?;
    file.write_all(content.as_ref())?;
    file.place()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.txt");
        write_with(&path, |out| out.write_all(b"old")).unwrap();
        // More than a buffer, so that some of it is written.
        let failed = write_with(&path, |out| {
            out.write_all(&[0; 2 * BUFFER_BYTES])?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(home.path()), ["x.txt"]);
    }

    #[test]
    fn a_file_is_beside_until_it_is_placed_and_gone_where_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.txt");
        write(&path, b"old").unwrap();
        let begun = || {
            let mut file = PendingFile::begin(&path, Marks::USUAL).unwrap();
            file.write_all(b"?ew").unwrap();
            file.rewind().unwrap();
            file.write_all(b"n").unwrap();
            file
        };
        drop(begun());
        assert_eq!(names(home.path()), ["x.txt"]);
        let file = begun();
        let beside = file.beside().file_name().unwrap().to_str().unwrap();
        assert_eq!(Marks::USUAL.target(beside), Some("x.txt"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(home.path()), ["x.txt"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made() {
        let home = tempfile::tempdir().unwrap();
        let error = write(&home.path().join("none/x.txt"), "x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(names(home.path()), [""; 0]);
    }

    #[test]
    fn a_place_that_is_a_folder_is_refused_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, "x").is_err());
        assert!(path.is_dir());
        assert_eq!(names(home.path()), ["x"]);
    }

    #[cfg(unix)]
    #[test]
    fn it_is_as_open_as_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let (whole, plain) = (home.path().join("whole"), home.path().join("plain"));
        write(&whole, "x").unwrap();
        fs::write(&plain, "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_what_it_points_at_stays() {
        let home = tempfile::tempdir().unwrap();
        let (link, target) = (home.path().join("link"), home.path().join("target"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, "new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read(&link).unwrap(), b"new");
        assert_eq!(fs::read(&target).unwrap(), b"old");
    }

    #[test]
    fn what_killed_writes_left_is_cleared_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.csv");
        let killed = PendingFile::begin(&path, Marks::USUAL).unwrap();
        killed.file.keep().unwrap();
        let others = [
            ".mlrm-x.csv-2-kill3.partial",
            ".mlrm-y.csv-kill3.partial",
            "x.csv",
        ];
        for name in others {
            fs::write(home.path().join(name), "").unwrap();
        }
        let folder = home.path().join(".mlrm-x.csv-kill2.partial");
        fs::create_dir_all(folder.join("below")).unwrap();
        assert_eq!(names(home.path()).len(), 5);
        crate::clear_unfinished(&path);
        assert_eq!(names(home.path()), others);
    }
}
