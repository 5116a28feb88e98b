//! Records of pictures on disk.
//!
//! A folder holds a sub-folder for each encoder. There every process appends records (the
//! picture's hash, a checksum, values) to a file of its own, which nobody writes to once that process has
//! ended. Files are read through memory maps. What is cut off at the end of a file, or does not fit its
//! checksum, counts as absent.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PictureHash;
use super::files::{
    HASH_BYTES, HEAD_BYTES, Lock, Records, ValueBytes, bytes_below, checksum, lock, own_file,
    record_files,
};
use crate::error::ModelError;

const LOCK: &str = ".lock";

/// The records of one encoder.
#[derive(Debug)]
pub(super) struct Store {
    /// The folder of all encoders.
    root: PathBuf,
    folder: PathBuf,
    /// What the folder holds, for people.
    about: String,
    sizes: ValueBytes,
    /// Of a record; where sizes differ, of a usual one.
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

#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    /// Where the record begins there.
    start: usize,
    bytes: usize,
    /// Its checksum was seen to fit.
    checked: bool,
}

impl Store {
    /// The records of values of `sizes` bytes, usually `value_bytes`, in the folder `key` below `root`, which hold no
    /// more than `most_bytes` together with those of all other encoders. `about` tells people what the folder
    /// holds. Nothing is written before the first record.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn open(
        root: &Path,
        key: &str,
        about: &str,
        sizes: ValueBytes,
        value_bytes: usize,
        most_bytes: u64,
    ) -> Result<Self, ModelError> {
        let store = Self {
            root: root.to_owned(),
            folder: root.join(key),
            about: format!("{about}\n"),
            sizes,
            record_bytes: HEAD_BYTES + value_bytes,
            most_bytes,
            state: Mutex::default(),
        };
        bytes_below(root)?;
        store.state().refresh(&store)?;
        Ok(store)
    }

    /// Makes the folder.
    fn create(&self) -> Result<(), ModelError> {
        let about = self.folder.join("about.txt");
        if about.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(|e| ModelError::io("create", &self.folder, e))?;
        fs::write(&about, &self.about).map_err(|e| ModelError::io("write", &about, e))
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
        self.state().check(picture)
    }

    /// Hands the values of `pictures` to `receive`, one after another; whether all are there.
    pub fn read(&self, pictures: &[PictureHash], receive: &mut dyn FnMut(&[u8])) -> bool {
        let mut state = self.state();
        pictures.iter().all(|picture| {
            if !state.check(picture) {
                return false;
            }
            let values = state.newest(picture);
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
        let lock = self.create().and_then(|()| lock(&self.root.join(LOCK)));
        let mut state = self.state();
        let added = match &lock {
            // The pictures are encoded again when they come again.
            Ok(Lock::Busy) => Ok(()),
            Ok(Lock::Held(_) | Lock::None) => {
                let added = state.add(self, records);
                added.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
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
                        end: 0,
                    });
                    self.files.len() - 1
                }
            };
            self.list(index, store.sizes)?;
        }
        Ok(())
    }

    /// Lists the records of a file that are not listed yet.
    fn list(&mut self, index: usize, sizes: ValueBytes) -> Result<(), ModelError> {
        let records = &mut self.files[index];
        if records.bytes()? <= records.end {
            return Ok(());
        }
        records.map()?;
        let Some(map) = &records.map else {
            return Ok(());
        };
        // What is behind a record whose grid is damaged is out of reach, and encoded again.
        while let Some(bytes) = sizes.record(&map[records.end..]) {
            if let Some(picture) = map[records.end..].first_chunk::<HASH_BYTES>() {
                let place = Place {
                    file: index,
                    start: records.end,
                    bytes,
                    checked: false,
                };
                self.places.entry(*picture).or_default().push(place);
            }
            records.end += bytes;
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
            if self.check(&picture) {
                continue;
            }
            bytes += (HEAD_BYTES + values.len()) as u64;
            if bytes > store.most_bytes {
                let message = format!(
                    "train.feature_cache_max_bytes = {} are full; pictures past them are encoded each \
                     time",
                    store.most_bytes
                );
                return Err(ModelError::config(
                    &["train.feature_cache_max_bytes"],
                    message,
                ));
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
            let _nothing_to_mend = records.file.set_len(records.end as u64);
            return Err(ModelError::io("write", &records.path, error));
        }
        let place = Place {
            file: index,
            start: records.end,
            bytes: record.len(),
            checked: true,
        };
        records.end += record.len();
        self.places.entry(*picture).or_default().push(place);
        Ok(())
    }

    /// Whether a whole record of `picture` is there. Damaged ones are forgotten, and told of where no
    /// other takes their place.
    fn check(&mut self, picture: &PictureHash) -> bool {
        let mut damaged = Vec::new();
        while let Some(&place) = self.places.get(picture).and_then(|places| places.last()) {
            let whole = place.checked
                || self.newest(picture).is_some_and(|record| {
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
    fn newest(&mut self, picture: &PictureHash) -> Option<&[u8]> {
        let place = *self.places.get(picture)?.last()?;
        let end = place.start + place.bytes;
        let records = &mut self.files[place.file];
        // The own file has grown since it was mapped.
        if records.map.as_ref().is_none_or(|map| map.len() < end) {
            records.map().ok()?;
        }
        records.map.as_ref()?.get(place.start..end)
    }
}
