//! The dashboard's views: a file each, and a line in the list below.

mod attention;
mod config;
mod fusion;
mod log;
mod overview;
mod retrieval;

use ratatui::text::Span;

use super::app::App;
use super::chrome::Hint;
use super::pane::Pane;
use super::theme::Role;
use super::widgets::{Plot, PlotLine};
use crate::axis::Scale;
use crate::format;
use crate::state::{RunState, Series};

/// What a view is.
pub(super) trait Page {
    /// Its own keys, for the foot of the screen.
    fn keys(&self, app: &App) -> Vec<Hint>;

    /// Draws the run's state between header and footer.
    fn draw(&self, pane: Pane);

    /// How many lines it has; `None` of a view that is no list, cannot be scrolled and not searched.
    fn list_length(&self, _app: &App, _state: &RunState) -> Option<usize> {
        None
    }

    /// Chooses the next item (`by` = 1) or the one before (−1), where there is a choice.
    fn choose(&self, _app: &mut App, _state: &RunState, _by: i64) {}
}

macro_rules! views {
    ($($(#[$doc:meta])* $module:ident::$view:ident;)*) => {
        /// The dashboard's views, in the order of their tabs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum View {
            $($(#[$doc])* $view,)*
        }

        impl View {
            /// All of them.
            pub const ALL: [View; [$(stringify!($view)),*].len()] = [$(View::$view),*];

            /// The tab's title.
            pub fn title(self) -> &'static str {
                match self {
                    $(View::$view => stringify!($view),)*
                }
            }

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(View::$view => stringify!($module),)*
                }
            }

            pub(super) fn page(self) -> &'static dyn Page {
                match self {
                    $(View::$view => &$module::$view,)*
                }
            }
        }
    };
}

views! {
    /// Loss, schedule, throughput, machine.
    overview::Overview;
    /// Saliency and attention mass of the layers.
    attention::Attention;
    /// Metrics, slices and baselines.
    retrieval::Retrieval;
    /// The gate between text and picture, and the geometry of the embeddings.
    fusion::Fusion;
    /// The events.
    log::Log;
    /// What the run was started with.
    config::Config;
}

/// A panel with one series over the steps and its newest value.
fn series_panel(pane: Pane, title: &str, series: &Series, role: Role, scale: Scale) {
    let style = pane.theme.role(role);
    // A program that is not mlrm's may never tell it; what stops being a number is shown as such.
    let newest = series.last().filter(|_| !series.is_empty());
    let newest = newest.map(|value| Span::styled(format::number(value), style));
    let line = PlotLine::series(role, series, pane.smoothing());
    let mut plot = Plot::new(pane.step_range(), vec![line]);
    plot.y_scale = scale;
    plot.render(pane.panel(title, newest));
}

/// A share as a tick label.
fn percent_label(value: f64) -> Option<String> {
    Some(format!("{}%", (value * 1000.0).round() / 10.0))
}

/// The largest share of all, for the top of colours and axes.
fn largest<'s>(shares: impl Iterator<Item = &'s f64>) -> f64 {
    shares.copied().fold(1e-12, f64::max)
}
