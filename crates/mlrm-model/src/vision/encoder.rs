//! What the vision transformers share: patches, pre-norm layers, hidden states.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::{FeatureSelection, VisionConfig, selected_state};
use crate::nn::{
    Activation, AttentionMask, LayerNorm, Linear, PreparedMask, TwoLayerMlp, attend, linear, zeros,
};

/// Cuts a picture into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    /// `[hidden, 3, patch, patch]`: a convolution whose stride is its kernel.
    weight: Param<Tensor<4>>,
    /// `[hidden]`
    bias: Option<Param<Tensor<1>>>,
}

impl PatchEmbedding {
    /// A projection of zeros.
    pub fn new(config: &VisionConfig, bias: bool, device: &Device) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            weight: zeros([width, 3, patch, patch], device),
            bias: bias.then(|| zeros([width], device)),
        }
    }

    /// `[batch, 3, side, side]` → `[batch, patches, hidden]`, row by row of the picture.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let [width, channels, patch, _] = weight.dims();
        let [batch, _, side, _] = pixels.dims();
        // A remainder at the right and lower edges is left out, as a convolution does.
        let grid = side / patch;
        let read = grid * patch;
        let pixels = match side == read {
            true => pixels,
            false => pixels.slice([0..batch, 0..channels, 0..read, 0..read]),
        };
        let patch_values = channels * patch * patch;
        // Patches do not overlap, so the convolution is one matrix product over cut-out patches.
        let patches = pixels
            .cast(weight.dtype())
            .reshape([batch, channels, grid, patch, grid, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * grid * grid, patch_values])
            .matmul(weight.reshape([width, patch_values]).transpose());
        let patches = match &self.bias {
            Some(bias) => patches + bias.val().unsqueeze(),
            None => patches,
        };
        patches.reshape([batch, grid * grid, width])
    }
}

/// `[batch, patches, hidden]` behind a class token `[hidden]`: `[batch, 1 + patches, hidden]`.
pub fn prepend_class(class: Tensor<1>, patches: Tensor<3>) -> Tensor<3> {
    let [batch, _, width] = patches.dims();
    let class = class.reshape([1, 1, width]).expand([batch, 1, width]);
    Tensor::cat(vec![class, patches], 1)
}

/// Self-attention in the layout of a family.
pub trait SelfAttention: Module {
    /// A layer of zeros.
    fn new(config: &VisionConfig, device: &Device) -> Self;

    /// `[batch, seq, hidden]` → the same
    fn forward(&self, x: Tensor<3>, mask: &PreparedMask) -> Tensor<3>;
}

/// Three projections (CLIP, SigLIP).
#[derive(Module, Debug)]
pub struct SplitAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl SelfAttention for SplitAttention {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let projection = || linear(config.hidden_size, config.hidden_size, true, device);
        Self {
            q_proj: projection(),
            k_proj: projection(),
            v_proj: projection(),
            out_proj: projection(),
            heads: config.num_attention_heads,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &PreparedMask) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let heads = |layer: &Linear| {
            layer
                .forward(x.clone())
                .reshape([batch, seq, self.heads, width / self.heads])
        };
        let (q, k, v) = (
            heads(&self.q_proj),
            heads(&self.k_proj),
            heads(&self.v_proj),
        );
        self.out_proj.forward(attend(q, k, v, mask, None))
    }
}

/// One projection for query, key and value (BLIP-2, Qwen-VL).
#[derive(Module, Debug)]
pub struct FusedAttention {
    qkv: Linear,
    projection: Linear,
    heads: usize,
    /// Whether the rows of `qkv` are ordered by head and then by query, key, value (Qwen-VL), not
    /// by query, key, value and then by head.
    by_head: bool,
}

impl SelfAttention for FusedAttention {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            qkv: linear(width, 3 * width, config.qkv_bias, device),
            projection: linear(width, width, true, device),
            heads: config.num_attention_heads,
            by_head: config.family == mlrm_config::VisionFamily::QwenVl,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &PreparedMask) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let (heads, head_dim) = (self.heads, width / self.heads);
        let qkv = self.qkv.forward(x);
        let part = |index: usize| {
            let part = if self.by_head {
                let by_head = qkv.clone().reshape([batch, seq, heads, 3, head_dim]);
                by_head.narrow(3, index, 1)
            } else {
                let by_part = qkv.clone().reshape([batch, seq, 3, heads, head_dim]);
                by_part.narrow(2, index, 1)
            };
            part.reshape([batch, seq, heads, head_dim])
        };
        let mixed = attend(part(0), part(1), part(2), mask, None);
        self.projection.forward(mixed)
    }
}

/// A pre-norm layer: attention, then a feed-forward network, each added to its input.
#[derive(Module, Debug)]
pub struct EncoderLayer<A: Module> {
    self_attn: A,
    layer_norm1: LayerNorm,
    mlp: TwoLayerMlp,
    layer_norm2: LayerNorm,
}

impl<A: SelfAttention> EncoderLayer<A> {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        Self {
            self_attn: A::new(config, device),
            layer_norm1: norm(),
            mlp: TwoLayerMlp::new(width, inner, device),
            layer_norm2: norm(),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &PreparedMask, activation: Activation) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let normal = self.layer_norm1.forward(x.clone());
        let x = x + self.self_attn.forward(normal, mask);
        let normal = self.layer_norm2.forward(x.clone());
        let rows = normal.reshape([batch * seq, width]);
        let y = self.mlp.forward(rows, activation);
        x + y.reshape([batch, seq, width])
    }
}

/// The layers of a vision transformer.
#[derive(Module, Debug)]
pub struct Encoder<A: Module> {
    layers: Vec<EncoderLayer<A>>,
    #[module(skip)]
    hidden_act: Activation,
}

impl<A: SelfAttention> Encoder<A> {
    /// Layers of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let layer = |_| EncoderLayer::new(config, device);
        Self {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            hidden_act: config.hidden_act,
        }
    }

    /// The index of the hidden state that `selection` reads; the last one where there is none such.
    pub fn selected(&self, selection: FeatureSelection) -> usize {
        let depth = self.layers.len();
        selected_state(selection.layer, depth).unwrap_or(depth)
    }

    /// The number of layers, which is the index of the last hidden state.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Hidden states at the indices `wanted`, `[batch, positions, hidden]` each: 0 is `x` itself,
    /// i the output of layer i, as in Hugging Face.
    ///
    /// Layers above the last wanted one are not computed, unless `every` asks for all states.
    pub fn forward<const W: usize>(
        &self,
        x: Tensor<3>,
        wanted: [usize; W],
        mut every: Option<&mut Vec<Tensor<3>>>,
    ) -> [Tensor<3>; W] {
        let mask = AttentionMask::None.prepare(1, 1, &x.device());
        let last = match every {
            Some(_) => self.layers.len(),
            None => wanted.into_iter().max().unwrap_or(0),
        };
        // States that nobody wants are let go at once.
        let mut chosen = wanted.map(|_| x.clone());
        let mut x = x;
        for index in 0..=last {
            if let Some(states) = every.as_deref_mut() {
                states.push(x.clone());
            }
            for (state, wanted) in chosen.iter_mut().zip(wanted) {
                if wanted == index {
                    *state = x.clone();
                }
            }
            if let Some(layer) = self.layers.get(index).filter(|_| index < last) {
                x = layer.forward(x, &mask, self.hidden_act);
            }
        }
        chosen
    }
}
