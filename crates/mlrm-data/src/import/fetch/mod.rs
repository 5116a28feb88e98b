//! Pictures from the web, fetched into the folder of an import.

mod guard;
mod queue;
mod request;
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

pub use self::guard::Reach;

use self::queue::{Job, Queue};
use self::request::Try;
use self::state::State;
use super::notes::IMAGE_URL;
use super::pictures;
use crate::error::{DataError, Result};
use crate::notes::{Note, NoteSet, write_notes};

/// Limits of a download.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Pictures at once.
    pub parallel: usize,
    /// Pictures at once from one host.
    pub per_host: usize,
    /// Largest picture, in bytes.
    pub picture_bytes: u64,
    /// All that one call fetches, in bytes.
    pub total_bytes: u64,
    /// Redirects that are followed.
    pub redirects: usize,
    /// Further tries where a first one fails for a reason that may pass.
    pub retries: u32,
    /// How long a server may say nothing; a picture may take four times as long.
    pub timeout: Duration,
    /// Wait before the first further try; it doubles with each.
    pub backoff: Duration,
    /// Longest wait that a server may ask for.
    pub longest_wait: Duration,
    /// Addresses that may be asked.
    pub reach: Reach,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            parallel: 16,
            per_host: 4,
            picture_bytes: 20 << 20,
            total_bytes: 100 << 30,
            redirects: 5,
            retries: 3,
            timeout: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_secs(120),
            reach: Reach::Public,
        }
    }
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FetchSummary {
    /// Pictures that an earlier call had fetched.
    pub there_already: u64,
    /// Pictures that this call fetched.
    pub fetched: u64,
    /// Address → why it could not be fetched.
    pub failed: BTreeMap<String, String>,
}

/// What is left of the limit of all pictures together.
pub(super) struct Budget(AtomicU64);

impl Budget {
    /// Whether so many bytes more may be taken.
    fn take(&self, bytes: u64) -> bool {
        let left = |left: u64| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
            .is_ok()
    }
}

/// Fetches the pictures whose addresses the notes in `folder` hold (`image_url`), puts them into
/// `images/` and their keys into the notes. A call that is interrupted is gone on with by the next:
/// finished pictures are kept, begun ones continued. `progress` gets done and all.
///
/// # Errors
/// Files that cannot be read or written. Pictures that cannot be fetched are no error.
pub fn fetch(
    folder: &Path,
    options: &FetchOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<FetchSummary> {
    let path = folder.join("notes.jsonl");
    let notes = NoteSet::read(&path)?;
    let images = folder.join(pictures::FOLDER);
    std::fs::create_dir_all(&images).map_err(DataError::io("create", &images))?;
    let state = State::open(folder)?;
    let url_of = |note: &Note| {
        note.extra
            .get(IMAGE_URL)
            .and_then(|url| url.as_str())
            .map(str::to_owned)
    };
    let wanted = notes.rows().iter().filter(|note| note.image.is_none());
    let wanted: Vec<(&Note, String)> = wanted
        .filter_map(|note| Some((note, url_of(note)?)))
        .collect();
    let mut summary = FetchSummary::default();
    let mut jobs = Vec::new();
    for (note, url) in &wanted {
        match state.has(&note.id, url) {
            true => summary.there_already += 1,
            false => jobs.push(Job::new(&note.id, url)),
        }
    }
    let all = wanted.len() as u64;
    let done = AtomicU64::new(summary.there_already);
    progress(summary.there_already, all);
    let queue = Queue::new(jobs, options.per_host);
    let agent = request::agent(options);
    let budget = Budget(AtomicU64::new(options.total_bytes));
    std::thread::scope(|scope| {
        for _ in 0..options.parallel.max(1) {
            scope.spawn(|| {
                while let Some(job) = queue.next() {
                    let more = work(&job, &queue, &agent, options, &budget, &state, folder);
                    if !more {
                        progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                    }
                }
            });
        }
    });
    let (failed, fetched) = queue.end();
    summary.failed = failed;
    summary.fetched = fetched;
    let fetched = state.close()?;
    let mut written = notes.rows().to_vec();
    for note in &mut written {
        if note.image.is_none()
            && let Some(url) = url_of(note)
        {
            note.image = fetched.get(&(note.id.clone(), url)).cloned();
        }
    }
    write_notes(&path, &written)?;
    Ok(summary)
}

/// One try of a job; whether it goes back into the queue.
fn work(
    job: &Job,
    queue: &Queue,
    agent: &ureq::Agent,
    options: &FetchOptions,
    budget: &Budget,
    state: &State,
    folder: &Path,
) -> bool {
    let partial = folder.join(pictures::key(&job.id, "partial"));
    let outcome = match &job.url {
        Ok(url) => request::fetch(agent, options, budget, url, &partial),
        Err(reason) => Try::Never(reason.clone()),
    };
    match outcome {
        Try::Done(ending) => {
            let key = pictures::key(&job.id, ending);
            let placed = mlrm_files::place(&partial, &folder.join(&key))
                .and_then(|()| state.add(&job.id, &job.text, &key));
            queue.finish(
                job,
                placed
                    .err()
                    .map(|error| format!("cannot write the file: {error}")),
            );
            false
        }
        Try::Later(_, wait) if job.tries < options.retries => {
            let backoff = options.backoff.saturating_mul(1 << job.tries.min(16));
            // A server that names a time is left alone by all; a failure delays its picture only.
            queue.again(
                job,
                wait.unwrap_or(backoff).min(options.longest_wait),
                wait.is_some(),
            );
            true
        }
        Try::Later(reason, _) | Try::Never(reason) => {
            queue.finish(job, Some(reason));
            false
        }
    }
}

#[cfg(test)]
mod tests;
