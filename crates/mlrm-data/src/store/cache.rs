//! What was fetched, on this machine's disk, up to a number of bytes.
//!
//! An entry is a file that is renamed into place whole; it begins with the hash of the rest, so that a damaged one is
//! none. Any number of processes may share the folder: whoever writes looks what is there, and removes what was not
//! read for longest.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::Object;

/// Entries that were damaged, of this process.
pub(super) static DAMAGED: AtomicU64 = AtomicU64::new(0);

/// What is being written is called so until it is whole.
pub(super) const PARTIAL: &str = ".partial";
/// What a killed process has left is removed after this time.
const ABANDONED: Duration = Duration::from_secs(3600);
/// The cache is looked through again when a share of this has been written.
const SHARE: u64 = 16;

/// The folder, and how much it may hold.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most_bytes: u64,
    held: Mutex<Held>,
}

/// What is known of the folder.
#[derive(Debug, Default)]
struct Held {
    /// Bytes of its files, once it was looked through.
    bytes: Option<u64>,
    /// Bytes written since then.
    written: u64,
}

/// What is kept: which part of which object.
pub(super) struct Entry {
    name: String,
}

impl Entry {
    /// A part of the object of a bucket. Another content of the object is another entry.
    pub fn of(bucket: &Path, object: &Object, start: u64, end: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bucket.as_os_str().as_encoded_bytes());
        let rest = format!(
            "\0{}\0{}\0{}\0{start}\0{end}",
            object.key, object.mark, object.bytes
        );
        hasher.update(rest.as_bytes());
        Self {
            name: hasher.finalize().to_hex().to_string(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Cache {
    /// The cache in the user's cache folder; `None` where the system has none.
    pub fn open(most_bytes: u64) -> Option<Self> {
        let folder = crate::notes::cache_folder()?.with_file_name("objects");
        Some(Self::in_folder(folder, most_bytes))
    }

    pub fn in_folder(folder: PathBuf, most_bytes: u64) -> Self {
        Self {
            folder,
            most_bytes,
            held: Mutex::default(),
        }
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.folder.join(&entry.name[..2]).join(&entry.name)
    }

    /// Where files lie that are kept as they are.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Whether something of this name is there.
    pub fn has(&self, entry: &Entry) -> bool {
        self.path(entry).is_file()
    }

    /// The content of an entry that is there and whole.
    pub fn get(&self, entry: &Entry) -> Option<Vec<u8>> {
        let path = self.path(entry);
        let mut bytes = fs::read(&path).ok()?;
        let whole = bytes
            .split_at_checked(blake3::OUT_LEN)
            .is_some_and(|(hash, content)| blake3::hash(content).as_bytes() == hash);
        if !whole {
            DAMAGED.fetch_add(1, Ordering::Relaxed);
            // Where it stays it is found damaged again.
            let _ = fs::remove_file(&path);
            return None;
        }
        // A cache that cannot note it removes what it should keep, and fetches it again.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        bytes.drain(..blake3::OUT_LEN);
        Some(bytes)
    }

    /// Keeps a content, where there is room for it at all. That it cannot be kept does no harm.
    pub fn put(&self, entry: &Entry, content: &[u8]) {
        let bytes = (content.len() + blake3::OUT_LEN) as u64;
        if bytes > self.most_bytes {
            return;
        }
        let write = || -> std::io::Result<()> {
            let path = self.path(entry);
            let folder = path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(folder)?;
            // Not by `mlrm_files`: the hash tells what a power cut left of it, so that nothing waits for the disk; and
            // what came with a key of the user's is for nobody else to read.
            let mut builder = tempfile::Builder::new();
            let mut file = builder.prefix(".").suffix(PARTIAL).tempfile_in(folder)?;
            file.write_all(blake3::hash(content).as_bytes())?;
            file.write_all(content)?;
            self.make_room(bytes);
            file.persist(path)?;
            Ok(())
        };
        let _unkept = write().is_err();
    }

    /// Whether a content of so many bytes is kept without another having to go.
    pub fn has_room(&self, bytes: u64) -> bool {
        let there = || {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.bytes
        };
        let looked = there().or_else(|| {
            self.make_room(0);
            there()
        });
        let bytes = bytes.saturating_add(blake3::OUT_LEN as u64);
        looked.is_some_and(|there| there.saturating_add(bytes) <= self.most_bytes)
    }

    /// Removes what was not read for longest, until `bytes` more fit.
    pub fn make_room(&self, bytes: u64) {
        // Nothing in here panics while it holds the lock.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held
            .bytes
            .filter(|_| held.written < self.most_bytes / SHARE);
        let room = |there: u64| there.saturating_add(bytes) <= self.most_bytes;
        if let Some(there) = known.filter(|&there| room(there)) {
            held.bytes = Some(there + bytes);
            held.written += bytes;
            return;
        }
        let mut found = found_in(&self.folder);
        let mut there: u64 = found.iter().map(|found| found.bytes).sum();
        if !room(there) {
            // A little more than is needed, so that the next ones need not look again.
            let goal = self.most_bytes - (self.most_bytes / SHARE).max(bytes).min(self.most_bytes);
            found.sort_by_key(|found| found.read);
            for found in found {
                if there <= goal {
                    break;
                }
                if found.remove() {
                    there -= found.bytes;
                }
            }
        }
        *held = Held {
            bytes: Some(there + bytes),
            written: 0,
        };
    }
}

/// A file of the cache.
struct Found {
    path: PathBuf,
    bytes: u64,
    /// When it was read or written last.
    read: SystemTime,
}

impl Found {
    /// Whether it is gone. What a process reads as it is stays: it holds a lock on it.
    fn remove(&self) -> bool {
        let locked = |file: File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        let used = File::open(&self.path).is_ok_and(locked);
        !used && fs::remove_file(&self.path).is_ok()
    }
}

/// The files of the folder; what killed processes have left is removed.
fn found_in(folder: &Path) -> Vec<Found> {
    let listed = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in listed(folder).flat_map(|part| listed(&part.path())) {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let read = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let file = Found {
            path: entry.path(),
            bytes: metadata.len(),
            read,
        };
        let partial = entry.file_name().to_string_lossy().ends_with(PARTIAL);
        let old = read.elapsed().is_ok_and(|age| age > ABANDONED);
        match partial {
            // What others are writing counts when it is whole.
            true if !old => {}
            true => drop(fs::remove_file(&file.path)),
            false => found.push(file),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> Object {
        Object {
            key: key.into(),
            bytes: 1000,
            mark: "m".into(),
        }
    }

    fn entry(key: &str) -> Entry {
        Entry::of(Path::new("s3://b"), &object(key), 0, 1000)
    }

    fn held(folder: &Path) -> u64 {
        found_in(folder).iter().map(|found| found.bytes).sum()
    }

    #[test]
    fn what_was_not_read_for_longest_goes_and_the_bound_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(home.path().into(), 10_000);
        for number in 0..9 {
            cache.put(&entry(&number.to_string()), &[number; 1000]);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(held(home.path()), 9 * 1032);
        assert_eq!(cache.get(&entry("0")).unwrap(), [0; 1000]);
        for number in 9..30 {
            cache.put(&entry(&number.to_string()), &[number; 1000]);
            std::thread::sleep(Duration::from_millis(5));
            assert!(held(home.path()) <= 10_000);
            assert!(cache.get(&entry("0")).is_some(), "{number}");
        }
        assert!(cache.get(&entry("1")).is_none());
        assert!(cache.get(&entry("29")).is_some());
        // What fits never is not kept, and removes nothing.
        let before = held(home.path());
        cache.put(&entry("large"), &[1; 20_000]);
        assert_eq!(held(home.path()), before);
    }

    #[test]
    fn a_damaged_entry_is_none() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(home.path().into(), 1 << 20);
        let one = entry("x");
        for damage in [&b""[..], b"short", &[7; 1032]] {
            cache.put(&one, &[1; 1000]);
            assert!(cache.has(&one));
            fs::write(cache.path(&one), damage).unwrap();
            assert!(cache.get(&one).is_none());
            assert!(!cache.has(&one));
        }
        cache.put(&one, &[1; 1000]);
        let other = Object {
            mark: "other".into(),
            ..object("x")
        };
        assert!(!cache.has(&Entry::of(Path::new("s3://b"), &other, 0, 1000)));
        assert!(!cache.has(&Entry::of(Path::new("s3://c"), &object("x"), 0, 1000)));
    }

    #[test]
    fn several_writers_keep_to_the_bound_together() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let folder = home.path().to_path_buf();
                scope.spawn(move || {
                    // Caches of their own, as those of processes are.
                    let cache = Cache::in_folder(folder, 50_000);
                    for number in 0..100 {
                        let one = entry(&format!("{}", (number * 7 + usize::from(writer)) % 60));
                        match cache.get(&one) {
                            Some(content) => assert_eq!(content, [5; 1000]),
                            None => cache.put(&one, &[5; 1000]),
                        }
                    }
                });
            }
        });
        // Each may have written a share since it looked.
        assert!(held(home.path()) <= 50_000 + 4 * (50_000 / SHARE + 1032));
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_files_in_use_stay() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(home.path().into(), 3000);
        fs::create_dir_all(cache.files()).unwrap();
        let (old, used) = (cache.files().join(".x.partial"), cache.files().join("used"));
        fs::write(&old, [0; 500]).unwrap();
        fs::write(&used, [0; 1500]).unwrap();
        let past = SystemTime::now() - Duration::from_secs(7200);
        for path in [&old, &used] {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(past)
                .unwrap();
        }
        let lock = File::open(&used).unwrap();
        lock.lock_shared().unwrap();
        cache.put(&entry("a"), &[1; 1000]);
        cache.put(&entry("b"), &[1; 1000]);
        assert!(!old.exists() && used.exists());
        assert!(cache.has(&entry("b")));
        drop(lock);
        cache.put(&entry("c"), &[1; 1000]);
        assert!(!used.exists());
    }
}
