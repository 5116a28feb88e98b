//! Late fusion (method §2.5): a gate between the pooled LLM state and the picture's class feature.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use mlrm_config::FusionKind;

use crate::embedder::FusionConfig;
use crate::nn::{Linear, linear};
use crate::ops::gelu;

/// The gate. `out = z ⊙ h + (1 − z) ⊙ u`: z multiplies the LLM state h, not the picture u.
#[derive(Module, Debug)]
pub struct Gate {
    /// Vector gate: `[2d, d]`, without bias (NoteLLM-2, equation 9) unless [`FusionConfig::bias`].
    pub trans_all: Option<Linear>,
    /// Scalar gate: Linear-GELU-Linear to one value a note.
    pub mlp: Option<Vec<Linear>>,
}

impl Gate {
    /// A gate of zeros for states of `width` channels.
    pub fn new(config: &FusionConfig, width: usize, device: &Device) -> Self {
        match config.kind {
            FusionKind::Vector => Self {
                trans_all: Some(linear(2 * width, width, config.bias, device)),
                mlp: None,
            },
            FusionKind::Scalar => Self {
                trans_all: None,
                mlp: Some(vec![
                    linear(2 * width, config.hidden_size, true, device),
                    linear(config.hidden_size, 1, true, device),
                ]),
            },
        }
    }

    /// # Shapes
    /// `hidden`, `vision`: `[notes, d]`; result: fused `[notes, d]` and z, `[notes, d]` or
    /// `[notes, 1]`
    pub fn forward(&self, hidden: Tensor<2>, vision: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let both = Tensor::cat(vec![hidden.clone(), vision.clone()], 1);
        let mut logit = both;
        if let Some(map) = &self.trans_all {
            logit = map.forward(logit);
        }
        if let Some([first, second]) = self.mlp.as_deref() {
            logit = second.forward(gelu(first.forward(logit)));
        }
        let z = sigmoid(logit);
        let fused = vision.clone() + z.clone() * (hidden - vision);
        (fused, z)
    }
}
