//! The weights that learn, from one copy of a model to another.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mlrm_model::weights::{each_parameter, map_parameters};

use crate::error::TrainError;

/// The parameters that learn, by path: flat, outside the autodiff graph, in the formats of the model.
pub type Weights = BTreeMap<String, Tensor<1>>;

/// The weights of `module` that learn.
pub fn learnt_weights<M: Module>(module: &M) -> Weights {
    let mut weights = Weights::new();
    each_parameter(module, &mut |param| {
        if param.learns() {
            weights.insert(param.path(), param.values());
        }
    });
    weights
}

/// `module` on `device` with these weights in place of its own.
///
/// # Errors
/// Weights that are not those that learn in `module`.
pub fn with_weights<M: Module>(
    module: M,
    weights: &Weights,
    device: &Device,
) -> Result<M, TrainError> {
    let mut written = 0;
    // The first parameter that the weights do not fit.
    let mut other = None;
    let module = map_parameters(module, &mut |param| {
        let path = param.path();
        let weight = weights.get(&path);
        let fits = |weight: &&Tensor<1>| param.learns() && param.elements() == weight.dims()[0];
        match weight.filter(fits) {
            Some(weight) => {
                written += 1;
                let weight = weight.clone().to_device(device);
                param.update(Box::new(|_old| weight));
            }
            None if weight.is_some() || param.learns() => {
                other.get_or_insert(path);
            }
            None => {}
        }
    });
    match other {
        Some(path) => Err(TrainError::Worker(format!(
            "`{path}` has another size here, or does not learn: the workers hold different models"
        ))),
        None if written != weights.len() => Err(TrainError::Worker(format!(
            "{} parameters learn, but {written} here: the workers hold different models",
            weights.len(),
        ))),
        None => Ok(module),
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::DType;

    use super::*;

    #[derive(Module, Debug)]
    struct Small {
        learns: Param<Tensor<2>>,
        stays: Param<Tensor<1>>,
    }

    fn small(rows: usize, value: f64, format: DType) -> Small {
        let device = Device::flex();
        let filled = Tensor::<2>::full([rows, 2], value, &device).cast(format);
        Small {
            learns: Param::from_tensor(filled.autodiff().require_grad()),
            stays: Param::from_tensor(Tensor::<1>::full([3], value, &device).autodiff())
                .set_require_grad(false),
        }
    }

    #[test]
    fn what_learns_is_written_and_nothing_else() {
        let device = Device::flex();
        for format in [DType::F32, DType::BF16] {
            let weights = learnt_weights(&small(4, 7.0, format));
            assert_eq!(weights.keys().collect::<Vec<_>>(), ["learns"]);
            let other = with_weights(small(4, 1.0, format), &weights, &device).unwrap();
            let learns = other.learns.val();
            assert!(learns.is_require_grad() && learns.dtype() == format);
            assert_eq!(learns.try_into_vec_as::<f32>().unwrap(), [7.0; 8]);
            assert_eq!(
                other.stays.val().try_into_vec_as::<f32>().unwrap(),
                [1.0; 3]
            );
        }
    }

    #[test]
    fn weights_of_another_model_are_refused() {
        let weights = learnt_weights(&small(4, 7.0, DType::F32));
        let refused = |module, weights: &Weights| {
            let error = with_weights(module, weights, &Device::flex()).unwrap_err();
            assert!(error.to_string().contains("different models"), "{error}");
        };
        refused(small(5, 1.0, DType::F32), &weights);
        refused(small(4, 1.0, DType::F32), &Weights::new());
        let mut more = weights;
        more.insert("other".into(), more["learns"].clone());
        refused(small(4, 1.0, DType::F32), &more);
    }
}
