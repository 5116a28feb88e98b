//! Parts of a long `mlrm embed`, kept beside the result until the whole is there.
//!
//! A part is the embedding file `OUT.part-N-JOB-SUM.safetensors`. JOB is a hash of all that the
//! numbers depend on, SUM one of the file itself, so that a part of another model, of changed notes
//! or pictures, or one that was damaged is never taken.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use miette::{IntoDiagnostic, WrapErr};
use mlrm_data::notes::{FailedPicture, ImageStore, picture_shards};
use mlrm_eval::{EmbeddingSet, Numbers, read_embeddings, write_embeddings};
use mlrm_files::folder_of;

use super::failed::{read_failed, write_failed};

/// Letters of a hash in a file's name: 64 bits, against accidents and not against forgers.
const HASH_LETTERS: usize = 16;

/// Stands for the sum while a part is written: its writer was killed, or is at it.
const UNSEALED: &str = "unsealed";

/// Collects the content of files under one hash.
pub struct Content(blake3::Hasher);

impl Content {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// Adds the content of a file, or of every file below a folder with its place there.
    pub fn add(&mut self, path: &Path) -> miette::Result<()> {
        if !path.is_dir() {
            let sum = hash_of(path).into_diagnostic();
            let sum = sum.wrap_err_with(|| format!("cannot read {}", path.display()))?;
            self.0.update(sum.as_bytes());
            return Ok(());
        }
        for entry in entries_of(path)? {
            self.text(&entry.file_name().to_string_lossy());
            self.add(&entry.path())?;
        }
        Ok(())
    }

    /// Adds the pictures `keys` of a folder or shard: their files and the shards of the folder, by
    /// [`Content::look`].
    pub fn pictures<'a>(
        &mut self,
        store: &ImageStore,
        images: &Path,
        keys: impl Iterator<Item = &'a str>,
    ) -> miette::Result<()> {
        let keys: Vec<&str> = keys.collect();
        if let Some(listing) = store.listing(&keys) {
            self.text(&listing);
            return Ok(());
        }
        let shards = picture_shards(images).map_err(mlrm_train::TrainError::from)?;
        shards.iter().for_each(|shard| self.look(shard));
        if images.is_dir() {
            keys.iter().for_each(|key| self.look(&images.join(key)));
        }
        Ok(())
    }

    /// Adds name, size and time of the last change of a file: what a look without reading tells. One
    /// that cannot be looked at counts as such; reading it will say more.
    fn look(&mut self, path: &Path) {
        self.text(&path.to_string_lossy());
        let Ok(seen) = fs::metadata(path) else {
            self.text("not seen");
            return;
        };
        let changed = seen.modified().ok();
        let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.text(&format!("{} {changed:?}", seen.len()));
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        // The length first, so that no two lists of texts are the same bytes.
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// The hash, in hexadecimal.
    pub fn hash(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// What a folder holds, by name.
fn entries_of(folder: &Path) -> miette::Result<Vec<fs::DirEntry>> {
    let listed = fs::read_dir(folder)
        .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
        .into_diagnostic();
    let mut entries = listed.wrap_err_with(|| format!("cannot list {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

fn short(hash: blake3::Hash) -> String {
    let mut name = hash.to_hex().to_string();
    name.truncate(HASH_LETTERS);
    name
}

/// The hash of what a file holds.
pub fn hash_of(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(hasher.finalize())
}

/// The parts of one result.
pub struct Parts {
    folder: PathBuf,
    /// `OUT.part-`
    prefix: String,
    /// All that the numbers depend on but the pictures.
    job: String,
}

/// What the name of a part says.
struct PartFile {
    path: PathBuf,
    number: usize,
    job: String,
    sum: String,
}

/// What was kept of a part.
pub enum Kept {
    /// It is there, whole and of this job.
    Whole(PathBuf, Vec<FailedPicture>),
    /// There is none.
    Nothing,
    /// There is one that is not taken, and why.
    Refused(PathBuf, &'static str),
}

impl Parts {
    /// The parts of the result `out`, for the job of which `job` says all that its numbers depend on but the
    /// pictures, which each part has its own of.
    pub fn of(out: &Path, job: &str) -> Self {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        Self {
            folder: folder_of(out).to_owned(),
            prefix: format!("{name}.part-"),
            job: job.to_owned(),
        }
    }

    /// The job of a part with these pictures.
    fn job(&self, pictures: Option<&str>) -> String {
        let mut job = Content::new();
        job.text(&self.job);
        job.text(pictures.unwrap_or("none"));
        short(job.0.finalize())
    }

    /// The list of what could not be read of part `number` of a job.
    fn failed_path(&self, number: usize, job: &str) -> PathBuf {
        let name = format!("{}{number}-{job}.failed.jsonl", self.prefix);
        self.folder.join(name)
    }

    /// Every file that is a part of this result.
    fn files(&self) -> Vec<PartFile> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let middle = name
                    .strip_prefix(&self.prefix)?
                    .strip_suffix(".safetensors")?;
                let mut words = middle.split('-');
                let number = words.next()?.parse().ok()?;
                Some(PartFile {
                    path: entry.path(),
                    number,
                    job: words.next()?.to_owned(),
                    sum: words.next()?.to_owned(),
                })
            })
            .collect()
    }

    /// Part `number`, which should hold the notes `ids`, with these pictures.
    pub fn kept(&self, number: usize, pictures: Option<&str>, ids: &[&str]) -> Kept {
        let own = self.job(pictures);
        let mut found = Kept::Nothing;
        let of_number = |file: &PartFile| file.number == number && file.sum != UNSEALED;
        for PartFile { path, job, sum, .. } in self.files().into_iter().filter(of_number) {
            if job != own {
                let why = "it is of another model, other notes, pictures or options";
                found = Kept::Refused(path, why);
            } else if hash_of(&path).map(short).ok().as_ref() != Some(&sum) {
                found = Kept::Refused(path, "it is damaged");
            } else {
                match (
                    read_embeddings(&path),
                    read_failed(&self.failed_path(number, &own)),
                ) {
                    (Ok(set), Ok(failed)) if set.multimodal().ids().iter().eq(ids) => {
                        return Kept::Whole(path, failed);
                    }
                    _ => found = Kept::Refused(path, "it does not hold these notes"),
                }
            }
        }
        found
    }

    /// Keeps part `number`, with the pictures that could not be read when it was computed, and tells where. Its
    /// name, and so the part, is there once all of it is written.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn keep(
        &self,
        number: usize,
        pictures: Option<&str>,
        set: &EmbeddingSet,
        failed: &[FailedPicture],
    ) -> miette::Result<PathBuf> {
        let job = self.job(pictures);
        write_failed(&self.failed_path(number, &job), failed)?;
        let stem = format!("{}{number}-{job}", self.prefix);
        let written = self.folder.join(format!("{stem}-{UNSEALED}.safetensors"));
        write_embeddings(&written, set, Numbers::F32).map_err(mlrm_train::TrainError::from)?;
        let seal = || {
            let sum = short(hash_of(&written)?);
            let sealed = self.folder.join(format!("{stem}-{sum}.safetensors"));
            mlrm_files::place(&written, &sealed)?;
            Ok::<_, io::Error>(sealed)
        };
        seal()
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot keep {}", written.display()))
    }

    /// Removes every part, once the whole is there. One that cannot be removed does no harm: it is
    /// taken only for the same job.
    pub fn clear(&self) {
        for file in self.files() {
            let _left = fs::remove_file(file.path);
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&self.prefix) && name.ends_with(".failed.jsonl") {
                let _left = fs::remove_file(entry.path());
            }
        }
    }
}
