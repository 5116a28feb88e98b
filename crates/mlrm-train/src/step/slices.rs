//! A batch in slices: only what one of them needs for its gradient is held at a time.
//!
//! The loss couples all notes of a batch, but only by their embeddings. So all slices are embedded
//! without a graph, the loss gives the gradient of each embedding, and each slice is then embedded
//! again, with a graph, to carry its share of that gradient to the parameters (GradCache, Gao et al.,
//! arXiv 2101.06983). A batch of one slice is embedded once, with its graph.

use std::ops::Range;

use burn::tensor::Tensor;
use mlrm_data::batch::NoteBatch;
use mlrm_model::embedder::{Embedder, EmbedderCore, Embeddings, TokenBatch};
use mlrm_model::vision::VisionFeatures;

use crate::encode::{pixels, token_batch};
use crate::error::TrainError;
use crate::objective::EmbeddingGradients;
use crate::optimiser::{FlatGradients, add_gradients, flat_gradients};
use crate::phases::PhaseClock;

/// Some neighbouring notes of a batch.
struct Slice {
    /// Their places in the batch.
    notes: Range<usize>,
    tokens: TokenBatch,
    /// The encoder is frozen: what it made of the pictures serves both passes.
    features: Option<VisionFeatures>,
}

/// A batch that was embedded, and what its backward pass needs.
pub(super) struct EmbeddedBatch {
    /// Of all notes, outside the autodiff graph.
    pub embeddings: Embeddings,
    slices: Vec<Slice>,
    /// The embeddings of the only slice in their graph.
    graph: Option<Embeddings>,
    /// The step whose dropout masks all passes share.
    step: u64,
}

impl EmbeddedBatch {
    /// Embeds `batch` in slices of `slice_notes`, 0 for all at once, with the dropout of `step`.
    pub fn new(
        embedder: &Embedder,
        mut batch: NoteBatch,
        slice_notes: usize,
        step: u64,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Self, TrainError> {
        if slice_notes == 0 || slice_notes >= batch.notes {
            let notes = 0..batch.notes;
            let slice = Slice::new(embedder, &mut batch, notes, clock)?;
            let graph = slice.embed(embedder, &embedder.core, step, clock)?;
            return Ok(Self {
                embeddings: without_graph(graph.clone()),
                slices: vec![slice],
                graph: Some(graph),
                step,
            });
        }
        let core = embedder.inference();
        let (mut slices, mut parts) = (Vec::new(), Vec::new());
        for start in (0..batch.notes).step_by(slice_notes) {
            let notes = start..batch.notes.min(start + slice_notes);
            let slice = Slice::new(embedder, &mut batch.slice(notes.clone()), notes, clock)?;
            parts.push(slice.embed(embedder, &core, step, clock)?);
            slices.push(slice);
        }
        Ok(Self {
            embeddings: gather(parts),
            slices,
            graph: None,
            step,
        })
    }

    /// What `gradients` of the embeddings are as gradients of the parameters.
    pub fn backward(
        self,
        embedder: &Embedder,
        gradients: &EmbeddingGradients,
        clock: &mut PhaseClock<'_>,
    ) -> Result<FlatGradients, TrainError> {
        let core = &embedder.core;
        if let Some(graph) = self.graph {
            let sum = backward(core, graph, gradients.clone());
            clock.lap("backward")?;
            return Ok(sum);
        }
        let mut sum = FlatGradients::new();
        for slice in self.slices {
            let graph = slice.embed(embedder, core, self.step, clock)?;
            let gradients = gradients.slice(slice.notes);
            add_gradients(&mut sum, backward(core, graph, gradients));
            clock.lap("backward")?;
        }
        Ok(sum)
    }
}

impl Slice {
    /// `batch` holds the slice alone; `notes` are its places in the whole batch.
    fn new(
        embedder: &Embedder,
        batch: &mut NoteBatch,
        notes: Range<usize>,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Self, TrainError> {
        let device = embedder.core.head.temperature.val().device();
        let pixels = pixels(batch, &device.without_autodiff());
        let features = pixels.and_then(|pixels| embedder.encode_vision(pixels));
        clock.lap("vision")?;
        Ok(Self {
            notes,
            tokens: token_batch(batch),
            features,
        })
    }

    /// Its embeddings by `core`, which is that of `embedder` or a copy without autodiff.
    fn embed(
        &self,
        embedder: &Embedder,
        core: &EmbedderCore,
        step: u64,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Embeddings, TrainError> {
        let _dropout = embedder.dropout.at_step(step, self.notes.clone());
        let features = self.features.clone();
        let inputs = core.llm_inputs(&embedder.config, &self.tokens, features, None)?;
        clock.lap("connector")?;
        let embeddings = core.embeddings(inputs, None);
        clock.lap("llm_forward")?;
        Ok(embeddings)
    }
}

fn without_graph(embeddings: Embeddings) -> Embeddings {
    Embeddings {
        multimodal: embeddings.multimodal.inner(),
        visual: embeddings.visual.map(Tensor::inner),
        gate: embeddings.gate.map(Tensor::inner),
    }
}

/// The embeddings of all slices, one below the other.
fn gather(parts: Vec<Embeddings>) -> Embeddings {
    let (mut multimodal, mut visual, mut gate) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        multimodal.push(part.multimodal);
        visual.extend(part.visual);
        gate.extend(part.gate);
    }
    let optional = |parts: Vec<Tensor<2>>| (!parts.is_empty()).then(|| Tensor::cat(parts, 0));
    Embeddings {
        multimodal: Tensor::cat(multimodal, 0),
        visual: optional(visual),
        gate: optional(gate),
    }
}

/// The gradients of the parameters that the embeddings of a slice depend on: those of the products
/// of embeddings and their gradients.
fn backward(
    core: &EmbedderCore,
    graph: Embeddings,
    gradients: EmbeddingGradients,
) -> FlatGradients {
    let product =
        |embeddings: Tensor<2>, gradient: Tensor<2>| (embeddings * gradient.autodiff()).sum();
    let mut sum = product(graph.multimodal, gradients.multimodal);
    if let (Some(visual), Some(gradient)) = (graph.visual, gradients.visual) {
        sum = sum + product(visual, gradient);
    }
    // Nothing on the way to the embeddings learns where no gradient is tracked.
    match sum.is_tracked() {
        true => flat_gradients(core, sum.backward()),
        false => FlatGradients::new(),
    }
}
