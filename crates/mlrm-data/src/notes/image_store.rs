//! Where the bytes of pictures come from: a folder, `.tar` shards in it, or one shard.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::error::{DataError, Problem, ProblemKind, Result, shorten};

/// Pictures by key. A key is a relative path below a folder, or the name of an entry of a `.tar`
/// shard: the shard that was opened, or any `*.tar` that lies directly in the folder that was
/// opened. A file of the folder goes before an entry of a shard. Reading needs no lock: any number
/// of threads may share a store.
#[derive(Debug)]
pub struct ImageStore {
    folder: Option<PathBuf>,
    shards: Vec<PathBuf>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    shard: u32,
    offset: u64,
    bytes: u64,
}

/// Where one picture is.
enum Place {
    File(PathBuf, u64),
    Entry(Entry),
}

impl ImageStore {
    /// Opens a folder, or a `.tar` shard, whose entries are listed once.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(DataError::io("read", path))?;
        let mut store = Self {
            folder: None,
            shards: Vec::new(),
            entries: HashMap::new(),
        };
        if !metadata.is_dir() {
            store.index(path)?;
            return Ok(store);
        }
        let mut shards = Vec::new();
        for entry in fs::read_dir(path).map_err(DataError::io("list", path))? {
            let file = entry.map_err(DataError::io("list", path))?.path();
            if file.extension().is_some_and(|ending| ending == "tar") && file.is_file() {
                shards.push(file);
            }
        }
        shards.sort();
        for shard in &shards {
            store.index(shard)?;
        }
        // Without `.` in the middle, which `images = "."` would put into every message.
        store.folder = Some(path.components().collect());
        Ok(store)
    }

    /// Lists the regular files of a shard. As in any tar file, a later entry replaces an earlier
    /// one of its name; two shards must not have the same name.
    fn index(&mut self, path: &Path) -> Result<()> {
        let broken = |error: std::io::Error| {
            DataError::file(
                path,
                format!("no readable tar file: {}", shorten(&error.to_string())),
                "write the shard again, uncompressed",
            )
        };
        let shard = self.shards.len() as u32;
        let file = File::open(path).map_err(DataError::io("read", path))?;
        let file_bytes = file.metadata().map_err(DataError::io("read", path))?.len();
        let mut archive = tar::Archive::new(BufReader::new(file));
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            let place = Entry {
                shard,
                offset: entry.raw_file_position(),
                bytes: entry.size(),
            };
            if place.offset.saturating_add(place.bytes) > file_bytes {
                let reason = format!("`{}` goes past its end", shorten(&name));
                return Err(broken(std::io::Error::other(reason)));
            }
            match self.entries.insert(name.clone(), place) {
                Some(earlier) if earlier.shard != shard => {
                    let other = &self.shards[earlier.shard as usize];
                    return Err(DataError::file(
                        path,
                        format!("`{}` is in `{}` too", shorten(&name), other.display()),
                        "keep every key in one shard",
                    ));
                }
                _ => {}
            }
        }
        self.shards.push(path.to_path_buf());
        Ok(())
    }

    /// All bytes of a picture's file.
    pub fn read(&self, key: &str) -> Result<Vec<u8>> {
        self.read_up_to(key, u64::MAX)
            .map_err(|problem| image_error(key, problem))
    }

    /// Bytes of a picture's file, without reading it.
    pub fn size(&self, key: &str) -> Result<u64> {
        match self
            .find(key)
            .map_err(|problem| image_error(key, problem))?
        {
            Place::File(_, bytes) => Ok(bytes),
            Place::Entry(entry) => Ok(entry.bytes),
        }
    }

    /// As [`read`](Self::read), but files of more bytes than `most` are a problem.
    pub(crate) fn read_up_to(&self, key: &str, most: u64) -> Result<Vec<u8>, Problem> {
        let (path, offset, bytes) = match self.find(key)? {
            Place::File(path, bytes) => (path, 0, bytes),
            Place::Entry(entry) => {
                let shard = &self.shards[entry.shard as usize];
                (shard.clone(), entry.offset, entry.bytes)
            }
        };
        if bytes > most {
            return Err(Problem::new(
                ProblemKind::OversizedImage,
                format!("{bytes} bytes, where at most {most} are allowed"),
                "store a smaller picture, or raise the limit",
            ));
        }
        read_range(&path, offset, bytes).map_err(|error| missing(&path, &error))
    }

    fn find(&self, key: &str) -> Result<Place, Problem> {
        check_key(key)?;
        let key = key.strip_prefix("./").unwrap_or(key);
        if let Some(folder) = &self.folder {
            let path = folder.join(key);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => {
                    return Ok(Place::File(path, metadata.len()));
                }
                Ok(_) => {
                    let reason = std::io::Error::other("it is no regular file");
                    return Err(missing(&path, &reason));
                }
                Err(error) if !self.entries.contains_key(key) => {
                    return Err(missing(&path, &error));
                }
                Err(_) => {}
            }
        }
        let entry = self.entries.get(key).copied();
        entry.map(Place::Entry).ok_or_else(|| {
            Problem::new(
                ProblemKind::MissingImage,
                "no shard has this entry",
                "add the picture, or remove `image` from the note",
            )
        })
    }
}

fn image_error(key: &str, problem: Problem) -> DataError {
    DataError::image(shorten(key), problem.message, problem.mend)
}

fn missing(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        ProblemKind::MissingImage,
        format!("cannot read `{}`: {error}", path.display()),
        "add the picture, or remove `image` from the note",
    )
}

fn read_range(path: &Path, offset: u64, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    // A file that shrinks while it is read must not decide how much memory is reserved.
    let mut content = Vec::with_capacity(bytes.min(1 << 24) as usize);
    file.take(bytes).read_to_end(&mut content)?;
    if (content.len() as u64) < bytes {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(content)
}

/// Refuses keys that are no plain relative path: notes may come from strangers, and a key must not
/// reach files outside the image folder. (Links that the folder itself holds are followed: they
/// are its owner's.)
fn check_key(key: &str) -> Result<(), Problem> {
    let bad = |message: &str| {
        Err(Problem::new(
            ProblemKind::BadImageKey,
            message,
            "write the picture's path relative to the image folder",
        ))
    };
    if key.contains("://") {
        return bad("the key is a URL; pictures are read from disk only");
    }
    if key.is_empty() || key.contains('\0') {
        return bad("the key is no path");
    }
    let plain =
        |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    // A backslash separates folders on Windows only; refusing `..\` everywhere keeps sets portable.
    let climbs = key.split(['/', '\\']).any(|part| part == "..");
    if climbs || !Path::new(key).components().all(plain) {
        return bad("the key leads outside the image folder");
    }
    Ok(())
}
