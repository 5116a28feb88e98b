//! What is on the screen: a run, or all runs of a sweep.

use ratatui::Frame;
use ratatui::crossterm::event::Event;

use super::app::App;
use super::input::Effect;
use super::sweep::SweepApp;
use crate::follow::FollowedRun;

pub(super) enum Content {
    Run(Box<(FollowedRun, App)>),
    Sweep(Vec<FollowedRun>, Box<SweepApp>),
}

impl Content {
    /// Folds what has come in; whether the screen is to be drawn again.
    pub(super) fn poll(&mut self) -> bool {
        let (runs, app) = match self {
            Self::Run(run) => (std::slice::from_mut(&mut run.0), &mut run.1),
            Self::Sweep(runs, app) => (runs.as_mut_slice(), app.app_mut()),
        };
        let mut changed = false;
        for run in runs {
            changed |= run.poll();
            if let Some(problem) = run.take_problem() {
                changed |= app.tell(problem);
            }
        }
        changed
    }

    pub(super) fn draw(&mut self, frame: &mut Frame, now: f64) {
        match self {
            Self::Run(run) => run.1.draw(frame, &run.0.state, now),
            Self::Sweep(runs, app) => app.draw(frame, runs, now),
        }
    }

    pub(super) fn handle(&mut self, event: &Event) -> Effect {
        match self {
            Self::Run(run) => run.1.handle(event, &run.0.state),
            Self::Sweep(runs, app) => app.handle(event, runs),
        }
    }

    /// Whether the time of day is a part of what is shown.
    pub(super) fn is_live(&self) -> bool {
        match self {
            Self::Run(run) => run.0.state.ended.is_none(),
            Self::Sweep(runs, _) => runs.iter().any(|run| run.state.ended.is_none()),
        }
    }

    /// Shows a message until the next key.
    pub(super) fn tell(&mut self, message: String) {
        match self {
            Self::Run(run) => run.1.tell(message),
            Self::Sweep(_, app) => app.app_mut().tell(message),
        };
    }
}
