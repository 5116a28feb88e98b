//! The whole embedder (method §2): vision, connector, decoder, pooling, late fusion, head.

mod build;
mod build_head;
mod checkpointed;
mod config;
mod folder;
mod fork;
mod layout;

pub(crate) use build::llm_names;
pub use build::{BuildOptions, WeightSource, llm_adapters};
pub(crate) use build_head::CONNECTOR_NAMES;
pub use checkpointed::EmbedderCheckpoints;
pub use config::{EmbedderConfig, FusionConfig, PromptRecord, TokenIds};
pub(crate) use folder::write_part;
pub use folder::{ModelFolder, Provenance, WrittenPart};
pub use layout::{ImageSpan, SequenceLayout, TokenBatch};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_config::{Quantisation, Tune};

use crate::adapter::AdapterConfig;
use crate::connector::{Connector, ConnectorConfig, ConnectorOutput};
use crate::decoder::{Decoder, DecoderInput, DecoderTrace};
use crate::error::ModelError;
use crate::fusion::Gate;
use crate::nn::{DropoutClock, Linear, linear, zeros};
use crate::transfer::upload;
use crate::vision::{FeatureCache, VisionFeatures, VisionTower};

/// Everything but the LLM and the vision encoder; field names are those of the authors' released
/// checkpoints.
#[derive(Module, Debug)]
pub struct Head {
    /// From vision features to visual tokens.
    pub connector: Option<Connector>,
    /// W_f: from the picture's vector to LLM width, `[v, d]`.
    pub mm_projector_latefusion: Option<Linear>,
    /// The late-fusion gate.
    pub gate: Option<Gate>,
    /// The last projection, `[d, e]`.
    pub linear: Option<Linear>,
    /// t: logits are cosine · exp(t), `[1]`.
    pub temperature: Param<Tensor<1>>,
}

/// The parts that can learn.
#[derive(Module, Debug)]
pub struct EmbedderCore {
    /// The language model.
    pub llm: Decoder,
    /// Connector, fusion, projection, temperature.
    pub head: Head,
}

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

/// The stages of a pass at one pooled position.
#[derive(Debug, Clone)]
pub struct PooledStages {
    /// Before the gate, `[notes, d]`.
    pub pooled: Tensor<2>,
    /// Gate values.
    pub gate_z: Option<Tensor<2>>,
    /// After the gate.
    pub fused: Tensor<2>,
    /// After the last projection.
    pub projected: Tensor<2>,
}

/// What the language model reads of a batch: the connector's work (method §2.2, §2.3).
#[derive(Debug, Clone)]
pub struct LlmInputs {
    layout: SequenceLayout,
    /// Token embeddings with the visual tokens in their places, `[notes, T, d]`.
    input: DecoderInput,
    /// u = W_f c of the rows that have a picture; absent without late fusion or a picture.
    picture: Option<Picture>,
}

/// What late fusion reads of a batch.
#[derive(Debug, Clone)]
struct Picture {
    /// u = W_f c, `[pictures, d]`.
    values: Tensor<2>,
    /// The rows of the batch that they belong to; `None` for all.
    rows: Option<Vec<usize>>,
}

/// Every intermediate tensor of a pass, for checking and for saliency.
#[derive(Debug, Default)]
pub struct EmbedderTrace {
    /// Q-Former output, `[notes, V, width]`.
    pub qformer_output: Option<Tensor<3>>,
    /// What stands at the image positions, `[notes, V, d]`.
    pub visual_tokens: Option<Tensor<3>>,
    /// W_f c, `[notes, d]`.
    pub cls_projected: Option<Tensor<2>>,
    /// LLM input, `[notes, T, d]`.
    pub inputs_embeds: Option<Tensor<3>>,
    /// LLM states and attention taps.
    pub decoder: DecoderTrace,
    /// Stages at the final and, with mICL, the visual position.
    pub stages: Vec<PooledStages>,
}

impl Head {
    /// A head of zeros; see [`crate::weights`] for its values.
    pub(crate) fn new(config: &EmbedderConfig, device: &Device) -> Result<Self, ModelError> {
        let width = config.llm.word_embed_proj_dim;
        let vision_width = config.vision.as_ref().map_or(0, |v| v.hidden_size);
        let connector = config.connector.as_ref();
        let connector = connector.map(|c| Connector::new(c, &config.projector, width, device));
        let fusion = config.fusion.as_ref();
        Ok(Self {
            connector: connector.transpose()?,
            mm_projector_latefusion: fusion.map(|_| linear(vision_width, width, false, device)),
            gate: fusion.map(|f| Gate::new(f.kind, width, f.hidden_size, device)),
            linear: (config.head_dim > 0).then(|| linear(width, config.head_dim, false, device)),
            temperature: zeros([1], device),
        })
    }

    /// Visual tokens from the features that the connector reads, `[notes, V, d]`, and what belongs to them.
    fn visual_tokens(
        &self,
        features: Tensor<3>,
        trace: &mut Option<&mut EmbedderTrace>,
    ) -> Option<ConnectorOutput> {
        let output = self.connector.as_ref()?.forward(features);
        if let Some(trace) = trace {
            trace.qformer_output = output.qformer.clone();
            trace.visual_tokens = Some(output.visual_tokens.clone());
        }
        Some(output)
    }

    /// Embeddings from the pooled states, `[notes, 1 or 2, d]`, and the stages of each position.
    fn embeddings(
        &self,
        pooled: Tensor<3>,
        picture: Option<&Picture>,
    ) -> (Embeddings, Vec<PooledStages>) {
        let [notes, count, width] = pooled.dims();
        let at = |index: usize| pooled.clone().narrow(1, index, 1).reshape([notes, width]);
        let stages: Vec<PooledStages> = (0..count)
            .map(|index| self.stages(at(index), picture))
            .collect();
        let normalised = |index: usize| stages.get(index).map(|s| normalise(s.projected.clone()));
        let embeddings = Embeddings {
            multimodal: normalise(stages[0].projected.clone()),
            visual: normalised(1),
            gate: stages[0].gate_z.clone(),
        };
        (embeddings, stages)
    }

    /// Gate (of rows with a picture), projection, normalisation of one pooled state.
    fn stages(&self, pooled: Tensor<2>, picture: Option<&Picture>) -> PooledStages {
        let (fused, gate_z) = match (&self.gate, picture) {
            (Some(gate), Some(picture)) => {
                let (fused, z) = picture.fuse(gate, pooled.clone());
                (fused, Some(z))
            }
            _ => (pooled.clone(), None),
        };
        PooledStages {
            projected: self.project(fused.clone()),
            pooled,
            gate_z,
            fused,
        }
    }

    fn project(&self, fused: Tensor<2>) -> Tensor<2> {
        match &self.linear {
            Some(linear) => linear.forward(fused),
            None => fused,
        }
    }
}

impl Picture {
    /// The same rows with other values.
    fn map(self, values: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            values: values(self.values),
            rows: self.rows,
        }
    }

    /// `pooled` `[notes, d]` with the rows that have a picture put through the gate, and the gate's
    /// values for these.
    fn fuse(&self, gate: &Gate, pooled: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let Some(rows) = &self.rows else {
            return gate.forward(pooled, self.values.clone());
        };
        let notes = pooled.dims()[0];
        let index = |rows: &[usize]| rows.iter().map(|&row| row as i64).collect();
        let states = select_rows(pooled.clone(), index(rows));
        let (fused, z) = gate.forward(states, self.values.clone());
        let mut sources: Vec<usize> = (0..notes).collect();
        for (place, &row) in rows.iter().enumerate() {
            sources[row] = notes + place;
        }
        let table = Tensor::cat(vec![pooled, fused], 0);
        (select_rows(table, index(&sources)), z)
    }
}

impl EmbedderCore {
    /// A core of zeros; see [`crate::weights`] for its values.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn new(config: &EmbedderConfig, device: &Device) -> Result<Self, ModelError> {
        Ok(Self {
            llm: Decoder::new(&config.llm, device),
            head: Head::new(config, device)?,
        })
    }

    /// Embeddings of a batch (method §2.2 to §2.7): [`Self::llm_inputs`], then
    /// [`Self::embeddings`].
    ///
    /// `features` come from [`Embedder::encode_vision`], a row for each of `tokens`; without them the
    /// prompt's text alone is embedded: no visual tokens, no gate. So are rows that are
    /// [`TokenBatch::by_text`], whose features are not read.
    ///
    /// # Errors
    /// Inputs that do not fit each other or this variant.
    pub fn forward(
        &self,
        config: &EmbedderConfig,
        tokens: &TokenBatch,
        features: Option<VisionFeatures>,
        mut trace: Option<&mut EmbedderTrace>,
    ) -> Result<Embeddings, ModelError> {
        let inputs = self.llm_inputs(config, tokens, features, trace.as_deref_mut())?;
        Ok(self.embeddings(inputs, trace))
    }

    /// The first half of [`Self::forward`]: connector, token embeddings, and the picture's way to
    /// the gate.
    ///
    /// # Errors
    /// Inputs that do not fit each other or this variant.
    pub fn llm_inputs(
        &self,
        config: &EmbedderConfig,
        tokens: &TokenBatch,
        features: Option<VisionFeatures>,
        mut trace: Option<&mut EmbedderTrace>,
    ) -> Result<LlmInputs, ModelError> {
        let layout = config.layout(tokens)?;
        config.llm.check_length(layout.seq)?;
        let rows = tokens.picture_rows();
        let features = match (&rows, features) {
            (Some(rows), Some(_)) if rows.is_empty() => None,
            (Some(rows), Some(features)) => Some(features.select(rows)),
            (_, features) => features,
        };
        let picture = self.picture(features.as_ref(), &mut trace);
        let picture = picture.map(|values| Picture { values, rows });
        let input = self.decoder_input(config, tokens, &layout, features, &mut trace)?;
        Ok(LlmInputs {
            layout,
            input,
            picture,
        })
    }

    /// The second half of [`Self::forward`]: language model, pooling, gate, projection.
    pub fn embeddings(
        &self,
        inputs: LlmInputs,
        mut trace: Option<&mut EmbedderTrace>,
    ) -> Embeddings {
        let pooled = self.pooled(inputs.input, &inputs.layout, &mut trace);
        let (embeddings, stages) = self.head.embeddings(pooled, inputs.picture.as_ref());
        if let Some(trace) = trace {
            trace.stages = stages;
        }
        embeddings
    }

    /// Embeddings of the picture alone where the gate is its only path (variant `latefusion`):
    /// the picture's vector in place of the fused state.
    ///
    /// # Errors
    /// A variant without late fusion.
    pub fn forward_picture(&self, features: VisionFeatures) -> Result<Tensor<2>, ModelError> {
        let picture = self.picture(Some(&features), &mut None).ok_or_else(|| {
            let message = "this variant has no late fusion: it reads pictures as tokens";
            ModelError::config(&["variant"], message)
        })?;
        Ok(normalise(self.head.project(picture)))
    }

    /// u = W_f c, `[notes, d]`.
    fn picture(
        &self,
        features: Option<&VisionFeatures>,
        trace: &mut Option<&mut EmbedderTrace>,
    ) -> Option<Tensor<2>> {
        let (map, features) = (self.head.mm_projector_latefusion.as_ref()?, features?);
        let picture = map.forward(features.summary.clone());
        if let Some(trace) = trace {
            trace.cls_projected = Some(picture.clone());
        }
        Some(picture)
    }

    /// Token embeddings with the visual tokens in their places, `[notes, T, d]`, and what else is read of the pictures.
    fn decoder_input(
        &self,
        config: &EmbedderConfig,
        tokens: &TokenBatch,
        layout: &SequenceLayout,
        features: Option<VisionFeatures>,
        trace: &mut Option<&mut EmbedderTrace>,
    ) -> Result<DecoderInput, ModelError> {
        let (notes, seq) = (tokens.notes(), tokens.seq);
        let device = self.head.temperature.val().device();
        let data = TensorData::new(tokens.input_ids.clone(), [notes, seq]);
        let words = self.llm.embed(upload(data, &device));
        let none = tokens.picture_rows().is_some_and(|rows| rows.is_empty());
        let input = if tokens.image_index.is_some() && !none {
            let missing = "the prompt holds an image token but the batch has no picture";
            let features = features.ok_or_else(|| ModelError::batch(missing))?;
            let visual = self.head.visual_tokens(features.positions, trace);
            let missing = "the prompt holds an image token but the model has no connector";
            let visual = visual.ok_or_else(|| ModelError::config(&["connector"], missing))?;
            let grid = config.connector.as_ref().and_then(ConnectorConfig::grid);
            let grid = grid.filter(|_| config.llm.multimodal_rope.is_some());
            let elsewhere = words.zeros_like().inner();
            let deep = visual.deep.into_iter();
            DecoderInput {
                embeds: splice(words, visual.visual_tokens, layout),
                places: grid.map(|grid| layout.places(grid).into()),
                deep: deep
                    .map(|deep| {
                        let elsewhere = match deep.is_autodiff() {
                            true => elsewhere.clone().autodiff(),
                            false => elsewhere.clone(),
                        };
                        splice(elsewhere, deep, layout)
                    })
                    .collect(),
            }
        } else {
            words.into()
        };
        if let Some(trace) = trace {
            trace.inputs_embeds = Some(input.embeds.clone());
        }
        Ok(input)
    }

    /// Hidden states at the pooled positions, `[notes, 1 or 2, d]`.
    fn pooled(
        &self,
        input: DecoderInput,
        layout: &SequenceLayout,
        trace: &mut Option<&mut EmbedderTrace>,
    ) -> Tensor<3> {
        let wanted = layout.pooled_positions();
        let Some(trace) = trace else {
            return self.llm.forward_pooled(input, &wanted);
        };
        let [notes, seq, width] = input.embeds.dims();
        let hidden = self.llm.forward(input, Some(&mut trace.decoder));
        let count = wanted.len() / notes;
        let row = |(n, p): (usize, &usize)| (n / count * seq + p) as i64;
        let rows: Vec<i64> = wanted.iter().enumerate().map(row).collect();
        select_rows(hidden.reshape([notes * seq, width]), rows).reshape([notes, count, width])
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

    /// Pictures that have passed through the vision encoder so far, for this embedder or a copy of it.
    pub fn pictures_encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Whether the model reads pictures at all.
    pub fn reads_pictures(&self) -> bool {
        self.vision.is_some()
    }
}

/// The rows of `table` `[rows, width]` at `index`, `[count, width]`.
fn select_rows(table: Tensor<2>, index: Vec<i64>) -> Tensor<2> {
    let count = index.len();
    let device = table.device();
    table.select(0, upload(TensorData::new(index, [count]), &device))
}

/// Visual tokens `[pictures, V, d]` set into the words of a batch.
fn splice(words: Tensor<3>, visual: Tensor<3>, layout: &SequenceLayout) -> Tensor<3> {
    let [notes, seq, width] = words.dims();
    let [pictures, tokens, _] = visual.dims();
    let table = Tensor::cat(
        vec![
            words.reshape([notes * seq, width]),
            visual.reshape([pictures * tokens, width]),
        ],
        0,
    );
    select_rows(table, layout.source_rows(seq)).reshape([notes, layout.seq, width])
}

/// `x / max(‖x‖₂, 1e-12)` by rows, in f32, as `torch.nn.functional.normalize`: a row of zeros stays
/// zeros, and its gradient finite.
pub fn normalise(x: Tensor<2>) -> Tensor<2> {
    const EPSILON: f32 = 1e-12;
    let x = x.cast(DType::F32);
    // Bounded before the root, whose slope at zero is infinite.
    let squares = x.clone().square().sum_dim(1);
    x / squares.clamp_min(EPSILON * EPSILON).sqrt()
}
