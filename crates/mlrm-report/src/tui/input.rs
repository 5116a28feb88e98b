//! Keys and mouse.

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::app::{App, LogFilter, MAX_ZOOM, SMOOTHING};
use super::chrome;
use super::views::View;
use crate::state::{RunState, metric_names};

pub use mlrm_events::Action as Request;

/// What an input brings about beyond what it changes on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing, not even on screen.
    None,
    /// The screen must be drawn again.
    Redraw,
    /// The trainer is asked for something.
    Ask(Request),
    /// The dashboard closes.
    Close,
}

impl App {
    /// Takes one terminal event.
    pub fn handle(&mut self, event: &Event, state: &RunState) -> Effect {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(key, state),
            Event::Mouse(mouse) => self.mouse(mouse, state),
            Event::Resize(..) => Effect::Redraw,
            _ => Effect::None,
        }
    }

    fn key(&mut self, key: &KeyEvent, state: &RunState) -> Effect {
        self.message = None;
        let confirming = std::mem::take(&mut self.confirming_stop);
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                // In raw mode Ctrl-C is a key, not a signal; it means what it means elsewhere.
                KeyCode::Char('c') if self.attached => self.ask(Request::Stop),
                KeyCode::Char('c') => Effect::Close,
                _ => Effect::None,
            };
        }
        if self.searching {
            return self.search_key(key.code);
        }
        if self.help {
            self.help = false;
            return Effect::Redraw;
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Close,
            KeyCode::Char(' ') if state.paused => return self.ask(Request::Resume),
            KeyCode::Char(' ') => return self.ask(Request::Pause),
            KeyCode::Char('s') => return self.ask(Request::Save),
            KeyCode::Char('x') if confirming || !self.attached => return self.ask(Request::Stop),
            KeyCode::Char('x') => {
                self.confirming_stop = true;
                self.message = Some("press x again to save and stop after this step".into());
            }
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Esc => self.search.clear(),
            KeyCode::Char(digit @ '1'..='9') => {
                let chosen = View::ALL.get(digit as usize - '1' as usize);
                self.view = *chosen.unwrap_or(&self.view);
            }
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('n') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('p') => self.turn(View::ALL.len() - 1),
            KeyCode::Char('e') => self.smoothing = (self.smoothing + 1) % SMOOTHING.len(),
            KeyCode::Char('l') => self.log_axis = !self.log_axis,
            KeyCode::Char('+' | '=' | 'z') => self.zoom = (self.zoom + 1).min(MAX_ZOOM),
            KeyCode::Char('-' | 'Z') => self.zoom = self.zoom.saturating_sub(1),
            KeyCode::Char('0') => self.zoom = 0,
            KeyCode::Char('a') => self.mass = !self.mass,
            KeyCode::Char('m') => self.choose_metric(state, 1),
            KeyCode::Char('M') => self.choose_metric(state, -1),
            KeyCode::Char('[') => self.view.page().choose(self, state, -1),
            KeyCode::Char(']') => self.view.page().choose(self, state, 1),
            KeyCode::Char('f') => self.next_filter(),
            KeyCode::Char('/') if self.is_list(state) => self.searching = true,
            code if self.is_list(state) => return self.scroll_key(code),
            _ => return Effect::None,
        }
        Effect::Redraw
    }

    fn search_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Enter => self.searching = false,
            KeyCode::Esc => {
                self.searching = false;
                self.search.clear();
            }
            KeyCode::Backspace => {
                self.search.pop();
            }
            KeyCode::Char(letter) => self.search.push(letter),
            _ => return Effect::None,
        }
        self.scroll = Default::default();
        Effect::Redraw
    }

    fn scroll_key(&mut self, code: KeyCode) -> Effect {
        let page = i64::from(self.size.1.saturating_sub(6)).max(1);
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::PageUp => self.scroll(-page),
            KeyCode::PageDown => self.scroll(page),
            KeyCode::Home => self.scroll(i64::MIN),
            KeyCode::End => self.scroll(i64::MAX),
            _ => Effect::None,
        }
    }

    /// Asks the trainer, where there is one.
    fn ask(&mut self, request: Request) -> Effect {
        if !self.attached {
            self.message =
                Some("this view is read-only: only the training's own terminal can".into());
            return Effect::Redraw;
        }
        self.message = Some(
            match request {
                Request::Pause => "pausing after this step",
                Request::Resume => "resuming",
                Request::Save => "saving after this step",
                Request::Stop | Request::Other => "saving and stopping after this step",
            }
            .into(),
        );
        Effect::Ask(request)
    }

    fn turn(&mut self, by: usize) {
        self.view = View::ALL[(self.view as usize + by) % View::ALL.len()];
    }

    fn choose_metric(&mut self, state: &RunState, by: i64) {
        let count = metric_names(state.evaluations.iter()).len();
        self.metric = wrapped(self.metric, by, count);
    }

    fn next_filter(&mut self) {
        let now = LogFilter::ALL
            .iter()
            .position(|&filter| filter == self.filter)
            .unwrap_or(0);
        self.filter = LogFilter::ALL[(now + 1) % LogFilter::ALL.len()];
        self.scroll[View::Log as usize] = 0;
    }

    fn is_list(&self, state: &RunState) -> bool {
        self.view.page().list_length(self, state).is_some()
    }

    /// Moves the list of the view. The end of the list is kept when drawing.
    fn scroll(&mut self, by: i64) -> Effect {
        let scroll = &mut self.scroll[self.view as usize];
        // Far past any list, and far from overflow.
        let moved = (*scroll as i64).saturating_add(by).clamp(0, 1 << 40);
        *scroll = moved as usize;
        Effect::Redraw
    }

    /// Shows a message until the next key; whether it is a new one.
    pub(super) fn tell(&mut self, message: String) -> bool {
        let new = self.message.as_ref() != Some(&message);
        self.message = Some(message);
        new
    }

    fn mouse(&mut self, mouse: &MouseEvent, state: &RunState) -> Effect {
        match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) if self.help => {
                self.help = false;
                Effect::Redraw
            }
            MouseEventKind::Down(MouseButton::Left) if mouse.row == 0 => {
                let before = self.view;
                self.view = chrome::tab_at(mouse.column).unwrap_or(before);
                redraw_if(self.view != before)
            }
            MouseEventKind::ScrollUp if self.is_list(state) => self.scroll(-3),
            MouseEventKind::ScrollDown if self.is_list(state) => self.scroll(3),
            MouseEventKind::ScrollUp => self.zoom_to(self.zoom + 1),
            MouseEventKind::ScrollDown => self.zoom_to(self.zoom.saturating_sub(1)),
            _ => Effect::None,
        }
    }

    fn zoom_to(&mut self, zoom: u32) -> Effect {
        let before = self.zoom;
        self.zoom = zoom.min(MAX_ZOOM);
        redraw_if(self.zoom != before)
    }
}

fn redraw_if(changed: bool) -> Effect {
    match changed {
        true => Effect::Redraw,
        false => Effect::None,
    }
}

/// `now` moved by `by` in a ring of `count`.
pub(super) fn wrapped(now: usize, by: i64, count: usize) -> usize {
    (now as i64 + by).rem_euclid(count.max(1) as i64) as usize
}
