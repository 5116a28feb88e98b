//! The linear maps of a module, held quantised or not, and what of a module learns.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use super::module::Place;
use crate::ops::{Bits, param_shape, quantise};

/// A linear map of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearMap {
    /// The module's own path of its weight.
    pub path: String,
    /// Its checkpoint name, without the checkpoint's prefix and without `.weight`.
    pub name: String,
    /// Width of what it takes.
    pub inputs: usize,
    /// Width of what it gives.
    pub outputs: usize,
}

/// The linear maps of `module`, in the module's order.
pub fn linear_maps<M: Module>(module: &M, rename: fn(&str) -> String) -> Vec<LinearMap> {
    let mut finder = LinearFinder {
        place: Place::default(),
        rename,
        maps: Vec::new(),
    };
    module.visit(&mut finder);
    finder.maps
}

struct LinearFinder {
    place: Place,
    rename: fn(&str) -> String,
    maps: Vec<LinearMap>,
}

impl ModuleVisitor for LinearFinder {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.place.is_map_weight() {
            let weight = self.place.name(self.rename);
            let name = weight.strip_suffix(".weight").unwrap_or(&weight);
            let shape = param_shape(param);
            self.maps.push(LinearMap {
                path: self.place.whole_path(),
                name: name.to_owned(),
                inputs: shape[0],
                outputs: shape[D - 1],
            });
        }
    }
}

/// `module` with the weights of its linear maps held quantised, and all else in `dtype`. None of
/// them learns then.
pub fn quantise_linear_maps<M: Module>(module: M, bits: Bits, dtype: DType) -> M {
    module.no_grad().map(&mut Quantiser {
        place: Place::default(),
        bits,
        dtype,
    })
}

struct Quantiser {
    place: Place,
    bits: Bits,
    dtype: DType,
}

impl ModuleMapper for Quantiser {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let matrix = self.place.is_map_weight();
        param.map(|old| match matrix {
            true => quantise_weight(old, self.bits),
            false => old.cast(self.dtype),
        })
    }
}

/// The weight of a linear map held quantised.
pub(super) fn quantise_weight<const D: usize>(weight: Tensor<D>, bits: Bits) -> Tensor<D> {
    let [inputs, outputs] = [weight.dims()[0], weight.dims()[D - 1]];
    let quantised = quantise(weight.reshape([inputs, outputs]), bits);
    Tensor::from_dispatch(quantised.into_dispatch())
}

/// Parameters of `module` and its adapters, counted in elements. Those that have no values yet get
/// none.
pub fn parameter_count<M: Module>(module: &M) -> usize {
    count(module, false)
}

/// Parameters of `module` and its adapters that learn, counted in elements.
pub fn trained_parameter_count<M: Module>(module: &M) -> usize {
    count(module, true)
}

fn count<M: Module>(module: &M, only_learning: bool) -> usize {
    let mut counter = Counter {
        only_learning,
        elements: 0,
    };
    module.visit(&mut counter);
    counter.elements
}

struct Counter {
    only_learning: bool,
    elements: usize,
}

impl ModuleVisitor for Counter {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // To ask whether a parameter learns gives it values.
        if !self.only_learning || param.base().is_require_grad() {
            self.elements += param_shape(param).num_elements();
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::nn::{Linear, linear};
    use crate::weights::named_tensors;

    /// A model of many gigabytes is looked at without memory for its zeros.
    #[test]
    fn looking_at_a_module_gives_it_no_values() {
        let map: Linear = linear(3, 5, true, &Device::default().autodiff());
        assert_eq!(parameter_count(&map), 20);
        assert_eq!(linear_maps(&map, str::to_owned).len(), 1);
        assert_eq!(named_tensors(&map, str::to_owned).len(), 2);
        assert!(!map.weight.is_initialized());
        assert_eq!(trained_parameter_count(&map), 20);
        assert_eq!(trained_parameter_count(&map.no_grad()), 0);
    }
}
