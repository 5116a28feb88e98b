//! A model and what feeds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlrm_config::{DataSettings, DataSource, DeviceNames, RunConfig};
use mlrm_data::notes::{Note, NoteSet};
use mlrm_eval::Embeddings;
use mlrm_model::embedder::{ModelFolder, Provenance};
use mlrm_train::checkpoint::write_model;
use mlrm_train::corpus::{Modality, Notes};
use mlrm_train::encode::Inference;
use mlrm_train::plan::{OpenModel, RunPlan, open_model};
use mlrm_train::{TrainError, device, pretrained};

/// A model that turns notes into embeddings: the network, its tokenizer, its prompt and the way in which it
/// sees pictures.
///
/// The network alone, whose input is tensors, is [`mlrm_model::embedder::Embedder`].
pub struct Embedder {
    model: OpenModel,
    inference: Inference,
    /// How pictures are read, and how many notes are encoded at a time.
    config: RunConfig,
    provenance: Provenance,
}

impl Embedder {
    /// Opens the model folder `path`, or that of the run folder `path`, on a device (`flex`, `cuda:0`, …;
    /// [`DeviceNames`]).
    ///
    /// # Errors
    /// No model there, files that are damaged or do not fit together, or a device that is not there.
    pub fn from_pretrained(path: impl AsRef<Path>, device: &str) -> Result<Self, TrainError> {
        let path = path.as_ref();
        let mut config = pretrained::settings(path, &[])?;
        config.backend.device = DeviceNames::One(device.into());
        let backend = &config.backend;
        let device = device::open_for(device, backend.dtype, backend.matmul_precision)?;
        let folder = pretrained::model_folder(path)?;
        let model = open_model(&folder, &device, &config)?;
        let provenance = ModelFolder::open(&folder)?.provenance;
        Ok(Self::new(model, config, provenance))
    }

    /// The model that a run of `config` begins with: from the weights that it names, random where it names
    /// none. The notes of `config` train its tokenizer, where it has none yet.
    ///
    /// # Errors
    /// Settings, data, weights or devices that cannot be used.
    pub fn from_config(config: RunConfig) -> Result<Self, TrainError> {
        let plan = RunPlan::prepare(config, &|_, _| {})?;
        Ok(plan.into())
    }

    fn new(model: OpenModel, config: RunConfig, provenance: Provenance) -> Self {
        Self {
            inference: Inference::new(&model.embedder),
            model,
            config,
            provenance,
        }
    }

    /// Numbers of an embedding (e).
    pub fn dim(&self) -> usize {
        self.model.embedder.config.embedding_size()
    }

    /// The network and the way in which notes become its input.
    pub fn model(&self) -> &OpenModel {
        &self.model
    }

    /// Embeddings of `notes`, one each, in their order: `[notes, e]`, f32, of Euclidean length 1. Their
    /// pictures are looked for below the folder (or in the tar file) `images`, which a model that reads text
    /// alone does not open.
    ///
    /// # Errors
    /// Ids that are not unique, pictures that are not there or cannot be read, unless the run of the model
    /// says what becomes of their notes (`data.on_missing_image`, `data.on_bad_image`), or a device that failed.
    pub fn embed(
        &self,
        notes: Vec<Note>,
        images: impl Into<PathBuf>,
    ) -> Result<Embeddings, TrainError> {
        let set = NoteSet::new(notes).map_err(|error| TrainError::Refused(error.to_string()))?;
        let settings = DataSettings {
            source: DataSource::Folder,
            root: PathBuf::new(),
            images: images.into(),
            ..self.config.data.clone()
        };
        let OpenModel { embedder, encoding } = &self.model;
        let notes = Notes::of(set, &settings, embedder.reads_pictures(), &|_, _| {})?;
        let encoder = Arc::new(encoding.encoder(&notes, embedder, Modality::Both)?);
        let rows: Vec<u32> = (0..notes.set.len() as u32).collect();
        let batch = self.config.eval.batch_notes;
        let modality = Modality::Both;
        let embedded =
            self.inference
                .embed_corpus(&encoder, &rows, batch, modality, &mut |_, _| {})?;
        Ok(embedded.multimodal)
    }

    /// Writes the model folder `path` (what it holds is in the guide's page "Model folder"), whole or not at
    /// all; a model folder that is there is replaced.
    ///
    /// # Errors
    /// A path at which something else is, or a folder that cannot be written.
    pub fn save_pretrained(&self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        let path = path.as_ref();
        if path.exists() && !path.join("mlrm.toml").is_file() {
            return Err(TrainError::Refused(format!(
                "{} is there already and is no model folder (no mlrm.toml): name another place",
                path.display()
            )));
        }
        let OpenModel { embedder, encoding } = &self.model;
        write_model(path, embedder, encoding, &self.provenance, None)
    }
}

/// The model of a run: what it begins with, or what it ended with ([`Finished`](crate::Finished)).
impl From<RunPlan> for Embedder {
    fn from(plan: RunPlan) -> Self {
        let model = OpenModel {
            embedder: plan.embedder,
            encoding: plan.encoding,
        };
        let provenance = Provenance {
            mlrm_version: env!("CARGO_PKG_VERSION").into(),
            step: None,
            seed: Some(plan.config.run.seed),
        };
        Self::new(model, plan.config, provenance)
    }
}
