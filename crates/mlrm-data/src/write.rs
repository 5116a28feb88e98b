//! Writing so that nothing half-written is left behind: beside, then renamed into place.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};

/// The folder that `path` lies in; `.` for a bare file name.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// How the name of what is being written ends; it begins with [`unfinished`].
const UNFINISHED_END: &str = ".partial";

/// How the name of what is being written in place of `path` begins.
fn unfinished(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".mlrm-{name}-")
}

fn builder(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(UNFINISHED_END);
    builder
}

/// Removes what killed writes of the file or folder `path` have left beside it. Nobody else may be writing
/// it. What cannot be removed does no harm.
pub fn clear_unfinished(path: &Path) {
    let prefix = unfinished(path);
    let entries = fs::read_dir(parent(path)).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(UNFINISHED_END) {
            let _left = match entry.path().is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
        }
    }
}

/// Temporary files are private by default; what is renamed into place should have the rights that
/// any new file or folder has (the umask still applies).
#[cfg(unix)]
fn usual_permissions(builder: &mut tempfile::Builder<'_, '_>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(fs::Permissions::from_mode(mode));
}

#[cfg(not(unix))]
fn usual_permissions(_builder: &mut tempfile::Builder<'_, '_>, _mode: u32) {}

/// Writes `path` in one go: `write` fills a file beside it, which then takes its place. An older
/// file stays untouched when anything fails.
///
/// # Errors
/// A folder or file that cannot be written, and what `write` fails with.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
) -> Result<()> {
    let folder = parent(path);
    fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
    let prefix = unfinished(path);
    let mut builder = builder(&prefix);
    usual_permissions(&mut builder, 0o666);
    let file = builder
        .tempfile_in(&folder)
        .map_err(DataError::io("write into", &folder))?;
    let mut buffer = BufWriter::with_capacity(1 << 18, file.as_file());
    write(&mut buffer)
        .and_then(|()| buffer.flush())
        .map_err(DataError::io("write", path))?;
    drop(buffer);
    file.as_file()
        .sync_all()
        .map_err(DataError::io("write", path))?;
    file.persist(path)
        .map_err(|error| DataError::io("write", path)(error.error))?;
    Ok(())
}

/// Refuses a path that is there already, unless it is an empty folder.
pub(crate) fn refuse_occupied(folder: &Path) -> Result<()> {
    let occupied = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
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
    let beside = parent(folder);
    fs::create_dir_all(&beside).map_err(DataError::io("create", &beside))?;
    let prefix = unfinished(folder);
    let mut builder = builder(&prefix);
    usual_permissions(&mut builder, 0o777);
    let partial = builder
        .tempdir_in(&beside)
        .map_err(DataError::io("write into", &beside))?;
    let result = fill(partial.path())?;
    // Renaming onto an empty folder works on Unix only; elsewhere the place has to be free.
    #[cfg(not(unix))]
    let _ = fs::remove_dir(folder);
    fs::rename(partial.path(), folder).map_err(DataError::io("write", folder))?;
    // The folder is in its place now and no longer a temporary one.
    let _ = partial.keep();
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sub/x.txt");
        write_file(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write_file(&path, |out| {
            out.write_all(b"new")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(home.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn what_killed_writes_left_is_cleared_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.csv");
        write_file(&path, |_| {
            let names: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().collect();
            assert_eq!(names.len(), 1);
            fs::copy(
                names[0].path(),
                home.path().join(".mlrm-x.csv-kill1.partial"),
            )
            .map(drop)
        })
        .unwrap();
        fs::create_dir(home.path().join(".mlrm-x.csv-kill2.partial")).unwrap();
        fs::write(home.path().join(".mlrm-y.csv-kill3.partial"), "").unwrap();
        clear_unfinished(&path);
        let names = fs::read_dir(home.path()).unwrap().flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".mlrm-y.csv-kill3.partial", "x.csv"]);
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
