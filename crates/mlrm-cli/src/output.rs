//! What the program says, on a terminal that may be gone and in words that may be anything.
//!
//! `println!` and its kin panic where a pipe is closed or a disk full, and a training must not be
//! lost because nobody reads along. In this crate the same names mean the macros below: they write
//! what can be written, and [`lost`] tells whether anything could not. Control characters are written
//! out ([`mlrm_events::text::printable`]), so that no title or path can steer the terminal.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use mlrm_events::text::printable;

/// Whether standard output has refused something.
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes words for people to standard output.
pub fn out(text: Arguments) {
    data(printable(&text.to_string()).as_bytes());
}

/// Writes bytes that are a result themselves (a table, a page) to standard output, as they are.
pub fn data(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    if written.is_err() {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Writes to standard error. Where that fails there is nobody left to tell.
pub fn err(text: Arguments) {
    let text = printable(&text.to_string());
    let _nobody_listens = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether any of [`out`] and [`data`] was lost.
pub fn lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

macro_rules! print {
    ($($words:tt)*) => { $crate::output::out(format_args!($($words)*)) };
}

macro_rules! println {
    () => { $crate::output::out(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::out(format_args!("{}\n", format_args!($($words)*))) };
}

macro_rules! eprintln {
    () => { $crate::output::err(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::err(format_args!("{}\n", format_args!($($words)*))) };
}
