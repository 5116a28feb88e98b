//! How often the screen is drawn.

use std::time::{Duration, Instant};

/// Share of one processor core that drawing may take from a training.
const DRAWING_SHARE: f64 = 0.005;
/// However dear a frame is, the screen is never older than this.
const SLOWEST_FRAME: Duration = Duration::from_secs(1);

/// When the next frame may be drawn: at most so many a second and, where nobody has touched a key,
/// no more than [`DRAWING_SHARE`] of the time.
pub(super) struct FramePace {
    shortest: Duration,
    /// When the newest frame was begun.
    drawn: Option<Instant>,
    /// Seconds that a frame takes, without the times when the thread had to wait for a core.
    cost: f64,
}

impl FramePace {
    pub(super) fn new(shortest: Duration) -> Self {
        Self {
            shortest,
            drawn: None,
            cost: f64::INFINITY,
        }
    }

    /// How long the next frame has to wait at `now`.
    pub(super) fn wait(&self, now: Instant, touched: bool) -> Duration {
        let Some(drawn) = self.drawn else {
            return Duration::ZERO;
        };
        let fair = Duration::from_secs_f64(self.cost / DRAWING_SHARE).min(SLOWEST_FRAME);
        let interval = if touched {
            self.shortest
        } else {
            self.shortest.max(fair)
        };
        interval.saturating_sub(now.saturating_duration_since(drawn))
    }

    /// A frame begun at `now` took this long.
    pub(super) fn drawn(&mut self, now: Instant, took: Duration) {
        self.drawn = Some(now);
        // The quickest of late; it is forgotten slowly, for another view or size may cost more.
        self.cost = took.as_secs_f64().min(1.2 * self.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: f64) -> Duration {
        Duration::from_secs_f64(milliseconds / 1e3)
    }

    /// Frames of ten seconds in which something changes all the time.
    fn frames(cost: f64, touched: bool) -> usize {
        let begin = Instant::now();
        let mut pace = FramePace::new(ms(100.0));
        let mut count = 0;
        for tick in 0..10_000 {
            let now = begin + ms(f64::from(tick));
            if pace.wait(now, touched).is_zero() {
                count += 1;
                // Every third frame is held up by other work on the machine.
                let held_up = if count % 3 == 0 { 40.0 } else { 0.0 };
                pace.drawn(now, ms(cost + held_up));
            }
        }
        count
    }

    #[test]
    fn drawing_keeps_to_its_share() {
        assert_eq!(frames(0.1, false), 100);
        // 2 ms are 0.5 % of 400 ms; a frame that was held up may be followed by a longer wait.
        assert!((20..=25).contains(&frames(2.0, false)));
        assert_eq!(frames(60.0, false), 10);
    }

    #[test]
    fn a_key_is_answered_at_once() {
        assert_eq!(frames(60.0, true), 100);
    }
}
