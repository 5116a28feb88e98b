//! Whole files and folders ([`mlrm_files`]), with errors that name the file and what helps.

use std::fs;
use std::io::{self, BufWriter};
use std::path::Path;

use mlrm_files::{Marks, PendingFile, PendingFolder, folder_of};

use crate::error::{DataError, Result};

/// Writes `path` in one go: `write` fills a file beside it, which then takes its place. An older
/// file stays untouched when anything fails. Folders are made where they lack.
///
/// # Errors
/// A folder or file that cannot be written, and what `write` fails with.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<PendingFile>) -> io::Result<()>,
) -> Result<()> {
    make_folder(folder_of(path))?;
    mlrm_files::write_with(path, write).map_err(DataError::io("write", path))
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(DataError::io("create", folder))
}

/// Refuses a path that is there already, unless it is an empty folder.
pub(crate) fn refuse_occupied(folder: &Path) -> Result<()> {
    let occupied = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(DataError::io("write into", folder)(error)),
    };
    if occupied {
        return Err(DataError::file(
            folder,
            "the folder is not empty",
            "name a new folder, or empty this one first",
        ));
    }
    Ok(())
}

/// Makes `folder` in one go: `fill` fills a folder beside it, which then takes its place. The
/// place must be free or an empty folder; nothing is left behind when `fill` fails.
///
/// # Errors
/// A place that is taken, a folder that cannot be written, and what `fill` fails with.
pub fn write_folder<T>(folder: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    refuse_occupied(folder)?;
    let parent = folder_of(folder);
    make_folder(parent)?;
    let pending =
        PendingFolder::begin(folder, Marks::USUAL).map_err(DataError::io("write into", parent))?;
    let result = fill(pending.beside())?;
    pending.place().map_err(DataError::io("write", folder))?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_names_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sub/x.txt");
        write_file(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write_file(&path, |out| {
            out.write_all(b"new")?;
            Err(io::Error::other("disk full"))
        });
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("x.txt`: disk full"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(home.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("set");
        let failed: Result<()> = write_folder(&folder, |partial| {
            fs::write(partial.join("a"), "1").unwrap();
            Err(DataError::file(partial, "no", "no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);

        fs::create_dir(&folder).unwrap();
        write_folder(&folder, |partial| {
            fs::write(partial.join("a"), "1").map_err(DataError::io("write", partial))
        })
        .unwrap();
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"1");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        let refused = write_folder(&folder, |_| Ok(())).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
    }
}
