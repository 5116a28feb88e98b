//! Records of pictures on disk.
//!
//! A folder holds a sub-folder for each encoder. There every process appends records of one size (the
//! picture's hash, a checksum, values) to a file of its own, which nobody writes to once that process has
//! ended. Files are read through memory maps. What is cut off at the end of a file, or does not fit its
//! checksum, counts as absent.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memmap2::Mmap;

use super::PictureHash;
use crate::error::ModelError;

const HASH_BYTES: usize = size_of::<PictureHash>();
/// Before a record's values: the picture's hash and a checksum.
pub(super) const HEAD_BYTES: usize = 2 * HASH_BYTES;
const ENDING: &str = "features";
const LOCK: &str = ".lock";
/// How often, and how long after each other, a lock that another process holds is tried.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The records of one encoder.
#[derive(Debug)]
pub(super) struct Store {
    /// The folder of all encoders.
    root: PathBuf,
    folder: PathBuf,
    record_bytes: usize,
    /// Of all encoders.
    most_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the records of each picture are: several where two processes wrote one, or where one
    /// was damaged.
    places: HashMap<PictureHash, Vec<Place>>,
    files: Vec<Records>,
    /// The file that this process writes, as an index into `files`.
    own: Option<usize>,
    /// Files with damaged records, and how many were found since it was told last.
    damaged: BTreeMap<PathBuf, usize>,
    closed: Closed,
}

/// Whether records are added.
#[derive(Debug, Default)]
enum Closed {
    #[default]
    Open,
    /// Why not, while nobody was told.
    Untold(String),
    Told,
}

/// A file of records.
#[derive(Debug)]
struct Records {
    path: PathBuf,
    file: File,
    map: Option<Mmap>,
    /// Whole records that are listed.
    count: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    record: usize,
    /// Its checksum was seen to fit.
    checked: bool,
}

impl Store {
    /// The records of values of `value_bytes` bytes in the folder `key` below `root`, which hold no more
    /// than `most_bytes` together with those of all other encoders. `about` tells people what the folder
    /// holds.
    ///
    /// # Errors
    /// A folder that cannot be made or read.
    pub fn open(
        root: &Path,
        key: &str,
        about: &str,
        value_bytes: usize,
        most_bytes: u64,
    ) -> Result<Self, ModelError> {
        let folder = root.join(key);
        fs::create_dir_all(&folder).map_err(|e| ModelError::io("create", &folder, e))?;
        let store = Self {
            root: root.to_owned(),
            folder,
            record_bytes: HEAD_BYTES + value_bytes,
            most_bytes,
            state: Mutex::default(),
        };
        let about_file = store.folder.join("about.txt");
        if !about_file.exists() {
            fs::write(&about_file, format!("{about}\n"))
                .map_err(|e| ModelError::io("write", &about_file, e))?;
        }
        store.state().refresh(&store)?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Adds nothing from now on.
    pub fn close(&self) {
        self.state().closed = Closed::Told;
    }

    /// Whether records are added.
    pub fn is_open(&self) -> bool {
        matches!(self.state().closed, Closed::Open)
    }

    /// Pictures that have a record.
    pub fn len(&self) -> usize {
        self.state().places.len()
    }

    /// How many more records fit.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn room(&self) -> Result<u64, ModelError> {
        let free = self.most_bytes.saturating_sub(bytes_below(&self.root)?);
        Ok(free / self.record_bytes as u64)
    }

    /// Whether `picture` has a record, whole or not.
    pub fn lists(&self, picture: &PictureHash) -> bool {
        self.state().places.contains_key(picture)
    }

    /// Whether `picture` has a whole record.
    pub fn knows(&self, picture: &PictureHash) -> bool {
        self.state().check(picture, self.record_bytes)
    }

    /// Hands the values of `pictures` to `receive`, one after another; whether all are there.
    pub fn read(&self, pictures: &[PictureHash], receive: &mut dyn FnMut(&[u8])) -> bool {
        let mut state = self.state();
        pictures.iter().all(|picture| {
            if !state.check(picture, self.record_bytes) {
                return false;
            }
            let values = state.newest(picture, self.record_bytes);
            values.is_some_and(|record| {
                receive(&record[HEAD_BYTES..]);
                true
            })
        })
    }

    /// Adds records as far as there is room, but for pictures that have one, of any process. What
    /// cannot be written is not kept: see [`Self::news`].
    pub fn add(&self, records: &mut dyn Iterator<Item = (PictureHash, Vec<u8>)>) {
        if !self.is_open() {
            return;
        }
        let lock = lock(&self.root.join(LOCK));
        let mut state = self.state();
        let added = match &lock {
            // The pictures are encoded again when they come again.
            Ok(Lock::Busy) => Ok(()),
            Ok(Lock::Held(_) | Lock::None) => state.add(self, records),
            Err(error) => Err(ModelError::Input(error.to_string())),
        };
        if let Err(error) = added {
            let folder = self.folder.display();
            state.closed =
                Closed::Untold(format!("no more features are kept in {folder}: {error}"));
        }
    }

    /// What a person should know that was not told yet.
    pub fn news(&self) -> Vec<String> {
        let mut state = self.state();
        let damaged = std::mem::take(&mut state.damaged).into_iter();
        let mut news: Vec<String> = damaged
            .map(|(path, count)| {
                let entries = if count == 1 { "entry" } else { "entries" };
                let path = path.display();
                format!("{path} holds {count} damaged {entries}; the pictures are encoded again")
            })
            .collect();
        if let Closed::Untold(reason) = &state.closed {
            news.push(reason.clone());
            state.closed = Closed::Told;
        }
        news
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lists what processes have added since.
    fn refresh(&mut self, store: &Store) -> Result<(), ModelError> {
        for path in record_files(&store.folder)? {
            let index = match self.files.iter().position(|known| known.path == path) {
                Some(index) => index,
                None => {
                    let file = File::open(&path).map_err(|e| ModelError::io("open", &path, e))?;
                    self.files.push(Records {
                        path,
                        file,
                        map: None,
                        count: 0,
                    });
                    self.files.len() - 1
                }
            };
            self.list(index, store.record_bytes)?;
        }
        Ok(())
    }

    /// Lists the records of a file that are not listed yet.
    fn list(&mut self, index: usize, record_bytes: usize) -> Result<(), ModelError> {
        let records = &mut self.files[index];
        if records.whole(record_bytes)? <= records.count {
            return Ok(());
        }
        let listed = records.count;
        records.map(record_bytes)?;
        let Some(map) = &records.map else {
            return Ok(());
        };
        let new = map.chunks_exact(record_bytes).enumerate().skip(listed);
        for (record, bytes) in new.take(records.count - listed) {
            if let Some(picture) = bytes.first_chunk::<HASH_BYTES>() {
                let place = Place {
                    file: index,
                    record,
                    checked: false,
                };
                self.places.entry(*picture).or_default().push(place);
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        store: &Store,
        records: &mut dyn Iterator<Item = (PictureHash, Vec<u8>)>,
    ) -> Result<(), ModelError> {
        self.refresh(store)?;
        let mut bytes = bytes_below(&store.root)?;
        for (picture, values) in records {
            if self.check(&picture, store.record_bytes) {
                continue;
            }
            bytes += store.record_bytes as u64;
            if bytes > store.most_bytes {
                return Err(ModelError::Input(format!(
                    "train.feature_cache_max_bytes = {} are full; pictures past them are encoded each \
                     time",
                    store.most_bytes
                )));
            }
            self.append(store, &picture, &values)?;
        }
        Ok(())
    }

    fn append(
        &mut self,
        store: &Store,
        picture: &PictureHash,
        values: &[u8],
    ) -> Result<(), ModelError> {
        let index = match self.own {
            Some(index) => index,
            None => {
                self.files.push(own_file(&store.folder)?);
                *self.own.insert(self.files.len() - 1)
            }
        };
        let records = &mut self.files[index];
        let record = [picture, checksum(picture, values).as_slice(), values].concat();
        if let Err(error) = records.file.write_all(&record) {
            // Of a record that is there in part, nothing may stay: others may follow.
            let whole = (records.count * store.record_bytes) as u64;
            let _nothing_to_mend = records.file.set_len(whole);
            return Err(ModelError::io("write", &records.path, error));
        }
        let place = Place {
            file: index,
            record: records.count,
            checked: true,
        };
        records.count += 1;
        self.places.entry(*picture).or_default().push(place);
        Ok(())
    }

    /// Whether a whole record of `picture` is there. Damaged ones are forgotten, and told of where no
    /// other takes their place.
    fn check(&mut self, picture: &PictureHash, record_bytes: usize) -> bool {
        let mut damaged = Vec::new();
        while let Some(&place) = self.places.get(picture).and_then(|places| places.last()) {
            let whole = place.checked
                || self.newest(picture, record_bytes).is_some_and(|record| {
                    let (head, values) = record.split_at(HEAD_BYTES);
                    head[HASH_BYTES..] == checksum(picture, values)
                });
            let Some(places) = self.places.get_mut(picture) else {
                break;
            };
            if whole {
                if let Some(place) = places.last_mut() {
                    place.checked = true;
                }
                return true;
            }
            places.pop();
            damaged.push(place.file);
        }
        self.places.remove(picture);
        for file in damaged {
            let path = self.files[file].path.clone();
            *self.damaged.entry(path).or_insert(0) += 1;
        }
        false
    }

    /// The newest record of `picture`, head and values.
    fn newest(&mut self, picture: &PictureHash, record_bytes: usize) -> Option<&[u8]> {
        let place = *self.places.get(picture)?.last()?;
        let end = (place.record + 1) * record_bytes;
        let records = &mut self.files[place.file];
        // The own file has grown since it was mapped.
        if records.map.as_ref().is_none_or(|map| map.len() < end) {
            records.map(record_bytes).ok()?;
        }
        records.map.as_ref()?.get(end - record_bytes..end)
    }
}

impl Records {
    /// Whole records in the file.
    fn whole(&self, record_bytes: usize) -> Result<usize, ModelError> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|e| ModelError::io("read", &self.path, e))?;
        Ok(metadata.len() as usize / record_bytes)
    }

    /// Maps all whole records.
    fn map(&mut self, record_bytes: usize) -> Result<(), ModelError> {
        self.count = self.whole(record_bytes)?;
        self.map = match self.count {
            0 => None,
            // SAFETY: the mapping is read-only, and these files only grow. Another process that cuts
            // one short while it is mapped would fault, as with every file of weights.
            _ => Some(
                unsafe { Mmap::map(&self.file) }
                    .map_err(|e| ModelError::io("map", &self.path, e))?,
            ),
        };
        Ok(())
    }
}

/// A file that only this process writes.
fn own_file(folder: &Path) -> Result<Records, ModelError> {
    let process = std::process::id();
    for number in 0_u32.. {
        let path = folder.join(format!("{process}-{number}.{ENDING}"));
        let mut options = OpenOptions::new();
        match options.read(true).append(true).create_new(true).open(&path) {
            Ok(file) => {
                return Ok(Records {
                    path,
                    file,
                    map: None,
                    count: 0,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ModelError::io("create", &path, error)),
        }
    }
    let message = format!("{}: every name of a file is taken", folder.display());
    Err(ModelError::Input(message))
}

/// The lock under which processes add records.
enum Lock {
    /// As long as the file is open.
    #[expect(dead_code, reason = "dropping it is what it is for")]
    Held(File),
    /// Another process holds it for longer than it should.
    Busy,
    /// The file system has no locks. Files of their own keep processes apart, but a picture may be
    /// kept twice.
    None,
}

fn lock(path: &Path) -> Result<Lock, ModelError> {
    let mut options = File::options();
    options.write(true).truncate(false).create(true);
    let file = options.open(path);
    let file = file.map_err(|e| ModelError::io("lock", path, e))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Lock::Held(file)),
            Err(TryLockError::Error(_)) => return Ok(Lock::None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
    Ok(Lock::Busy)
}

fn checksum(picture: &PictureHash, values: &[u8]) -> PictureHash {
    *blake3::Hasher::new()
        .update(picture)
        .update(values)
        .finalize()
        .as_bytes()
}

fn record_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let list = fs::read_dir(folder).map_err(|e| ModelError::io("list", folder, e))?;
    let mut files = Vec::new();
    for entry in list {
        let path = entry.map_err(|e| ModelError::io("list", folder, e))?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Bytes of the records of all encoders below `root`.
fn bytes_below(root: &Path) -> Result<u64, ModelError> {
    let list = fs::read_dir(root).map_err(|e| ModelError::io("list", root, e))?;
    let mut sum = 0;
    for entry in list {
        let path = entry.map_err(|e| ModelError::io("list", root, e))?.path();
        if path.is_dir() {
            let sizes = record_files(&path)?.into_iter().map(fs::metadata);
            sum += sizes.flatten().map(|metadata| metadata.len()).sum::<u64>();
        }
    }
    Ok(sum)
}
