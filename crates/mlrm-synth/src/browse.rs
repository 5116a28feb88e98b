//! What users see: sessions, each of one taste, with some noise.

use mlrm_config::SynthSettings;
use rayon::prelude::*;

use super::random::{Random, Stream};
use super::{Taste, Themes};
use mlrm_data::interactions::Interaction;

/// 2024-01-01, 00:00 UTC.
const START_SECONDS: i64 = 1_704_067_200;
const SECONDS_PER_DAY: i64 = 86_400;
/// Sessions of one user lie in this many days: mostly further apart than a window of a week.
const DAYS: i64 = 90;
const TASTES_PER_USER: usize = 2;
const EVENTS_PER_SESSION: usize = 6;
/// Chances that an event is not of the session's taste, but of one of its themes, or of none.
const OTHER_TEXT: f64 = 0.06;
const OTHER_VISUAL: f64 = 0.06;
const ANYTHING: f64 = 0.06;

/// The notes of every taste, and of every theme.
struct Shelves {
    tastes: Vec<Vec<u32>>,
    visual: Vec<Vec<u32>>,
    text: Vec<Vec<u32>>,
    themes: Themes,
    notes: usize,
}

impl Shelves {
    fn new(tastes: &[Taste], themes: Themes) -> Self {
        let mut shelves = Self {
            tastes: vec![Vec::new(); themes.tastes()],
            visual: vec![Vec::new(); themes.visual],
            text: vec![Vec::new(); themes.text],
            themes,
            notes: tastes.len(),
        };
        for (note, taste) in (0..).zip(tastes) {
            shelves.tastes[taste.text * themes.visual + taste.visual].push(note);
            shelves.visual[taste.visual].push(note);
            shelves.text[taste.text].push(note);
        }
        shelves
    }

    /// The next note of a session.
    fn pick(&self, taste: usize, random: &mut Random) -> u32 {
        let visual = &self.visual[taste % self.themes.visual];
        let text = &self.text[taste / self.themes.visual];
        let chance = random.unit();
        let shelf = match chance {
            chance if chance < OTHER_TEXT => visual,
            chance if chance < OTHER_TEXT + OTHER_VISUAL => text,
            chance if chance < OTHER_TEXT + OTHER_VISUAL + ANYTHING => {
                return random.below(self.notes) as u32;
            }
            _ => &self.tastes[taste],
        };
        match shelf.is_empty() {
            true => random.below(self.notes) as u32,
            false => *random.pick(shelf),
        }
    }
}

/// The log of all users, by time.
pub(super) fn log(tastes: &[Taste], themes: Themes, settings: &SynthSettings) -> Vec<Interaction> {
    let shelves = Shelves::new(tastes, themes);
    let mut events: Vec<Interaction> = (0..settings.users)
        .into_par_iter()
        .flat_map_iter(|user| browse(user, &shelves, settings))
        .collect();
    events.par_sort_by_key(|event| (event.timestamp_seconds, event.user));
    events
}

fn browse(user: usize, shelves: &Shelves, settings: &SynthSettings) -> Vec<Interaction> {
    let mut random = Random::new(settings.seed, Stream::User, user);
    let mut tastes = [0; TASTES_PER_USER];
    for taste in &mut tastes {
        // With few notes some tastes have none.
        *taste = loop {
            let taste = random.below(shelves.themes.tastes());
            if !shelves.tastes[taste].is_empty() {
                break taste;
            }
        };
    }
    let mut events = Vec::with_capacity(settings.events_per_user);
    while events.len() < settings.events_per_user {
        let taste = *random.pick(&tastes);
        let day = random.below(DAYS as usize) as i64;
        let mut time = START_SECONDS + day * SECONDS_PER_DAY + random.below(80_000) as i64;
        let session = EVENTS_PER_SESSION.min(settings.events_per_user - events.len());
        let mut last = None;
        for _ in 0..session {
            let mut note = shelves.pick(taste, &mut random);
            if last == Some(note) {
                note = shelves.pick(taste, &mut random);
            }
            last = Some(note);
            events.push(Interaction {
                user: user as u32,
                note,
                timestamp_seconds: time,
            });
            time += 20 + random.below(600) as i64;
        }
    }
    events
}
