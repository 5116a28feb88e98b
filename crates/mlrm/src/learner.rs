//! A model as Burn's learner trains it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::{DType, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, ItemLazy, LossInput};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use mlrm_config::ObjectiveSettings;
use mlrm_data::batch::NoteBatch;
use mlrm_model::embedder::{Embedder, Embeddings};
use mlrm_train::TrainError;
use mlrm_train::encode::token_batch;
use mlrm_train::features::vision_features;
use mlrm_train::objective::Objective;

use crate::datasets::PairBatch;

/// A model and its objective: what [`SupervisedTraining`](burn::train::SupervisedTraining) asks for. It learns
/// from [`PairBatch`]es and embeds [`NoteBatch`]es to be measured.
///
/// What the trainer of mlrm has beyond that (batches in slices, loss scales, checkpoints that continue in the
/// midst of an epoch, steps that are refused and taken back) is not here: [`run`](crate::run) is that trainer.
#[derive(Module, Debug)]
pub struct PairLearner {
    /// The model.
    pub embedder: Embedder,
    #[module(skip)]
    objective: Objective,
    #[module(skip)]
    max_temperature_logit: Option<f64>,
    /// Steps taken, of which each has its dropout.
    #[module(skip)]
    steps: Arc<AtomicU64>,
}

impl PairLearner {
    /// `embedder` with the objective of `settings`, of which false negatives are the batcher's
    /// ([`Collate::with_partners`](crate::datasets::Collate::with_partners)).
    ///
    /// # Errors
    /// The correction of sampling bias, which is not here.
    pub fn new(embedder: Embedder, settings: &ObjectiveSettings) -> Result<Self, TrainError> {
        if settings.correct_sampling_bias {
            return Err(TrainError::Refused(
                "objective.correct_sampling_bias: Burn's learner does not know how often notes are drawn; \
                 leave it out, or train by `mlrm::run`"
                    .into(),
            ));
        }
        Ok(Self {
            embedder,
            objective: Objective::from_settings(settings),
            max_temperature_logit: settings.max_temperature_logit,
            steps: Arc::default(),
        })
    }

    /// Embeddings of a batch.
    ///
    /// # Panics
    /// A batch that another model's encoder made, or a device that failed.
    fn embeddings(&self, mut notes: NoteBatch) -> Embeddings {
        let embedder = &self.embedder;
        vision_features(embedder, &mut notes)
            .and_then(|features| {
                let (config, tokens) = (&embedder.config, token_batch(&notes));
                Ok(embedder.core.forward(config, &tokens, features, None)?)
            })
            .unwrap_or_else(|error| panic!("a batch cannot be embedded: {error}"))
    }

    /// With t no larger than it may be.
    fn bounded(mut self) -> Self {
        let head = &mut self.embedder.core.head;
        let learns = head.temperature.val().is_require_grad();
        if let Some(most) = self.max_temperature_logit.filter(|_| learns) {
            let bound = |t: Tensor<1>| t.inner().clamp_max(most).autodiff().require_grad();
            head.temperature = head.temperature.clone().map(bound);
        }
        self
    }
}

/// What a training step tells; all `[1]`.
#[derive(Debug, Clone)]
pub struct PairFigures {
    /// The minimised loss.
    pub loss: Tensor<1>,
    /// t before the update: logits are cosine · exp(t).
    pub temperature_logit: Tensor<1>,
    /// Mean of the fusion gate z: 1 keeps the language model's state, 0 the picture. Absent without a gate.
    pub gate_mean: Option<Tensor<1>>,
}

impl ItemLazy for PairFigures {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
            temperature_logit: self.temperature_logit.without_autodiff(),
            gate_mean: self.gate_mean.map(Tensor::without_autodiff),
        })
    }
}

impl Adaptor<LossInput> for PairFigures {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<PairFigures> for PairFigures {
    fn adapt(&self) -> PairFigures {
        self.clone()
    }
}

/// Embeddings of some notes.
#[derive(Debug, Clone)]
pub struct EmbeddedNotes {
    /// Rows of the note set. `[notes]`
    pub rows: Vec<u32>,
    /// Of length 1, `[notes, e]`.
    pub embeddings: Tensor<2>,
}

impl ItemLazy for EmbeddedNotes {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.embeddings.device().flush()?;
        Ok(self)
    }
}

impl Adaptor<EmbeddedNotes> for EmbeddedNotes {
    fn adapt(&self) -> EmbeddedNotes {
        self.clone()
    }
}

impl TrainStep for PairLearner {
    type Input = PairBatch;
    type Output = PairFigures;

    fn step(&self, batch: PairBatch) -> TrainOutput<PairFigures> {
        let PairBatch { notes, exclusions } = batch;
        let places: Vec<i32> = notes.places.iter().map(|&note| note as i32).collect();
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let _dropout = self.embedder.dropout.at_step(step, 0..notes.notes);
        let embeddings = self.embeddings(notes);
        let at_places = |of_notes: Tensor<2>| {
            let places = Tensor::from_ints(places.as_slice(), &of_notes.device());
            of_notes.select(0, places)
        };
        let gate_mean = embeddings.gate.clone().map(Tensor::mean);
        let placed = Embeddings {
            multimodal: at_places(embeddings.multimodal),
            visual: embeddings.visual.map(at_places),
            gate: None,
        };
        let temperature = self.embedder.core.head.temperature.val();
        let losses = self
            .objective
            .losses(&placed, temperature.clone(), &exclusions);
        let figures = PairFigures {
            loss: losses.total.clone(),
            temperature_logit: temperature.cast(DType::F32),
            gate_mean: gate_mean.map(|gate| gate.cast(DType::F32)),
        };
        TrainOutput::new(self, losses.total.backward(), figures)
    }

    fn optimize(
        self,
        optimiser: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        optimiser.step(rate, self, gradients).bounded()
    }

    fn optimize_multi(
        self,
        optimiser: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: MultiGradientsParams,
    ) -> Self {
        optimiser.step_multi(rate, self, gradients).bounded()
    }
}

impl InferenceStep for PairLearner {
    type Input = NoteBatch;
    type Output = EmbeddedNotes;

    fn step(&self, notes: NoteBatch) -> EmbeddedNotes {
        EmbeddedNotes {
            rows: notes.rows.clone(),
            embeddings: self.embeddings(notes).multimodal,
        }
    }
}
