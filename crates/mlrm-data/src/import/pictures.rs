//! Pictures of the rows: files that are copied or linked, or addresses.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::spec::{ImageSpec, Place};
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};

/// Folder of the pictures beside the notes.
pub(crate) const FOLDER: &str = "images";

/// Finds the pictures of rows and puts them into the new folder.
pub(super) struct Pictures<'a> {
    rules: &'a ImageSpec,
    from: &'a Path,
    folder: &'a Path,
}

/// What was found.
pub(super) enum Search {
    /// The row names none.
    None,
    /// The file that it names is not there: where it was looked for.
    Missing(PathBuf),
    /// A file, under its new key.
    File(String),
    /// An address.
    Url(String),
    /// The row names something that cannot be.
    Wrong(Problem),
}

impl<'a> Pictures<'a> {
    /// Makes the folder of the pictures.
    pub(super) fn new(rules: &'a ImageSpec, from: &'a Path, folder: &'a Path) -> Result<Self> {
        let images = folder.join(FOLDER);
        fs::create_dir(&images).map_err(DataError::io("create", &images))?;
        Ok(Self {
            rules,
            from,
            folder,
        })
    }

    /// The picture of a row, put into its place.
    pub(super) fn find(&mut self, fields: &Map<String, Value>, id: &str) -> Result<Search> {
        let mut none = Search::None;
        if let Some(template) = &self.rules.path {
            match template.whole_if(fields, stays_inside) {
                Err(problem) => return Ok(Search::Wrong(problem)),
                Ok(None) => {}
                Ok(Some(name)) => {
                    if let Some((path, ending)) = self.file(&name) {
                        return self.put(&path, &key(id, &ending)).map(Search::File);
                    }
                    none = Search::Missing(self.from.join(&name));
                }
            }
        }
        for template in &self.rules.url {
            match template.whole(fields) {
                Err(problem) => return Ok(Search::Wrong(problem)),
                Ok(Some(url)) => return Ok(Search::Url(url)),
                Ok(None) => {}
            }
        }
        Ok(none)
    }

    /// The file of a name and its ending.
    fn file(&self, name: &str) -> Option<(PathBuf, String)> {
        let whole = self.from.join(name);
        if self.rules.endings.is_empty() {
            let ending = whole.extension()?.to_str()?.to_owned();
            return whole.is_file().then_some((whole, ending));
        }
        let mut endings = self.rules.endings.iter();
        endings.find_map(|ending| {
            let path = self.from.join(format!("{name}.{ending}"));
            path.is_file().then(|| (path, ending.clone()))
        })
    }

    fn put(&self, path: &Path, key: &str) -> Result<String> {
        let target = self.folder.join(key);
        if self.rules.place == Place::Link && fs::hard_link(path, &target).is_ok() {
            return Ok(key.to_owned());
        }
        fs::copy(path, &target).map_err(DataError::io("copy", path))?;
        Ok(key.to_owned())
    }
}

/// The key of a note's picture: the id, if that is a plain file name.
pub(crate) fn key(id: &str, ending: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name = match id.chars().all(plain) && !id.starts_with('.') && id.len() <= 100 {
        true => id.to_owned(),
        false => format!("h{}", &blake3::hash(id.as_bytes()).to_hex()[..32]),
    };
    format!("{FOLDER}/{name}.{ending}")
}

/// Refuses values of rows that lead out of the folder of the data.
fn stays_inside(value: &str) -> Result<(), Problem> {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if Path::new(value).components().all(normal) && !value.contains(['\\', '\0']) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::BadImageKey,
        format!(
            "the picture `{}` lies outside the folder of the data",
            shorten(value)
        ),
        "name pictures by their path below that folder",
    ))
}
