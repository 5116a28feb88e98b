//! Taking over the terminal and giving it back, whatever happens in between.

use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// The terminal as the dashboard draws on it.
pub(super) type Screen = Terminal<CrosstermBackend<Stdout>>;

/// Whether the dashboard holds the terminal.
static ACTIVE: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// Switches to the alternate screen, with keys and mouse unbuffered.
///
/// # Errors
/// Another dashboard holds the terminal, or standard output is none; it is then as it was.
pub(super) fn take() -> io::Result<Screen> {
    if ACTIVE.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other(
            "a dashboard is open on this terminal already",
        ));
    }
    PANIC_HOOK.call_once(|| {
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // First the screen, so that the message lands on it.
            restore();
            inner(panic);
        }));
    });
    let taken = enable_raw_mode()
        .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture))
        .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
    if taken.is_err() {
        restore();
    }
    taken
}

/// Gives the terminal back as it was before the dashboard. Does nothing where no dashboard holds
/// it, so it may be called from anywhere: a panic, a signal handler's thread, before an exit.
pub fn restore() {
    if ACTIVE.swap(false, Ordering::SeqCst) {
        // Each by itself: where one fails (the terminal has gone), the others still matter.
        let _ = execute!(io::stdout(), DisableMouseCapture);
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// [`restore`] for a terminal that takes no output: its settings alone are given back.
pub(super) fn abandon() {
    if ACTIVE.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
    }
}

/// What a look at the keyboard found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// There may be something to read.
    Waiting,
    /// The terminal is gone: its window was closed, its connection is lost.
    Gone,
}

/// Where keys come from, the same as crossterm reads: standard input where it is a terminal, else
/// the terminal that controls the process.
pub(super) struct Keyboard {
    #[cfg(unix)]
    own: Option<std::fs::File>,
}

#[cfg(unix)]
impl Keyboard {
    pub(super) fn open() -> io::Result<Self> {
        use std::io::IsTerminal;
        let own = match io::stdin().is_terminal() {
            true => None,
            false => Some(std::fs::File::open("/dev/tty")?),
        };
        Ok(Self { own })
    }

    /// Waits until there is something to read, a signal has come, or `patience` has passed.
    pub(super) fn wait(&self, patience: Duration) -> Input {
        use std::os::fd::AsRawFd;
        let fd = self
            .own
            .as_ref()
            .map_or(libc::STDIN_FILENO, AsRawFd::as_raw_fd);
        let mut look = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one `pollfd`, as the count says, which outlives the call.
        let found = unsafe { libc::poll(&raw mut look, 1, patience) };
        let gone = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        if found > 0 && look.revents & gone != 0 {
            Input::Gone
        } else {
            Input::Waiting
        }
    }
}

#[cfg(not(unix))]
impl Keyboard {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(super) fn wait(&self, patience: Duration) -> Input {
        // An error shows itself when the key is read.
        let _ = ratatui::crossterm::event::poll(patience);
        Input::Waiting
    }
}

/// Whether the dashboard still holds the terminal.
pub(super) fn is_taken() -> bool {
    ACTIVE.load(Ordering::SeqCst)
}

/// Signals that end a program, noticed instead of obeyed, so that the terminal can be given back
/// first. A second one ends the program at once.
pub(super) struct Signals {
    #[cfg(unix)]
    received: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    #[cfg(unix)]
    registered: Vec<signal_hook::SigId>,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let received = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let again = std::sync::Arc::new(AtomicBool::new(false));
        let mut registered = Vec::new();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let flag = std::sync::Arc::clone(&again);
            registered.push(signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                flag,
            )?);
            let flag = std::sync::Arc::clone(&again);
            registered.push(signal_hook::flag::register(signal, flag)?);
            let number = std::sync::Arc::clone(&received);
            let value = signal as usize;
            registered.push(signal_hook::flag::register_usize(signal, number, value)?);
        }
        Ok(Self {
            received,
            registered,
        })
    }

    /// The signal that came, if one did.
    pub(super) fn received(&self) -> Option<i32> {
        match self.received.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}

#[cfg(unix)]
impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(super) fn received(&self) -> Option<i32> {
        None
    }
}
