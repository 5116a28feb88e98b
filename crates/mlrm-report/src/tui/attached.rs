//! The dashboard of a training in this process, and what is left once a person has closed it.

use std::io;
use std::sync::mpsc::{self, Sender};

use mlrm_events::Stamped;

use super::dashboard::{Dashboard, DashboardHandle, Options, Outcome};
use crate::follow::Source;

/// The dashboard of a training in this process, as long as nobody has closed it.
#[derive(Default)]
pub struct Attached(Option<(DashboardHandle, Sender<Stamped>)>);

impl Attached {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// As [`Dashboard::spawn`].
    pub fn open(options: Options) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel();
        let handle = Dashboard::spawn(Source::Channel(receiver), options)?;
        Ok(Self(Some((handle, events))))
    }

    /// Whether there was a dashboard at the newest event.
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Shows an event; `false` where there is no dashboard (any more), so that it must be told otherwise. Why one
    /// ended of itself is said on standard error.
    pub fn show(&mut self, event: &Stamped) -> bool {
        if let Some((handle, events)) = &mut self.0
            && handle.is_open()
        {
            let _closing = events.send(event.clone());
            return true;
        }
        if let Err(error) = self.close() {
            eprintln!("the dashboard ended: {error}");
        }
        false
    }

    /// Closes the dashboard, where there is one.
    ///
    /// # Errors
    /// The terminal failed while it was open.
    pub fn close(&mut self) -> io::Result<Outcome> {
        match self.0.take() {
            Some((handle, _)) => handle.close(),
            None => Ok(Outcome::Finished),
        }
    }

    /// Waits until a person closes the dashboard, where there is one.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub fn wait(&mut self) -> io::Result<Outcome> {
        match self.0.take() {
            Some((handle, _)) => handle.wait(),
            None => Ok(Outcome::Finished),
        }
    }
}
