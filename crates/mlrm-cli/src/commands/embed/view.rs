//! How far a job is: notes, rate, time that is left, and pictures that failed.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mlrm_train::encode::EmbedSeconds;

/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// A bar on a terminal, a line a minute elsewhere.
pub struct View {
    bar: ProgressBar,
    all: usize,
    /// Notes that an earlier process embedded, which say nothing of the rate.
    taken: usize,
    failed: usize,
    /// Where the time went in the parts that are done.
    seconds: EmbedSeconds,
    begun: Instant,
    said: Instant,
}

impl View {
    /// Nothing of `all` notes is done.
    pub fn new(all: usize) -> Self {
        let bar = ProgressBar::new(all as u64);
        let template = "{human_pos}/{human_len} notes {wide_bar} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            all,
            taken: 0,
            failed: 0,
            seconds: EmbedSeconds::default(),
            begun: now,
            said: now,
        }
    }

    /// So many more notes were there already.
    pub fn take(&mut self, notes: usize, done: usize) {
        self.taken += notes;
        self.show(done, &EmbedSeconds::default());
    }

    /// So many more pictures failed.
    pub fn fail(&mut self, pictures: usize) {
        self.failed += pictures;
    }

    /// A part is done, for which the time went so.
    pub fn add(&mut self, seconds: EmbedSeconds) {
        self.seconds += seconds;
    }

    /// Where the time went in the parts that are done.
    pub fn seconds(&self) -> EmbedSeconds {
        self.seconds
    }

    /// So many notes are done in all; for those of the part that is not done yet the time went so.
    pub fn show(&mut self, done: usize, of_part: &EmbedSeconds) {
        let mut seconds = self.seconds;
        seconds += *of_part;
        let said = self.said(done, self.begun.elapsed(), &seconds);
        if self.bar.is_hidden() {
            if self.said.elapsed() >= BETWEEN_LINES {
                self.said = Instant::now();
                eprintln!("{done} of {} notes{said}", self.all);
            }
            return;
        }
        self.bar.set_position(done as u64);
        self.bar
            .set_message(said.trim_start_matches(", ").to_owned());
    }

    /// Says a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn said(&self, done: usize, passed: Duration, seconds: &EmbedSeconds) -> String {
        let mut said = String::new();
        let computed = done.saturating_sub(self.taken);
        let rate = computed as f64 / passed.as_secs_f64();
        if computed > 0 && rate.is_finite() {
            let left = (self.all.saturating_sub(done) as f64 / rate).round() as u64;
            said += &format!(
                ", {rate:.1} a second, {}:{:02}:{:02} left",
                left / 3600,
                left / 60 % 60,
                left % 60
            );
            let waiting = 100.0 * seconds.share_waiting();
            said += &format!(", {waiting:.0} % of the time waiting for notes");
        }
        if self.failed > 0 {
            said += &format!(", {} pictures failed", self.failed);
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_those_of_what_was_computed() {
        let mut view = View::new(1000);
        let seconds = EmbedSeconds {
            waiting: 1.0,
            computing: 19.0,
        };
        assert_eq!(view.said(0, Duration::from_secs(5), &seconds), "");
        view.take(400, 400);
        view.fail(2);
        assert_eq!(
            view.said(500, Duration::from_secs(20), &seconds),
            ", 5.0 a second, 0:01:40 left, 5 % of the time waiting for notes, 2 pictures failed"
        );
        assert_eq!(
            view.said(1000, Duration::ZERO, &seconds),
            ", 2 pictures failed"
        );
    }
}
