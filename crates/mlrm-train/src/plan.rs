//! From settings to a run that can start: data opened, model built, everything checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use mlrm_config::{RunConfig, TrainSettings};
use mlrm_data::image::{ImagePreprocessor, PreprocessorConfig};
use mlrm_data::split::PairData;
use mlrm_data::tokenizer::Tokenizer;
use mlrm_model::decoder::DecoderConfig;
use mlrm_model::embedder::{
    BuildOptions, Embedder, EmbedderConfig, ModelFolder, PromptRecord, WeightSource,
};
use mlrm_model::vision::VisionConfig;

use crate::corpus::{Encoding, Modality, Notes, run_pairs, run_tokenizer};
use crate::error::TrainError;
use crate::{device, schedule::LearningRate};

/// A run whose every part is there.
pub struct RunPlan {
    /// What was asked for.
    pub config: RunConfig,
    /// Where it computes.
    pub device: Device,
    /// The notes.
    pub notes: Notes,
    /// The pairs, split.
    pub pairs: PairData,
    /// How notes become batches.
    pub encoding: Encoding,
    /// The model, initial or loaded.
    pub embedder: Embedder,
    /// Optimiser steps of the whole run.
    pub total_steps: usize,
    /// Learning rate of every step.
    pub learning_rate: LearningRate,
}

/// A model and the means to feed it, from a model folder.
pub struct OpenModel {
    /// The model.
    pub embedder: Embedder,
    /// How notes become batches.
    pub encoding: Encoding,
}

impl RunPlan {
    /// Checks and opens everything. Nothing is written but a drawn sample set.
    pub fn prepare(config: RunConfig) -> Result<Self, TrainError> {
        config.validate()?;
        let device = one_device(&config)?;
        let vision = config.model.variant.vision() || config.model.path.is_some();
        let notes = Notes::open(&config.data, vision)?;
        let pairs = run_pairs(&config.data, &notes.set, config.run.seed)?;
        let OpenModel { embedder, encoding } = match &config.model.path {
            Some(folder) => open_model(folder, &device, &config)?,
            None => build_model(&config, &device, &notes, &pairs)?,
        };
        // Evaluation embeds every note: what it would refuse is refused before anything is written.
        let variant = embedder.config.variant;
        let encoder = encoding.encoder(&notes, variant, Modality::Both)?;
        encoder.require_pictures(0..notes.set.len() as u32)?;
        let longest = encoder.prompts().max_tokens();
        embedder.config.llm.check_length(longest)?;
        let total_steps = total_steps(&config.train, pairs.pairs.train.len());
        Ok(Self {
            learning_rate: LearningRate::new(&config.train, total_steps),
            device,
            notes,
            pairs,
            encoding,
            embedder,
            total_steps,
            config,
        })
    }
}

/// Steps of a run over `pairs` training pairs.
fn total_steps(settings: &TrainSettings, pairs: usize) -> usize {
    settings.max_steps.unwrap_or_else(|| {
        let batches = pairs as f64 / settings.batch_pairs as f64;
        (batches * settings.epochs).ceil().max(1.0) as usize
    })
}

fn one_device(config: &RunConfig) -> Result<Device, TrainError> {
    match config.backend.device.names() {
        [name] => Ok(device::open(name)?),
        names => Err(TrainError::Run(format!(
            "backend.device lists {} devices: training on several devices is not implemented; name \
             one of them",
            names.len()
        ))),
    }
}

/// The weights and number format of a run that starts from a model folder or is only evaluated.
fn build_options(config: &RunConfig, sources: [WeightSource; 3]) -> BuildOptions {
    let [llm, vision, head] = sources;
    BuildOptions {
        llm,
        vision,
        head,
        seed: config.run.seed,
        query_init_std: config.model.connector.query_init_std,
        temperature_logit: config.objective.initial_temperature_logit(),
        tune: config.model.llm.tune,
        learn_temperature: config.objective.learn_temperature,
        dtype: device::dtype(config.backend.dtype),
    }
}

/// Opens a model folder on `device`; of `config` only training and number format are used.
pub fn open_model(
    folder: &Path,
    device: &Device,
    config: &RunConfig,
) -> Result<OpenModel, TrainError> {
    let files = ModelFolder::open(folder)?;
    let tokenizer = Arc::new(Tokenizer::load(&files.tokenizer())?);
    let vision = files.config.vision.as_ref();
    let preprocessor = vision
        .map(|vision| ImagePreprocessor::load(&files.vision(), vision.family, vision.image_size))
        .transpose()?;
    let mut prompt = files.prompt.settings.clone();
    if prompt.template_file.is_some() {
        prompt.template_file = Some(folder.join("template.toml"));
    }
    let encoding = Encoding {
        tokenizer,
        prompt,
        preprocessor,
        visual_tokens: files.config.visual_tokens(),
    };
    let sources = [files.llm(), files.vision(), files.head()].map(WeightSource::Checkpoint);
    let options = build_options(config, sources);
    let embedder = Embedder::build(files.config, &options, device)?;
    Ok(OpenModel { embedder, encoding })
}

/// Builds the model of a config from its parts, loaded or from scratch.
fn build_model(
    config: &RunConfig,
    device: &Device,
    notes: &Notes,
    pairs: &PairData,
) -> Result<OpenModel, TrainError> {
    let settings = &config.model;
    let variant = settings.variant;
    let llm_folder = settings.llm.path.as_deref();
    let tokenizer = run_tokenizer(
        &config.tokenizer,
        &config.prompt,
        variant,
        llm_folder,
        &notes.set,
        pairs,
    )?;
    let tokenizer = Arc::new(tokenizer);
    let rows = tokenizer.vocabulary_rows();
    let llm = match llm_folder {
        Some(folder) => {
            let mut llm = DecoderConfig::read(&folder.join("config.json"))?;
            llm.vocab_size = llm.vocab_size.max(rows);
            llm
        }
        None => DecoderConfig::from_settings(&settings.llm, rows),
    };
    let vision = variant.vision().then(|| match &settings.vision.path {
        Some(folder) => VisionConfig::read(&folder.join("config.json")),
        None => Ok(VisionConfig::from_settings(&settings.vision)),
    });
    let vision = vision.transpose()?;
    let preprocessor = vision.as_ref().map(|vision| match &settings.vision.path {
        Some(folder) => ImagePreprocessor::load(folder, vision.family, vision.image_size),
        None => {
            let usual = PreprocessorConfig::of_family(vision.family, vision.image_size as u32);
            ImagePreprocessor::new(usual, vision.image_size)
        }
    });
    let mut encoding = Encoding {
        tokenizer,
        prompt: config.prompt.clone(),
        preprocessor: preprocessor.transpose()?,
        visual_tokens: 0,
    };
    let tokens = encoding.token_ids();
    let sizes = EmbedderConfig::from_settings(settings, config.prompt.layout, llm, vision, tokens)?;
    encoding.visual_tokens = sizes.visual_tokens();
    let source = |path: &Option<PathBuf>| match path {
        Some(path) => WeightSource::Checkpoint(path.clone()),
        None => WeightSource::Scratch,
    };
    let sources = [
        source(&settings.llm.path),
        source(&settings.vision.path),
        WeightSource::Scratch,
    ];
    let embedder = Embedder::build(sizes, &build_options(config, sources), device)?;
    Ok(OpenModel { embedder, encoding })
}

/// What `mlrm.toml` records of the prompts.
pub fn prompt_record(encoding: &Encoding) -> PromptRecord {
    let mut settings = encoding.prompt.clone();
    if settings.template_file.is_some() {
        settings.template_file = Some(PathBuf::from("template.toml"));
    }
    PromptRecord { settings }
}
