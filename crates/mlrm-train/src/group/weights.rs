//! The weights that learn, from one copy of a model to another.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::error::TrainError;

/// The parameters that learn, by path: flat, outside the autodiff graph, in the formats of the model.
pub type Weights = BTreeMap<String, Tensor<1>>;

/// The weights of `module` that learn.
pub fn learnt_weights<M: Module>(module: &M) -> Weights {
    let mut reader = Reader::default();
    module.visit(&mut reader);
    reader.weights
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
    let mut writer = Writer {
        path: Vec::new(),
        weights,
        device,
        written: 0,
        other: None,
    };
    let module = module.map(&mut writer);
    let other = writer.other;
    match other {
        Some(path) => Err(TrainError::Run(format!(
            "`{path}` has another size here, or does not learn: the workers hold different models"
        ))),
        None if writer.written != weights.len() => Err(TrainError::Run(format!(
            "{} parameters learn, but {} here: the workers hold different models",
            weights.len(),
            writer.written
        ))),
        None => Ok(module),
    }
}

#[derive(Default)]
struct Reader {
    path: Vec<String>,
    weights: Weights,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if value.is_require_grad() {
            let value = value.inner();
            let elements = value.shape().num_elements();
            let flat = value.reshape([elements]);
            self.weights.insert(self.path.join("."), flat);
        }
    }
}

struct Writer<'a> {
    path: Vec<String>,
    weights: &'a Weights,
    device: &'a Device,
    written: usize,
    /// The first parameter that the weights do not fit.
    other: Option<String>,
}

impl ModuleMapper for Writer<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let learns = param.val().is_require_grad();
        let Some(weight) = self.weights.get(&path) else {
            if learns {
                self.other.get_or_insert(path);
            }
            return param;
        };
        let shape = param.val().shape();
        if !learns || shape.num_elements() != weight.dims()[0] {
            self.other.get_or_insert(path);
            return param;
        }
        self.written += 1;
        let weight = weight.clone().to_device(self.device);
        param.map(|_old| weight.reshape(shape).autodiff().require_grad())
    }
}

#[cfg(test)]
mod tests {
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
