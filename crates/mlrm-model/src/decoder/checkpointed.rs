//! A pass that holds of each layer only what it reads, and runs it again for its gradient (gradient
//! checkpointing, Chen et al., arXiv 1604.06174).

use burn::tensor::{Gradients, Tensor};

use std::sync::Arc;

use super::input::deepened;
use super::{Decoder, DecoderInput};
use crate::nn::Place;
use crate::weights::trained_parameter_count;

/// What the layers of a pass read.
#[derive(Debug, Clone)]
pub struct DecoderCheckpoints {
    /// What the first layer reads, in the graph of what made it.
    entered: Tensor<3>,
    /// What each layer but the last reads, outside the graph.
    states: Vec<Tensor<3>>,
    /// What the last one reads.
    last: Tensor<3>,
    /// The positions that leave the decoder.
    wanted: Vec<usize>,
    /// See [`DecoderInput::places`].
    places: Option<Arc<[Place]>>,
    /// See [`DecoderInput::deep`]: in the graph of what made them.
    deep: Vec<Tensor<3>>,
}

impl DecoderCheckpoints {
    /// Runs the layers of `decoder` but the last, without a graph: `frozen` is the same decoder
    /// outside autodiff. Shapes are those of [`Decoder::forward_pooled`].
    pub fn new(
        decoder: &Decoder,
        frozen: &Decoder,
        input: impl Into<DecoderInput>,
        wanted: &[usize],
    ) -> Self {
        let DecoderInput {
            embeds,
            places,
            deep,
        } = input.into();
        let entered = decoder.enter(embeds);
        let mut x = entered.clone().inner();
        let pass = frozen.pooled_pass(&x, places.as_deref(), wanted);
        let values: Vec<_> = deep.iter().map(|all| all.clone().inner()).collect();
        let mut states = Vec::with_capacity(decoder.layers.len());
        for (index, layer) in frozen.inner_layers().iter().enumerate() {
            states.push(x.clone());
            x = deepened(layer.forward(x, &pass.all, None), &values, index);
        }
        Self {
            entered,
            states,
            last: x,
            wanted: wanted.to_vec(),
            places,
            deep,
        }
    }

    /// What leaves the decoder, `[batch, count, width]`, without a graph.
    pub fn output(&self, frozen: &Decoder) -> Tensor<3> {
        let pass = frozen.pooled_pass(&self.last, self.places.as_deref(), &self.wanted);
        frozen.finish(self.last.clone(), &pass)
    }

    /// Runs the layers again from the last to the first, each in a graph of its own. `of_output` makes
    /// of what leaves the decoder a number whose gradient is wanted; `collect` hears the gradients of
    /// each layer's parameters. Returns a number whose gradient is that of what made the embeddings,
    /// where anything there learns.
    pub fn backward(
        self,
        decoder: &Decoder,
        of_output: impl FnOnce(Tensor<3>) -> Tensor<1>,
        collect: &mut dyn FnMut(Gradients),
    ) -> Option<Tensor<1>> {
        let x = leaf(self.last);
        let pass = decoder.pooled_pass(&x, self.places.as_deref(), &self.wanted);
        let mut gradients = of_output(decoder.finish(x.clone(), &pass)).backward();
        let mut upstream = x.grad_remove(&mut gradients);
        collect(gradients);
        let tracked = |x: &Tensor<3>| x.is_tracked();
        let learns = tracked(&self.entered) || self.deep.iter().any(tracked);
        let layers = decoder.inner_layers();
        // Below the first layer that learns nothing asks for a gradient.
        let first = match learns {
            true => Some(0),
            false => layers
                .iter()
                .position(|layer| trained_parameter_count(layer) > 0),
        };
        let first = first.unwrap_or(layers.len());
        let mut inputs = Vec::new();
        for (index, state) in self.states.into_iter().enumerate().skip(first).rev() {
            let layer = &layers[index];
            // What is added to the layer's output has the gradient of that.
            if let Some(deep) = self.deep.get(index).filter(|deep| tracked(deep)) {
                inputs.push(along(deep.clone(), upstream.clone()?));
            }
            let x = leaf(state);
            let y = layer.forward(x.clone(), &pass.all, None);
            let mut gradients = along(y, upstream?).backward();
            upstream = x.grad_remove(&mut gradients);
            collect(gradients);
        }
        if tracked(&self.entered) {
            inputs.push(along(self.entered, upstream?));
        }
        inputs.into_iter().reduce(|a, b| a + b)
    }
}

/// `values` as the beginning of a graph.
pub(crate) fn leaf<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    values.inner().autodiff().require_grad()
}

/// A number whose gradient with respect to `values` is `gradient`, which is outside the graph.
pub fn along<const D: usize>(values: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    (values * gradient.autodiff()).sum()
}
