//! The files and folders of a run, which are whole or not there ([`mlrm_files`]).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use mlrm_files::{Marks, PendingFile, PendingFolder, REPLACED, folder_of, sync_folder};

use crate::error::TrainError;

/// What is still written is called so; what is left of it when nobody writes any more is of a process that was killed.
const WRITING: Marks = Marks {
    start: ".writing-",
    end: "",
};

/// Writes a file beside its place and renames it there.
///
/// # Errors
///
/// Whatever the file system says; then the old file is still there.
pub fn write_beside(path: &Path, content: impl AsRef<[u8]>) -> Result<(), TrainError> {
    PendingFile::begin(path, WRITING)
        .and_then(|mut file| {
            file.write_all(content.as_ref())?;
            file.place()
        })
        .map_err(TrainError::io("write", path))
}

/// Fills a folder beside `path` and renames it into place once it is whole and on the disk. A folder
/// that is there already steps aside and is removed after that; [`recover`] brings it back where a
/// kill comes between the two renames.
///
/// # Errors
///
/// Those of `fill`, and whatever the file system says; then the old folder is still there.
pub fn replace_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let parent = folder_of(path);
    fs::create_dir_all(parent).map_err(TrainError::io("create", parent))?;
    let folder = PendingFolder::begin(path, WRITING)
        .map_err(TrainError::io("create a folder in", parent))?;
    fill(folder.beside())?;
    folder.replace().map_err(TrainError::io("write", path))
}

/// Clears what killed processes left in `folder`: removes what they were still writing, and where
/// they were replacing a folder keeps the new one if it `is_whole`, else the old one. Gives the names
/// of what it removed or brought back.
///
/// Only for a folder that no other process writes to.
///
/// # Errors
///
/// Whatever the file system says.
pub fn recover(folder: &Path, is_whole: impl Fn(&Path) -> bool) -> Result<Vec<String>, TrainError> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.starts_with(WRITING.start) {
            remove(&path)?;
        } else if let Some(replaced) = name.strip_suffix(REPLACED) {
            let place = folder.join(replaced);
            match place.exists() && is_whole(&place) {
                true => remove(&path)?,
                false => {
                    remove(&place)?;
                    fs::rename(&path, &place).map_err(TrainError::io("restore", &place))?;
                }
            }
        } else {
            continue;
        }
        found.push(name.to_owned());
    }
    found.sort();
    Ok(found)
}

/// Points the link `folder/name` at `target` (relative to the folder).
///
/// # Errors
///
/// Whatever the file system says; then the old link is still there.
pub fn point(folder: &Path, name: &str, target: &Path) -> Result<(), TrainError> {
    let link = folder.join(name);
    let beside = folder.join(format!("{}{name}", WRITING.start));
    remove(&beside)?;
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(target, &beside);
    // Where links need rights of their own, a file that names the folder stands in.
    #[cfg(not(unix))]
    let made = fs::write(&beside, target.to_string_lossy().as_bytes());
    made.and_then(|()| fs::rename(&beside, &link))
        .and_then(|()| sync_folder(folder))
        .map_err(TrainError::io("link", &link))
}

/// Removes a file, a link or a folder with all that is in it; nothing where there is nothing.
///
/// # Errors
///
/// Whatever the file system says.
pub fn remove(path: &Path) -> Result<(), TrainError> {
    mlrm_files::remove(path).map_err(TrainError::io("remove", path))
}

/// What lies directly in `folder`; nothing where there is no such folder.
///
/// # Errors
///
/// A folder that cannot be listed.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io("list", folder)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<Result<_, _>>()
        .map_err(TrainError::io("list", folder))
}

/// Bytes that this user may still write to the disk of `path`, which need not be there yet; `None` where
/// the system does not tell.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = existing(path)?;
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(&there).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _unknown = there;
        None
    }
}

/// Whether two folders, which need not be there yet, are known to lie on one disk.
pub fn share_disk(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let disk = |path: &Path| Some(existing(path)?.metadata().ok()?.dev());
        disk(one).is_some_and(|one| disk(other) == Some(one))
    }
    #[cfg(not(unix))]
    {
        let _unknown = (one, other);
        false
    }
}

/// The innermost folder of `path` that is there.
fn existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find(|folder| folder.is_dir());
    there.map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = entries(folder).unwrap().into_iter().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_replaced_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("model.v1");
        let fill = |text: &'static str| {
            move |folder: &Path| {
                fs::create_dir(folder.join("sub")).unwrap();
                fs::write(folder.join("sub/file"), text).unwrap();
                Ok(())
            }
        };
        replace_folder(&place, fill("old")).unwrap();
        let fails = replace_folder(&place, |_| Err(TrainError::Refused("disk full".into())));
        assert_eq!(fails.unwrap_err().to_string(), "disk full");
        assert_eq!(fs::read_to_string(place.join("sub/file")).unwrap(), "old");
        replace_folder(&place, fill("new")).unwrap();
        assert_eq!(fs::read_to_string(place.join("sub/file")).unwrap(), "new");
        assert_eq!(names(home.path()), ["model.v1"]);
    }

    #[test]
    fn what_killed_processes_leave_is_cleared() {
        let home = tempfile::tempdir().unwrap();
        let whole = |path: &Path| path.join("whole").exists();
        let make = |name: &str, file: &str| {
            fs::create_dir(home.path().join(name)).unwrap();
            fs::write(home.path().join(name).join(file), name).unwrap();
        };
        make(".writing-abc", "half");
        // Killed between the two renames, before the old one was removed, and with a damaged new one.
        make("step-1.replaced", "whole");
        make("step-2.replaced", "whole");
        make("step-2", "whole");
        make("step-3.replaced", "whole");
        make("step-3", "half");
        let found = recover(home.path(), whole).unwrap();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(names(home.path()), ["step-1", "step-2", "step-3"]);
        let origin = |name: &str| fs::read_to_string(home.path().join(name).join("whole"));
        let origins = ["step-1", "step-2", "step-3"].map(|name| origin(name).unwrap());
        assert_eq!(origins, ["step-1.replaced", "step-2", "step-3.replaced"]);
        assert!(recover(home.path(), whole).unwrap().is_empty());
        assert!(
            recover(&home.path().join("none"), whole)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_link_is_pointed_anew_even_where_it_dangles() {
        let home = tempfile::tempdir().unwrap();
        for target in ["checkpoints/gone", "checkpoints/step-3"] {
            point(home.path(), "last", Path::new(target)).unwrap();
            let found = fs::read_link(home.path().join("last")).unwrap();
            assert_eq!(found, Path::new(target));
        }
        assert_eq!(names(home.path()), ["last"]);
    }
}
