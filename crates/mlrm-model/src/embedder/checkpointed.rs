//! [`EmbedderCore::embeddings`] with layers that are run again for their gradients.

use burn::tensor::{Gradients, Tensor};

use super::head::Picture;
use super::{EmbedderCore, Embeddings, LlmInputs};
use crate::decoder::{DecoderCheckpoints, along, leaf};

/// What a pass holds in place of the activations of the language model.
#[derive(Debug, Clone)]
pub struct EmbedderCheckpoints {
    decoder: DecoderCheckpoints,
    /// u = W_f c in its graph, `[notes, d]`.
    picture: Option<Picture>,
}

impl EmbedderCheckpoints {
    /// Runs the language model but for its last layer; `frozen` is `core` outside autodiff.
    pub fn new(core: &EmbedderCore, frozen: &EmbedderCore, inputs: LlmInputs) -> Self {
        let wanted = inputs.layout.pooled_positions();
        Self {
            decoder: DecoderCheckpoints::new(&core.llm, &frozen.llm, inputs.input, &wanted),
            picture: inputs.picture,
        }
    }

    /// The embeddings, outside the autodiff graph.
    pub fn embeddings(&self, frozen: &EmbedderCore) -> Embeddings {
        let pooled = self.decoder.output(&frozen.llm);
        let picture = self
            .picture
            .clone()
            .map(|picture| picture.map(Tensor::inner));
        frozen.head.embeddings(pooled, picture.as_ref()).0
    }

    /// Gives `collect` the gradients of every parameter of `core`, part by part; `of_embeddings` makes
    /// the number whose gradients they are.
    pub fn backward(
        self,
        core: &EmbedderCore,
        of_embeddings: impl FnOnce(Embeddings) -> Tensor<1>,
        collect: &mut dyn FnMut(Gradients),
    ) {
        let picture = self.picture.clone().map(|picture| picture.map(leaf));
        let mut of_picture = None;
        let of_output = |pooled| of_embeddings(core.head.embeddings(pooled, picture.as_ref()).0);
        let mut first = true;
        let of_inputs = self
            .decoder
            .backward(&core.llm, of_output, &mut |mut gradients| {
                if std::mem::take(&mut first) {
                    let picture = picture.as_ref();
                    of_picture =
                        picture.and_then(|picture| picture.values.grad_remove(&mut gradients));
                }
                collect(gradients);
            });
        let of_picture = match (self.picture, of_picture) {
            (Some(picture), Some(gradient)) if picture.values.is_tracked() => {
                Some(along(picture.values, gradient))
            }
            _ => None,
        };
        let inputs = of_inputs.into_iter().chain(of_picture);
        if let Some(sum) = inputs.reduce(|a, b| a + b) {
            collect(sum.backward());
        }
    }
}
