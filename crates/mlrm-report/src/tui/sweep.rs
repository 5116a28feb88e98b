//! All runs of a sweep on one screen, and the way into each.

mod list;

use mlrm_events::EndReason;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEventKind,
};
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::app::App;
use super::chrome::{self, Hint, hint};
use super::input::{Effect, Request};
use super::pane::{Pane, rows};
use super::theme::{Role, Theme};
use super::views::View;
use crate::follow::FollowedRun;
use crate::state::{RunState, Status};

/// What a person has chosen to see of a sweep.
pub struct SweepApp {
    /// What is chosen within a run, and what all of the screen shares.
    app: App,
    name: String,
    /// Whether the sweep takes requests (stop). A watched one takes none.
    attached: bool,
    selected: usize,
    /// Whether the selected run is shown by itself.
    is_open: bool,
    confirming_stop: bool,
}

impl SweepApp {
    /// The screen as it opens.
    pub fn new(name: impl Into<String>, theme: Theme, attached: bool) -> Self {
        let mut app = App::new("", theme, false);
        app.of_sweep = true;
        Self {
            app,
            name: name.into(),
            attached,
            selected: 0,
            is_open: false,
            confirming_stop: false,
        }
    }

    /// The view that a run opens with.
    pub fn set_view(&mut self, view: View) {
        self.app.view = view;
    }

    pub(super) fn app_mut(&mut self) -> &mut App {
        &mut self.app
    }

    /// Draws `runs` as they are at `now` (Unix seconds).
    pub fn draw(&mut self, frame: &mut Frame, runs: &[FollowedRun], now: f64) {
        match runs.get(self.selected).filter(|_| self.is_open) {
            Some(run) => self.app.draw(frame, &run.state, now),
            None => {
                let area = frame.area();
                self.app.size = (area.width, area.height);
                self.render(area, frame.buffer_mut(), runs, now);
            }
        }
    }

    /// The list of the runs as an SVG picture of a screen of `size` (columns, rows).
    pub fn svg(&self, size: (u16, u16), runs: &[FollowedRun], now: f64) -> String {
        let area = Rect::new(0, 0, size.0, size.1);
        let mut buffer = Buffer::empty(area);
        self.render(area, &mut buffer, runs, now);
        super::to_svg(&buffer)
    }

    /// Takes one terminal event.
    pub fn handle(&mut self, event: &Event, runs: &[FollowedRun]) -> Effect {
        let key = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => Some(key),
            _ => None,
        };
        if key.is_some_and(is_interrupt) {
            return self.stop();
        }
        if let Some(run) = runs.get(self.selected).filter(|_| self.is_open) {
            let is_plain = !self.app.help && !self.app.searching && self.app.search.is_empty();
            if is_plain && key.is_some_and(|key| key.code == KeyCode::Esc) {
                self.is_open = false;
                self.app.message = None;
                return Effect::Redraw;
            }
            return self.app.handle(event, &run.state);
        }
        match (key, event) {
            (Some(key), _) => self.key(key.code, runs),
            (_, Event::Mouse(mouse)) => match mouse.kind {
                MouseEventKind::ScrollUp => self.choose(-1, runs),
                MouseEventKind::ScrollDown => self.choose(1, runs),
                _ => Effect::None,
            },
            (_, Event::Resize(..)) => Effect::Redraw,
            _ => Effect::None,
        }
    }

    fn key(&mut self, code: KeyCode, runs: &[FollowedRun]) -> Effect {
        self.app.message = None;
        let confirming = std::mem::take(&mut self.confirming_stop);
        let page = i64::from(self.app.size.1.saturating_sub(6)).max(1);
        match code {
            KeyCode::Char('q') => Effect::Close,
            KeyCode::Char('x') if confirming => self.stop(),
            KeyCode::Char('x') if self.attached => {
                self.confirming_stop = true;
                self.app.message = Some("press x again: all runs save and end".into());
                Effect::Redraw
            }
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1, runs),
            KeyCode::Down | KeyCode::Char('j') => self.choose(1, runs),
            KeyCode::PageUp => self.choose(-page, runs),
            KeyCode::PageDown => self.choose(page, runs),
            KeyCode::Home => self.choose(-(1 << 40), runs),
            KeyCode::End => self.choose(1 << 40, runs),
            KeyCode::Enter => match runs.get(self.selected) {
                Some(run) => {
                    self.app.run_name.clone_from(&run.name);
                    self.is_open = true;
                    Effect::Redraw
                }
                None => Effect::None,
            },
            _ => Effect::None,
        }
    }

    /// Asks the sweep to stop, where this is its own screen, and leaves it otherwise.
    fn stop(&mut self) -> Effect {
        if !self.attached {
            return Effect::Close;
        }
        self.app.message = Some("stopping: runs save and end".into());
        Effect::Ask(Request::Stop)
    }

    fn choose(&mut self, by: i64, runs: &[FollowedRun]) -> Effect {
        let last = runs.len().saturating_sub(1) as i64;
        self.selected = (self.selected as i64 + by).clamp(0, last) as usize;
        Effect::Redraw
    }

    fn render(&self, area: Rect, buffer: &mut Buffer, runs: &[FollowedRun], now: f64) {
        let nothing = RunState::default();
        let Some(mut pane) = self.app.pane(area, buffer, &nothing, now) else {
            return;
        };
        let sizes = [
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Min(0),
            Constraint::Length(2),
        ];
        let [head, counts, body, foot] = rows(area, sizes);
        self.title(pane.within(head));
        progress(pane.within(counts), runs);
        list::draw(pane.within(body), runs, self.selected);
        self.foot(pane.within(foot), runs);
    }

    fn title(&self, mut pane: Pane) {
        let theme = pane.theme;
        let name = pane.fitted(&self.name);
        pane.put(0, &name, theme.strong());
        let mlrm = format!(" {} mlrm", theme.dot());
        pane.put_right(0, Span::styled(mlrm, theme.muted()));
    }

    /// What is to say of the chosen run, and the keys.
    fn foot(&self, mut pane: Pane, runs: &[FollowedRun]) {
        let theme = pane.theme;
        let warning = theme.role(Role::Warning);
        let said = runs.get(self.selected).and_then(remark);
        if let Some(message) = &self.app.message {
            pane.put(0, message, warning.add_modifier(Modifier::BOLD));
        } else if let Some(said) = said {
            let text = pane.fitted(&said);
            pane.put(0, &text, warning);
        }
        let mut hints: Vec<Hint> = vec![
            hint("q", if self.attached { "detach" } else { "quit" }),
            hint("j k", "choose"),
            hint("enter", "show the run"),
        ];
        if self.attached {
            hints.push(hint("x", "stop all"));
        }
        chrome::hint_line(&mut pane, 1, hints, self.attached);
    }
}

/// In raw mode Ctrl-C is a key, not a signal.
fn is_interrupt(key: &KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

/// Why a run failed, or its newest warning.
fn remark(run: &FollowedRun) -> Option<String> {
    if let Some(refusal) = &run.refusal {
        return Some(format!("failed: {refusal}"));
    }
    match &run.state.ended {
        Some(ended) if ended.reason == EndReason::Failed => {
            let reason = ended.message.as_deref();
            Some(format!(
                "failed: {}",
                reason.unwrap_or("it does not say why")
            ))
        }
        _ => {
            let newest = run.state.newest_warnings().next();
            newest.map(|entry| entry.text().into_owned())
        }
    }
}

/// How many runs are at what, and how far all of them are.
fn progress(mut pane: Pane, runs: &[FollowedRun]) {
    let theme = pane.theme;
    let of = |wanted: fn(&FollowedRun) -> bool| runs.iter().filter(|run| wanted(run)).count();
    let counts = [
        (of(is_done), "done", Role::Good),
        (of(is_running), "running", Role::Accent),
        (of(is_failed), "failed", Role::Warning),
        (of(is_stopped), "stopped", Role::Visual),
        (of(is_waiting), "waiting", Role::Plain),
    ];
    let mut line = Line::from(Span::styled(format!("{} runs", runs.len()), theme.strong()));
    for (count, word, role) in counts.into_iter().filter(|(count, ..)| *count > 0) {
        line.push_span(Span::raw("  "));
        line.push_span(Span::styled(format!("{count} {word}"), theme.role(role)));
    }
    let used = line.width() as u16 + 2;
    pane.put_line(0, line);
    let shares = runs.iter().map(|run| match is_done(run) {
        true => 1.0,
        false => run.state.progress().unwrap_or(0.0),
    });
    let share = shares.sum::<f64>() / runs.len().max(1) as f64;
    let percent = format!(" {:>3.0} %", share * 100.0);
    let room = pane.area.width.saturating_sub(used + percent.len() as u16);
    chrome::track(pane.cut(used, room), share);
    pane.put_right(0, Span::raw(percent));
}

fn is_done(run: &FollowedRun) -> bool {
    run.state.status() == Status::Ended(EndReason::Completed)
}

fn is_running(run: &FollowedRun) -> bool {
    matches!(run.state.status(), Status::Running | Status::Paused)
}

fn is_failed(run: &FollowedRun) -> bool {
    run.refusal.is_some() || run.state.status() == Status::Ended(EndReason::Failed)
}

fn is_stopped(run: &FollowedRun) -> bool {
    let status = run.state.status();
    matches!(status, Status::Ended(EndReason::Stopped | EndReason::Other))
}

fn is_waiting(run: &FollowedRun) -> bool {
    run.refusal.is_none() && run.state.status() == Status::Waiting
}
