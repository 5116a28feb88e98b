//! What a decoder reads.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::nn::Place;

/// Embeddings, and what is known of the pictures among them.
#[derive(Debug, Clone)]
pub struct DecoderInput {
    /// Token embeddings with visual tokens in their places, `[batch, seq, width]`.
    pub embeds: Tensor<3>,
    /// Where each position stands for the rotary angles, row-major `[batch, seq]`; `None` where all count along the
    /// sequence.
    pub places: Option<Arc<[Place]>>,
    /// What is added to the outputs of the first layers, one each, `[batch, seq, width]`: deeper features of the
    /// pictures at their positions, zeros elsewhere (DeepStack, arXiv 2406.04334).
    pub deep: Vec<Tensor<3>>,
}

impl From<Tensor<3>> for DecoderInput {
    /// Text, or visual tokens that are read as text is.
    fn from(embeds: Tensor<3>) -> Self {
        Self {
            embeds,
            places: None,
            deep: Vec::new(),
        }
    }
}

/// The output `x` of layer `index` with what is added to it.
pub(super) fn deepened(x: Tensor<3>, deep: &[Tensor<3>], index: usize) -> Tensor<3> {
    match deep.get(index) {
        Some(features) => x + features.clone(),
        None => x,
    }
}
