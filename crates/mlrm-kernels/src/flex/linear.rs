//! Linear maps, and low-rank changes of them.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{build, column_sums, dense, in_place, tensor, values, values_mut};
use super::kernel::{Gradients, Kernel, Output};
use super::product::{Factor, Part, Right, add_product, product, product_over_rows, transposed};

/// `x weight`, or `x weight + bias`; inputs x `[rows, inputs]`, weight `[inputs, outputs]`, bias
/// `[outputs]`.
#[derive(Debug, Clone)]
pub(crate) struct Linear;

/// The factors of a product that the gradients of each other need: x for that of the weight, the
/// weight for that of x. Beside a weight that does not learn, no x is held.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
}

impl Factors {
    /// What the gradients of the wanted ones of `[x, weight]` need.
    fn keep(x: FlexTensor, weight: FlexTensor, wanted: [bool; 2]) -> Self {
        Self {
            x: wanted[1].then_some(x),
            weight: wanted[0].then_some(weight),
        }
    }

    /// ∂x = ∂ weightᵀ
    fn gradient_of_x(&self, gradient: &FlexTensor) -> Option<FlexTensor> {
        let weight = self.weight.as_ref()?;
        // What the gradient of the weight needs is held where it learns.
        let right = Right::weight(weight, self.x.is_some()).transposed();
        let values = product(matrix(gradient), right);
        Some(tensor(values, [gradient.shape()[0], weight.shape()[0]]))
    }

    /// ∂weight = xᵀ ∂
    fn gradient_of_weight(&self, gradient: &FlexTensor) -> Option<FlexTensor> {
        let x = self.x.as_ref()?;
        let (inputs, outputs) = (x.shape()[1], gradient.shape()[1]);
        if outputs < inputs / 8 {
            // A narrow gradient is twice as fast to multiply from the left.
            let values = product_over_rows(matrix(gradient), matrix(x));
            return Some(dense(tensor(values, [outputs, inputs]).transpose(0, 1)));
        }
        let values = product_over_rows(matrix(x), matrix(gradient));
        Some(tensor(values, [inputs, outputs]))
    }
}

impl Kernel<2> for Linear {
    type Saved = Factors;

    fn forward(&self, [x, weight]: [FlexTensor; 2], wanted: [bool; 2]) -> Output<Self::Saved> {
        let shape = [x.shape()[0], weight.shape()[1]];
        let right = Right::weight(&weight, wanted[1]);
        let output = tensor(product(matrix(&x), right), shape);
        (output, Some(Factors::keep(x, weight, wanted)))
    }

    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, _: [bool; 2]) -> Gradients<2> {
        let dx = saved.gradient_of_x(&gradient);
        [dx, saved.gradient_of_weight(&gradient)]
    }
}

impl Kernel<3> for Linear {
    type Saved = Factors;

    fn forward(
        &self,
        [x, weight, bias]: [FlexTensor; 3],
        wanted: [bool; 3],
    ) -> Output<Self::Saved> {
        let bias = dense(bias);
        let (rows, outputs) = (x.shape()[0], weight.shape()[1]);
        let bias = values(&bias);
        let mut output = build(
            rows,
            outputs,
            #[inline(always)]
            |_, slot| slot.fill(bias.iter().copied()),
        );
        add_product(&mut output, matrix(&x), Right::weight(&weight, wanted[1]));
        let output = tensor(output, [rows, outputs]);
        let saved = Factors::keep(x, weight, [wanted[0], wanted[1]]);
        (output, Some(saved))
    }

    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> Gradients<3> {
        let dx = saved.gradient_of_x(&gradient);
        let dweight = saved.gradient_of_weight(&gradient);
        let dbias = wanted[2].then(|| {
            let width = gradient.shape()[1];
            tensor(column_sums(values(&dense(gradient)), width), [width])
        });
        [dx, dweight, dbias]
    }
}

/// `y + scale (x a) b`, written over y; inputs y `[rows, outputs]`, x `[rows, inputs]`, a
/// `[inputs, rank]`, b `[rank, outputs]`.
#[derive(Debug, Clone)]
pub(crate) struct AddLowRank {
    pub(crate) scale: f32,
}

/// The factors of both products; the x of the second is `scale x a`.
#[derive(Debug, Clone)]
pub(crate) struct LowRankFactors {
    inner: Factors,
    outer: Factors,
}

impl AddLowRank {
    /// `scale left right`, which is narrow.
    fn scaled(&self, left: Factor<'_>, right: Factor<'_>, shape: [usize; 2]) -> FlexTensor {
        let mut values = product(left, right);
        in_place(
            &mut values,
            #[inline(always)]
            |_, chunk| {
                chunk.iter_mut().for_each(|value| *value *= self.scale);
            },
        );
        tensor(values, shape)
    }
}

impl Kernel<4> for AddLowRank {
    type Saved = LowRankFactors;

    fn forward(
        &self,
        [y, x, a, b]: [FlexTensor; 4],
        [_, of_x, of_a, of_b]: [bool; 4],
    ) -> Output<Self::Saved> {
        let narrow = [x.shape()[0], a.shape()[1]];
        let low = self.scaled(matrix(&x), matrix(&a), narrow);
        let mut y = dense(y);
        add_product(values_mut(&mut y), matrix(&low), matrix(&b));
        let saved = LowRankFactors {
            inner: Factors::keep(x, a, [of_x, of_a]),
            outer: Factors::keep(low, b, [of_x || of_a, of_b]),
        };
        (y, Some(saved))
    }

    fn backward(
        &self,
        LowRankFactors { inner, outer }: Self::Saved,
        gradient: FlexTensor,
        _: [bool; 4],
    ) -> Gradients<4> {
        let db = outer.gradient_of_weight(&gradient);
        // The gradient of x a, which ∂x and ∂a go through.
        let low = outer.weight.as_ref().map(|b| {
            let narrow = [gradient.shape()[0], b.shape()[0]];
            self.scaled(matrix(&gradient), transposed(matrix(b)), narrow)
        });
        let dx = low.as_ref().and_then(|low| inner.gradient_of_x(low));
        let da = low.as_ref().and_then(|low| inner.gradient_of_weight(low));
        [Some(gradient), dx, da, db]
    }
}

/// A tensor of two axes as it lies in memory, transposed or not.
pub(super) fn matrix(tensor: &FlexTensor) -> Factor<'_> {
    (tensor.storage(), Part::of(tensor.layout()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(shape: [usize; 2]) -> FlexTensor {
        tensor(vec![1.0; shape[0] * shape[1]], shape)
    }

    #[test]
    fn a_weight_that_does_not_learn_keeps_no_activations() {
        let kept = |wanted| {
            let (_, saved) = Kernel::<2>::forward(&Linear, [ones([4, 3]), ones([3, 2])], wanted);
            saved.map(|saved| (saved.x.is_some(), saved.weight.is_some()))
        };
        assert_eq!(kept([true, true]), Some((true, true)));
        assert_eq!(kept([true, false]), Some((false, true)));
        assert_eq!(kept([false, true]), Some((true, false)));
    }
}
