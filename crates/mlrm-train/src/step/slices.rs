//! A batch in slices: only what one of them needs for its gradient is held at a time.
//!
//! The loss couples all notes of a batch, but only by their embeddings. So all slices are embedded
//! without a graph, the loss gives the gradient of each embedding, and each slice is then embedded
//! again, with a graph, to carry its share of that gradient to the parameters (GradCache, Gao et al.,
//! arXiv 2101.06983). A batch of one slice is embedded once, with its graph.

use std::ops::Range;

use burn::tensor::Tensor;
use mlrm_data::batch::NoteBatch;
use mlrm_model::decoder::along;
use mlrm_model::embedder::{
    Embedder, EmbedderCheckpoints, EmbedderCore, Embeddings, LlmInputs, TokenBatch,
};
use mlrm_model::nn::DropoutOn;
use mlrm_model::vision::VisionFeatures;
use serde::{Deserialize, Serialize};

use crate::encode::token_batch;
use crate::error::TrainError;
use crate::features::vision_features;
use crate::objective::EmbeddingGradients;
use crate::optimiser::{FlatGradients, GradientSum, flat_gradients};
use crate::phases::PhaseClock;

/// How the notes of a step pass through the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The step whose dropout masks all passes share.
    pub step: u64,
    /// As [`StepContext::micro_batch_notes`](super::StepContext::micro_batch_notes).
    pub micro_batch_notes: usize,
    /// As [`StepContext::checkpoint_layers`](super::StepContext::checkpoint_layers).
    pub checkpoint_layers: bool,
    /// As [`StepContext::loss_scale`](super::StepContext::loss_scale).
    pub loss_scale: f64,
    /// As [`StepContext::most_notes`](super::StepContext::most_notes).
    pub most_notes: Option<usize>,
}

/// How the slices of a batch pass through the model.
pub(crate) struct Passes<'a> {
    embedder: &'a Embedder,
    /// The same weights outside autodiff.
    frozen: EmbedderCore,
    work: Work,
}

/// Some neighbouring notes of a share of a batch.
struct Slice {
    /// Their places in the share.
    notes: Range<usize>,
    /// Where the share begins in the batch.
    first: usize,
    tokens: TokenBatch,
    /// The encoder is frozen: what it made of the pictures serves both passes.
    features: Option<VisionFeatures>,
}

impl Slice {
    /// What `batch` holds; `notes` are its places in the share that begins at `first`.
    fn new(
        batch: &NoteBatch,
        notes: Range<usize>,
        first: usize,
        features: Option<VisionFeatures>,
    ) -> Self {
        Self {
            notes,
            first,
            tokens: token_batch(batch),
            features,
        }
    }
}

/// What the gradients of a slice are computed from.
enum Graph {
    /// Its embeddings, with every activation behind them.
    Whole(Embeddings),
    /// What the layers of the language model read.
    Checkpoints(EmbedderCheckpoints),
}

/// A share of a batch that was embedded, and what its backward pass needs.
pub(crate) struct EmbeddedBatch {
    /// Of its notes, outside the autodiff graph; `None` of none.
    pub embeddings: Option<Embeddings>,
    slices: Vec<Slice>,
    /// That of the only slice.
    graph: Option<Graph>,
}

impl EmbeddedBatch {
    /// Embeds `batch`, which is the whole of a step's or a share of it that begins at the note `first`.
    ///
    /// # Errors
    /// Pictures without features; inputs that the model does not take.
    pub fn new(
        passes: &Passes<'_>,
        mut batch: NoteBatch,
        first: usize,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Self, TrainError> {
        if batch.notes == 0 {
            return Ok(Self {
                embeddings: None,
                slices: Vec::new(),
                graph: None,
            });
        }
        let slice_notes = passes.work.micro_batch_notes;
        let features = vision_features(passes.embedder, &mut batch)?;
        clock.lap("vision")?;
        if slice_notes == 0 || slice_notes >= batch.notes {
            let notes = 0..batch.notes;
            let mut slice = Slice::new(&batch, notes, first, features);
            let graph = passes.graph(&slice, clock)?;
            // It is run once only.
            slice.features = None;
            let embeddings = passes.values(&slice, &graph);
            clock.lap("llm_forward")?;
            return Ok(Self {
                embeddings: Some(embeddings),
                slices: vec![slice],
                graph: Some(graph),
            });
        }
        let (mut slices, mut parts) = (Vec::new(), Vec::new());
        for start in (0..batch.notes).step_by(slice_notes) {
            let notes = start..batch.notes.min(start + slice_notes);
            let features = features.clone().map(|all| all.slice(notes.clone()));
            let slice = Slice::new(&batch.slice(notes.clone()), notes, first, features);
            parts.push(passes.embed(&slice, clock)?);
            slices.push(slice);
        }
        Ok(Self {
            embeddings: Embeddings::cat(parts),
            slices,
            graph: None,
        })
    }

    /// What `gradients` of the share's embeddings are as gradients of the parameters.
    ///
    /// # Errors
    /// A device that fails.
    pub fn backward(
        mut self,
        passes: &Passes<'_>,
        gradients: &EmbeddingGradients,
        clock: &mut PhaseClock<'_>,
    ) -> Result<FlatGradients, TrainError> {
        let mut sum = GradientSum::default();
        for slice in self.slices {
            let graph = match self.graph.take() {
                Some(graph) => graph,
                None => passes.graph(&slice, clock)?,
            };
            let of_slice = gradients.slice(slice.notes.clone());
            passes.backward(&slice, graph, of_slice, &mut sum);
            clock.lap("backward")?;
        }
        let mut sum = sum.total();
        let loss_scale = passes.work.loss_scale;
        if loss_scale != 1.0 {
            for gradient in sum.values_mut() {
                *gradient = gradient.clone().div_scalar(loss_scale);
            }
        }
        Ok(sum)
    }
}

impl<'a> Passes<'a> {
    /// Passes through `embedder`.
    pub fn new(embedder: &'a Embedder, work: &Work) -> Self {
        Self {
            embedder,
            frozen: embedder.inference(),
            work: *work,
        }
    }

    /// What they pass through.
    pub fn embedder(&self) -> &'a Embedder {
        self.embedder
    }

    /// The embeddings of a slice, without a graph.
    fn embed(&self, slice: &Slice, clock: &mut PhaseClock<'_>) -> Result<Embeddings, TrainError> {
        let _dropout = self.dropout(slice);
        let inputs = self.inputs(&self.frozen, slice, clock)?;
        let embeddings = self.frozen.embeddings(inputs, None);
        clock.lap("llm_forward")?;
        Ok(embeddings)
    }

    /// What the backward pass of a slice begins at.
    fn graph(&self, slice: &Slice, clock: &mut PhaseClock<'_>) -> Result<Graph, TrainError> {
        if let Some(most) = self
            .work
            .most_notes
            .filter(|&most| slice.notes.len() > most)
        {
            panic!(
                "out of memory: {} notes, and no more than {most} fit",
                slice.notes.len()
            );
        }
        let _dropout = self.dropout(slice);
        let core = &self.embedder.core;
        let inputs = self.inputs(core, slice, clock)?;
        let graph = match self.work.checkpoint_layers && !inputs.are_known() {
            false => Graph::Whole(core.embeddings(inputs, None)),
            true => Graph::Checkpoints(EmbedderCheckpoints::new(core, &self.frozen, inputs)),
        };
        clock.lap("llm_forward")?;
        Ok(graph)
    }

    /// The embeddings of a slice from its graph, outside it.
    fn values(&self, slice: &Slice, graph: &Graph) -> Embeddings {
        match graph {
            Graph::Whole(embeddings) => Embeddings {
                multimodal: embeddings.multimodal.clone().inner(),
                visual: embeddings.visual.clone().map(Tensor::inner),
                gate: embeddings.gate.clone().map(Tensor::inner),
            },
            Graph::Checkpoints(checkpoints) => {
                let _dropout = self.dropout(slice);
                checkpoints.embeddings(&self.frozen)
            }
        }
    }

    /// Adds to `sum` the gradients of the parameters that the embeddings of `slice` depend on.
    fn backward(
        &self,
        slice: &Slice,
        graph: Graph,
        gradients: EmbeddingGradients,
        sum: &mut GradientSum,
    ) {
        let core = &self.embedder.core;
        let scaled = |gradient: Tensor<2>| match self.work.loss_scale {
            1.0 => gradient,
            scale => gradient.mul_scalar(scale),
        };
        let of_embeddings = |embeddings: Embeddings| {
            let multimodal = along(embeddings.multimodal, scaled(gradients.multimodal));
            match (embeddings.visual, gradients.visual) {
                (Some(visual), Some(gradient)) => multimodal + along(visual, scaled(gradient)),
                _ => multimodal,
            }
        };
        match graph {
            Graph::Whole(embeddings) => {
                let number = of_embeddings(embeddings);
                // Nothing on the way to the embeddings may learn.
                if number.is_tracked() {
                    sum.add(flat_gradients(core, number.backward()));
                }
            }
            Graph::Checkpoints(checkpoints) => {
                let _dropout = self.dropout(slice);
                checkpoints.backward(core, of_embeddings, &mut |gradients| {
                    sum.add(flat_gradients(core, gradients));
                });
            }
        }
    }

    fn inputs(
        &self,
        core: &EmbedderCore,
        slice: &Slice,
        clock: &mut PhaseClock<'_>,
    ) -> Result<LlmInputs, TrainError> {
        let features = slice.features.clone();
        let inputs = core.llm_inputs(&self.embedder.config, &slice.tokens, features, None)?;
        // Where states are kept, those that were missing were computed by now.
        clock.lap(match inputs.are_known() {
            true => "llm_forward",
            false => "connector",
        })?;
        Ok(inputs)
    }

    fn dropout(&self, slice: &Slice) -> DropoutOn {
        let Range { start, end } = slice.notes;
        let places = slice.first + start..slice.first + end;
        self.embedder.dropout.at_step(self.work.step, places)
    }
}
