//! Files and folders that are whole or not there: filled beside their place, brought to the disk,
//! and renamed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mlrm_model::checksums::files_below;

use crate::error::TrainError;

/// What a process is still writing begins with this; what is left of it when nobody writes any more
/// is of a process that was killed.
const WRITING: &str = ".writing-";

/// What is added to the name of a folder while another one takes its place.
const REPLACED: &str = ".replaced";

/// Writes a file beside its place and renames it there.
///
/// # Errors
///
/// Whatever the file system says; then the old file is still there.
pub fn write_beside(path: &Path, content: impl AsRef<[u8]>) -> Result<(), TrainError> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(WRITING);
    // Readable by others as any file is; a temporary file is its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let file = builder
        .tempfile_in(folder)
        .map_err(TrainError::io("write", path))?;
    fs::write(file.path(), content)
        .and_then(|()| file.as_file().sync_all())
        .map_err(TrainError::io("write", path))?;
    file.persist(path)
        .map_err(|e| TrainError::io("write", path)(e.error))?;
    sync_folder(folder)
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
    let mut builder = tempfile::Builder::new();
    builder.prefix(WRITING);
    // Readable by others as any folder is; a temporary one is its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let beside = builder
        .tempdir_in(parent)
        .map_err(TrainError::io("create a folder in", parent))?;
    fill(beside.path())?;
    sync_all(beside.path())?;
    let aside = aside(path);
    if aside.exists() {
        remove(&aside)?;
    }
    let replaces = path.exists();
    if replaces {
        fs::rename(path, &aside).map_err(TrainError::io("replace", path))?;
    }
    if let Err(error) = fs::rename(beside.path(), path) {
        if replaces {
            fs::rename(&aside, path).map_err(TrainError::io("restore", path))?;
        }
        return Err(TrainError::io("create", path)(error));
    }
    // The folder has its final name: there is nothing left to clean up.
    let _renamed = beside.keep();
    sync_folder(parent)?;
    if replaces {
        remove(&aside)?;
    }
    Ok(())
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
        if name.starts_with(WRITING) {
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
    let beside = folder.join(format!("{WRITING}{name}"));
    remove(&beside)?;
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(target, &beside);
    // Where links need rights of their own, a file that names the folder stands in.
    #[cfg(not(unix))]
    let made = fs::write(&beside, target.to_string_lossy().as_bytes());
    made.and_then(|()| fs::rename(&beside, &link))
        .map_err(TrainError::io("link", &link))?;
    sync_folder(folder)
}

/// Removes a file, a link or a folder with all that is in it; nothing where there is nothing.
///
/// # Errors
///
/// Whatever the file system says.
pub fn remove(path: &Path) -> Result<(), TrainError> {
    let Ok(kind) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let removed = match kind.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    removed.map_err(TrainError::io("remove", path))
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

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(REPLACED);
    path.with_file_name(name)
}

/// Brings every file and folder below `folder` to the disk, so that the rename that makes it visible
/// never comes there first.
fn sync_all(folder: &Path) -> Result<(), TrainError> {
    let mut folders = vec![folder.to_owned()];
    for path in files_below(folder)? {
        // Windows brings to the disk only what may be written.
        let opened = File::options().read(true).write(cfg!(windows)).open(&path);
        opened
            .and_then(|file| file.sync_all())
            .map_err(TrainError::io("write", &path))?;
        let above = path.ancestors().skip(1);
        for above in above.take_while(|above| above.starts_with(folder)) {
            if !folders.iter().any(|known| known == above) {
                folders.push(above.to_owned());
            }
        }
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

/// Brings the names in a folder to the disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(TrainError::io("write", folder))
}

/// Other systems do not open folders.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<(), TrainError> {
    Ok(())
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
