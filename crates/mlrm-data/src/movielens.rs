//! The official MovieLens files → notes and log.
//!
//! `movies.dat` has a line `MovieID::Title (Year)::Genre|Genre` a film, `ratings.dat` a line
//! `UserID::MovieID::Rating::Timestamp` a rating; both are Latin-1. Posters are files named by film
//! id in one folder. Plots are lines `MovieID::plot`, or JSON Lines with `id` and `plot` when the
//! name ends in `.jsonl`. A film becomes a note (title with year; genres as topics; plot as content;
//! first genre as category), a rating a view, whatever its stars.
//!
//! MovieLens data is for research use and may not be redistributed without permission.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::{DataError, Result, shorten};
use crate::interactions::{Interactions, RawInteraction, write_interactions};
use crate::notes::{Note, write_notes};
use crate::write::{write_file, write_folder};

/// Endings of posters, tried in this order.
const POSTER_ENDINGS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "JPG"];

const README: &str = "# MovieLens in the note format\n\n\
    Made by `mlrm data movielens` from the official files of GroupLens (and posters and plots given\n\
    beside them). For research use; may not be redistributed without permission of the owners.\n";

/// The files to convert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovieLens {
    /// `movies.dat`.
    pub movies: PathBuf,
    /// `ratings.dat`.
    pub ratings: PathBuf,
    /// Folder of posters, named by film id.
    pub posters: Option<PathBuf>,
    /// Plots: `id::plot` lines, or JSON Lines with `id` and `plot`.
    pub plots: Option<PathBuf>,
}

/// What was converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MovieLensSummary {
    /// Films.
    pub notes: u64,
    /// Films with a poster.
    pub posters: u64,
    /// Films with a plot.
    pub plots: u64,
    /// Users.
    pub users: u64,
    /// Ratings.
    pub interactions: u64,
}

/// Converts into the new folder `out`: `notes.jsonl`, `interactions.csv` and `images/`. It appears
/// whole or not at all.
///
/// # Errors
/// The first line that is not of the format; ratings of unknown films; films that occur twice.
pub fn convert(source: &MovieLens, out: &Path) -> Result<MovieLensSummary> {
    let mut notes = read_movies(&source.movies)?;
    if let Some(path) = &source.plots {
        let mut plots = read_plots(path)?;
        for note in &mut notes {
            note.content = plots.remove(&note.id).unwrap_or_default();
        }
    }
    let log = read_ratings(&source.ratings, &notes)?;
    write_folder(out, |folder| {
        if let Some(posters) = &source.posters {
            copy_posters(posters, &mut notes, folder)?;
        }
        write_notes(&folder.join("notes.jsonl"), &notes)?;
        write_interactions(
            &folder.join("interactions.csv"),
            log.events.iter().map(|event| RawInteraction {
                user: &log.users[event.user],
                note: &log.notes[event.note],
                timestamp_seconds: event.timestamp_seconds,
            }),
        )?;
        write_file(&folder.join("README.md"), |file| {
            std::io::Write::write_all(file, README.as_bytes())
        })
    })?;
    let count = |has: fn(&Note) -> bool| notes.iter().filter(|note| has(note)).count() as u64;
    Ok(MovieLensSummary {
        notes: notes.len() as u64,
        posters: count(|note| note.image.is_some()),
        plots: count(|note| !note.content.is_empty()),
        users: log.users.len() as u64,
        interactions: log.events.len() as u64,
    })
}

/// The lines of a file with their numbers, blank ones left out.
fn lines(path: &Path, decode: fn(&[u8]) -> String) -> Result<Vec<(u64, String)>> {
    let bytes = fs::read(path).map_err(DataError::io("read", path))?;
    let lines = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    let lines = lines.map(|(row, line)| (row, decode(line).trim_end_matches('\r').to_owned()));
    Ok(lines.filter(|(_, line)| !line.trim().is_empty()).collect())
}

/// Latin-1: every byte is the code point of its value.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// UTF-8, or Latin-1 where it is none: plots circulate in both.
fn utf8_or_latin1(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| latin1(bytes), str::to_owned)
}

fn read_movies(path: &Path) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let mut seen = HashSet::new();
    for (row, line) in lines(path, latin1)? {
        // A title may hold the separator; id and genres do not.
        let parts = line.split_once("::").and_then(|(id, rest)| {
            let (title, genres) = rest.rsplit_once("::")?;
            Some((id.trim(), title.trim(), genres.trim()))
        });
        let Some((id, title, genres)) = parts.filter(|(id, _, _)| !id.is_empty()) else {
            return Err(DataError::row(
                path,
                row,
                format!("`{}` is no film", shorten(&line)),
                "give the official movies.dat: MovieID::Title (Year)::Genre|Genre",
            ));
        };
        if !seen.insert(id.to_owned()) {
            return Err(DataError::row(
                path,
                row,
                format!("the film `{}` occurs twice", shorten(id)),
                "delete one of its lines",
            ));
        }
        let genres = genres.split('|').filter(|genre| !genre.is_empty());
        let topics: Vec<String> = genres
            .filter(|genre| *genre != "(no genres listed)")
            .map(str::to_owned)
            .collect();
        notes.push(Note {
            id: id.to_owned(),
            title: title.to_owned(),
            category: topics.first().cloned(),
            topics,
            ..Note::default()
        });
    }
    Ok(notes)
}

fn read_ratings(path: &Path, notes: &[Note]) -> Result<Interactions> {
    let ids: HashSet<&str> = notes.iter().map(|note| note.id.as_str()).collect();
    let mut log = Interactions::default();
    for (row, line) in lines(path, latin1)? {
        let fields: Vec<&str> = line.split("::").map(str::trim).collect();
        let time = match fields[..] {
            [user, movie, _, time] if !user.is_empty() && !movie.is_empty() => time.parse().ok(),
            _ => None,
        };
        let Some(time) = time.filter(|time| *time >= 0) else {
            return Err(DataError::row(
                path,
                row,
                format!("`{}` is no rating", shorten(&line)),
                "give the official ratings.dat: UserID::MovieID::Rating::Timestamp",
            ));
        };
        if !ids.contains(fields[1]) {
            return Err(DataError::row(
                path,
                row,
                format!("no film has the id `{}`", shorten(fields[1])),
                "give the movies.dat of the same release",
            ));
        }
        log.push(fields[0], fields[1], time);
    }
    Ok(log)
}

fn read_plots(path: &Path) -> Result<HashMap<String, String>> {
    let json = path.extension().is_some_and(|ending| ending == "jsonl");
    let mut plots = HashMap::new();
    for (row, line) in lines(path, utf8_or_latin1)? {
        let plot = match json {
            true => json_plot(&line),
            false => line
                .split_once("::")
                .map(|(id, plot)| (id.trim().to_owned(), plot.trim().to_owned())),
        };
        let Some((id, plot)) = plot else {
            return Err(DataError::row(
                path,
                row,
                format!("`{}` is no plot", shorten(&line)),
                "write MovieID::plot, or {\"id\": …, \"plot\": …} in a .jsonl file",
            ));
        };
        plots.insert(id, plot);
    }
    Ok(plots)
}

fn json_plot(line: &str) -> Option<(String, String)> {
    let object: Value = serde_json::from_str(line).ok()?;
    let id = match object.get("id")? {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    Some((id, object.get("plot")?.as_str()?.to_owned()))
}

fn copy_posters(posters: &Path, notes: &mut [Note], folder: &Path) -> Result<()> {
    // A wrong folder should not pass for one in which every poster is missing.
    fs::read_dir(posters).map_err(DataError::io("list", posters))?;
    let images = folder.join("images");
    fs::create_dir(&images).map_err(DataError::io("create", &images))?;
    for note in notes {
        // Ids come from a file: only plain ones name a poster.
        if !note.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            continue;
        }
        for ending in POSTER_ENDINGS {
            let name = format!("{}.{ending}", note.id);
            let poster = posters.join(&name);
            if poster.is_file() {
                fs::copy(&poster, images.join(&name)).map_err(DataError::io("copy", &poster))?;
                note.image = Some(format!("images/{name}"));
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::NoteSet;

    fn write(home: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = home.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn source(home: &Path) -> MovieLens {
        fs::create_dir_all(home.join("posters")).unwrap();
        write(home, "posters/1.jpg", "one");
        write(home, "posters/3.png", "three");
        write(home, "posters/9.jpg", "no such film");
        let movies = b"1::Caf\xe9 (1995)::Animation|Comedy\r\n2::A::B (1996)::(no genres listed)\n3::C (2000)::Drama\n";
        MovieLens {
            movies: write(home, "movies.dat", movies),
            ratings: write(
                home,
                "ratings.dat",
                "7::1::5::978300760\n7::3::1::978300761\n8::1::2::0\n",
            ),
            posters: Some(home.join("posters")),
            plots: Some(write(
                home,
                "plots.dat",
                "1::Two :: colons\n4::unknown film\n",
            )),
        }
    }

    #[test]
    fn films_become_notes_and_ratings_views() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        let summary = convert(&source(home.path()), &out).unwrap();
        let wanted = MovieLensSummary {
            notes: 3,
            posters: 2,
            plots: 1,
            users: 2,
            interactions: 3,
        };
        assert_eq!(summary, wanted);
        let notes = NoteSet::read(&out.join("notes.jsonl")).unwrap();
        let cafe = notes.get("1").unwrap();
        assert_eq!(cafe.title, "Café (1995)");
        assert_eq!(cafe.topics, ["Animation", "Comedy"]);
        assert_eq!(cafe.content, "Two :: colons");
        assert_eq!(cafe.category.as_deref(), Some("Animation"));
        assert_eq!(cafe.image.as_deref(), Some("images/1.jpg"));
        let plain = notes.get("2").unwrap();
        assert_eq!(
            (plain.title.as_str(), plain.image.as_ref()),
            ("A::B (1996)", None)
        );
        assert!(plain.topics.is_empty());
        assert_eq!(fs::read(out.join("images/3.png")).unwrap(), b"three");
        assert_eq!(fs::read_dir(out.join("images")).unwrap().count(), 2);
        let log = fs::read_to_string(out.join("interactions.csv")).unwrap();
        assert_eq!(
            log,
            "user_id,note_id,timestamp\n7,1,978300760\n7,3,978300761\n8,1,0\n"
        );
    }

    #[test]
    fn plots_may_be_json_lines() {
        let home = tempfile::tempdir().unwrap();
        let plots = "{\"id\": 1, \"plot\": \"é\"}\n{\"id\": \"3\", \"plot\": \"x\"}\n";
        let source = MovieLens {
            plots: Some(write(home.path(), "plots.jsonl", plots)),
            ..source(home.path())
        };
        let out = home.path().join("out");
        assert_eq!(convert(&source, &out).unwrap().plots, 2);
        assert_eq!(
            NoteSet::read(&out.join("notes.jsonl"))
                .unwrap()
                .get("1")
                .unwrap()
                .content,
            "é"
        );
    }

    #[test]
    fn wrong_lines_are_named_and_nothing_is_left_behind() {
        let home = tempfile::tempdir().unwrap();
        for (name, content, wanted) in [
            (
                "movies.dat",
                "1::A::x\n\n2,B,y\n",
                "movies.dat:3: `2,B,y` is no film",
            ),
            (
                "movies.dat",
                "1::A::x\n1::B::y\n",
                "movies.dat:2: the film `1` occurs twice",
            ),
            (
                "ratings.dat",
                "7::1::5\n",
                "ratings.dat:1: `7::1::5` is no rating",
            ),
            (
                "ratings.dat",
                "7::1::5::x\n",
                "ratings.dat:1: `7::1::5::x` is no rating",
            ),
            (
                "ratings.dat",
                "7::1::5::1\n7::99::5::1\n",
                "ratings.dat:2: no film has the id `99`",
            ),
            (
                "plots.dat",
                "no plot\n",
                "plots.dat:1: `no plot` is no plot",
            ),
        ] {
            let source = source(home.path());
            write(home.path(), name, content);
            let out = home.path().join("out");
            let message = convert(&source, &out).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
            assert!(!out.exists());
        }
        let source = MovieLens {
            posters: Some(home.path().join("none")),
            ..source(home.path())
        };
        let message = convert(&source, &home.path().join("out"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("cannot list"), "{message}");
        assert!(!home.path().join("out").exists());
    }

    #[test]
    fn no_bytes_make_the_readers_panic() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        proptest::proptest!(|(bytes: Vec<u8>, text in "[:0-9|.\\{\\}\"a-z\n]{0,40}")| {
            for content in [&bytes, text.as_bytes()] {
                for name in ["movies.dat", "ratings.dat", "plots.dat"] {
                    let source = source(home.path());
                    write(home.path(), name, content);
                    let _ = convert(&source, &out);
                    let _ = fs::remove_dir_all(&out);
                }
            }
        });
    }
}
