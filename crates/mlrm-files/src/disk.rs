//! What is written reaches the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::folder_of;

/// Files that are brought to the disk at a time. File systems write their journal once for all that wait for it:
/// this is twenty times as fast as one after the other.
const AT_ONCE: usize = 8;

/// Brings the file `beside` to the disk, renames it to `path`, and brings the name there too. For a file that outlives
/// its writer until it is whole, as a download that is gone on with; else there is [`PendingFile`](crate::PendingFile).
///
/// # Errors
/// What the file system says.
pub fn place(beside: &Path, path: &Path) -> io::Result<()> {
    sync_file(beside)?;
    fs::rename(beside, path)?;
    sync_folder(folder_of(path))
}

fn sync_file(path: &Path) -> io::Result<()> {
    // Windows brings to the disk only what may be written.
    let file = File::options().read(true).write(cfg!(windows)).open(path)?;
    file.sync_all()
}

/// Brings the names in a folder to the disk, where the system can.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    // A folder that may be written and not listed; a file system that has no such call.
    let cannot = [io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidInput];
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if cannot.contains(&error.kind()) => Ok(()),
        done => done,
    }
}

/// Brings every file and folder below `folder`, and its names, to the disk. Links are not followed.
pub(crate) fn sync_below(folder: &Path) -> io::Result<()> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    let mut listed = 0;
    while let Some(folder) = folders.get(listed) {
        listed += 1;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    each(&files, sync_file)?;
    each(&folders, sync_folder)
}

/// Does so for each path, several at once.
fn each(paths: &[PathBuf], sync: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        let of_next = || paths.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(of_next).try_for_each(|path| sync(path))
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..AT_ONCE.min(paths.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let done = work();
        // Nothing in there panics.
        let others = others.into_iter().filter_map(|other| other.join().ok());
        others.fold(done, io::Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_and_folder_is_brought_to_the_disk_once() {
        let home = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..100)
            .map(|at| home.path().join(at.to_string()))
            .collect();
        // Removing stands for it: a second time would fail.
        paths.iter().for_each(|path| fs::write(path, "").unwrap());
        each(&paths, |path| fs::remove_file(path)).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        // One that fails is told, wherever it is.
        paths[..99]
            .iter()
            .for_each(|path| fs::write(path, "").unwrap());
        assert!(each(&paths, sync_file).is_err());
        assert!(each(&paths[..99], sync_file).is_ok());
    }

    #[test]
    fn a_file_that_was_written_elsewhere_is_placed() {
        let home = tempfile::tempdir().unwrap();
        let (beside, path) = (home.path().join("x.part"), home.path().join("x"));
        assert!(place(&beside, &path).is_err());
        fs::write(&beside, "whole").unwrap();
        fs::write(&path, "old").unwrap();
        place(&beside, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(!beside.exists());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let none = home.path().join("none");
        assert!(sync_below(&none).is_err());
        #[cfg(unix)]
        assert!(sync_folder(&none).is_err());
    }
}
