//! From settings to a run that can start: data opened, model built, everything checked.

mod model;
mod pictures;

use std::sync::Arc;

use burn::tensor::Device;
use mlrm_config::{BackendName, ObjectiveSettings, RunConfig, TrainSettings};
use mlrm_data::loader::{LoaderSettings, NoteEncoder, PairBatches};
use mlrm_data::order::Cursor;
use mlrm_data::prompt::{PromptStyle, Template};
use mlrm_data::split::PairData;
use mlrm_events::KeptFeatures;
use mlrm_model::embedder::{Embedder, STATE_CACHE_BYTES, StateCache};

use crate::corpus::{Encoding, Modality, Notes, PictureProgress, run_pairs};
use crate::error::TrainError;
use crate::features::{Keeping, keep_features, keep_same_features};
use crate::{device, schedule::LearningRate};
use model::looks_at_pictures;
pub use model::{OpenModel, open_model, prompt_record, starting_model};
pub use pictures::picture_settings;

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
    /// Positions of the longest prompt that there can be.
    pub longest_prompt: usize,
    /// The model, initial or loaded.
    pub embedder: Embedder,
    /// What is kept of its features of pictures; absent where nothing is.
    pub kept_features: Option<KeptFeatures>,
    /// Optimiser steps of the whole run.
    pub total_steps: usize,
    /// Learning rate of every step.
    pub learning_rate: LearningRate,
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
        if config.model.path.is_none() {
            // All its styles are checked, before anything is drawn or read.
            Template::load(&config.prompt, PromptStyle::Text)?;
        }
        let mut devices = open_devices(&config, computes)?;
        let (device_name, device) = devices.remove(0);
        let notes = Notes::open(&config.data, looks_at_pictures(&config.model)?, progress)?;
        let pairs = run_pairs(&config.data, &notes.set, config.run.seed)?;
        let OpenModel { embedder, encoding } = starting_model(&config, &device, &notes, &pairs)?;
        // Evaluation embeds every note: what it would refuse is refused before anything is written.
        let encoder = encoding.encoder(&notes, &embedder, Modality::Both)?;
        let longest_prompt = encoder.prompts().max_tokens();
        embedder.config.llm.check_length(longest_prompt)?;
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
            longest_prompt,
            embedder,
            kept_features: None,
            total_steps,
            config,
        })
    }

    /// The encoder of the run's notes for its model.
    ///
    /// # Errors
    /// As [`Encoding::encoder`].
    pub fn encoder(&self) -> Result<Arc<NoteEncoder>, TrainError> {
        let encoder = self
            .encoding
            .encoder(&self.notes, &self.embedder, Modality::Both)?;
        Ok(Arc::new(encoder))
    }

    /// The batches of training from `cursor` on.
    ///
    /// # Errors
    /// As [`PairBatches::new`].
    pub fn batches(
        &self,
        encoder: &Arc<NoteEncoder>,
        cursor: Cursor,
    ) -> Result<PairBatches, TrainError> {
        let pairs = Arc::from(self.pairs.pairs.train.as_slice());
        let loader = LoaderSettings::new(&self.config.data, &self.config.train);
        let seed = self.config.run.seed;
        let batches = PairBatches::new(Arc::clone(encoder), pairs, seed, cursor, loader)?;
        Ok(batches)
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

    /// Keeps features of pictures as the config asks, and states of a language model that does not learn.
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
        if self.pays_to_keep_states() {
            self.embedder.keep_states();
        }
        Ok(())
    }

    /// Whether a run whose language model does not learn is faster with its states kept: there are no visual tokens among
    /// them, all of them fit, and each process looks at its notes more than once, and always sees them alike.
    pub(crate) fn pays_to_keep_states(&self) -> bool {
        let notes = self.notes.set.len() as u64;
        let state = self.embedder.config.llm.word_embed_proj_dim * size_of::<f32>();
        let entry = StateCache::entry_bytes(self.longest_prompt as u64, state as u64);
        // Each process keeps its own.
        let processes = self.workers / (1 + self.others.len());
        !self.embedder.config.variant.image_tokens()
            && self.config.train.swap.share == 0.0
            && notes.saturating_mul(entry) <= STATE_CACHE_BYTES
            && self.looks_at_pictures() / processes.max(1) as u64 >= 2 * notes
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

/// Refuses a batch that there are too few pairs for: it would hold pairs twice, each a negative of
/// itself.
fn check_batch(settings: &TrainSettings, pairs: usize, steps: usize) -> Result<(), TrainError> {
    let batch = settings.batch_pairs;
    if steps == 0 || pairs >= batch {
        return Ok(());
    }
    Err(TrainError::Refused(format!(
        "there are {pairs} training pairs, fewer than the {batch} of a batch (train.batch_pairs); lower \
         it, or get more pairs: see `mlrm data check`, and the bounds and fractions of data.pairs"
    )))
}

/// Refuses leading dimensions that the embeddings do not have.
fn check_sizes(settings: &ObjectiveSettings, size: usize) -> Result<(), TrainError> {
    match settings.matryoshka_dims.iter().find(|&&dim| dim > size) {
        Some(dim) => Err(TrainError::Refused(format!(
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
                return Err(TrainError::Refused(format!(
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
