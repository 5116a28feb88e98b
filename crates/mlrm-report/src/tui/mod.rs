//! The dashboard: views over a [`RunState`](crate::state::RunState), and the thread that shows them.
//!
//! [`App`] is what a person has chosen (view, zoom, filters); [`App::draw`] is a pure function of it
//! and the run's state, so it is tested without a terminal and drawn to SVG as it is to a screen.
//! [`Dashboard`] owns the terminal and runs on a thread of its own.

mod app;
mod attached;
mod chrome;
mod content;
mod dashboard;
mod input;
mod pace;
mod pane;
mod svg;
mod sweep;
mod terminal;
mod theme;
mod views;
mod widgets;

pub use app::{App, LogFilter};
pub use attached::Attached;
pub use dashboard::{Dashboard, DashboardHandle, Options, Outcome};
pub use input::{Effect, Request};
pub use svg::to_svg;
pub use sweep::SweepApp;
pub use terminal::restore as restore_terminal;
pub use theme::{ColorDepth, Role, Theme};
pub use views::View;
