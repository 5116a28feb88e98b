//! What is asked of a run while it trains.

use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use mlrm_events::{Action, Control, Event};

use super::Trainer;
use crate::error::TrainError;

impl Trainer<'_> {
    /// Does what was asked for since the last step; waits here while paused.
    pub(super) fn take_requests(&mut self) -> Result<(), TrainError> {
        let mut paused = None;
        loop {
            let action = match self.requests.try_recv() {
                Ok(action) => action,
                Err(TryRecvError::Empty) if paused.is_some() => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                Err(_) => return Ok(()),
            };
            let step = self.state.step as u64;
            self.emit(Event::Control(Control { step, action }))?;
            match action {
                Action::Pause => paused = paused.or_else(|| Some(Instant::now())),
                Action::Resume => {
                    self.begun += paused.take().map_or(Duration::ZERO, |at| at.elapsed());
                }
                Action::Save => self.save("requested")?,
                Action::Stop => {
                    self.stopping = true;
                    return Ok(());
                }
                Action::Other => {}
            }
        }
    }
}
