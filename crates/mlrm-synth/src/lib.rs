//! A drawn sample set of any size, the same on every machine for the same settings.
//!
//! Every note has a *visual theme* (colour × shape × pattern of its picture, or in the style
//! `photographs` outline × material of what it is a picture of; never named in its text) and a *text theme* (what it is about, never visible in its picture). Users browse by
//! *tastes*: a taste is one visual theme together with one text theme, so notes are related when
//! both agree, and only a model that reads picture and text can rank the related ones first: either
//! alone finds every theme's notes and cannot tell which of them are related. Notes of a text theme
//! share few words (each has many, and a note uses a handful, among words that mean nothing), so
//! that matching words finds some relations and a model that learns which words go together more.

mod browse;
mod material;
mod photograph;
mod picture;
mod random;
mod shape;
mod text;
mod vocabulary;

use std::fs;
use std::path::Path;

use mlrm_config::{SynthSettings, SynthStyle};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use mlrm_data::error::{DataError, Result};
use mlrm_data::interactions::{RawInteraction, write_interactions};
use mlrm_data::notes::{Note, write_notes};
use mlrm_data::{write_file, write_folder};
use random::{Random, Stream};
use vocabulary::VOCABULARY;

/// Raised when the same settings give another set: sets made before are then refused.
const FORMAT: u32 = 1;

/// Notes that share both themes, about: enough that held-out notes find partners.
const NOTES_PER_TASTE: f64 = 9.0;

const STAMP: &str = "synth.json";

/// What `synth.json` says about the set that it lies in.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    format: u32,
    settings: SynthSettings,
}

/// How many themes of either kind a set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Themes {
    visual: usize,
    text: usize,
}

impl Themes {
    fn of(notes: usize, style: SynthStyle) -> Self {
        let most_visual = match style {
            SynthStyle::Drawn => picture::VISUAL_THEMES,
            SynthStyle::Photographs => photograph::VISUAL_THEMES,
        };
        let tastes = notes as f64 / NOTES_PER_TASTE;
        let text = (tastes.sqrt().round() as usize).clamp(2, VOCABULARY.themes.len());
        let visual = (tastes / text as f64).round() as usize;
        Self {
            visual: visual.clamp(2, most_visual),
            text,
        }
    }

    fn tastes(self) -> usize {
        self.visual * self.text
    }
}

/// The two themes of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taste {
    visual: usize,
    text: usize,
}

/// Makes the sample set in `root` unless it is there: `notes.jsonl`, `interactions.csv`,
/// `images/*.png`, `README.md`, and `synth.json` with the settings. Returns whether it was made.
///
/// # Errors
/// A folder that holds anything else, or a set of other settings; nothing is left behind then.
pub fn ensure_synth(root: &Path, settings: &SynthSettings) -> Result<bool> {
    check_settings(settings)?;
    if is_there(root, settings)? {
        return Ok(false);
    }
    match write_folder(root, |folder| fill(folder, settings)) {
        Ok(()) => Ok(true),
        // Another process may have been faster; its set is as good.
        Err(_) if is_there(root, settings).unwrap_or(false) => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_settings(settings: &SynthSettings) -> Result<()> {
    let ranges = [
        ("data.synth.notes", settings.notes, 4, 100_000_000),
        ("data.synth.users", settings.users, 1, 100_000_000),
        (
            "data.synth.events_per_user",
            settings.events_per_user,
            1,
            1_000_000,
        ),
        (
            "data.synth.image_pixels",
            settings.image_pixels as usize,
            8,
            4096,
        ),
    ];
    for (key, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            return Err(DataError::setting(
                key,
                format!("{value} is out of range"),
                format!("set {least} to {most}"),
            ));
        }
    }
    Ok(())
}

fn is_there(root: &Path, settings: &SynthSettings) -> Result<bool> {
    let path = root.join(STAMP);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DataError::io("read", path)(error)),
    };
    let mend = "set `data.root` to another folder, or delete this one";
    let stamp: Stamp = serde_json::from_str(&text)
        .map_err(|error| DataError::file(&path, format!("no sample set: {error}"), mend))?;
    if stamp.settings != *settings {
        let made_with = serde_json::to_string(&stamp.settings).unwrap_or_default();
        return Err(DataError::file(
            root,
            format!("this sample set was made with other settings: {made_with}"),
            mend,
        ));
    }
    if stamp.format != FORMAT {
        return Err(DataError::file(
            root,
            "this sample set was made by another version of mlrm",
            mend,
        ));
    }
    Ok(true)
}

fn fill(folder: &Path, settings: &SynthSettings) -> Result<()> {
    let tastes = assign_tastes(settings);
    let notes: Vec<Note> = tastes
        .par_iter()
        .enumerate()
        .map(|(number, &taste)| note(number, taste, settings.seed))
        .collect();
    write_notes(&folder.join("notes.jsonl"), &notes)?;

    let images = folder.join("images");
    fs::create_dir(&images).map_err(DataError::io("create", &images))?;
    tastes
        .par_iter()
        .enumerate()
        .try_for_each(|(number, taste)| {
            let mut random = Random::new(settings.seed, Stream::Picture, number);
            let draw = match settings.style {
                SynthStyle::Drawn => picture::draw,
                SynthStyle::Photographs => photograph::draw,
            };
            let picture = draw(taste.visual, settings.image_pixels, &mut random);
            let path = images.join(format!("{}.png", id(number)));
            picture.save(&path).map_err(|error| {
                DataError::io("write", &path)(std::io::Error::other(error.to_string()))
            })
        })?;

    let events = browse::log(
        &tastes,
        Themes::of(settings.notes, settings.style),
        settings,
    );
    let users: Vec<String> = (0..settings.users)
        .map(|user| format!("u{user:05}"))
        .collect();
    write_interactions(
        &folder.join("interactions.csv"),
        events.iter().map(|event| RawInteraction {
            user: &users[event.user as usize],
            note: &notes[event.note as usize].id,
            timestamp_seconds: event.timestamp_seconds,
        }),
    )?;
    write_text(&folder.join("README.md"), &readme(settings))?;
    let stamp = Stamp {
        format: FORMAT,
        settings: settings.clone(),
    };
    let stamp = serde_json::to_string_pretty(&stamp).unwrap_or_default();
    write_text(&folder.join(STAMP), &format!("{stamp}\n"))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    write_file(path, |out| std::io::Write::write_all(out, text.as_bytes()))
}

/// Spreads the notes evenly over all tastes, in random order.
fn assign_tastes(settings: &SynthSettings) -> Vec<Taste> {
    let themes = Themes::of(settings.notes, settings.style);
    let mut places: Vec<usize> = (0..settings.notes).collect();
    Random::new(settings.seed, Stream::Tastes, 0).shuffle(&mut places);
    let taste = |place: usize| Taste {
        visual: place % themes.tastes() % themes.visual,
        text: place % themes.tastes() / themes.visual,
    };
    places.into_iter().map(taste).collect()
}

fn id(number: usize) -> String {
    format!("n{number:05}")
}

fn note(number: usize, taste: Taste, seed: u64) -> Note {
    let mut random = Random::new(seed, Stream::Text, number);
    let text = text::write(&VOCABULARY.themes[taste.text], &mut random);
    let mut extra = serde_json::Map::new();
    extra.insert("visual_theme".into(), taste.visual.into());
    extra.insert("text_theme".into(), taste.text.into());
    Note {
        id: id(number),
        title: text.title,
        topics: text.topics,
        content: text.content,
        image: Some(format!("images/{}.png", id(number))),
        category: Some(text.category.into()),
        extra,
    }
}

fn readme(settings: &SynthSettings) -> String {
    let themes = Themes::of(settings.notes, settings.style);
    let SynthSettings {
        notes,
        users,
        events_per_user,
        image_pixels,
        seed,
        style,
    } = settings;
    let look = match style {
        SynthStyle::Drawn => "colour, shape and pattern of its picture",
        SynthStyle::Photographs => "outline and material of what its picture shows",
    };
    format!(
        "# A drawn sample set\n\n\
        Made by `mlrm data synth`; nothing in it was taken from anywhere, and the same settings give\n\
        the same files on every machine. {notes} notes, {users} users with {events_per_user} events \
        each,\npictures of {image_pixels} × {image_pixels} pixels, seed {seed}.\n\n\
        Every note has one of {} visual themes ({look}, never named\n\
        in its text) and one of {} text themes (what it is about, never visible in its picture).\n\
        A taste is one of each. A user has a few tastes and browses mostly notes of one taste at a\n\
        time, so notes are related when both themes agree: neither picture nor text alone tells.\n\n\
        `notes.jsonl` holds the themes in the fields `visual_theme` and `text_theme`, which no prompt\n\
        reads; `category` is the form of the text. `interactions.csv` is the log, `synth.json` the\n\
        settings.\n",
        themes.visual, themes.text
    )
}

#[cfg(test)]
mod tests;
