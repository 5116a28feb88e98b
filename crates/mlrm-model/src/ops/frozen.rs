//! Weights that do not learn, held quantised: Burn's symmetric codes with a scale for every block of
//! outputs, turned back into floats for each product and forgotten again.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::quantization::{
    QuantScheme, QuantStore, QuantValue, QuantizationParameters, ScaleDtype,
};
use burn::tensor::{DType, Tensor, TensorData};

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
/// scale · code is exact in f32: quantising what [`Tensor::dequantize`] gives finds the same codes
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
    weight.quantize(
        &scheme,
        QuantizationParameters {
            scales,
            global: None,
        },
    )
}

/// The next number with at most 12 significant bits, upwards (of a number that is not negative).
fn round_up(x: f32) -> f32 {
    const DROPPED: u32 = (1 << 12) - 1;
    f32::from_bits((x.to_bits() + DROPPED) & !DROPPED)
}

/// `x · weight` with a weight from [`quantise`].
///
/// The backward pass makes the floats again: between the passes only the codes are held.
///
/// # Shapes
/// `[rows, inputs]` · `[inputs, outputs]` → `[rows, outputs]`
pub fn frozen_matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FrozenProduct>::frozen_product(
        x, weight, false,
    ))
}

/// Backends that multiply by a quantised weight without keeping its floats.
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
pub trait FrozenProduct: Backend {
    /// `x · weight`, or `x · weightᵀ` where `transposed`.
    fn frozen_product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;
}

impl<B: FrozenProduct, C: CheckpointStrategy> FrozenProduct for Autodiff<B, C> {
    fn frozen_product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Product;

        impl<B: FrozenProduct> Backward<B, 1> for Product {
            type State = (QuantizedTensor<B>, bool);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let (weight, transposed) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
                    B::frozen_product(gradient, weight, !transposed)
                });
            }
        }

        let (x, node) = x.into_parts();
        let y = B::frozen_product(x, weight.clone(), transposed);
        match Product.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((weight, transposed), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[cfg(feature = "flex")]
impl FrozenProduct for Flex {
    fn frozen_product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        use burn::backend::TensorMetadata;
        use burn::backend::ops::FloatTensorOps;

        let dtype = x.dtype();
        let codes = weight.tensor().to_contiguous();
        let shape = codes.shape();
        // Burn's own dequantisation looks the block of every value up anew.
        let codes: &[i8] = codes.storage();
        let block = codes.len() / weight.scales().len();
        let blocks = codes.chunks_exact(block).zip(weight.scales());
        let mut values = Vec::with_capacity(codes.len());
        for (codes, &scale) in blocks {
            values.extend(codes.iter().map(|&code| scale * f32::from(code)));
        }
        let mut dense = FlexTensor::from_data(TensorData::new(values, shape));
        if dtype != DType::F32 {
            dense = Self::float_cast(dense, dtype.into());
        }
        if transposed {
            dense = dense.transpose(0, 1);
        }
        Self::float_matmul(x, dense)
    }
}

#[cfg(any(
    feature = "vulkan",
    feature = "wgpu",
    feature = "metal",
    feature = "cuda",
    feature = "rocm"
))]
impl FrozenProduct for burn::backend::Cube {
    fn frozen_product(
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
