//! Watching a run: the terminal dashboard, plain progress lines, TensorBoard files and the report.
//!
//! Everything here reads a run's events ([`mlrm_events`]) and nothing else, so a live run, a run on
//! another machine's shared folder and a finished run look the same. [`state`] folds the events
//! into bounded memory; the other modules draw that.

mod axis;
mod color;
pub mod describe;
pub mod examples;
pub mod files;
pub mod format;
pub mod html;
pub mod markdown;
mod markup;
pub mod progress;
pub mod run;
pub mod saliency_plot;
pub mod state;
mod svg;
pub mod sweep;
pub mod tensorboard;
pub mod tui;

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day (Unix seconds), as the events have it.
pub fn unix_time() -> f64 {
    // A clock before 1970 is no reason to fail.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
