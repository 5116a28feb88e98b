//! The data side of a run: notes, pairs, tokenizer, prompts and pictures, opened from settings.

use std::path::Path;
use std::sync::Arc;

use mlrm_config::{DataSettings, DataSource, PromptSettings, TokenizerSettings, Variant};
use mlrm_data::DataError;
use mlrm_data::image::{DecodeOptions, ImagePreprocessor};
use mlrm_data::loader::{Fallback, NoteEncoder, Pictures, PixelCache};
use mlrm_data::notes::{ByText, ImageStore, Note, NoteSet, Screened, WithoutPicture};
use mlrm_data::prompt::{PromptEncoder, PromptStyle, open_tokenizer};
use mlrm_data::split::{PairData, Part, load_pairs};
use mlrm_data::tokenizer::{NewToken, Tokenizer};
use mlrm_model::embedder::{Embedder, TokenIds};
use mlrm_synth::ensure_synth;

use crate::error::TrainError;
use crate::features::known_pictures;
use crate::folders::write_beside;

/// Most bytes of the pixels that are kept.
pub(crate) const PIXEL_CACHE_BYTES: usize = 1 << 30;

/// Hears how many of how many pictures were looked at.
pub type PictureProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// What becomes of notes without a usable picture.
type Resolve =
    fn(NoteSet, &Screened, &DataSettings) -> mlrm_data::Result<(NoteSet, ByText, WithoutPicture)>;

/// Notes with their pictures.
#[derive(Debug, Clone)]
pub struct Notes {
    /// The notes.
    pub set: Arc<NoteSet>,
    /// Where their pictures are; absent where no variant of the run looks at any.
    pub images: Option<Arc<ImageStore>>,
    /// Pixels of theirs, after resize and crop, so that later epochs need not decode again.
    pub pixels: Arc<PixelCache>,
    /// How these become pixels.
    pub decoding: DecodeOptions,
    /// Which notes are read by their text though the model looks at pictures.
    pub by_text: Arc<ByText>,
    /// How many notes are not read with their picture.
    pub without_picture: WithoutPicture,
}

impl Notes {
    /// Opens the notes of `settings`, drawing the sample set first where they ask for it, and looks at
    /// all of their `pictures`, where any are wanted.
    ///
    /// # Errors
    /// Files that cannot be read; notes whose picture is missing or cannot be used, unless
    /// `data.on_missing_image` and `data.on_bad_image` say what becomes of them.
    pub fn open(
        settings: &DataSettings,
        pictures: bool,
        progress: PictureProgress<'_>,
    ) -> Result<Self, TrainError> {
        if settings.source == DataSource::Synth {
            ensure_synth(&settings.root, &settings.synth)?;
        }
        let set =
            NoteSet::read(&settings.place(&settings.notes)).map_err(|e| named(e, settings))?;
        Self::of(set, settings, pictures, progress)
    }

    /// Notes that are in memory; of `settings` counts where their pictures are (`root` and `images`) and
    /// how these are read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(
        set: NoteSet,
        settings: &DataSettings,
        pictures: bool,
        progress: PictureProgress<'_>,
    ) -> Result<Self, TrainError> {
        let images = pictures.then(|| Self::images(settings)).transpose()?;
        let notes = Self::screened(set, images, settings, progress, ByText::resolve)?;
        Ok(Self {
            pixels: Arc::new(PixelCache::new(PIXEL_CACHE_BYTES)),
            ..notes
        })
    }

    /// Where the pictures of `settings` are.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn images(settings: &DataSettings) -> Result<Arc<ImageStore>, TrainError> {
        let images = ImageStore::open_with(
            &settings.place(&settings.images),
            settings.image_cache_max_bytes,
        )?;
        Ok(Arc::new(images))
    }

    /// As [`Self::of`], of a part of a corpus: each note is read once, so that no pixels are kept, and none
    /// need be left. `images` is absent where no pictures are looked at.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn part(
        set: NoteSet,
        images: Option<Arc<ImageStore>>,
        settings: &DataSettings,
        progress: PictureProgress<'_>,
    ) -> Result<Self, TrainError> {
        Self::screened(set, images, settings, progress, ByText::resolve_part)
    }

    fn screened(
        set: NoteSet,
        images: Option<Arc<ImageStore>>,
        settings: &DataSettings,
        progress: PictureProgress<'_>,
        resolve: Resolve,
    ) -> Result<Self, TrainError> {
        let decoding = DecodeOptions::new(settings);
        let (set, by_text, without_picture) = match &images {
            None => {
                let by_text = ByText::none(set.len());
                (set, by_text, WithoutPicture::default())
            }
            Some(images) => {
                let rows: Vec<u32> = (0..set.len() as u32).collect();
                let screened = images.screen(&set, &rows, &decoding, progress);
                resolve(set, &screened, settings)?
            }
        };
        Ok(Self {
            set: Arc::new(set),
            images,
            pixels: Arc::new(PixelCache::new(0)),
            decoding,
            by_text: Arc::new(by_text),
            without_picture,
        })
    }
}

/// Says which settings name a notes file that is not there.
fn named(error: DataError, settings: &DataSettings) -> TrainError {
    let missing = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    match &error {
        DataError::Io { source, .. } if missing(source) => TrainError::Refused(format!(
            "{error}; the notes are `data.notes` = \"{}\" below `data.root` = \"{}\": name them in the config or by \
             --set data.root=DIR",
            settings.notes.display(),
            settings.root.display()
        )),
        _ => error.into(),
    }
}

/// Everything that turns notes into batches.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How notes become prompts.
    pub prompt: PromptSettings,
    /// How pictures become pixel values; absent for the variant `text`.
    pub preprocessor: Option<ImagePreprocessor>,
    /// Visual tokens a note (V).
    pub visual_tokens: usize,
}

/// What an encoder lets the model see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// What the variant sees.
    Both,
    /// The text prompt, no picture.
    TextOnly,
    /// The picture alone: the image prompt, or the class feature where the variant has no visual
    /// tokens.
    ImageOnly,
}

impl Encoding {
    /// Has a run read a template of its user's from its own `folder`: the file that it came from may be edited meanwhile, and a
    /// checkpoint that it came from may be removed.
    pub(crate) fn keep_template(&mut self, folder: &Path) -> Result<(), TrainError> {
        let Some(path) = &mut self.prompt.template_file else {
            return Ok(());
        };
        let kept = folder.join("template.toml");
        if *path != kept {
            let text = std::fs::read(&*path).map_err(TrainError::io("read", path))?;
            write_beside(&kept, text)?;
            *path = kept;
        }
        Ok(())
    }

    /// The encoder of `notes` for `model`, restricted to `modality`. Pictures whose features the model
    /// keeps are not decoded.
    ///
    /// # Errors
    /// Prompts that the tokenizer does not fit, and settings that do not work with these notes.
    pub fn encoder(
        &self,
        notes: &Notes,
        model: &Embedder,
        modality: Modality,
    ) -> Result<NoteEncoder, TrainError> {
        let variant = model.config.variant;
        let style = match modality {
            Modality::Both => PromptStyle::from(variant),
            Modality::TextOnly => PromptStyle::Text,
            Modality::ImageOnly if variant.image_tokens() => PromptStyle::Image,
            Modality::ImageOnly => PromptStyle::Text,
        };
        let tokenizer = Arc::clone(&self.tokenizer);
        let prompts = PromptEncoder::new(&self.prompt, tokenizer, style, self.visual_tokens)?;
        let fallback = || -> Result<Fallback, TrainError> {
            let tokenizer = Arc::clone(&self.tokenizer);
            let prompts = PromptEncoder::new(&self.prompt, tokenizer, PromptStyle::Text, 0)?;
            Ok(Fallback {
                by_text: Arc::clone(&notes.by_text),
                prompts: Arc::new(prompts),
                hide_text: modality == Modality::ImageOnly,
            })
        };
        let looks = variant.vision() && modality != Modality::TextOnly;
        let pictures = match (&notes.images, &self.preprocessor) {
            (Some(images), Some(preprocessor)) if looks => {
                let images = Arc::clone(images);
                let preprocessor = preprocessor.clone();
                let pictures = Pictures::new(
                    images,
                    preprocessor,
                    notes.decoding,
                    Arc::clone(&notes.pixels),
                )
                .with_known(known_pictures(model));
                Some(match notes.by_text.may_read() {
                    true => pictures.with_fallback(fallback()?),
                    false => pictures,
                })
            }
            _ => None,
        };
        Ok(NoteEncoder::new(
            Arc::clone(&notes.set),
            Arc::new(prompts),
            pictures,
        ))
    }

    /// Ids of the special tokens that the model treats specially.
    pub fn token_ids(&self) -> TokenIds {
        let id = |spelling: &str| self.tokenizer.token_id(spelling);
        TokenIds {
            pad: self.tokenizer.pad_id(),
            image: id(&self.prompt.image_token),
            image_emb: id(&self.prompt.image_emb_token),
            image_end: id(&self.prompt.image_end_token),
        }
    }
}

/// Pixels of what the vision encoder reads of a note's picture, by its header; `None` where all pictures have one size, or
/// the note has none that can be read.
pub(crate) fn own_pixels(encoding: &Encoding, notes: &Notes, note: &Note) -> Option<usize> {
    let preprocessor = encoding.preprocessor.as_ref();
    let preprocessor = preprocessor.filter(|of| of.image_size().is_none())?;
    let (images, key) = (notes.images.as_ref()?, note.image.as_deref()?);
    let [height, width] = images.dimensions(key, &notes.decoding).ok()?;
    Some(preprocessor.output_size(height, width).iter().product())
}

/// The tokenizer of a run from scratch, trained or read, and the tokens that were added to it.
/// Held-out notes train no tokenizer.
///
/// # Errors
/// No tokenizer where the settings say, or one that cannot be read.
pub fn run_tokenizer(
    settings: &TokenizerSettings,
    prompt: &PromptSettings,
    variant: Variant,
    llm_folder: Option<&Path>,
    notes: &NoteSet,
    pairs: &PairData,
) -> Result<(Tokenizer, Vec<NewToken>), TrainError> {
    let rows = notes.rows().iter().zip(&pairs.parts);
    let training = rows
        .filter(|(_, part)| **part == Part::Train)
        .map(|(note, _)| note);
    let style = PromptStyle::from(variant);
    Ok(open_tokenizer(
        settings, prompt, style, llm_folder, training,
    )?)
}

/// The pairs of a run.
///
/// # Errors
/// A log or pairs that cannot be read, or leave nothing to learn from.
pub fn run_pairs(
    settings: &DataSettings,
    notes: &NoteSet,
    seed: u64,
) -> Result<PairData, TrainError> {
    Ok(load_pairs(settings, notes, seed)?)
}
