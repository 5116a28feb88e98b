//! What a person looks at, and drawing it.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::chrome;
use super::pane::Pane;
use super::theme::Theme;
use super::views::View;
use crate::state::RunState;

/// Smallest size that the views fit into.
pub(super) const SMALLEST: (u16, u16) = (60, 15);

/// Shares of the past in the exponential mean of the plots.
pub(super) const SMOOTHING: [f64; 5] = [0.0, 0.6, 0.9, 0.97, 0.99];

/// Largest zoom: the newest 1/2ⁿ of the steps.
pub(super) const MAX_ZOOM: u32 = 6;

/// Which events the log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFilter {
    /// Everything but the steps and the machine's figures.
    #[default]
    Notable,
    /// Warnings and failures.
    Warnings,
    /// Evaluations and checkpoints.
    Results,
    /// Everything.
    All,
}

impl LogFilter {
    pub(super) const ALL: [LogFilter; 4] = [
        LogFilter::Notable,
        LogFilter::Warnings,
        LogFilter::Results,
        LogFilter::All,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            LogFilter::Notable => "notable",
            LogFilter::Warnings => "warnings",
            LogFilter::Results => "results",
            LogFilter::All => "all",
        }
    }

    pub(super) fn passes(self, name: &str) -> bool {
        match self {
            LogFilter::Notable => !matches!(
                name,
                "train_step" | "system" | "gate_histogram" | "attention_mass"
            ),
            LogFilter::Warnings => matches!(name, "warning" | "run_ended"),
            LogFilter::Results => matches!(name, "evaluation" | "checkpoint_saved" | "run_ended"),
            LogFilter::All => true,
        }
    }
}

/// What a person has chosen to see.
#[derive(Debug, Clone)]
pub struct App {
    /// The run's name, as shown in the header.
    pub run_name: String,
    /// What the terminal shows.
    pub theme: Theme,
    /// Whether a trainer takes requests (pause, save, stop). A watched run takes none.
    pub attached: bool,
    /// The page.
    pub view: View,
    /// Whether the run is one of a sweep that this dashboard shows.
    pub(super) of_sweep: bool,
    pub(super) smoothing: usize,
    pub(super) zoom: u32,
    pub(super) log_axis: bool,
    /// Index into the metrics that the run has.
    pub(super) metric: usize,
    /// Index into the slices that the newest evaluation has.
    pub(super) slice: usize,
    /// Layer whose history is shown; `None` is the last one.
    pub(super) layer: Option<usize>,
    /// Attention mass instead of saliency.
    pub(super) mass: bool,
    pub(super) filter: LogFilter,
    /// Text that log lines and config keys must hold.
    pub(super) search: String,
    pub(super) searching: bool,
    /// The first line shown of each view that is a list.
    pub(super) scroll: [usize; View::ALL.len()],
    pub(super) help: bool,
    /// Stop was asked once and waits for its confirmation.
    pub(super) confirming_stop: bool,
    /// Answer to the last request, until the next key.
    pub(super) message: Option<String>,
    /// Size at the last drawing, for the mouse.
    pub(super) size: (u16, u16),
}

impl App {
    /// The dashboard as it opens.
    pub fn new(run_name: impl Into<String>, theme: Theme, attached: bool) -> Self {
        Self {
            run_name: run_name.into(),
            theme,
            attached,
            view: View::Overview,
            of_sweep: false,
            smoothing: 2,
            zoom: 0,
            log_axis: false,
            metric: 0,
            slice: 0,
            layer: None,
            mass: false,
            filter: LogFilter::default(),
            search: String::new(),
            searching: false,
            scroll: [0; View::ALL.len()],
            help: false,
            confirming_stop: false,
            message: None,
            size: (0, 0),
        }
    }

    /// Draws `state` as it is at `now` (Unix seconds).
    pub fn draw(&mut self, frame: &mut Frame, state: &RunState, now: f64) {
        let area = frame.area();
        self.size = (area.width, area.height);
        self.limit_scroll(state);
        self.render(area, frame.buffer_mut(), state, now);
    }

    /// [`App::draw`] as an SVG picture of a screen of `size` (columns, rows).
    pub fn svg(&self, size: (u16, u16), state: &RunState, now: f64) -> String {
        let area = Rect::new(0, 0, size.0, size.1);
        let mut buffer = Buffer::empty(area);
        self.render(area, &mut buffer, state, now);
        super::to_svg(&buffer)
    }

    /// Keeps the shown list from scrolling past its end.
    fn limit_scroll(&mut self, state: &RunState) {
        if let Some(length) = self.view.page().list_length(self, state) {
            let scroll = &mut self.scroll[self.view as usize];
            *scroll = (*scroll).min(length.saturating_sub(1));
        }
    }

    /// [`App::draw`] into a buffer.
    pub fn render(&self, area: Rect, buffer: &mut Buffer, state: &RunState, now: f64) {
        let Some(mut pane) = self.pane(area, buffer, state, now) else {
            return;
        };
        let body = chrome::frame(&mut pane);
        self.view.page().draw(pane.within(body));
        if self.help {
            chrome::help(pane);
        }
    }

    /// All of `area`, unless it is too small, which is then all that is shown.
    pub(super) fn pane<'a>(
        &'a self,
        area: Rect,
        buffer: &'a mut Buffer,
        state: &'a RunState,
        now: f64,
    ) -> Option<Pane<'a>> {
        let pane = Pane {
            app: self,
            state,
            theme: &self.theme,
            now,
            area,
            buffer,
        };
        if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
            chrome::too_small(pane);
            return None;
        }
        Some(pane)
    }
}
