//! The whole embedder (method §2): vision, connector, decoder, pooling, late fusion, head.

mod build;
mod build_head;
mod checkpointed;
mod config;
mod folder;
mod fork;
mod forward;
mod head;
mod layout;
mod states;

pub(crate) use build::llm_names;
pub use build::{BuildOptions, WeightSource, llm_adapters};
pub(crate) use build_head::CONNECTOR_NAMES;
pub use checkpointed::EmbedderCheckpoints;
pub use config::{EmbedderConfig, FusionConfig, PromptRecord, TokenIds};
pub(crate) use folder::write_part;
pub use folder::{ModelFolder, Provenance, WrittenPart};
pub use forward::{EmbedderCore, EmbedderTrace, LlmInputs};
pub use head::{Head, PooledStages, normalise};
pub use layout::{ImageSpan, SequenceLayout, TokenBatch, VisualTokens};
pub use states::{STATE_CACHE_BYTES, StateCache};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mlrm_config::{Quantisation, Tune};

use crate::adapter::AdapterConfig;
use crate::nn::DropoutClock;
use crate::vision::{FeatureCache, VisionFeatures, VisionTower};

/// The whole model. The vision encoder is frozen and lives outside the autodiff graph: as a module of Burn the
/// model is what can learn, [`Self::core`].
#[derive(Module, Debug)]
pub struct Embedder {
    /// Sizes and options.
    #[module(skip)]
    pub config: EmbedderConfig,
    /// Absent for the variant `text`.
    #[module(skip)]
    pub vision: Option<VisionTower>,
    /// What it made of pictures before, where that is kept.
    #[module(skip)]
    pub features: Option<Arc<FeatureCache>>,
    /// See [`Self::pictures_encoded`].
    #[module(skip)]
    pub(crate) encoded: Arc<AtomicU64>,
    /// The parts that can learn.
    pub core: EmbedderCore,
    /// Which weights of the language model learn.
    #[module(skip)]
    pub tune: Tune,
    /// How its matrices are held.
    #[module(skip)]
    pub quantisation: Quantisation,
    /// What the language model's adapters are, where it has any.
    #[module(skip)]
    pub adapter: Option<AdapterConfig>,
    /// Turns the adapters' dropout on for a training step.
    #[module(skip)]
    pub dropout: DropoutClock,
}

/// Embeddings of a batch.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// L2-normalised multimodal embeddings in f32, `[notes, e]`.
    pub multimodal: Tensor<2>,
    /// L2-normalised visual embeddings (mICL), `[notes, e]`. Those of notes without a picture are
    /// their multimodal ones.
    pub visual: Option<Tensor<2>>,
    /// Gate values of the multimodal states of notes that have a picture, `[notes, d]` or
    /// `[notes, 1]`.
    pub gate: Option<Tensor<2>>,
}

impl Embeddings {
    /// The same on `device`.
    pub fn to_device(self, device: &Device) -> Self {
        Self {
            multimodal: self.multimodal.to_device(device),
            visual: self.visual.map(|all| all.to_device(device)),
            gate: self.gate.map(|all| all.to_device(device)),
        }
    }

    /// The embeddings of all `parts`, one below the other; `None` of none.
    pub fn cat(parts: Vec<Self>) -> Option<Self> {
        let (mut multimodal, mut visual, mut gate) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            multimodal.push(part.multimodal);
            visual.extend(part.visual);
            gate.extend(part.gate);
        }
        let all = |parts: Vec<Tensor<2>>| (!parts.is_empty()).then(|| Tensor::cat(parts, 0));
        Some(Self {
            multimodal: all(multimodal)?,
            visual: all(visual),
            gate: all(gate),
        })
    }
}

impl Embedder {
    /// The selected vision features, outside the autodiff graph.
    ///
    /// `pixels`: preprocessed pictures, `[notes, 3, side, side]`.
    pub fn encode_vision(&self, pixels: Tensor<4>) -> Option<VisionFeatures> {
        let vision = self.vision.as_ref()?;
        let pictures = pixels.dims()[0] as u64;
        self.encoded.fetch_add(pictures, Ordering::Relaxed);
        Some(vision.encode(pixels.inner(), self.config.features))
    }

    /// The same of one picture in its own grid, `[1, 3, height, width]`.
    pub fn encode_own(&self, pixels: Tensor<4>) -> Option<VisionFeatures> {
        let vision = self.vision.as_ref()?;
        self.encoded.fetch_add(1, Ordering::Relaxed);
        Some(vision.encode_own(pixels.inner(), self.config.features))
    }

    /// The core without autodiff: the same weights, no gradients kept.
    pub fn inference(&self) -> EmbedderCore {
        self.core.valid()
    }

    /// The same model with its adapters made a part of the weights that they stand beside. Weights
    /// that are held quantised become f32 where they have an adapter.
    pub fn merged(mut self) -> Self {
        self.core.llm = self.core.llm.materialize();
        self.adapter = None;
        // The file of an earlier checkpoint holds the weights without the adapters.
        self.tune = Tune::Full;
        self
    }

    /// Whether a prompt's pooled state is the same in every step: its language model does not learn, and what it reads
    /// has no visual tokens.
    pub fn states_are_fixed(&self) -> bool {
        self.tune == Tune::Frozen && !self.config.variant.image_tokens()
    }

    /// Computes pooled states once for each prompt from now on, where [`Self::states_are_fixed`].
    pub fn keep_states(&mut self) {
        self.core.states = self.states_are_fixed().then(Arc::default);
    }

    /// Pictures that have passed through the vision encoder so far, for this embedder or a copy of it.
    pub fn pictures_encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Whether the model reads pictures at all.
    pub fn reads_pictures(&self) -> bool {
        self.vision.is_some()
    }
}
