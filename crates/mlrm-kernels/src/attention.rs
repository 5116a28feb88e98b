//! Attention of backends that have no kernel of ours: none of its scores are kept for the backward pass, which computes
//! them again, a block of queries at a time (as in FlashAttention, arXiv 2205.14135).

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Bool, DType, Shape, Slice, Tensor};

/// Bytes of a block's scores at most; one query of each head has its block even where it has more.
pub const MOST_SCORE_BYTES: u64 = 256 << 20;

/// `softmax(q kᵀ / sqrt(head_dim)) v`, where scores that are `hidden` do not count. Scores and softmax are in f32.
///
/// # Shapes
/// `q`: `[batch, heads, queries, head_dim]`; `k`, `v`: `[batch, heads, keys, head_dim]`; `hidden`: `[1 or batch, 1, queries,
/// keys]`; result as `q`
pub fn attention_by_blocks(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    hidden: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    let [batch, heads, queries, _] = q.dims();
    let keys = k.dims()[2];
    let of_query = (batch * heads * keys * size_of::<f32>()).max(1);
    let block = MOST_SCORE_BYTES as usize / of_query;
    attention_in(block.clamp(1, queries.max(1)), [q, k, v], hidden)
}

/// [`attention_by_blocks`] with `block` queries of each head at a time.
fn attention_in(block: usize, qkv: [Tensor<4>; 3], hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let device = qkv[0].device().without_autodiff();
    let [q, k, v] = qkv.map(Tensor::into_dispatch);
    // Extensions take no optional tensors.
    let hides = hidden.is_some();
    let hidden = hidden.unwrap_or_else(|| Tensor::empty([1; 4], &device));
    let output =
        <Dispatch as BlockAttention>::attend(q, k, v, hidden.into_dispatch(), hides, block);
    Tensor::from_dispatch(output)
}

/// Backends that attend without keeping scores. Shapes are those of [`attention_by_blocks`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(any(
        feature = "vulkan",
        feature = "wgpu",
        feature = "metal",
        feature = "cuda",
        feature = "rocm"
    )),
    Autodiff
)]
pub trait BlockAttention: Backend {
    /// `softmax(q kᵀ / sqrt(head_dim)) v`, `block` queries of each head at a time. `hidden` is read where it `hides` anything.
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        hides: bool,
        block: usize,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "flex")]
impl BlockAttention for burn::backend::Flex {
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        hides: bool,
        block: usize,
    ) -> FloatTensor<Self> {
        let hidden = hides.then_some(hidden);
        Inputs::<Self> { q, k, v, hidden }.forward(block)
    }
}

#[cfg(any(
    feature = "vulkan",
    feature = "wgpu",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]
impl BlockAttention for burn::backend::Cube {
    /// In short formats by Burn's fused kernels, of which its tuner chooses one; they round their factors to f16, which is
    /// too coarse for f32.
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        hides: bool,
        block: usize,
    ) -> FloatTensor<Self> {
        #[cfg(feature = "autotune")]
        if q.dtype() != DType::F32 {
            use burn::backend::ops::ModuleOps;

            let ([batch, heads, queries, _], keys) = (q.shape().dims::<4>(), k.shape()[2]);
            let all = Shape::new([batch, heads, queries, keys]);
            let hidden = hides.then(|| Self::bool_expand(hidden, all));
            return <Self as ModuleOps<Self>>::attention(q, k, v, hidden, None, Default::default());
        }
        let hidden = hides.then_some(hidden);
        Inputs::<Self> { q, k, v, hidden }.forward(block)
    }
}

impl<B: BlockAttention, C: CheckpointStrategy> BlockAttention for Autodiff<B, C> {
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        hides: bool,
        block: usize,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attend;

        impl<B: Backend> Backward<B, 3> for Attend {
            type State = (Inputs<B>, usize);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (inputs, block) = ops.state;
                let found = inputs.backward(gradient, block);
                for (parent, gradient) in ops.parents.iter().zip(found) {
                    if let Some(parent) = parent {
                        gradients.register::<B>(parent.id, gradient);
                    }
                }
            }
        }

        let ((q, of_q), (k, of_k), (v, of_v)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let qkv = (q.clone(), k.clone(), v.clone());
        let output = B::attend(qkv.0, qkv.1, qkv.2, hidden.clone(), hides, block);
        let hidden = hides.then_some(hidden);
        let nodes = [of_q, of_k, of_v];
        match Attend.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((Inputs { q, k, v, hidden }, block), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

/// What attention reads.
#[derive(Debug, Clone)]
struct Inputs<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    hidden: Option<BoolTensor<B>>,
}

impl<B: Backend> Inputs<B> {
    fn forward(&self, block: usize) -> FloatTensor<B> {
        let dtype = self.q.dtype();
        let attend = |rows: Range<usize>| {
            let map = self.probabilities(rows_of::<B>(&self.q, &rows), &self.hidden(&rows));
            B::float_matmul(B::float_cast(map, dtype.into()), self.v.clone())
        };
        joined::<B>(self.blocks(block).map(attend).collect())
    }

    /// The gradients of q, k and v. With A the probabilities: ∂v = Aᵀ ∂, ∂A = ∂ vᵀ, ∂S = A (∂A − Σ ∂A A) / sqrt(head_dim),
    /// ∂q = ∂S k, ∂k = ∂Sᵀ q.
    fn backward(self, gradient: FloatTensor<B>, block: usize) -> [FloatTensor<B>; 3] {
        let dtype = self.q.dtype();
        let long = |tensor| B::float_cast(tensor, DType::F32.into());
        let (k, turned_v) = (long(self.k.clone()), B::float_transpose(self.v.clone()));
        let (mut dq, mut sums): (Vec<_>, Option<[FloatTensor<B>; 2]>) = (Vec::new(), None);
        for rows in self.blocks(block) {
            let (q, hidden) = (rows_of::<B>(&self.q, &rows), self.hidden(&rows));
            let incoming = rows_of::<B>(&gradient, &rows);
            let map = self.probabilities(q.clone(), &hidden);
            let turned = B::float_transpose(B::float_cast(map.clone(), dtype.into()));
            let dv = long(B::float_matmul(turned, incoming.clone()));
            let slope = long(B::float_matmul(incoming, turned_v.clone()));
            let level = B::float_sum_dim(B::float_mul(slope.clone(), map.clone()), 3);
            let slope = B::float_mul(B::float_sub(slope, level), map);
            let slope = B::float_mul_scalar(slope, self.scale().into());
            // Where all scores of a query are hidden, its probabilities are not zero.
            let slope = hide::<B>(slope, &hidden, 0.0);
            dq.push(B::float_cast(
                B::float_matmul(slope.clone(), k.clone()),
                dtype.into(),
            ));
            let dk = B::float_matmul(B::float_transpose(slope), long(q));
            sums = Some(match sums {
                None => [dk, dv],
                Some([k, v]) => [B::float_add(k, dk), B::float_add(v, dv)],
            });
        }
        let short = |tensor| B::float_cast(tensor, dtype.into());
        let [dk, dv] = sums.map_or([self.k, self.v], |sums| sums.map(short));
        [joined::<B>(dq), dk, dv]
    }

    /// The probabilities of queries, in f32.
    fn probabilities(&self, q: FloatTensor<B>, hidden: &Option<BoolTensor<B>>) -> FloatTensor<B> {
        let long = |tensor| B::float_cast(tensor, DType::F32.into());
        // In f32: rounding a score of 16 to 8 bits changes its probability by up to 3 %.
        let turned = B::float_transpose(long(self.k.clone()));
        let scores = B::float_matmul(long(q), turned);
        let scores = B::float_mul_scalar(scores, self.scale().into());
        // Finite and far below any score.
        B::softmax(hide::<B>(scores, hidden, -1e30), 3)
    }

    fn scale(&self) -> f64 {
        (self.q.shape()[3] as f64).powf(-0.5)
    }

    /// What is hidden from the queries `rows`.
    fn hidden(&self, rows: &Range<usize>) -> Option<BoolTensor<B>> {
        let hidden = self.hidden.clone()?;
        let slices = slices(&hidden.shape(), rows);
        Some(B::bool_slice(hidden, &slices))
    }

    /// Blocks of queries, at least one.
    fn blocks(&self, block: usize) -> impl Iterator<Item = Range<usize>> + use<B> {
        let queries = self.q.shape()[2];
        let ends = move |start: usize| start..(start + block).min(queries);
        (0..queries.max(1)).step_by(block).map(ends)
    }
}

/// `tensor` with `value` where it is `hidden`.
fn hide<B: Backend>(
    tensor: FloatTensor<B>,
    hidden: &Option<BoolTensor<B>>,
    value: f64,
) -> FloatTensor<B> {
    match hidden {
        None => tensor,
        Some(hidden) => {
            let hidden = B::bool_expand(hidden.clone(), tensor.shape());
            B::float_mask_fill(tensor, hidden, value.into())
        }
    }
}

/// The rows `rows` of the third axis.
fn rows_of<B: Backend>(tensor: &FloatTensor<B>, rows: &Range<usize>) -> FloatTensor<B> {
    let shape = tensor.shape();
    if *rows == (0..shape[2]) {
        return tensor.clone();
    }
    B::float_slice(tensor.clone(), &slices(&shape, rows))
}

fn slices(shape: &Shape, rows: &Range<usize>) -> [Slice; 4] {
    [0, 1, 2, 3].map(|axis| match axis {
        2 => Slice::from(rows.clone()),
        axis => Slice::from(0..shape[axis]),
    })
}

fn joined<B: Backend>(mut blocks: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match blocks.len() {
        1 => blocks.remove(0),
        _ => B::float_cat(blocks, 2),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Tolerance, activation::softmax};

    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 7, 5];

    /// Step by step, as Burn differentiates it.
    fn by_steps([q, k, v]: [Tensor<4>; 3], hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
        let scores = q.matmul(k.transpose()).div_scalar((SHAPE[3] as f64).sqrt());
        let scores = match hidden {
            Some(hidden) => scores.mask_fill(hidden.expand([2, 3, 7, 7]), -1e30),
            None => scores,
        };
        softmax(scores, 3).matmul(v)
    }

    /// Numbers of a formula: those that a device draws are shared with the tests beside this one.
    fn inputs(dtype: DType) -> [Tensor<4>; 3] {
        let device = Device::flex();
        [1.3, 2.1, 3.7].map(|step| {
            let count = SHAPE.iter().product::<usize>() as i64;
            let at = Tensor::<1, burn::tensor::Int>::arange(0..count, &device).float();
            let values = (at * step).sin().mul_scalar(1.5).reshape(SHAPE);
            // The same numbers in every format.
            values.cast(DType::BF16).cast(dtype)
        })
    }

    /// Output and gradients, in f32.
    fn passed(inputs: [Tensor<4>; 3], run: impl Fn([Tensor<4>; 3]) -> Tensor<4>) -> [Tensor<4>; 4] {
        let leaves = inputs.map(|input| input.autodiff().require_grad());
        let output = run(leaves.clone());
        let weight =
            Tensor::<1, burn::tensor::Int>::arange(0..210, &output.device().without_autodiff());
        let weight = weight.float().reshape(SHAPE).sin().cast(output.dtype());
        let gradients = (output.clone() * weight.autodiff()).sum().backward();
        let [q, k, v] = leaves.map(|leaf| leaf.grad(&gradients).expect("a gradient").inner());
        [output.inner(), q, k, v].map(|tensor| tensor.cast(DType::F32))
    }

    fn masks() -> [Option<Tensor<4, Bool>>; 3] {
        let device = Device::flex();
        let later = Tensor::<2, Bool>::tril_mask([7, 7], 0, &device).reshape([1, 1, 7, 7]);
        // Of the second item, a query without any key.
        let all = later.clone().repeat_dim(0, 2);
        let value = Tensor::<4, Bool>::from_data([[[[true; 7]]]], &device);
        let blind = all.slice_assign([1..2, 0..1, 3..4, 0..7], value);
        [None, Some(later), Some(blind)]
    }

    #[test]
    fn blocks_give_what_steps_give() {
        for hidden in masks() {
            let expected = passed(inputs(DType::F32), |qkv| by_steps(qkv, hidden.clone()));
            for block in [1, 3, 7] {
                let found = passed(inputs(DType::F32), |qkv| {
                    attention_in(block, qkv, hidden.clone())
                });
                for (found, expected) in found.into_iter().zip(&expected) {
                    let tolerance = Tolerance::<f32>::absolute(1e-5);
                    found
                        .into_data()
                        .assert_approx_eq(&expected.to_data(), tolerance);
                }
            }
        }
    }

    #[test]
    fn short_formats_round_the_results_alone() {
        let [_, later, _] = masks();
        let expected = passed(inputs(DType::F32), |qkv| by_steps(qkv, later.clone()));
        for (dtype, limit) in [(DType::F16, 1e-2), (DType::BF16, 8e-2)] {
            let found = passed(inputs(dtype), |qkv| attention_in(3, qkv, later.clone()));
            for (found, expected) in found.into_iter().zip(&expected) {
                let tolerance = Tolerance::<f32>::absolute(limit);
                found
                    .into_data()
                    .assert_approx_eq(&expected.to_data(), tolerance);
            }
        }
    }
}
