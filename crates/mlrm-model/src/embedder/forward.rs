//! The parts that can learn, and a batch's way through them.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use std::sync::Arc;

use super::head::{Picture, normalise, select_rows};
use super::{
    EmbedderConfig, Embeddings, Head, PooledStages, SequenceLayout, StateCache, TokenBatch,
};
use crate::decoder::{Decoder, DecoderInput, DecoderTrace};
use crate::error::ModelError;
use crate::transfer::upload;
use crate::vision::VisionFeatures;

/// The parts that can learn.
#[derive(Module, Debug)]
pub struct EmbedderCore {
    /// The language model.
    pub llm: Decoder,
    /// Connector, fusion, projection, temperature.
    pub head: Head,
    /// States of prompts that were computed before; see [`super::Embedder::keep_states`].
    #[module(skip)]
    pub states: Option<Arc<StateCache>>,
}

/// What the language model reads of a batch: the connector's work (method §2.2, §2.3).
#[derive(Debug, Clone)]
pub struct LlmInputs {
    pub(super) layout: SequenceLayout,
    /// Token embeddings with the visual tokens in their places, `[notes, T, d]`.
    pub(super) input: DecoderInput,
    /// u = W_f c of the rows that have a picture; absent without late fusion or a picture.
    pub(super) picture: Option<Picture>,
    /// Pooled states that need no pass through the language model, `[notes, 1, d]`.
    pub(super) states: Option<Tensor<3>>,
}

impl LlmInputs {
    /// Whether the language model's states are known, so that [`EmbedderCore::embeddings`] does not run it.
    pub fn are_known(&self) -> bool {
        self.states.is_some()
    }
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

impl EmbedderCore {
    /// A core of zeros; see [`crate::weights`] for its values.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn new(config: &EmbedderConfig, device: &Device) -> Result<Self, ModelError> {
        Ok(Self {
            llm: Decoder::new(&config.llm, device),
            head: Head::new(config, device)?,
            states: None,
        })
    }

    /// Embeddings of a batch (method §2.2 to §2.7): [`Self::llm_inputs`], then
    /// [`Self::embeddings`].
    ///
    /// `features` come from [`Embedder::encode_vision`](super::Embedder::encode_vision), a row for each of `tokens`; without them the
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
        let layout = config.layout(tokens, features.as_ref())?;
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
        let states = match (&self.states, trace) {
            (Some(cache), None) => Some(self.known_states(cache, tokens, &layout, &input)?),
            _ => None,
        };
        Ok(LlmInputs {
            layout,
            input,
            picture,
            states,
        })
    }

    /// The second half of [`Self::forward`]: language model, pooling, gate, projection.
    pub fn embeddings(
        &self,
        inputs: LlmInputs,
        mut trace: Option<&mut EmbedderTrace>,
    ) -> Embeddings {
        let pooled = match inputs.states {
            Some(states) => states,
            None => self.pooled(inputs.input, &inputs.layout, &mut trace),
        };
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
            let by_place = config.llm.multimodal_rope.is_some();
            let elsewhere = words.zeros_like().inner();
            let deep = visual.deep.into_iter();
            DecoderInput {
                embeds: splice(words, visual.visual_tokens, layout),
                places: layout.places().filter(|_| by_place).map(Into::into),
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

/// The rows of a batch `[notes, T, d]` at `places`, `[places, T, d]`.
pub(super) fn rows_at(batch: Tensor<3>, places: &[usize]) -> Tensor<3> {
    let [notes, seq, width] = batch.dims();
    let index = places.iter().map(|&place| place as i64).collect();
    select_rows(batch.reshape([notes, seq * width]), index).reshape([places.len(), seq, width])
}

/// Visual tokens `[pictures, V, d]`, or those of all pictures `[1, sum of V, d]`, set into the words of a batch.
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
