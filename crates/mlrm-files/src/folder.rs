//! Whole folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disk::sync_below;
use crate::{Marks, folder_of, remove, sync_folder};

/// What is added to the name of a folder while another one takes its place.
pub const REPLACED: &str = ".replaced";

/// A folder that is being filled beside its place.
#[derive(Debug)]
pub struct PendingFolder {
    folder: TempDir,
    path: PathBuf,
}

impl PendingFolder {
    /// An empty folder, to be filled in place of `path`.
    ///
    /// # Errors
    /// The folder of `path` is not there, or cannot be written.
    pub fn begin(path: &Path, marks: Marks) -> io::Result<Self> {
        let folder = marks.begin(path, 0o777, |builder, folder| builder.tempdir_in(folder))?;
        Ok(Self {
            folder,
            path: path.to_owned(),
        })
    }

    /// Where the folder is until it is placed.
    pub fn beside(&self) -> &Path {
        self.folder.path()
    }

    /// Puts the folder in its place, which must be free or an empty folder, and waits until all of it is there on the
    /// disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn place(self) -> io::Result<()> {
        sync_below(self.beside())?;
        // Renaming onto an empty folder works on Unix only; elsewhere the place has to be free.
        #[cfg(not(unix))]
        let _ = fs::remove_dir(&self.path);
        fs::rename(self.beside(), &self.path)?;
        self.settle()
    }

    /// Puts the folder in its place, and waits until all of it is there on the disk. A folder that is there steps
    /// aside, under its name with [`REPLACED`], and is removed after that: a kill between the two renames leaves it
    /// there.
    ///
    /// # Errors
    /// What the file system says; then the old folder is in its place.
    pub fn replace(self) -> io::Result<()> {
        sync_below(self.beside())?;
        let mut aside = self.path.clone().into_os_string();
        aside.push(REPLACED);
        let aside = PathBuf::from(aside);
        let replaces = self.path.exists();
        if replaces {
            remove(&aside)?;
            fs::rename(&self.path, &aside)?;
        }
        if let Err(error) = fs::rename(self.beside(), &self.path) {
            if replaces {
                fs::rename(&aside, &self.path)?;
            }
            return Err(error);
        }
        self.settle()?;
        remove(&aside)
    }

    /// Brings the new name to the disk. There is nothing left to clean up.
    fn settle(self) -> io::Result<()> {
        let _placed = self.folder.keep();
        sync_folder(folder_of(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(path: &Path, text: &str) -> PendingFolder {
        let folder = PendingFolder::begin(path, Marks::USUAL).unwrap();
        fs::create_dir_all(folder.beside().join("sub/empty")).unwrap();
        fs::write(folder.beside().join("sub/file"), text).unwrap();
        folder
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_folder_is_placed_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("set");
        drop(filled(&place, "dropped"));
        assert_eq!(count(home.path()), 0);
        fs::create_dir(&place).unwrap();
        filled(&place, "placed").place().unwrap();
        assert_eq!(fs::read(place.join("sub/file")).unwrap(), b"placed");
        assert!(place.join("sub/empty").is_dir());
        // Taken: what is there stays.
        assert!(filled(&place, "late").place().is_err());
        assert_eq!(fs::read(place.join("sub/file")).unwrap(), b"placed");
        assert_eq!(count(home.path()), 1);
    }

    #[test]
    fn a_folder_takes_the_place_of_another() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("model.v1");
        // Left by a kill between the two renames.
        fs::create_dir_all(home.path().join("model.v1.replaced/sub")).unwrap();
        for text in ["first", "second"] {
            filled(&place, text).replace().unwrap();
            assert_eq!(fs::read_to_string(place.join("sub/file")).unwrap(), text);
            assert_eq!(count(home.path()), 1);
        }
    }

    #[cfg(unix)]
    #[test]
    fn it_is_as_open_as_an_ordinary_folder() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let (whole, plain) = (home.path().join("whole"), home.path().join("plain"));
        filled(&whole, "x").place().unwrap();
        fs::create_dir(&plain).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_folder_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("set");
        let folder = filled(&place, "x");
        std::os::unix::fs::symlink("nowhere", folder.beside().join("dangling")).unwrap();
        std::os::unix::fs::symlink(".", folder.beside().join("circle")).unwrap();
        folder.place().unwrap();
        assert_eq!(
            fs::read_link(place.join("dangling")).unwrap(),
            Path::new("nowhere")
        );
    }
}
