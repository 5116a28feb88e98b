//! The core of every vision encoder: a picture's patches with their positions, the layers, and what is
//! read of their states.

mod weights;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mlrm_config::SelectFeature;

use super::encoder::{EncoderLayer, LayerContext, PatchEmbedding};
use super::rotary::PatchRotary;
use super::{FeatureSelection, Grid, Stretch, VisionConfig, VisionFeatures, selected_state};
use crate::nn::{
    AttentionMask, CrossAttention, Interpolation, LayerNorm, RotaryTable, TwoLayerMlp,
    resize_positions, zeros,
};
use crate::transfer::upload;

/// Pictures that [`VisionTower::encode`] passes through the encoder at a time.
pub const PICTURES_AT_A_TIME: usize = 8;

/// A vision encoder of any family. It is frozen: no gradient, no optimiser state.
///
/// Field names are those of the core; the name tables of the families say what checkpoints call them.
#[derive(Module, Debug)]
pub struct VisionTower {
    #[module(skip)]
    config: VisionConfig,
    class_embedding: Option<Vectors>,
    /// Held for whoever trains the encoder on.
    mask_token: Option<Vectors>,
    /// `[1, registers, hidden]`
    register_tokens: Option<Param<Tensor<3>>>,
    patch_embedding: PatchEmbedding,
    /// One a stored position, that of the class token first; absent where positions are rotary alone.
    position_embedding: Option<Vectors>,
    #[module(skip)]
    rotary: Option<PatchRotary>,
    pre_layernorm: Option<LayerNorm>,
    layers: Vec<EncoderLayer>,
    post_layernorm: Option<LayerNorm>,
    head: Option<PoolingHead>,
}

/// Vectors in the shape that a family's checkpoints have.
#[derive(Module, Debug)]
enum Vectors {
    /// One, `[hidden]`.
    One(Param<Tensor<1>>),
    /// `[count, hidden]`
    Table(Param<Tensor<2>>),
    /// `[1, count, hidden]`
    Batch(Param<Tensor<3>>),
}

impl Vectors {
    /// `[count, hidden]`
    fn rows(&self) -> Tensor<2> {
        match self {
            Self::One(vector) => vector.val().unsqueeze(),
            Self::Table(table) => table.val(),
            Self::Batch(batch) => {
                let batch = batch.val();
                let [_, count, width] = batch.dims();
                batch.reshape([count, width])
            }
        }
    }
}

/// One learnt query that reads all patches (SigLIP).
#[derive(Module, Debug)]
struct PoolingHead {
    /// `[1, 1, hidden]`
    probe: Param<Tensor<3>>,
    attention: CrossAttention,
    layernorm: LayerNorm,
    mlp: TwoLayerMlp,
}

impl PoolingHead {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            probe: zeros([1, 1, width], device),
            attention: CrossAttention::new(width, config.num_attention_heads, device),
            layernorm: LayerNorm::new(width, config.layer_norm_eps, device),
            mlp: TwoLayerMlp::new(width, config.intermediate_size, device),
        }
    }

    /// `[batch, patches, hidden]` → `[batch, hidden]`
    fn forward(&self, patches: Tensor<3>, config: &VisionConfig) -> Tensor<2> {
        let [batch, _, width] = patches.dims();
        let probe = self.probe.val().expand([batch, 1, width]);
        let mixed = self.attention.forward(probe, patches.clone(), patches);
        let pooled = mixed.reshape([batch, width]);
        let normal = self.layernorm.forward(pooled.clone());
        pooled + self.mlp.forward(normal, config.hidden_act)
    }
}

impl VisionTower {
    /// What `selection` means for the pictures `pixels`, `[notes, 3, side, side]`.
    ///
    /// How a matrix product rounds depends on its size. So pictures always pass in batches of
    /// [`PICTURES_AT_A_TIME`], the last one filled up: a picture has the same features, bit by bit,
    /// whichever others come with it.
    pub fn encode(&self, pixels: Tensor<4>, selection: FeatureSelection) -> VisionFeatures {
        let [notes, channels, height, width] = pixels.dims();
        let mut parts = Vec::new();
        for start in (0..notes).step_by(PICTURES_AT_A_TIME) {
            let count = PICTURES_AT_A_TIME.min(notes - start);
            let mut part = pixels.clone().narrow(0, start, count);
            if count < PICTURES_AT_A_TIME {
                let missing = [PICTURES_AT_A_TIME - count, channels, height, width];
                let blank = Tensor::zeros(missing, (&part.device(), part.dtype()));
                part = Tensor::cat(vec![part, blank], 0);
            }
            parts.push(self.forward(part, selection, None).slice(0..count));
        }
        match VisionFeatures::cat(parts) {
            Some(features) => features,
            // Of no pictures.
            None => self.forward(pixels, selection, None),
        }
    }

    /// What `selection` means for one picture, `[1, 3, height, width]`, in its own grid. It passes alone, so that its
    /// features do not depend on others.
    pub fn encode_own(&self, pixels: Tensor<4>, selection: FeatureSelection) -> VisionFeatures {
        let grid = self.config.grid_of(pixels.dims());
        VisionFeatures {
            grids: Some(vec![grid]),
            ..self.forward(pixels, selection, None)
        }
    }

    /// What `selection` means for the pictures `pixels`, `[notes, 3, height, width]`, all at once and of one size.
    ///
    /// With `every` all hidden states are computed and left there: 0 is what enters the first layer,
    /// i the output of layer i, as in Hugging Face.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        let depth = self.layers.len();
        let selected = selected_state(selection.layer, depth).unwrap_or(depth);
        let pooled = if self.head.is_some() { depth } else { selected };
        let grid = self.config.grid_of(pixels.dims());
        let table = self.rotary.as_ref().map(|rotary| {
            let before = usize::from(self.config.has_class_token()) + self.config.register_tokens;
            rotary.table(grid, before, &pixels.device())
        });
        let x = self.enter(pixels, grid);
        let wanted = [selected, pooled];
        let ([state, last], deep) = self.states(x, grid, table.as_ref(), wanted, every);
        let state = match selection.post_layernorm {
            true => self.leave(state),
            false => state,
        };
        let summary = match &self.head {
            Some(head) => head.forward(self.leave(last), &self.config),
            None => self.summary(&state),
        };
        VisionFeatures {
            summary,
            positions: self.readable(
                match deep.is_empty() {
                    true => state,
                    false => Tensor::cat([vec![state], deep].concat(), 2),
                },
                grid,
                selection.positions,
            ),
            grids: None,
        }
    }

    /// What enters the first layer, `[notes, positions, hidden]`.
    fn enter(&self, pixels: Tensor<4>, grid: Grid) -> Tensor<3> {
        let [height, width] = grid.map(|side| side * self.config.patch_size);
        let pixels = match self.config.blocks {
            Some(_) => pixels.narrow(2, 0, height).narrow(3, 0, width),
            None => pixels,
        };
        let patches = self.patch_embedding.forward(pixels);
        let [notes, count, width] = patches.dims();
        let x = match &self.class_embedding {
            Some(class) => {
                let class = class.rows().unsqueeze::<3>().expand([notes, 1, width]);
                Tensor::cat(vec![class, patches], 1)
            }
            None => patches,
        };
        let x = match self.position_embedding.as_ref().map(Vectors::rows) {
            Some(stored) if self.class_embedding.is_some() => {
                x + self.with_class(stored, grid).unsqueeze()
            }
            Some(stored) => x + self.stretched(stored, grid).unsqueeze(),
            None => x,
        };
        let x = match &self.register_tokens {
            Some(registers) => {
                let registers = registers.val();
                let shape = [notes, registers.dims()[1], width];
                let (class, patches) = (x.clone().narrow(1, 0, 1), x.narrow(1, 1, count));
                Tensor::cat(vec![class, registers.expand(shape), patches], 1)
            }
            None => x,
        };
        let x = match &self.config.blocks {
            Some(blocks) => pick(x, blocks.order(grid)),
            None => x,
        };
        match &self.pre_layernorm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// The stored positions, of which the first one is the class token's, for a grid of patches.
    fn with_class(&self, stored: Tensor<2>, grid: Grid) -> Tensor<2> {
        let count = stored.dims()[0];
        if grid == [self.config.position_grid; 2] {
            return stored;
        }
        let class = stored.clone().narrow(0, 0, 1);
        let others = self.stretched(stored.narrow(0, 1, count - 1), grid);
        Tensor::cat(vec![class, others], 0)
    }

    fn stretched(&self, stored: Tensor<2>, grid: Grid) -> Tensor<2> {
        let interpolation = match self.config.stretch {
            Stretch::No | Stretch::Bicubic => Interpolation::Bicubic,
            Stretch::Antialiased => Interpolation::BicubicAntialiased,
            Stretch::Corners => Interpolation::BilinearCorners,
        };
        resize_positions(stored, grid, interpolation)
    }

    /// The positions of a hidden state that `select` means; registers are never among them. Blocks of patches stand
    /// row by row.
    pub(super) fn readable(
        &self,
        state: Tensor<3>,
        grid: Grid,
        select: SelectFeature,
    ) -> Tensor<3> {
        if let Some(blocks) = &self.config.blocks {
            return pick(state, blocks.by_rows(grid));
        }
        if !self.config.has_class_token() {
            return state;
        }
        let registers = self.config.register_tokens;
        let patches = state.dims()[1] - 1 - registers;
        let patches = state.clone().narrow(1, 1 + registers, patches);
        match select {
            SelectFeature::Patch => patches,
            SelectFeature::ClsPatch if registers == 0 => state,
            SelectFeature::ClsPatch => Tensor::cat(vec![state.narrow(1, 0, 1), patches], 1),
        }
    }

    /// The state after the norm that follows the layers, where there is one.
    fn leave(&self, state: Tensor<3>) -> Tensor<3> {
        match &self.post_layernorm {
            Some(norm) => norm.forward(state),
            None => state,
        }
    }

    /// c of a hidden state `[notes, positions, hidden]`.
    fn summary(&self, state: &Tensor<3>) -> Tensor<2> {
        let [notes, _, width] = state.dims();
        if self.config.has_class_token() {
            return state.clone().narrow(1, 0, 1).reshape([notes, width]);
        }
        let mean = state.clone().cast(DType::F32).mean_dim(1);
        mean.reshape([notes, width]).cast(state.dtype())
    }

    /// Hidden states at the indices `wanted`, `[batch, positions, hidden]` each: 0 is `x` itself,
    /// i the output of layer i, as in Hugging Face. Also those that are read beside the selected one.
    ///
    /// Layers above the last wanted one are not computed, unless `every` asks for all states.
    fn states<const W: usize>(
        &self,
        x: Tensor<3>,
        grid: Grid,
        rotary: Option<&RotaryTable>,
        wanted: [usize; W],
        mut every: Option<&mut Vec<Tensor<3>>>,
    ) -> ([Tensor<3>; W], Vec<Tensor<3>>) {
        let blocks = self.config.blocks;
        let windows = blocks
            .filter(|blocks| blocks.window.is_some())
            .map(|blocks| blocks.window_lengths(grid));
        let full = LayerContext {
            mask: &AttentionMask::None.prepare(1, 1, &x.device()),
            rotary,
            activation: self.config.hidden_act,
            windows: None,
        };
        let beside = blocks.map(|blocks| blocks.deep).unwrap_or_default();
        let mut deep = Vec::new();
        let last = match every {
            Some(_) => self.layers.len(),
            None => {
                let deepest = beside.last().map_or(0, |index| index + 1);
                wanted.into_iter().max().unwrap_or(0).max(deepest)
            }
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
                let whole = blocks.is_none_or(|blocks| blocks.full.contains(index));
                let context = LayerContext {
                    windows: windows.as_deref().filter(|_| !whole),
                    ..full
                };
                x = layer.forward(x, &context);
                if beside.contains(index) {
                    deep.push(x.clone());
                }
            }
        }
        (chosen, deep)
    }
}

/// The positions `order` of `x` `[notes, positions, width]`, in that order.
fn pick(x: Tensor<3>, order: Vec<usize>) -> Tensor<3> {
    let count = order.len();
    let order: Vec<i64> = order.into_iter().map(|place| place as i64).collect();
    let index: Tensor<1, Int> = upload(TensorData::new(order, [count]), &x.device());
    x.select(1, index)
}
