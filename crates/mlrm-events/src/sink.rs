//! Where events go.

use std::io;
use std::sync::mpsc::Sender;

use crate::event::Event;
use crate::line::Stamped;

/// Something that takes events: the log, a channel to the dashboard, a TensorBoard writer.
pub trait EventSink {
    /// Takes one event.
    ///
    /// # Errors
    ///
    /// The event could not be kept; the message says where.
    fn emit(&mut self, event: &Stamped) -> io::Result<()>;

    /// Stamps `event` with the current time and takes it.
    ///
    /// # Errors
    ///
    /// As [`EventSink::emit`].
    fn emit_now(&mut self, event: Event) -> io::Result<()> {
        self.emit(&Stamped::now(event))
    }

    /// Tells a person what the run is at between two events. It is not kept: the default does
    /// nothing.
    fn say(&mut self, _line: &str) {}
}

/// A subscriber in the same process. It never blocks, and a subscriber that has gone (a closed
/// screen) is no error: nothing is lost, the log has every event.
impl EventSink for Sender<Stamped> {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        let _gone = self.send(event.clone());
        Ok(())
    }
}

impl<T: EventSink + ?Sized> EventSink for Box<T> {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        (**self).emit(event)
    }

    fn say(&mut self, line: &str) {
        (**self).say(line);
    }
}
