//! Feed-forward networks.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::linear::{Linear, linear};
use crate::ops::{self, Activation};

/// The gated feed-forward network of Llama and Qwen: `down(silu(gate(x)) * up(x))`, no biases.
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// `[hidden, intermediate]`
    pub gate_proj: Linear,
    /// `[hidden, intermediate]`
    pub up_proj: Linear,
    /// `[intermediate, hidden]`
    pub down_proj: Linear,
}

impl SwiGlu {
    /// A network of zeros.
    pub fn new(hidden: usize, intermediate: usize, bias: bool, device: &Device) -> Self {
        Self {
            gate_proj: linear(hidden, intermediate, bias, device),
            up_proj: linear(hidden, intermediate, bias, device),
            down_proj: linear(intermediate, hidden, bias, device),
        }
    }

    /// `[rows, hidden]` → `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone());
        let up = self.up_proj.forward(x);
        self.down_proj.forward(ops::swiglu(gate, up))
    }

    /// The maps to gate and up, and from both, as parts of a larger operation, where all three can be.
    pub fn plain(&self) -> Option<[ops::Map; 3]> {
        Some([
            self.gate_proj.plain()?,
            self.up_proj.plain()?,
            self.down_proj.plain()?,
        ])
    }

    /// The same with GELU, by its tanh approximation, in the place of SiLU (Gemma).
    pub fn forward_gelu(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = ops::gelu_tanh(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// [`SwiGlu`] whose gate and up are one map, the gate first.
#[derive(Module, Debug)]
pub struct FusedSwiGlu {
    /// `[hidden, 2 * intermediate]`
    pub gate_up_proj: Linear,
    /// `[intermediate, hidden]`
    pub down_proj: Linear,
}

impl FusedSwiGlu {
    /// A network of zeros.
    pub fn new(hidden: usize, intermediate: usize, bias: bool, device: &Device) -> Self {
        Self {
            gate_up_proj: linear(hidden, 2 * intermediate, bias, device),
            down_proj: linear(intermediate, hidden, bias, device),
        }
    }

    /// `[rows, hidden]` → `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let both = self.gate_up_proj.forward(x);
        let inner = both.dims()[1] / 2;
        let (gate, up) = (
            both.clone().narrow(1, 0, inner),
            both.narrow(1, inner, inner),
        );
        self.down_proj.forward(ops::swiglu(gate, up))
    }
}

/// The feed-forward network of CLIP: `fc2(activation(fc1(x)))`.
#[derive(Module, Debug)]
pub struct TwoLayerMlp {
    /// `[hidden, intermediate]`
    pub fc1: Linear,
    /// `[intermediate, hidden]`
    pub fc2: Linear,
}

impl TwoLayerMlp {
    /// A network of zeros.
    pub fn new(hidden: usize, intermediate: usize, device: &Device) -> Self {
        Self {
            fc1: linear(hidden, intermediate, true, device),
            fc2: linear(intermediate, hidden, true, device),
        }
    }

    /// `[rows, hidden]` → `[rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        match (self.fc1.layer(), self.fc2.layer()) {
            (Some(first), Some(second)) => ops::two_layers(x, [first, second], activation),
            _ => self.fc2.forward(activation.apply(self.fc1.forward(x))),
        }
    }
}
