//! What a watch remembers.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What was seen and told so far: a part of a checkpoint, so that a run which goes on warns as one that
/// was not stopped.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Watched {
    /// Loss of each of the last two windows' steps, and that of chance.
    pub(super) losses: VecDeque<(f64, f64)>,
    pub(super) chance: Alarm,
    pub(super) collapse: Alarm,
    pub(super) temperature: Alarm,
    pub(super) picture: Alarm,
}

/// Whether a cause is there, and whether it was told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Alarm {
    seen: usize,
    pub(super) told: bool,
}

impl Alarm {
    /// `on`: the cause is there; `off`: it is over; it stands at neither between. True where it is to be
    /// told now: seen `needed` times in a row and not told since it was over.
    pub(super) fn rings(&mut self, on: bool, off: bool, needed: usize) -> bool {
        self.seen = if on { self.seen + 1 } else { 0 };
        if off {
            self.told = false;
        }
        let rings = self.seen >= needed && !self.told;
        self.told |= rings;
        rings
    }
}
