//! L2 normalisation at its edge: rows without a direction.

use burn::tensor::{Device, Tensor, TensorData};
use mlrm_model::embedder::normalise;

#[test]
fn rows_of_zeros_stay_zeros_with_a_finite_gradient() {
    let device = Device::flex().autodiff();
    let rows = [3.0f32, 4.0, 0.0, 0.0, 3e-20, 0.0, -6e-7, 8e-7];
    let x = Tensor::<2>::from_data(TensorData::new(rows.to_vec(), [4, 2]), &device).require_grad();
    let weights = TensorData::new(vec![1.0f32, -2.0], [1, 2]);
    let weights = Tensor::<2>::from_data(weights, &device);
    let y = normalise(x.clone());
    let gradients = (y.clone() * weights).sum().backward();
    let gradient = x.grad(&gradients).expect("a gradient");
    let read = |t: Tensor<2>| t.try_into_vec_as::<f32>().expect("values");

    // As torch.nn.functional.normalize gives them.
    let near = |found: &[f32], expected: &[f32]| {
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs().max(1e-9),
                "{found} is not {expected}"
            );
        }
    };
    near(
        &read(y.inner()),
        &[0.6, 0.8, 0.0, 0.0, 3e-8, 0.0, -0.6, 0.8],
    );
    near(
        &read(gradient),
        &[
            0.32, -0.24, 1e12, -2e12, 1e12, -2e12, -320_000.0, -240_000.0,
        ],
    );
}
