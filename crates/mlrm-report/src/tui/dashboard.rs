//! The thread that owns the terminal.

use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mlrm_events::{EventTail, Stamped};
use ratatui::crossterm::event;

use super::app::App;
use super::input::{Effect, Request};
use super::terminal::{self, Input, Keyboard, Signals};
use super::theme::Theme;
use super::views::View;
use crate::state::RunState;
use crate::unix_time;

/// How often a log file is looked at.
const TAIL_INTERVAL: Duration = Duration::from_millis(250);
/// How often an owner that waits looks after its dashboard.
const OWNER_INTERVAL: Duration = Duration::from_millis(50);
/// How long an owner waits for a terminal that takes no more output.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Where the events come from.
pub enum Source {
    /// A trainer in this process. The channel is unbounded: the trainer never waits for the screen.
    Channel(Receiver<Stamped>),
    /// A log file that grows, or has grown.
    Tail(EventTail),
}

/// How the dashboard is opened.
pub struct Options {
    /// Shown in the header.
    pub run_name: String,
    /// Frames a second at most; a frame is drawn only when something changed.
    pub frames_per_second: f64,
    /// Where requests go; `None` where the run is only watched.
    pub requests: Option<Sender<Request>>,
    /// Colours and glyphs.
    pub theme: Theme,
    /// The first view.
    pub view: View,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run_name: String::new(),
            frames_per_second: 10.0,
            requests: None,
            theme: Theme::detect(),
            view: View::Overview,
        }
    }
}

/// Why the dashboard closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A person closed it; an attached trainer goes on.
    Closed,
    /// Its owner closed it.
    Finished,
    /// This signal came (watching only: a trainer handles signals itself).
    Interrupted(i32),
}

/// The dashboard on the terminal.
pub struct Dashboard;

/// A running dashboard. Dropping it closes it.
///
/// While it is open nothing else may write to the terminal.
pub struct DashboardHandle {
    closing: Arc<AtomicBool>,
    done: Receiver<io::Result<Outcome>>,
    outcome: Option<io::Result<Outcome>>,
    thread: Option<JoinHandle<()>>,
    signals: Option<Arc<Signals>>,
}

impl Dashboard {
    /// Takes over the terminal and shows the run on a thread of its own.
    ///
    /// # Errors
    ///
    /// There is no terminal, or it cannot be taken over.
    pub fn spawn(source: Source, options: Options) -> io::Result<DashboardHandle> {
        let signals = options
            .requests
            .is_none()
            .then(Signals::watch)
            .transpose()?
            .map(Arc::new);
        let terminal = terminal::take()?;
        let closing = Arc::new(AtomicBool::new(false));
        let (report, done) = mpsc::channel();
        let mut app = App::new(options.run_name, options.theme, options.requests.is_some());
        app.view = options.view;
        let frames_per_second = options.frames_per_second.clamp(0.1, 60.0);
        let mut screen = ScreenLoop {
            source,
            app,
            state: RunState::default(),
            requests: options.requests,
            frame: Duration::from_secs_f64(1.0 / frames_per_second),
            terminal: ManuallyDrop::new(terminal),
            signals: signals.clone(),
            closing: Arc::clone(&closing),
            next_tail: Instant::now(),
            shown_second: 0,
        };
        let spawned = std::thread::Builder::new()
            .name("dashboard".into())
            .spawn(move || {
                let outcome = screen.run();
                terminal::restore();
                let _owner_gone = report.send(outcome);
            });
        let thread = spawned.inspect_err(|_| terminal::restore())?;
        Ok(DashboardHandle {
            closing,
            done,
            outcome: None,
            thread: Some(thread),
            signals,
        })
    }
}

impl DashboardHandle {
    /// Whether the dashboard is still on screen; once it is not, its owner may print again.
    pub fn is_open(&mut self) -> bool {
        if self.outcome.is_none() {
            match self.done.try_recv() {
                Ok(outcome) => self.outcome = Some(outcome),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.outcome = Some(Err(ended_early())),
            }
        }
        self.outcome.is_none()
    }

    /// Waits until a person or a signal closes the dashboard.
    ///
    /// # Errors
    ///
    /// The terminal failed.
    pub fn wait(mut self) -> io::Result<Outcome> {
        let mut signalled: Option<Instant> = None;
        while self.is_open() {
            let signal = self.signals.as_ref().and_then(|signals| signals.received());
            if let Some(signal) = signal
                && signalled.get_or_insert_with(Instant::now).elapsed() > CLOSE_PATIENCE
            {
                // The thread hangs in a terminal that takes no output (a stopped one, a broken
                // connection). A signal ends the program all the same.
                terminal::abandon();
                self.thread = None;
                return Ok(Outcome::Interrupted(signal));
            }
            std::thread::sleep(OWNER_INTERVAL);
        }
        self.shut()
    }

    /// Closes the dashboard and gives the terminal back.
    ///
    /// # Errors
    ///
    /// The terminal failed while the dashboard was open.
    pub fn close(mut self) -> io::Result<Outcome> {
        self.shut()
    }

    fn shut(&mut self) -> io::Result<Outcome> {
        self.closing.store(true, Ordering::SeqCst);
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome,
            None => match self.done.recv_timeout(CLOSE_PATIENCE) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Disconnected) => Err(ended_early()),
                Err(RecvTimeoutError::Timeout) => {
                    // The terminal takes no output (a stopped or broken connection). The thread is
                    // left to it; the owner's work goes on.
                    self.thread = None;
                    Ok(Outcome::Finished)
                }
            },
        };
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        outcome
    }
}

impl Drop for DashboardHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.shut();
        }
    }
}

fn ended_early() -> io::Error {
    io::Error::other("the dashboard's thread ended early")
}

/// Share of one processor core that drawing may take from a training.
const DRAWING_SHARE: f64 = 0.005;
/// However dear a frame is, the screen is never older than this.
const SLOWEST_FRAME: Duration = Duration::from_secs(1);

/// When the next frame may be drawn: at most so many a second and, where nobody has touched a key,
/// no more than [`DRAWING_SHARE`] of the time.
struct FramePace {
    shortest: Duration,
    /// When the newest frame was begun.
    drawn: Option<Instant>,
    /// Seconds that a frame takes, without the times when the thread had to wait for a core.
    cost: f64,
}

impl FramePace {
    fn new(shortest: Duration) -> Self {
        Self {
            shortest,
            drawn: None,
            cost: f64::INFINITY,
        }
    }

    /// How long the next frame has to wait at `now`.
    fn wait(&self, now: Instant, touched: bool) -> Duration {
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
    fn drawn(&mut self, now: Instant, took: Duration) {
        self.drawn = Some(now);
        // The quickest of late; it is forgotten slowly, for another view or size may cost more.
        self.cost = took.as_secs_f64().min(1.2 * self.cost);
    }
}

struct ScreenLoop {
    source: Source,
    app: App,
    state: RunState,
    requests: Option<Sender<Request>>,
    frame: Duration,
    /// Never dropped: ratatui's destructor writes to the terminal, which may be gone, and panics
    /// where it cannot complain of that. [`terminal::restore`] does all that it would do.
    terminal: ManuallyDrop<terminal::Screen>,
    signals: Option<Arc<Signals>>,
    closing: Arc<AtomicBool>,
    next_tail: Instant,
    shown_second: u64,
}

impl ScreenLoop {
    fn run(&mut self) -> io::Result<Outcome> {
        let keyboard = Keyboard::open()?;
        let (mut changed, mut touched) = (true, true);
        let mut pace = FramePace::new(self.frame);
        loop {
            if let Some(signal) = self.signals.as_ref().and_then(|signals| signals.received()) {
                return Ok(Outcome::Interrupted(signal));
            }
            // A panic elsewhere has given the terminal back already.
            if self.closing.load(Ordering::SeqCst) || !terminal::is_taken() {
                return Ok(Outcome::Finished);
            }
            if !io::stdout().is_terminal() {
                return Ok(Outcome::Closed);
            }
            changed |= self.take_events();
            changed |= self.clock_moved();
            let now = Instant::now();
            if changed && pace.wait(now, touched).is_zero() {
                let time = unix_time();
                let drawn = self
                    .terminal
                    .draw(|frame| self.app.draw(frame, &self.state, time));
                // A terminal that went between two looks at it is no failure.
                if drawn.is_err() && keyboard.wait(Duration::ZERO) == Input::Gone {
                    return Ok(Outcome::Closed);
                }
                drawn?;
                pace.drawn(now, now.elapsed());
                (changed, touched) = (false, false);
            }
            let wait = if changed {
                pace.wait(now, touched)
            } else {
                self.frame
            };
            // crossterm reads a terminal that has hung up for ever and never comes back: it is asked
            // for keys only while the terminal is there.
            if keyboard.wait(wait.min(Duration::from_millis(100))) == Input::Gone {
                return Ok(Outcome::Closed);
            }
            while event::poll(Duration::ZERO)? {
                match self.app.handle(&event::read()?, &self.state) {
                    Effect::None => {}
                    Effect::Redraw => (changed, touched) = (true, true),
                    Effect::Ask(request) => {
                        (changed, touched) = (true, true);
                        self.ask(request);
                    }
                    Effect::Close => return Ok(Outcome::Closed),
                }
            }
        }
    }

    /// Folds what has come in; whether anything has.
    fn take_events(&mut self) -> bool {
        match &mut self.source {
            Source::Channel(receiver) => {
                let before = self.state.events;
                receiver
                    .try_iter()
                    .for_each(|event| self.state.apply(&event));
                self.state.events != before
            }
            Source::Tail(tail) => {
                if Instant::now() < self.next_tail {
                    return false;
                }
                self.next_tail = Instant::now() + TAIL_INTERVAL;
                match tail.poll() {
                    Ok(batch) => {
                        if batch.restarted {
                            self.state = RunState::default();
                        }
                        batch
                            .events
                            .iter()
                            .for_each(|event| self.state.apply(event));
                        self.state.unreadable_lines += batch.malformed.len() as u64;
                        if let Some(error) = batch.malformed.last() {
                            let lines = self.state.unreadable_lines;
                            self.app
                                .tell(format!("{lines} unreadable lines skipped, {error}"));
                        }
                        batch.restarted || !batch.events.is_empty() || !batch.malformed.is_empty()
                    }
                    Err(error) => self.app.tell(format!("cannot read the log: {error}")),
                }
            }
        }
    }

    /// Whether a shown time has changed.
    fn clock_moved(&mut self) -> bool {
        let second = unix_time() as u64;
        let moved = second != self.shown_second && self.state.ended.is_none();
        self.shown_second = second;
        moved
    }

    fn ask(&mut self, request: Request) {
        let gone = self
            .requests
            .as_ref()
            .is_none_or(|requests| requests.send(request).is_err());
        if gone {
            self.app.tell("the training has ended".to_owned());
        }
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
