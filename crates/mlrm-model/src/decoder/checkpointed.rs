//! A pass that holds of each layer only what it reads, and runs it again for its gradient (gradient
//! checkpointing, Chen et al., arXiv 1604.06174).

use burn::tensor::{Gradients, Tensor};

use super::Decoder;
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
}

impl DecoderCheckpoints {
    /// Runs the layers of `decoder` but the last, without a graph: `frozen` is the same decoder
    /// outside autodiff. Shapes are those of [`Decoder::forward_pooled`].
    pub fn new(decoder: &Decoder, frozen: &Decoder, embeds: Tensor<3>, wanted: &[usize]) -> Self {
        let entered = decoder.enter(embeds);
        let mut x = entered.clone().inner();
        let pass = frozen.pooled_pass(&x, wanted);
        let mut states = Vec::with_capacity(decoder.layers.len());
        for layer in frozen.inner_layers() {
            states.push(x.clone());
            x = layer.forward(x, &pass.all, None);
        }
        Self {
            entered,
            states,
            last: x,
            wanted: wanted.to_vec(),
        }
    }

    /// What leaves the decoder, `[batch, count, width]`, without a graph.
    pub fn output(&self, frozen: &Decoder) -> Tensor<3> {
        let pass = frozen.pooled_pass(&self.last, &self.wanted);
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
        let pass = decoder.pooled_pass(&x, &self.wanted);
        let mut gradients = of_output(decoder.finish(x.clone(), &pass)).backward();
        let mut upstream = x.grad_remove(&mut gradients);
        collect(gradients);
        let learns = self.entered.is_tracked();
        let layers = decoder.inner_layers();
        // Below the first layer that learns nothing asks for a gradient.
        let first = match learns {
            true => Some(0),
            false => layers
                .iter()
                .position(|layer| trained_parameter_count(layer) > 0),
        };
        let first = first.unwrap_or(layers.len());
        for (layer, state) in layers.iter().zip(self.states).skip(first).rev() {
            let x = leaf(state);
            let y = layer.forward(x.clone(), &pass.all, None);
            let mut gradients = along(y, upstream?).backward();
            upstream = x.grad_remove(&mut gradients);
            collect(gradients);
        }
        learns
            .then(|| Some(along(self.entered, upstream?)))
            .flatten()
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
