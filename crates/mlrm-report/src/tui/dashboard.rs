//! The thread that owns the terminal.

use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::crossterm::event;

use super::app::App;
use super::content::Content;
use super::input::{Effect, Request};
use super::pace::FramePace;
use super::sweep::SweepApp;
use super::terminal::{self, Input, Keyboard, Signals};
use super::theme::Theme;
use super::views::View;
use crate::follow::{FollowedRun, Source};
use crate::unix_time;

/// How often an owner that waits looks after its dashboard.
const OWNER_INTERVAL: Duration = Duration::from_millis(50);
/// How long an owner waits for a terminal that takes no more output.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How the dashboard is opened.
pub struct Options {
    /// The name of the run, or of the sweep; shown in the header.
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
    /// There is no terminal, or it cannot be taken over.
    pub fn spawn(source: Source, options: Options) -> io::Result<DashboardHandle> {
        let attached = options.requests.is_some();
        let mut app = App::new(options.run_name.clone(), options.theme, attached);
        app.view = options.view;
        let run = FollowedRun::new(options.run_name.clone(), source);
        Self::open(Content::Run(Box::new((run, app))), options)
    }

    /// Takes over the terminal and shows the runs of a sweep, on a thread of its own.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_sweep(runs: Vec<FollowedRun>, options: Options) -> io::Result<DashboardHandle> {
        let attached = options.requests.is_some();
        let mut app = SweepApp::new(options.run_name.clone(), options.theme, attached);
        app.set_view(options.view);
        Self::open(Content::Sweep(runs, Box::new(app)), options)
    }

    fn open(content: Content, options: Options) -> io::Result<DashboardHandle> {
        let signals = options
            .requests
            .is_none()
            .then(Signals::watch)
            .transpose()?
            .map(Arc::new);
        let terminal = terminal::take()?;
        let closing = Arc::new(AtomicBool::new(false));
        let (report, done) = mpsc::channel();
        let frames_per_second = options.frames_per_second.clamp(0.1, 60.0);
        let mut screen = ScreenLoop {
            content,
            requests: options.requests,
            frame: Duration::from_secs_f64(1.0 / frames_per_second),
            terminal: ManuallyDrop::new(terminal),
            signals: signals.clone(),
            closing: Arc::clone(&closing),
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

struct ScreenLoop {
    content: Content,
    requests: Option<Sender<Request>>,
    frame: Duration,
    /// Never dropped: ratatui's destructor writes to the terminal, which may be gone, and panics
    /// where it cannot complain of that. [`terminal::restore`] does all that it would do.
    terminal: ManuallyDrop<terminal::Screen>,
    signals: Option<Arc<Signals>>,
    closing: Arc<AtomicBool>,
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
            changed |= self.content.poll();
            changed |= self.clock_moved();
            let now = Instant::now();
            if changed && pace.wait(now, touched).is_zero() {
                let time = unix_time();
                let drawn = self.terminal.draw(|frame| self.content.draw(frame, time));
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
                match self.content.handle(&event::read()?) {
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

    /// Whether a shown time has changed.
    fn clock_moved(&mut self) -> bool {
        let second = unix_time() as u64;
        let moved = second != self.shown_second && self.content.is_live();
        self.shown_second = second;
        moved
    }

    fn ask(&mut self, request: Request) {
        let gone = self
            .requests
            .as_ref()
            .is_none_or(|requests| requests.send(request).is_err());
        if gone {
            self.content.tell("the training has ended".to_owned());
        }
    }
}
