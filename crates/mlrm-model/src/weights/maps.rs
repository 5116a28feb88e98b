//! The linear maps of a module, held quantised or not, and what of a module learns.

use burn::module::Module;
use burn::tensor::DType;

use super::walk::{Kind, each_parameter, map_parameters};
use crate::ops::Bits;

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
    let mut maps = Vec::new();
    each_parameter(module, &mut |param| {
        if param.kind() == Kind::MapWeight {
            let weight = param.named(rename);
            let name = weight.name.strip_suffix(".weight").unwrap_or(&weight.name);
            maps.push(LinearMap {
                path: param.path(),
                name: name.to_owned(),
                inputs: weight.shape[1],
                outputs: weight.shape[0],
            });
        }
    });
    maps
}

/// `module` with the weights of its linear maps held quantised, and all else in `dtype`. None of
/// them learns then.
pub fn quantise_linear_maps<M: Module>(module: M, bits: Bits, dtype: DType) -> M {
    map_parameters(module.no_grad(), &mut |param| match param.kind() {
        Kind::MapWeight => param.quantise(bits),
        Kind::Factor | Kind::Plain => param.update(Box::new(|old| old.cast(dtype))),
    })
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
    let mut elements = 0;
    each_parameter(module, &mut |param| {
        // To ask whether a parameter learns gives it values.
        if !only_learning || param.learns() {
            elements += param.elements();
        }
    });
    elements
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
