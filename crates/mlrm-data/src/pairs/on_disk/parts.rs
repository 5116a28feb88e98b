//! Files of events: first as they come, by a hash of their user; then sorted by user, time and note.

use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::FixedState;
use rayon::prelude::*;

use crate::error::{DataError, Result};
use crate::interactions::{EventBatch, Interactions, Interner};
use crate::pairs::timeline::View;

/// Files that a log is divided into: a part of 10⁹ events is small enough to be sorted in memory.
const PARTS: usize = 256;

/// Bytes of a view in a sorted file: time, rank of the note.
const VIEW_BYTES: usize = 12;

/// Events by a hash of their user.
pub(super) struct Spill {
    notes: Interner,
    parts: Vec<BufWriter<File>>,
    folder: PathBuf,
    events: u64,
}

/// The events of some users, sorted.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    folder: PathBuf,
    bytes: usize,
    /// How many users it has.
    pub(super) users: u32,
}

impl Spill {
    /// The events of a log, so far.
    pub(super) fn of(log: Interactions, folder: &Path) -> Result<Self> {
        let file = |_| -> Result<BufWriter<File>> {
            let file =
                tempfile::tempfile_in(folder).map_err(DataError::io("write into", folder))?;
            Ok(BufWriter::with_capacity(1 << 15, file))
        };
        let mut spill = Self {
            notes: log.notes,
            parts: (0..PARTS).map(file).collect::<Result<_>>()?,
            folder: folder.to_path_buf(),
            events: 0,
        };
        for event in log.events {
            spill.put(&log.users[event.user], event.note, event.timestamp_seconds)?;
        }
        Ok(spill)
    }

    pub(super) fn append(&mut self, batch: &EventBatch) -> Result<()> {
        let notes = self.notes.intern_all(&batch.notes);
        let mut rows = notes.into_iter().zip(&batch.times).enumerate();
        rows.try_for_each(|(row, (note, &time))| self.put(batch.users.get(row), note, time))
    }

    fn put(&mut self, user: &str, note: u32, timestamp_seconds: i64) -> Result<()> {
        let hash = FixedState::default().hash_one(user);
        let part = &mut self.parts[(hash % PARTS as u64) as usize];
        let mut write = || {
            part.write_all(&(user.len() as u32).to_le_bytes())?;
            part.write_all(user.as_bytes())?;
            part.write_all(&note.to_le_bytes())?;
            part.write_all(&timestamp_seconds.to_le_bytes())
        };
        write().map_err(DataError::io("write into", &self.folder))?;
        self.events += 1;
        Ok(())
    }

    pub(super) fn notes(&self) -> &Interner {
        &self.notes
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The events sorted by user, time and rank of the note; and the distinct users of each rank.
    pub(super) fn sort(self, ranks: &[u32]) -> Result<(Interner, Vec<Part>, Vec<u32>)> {
        let audience: Vec<AtomicU32> = ranks.iter().map(|_| AtomicU32::new(0)).collect();
        let folder = &self.folder;
        let sort = |part: BufWriter<File>| {
            let file = part.into_inner().map_err(|error| error.into_error());
            let file = file.map_err(DataError::io("write into", folder))?;
            sort_part(file, folder, ranks, &audience)
        };
        let parts = self.parts.into_par_iter().map(sort);
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let audience = audience.into_iter().map(AtomicU32::into_inner).collect();
        Ok((self.notes, parts, audience))
    }
}

/// All bytes of a file of this process, from its beginning.
fn read_all(mut file: &File, folder: &Path, bytes: usize) -> Result<Vec<u8>> {
    let mut content = Vec::with_capacity(bytes);
    let mut read = || {
        file.rewind()?;
        file.read_to_end(&mut content)
    };
    read().map_err(DataError::io("read back from", folder))?;
    Ok(content)
}

fn sort_part(file: File, folder: &Path, ranks: &[u32], audience: &[AtomicU32]) -> Result<Part> {
    let mut users = Interner::default();
    let mut views: Vec<(u32, i64, u32)> = Vec::new();
    {
        let content = read_all(&file, folder, 0)?;
        let mut rest = content.as_slice();
        while let Some((user, note, time)) = take_event(&mut rest) {
            views.push((users.intern(user), time, ranks[note as usize]));
        }
    }
    // Its events are in memory: the disk has room for them sorted.
    drop(file);
    views.sort_unstable();
    let sorted = tempfile::tempfile_in(folder).map_err(DataError::io("write into", folder))?;
    let mut out = BufWriter::with_capacity(1 << 18, sorted);
    let (mut bytes, mut notes) = (0, Vec::new());
    for of_user in views.chunk_by(|a, b| a.0 == b.0) {
        notes.clear();
        notes.extend(of_user.iter().map(|view| view.2));
        notes.sort_unstable();
        notes.dedup();
        for &note in &notes {
            audience[note as usize].fetch_add(1, Ordering::Relaxed);
        }
        bytes += 8 + of_user.len() * VIEW_BYTES;
        let mut write = || {
            out.write_all(&(of_user.len() as u32).to_le_bytes())?;
            out.write_all(&(notes.len() as u32).to_le_bytes())?;
            for (_, time, note) in of_user {
                out.write_all(&time.to_le_bytes())?;
                out.write_all(&note.to_le_bytes())?;
            }
            Ok(())
        };
        write().map_err(DataError::io("write into", folder))?;
    }
    let file = out.into_inner().map_err(|error| error.into_error());
    Ok(Part {
        file: file.map_err(DataError::io("write into", folder))?,
        folder: folder.to_path_buf(),
        bytes,
        users: users.len() as u32,
    })
}

/// The next event of a file: user, note, time.
fn take_event<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, u32, i64)> {
    let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    let user = rest.get(4..4 + length)?;
    let after = rest.get(4 + length..)?;
    let note = u32::from_le_bytes(*after.first_chunk()?);
    let time = i64::from_le_bytes(*after.get(4..)?.first_chunk()?);
    *rest = after.get(12..)?;
    // It was written from a text.
    Some((std::str::from_utf8(user).ok()?, note, time))
}

impl Part {
    /// Hands every user to `each`: how many notes it saw, and its views, ascending by time and rank.
    ///
    /// # Errors
    /// What `each` gives; a file that cannot be read.
    pub(super) fn each_user(&self, mut each: impl FnMut(u32, &[View])) -> Result<()> {
        let content = read_all(&self.file, &self.folder, self.bytes)?;
        let mut rest = content.as_slice();
        let mut views = Vec::new();
        while let Some(head) = rest.first_chunk::<8>() {
            let [a, b, c, d, ..] = *head;
            let [.., e, f, g, h] = *head;
            let (count, notes) = (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
            );
            let end = 8 + count as usize * VIEW_BYTES;
            views.clear();
            let of_user = rest.get(8..end).unwrap_or_default();
            views.extend(of_user.as_chunks::<VIEW_BYTES>().0.iter().map(|bytes| {
                let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
                View {
                    time: i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                    note: u32::from_le_bytes([i, j, k, l]),
                }
            }));
            each(notes, &views);
            rest = rest.get(end..).unwrap_or_default();
        }
        Ok(())
    }
}
