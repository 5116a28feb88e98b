//! Who is asked next: few at once from a host, and none before its time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A picture to fetch.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: String,
    /// The address as the note has it.
    pub(super) text: String,
    /// The address, or why it is none.
    pub(super) url: Result<url::Url, String>,
    /// Tries that failed.
    pub(super) tries: u32,
    after: Option<Instant>,
}

impl Job {
    pub(super) fn new(id: &str, text: &str) -> Self {
        Self {
            id: id.to_owned(),
            text: text.to_owned(),
            url: url::Url::parse(text).map_err(|error| format!("this is no address: {error}")),
            tries: 0,
            after: None,
        }
    }

    fn host(&self) -> String {
        let host = self.url.as_ref().ok().and_then(url::Url::host_str);
        host.unwrap_or_default().to_owned()
    }
}

#[derive(Default)]
struct Host {
    jobs: VecDeque<Job>,
    active: usize,
    after: Option<Instant>,
}

#[derive(Default)]
struct Inside {
    hosts: BTreeMap<String, Host>,
    /// Jobs that wait or run.
    open: usize,
    failed: BTreeMap<String, String>,
    fetched: u64,
    /// The host that was asked last: the next turn is that of the one after it.
    last: String,
}

/// Jobs by host.
pub(super) struct Queue {
    inside: Mutex<Inside>,
    changed: Condvar,
    per_host: usize,
}

impl Queue {
    pub(super) fn new(jobs: Vec<Job>, per_host: usize) -> Self {
        let mut inside = Inside {
            open: jobs.len(),
            ..Inside::default()
        };
        for job in jobs {
            inside
                .hosts
                .entry(job.host())
                .or_default()
                .jobs
                .push_back(job);
        }
        Self {
            inside: Mutex::new(inside),
            changed: Condvar::new(),
            per_host: per_host.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, when its time has come; none when all are finished.
    pub(super) fn next(&self) -> Option<Job> {
        let mut inside = self.lock();
        loop {
            if inside.open == 0 {
                return None;
            }
            let now = Instant::now();
            if let Some(job) = inside.take(now, self.per_host) {
                return Some(job);
            }
            // Woken by a finished job, or to look whether a time has come.
            let wait = self.changed.wait_timeout(inside, Duration::from_millis(50));
            inside = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The job is to be tried again; the whole host waits if `all`.
    pub(super) fn again(&self, job: &Job, wait: Duration, all: bool) {
        let mut inside = self.lock();
        let after = Instant::now() + wait;
        let host = inside.hosts.entry(job.host()).or_default();
        host.active -= 1;
        if all {
            host.after = Some(host.after.map_or(after, |earlier| earlier.max(after)));
        }
        host.jobs.push_back(Job {
            tries: job.tries + 1,
            after: Some(after),
            ..job.clone()
        });
        self.changed.notify_all();
    }

    /// The job is done, or failed for this reason.
    pub(super) fn finish(&self, job: &Job, failed: Option<String>) {
        let mut inside = self.lock();
        inside.open -= 1;
        inside.hosts.entry(job.host()).or_default().active -= 1;
        match failed {
            Some(reason) => _ = inside.failed.insert(job.text.clone(), reason),
            None => inside.fetched += 1,
        }
        self.changed.notify_all();
    }

    /// What failed, and how many were fetched.
    pub(super) fn end(self) -> (BTreeMap<String, String>, u64) {
        let inside = self
            .inside
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (inside.failed, inside.fetched)
    }
}

impl Inside {
    fn take(&mut self, now: Instant, per_host: usize) -> Option<Job> {
        let due = |after: Option<Instant>| after.is_none_or(|after| after <= now);
        let last = self.last.clone();
        let (before, behind): (Vec<_>, Vec<_>) =
            self.hosts.iter_mut().partition(|(name, _)| **name <= last);
        for (name, host) in behind.into_iter().chain(before) {
            if host.active >= per_host || !due(host.after) {
                continue;
            }
            let Some(place) = host.jobs.iter().position(|job| due(job.after)) else {
                continue;
            };
            host.active += 1;
            self.last = name.clone();
            return host.jobs.remove(place);
        }
        None
    }
}
