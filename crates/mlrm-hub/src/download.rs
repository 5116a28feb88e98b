//! One file from the Hub into the cache.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use mlrm_config::HubName;
use ureq::Body;
use ureq::http::Response;

use crate::client::{Client, RemoteFile};
use crate::digest::other_hash;
use crate::{HubError, Watch};

/// Tries that bring no further byte before a download is given up.
const IDLE_TRIES: u32 = 3;
/// Bytes read at a time.
const PIECE_BYTES: usize = 128 << 10;

/// A file that is being fetched.
pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name: &'a HubName,
    pub(crate) commit: &'a str,
    pub(crate) file: &'a RemoteFile,
    /// Where its content goes.
    pub(crate) blob: &'a Path,
}

/// Why a try ended.
enum Failed {
    /// Worth another try.
    Broke(String),
    /// It would fail again.
    For(HubError),
}

impl Download<'_> {
    /// Fetches the content, going on with what an interrupted download left. The blob is there when it
    /// is whole, and only then.
    pub(crate) fn run(&self, watch: &mut dyn Watch) -> Result<(), HubError> {
        let folder = self.blob.parent().unwrap_or(self.blob);
        fs::create_dir_all(folder).map_err(HubError::io("create", folder))?;
        let part = self.part();
        let mut idle = 0;
        watch.begin(&self.file.path, self.held(&part), self.file.bytes);
        loop {
            let before = self.held(&part);
            if before == self.file.bytes && part.exists() {
                break;
            }
            let reason = match self.attempt(&part, before, watch) {
                Ok(()) => continue,
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Broke(reason)) => reason,
            };
            let held = self.held(&part);
            idle = if held > before { 0 } else { idle + 1 };
            if idle == IDLE_TRIES {
                return Err(HubError::BrokeOff {
                    name: self.name.clone(),
                    file: self.file.path.clone(),
                    held,
                    bytes: self.file.bytes,
                    reason,
                });
            }
            sleep(Duration::from_secs(idle.into()));
        }
        watch.end();
        self.check_content(&part)?;
        mlrm_files::place(&part, self.blob).map_err(HubError::io("write", self.blob))
    }

    /// Nothing of a file of other content is kept.
    fn check_content(&self, part: &Path) -> Result<(), HubError> {
        let other = other_hash(part, &self.file.etag).map_err(HubError::io("read", part))?;
        let Some(found) = other else {
            return Ok(());
        };
        fs::remove_file(part).map_err(HubError::io("remove", part))?;
        Err(HubError::WrongContent {
            name: self.name.clone(),
            file: self.file.path.clone(),
            expected: self.file.etag.clone(),
            found,
        })
    }

    /// Where an unfinished download is kept: the name that `huggingface_hub` gives it.
    fn part(&self) -> PathBuf {
        let mut name = self.blob.as_os_str().to_owned();
        name.push(".incomplete");
        name.into()
    }

    /// Bytes that are there of it.
    fn held(&self, part: &Path) -> u64 {
        fs::metadata(part).map_or(0, |part| part.len())
    }

    fn attempt(&self, part: &Path, held: u64, watch: &mut dyn Watch) -> Result<(), Failed> {
        // Longer than the file: no part of it.
        let from = if held > self.file.bytes { 0 } else { held };
        let url = self
            .client
            .file_url(self.name, self.commit, &self.file.path);
        let response = self
            .client
            .get(&url, (from > 0).then(|| format!("{from}-")));
        let response = response.map_err(|error| Failed::Broke(error.to_string()))?;
        let start = match response.status().as_u16() {
            // The whole of it, whatever was asked for.
            200 => 0,
            206 if begins_at(&response, from) => from,
            206 => return Err(Failed::Broke("the server sent another part of it".into())),
            // The server has less of it than is here.
            416 => {
                let _left = fs::remove_file(part);
                return Err(Failed::Broke("HTTP 416".into()));
            }
            status @ (429 | 500..) => return Err(Failed::Broke(format!("HTTP {status}"))),
            status => {
                return Err(Failed::For(HubError::Status {
                    name: self.name.clone(),
                    file: Some(self.file.path.clone()),
                    status,
                    url,
                    token: self.client.has_token(),
                }));
            }
        };
        if let Some(found) = promised(&response, start)
            && found != self.file.bytes
        {
            return Err(self.wrong_length(part, found));
        }
        self.receive(response.into_body(), part, start, watch)
    }

    /// Writes a body behind the first `start` bytes of the part.
    fn receive(
        &self,
        body: Body,
        part: &Path,
        start: u64,
        watch: &mut dyn Watch,
    ) -> Result<(), Failed> {
        let failed = |action| move |error| Failed::For(HubError::io(action, part)(error));
        let mut file = OpenOptions::new();
        let mut file = file
            .create(true)
            .truncate(false)
            .write(true)
            .open(part)
            .map_err(failed("open"))?;
        file.set_len(start).map_err(failed("cut"))?;
        file.seek(SeekFrom::End(0)).map_err(failed("write"))?;
        let mut body = body.into_reader();
        let mut held = start;
        let mut piece = vec![0; PIECE_BYTES];
        while held < self.file.bytes {
            let read = match body.read(&mut piece) {
                Ok(0) => return Err(Failed::Broke("the connection was closed".into())),
                Ok(read) => read,
                Err(error) => return Err(Failed::Broke(error.to_string())),
            };
            held += read as u64;
            if held > self.file.bytes {
                return Err(self.wrong_length(part, held));
            }
            file.write_all(&piece[..read]).map_err(failed("write"))?;
            watch.at(held);
        }
        Ok(())
    }

    /// Nothing of a file of another length is kept.
    fn wrong_length(&self, part: &Path, found: u64) -> Failed {
        // Where it cannot be removed, the next try overwrites it.
        let _left = fs::remove_file(part);
        Failed::For(HubError::WrongLength {
            name: self.name.clone(),
            file: self.file.path.clone(),
            expected: self.file.bytes,
            found,
        })
    }
}

/// Whether a part of a file, by its headers, begins at a byte.
pub(crate) fn begins_at(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get("content-range");
    let range = range.and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.trim().strip_prefix("bytes ")?.split('-').next());
    start.is_some_and(|start| start.trim() == from.to_string())
}

/// The length of the whole file by the headers of an answer that begins at `start`, if they tell.
fn promised(response: &Response<Body>, start: u64) -> Option<u64> {
    let header = |name| response.headers().get(name)?.to_str().ok();
    if let Some(range) = header("content-range") {
        return range.rsplit('/').next()?.trim().parse().ok();
    }
    let length: u64 = header("content-length")?.trim().parse().ok()?;
    Some(start + length)
}
