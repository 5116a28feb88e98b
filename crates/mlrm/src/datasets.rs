//! Notes, pairs and pictures as Burn's datasets, and the batcher that puts them together.
//!
//! What can fail (a picture that is not there, a note without the text that its prompt needs) fails in the
//! dataset, so that a data loader tells of it; the batcher cannot. Items that are only looked up need no type of
//! their own: [`InMemDataset`](burn::data::dataset::InMemDataset) holds [`Note`](crate::Note)s and [`crate::Pair`]s
//! as they are, and Burn's transforms (shuffled, sampled, mapped, in part) go over all of them.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Tensor, TensorData};
use mlrm_data::DataError;
use mlrm_data::batch::NoteBatch;
use mlrm_data::image::{DecodeOptions, ImagePreprocessor, decode};
use mlrm_data::loader::NoteEncoder;
use mlrm_data::notes::ImageStore;
use mlrm_data::split::{Pair, Partners};
use mlrm_train::objective::Exclusions;

/// Some of the notes of an encoder, each as a batch of one: its prompt's ids and its picture's values.
#[derive(Debug, Clone)]
pub struct NoteDataset {
    encoder: Arc<NoteEncoder>,
    rows: Arc<[u32]>,
}

impl NoteDataset {
    /// The notes in `rows` of the encoder's notes.
    pub fn new(encoder: Arc<NoteEncoder>, rows: impl Into<Arc<[u32]>>) -> Self {
        Self {
            encoder,
            rows: rows.into(),
        }
    }

    /// All notes of the encoder.
    pub fn all(encoder: Arc<NoteEncoder>) -> Self {
        let rows: Vec<u32> = (0..encoder.notes().len() as u32).collect();
        Self::new(encoder, rows)
    }
}

impl Dataset<NoteBatch> for NoteDataset {
    fn get(&self, index: usize) -> Result<NoteBatch, DatasetError> {
        encoded(&self.encoder, &[self.rows[index]])
    }

    fn get_many(&self, indexes: Vec<usize>) -> Result<Vec<NoteBatch>, DatasetError> {
        let rows: Vec<u32> = indexes.into_iter().map(|index| self.rows[index]).collect();
        let all = encoded(&self.encoder, &rows)?;
        Ok((0..rows.len()).map(|at| all.slice(at..at + 1)).collect())
    }

    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Two related notes, encoded.
#[derive(Debug, Clone)]
pub struct EncodedPair {
    /// The query note, a batch of one.
    pub query: NoteBatch,
    /// The note that is related to it, a batch of one.
    pub target: NoteBatch,
}

/// Pairs of related notes.
#[derive(Debug, Clone)]
pub struct PairDataset {
    encoder: Arc<NoteEncoder>,
    pairs: Arc<[Pair]>,
}

impl PairDataset {
    /// `pairs` of rows of the encoder's notes.
    pub fn new(encoder: Arc<NoteEncoder>, pairs: impl Into<Arc<[Pair]>>) -> Self {
        Self {
            encoder,
            pairs: pairs.into(),
        }
    }
}

impl Dataset<EncodedPair> for PairDataset {
    fn get(&self, index: usize) -> Result<EncodedPair, DatasetError> {
        let mut pairs = self.get_many(vec![index])?;
        Ok(pairs.remove(0))
    }

    fn get_many(&self, indexes: Vec<usize>) -> Result<Vec<EncodedPair>, DatasetError> {
        let pairs = indexes.into_iter().map(|index| self.pairs[index]);
        let rows: Vec<u32> = pairs.flat_map(|pair| [pair.query, pair.target]).collect();
        let all = encoded(&self.encoder, &rows)?;
        let note = |at: usize| all.slice(at..at + 1);
        let pair = |at: usize| EncodedPair {
            query: note(at),
            target: note(at + 1),
        };
        Ok((0..rows.len()).step_by(2).map(pair).collect())
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }
}

fn encoded(encoder: &NoteEncoder, rows: &[u32]) -> Result<NoteBatch, DatasetError> {
    encoder.encode_rows(rows).map_err(DatasetError::new)
}

/// Pictures of a store, without notes.
#[derive(Debug, Clone)]
pub struct PictureDataset {
    store: Arc<ImageStore>,
    keys: Arc<[String]>,
    preprocessor: ImagePreprocessor,
    options: DecodeOptions,
}

/// A picture as a vision encoder reads it.
#[derive(Debug, Clone)]
pub struct EncodedPicture {
    /// Its key in the store.
    pub key: String,
    /// Side in pixels.
    pub image_size: usize,
    /// `[3, image_size, image_size]`, normalised as the encoder wants it.
    pub values: Vec<f32>,
}

impl PictureDataset {
    /// The pictures `keys` of `store`, decoded by `options` and preprocessed by `preprocessor`.
    pub fn new(
        store: Arc<ImageStore>,
        keys: impl Into<Arc<[String]>>,
        preprocessor: ImagePreprocessor,
        options: DecodeOptions,
    ) -> Self {
        Self {
            store,
            keys: keys.into(),
            preprocessor,
            options,
        }
    }
}

impl Dataset<EncodedPicture> for PictureDataset {
    fn get(&self, index: usize) -> Result<EncodedPicture, DatasetError> {
        let key = &self.keys[index];
        let bytes = self.store.read(key).map_err(DatasetError::new)?;
        let picture = decode(&bytes, &self.options).map_err(|problem| {
            DatasetError::new(DataError::image(key, problem.message, problem.mend))
        })?;
        let side = self.preprocessor.image_size().ok_or_else(|| {
            DatasetError::new(DataError::setting(
                "model.vision.grid",
                "pictures of sizes of their own make no tensor together",
                "set `model.vision.grid = \"square\"`, or read them in batches of notes",
            ))
        })?;
        let mut values = vec![0.0; 3 * side * side];
        let pixels = self.preprocessor.resize_crop(&picture);
        self.preprocessor.normalize_into(&pixels, &mut values);
        Ok(EncodedPicture {
            key: key.clone(),
            image_size: side,
            values,
        })
    }

    fn len(&self) -> usize {
        self.keys.len()
    }
}

/// Pairs of one step, and which of their notes are not negatives of each other.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// The notes, each once, at the places of pairs: queries first, then their targets in the same order.
    pub notes: NoteBatch,
    /// Places that are not negatives of which.
    pub exclusions: Exclusions,
}

/// Burn's batcher for all of them: notes and pairs to padded host batches, pictures to a tensor.
#[derive(Debug, Clone)]
pub struct Collate {
    pad_id: u32,
    partners: Option<Partners>,
}

impl Collate {
    /// Notes are padded with the id that `encoder` pads with.
    pub fn new(encoder: &NoteEncoder) -> Self {
        Self {
            pad_id: encoder.prompts().tokenizer().pad_id(),
            partners: None,
        }
    }

    /// The same, where notes that are known to be related are not negatives of each other.
    pub fn with_partners(self, partners: Partners) -> Self {
        Self {
            partners: Some(partners),
            ..self
        }
    }
}

impl Batcher<NoteBatch, NoteBatch> for Collate {
    fn batch(&self, items: Vec<NoteBatch>, _device: &Device) -> NoteBatch {
        NoteBatch::join(&items.iter().collect::<Vec<_>>(), self.pad_id)
    }
}

impl Batcher<EncodedPair, PairBatch> for Collate {
    fn batch(&self, items: Vec<EncodedPair>, _device: &Device) -> PairBatch {
        let queries = items.iter().map(|pair| &pair.query);
        let targets = items.iter().map(|pair| &pair.target);
        // A note that stands at several places is one of the batch.
        let (mut notes, mut places): (Vec<&NoteBatch>, Vec<usize>) = (Vec::new(), Vec::new());
        for note in queries.chain(targets) {
            let place = notes.iter().position(|known| known.rows == note.rows);
            places.push(place.unwrap_or(notes.len()));
            if place.is_none() {
                notes.push(note);
            }
        }
        let notes = NoteBatch {
            places,
            ..NoteBatch::join(&notes, self.pad_id)
        };
        let rows = notes.at_places(&notes.rows);
        let exclusions = match &self.partners {
            Some(partners) => Exclusions::false_negatives(&rows, |note| partners.of(note)),
            None => Exclusions::diagonal(rows.len()),
        };
        let by_text = match notes.by_text.is_empty() {
            true => Vec::new(),
            false => notes.at_places(&notes.by_text),
        };
        PairBatch {
            exclusions: exclusions.without_pictures(by_text),
            notes,
        }
    }
}

/// To `[pictures, 3, image_size, image_size]`.
impl Batcher<EncodedPicture, Tensor<4>> for Collate {
    fn batch(&self, items: Vec<EncodedPicture>, device: &Device) -> Tensor<4> {
        let side = items.first().map_or(0, |picture| picture.image_size);
        let shape = [items.len(), 3, side, side];
        let values = items.into_iter().flat_map(|picture| picture.values);
        Tensor::from_data(TensorData::new(values.collect::<Vec<_>>(), shape), device)
    }
}
