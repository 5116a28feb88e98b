//! What is measured and checked of the trainer and its models, beside training itself.
//!
//! | module | what is there |
//! | --- | --- |
//! | [`verify`] | golden cases: forward, loss, gradients and saliency against values from PyTorch |
//! | [`speed`] | training steps, embedding, products and loading, as `mlrm bench` reports them |
//! | [`flops`] | operations that a batch needs, for the utilisation that [`speed`] reports |
//! | [`measure`] | what a device does at best: products and copies |
//! | [`devices`] | what the binary holds and the machine has, for `mlrm devices` |

pub mod devices;
pub mod flops;
pub mod measure;
pub mod speed;
pub mod verify;
