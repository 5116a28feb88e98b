//! The corpus that is embedded, a few parts of which are in memory at a time.

use std::iter::Empty;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use miette::miette;
use mlrm_config::DataSettings;
use mlrm_data::loader::Ahead;
use mlrm_data::notes::{ImageStore, NoteFiles, NoteSet};
use mlrm_train::TrainError;
use mlrm_train::corpus::Notes;

use super::parts::Content;
use super::{EmbedArgs, Shard};
use crate::commands::model_source::picture_progress;

/// Parts that are read before they are asked for.
const READY: usize = 1;

/// The notes of a shard, and where their pictures are.
pub struct Corpus {
    pub files: NoteFiles,
    /// Those of the shard.
    pub rows: Range<usize>,
    pub settings: DataSettings,
    part_notes: usize,
    images: Option<Arc<ImageStore>>,
    /// Whether nobody has said what becomes of pictures that are missing.
    by_default: bool,
}

/// Neighbouring notes that are embedded together.
pub struct CorpusPart {
    /// Its number in the shard.
    pub number: usize,
    /// Its rows; notes that are left out have one.
    pub rows: usize,
    /// Hash of names, sizes and times of its pictures, where any are looked at.
    pub pictures: Option<String>,
    pub notes: Notes,
}

/// Fewer pictures than this may all be missing without a word about their place.
const FEWEST_PICTURES: usize = 10;

/// Parts, one after the other.
pub type CorpusParts = Ahead<Empty<miette::Result<CorpusPart>>, miette::Result<CorpusPart>>;

impl Corpus {
    /// Looks at all rows of the notes, and opens the pictures, where the model looks at any. `by_default` says
    /// that nobody has said what becomes of pictures that are missing.
    ///
    /// # Errors
    /// Notes that cannot be read; a shard without any.
    pub fn open(
        settings: DataSettings,
        looks: bool,
        by_default: bool,
        args: &EmbedArgs,
    ) -> miette::Result<Self> {
        let files = NoteFiles::survey(&settings.notes).map_err(TrainError::from)?;
        let shard = args.shard.unwrap_or(Shard::WHOLE);
        let rows = shard.rows(files.len(), args.part_notes);
        if rows.is_empty() {
            return Err(miette!(
                help = "give at most as many shards as there are notes",
                "shard {}/{} of {} notes holds none",
                shard.index,
                shard.count,
                files.len()
            ));
        }
        Ok(Self {
            images: looks.then(|| Notes::images(&settings)).transpose()?,
            by_default,
            part_notes: args.part_notes,
            files,
            rows,
            settings,
        })
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.rows.len().div_ceil(self.part_notes)
    }

    /// The parts: while one is embedded, the next is read and its pictures are looked at.
    ///
    /// # Errors
    /// A system that gives no thread.
    pub fn read_ahead(&self) -> miette::Result<CorpusParts> {
        let (files, rows, part_notes) = (self.files.clone(), self.rows.clone(), self.part_notes);
        let alone = self.parts() == 1;
        let look = Look {
            settings: self.settings.clone(),
            images: self.images.clone(),
            alone,
            by_default: self.by_default,
        };
        let parts = Ahead::sent(READY, move |send| {
            let mut number = 0;
            let read = files.for_each_part(rows, part_notes, |set| {
                let flow = send(look.part(number, set));
                number += 1;
                flow
            });
            if let Err(error) = read {
                let _last = send(Err(TrainError::from(error).into()));
            }
        });
        Ok(parts.map_err(TrainError::from)?)
    }

    /// The hash of all pictures of the shard, as their files are now.
    ///
    /// # Errors
    /// Notes or pictures that cannot be read.
    pub fn pictures(&self) -> miette::Result<Option<String>> {
        let Some(images) = &self.images else {
            return Ok(None);
        };
        let mut hashes = Vec::with_capacity(self.parts());
        let mut failed = None;
        let each = |set: NoteSet| match hash_of_part(images, &self.settings, &set) {
            Ok(hash) => {
                hashes.push(hash);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        let rows = self.rows.clone();
        let read = self.files.for_each_part(rows, self.part_notes, each);
        read.map_err(TrainError::from)?;
        failed.map_or(Ok(hash_of_pictures(&hashes)), Err)
    }
}

/// The hash of the pictures of a shard from those of its parts; none where no pictures are looked at.
pub fn hash_of_pictures(parts: &[String]) -> Option<String> {
    let mut all = Content::new();
    parts.iter().for_each(|hash| all.text(hash));
    (!parts.is_empty()).then(|| all.hash())
}

fn hash_of_part(
    images: &ImageStore,
    settings: &DataSettings,
    set: &NoteSet,
) -> miette::Result<String> {
    let mut pictures = Content::new();
    let notes = set.rows().iter();
    let keys = notes.filter_map(|note| note.image.as_deref());
    pictures.pictures(images, &settings.images, keys)?;
    Ok(pictures.hash())
}

/// What looks at the pictures of a part.
struct Look {
    settings: DataSettings,
    images: Option<Arc<ImageStore>>,
    /// Whether there is but one part, so that looking is all that happens.
    alone: bool,
    by_default: bool,
}

impl Look {
    fn part(&self, number: usize, set: NoteSet) -> miette::Result<CorpusPart> {
        let (rows, settings) = (set.len(), &self.settings);
        let images = self.images.clone();
        let pictures = match &images {
            None => None,
            Some(images) => Some(hash_of_part(images, settings, &set)?),
        };
        let unnamed = set.rows().iter().filter(|note| note.image.is_none());
        let unnamed = unnamed.count();
        let notes = match self.alone {
            true => Notes::part(set, images, settings, &picture_progress()),
            false => Notes::part(set, images, settings, &|_, _| {}),
        }?;
        if number == 0 && self.by_default {
            self.refuse_if_none(&notes, rows - unnamed, unnamed)?;
        }
        Ok(CorpusPart {
            number,
            rows,
            pictures,
            notes,
        })
    }

    /// Where not one of many pictures is there, the mistake is rather in where they are looked for.
    fn refuse_if_none(&self, notes: &Notes, named: usize, unnamed: usize) -> miette::Result<()> {
        let missing = notes.without_picture.missing_by_text;
        if missing.saturating_sub(unnamed) < named || named < FEWEST_PICTURES {
            return Ok(());
        }
        let images = &self.settings.images;
        Err(miette!(
            help = "name their place by --images, or let the notes be embedded by their text: --set \
                    data.on_missing_image=text",
            "{}: none of the first {named} pictures is there",
            match images.as_os_str().is_empty() {
                true => ".".into(),
                false => images.display().to_string(),
            }
        ))
    }
}
