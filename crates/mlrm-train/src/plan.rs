//! From settings to a run that can start: data opened, model built, everything checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use mlrm_config::{BackendName, ModelSettings, ObjectiveSettings, RunConfig, TrainSettings};
use mlrm_data::image::{ImagePreprocessor, PreprocessorConfig};
use mlrm_data::split::PairData;
use mlrm_data::tokenizer::{NewToken, Tokenizer};
use mlrm_events::KeptFeatures;
use mlrm_model::adapter::AdapterConfig;
use mlrm_model::checksums;
use mlrm_model::decoder::DecoderConfig;
use mlrm_model::embedder::{BuildOptions, Embedder, ModelFolder, PromptRecord, WeightSource};
use mlrm_model::vision::VisionConfig;
use mlrm_model::weights::NewRows;

use crate::corpus::{Encoding, Modality, Notes, PictureProgress, run_pairs, run_tokenizer};
use crate::error::TrainError;
use crate::features::{Keeping, keep_features, keep_same_features};
use crate::parts::Parts;
use crate::{device, memory, schedule::LearningRate};

/// A run whose every part is there.
pub struct RunPlan {
    /// What was asked for.
    pub config: RunConfig,
    /// Where it computes; with several devices, where the first worker does.
    pub device: Device,
    /// What `backend.device` calls it.
    pub device_name: String,
    /// The other devices of this process, by name.
    pub others: Vec<(String, Device)>,
    /// Workers that share the notes of a step, in all processes of the run.
    pub workers: usize,
    /// Processes of the run on this machine.
    pub processes: usize,
    /// The notes.
    pub notes: Notes,
    /// The pairs, split.
    pub pairs: PairData,
    /// How notes become batches.
    pub encoding: Encoding,
    /// The model, initial or loaded.
    pub embedder: Embedder,
    /// What is kept of its features of pictures; absent where nothing is.
    pub kept_features: Option<KeptFeatures>,
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
    /// Checks and opens everything. Nothing is written but a drawn sample set. `progress` hears of the
    /// pictures that are looked at.
    ///
    /// # Errors
    /// Settings, data, models or devices that cannot train.
    pub fn prepare(config: RunConfig, progress: PictureProgress<'_>) -> Result<Self, TrainError> {
        Self::prepare_on(config, &Computes::OnAll, progress)
    }

    /// As [`Self::prepare`], on these of the config's devices.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_on(
        config: RunConfig,
        computes: &Computes,
        progress: PictureProgress<'_>,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let mut devices = open_devices(&config, computes)?;
        let (device_name, device) = devices.remove(0);
        let notes = Notes::open(&config.data, looks_at_pictures(&config.model)?, progress)?;
        let pairs = run_pairs(&config.data, &notes.set, config.run.seed)?;
        let OpenModel { embedder, encoding } = starting_model(&config, &device, &notes, &pairs)?;
        // Evaluation embeds every note: what it would refuse is refused before anything is written.
        let encoder = encoding.encoder(&notes, &embedder, Modality::Both)?;
        let longest = encoder.prompts().max_tokens();
        embedder.config.llm.check_length(longest)?;
        let total_steps = total_steps(&config.train, pairs.pairs.train.len());
        check_batch(&config.train, pairs.pairs.train.len(), total_steps)?;
        check_sizes(&config.objective, embedder.config.embedding_size())?;
        Ok(Self {
            learning_rate: LearningRate::new(&config.train, total_steps),
            device,
            device_name,
            workers: match *computes {
                Computes::OnAll => 1 + devices.len(),
                Computes::OnOneOf { all, .. } => all,
            },
            processes: match *computes {
                Computes::OnAll => 1,
                Computes::OnOneOf { processes, .. } => processes,
            },
            others: devices,
            notes,
            pairs,
            encoding,
            embedder,
            kept_features: None,
            total_steps,
            config,
        })
    }

    /// Workers of this process that compute in the memory that the first one computes in.
    pub fn workers_here(&self) -> usize {
        match self.device_name.starts_with(BackendName::Flex.name()) {
            true => {
                let names = self.others.iter().map(|(name, _)| name);
                1 + names.filter(|name| **name == self.device_name).count()
            }
            false => 1,
        }
    }

    /// Keeps features of pictures as the config asks.
    ///
    /// # Errors
    /// A folder that cannot be used.
    pub fn keep_features(&mut self) -> Result<(), TrainError> {
        let looks = self.looks_at_pictures();
        self.kept_features = keep_features(
            &mut self.embedder,
            &self.encoding,
            &self.notes,
            &self.config,
            Keeping::Run { looks },
        )?;
        Ok(())
    }

    /// How often the run looks at a picture, in steps and evaluations.
    pub(crate) fn looks_at_pictures(&self) -> u64 {
        let train = &self.config.train;
        let steps = self.total_steps;
        let measured = steps.checked_div(train.eval_every_steps).unwrap_or(0) + 1;
        (steps * 2 * train.batch_pairs + measured * self.notes.set.len()) as u64
    }

    /// What a person should know of pictures and their features that was not told yet.
    pub fn news(&self) -> Vec<String> {
        let mut news = self.notes.by_text.take_news();
        let cache = self.embedder.features.as_ref();
        news.extend(cache.into_iter().flat_map(|cache| cache.news()));
        news
    }

    /// Goes on with another model, of the same run.
    ///
    /// # Errors
    /// A folder of features that cannot be used.
    pub fn replace_model(&mut self, model: OpenModel) -> Result<(), TrainError> {
        let OpenModel {
            mut embedder,
            encoding,
        } = model;
        let (old, notes, config) = (&self.embedder, &self.notes, &self.config);
        keep_same_features(old, &mut embedder, &encoding, notes, config)?;
        (self.embedder, self.encoding) = (embedder, encoding);
        Ok(())
    }
}

/// Whether the model that a run starts from looks at pictures.
fn looks_at_pictures(settings: &ModelSettings) -> Result<bool, TrainError> {
    match &settings.path {
        Some(folder) => Ok(ModelFolder::open(folder)?.config.vision.is_some()),
        None => Ok(settings.variant.vision()),
    }
}

/// Refuses a batch that there are too few pairs for: it would hold pairs twice, each a negative of
/// itself.
fn check_batch(settings: &TrainSettings, pairs: usize, steps: usize) -> Result<(), TrainError> {
    let batch = settings.batch_pairs;
    if steps == 0 || pairs >= batch {
        return Ok(());
    }
    Err(TrainError::Run(format!(
        "there are {pairs} training pairs, fewer than the {batch} of a batch (train.batch_pairs); lower \
         it, or get more pairs: see `mlrm data check`, and the bounds and fractions of data.pairs"
    )))
}

/// Refuses leading dimensions that the embeddings do not have.
fn check_sizes(settings: &ObjectiveSettings, size: usize) -> Result<(), TrainError> {
    match settings.matryoshka_dims.iter().find(|&&dim| dim > size) {
        Some(dim) => Err(TrainError::Run(format!(
            "objective.matryoshka_dims has {dim}, but the embeddings of this model have {size} dimensions; list \
             sizes up to {size}"
        ))),
        None => Ok(()),
    }
}

/// Steps of a run over `pairs` training pairs.
pub(crate) fn total_steps(settings: &TrainSettings, pairs: usize) -> usize {
    settings.max_steps.unwrap_or_else(|| {
        let batches = pairs as f64 / settings.batch_pairs as f64;
        (batches * settings.epochs).ceil().max(1.0) as usize
    })
}

/// Which of a config's devices a process computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Computes {
    /// On all of them.
    #[default]
    OnAll,
    /// On the one whose turn it is, counted round the processes of a machine.
    OnOneOf {
        /// This process among those of the machine.
        process: usize,
        /// All of those.
        processes: usize,
        /// Those of all machines.
        all: usize,
    },
}

/// Opens devices in the order of the config; at least one.
fn open_devices(
    config: &RunConfig,
    computes: &Computes,
) -> Result<Vec<(String, Device)>, TrainError> {
    let backend = &config.backend;
    let names = backend.device.names();
    let own = match *computes {
        Computes::OnAll => names,
        Computes::OnOneOf {
            process, processes, ..
        } => {
            let place = process % names.len();
            let name = &names[place];
            if processes > names.len() && !name.starts_with(BackendName::Flex.name()) {
                return Err(TrainError::Run(format!(
                    "{processes} processes of this run are on this machine, but backend.device lists {} \
                     devices, and `{name}` serves one process: start as many as there are devices, or \
                     list more",
                    names.len()
                )));
            }
            &names[place..=place]
        }
    };
    let open = |name: &String| {
        let device = device::open_for(name, backend.dtype, backend.matmul_precision)?;
        Ok((name.clone(), device))
    };
    own.iter().map(open).collect()
}

/// The weights and number format of a run that starts from a model folder or is only evaluated.
///
/// `adapter`: the adapters that belong to these weights; else the config's are meant.
fn build_options(
    config: &RunConfig,
    sources: [WeightSource; 3],
    adapter: Option<PathBuf>,
) -> BuildOptions {
    let [llm, vision, head] = sources;
    let lora = &config.model.llm.lora;
    BuildOptions {
        llm,
        vision,
        head,
        connector: None,
        seed: config.run.seed,
        query_init_std: config.model.connector.query_init_std,
        temperature_logit: config.objective.initial_temperature_logit(),
        tune: config.model.llm.tune,
        quantisation: config.model.llm.quantisation,
        adapter: adapter.or_else(|| lora.path.clone().map(|path| path.to_path_buf())),
        // What a PEFT folder brings, the config does not say again.
        lora: match lora.path {
            Some(_) => None,
            None => Some(AdapterConfig::from_settings(lora)),
        },
        lora_dropout: lora.dropout,
        learn_temperature: config.objective.learn_temperature,
        dtype: device::dtype(config.backend.dtype),
        allow_nan: config.model.allow_nan,
        new_words: None,
    }
}

/// Opens a model folder on `device`; of `config` only training, number format
/// and the orientation of pictures are used.
pub fn open_model(
    folder: &Path,
    device: &Device,
    config: &RunConfig,
) -> Result<OpenModel, TrainError> {
    checksums::verify(folder)?;
    let files = ModelFolder::open(folder)?;
    let tokenizer = Arc::new(Tokenizer::load(&files.tokenizer())?);
    let (words, rows) = (tokenizer.vocabulary_rows(), files.config.llm.vocab_size);
    if words > rows {
        return Err(TrainError::Run(format!(
            "{} has {words} words, but `vocab_size` in {} is {rows}: they are not of one model",
            files.tokenizer().display(),
            files.llm().join("config.json").display()
        )));
    }
    let vision = files.config.vision.as_ref();
    let preprocessor = vision
        .map(|vision| picture_settings(Some(&files.vision()), vision))
        .transpose()?
        .zip(vision)
        .map(|(pictures, vision)| ImagePreprocessor::new(pictures, vision.image_size))
        .transpose()?;
    let mut prompt = files.prompt.settings.clone();
    if prompt.template_file.is_some() {
        prompt.template_file = Some(folder.join("template.toml"));
    }
    let orientation = config.data.exif_orientation;
    let encoding = Encoding {
        tokenizer,
        prompt,
        preprocessor: preprocessor.map(|pictures| pictures.with_orientation(orientation)),
        visual_tokens: files.config.visual_tokens(),
    };
    memory::check_weights(&files.config, &config.backend)?;
    let sources = [files.llm(), files.vision(), files.head()].map(WeightSource::Checkpoint);
    let options = build_options(config, sources, files.adapter());
    let embedder = Embedder::build(files.config, &options, device)?;
    Ok(OpenModel { embedder, encoding })
}

/// How the pictures of a vision encoder are prepared: what its folder says, or as usual in its family.
///
/// # Errors
/// A file that cannot be read, or that asks for what is not implemented.
pub fn picture_settings(
    folder: Option<&Path>,
    vision: &VisionConfig,
) -> Result<PreprocessorConfig, TrainError> {
    let defaults = vision.family().traits.pictures;
    let said = folder.map(|folder| PreprocessorConfig::load(folder, defaults));
    let usual = || PreprocessorConfig::usual(defaults, vision.image_size as u32);
    Ok(said.transpose()?.flatten().unwrap_or_else(usual))
}

/// The model that a run of `config` begins with: a model folder, or built from its parts.
pub fn starting_model(
    config: &RunConfig,
    device: &Device,
    notes: &Notes,
    pairs: &PairData,
) -> Result<OpenModel, TrainError> {
    match &config.model.path {
        Some(folder) => open_model(folder, device, config),
        None => build_model(config, device, notes, pairs),
    }
}

/// Builds the model of a config from its parts, loaded or from scratch.
fn build_model(
    config: &RunConfig,
    device: &Device,
    notes: &Notes,
    pairs: &PairData,
) -> Result<OpenModel, TrainError> {
    let parts = Parts::open(&config.model)?;
    let settings = &config.model;
    let variant = settings.variant;
    let (tokenizer, new_tokens) = run_tokenizer(
        &config.tokenizer,
        &config.prompt,
        variant,
        parts.llm_folder(settings),
        &notes.set,
        pairs,
    )?;
    let tokenizer = Arc::new(tokenizer);
    let words = tokenizer.vocabulary_rows();
    let (llm, new_words) = match parts.llm(settings)? {
        Some(mut llm) => {
            let new_words = new_words(llm.vocab_size, words, &new_tokens);
            llm.vocab_size = new_words.rows();
            (llm, Some(new_words))
        }
        None => {
            let padded = padded_vocabulary(settings.llm.vocab_size, words)?;
            let llm = DecoderConfig::from_settings(&settings.llm, padded);
            (llm, None)
        }
    };
    let mut vision = variant
        .vision()
        .then(|| parts.vision(settings))
        .transpose()?;
    let preprocessor = vision
        .as_mut()
        .map(|vision| -> Result<ImagePreprocessor, TrainError> {
            let pictures = picture_settings(parts.pictures(settings), vision)?;
            if let Some((side, _)) = pictures.output_size() {
                vision.fit_pictures(side as usize);
            }
            Ok(ImagePreprocessor::new(pictures, vision.image_size)?)
        });
    let mut encoding = Encoding {
        tokenizer,
        prompt: config.prompt.clone(),
        preprocessor: preprocessor
            .transpose()?
            .map(|pictures| pictures.with_orientation(config.data.exif_orientation)),
        visual_tokens: 0,
    };
    let tokens = encoding.token_ids();
    let layout = config.prompt.layout;
    let sizes = parts.embedder(settings, layout, llm, vision, tokens)?;
    encoding.visual_tokens = sizes.visual_tokens();
    let options = BuildOptions {
        new_words,
        connector: parts.bare_connector(),
        ..build_options(config, parts.sources(settings)?, None)
    };
    memory::check_weights(&sizes, &config.backend)?;
    let embedder = Embedder::build(sizes, &options, device)?;
    Ok(OpenModel { embedder, encoding })
}

/// Rows of the embedding table: one a token, or as many as `model.llm.vocab_size` says.
fn padded_vocabulary(vocab_size: Option<usize>, tokens: usize) -> Result<usize, TrainError> {
    match vocab_size {
        Some(rows) if rows < tokens => Err(TrainError::Run(format!(
            "model.llm.vocab_size = {rows}: the tokenizer has {tokens} tokens, and each needs a row \
             of the embedding table; set it to {tokens} or more, or leave it out"
        ))),
        Some(rows) => Ok(rows),
        None => Ok(tokens),
    }
}

/// The rows that a lookup table of `stored_rows` needs for a tokenizer of `words`: those of its new
/// tokens, which may lie in the table's padding, and those that the table does not reach.
fn new_words(stored_rows: usize, words: usize, new_tokens: &[NewToken]) -> NewRows {
    let mut ids: Vec<u32> = new_tokens.iter().map(|token| token.id).collect();
    ids.extend(stored_rows as u32..words as u32);
    NewRows {
        stored_rows,
        known_rows: words,
        ids,
    }
}

/// What `mlrm.toml` records of the prompts.
pub fn prompt_record(encoding: &Encoding) -> PromptRecord {
    let mut settings = encoding.prompt.clone();
    if settings.template_file.is_some() {
        settings.template_file = Some(PathBuf::from("template.toml"));
    }
    PromptRecord { settings }
}

#[cfg(test)]
mod tests {
    use mlrm_config::MicroBatchNotes;

    use super::*;
    use crate::memory::Prompts;
    use crate::preflight::settle_micro_batch;
    use crate::small::small_config;

    fn plan(change: impl FnOnce(&mut RunConfig)) -> Result<RunPlan, String> {
        let home = tempfile::tempdir().unwrap();
        let mut config = small_config(home.path());
        change(&mut config);
        RunPlan::prepare(config, &|_, _| {}).map_err(|error| error.to_string())
    }

    #[test]
    fn steps_are_those_asked_for_or_the_passes_over_the_pairs() {
        let mut train = TrainSettings {
            batch_pairs: 8,
            epochs: 1.5,
            ..TrainSettings::default()
        };
        assert_eq!(total_steps(&train, 100), 19);
        train.epochs = 1e-9;
        assert_eq!(total_steps(&train, 100), 1);
        train.max_steps = Some(0);
        assert_eq!(total_steps(&train, 100), 0);
    }

    #[test]
    fn a_plan_has_every_part_of_its_config() {
        let plan = plan(|config| {
            config.train.max_steps = Some(10);
            config.train.eval_every_steps = 4;
        })
        .unwrap();
        assert_eq!((plan.total_steps, plan.notes.set.len()), (10, 60));
        // Batches of 18 notes, and all notes at steps 4, 8 and the end.
        assert_eq!(plan.looks_at_pictures(), 10 * 18 + 3 * 60);
        let sizes = &plan.embedder.config;
        assert_eq!(
            sizes.llm.vocab_size,
            plan.encoding.tokenizer.vocabulary_rows()
        );
        assert_eq!(plan.encoding.visual_tokens, 3);
        assert!(plan.encoding.preprocessor.is_some() && plan.embedder.vision.is_some());
        assert_eq!(plan.learning_rate.at(1), 3e-6);
        assert_eq!(plan.news(), [""; 0]);
    }

    #[test]
    fn batches_that_pairs_cannot_fill_are_refused_unless_none_is_drawn() {
        let few = |config: &mut RunConfig| config.train.batch_pairs = 1_000_000;
        let message = plan(few).err().unwrap();
        assert!(message.contains("train.batch_pairs"), "{message}");
        let none = plan(|config| {
            few(config);
            config.train.max_steps = Some(0);
        });
        assert!(none.is_ok(), "{:?}", none.err());
    }

    #[test]
    fn tables_of_words_are_padded_and_never_cut() {
        assert_eq!(padded_vocabulary(None, 300).unwrap(), 300);
        assert_eq!(padded_vocabulary(Some(320), 300).unwrap(), 320);
        let message = padded_vocabulary(Some(299), 300).unwrap_err().to_string();
        assert!(message.contains("has 300 tokens"), "{message}");
        let added = NewToken {
            content: "<image>".into(),
            id: 290,
        };
        // A new token within the table's padding, and two rows past its end.
        let rows = new_words(298, 300, &[added]);
        assert_eq!(rows.ids, [290, 298, 299]);
        assert_eq!((rows.stored_rows, rows.known_rows), (298, 300));
    }

    #[test]
    fn auto_becomes_a_number_before_the_first_step() {
        let mut plan = plan(|config| {
            config.train.micro_batch_notes = MicroBatchNotes::AUTO;
            config.backend.max_memory_bytes = Some(1 << 40);
        })
        .unwrap();
        let settle = |plan: &mut RunPlan, limit, earlier| {
            plan.config.train.micro_batch_notes = MicroBatchNotes::AUTO;
            plan.config.backend.max_memory_bytes = Some(limit);
            assert!(settle_micro_batch(plan, earlier, Prompts::OfNotes).unwrap());
            plan.config.train.micro_batch_notes.set().unwrap()
        };
        assert_eq!(settle(&mut plan, 1 << 40, None), 0);
        assert_eq!(settle(&mut plan, 1, None), 1);
        assert_eq!(settle(&mut plan, 1 << 40, Some(5)), 5);
        assert!(!settle_micro_batch(&mut plan, Some(3), Prompts::OfNotes).unwrap());
    }
}
