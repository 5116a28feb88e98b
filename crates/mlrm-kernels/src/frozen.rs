//! Weights that do not learn, held quantised: Burn's symmetric codes with a scale for every block of
//! outputs, turned back into floats for each product and forgotten again.
//!
//! Burn's flex keeps a code of four bits in a byte; here two share one ([`FrozenWeight::compact`]), so
//! that such a weight's tensor has half as many columns as the weight has outputs. [`dims`] and
//! [`dequantise`] know it; nothing else should ask a frozen weight for its shape or its values.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, DispatchDevice, backend_extension,
};
use burn::module::Param;
use burn::tensor::quantization::{
    QuantScheme, QuantStore, QuantValue, QuantizationParameters, ScaleDtype,
};
use burn::tensor::{DType, Shape, Tensor, TensorData};

/// Bits of a quantised value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Codes −127…127.
    Eight,
    /// Codes −7…7.
    Four,
}

/// Most outputs that share a scale.
const BLOCK: usize = 64;

/// The outputs that share a scale in a matrix of `outputs` columns: the largest power of two up to
/// 64 that divides them. `None` where blocks would be so small that the scales outweigh the codes.
pub fn block_size(outputs: usize) -> Option<usize> {
    let block = BLOCK.min(1 << outputs.trailing_zeros().min(6));
    (block >= 16).then_some(block)
}

/// `weight` `[inputs, outputs]` quantised in blocks of outputs; as it is where [`block_size`] gives
/// none.
///
/// The largest value of a block has the largest code, and a scale has 12 significant bits, so that
/// scale · code is exact in f32: quantising what [`dequantise`] gives finds the same codes
/// and scales. A model that is saved and read again is therefore the same model.
pub fn quantise(weight: Tensor<2>, bits: Bits) -> Tensor<2> {
    let [inputs, outputs] = weight.dims();
    let Some(block) = block_size(outputs) else {
        return weight;
    };
    let device = weight.device();
    let (value, largest_code) = match bits {
        Bits::Eight => (QuantValue::Q8S, 127.0),
        Bits::Four => (QuantValue::Q4S, 7.0),
    };
    let weight = weight.cast(DType::F32);
    let blocks = outputs / block;
    let peaks = weight.clone().abs().reshape([inputs * blocks, block]);
    let peaks = peaks.max_dim(1).try_into_vec_as::<f32>();
    // What cannot be read back here cannot be read back anywhere: the caller's first pass says so.
    let Ok(peaks) = peaks else { return weight };
    let scale = |peak: f32| round_up(peak / largest_code).max(f32::MIN_POSITIVE);
    let scales: Vec<f32> = peaks.into_iter().map(scale).collect();
    let scales = Tensor::<1>::from_data(TensorData::new(scales, [inputs * blocks]), &device);
    let scheme = QuantScheme::default()
        .with_value(value)
        .per_block([block as u8], ScaleDtype::F32)
        .with_store(QuantStore::PackedU32(0));
    let codes = weight.quantize(
        &scheme,
        QuantizationParameters {
            scales,
            global: None,
        },
    );
    let compact = <Dispatch as FrozenWeight>::compact(codes.into_dispatch());
    Tensor::from_dispatch(compact)
}

/// The next number with at most 12 significant bits, upwards (of a number that is not negative).
fn round_up(x: f32) -> f32 {
    const DROPPED: u32 = (1 << 12) - 1;
    f32::from_bits((x.to_bits() + DROPPED) & !DROPPED)
}

/// The shape of a weight, quantised or not.
pub fn dims<const D: usize>(weight: &Tensor<D>) -> [usize; D] {
    let mut dims = weight.dims();
    let device = weight.device().without_autodiff();
    let on_flex = matches!(device.as_dispatch(), DispatchDevice::Flex(_));
    if let (DType::QFloat(scheme), true) = (weight.dtype(), on_flex) {
        dims[D - 1] *= codes_per_byte(&scheme);
    }
    dims
}

/// The shape of a parameter, quantised or not, which may have no values yet.
pub fn param_shape<const D: usize>(param: &Param<Tensor<D>>) -> Shape {
    match param.is_initialized() {
        true => Shape::from(dims(&param.base())),
        false => param.lazy_shape(),
    }
}

/// Codes that share a byte on flex: two where [`FrozenWeight::compact`] has been, whose mark is a
/// store that flex itself never has.
pub(super) fn codes_per_byte(scheme: &QuantScheme) -> usize {
    match scheme.store {
        QuantStore::Native => 1,
        _ => 2,
    }
}

/// `weight` in floats: a quantised one in f32, another as it is.
pub fn dequantise<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    if weight.dtype().is_float() {
        return weight;
    }
    let weight = weight.into_dispatch();
    Tensor::from_dispatch(<Dispatch as FrozenWeight>::floats(weight))
}

/// `x · weight` with a weight from [`quantise`].
///
/// The backward pass makes the floats again: between the passes only the codes are held.
///
/// # Shapes
/// `[rows, inputs]` · `[inputs, outputs]` → `[rows, outputs]`
pub fn frozen_matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FrozenWeight>::product(x, weight, false))
}

/// Backends that hold a quantised weight and multiply by it without keeping its floats.
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
pub trait FrozenWeight: Backend {
    /// Burn's codes in as little memory as they need.
    fn compact(weight: QuantizedTensor<Self>) -> QuantizedTensor<Self>;

    /// The values of a [`Self::compact`] weight, in f32.
    fn floats(weight: QuantizedTensor<Self>) -> FloatTensor<Self>;

    /// `x · weight`, or `x · weightᵀ` where `transposed`, with a [`Self::compact`] weight.
    fn product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;
}

impl<B: FrozenWeight, C: CheckpointStrategy> FrozenWeight for Autodiff<B, C> {
    fn compact(weight: QuantizedTensor<Self>) -> QuantizedTensor<Self> {
        B::compact(weight)
    }

    fn floats(weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::floats(weight))
    }

    fn product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Product;

        impl<B: FrozenWeight> Backward<B, 1> for Product {
            type State = (QuantizedTensor<B>, bool);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (weight, transposed) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
                    B::product(gradient, weight, !transposed)
                });
            }
        }

        let (x, node) = x.into_parts();
        let y = B::product(x, weight.clone(), transposed);
        match Product.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((weight, transposed), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[cfg(any(
    feature = "vulkan",
    feature = "wgpu",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]
impl FrozenWeight for burn::backend::Cube {
    fn compact(weight: QuantizedTensor<Self>) -> QuantizedTensor<Self> {
        weight
    }

    fn floats(weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        use burn::backend::ops::QTensorOps;

        Self::dequantize(weight, DType::F32.into())
    }

    fn product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        use burn::backend::TensorMetadata;
        use burn::backend::ops::{FloatTensorOps, QTensorOps};

        let mut dense = Self::dequantize(weight, x.dtype().into());
        if transposed {
            dense = Self::float_transpose(dense);
        }
        Self::float_matmul(x, dense)
    }
}
