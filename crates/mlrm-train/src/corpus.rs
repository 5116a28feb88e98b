//! The data side of a run: notes, pairs, tokenizer, prompts and pictures, opened from settings.

use std::path::Path;
use std::sync::Arc;

use mlrm_config::{DataSettings, DataSource, PromptSettings, TokenizerSettings, Variant};
use mlrm_data::image::{DecodeOptions, ImagePreprocessor};
use mlrm_data::loader::{KnownPictures, NoteEncoder, Pictures};
use mlrm_data::notes::{ImageStore, NoteSet};
use mlrm_data::prompt::{PromptEncoder, PromptStyle, open_tokenizer};
use mlrm_data::split::{PairData, Part, load_pairs};
use mlrm_data::synth::ensure_synth;
use mlrm_data::tokenizer::{NewToken, Tokenizer};
use mlrm_model::embedder::TokenIds;

use crate::error::TrainError;

/// Pixels kept after resize and crop, so that later epochs need not decode again.
const PIXEL_CACHE_BYTES: usize = 1 << 30;

/// Notes with their pictures.
#[derive(Debug, Clone)]
pub struct Notes {
    /// The notes.
    pub set: Arc<NoteSet>,
    /// Where their pictures are; absent where no variant of the run looks at any.
    pub images: Option<Arc<ImageStore>>,
    /// How these become pixels.
    pub decoding: DecodeOptions,
}

impl Notes {
    /// Opens the notes of `settings`, drawing the sample set first where they ask for it.
    pub fn open(settings: &DataSettings, pictures: bool) -> Result<Self, TrainError> {
        if settings.source == DataSource::Synth {
            ensure_synth(&settings.root, &settings.synth)?;
        }
        let set = NoteSet::read(&settings.root.join(&settings.notes))?;
        let images = || ImageStore::open(&settings.root.join(&settings.images));
        Ok(Self {
            set: Arc::new(set),
            images: pictures.then(images).transpose()?.map(Arc::new),
            decoding: DecodeOptions::new(settings),
        })
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
    /// Pictures whose values the model does not need; set together with the model's cache.
    pub known: Option<Arc<dyn KnownPictures>>,
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
    /// The encoder of `notes` for `variant`, restricted to `modality`.
    pub fn encoder(
        &self,
        notes: &Notes,
        variant: Variant,
        modality: Modality,
    ) -> Result<NoteEncoder, TrainError> {
        let style = match modality {
            Modality::Both => PromptStyle::from(variant),
            Modality::TextOnly => PromptStyle::Text,
            Modality::ImageOnly if variant.image_tokens() => PromptStyle::Image,
            Modality::ImageOnly => PromptStyle::Text,
        };
        let tokenizer = Arc::clone(&self.tokenizer);
        let prompts = PromptEncoder::new(&self.prompt, tokenizer, style, self.visual_tokens)?;
        let looks = variant.vision() && modality != Modality::TextOnly;
        let pictures = match (&notes.images, &self.preprocessor) {
            (Some(images), Some(preprocessor)) if looks => {
                let (images, preprocessor) = (Arc::clone(images), preprocessor.clone());
                let pictures =
                    Pictures::new(images, preprocessor, notes.decoding, PIXEL_CACHE_BYTES);
                Some(pictures.with_known(self.known.clone()))
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

/// The tokenizer of a run from scratch, trained or read, and the tokens that were added to it.
/// Held-out notes train no tokenizer.
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
pub fn run_pairs(
    settings: &DataSettings,
    notes: &NoteSet,
    seed: u64,
) -> Result<PairData, TrainError> {
    Ok(load_pairs(settings, notes, seed)?)
}
