//! Watching a run: the terminal dashboard, plain progress lines, TensorBoard files and the report.
//!
//! Everything here reads a run's events ([`mlrm_events`]) and nothing else, so a live run, a run on
//! another machine's shared folder and a finished run look the same.
//!
//! In the order of reading:
//!
//! 1. [`state`] folds the events into bounded memory; [`run`] reads a run folder into it, and
//!    [`follow`] one that grows.
//! 2. [`format`](mod@format) and [`describe`] put numbers and events into words; `axis`, `color` and `svg` say where
//!    values lie and what colours mean, for screens and pictures alike.
//! 3. [`tui`] is the dashboard: `pane` is what a view draws into, `views` the list of views (a file and a
//!    line each), `widgets` their plots, `dashboard` the thread that owns the terminal. [`progress`] is the
//!    line in its place.
//! 4. [`html`] and [`markdown`] write the report, [`sweep`] the table of a sweep, [`saliency_plot`] the
//!    picture of the layers, [`tensorboard`] event files. [`examples`] are the queries that a report shows.

mod axis;
mod color;
pub mod describe;
pub mod examples;
pub mod follow;
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
