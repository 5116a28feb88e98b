//! Signals that ask a training run to save and stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use miette::{IntoDiagnostic, WrapErr};
use mlrm_events::Action;

/// Ctrl-C, termination and a terminal that goes away make `ask` say [`Action::Stop`]. A second Ctrl-C
/// or termination ends at once; a terminal that goes is told of more than once (by the system, by the
/// shell), and never ends a run that is saving.
///
/// # Errors
/// The system refuses to have signals handled.
pub fn on_signals(ask: Sender<Action>) -> miette::Result<()> {
    #[cfg(unix)]
    on_termination(ask.clone())
        .into_diagnostic()
        .wrap_err("signals cannot be handled")?;
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        // The trainer has ended where nobody listens any more.
        let _ended = ask.send(Action::Stop);
    })
    .into_diagnostic()
    .wrap_err("Ctrl-C cannot be handled")
}

/// The end of standard input makes `ask` say [`Action::Stop`]: a process whose parent holds the other
/// end outlives it by no more than it takes to save, however the parent ended.
///
/// # Errors
/// The system refuses a thread.
pub fn on_end_of_input(ask: Sender<Action>) -> std::io::Result<()> {
    let wait = move || {
        // What cannot be read has ended, too.
        let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ended = ask.send(Action::Stop);
    };
    let thread = std::thread::Builder::new().name("mlrm-input".into());
    thread.spawn(wait).map(|_thread| ())
}

#[cfg(unix)]
fn on_termination(ask: Sender<Action>) -> std::io::Result<()> {
    use std::sync::Arc;
    use std::time::Duration;

    use signal_hook::consts::{SIGHUP, SIGTERM};
    use signal_hook::flag::{register, register_conditional_shutdown};

    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let [asked, insisted] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    register_conditional_shutdown(SIGTERM, 128 + SIGTERM, Arc::clone(&insisted))?;
    register(SIGTERM, insisted)?;
    for signal in [SIGTERM, SIGHUP] {
        register(signal, Arc::clone(&asked))?;
    }
    let wait = move || {
        while !asked.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK_EVERY);
        }
        // The trainer has ended where nobody listens any more.
        let _ended = ask.send(Action::Stop);
    };
    let thread = std::thread::Builder::new().name("mlrm-signals".into());
    thread.spawn(wait).map(|_thread| ())
}
