//! Quantised weights.

use burn::backend::flex::{FlexQTensor, FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue};
use burn::tensor::{Bytes, DType, Shape};

use super::buffer::{rows_in_place, tensor};
use super::linear::matrix;
use super::product::{product, transposed};
use crate::frozen::{FrozenWeight, codes_per_byte};

impl FrozenWeight for Flex {
    /// Two codes of four bits in a byte: the first half of a block in the low bits, the second in the
    /// high ones.
    fn compact(weight: QuantizedTensor<Self>) -> QuantizedTensor<Self> {
        let scheme = scheme(&weight);
        if scheme.value != QuantValue::Q4S {
            return weight;
        }
        let [inputs, outputs] = sizes(&weight.shape());
        let codes = weight.tensor().to_contiguous();
        let codes: &[i8] = codes.storage();
        let block = codes.len() / weight.scales().len();
        let pairs = codes.chunks_exact(block).flat_map(|codes| {
            let (low, high) = codes.split_at(block / 2);
            low.iter().zip(high).map(|(l, h)| l & 0xf | h << 4)
        });
        let bytes: Vec<i8> = pairs.collect();
        let layout = Layout::contiguous(Shape::new([inputs, outputs / 2]));
        let bytes = FlexTensor::new(Bytes::from_elems(bytes), layout, DType::I8);
        let scheme = scheme.with_store(QuantStore::PackedU32(0));
        FlexQTensor::new(bytes, scheme, weight.scales().to_vec(), None)
    }

    fn floats(weight: QuantizedTensor<Self>) -> FloatTensor<Self> {
        let bytes = weight.tensor().to_contiguous();
        let bytes: &[i8] = bytes.storage();
        let [inputs, columns] = sizes(&weight.shape());
        let shared = codes_per_byte(&scheme(&weight));
        let outputs = columns * shared;
        let mut floats = vec![0.0; inputs * outputs];
        // Bytes and codes of a block, and blocks of a row.
        let held = bytes.len() / weight.scales().len().max(1);
        let (block, blocks) = (held * shared, columns / held.max(1));
        rows_in_place(
            &mut floats,
            outputs,
            0,
            #[inline(always)]
            |row, floats, _sums| {
                let bytes = bytes[row * columns..][..columns].chunks_exact(held);
                let scales = &weight.scales()[row * blocks..][..blocks];
                let blocks = floats.chunks_exact_mut(block).zip(bytes).zip(scales);
                for ((floats, bytes), &scale) in blocks {
                    let (first, second) = floats.split_at_mut(held);
                    if shared == 1 {
                        let codes = first.iter_mut().zip(bytes);
                        codes.for_each(|(value, code)| *value = scale * f32::from(*code));
                    } else {
                        for ((low, high), pair) in first.iter_mut().zip(second).zip(bytes) {
                            *low = scale * f32::from(pair << 4 >> 4);
                            *high = scale * f32::from(pair >> 4);
                        }
                    }
                }
            },
        );
        tensor(floats, [inputs, outputs])
    }

    fn product(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        by_transpose: bool,
    ) -> FloatTensor<Self> {
        let dense = Self::floats(weight);
        let dtype = x.dtype();
        if dtype != DType::F32 {
            let dense = Self::float_cast(dense, dtype.into());
            let dense = match by_transpose {
                true => dense.transpose(0, 1),
                false => dense,
            };
            return Self::float_matmul(x, dense);
        }
        let (right, outputs) = match by_transpose {
            true => (transposed(matrix(&dense)), dense.shape()[0]),
            false => (matrix(&dense), dense.shape()[1]),
        };
        tensor(product(matrix(&x), right), [x.shape()[0], outputs])
    }
}

fn scheme(weight: &FlexQTensor) -> QuantScheme {
    match weight.dtype() {
        DType::QFloat(scheme) => scheme,
        _ => unreachable!("a quantised tensor has a scheme"),
    }
}

fn sizes(shape: &Shape) -> [usize; 2] {
    [shape[0], shape[1]]
}
