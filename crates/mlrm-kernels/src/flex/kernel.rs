//! The bridge between tensors and kernels: which tensors kernels take, and their place in the
//! autodiff graph.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, DispatchAutodiffContext, DispatchDevice,
    DispatchTensor, DispatchTensorKind, Flex, TensorMetadata,
};
use burn::tensor::{DType, GradientCheckpointingStrategy, Tensor};

/// A tensor in the autodiff graph.
type Tracked = FloatTensor<Autodiff<Flex>>;

/// The output of a kernel, and what its backward pass needs.
pub(crate) type Output<Saved> = (FlexTensor, Option<Saved>);

/// The gradients of those of `N` inputs that are wanted.
pub(crate) type Gradients<const N: usize> = [Option<FlexTensor>; N];

/// An operation on `N` f32 tensors with one output, which knows its own derivative.
pub(crate) trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// What the backward pass needs of the forward pass.
    type Saved: Clone + Debug + Send + 'static;

    /// The output, and what [`Self::backward`] needs for the gradients of the `wanted` inputs: nothing
    /// where none is wanted.
    fn forward(&self, inputs: [FlexTensor; N], wanted: [bool; N]) -> Output<Self::Saved>;

    /// The gradients of those inputs that are `wanted`, from the gradient of the output.
    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, wanted: [bool; N])
    -> Gradients<N>;
}

/// Runs `kernel` where all `inputs` are f32 tensors on flex; hands them back otherwise.
pub(crate) fn run<K: Kernel<N>, const N: usize>(
    kernel: K,
    inputs: [DispatchTensor; N],
) -> Result<DispatchTensor, [DispatchTensor; N]> {
    if !inputs.iter().all(is_ours) {
        return Err(inputs);
    }
    let context = inputs
        .iter()
        .map(|input| input.autodiff)
        .find(|context| *context != DispatchAutodiffContext::Disabled);
    let kind = match context {
        None | Some(DispatchAutodiffContext::Disabled) => {
            let (output, _) = kernel.forward(inputs.map(plain), [false; N]);
            DispatchTensorKind::Flex(BackendTensor::Float(output))
        }
        Some(DispatchAutodiffContext::Enabled(strategy)) => {
            let inputs = inputs.map(tracked);
            let output = match strategy {
                GradientCheckpointingStrategy::Disabled => {
                    record::<K, NoCheckpointing, N>(kernel, inputs)
                }
                GradientCheckpointingStrategy::Balanced => {
                    record::<K, BalancedCheckpointing, N>(kernel, inputs)
                }
            };
            let inner = DispatchTensorKind::Flex(BackendTensor::Autodiff(output));
            DispatchTensorKind::Autodiff(Box::new(inner))
        }
    };
    Ok(DispatchTensor {
        kind,
        autodiff: context.unwrap_or_default(),
    })
}

/// Whether `tensor` is an f32 tensor on flex, outside the autodiff graph.
pub(crate) fn holds<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device();
    tensor.dtype() == DType::F32 && matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// The primitive of a tensor that flex [`holds`].
pub(super) fn unwrap<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    plain(tensor.into_dispatch())
}

/// The tensor of a primitive, outside the autodiff graph.
pub(super) fn wrap<const D: usize>(primitive: FlexTensor) -> Tensor<D> {
    Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::Flex(BackendTensor::Float(primitive)),
        autodiff: DispatchAutodiffContext::Disabled,
    })
}

// Builds with several backends have more kinds than the two that are matched here.
#[allow(unreachable_patterns)]
fn is_ours(tensor: &DispatchTensor) -> bool {
    let kind = match &tensor.kind {
        DispatchTensorKind::Autodiff(inner) => inner,
        kind => kind,
    };
    let float = matches!(
        kind,
        DispatchTensorKind::Flex(BackendTensor::Float(_) | BackendTensor::Autodiff(_))
    );
    float && tensor.kind.dtype() == DType::F32
}

#[allow(unreachable_patterns)]
fn plain(tensor: DispatchTensor) -> FlexTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(inner) => inner.float(),
        _ => unreachable!("an f32 tensor of flex outside the autodiff graph"),
    }
}

/// Tensors outside the graph take part as constants.
#[allow(unreachable_patterns)]
fn tracked(tensor: DispatchTensor) -> Tracked {
    match tensor.kind {
        DispatchTensorKind::Flex(inner) => Autodiff::<Flex>::from_inner(inner.float()),
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Flex(inner) => inner.autodiff(),
            _ => unreachable!("`is_ours` lets through tensors of flex alone"),
        },
        _ => unreachable!("`is_ours` lets through tensors of flex alone"),
    }
}

fn record<K: Kernel<N>, C: CheckpointStrategy, const N: usize>(
    kernel: K,
    inputs: [Tracked; N],
) -> Tracked {
    let wanted = inputs.each_ref().map(Tracked::is_tracked);
    let guards = inputs.each_ref().map(Tracked::node);
    let values = inputs.map(Tracked::into_primitive);
    match Step(kernel.clone())
        .prepare::<C>(guards)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(node) => {
            let (output, saved) = kernel.forward(values, wanted);
            node.finish(saved, output)
        }
        OpsKind::UnTracked(node) => node.finish(kernel.forward(values, wanted).0),
    }
}

/// A kernel's backward pass as a node of the graph.
#[derive(Debug)]
struct Step<K>(K);

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = Option<K::Saved>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        gradients: &mut grads::Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let Some(saved) = ops.state else { return };
        let results = self.0.backward(saved, gradient, wanted);
        for (parent, result) in ops.parents.iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                gradients.register::<Flex>(parent.id, result);
            }
        }
    }
}
