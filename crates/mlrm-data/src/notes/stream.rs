//! Notes of any number, a part of which is in memory at a time.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use super::{Note, NoteSet, Notices, Place, for_each_note, no_notes, repeated_id};
use crate::error::{DataError, Result};
use crate::files::table_files;

/// The files of notes, each row of which was looked at; of the notes only their number is held.
#[derive(Debug, Clone)]
pub struct NoteFiles {
    path: PathBuf,
    /// Each file, and how many notes are in it.
    files: Vec<(PathBuf, usize)>,
    notices: Vec<String>,
}

impl NoteFiles {
    /// Looks at every row of the files that [`NoteSet::read`] reads. Eight bytes a note are held meanwhile.
    ///
    /// # Errors
    /// As [`NoteSet::read`].
    pub fn survey(path: &Path) -> Result<Self> {
        let mut notices = Notices::default();
        let (mut files, mut hashes) = (Vec::new(), Vec::new());
        for file in table_files(path)? {
            let before = hashes.len();
            let said = each_note(&file, |_, note| {
                hashes.push(hash_of(&note.id));
                Ok(ControlFlow::Continue(()))
            })?;
            notices.add(&file, said);
            files.push((file, hashes.len() - before));
        }
        if hashes.is_empty() {
            return Err(no_notes(path));
        }
        let notices = notices.list(files.len());
        let all = Self {
            path: path.to_path_buf(),
            files,
            notices,
        };
        all.refuse_repeated(hashes)?;
        Ok(all)
    }

    /// Ids whose hashes are the same are looked at again.
    fn refuse_repeated(&self, mut hashes: Vec<u64>) -> Result<()> {
        hashes.sort_unstable();
        let twice = hashes.windows(2).filter(|two| two[0] == two[1]);
        let twice: HashSet<u64> = twice.map(|two| two[0]).collect();
        if twice.is_empty() {
            return Ok(());
        }
        drop(hashes);
        let mut seen: HashMap<String, (usize, u64)> = HashMap::new();
        for (number, (file, _)) in self.files.iter().enumerate() {
            each_note(file, |line, note| {
                if !twice.contains(&hash_of(&note.id)) {
                    return Ok(ControlFlow::Continue(()));
                }
                match seen.insert(note.id.clone(), (number, line)) {
                    None => Ok(ControlFlow::Continue(())),
                    Some((first, first_line)) => {
                        let first = Place {
                            file: &self.files[first].0,
                            line: first_line,
                        };
                        Err(repeated_id(&note.id, &first, &Place { file, line }))
                    }
                }
            })?;
        }
        Ok(())
    }

    /// How many notes there are.
    pub fn len(&self) -> usize {
        self.files.iter().map(|(_, notes)| notes).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the user should know of how the files were read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Hands the notes of these rows to `each`, `part_notes` (at least one) at a time, until it breaks. Files
    /// that end before the first row are not read.
    ///
    /// # Errors
    /// Files that cannot be read, or that have changed since they were looked at.
    pub fn for_each_part(
        &self,
        rows: Range<usize>,
        part_notes: usize,
        mut each: impl FnMut(NoteSet) -> ControlFlow<()>,
    ) -> Result<()> {
        let changed = || {
            DataError::file(
                &self.path,
                "the notes have changed while they were read",
                "begin again once nobody writes them",
            )
        };
        let mut part = Vec::new();
        let mut hand_over = |part: &mut Vec<Note>| -> Result<ControlFlow<()>> {
            let set = NoteSet::new(std::mem::take(part)).map_err(|_| changed())?;
            Ok(each(set))
        };
        let mut row = 0;
        let mut broken = false;
        for (file, notes) in &self.files {
            if row + notes <= rows.start {
                row += notes;
                continue;
            }
            let end = row + notes;
            each_note(file, |_, note| {
                row += 1;
                if row > rows.start {
                    part.push(note);
                }
                if part.len() == part_notes.max(1) || row == rows.end {
                    broken = hand_over(&mut part)?.is_break();
                }
                Ok(match broken || row == rows.end {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            })?;
            if broken || row == rows.end {
                return Ok(());
            }
            if row != end {
                return Err(changed());
            }
        }
        Err(changed())
    }
}

/// Hands every note of a file to `each`, with its line, until it breaks; what the user should know of the file.
fn each_note(
    file: &Path,
    mut each: impl FnMut(u64, Note) -> Result<ControlFlow<()>>,
) -> Result<Vec<String>> {
    let mut failed = None;
    let said = for_each_note(file, |line, note| {
        let note = note.map_err(|problem| problem.at(file, line));
        match note.and_then(|note| each(line, note)) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(said), Err)
}

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn parts_are_those_of_the_whole_set_wherever_files_and_parts_end() {
        let home = tempfile::tempdir().unwrap();
        for (file, ids) in [("a", 0..7), ("b", 7..7), ("c", 7..8), ("d", 8..20)] {
            let lines: String = ids.map(|id| format!("{{\"id\":\"{id}\"}}\n")).collect();
            fs::write(home.path().join(format!("{file}.jsonl")), lines).unwrap();
        }
        let whole = NoteSet::read(home.path()).unwrap();
        let files = NoteFiles::survey(home.path()).unwrap();
        assert_eq!((files.len(), whole.len()), (20, 20));
        for rows in [0..20, 0..1, 6..8, 7..20, 19..20, 3..11] {
            for part_notes in [1, 3, 7, 50] {
                let mut parts = Vec::new();
                files
                    .for_each_part(rows.clone(), part_notes, |part| {
                        parts.push(part.rows().to_vec());
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                let expected = whole.rows()[rows.clone()].chunks(part_notes);
                let expected: Vec<Vec<Note>> = expected.map(<[Note]>::to_vec).collect();
                assert_eq!(parts, expected);
            }
        }
        // It is heard when nobody wants more, and when a file is another one.
        let mut parts = 0;
        let once = |_| {
            parts += 1;
            ControlFlow::Break(())
        };
        files.for_each_part(0..20, 3, once).unwrap();
        assert_eq!(parts, 1);
        fs::write(home.path().join("d.jsonl"), "{\"id\":\"8\"}\n").unwrap();
        let read = |rows| {
            files
                .for_each_part(rows, 3, |_| ControlFlow::Continue(()))
                .map_err(|error| error.to_string())
        };
        assert!(read(0..8).is_ok());
        assert!(read(0..20).unwrap_err().contains("have changed"));
    }

    #[test]
    fn what_a_set_refuses_is_refused_with_the_same_words() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        let message = |result: Result<()>| result.unwrap_err().to_string();
        for (name, files) in [
            (
                "twice in one",
                [("a.jsonl", "{\"id\":1}\n{\"id\":2}\n{\"id\":\"1\"}\n")].as_slice(),
            ),
            (
                "twice in two",
                &[
                    ("a.jsonl", "{\"id\":1}\n{\"id\":2}\n"),
                    ("b.csv", "id,title\n3,x\n2,y\n"),
                ],
            ),
            ("no note", &[("a.jsonl", "{\"id\":1}\n{\"title\":\"x\"}\n")]),
            ("none", &[("a.jsonl", "\n")]),
        ] {
            let folder = path.join(name);
            fs::create_dir(&folder).unwrap();
            for (file, text) in files {
                fs::write(folder.join(file), text).unwrap();
            }
            assert_eq!(
                message(NoteFiles::survey(&folder).map(drop)),
                message(NoteSet::read(&folder).map(drop)),
                "{name}"
            );
        }
    }
}
