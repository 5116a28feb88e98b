//! Taking over the terminal and giving it back, whatever happens in between.

use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// Whether the dashboard holds the terminal.
static ACTIVE: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// Switches to the alternate screen, with keys and mouse unbuffered.
///
/// # Errors
///
/// Another dashboard holds the terminal, or standard output is none; it is then as it was.
pub(super) fn take() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
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
