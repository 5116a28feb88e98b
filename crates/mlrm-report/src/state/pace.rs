//! How fast a process trains.

/// The time that a process spent, without its pauses.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    started: Option<f64>,
    paused_since: Option<f64>,
    paused_seconds: f64,
    /// The first step and its active time: it is left out, since it pays for warming up.
    first: Option<(u64, f64)>,
    newest: Option<(u64, f64)>,
}

impl Pace {
    pub(super) fn started(time_seconds: f64) -> Self {
        Self {
            started: Some(time_seconds),
            ..Self::default()
        }
    }

    pub(super) fn pause(&mut self, time_seconds: f64) {
        self.paused_since.get_or_insert(time_seconds);
    }

    pub(super) fn resume(&mut self, time_seconds: f64) {
        if let Some(since) = self.paused_since.take() {
            self.paused_seconds += (time_seconds - since).max(0.0);
        }
    }

    pub(super) fn step(&mut self, time_seconds: f64, step: u64) {
        let started = *self.started.get_or_insert(time_seconds);
        let active = self
            .active_seconds(time_seconds)
            .unwrap_or(time_seconds - started);
        self.first.get_or_insert((step, active));
        self.newest = Some((step, active));
    }

    /// Seconds from the start to `now`, pauses left out.
    pub fn active_seconds(&self, now: f64) -> Option<f64> {
        let pausing = self
            .paused_since
            .map_or(0.0, |since| (now - since).max(0.0));
        Some((now - self.started? - self.paused_seconds - pausing).max(0.0))
    }

    /// Seconds a step takes on average, with evaluation, probes and checkpoints in between.
    pub fn seconds_per_step(&self) -> Option<f64> {
        let ((first, first_time), (newest, newest_time)) = (self.first?, self.newest?);
        let steps = newest.checked_sub(first).filter(|&steps| steps > 0)?;
        Some((newest_time - first_time) / steps as f64)
    }
}
