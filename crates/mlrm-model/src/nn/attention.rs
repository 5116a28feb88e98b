//! Scaled dot-product attention with grouped queries, and the probe that saliency needs.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData, activation::softmax};

use crate::ops::{self, Readable};
use crate::transfer::upload;

/// Which keys a query must not read.
#[derive(Debug, Clone)]
pub enum AttentionMask {
    /// Every query reads every key.
    None,
    /// Query i reads key i and those before it.
    Causal {
        /// Sequence length of queries and keys.
        seq: usize,
        /// Keys that a query reads at most, its own included (HF `sliding_window`).
        window: Option<usize>,
    },
    /// Query r of item b reads key `last[b * rows + r]` and those before it.
    UpTo {
        /// Last readable key, one value a query, row-major `[batch, rows]`.
        last: Vec<usize>,
        /// Number of keys.
        keys: usize,
        /// As in `Causal`.
        window: Option<usize>,
    },
}

impl AttentionMask {
    /// The mask as a tensor that is true where a score must not count, repeated for `groups` query
    /// heads a key head: `[1 or batch, 1, groups * queries, keys]`. It is computed on the device; what
    /// is uploaded is at most one limit a query.
    fn tensor(&self, batch: usize, groups: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        let (items, last, keys, window) = match self {
            Self::None => return None,
            Self::Causal { seq, window } => (1, positions(*seq, device), *seq, window),
            Self::UpTo { last, keys, window } => {
                let limits: Vec<i64> = last.iter().map(|&key| key as i64).collect();
                let count = limits.len();
                let limits = upload(TensorData::new(limits, [count]), device);
                (batch, limits, *keys, window)
            }
        };
        let queries = last.dims()[0] / items;
        let shape = [items, 1, groups * queries, keys];
        let last = last.reshape([items, 1, queries, 1]).repeat_dim(1, groups);
        let last = last.reshape([items, 1, groups * queries, 1]).expand(shape);
        let key = positions(keys, device)
            .reshape([1, 1, 1, keys])
            .expand(shape);
        let after = key.clone().greater(last.clone());
        Some(match window {
            None => after,
            Some(window) => after.bool_or(key.add_scalar(*window as i64).lower_equal(last)),
        })
    }

    fn readable(&self) -> Readable {
        let (last, keys, window) = match self {
            Self::None => return Readable::All,
            Self::Causal { seq, window } => ((0..*seq).collect(), *seq, *window),
            Self::UpTo { last, keys, window } => (last.as_slice().into(), *keys, *window),
        };
        let window = window.unwrap_or(keys);
        Readable::UpTo { last, window }
    }

    /// The mask of a whole forward pass, made once and shared by its layers.
    pub fn prepare(&self, batch: usize, groups: usize, device: &Device) -> PreparedMask {
        PreparedMask {
            readable: self.readable(),
            mask: self.clone(),
            batch,
            groups,
            device: device.clone().without_autodiff(),
            hidden: Arc::default(),
        }
    }
}

/// 0…count−1
fn positions(count: usize, device: &Device) -> Tensor<1, Int> {
    Tensor::arange(0..count as i64, device)
}

/// An [`AttentionMask`] on a device. Clones share its tensor.
#[derive(Debug, Clone)]
pub struct PreparedMask {
    readable: Readable,
    mask: AttentionMask,
    batch: usize,
    groups: usize,
    device: Device,
    hidden: Arc<OnceLock<Option<Tensor<4, Bool>>>>,
}

impl PreparedMask {
    /// The keys that each query may read.
    pub fn readable(&self) -> &Readable {
        &self.readable
    }

    /// The tensor of [`AttentionMask::tensor`], made when a layer first needs it: kernels do not.
    fn hidden(&self) -> Option<Tensor<4, Bool>> {
        let make = || self.mask.tensor(self.batch, self.groups, &self.device);
        self.hidden.get_or_init(make).clone()
    }
}

/// Where the probe taps a layer's attention (method §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeSite {
    /// After the softmax: the published formula.
    Probabilities,
    /// Before the softmax, masked scores counting 0: the released code for Llama and OPT.
    Scores,
}

/// Multiplies each layer's attention by a tensor of ones whose gradient is `A ⊙ ∂L/∂A`.
#[derive(Debug)]
pub struct AttentionProbe {
    site: ProbeSite,
    /// One leaf a layer, `[batch, heads, queries, keys]`, in layer order.
    pub leaves: Vec<Tensor<4>>,
    /// The attention probabilities themselves, `[batch, heads, queries, keys]`.
    pub attention: Vec<Tensor<4>>,
}

impl AttentionProbe {
    /// A probe that has seen no layer yet.
    pub fn new(site: ProbeSite) -> Self {
        Self {
            site,
            leaves: Vec::new(),
            attention: Vec::new(),
        }
    }

    fn tap(&mut self, site: ProbeSite, a: Tensor<4>, heads: usize) -> Tensor<4> {
        let [batch, kv_heads, rows, keys] = a.dims();
        let per_head = [batch, heads, rows * kv_heads / heads, keys];
        if site == ProbeSite::Probabilities {
            self.attention.push(a.clone().inner().reshape(per_head));
        }
        if site != self.site || !a.is_autodiff() {
            return a;
        }
        let leaf = Tensor::<4>::ones(per_head, &a.device()).require_grad();
        self.leaves.push(leaf.clone());
        a * leaf.reshape([batch, kv_heads, rows, keys])
    }
}

/// `softmax(q kᵀ / sqrt(head_dim) + mask) v`.
///
/// Query heads h·g…h·g+g−1 share key head h (g = heads / kv_heads); the group is folded into the
/// rows of one product, so keys and values are never repeated. Scores and softmax are in f32, and
/// none of them are kept for the backward pass, unless a probe reads them.
///
/// # Shapes
/// `q`: `[batch, queries, heads, head_dim]`; `k`, `v`: `[batch, keys, kv_heads, head_dim]`;
/// result: `[batch, queries, heads * head_dim]`
pub fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &PreparedMask,
    probe: Option<&mut AttentionProbe>,
) -> Tensor<3> {
    match probe {
        None => ops::attention(q, k, v, &mask.readable, |q, k, v| {
            attend_by_blocks(q, k, v, mask)
        }),
        // Neither kernels nor blocks show their probabilities.
        probe => attend_by_steps(q, k, v, mask, None, probe),
    }
}

/// [`attend`] with scores bent into ± `cap`: `cap * tanh(score / cap)`, before the mask (Gemma 2).
pub fn attend_capped(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &PreparedMask,
    cap: f64,
    probe: Option<&mut AttentionProbe>,
) -> Tensor<3> {
    attend_by_steps(q, k, v, mask, Some(cap), probe)
}

/// Queries, keys and values by key head, `[batch, kv_heads, rows, head_dim]`; a group's queries are rows of one product.
fn by_key_head(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> [Tensor<4>; 3] {
    let [batch, queries, heads, head_dim] = q.dims();
    let kv_heads = k.dims()[2];
    let groups = heads / kv_heads;
    let q = q
        .reshape([batch, queries, kv_heads, groups, head_dim])
        .permute([0, 2, 3, 1, 4])
        .reshape([batch, kv_heads, groups * queries, head_dim]);
    [q, k.swap_dims(1, 2), v.swap_dims(1, 2)]
}

/// What [`by_key_head`] did to queries, undone: `[batch, queries, heads * head_dim]`.
fn side_by_side(x: Tensor<4>, queries: usize) -> Tensor<3> {
    let [batch, kv_heads, rows, head_dim] = x.dims();
    let groups = rows / queries.max(1);
    x.reshape([batch, kv_heads, groups, queries, head_dim])
        .permute([0, 3, 1, 2, 4])
        .reshape([batch, queries, kv_heads * groups * head_dim])
}

fn attend_by_blocks(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &PreparedMask) -> Tensor<3> {
    let queries = q.dims()[1];
    let [q, k, v] = by_key_head(q, k, v);
    side_by_side(ops::attention_by_blocks(q, k, v, mask.hidden()), queries)
}

fn attend_by_steps(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &PreparedMask,
    cap: Option<f64>,
    mut probe: Option<&mut AttentionProbe>,
) -> Tensor<3> {
    let [_, queries, heads, head_dim] = q.dims();
    let dtype = q.dtype();
    let [q, k, v] = by_key_head(q, k, v);
    let k = k.transpose();
    // In f32: rounding a score of 16 to 8 bits changes its probability by up to 3 %.
    let scores = q.cast(DType::F32).matmul(k.cast(DType::F32));
    let mut scores = scores.mul_scalar((head_dim as f64).powf(-0.5));
    if let Some(cap) = cap {
        scores = scores.mul_scalar(cap.recip()).tanh().mul_scalar(cap);
    }
    if let Some(probe) = probe.as_deref_mut() {
        scores = probe.tap(ProbeSite::Scores, scores, heads);
    }
    if let Some(hidden) = mask.hidden() {
        // Finite and far below any score: -inf would make the gradient of a masked score NaN.
        scores = scores.mask_fill(hidden, -1e30);
    }
    let mut probabilities = softmax(scores, 3);
    if let Some(probe) = probe {
        probabilities = probe.tap(ProbeSite::Probabilities, probabilities, heads);
    }
    side_by_side(probabilities.cast(dtype).matmul(v), queries)
}
