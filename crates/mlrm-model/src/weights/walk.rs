//! The one walk over the parameters of a module: where each stands, what it is to the module, and what can be read of it
//! and done to it, whatever its rank.

use std::any::type_name;
use std::borrow::Borrow;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

use super::module::NamedTensor;
use crate::nn::Linear;
use crate::ops::{Bits, dequantise, param_shape, quantise};

/// What a parameter is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The weight of a linear map, whose transpose checkpoints hold.
    MapWeight,
    /// A factor of a low-rank adapter, whose transpose checkpoints hold.
    Factor,
    /// Any other.
    Plain,
}

/// Which tensors a walk is about: a module's own, or those of its low-rank adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tensors {
    /// The module's own.
    Base,
    /// A and B of its adapters.
    Adapters,
}

/// Where a walk stands: the names of the fields so far, each with Burn's description of what holds it.
#[derive(Debug, Default)]
pub struct Place {
    fields: Vec<(String, String)>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        self.fields.push((name.to_owned(), container.to_owned()));
    }

    fn exit(&mut self) {
        self.fields.pop();
    }

    fn joined(&self, keep: impl Fn(&str) -> bool) -> String {
        let fields = self.fields.iter().filter(|(_, container)| keep(container));
        let fields: Vec<&str> = fields.map(|(field, _)| field.as_str()).collect();
        fields.join(".")
    }

    fn kind(&self, rank: usize) -> Kind {
        let adapter = |(_, container): &(String, String)| container == "Reparameterization";
        let holds = |(_, container): &(String, String)| *container == container_of::<Linear>();
        match (self.fields.iter().any(adapter), self.fields.last()) {
            (true, _) => Kind::Factor,
            (false, Some(field)) if rank == 2 && holds(field) => Kind::MapWeight,
            _ => Kind::Plain,
        }
    }
}

/// What Burn calls the fields' holder in a struct `T`.
fn container_of<T>() -> String {
    let name = type_name::<T>();
    format!("Struct:{}", name.rsplit("::").next().unwrap_or(name))
}

/// A parameter that a walk comes by.
pub trait Parameter {
    /// Where it stands.
    fn place(&self) -> &Place;
    /// Number of its axes.
    fn rank(&self) -> usize;
    /// Its shape in the module. A parameter that has no values yet gets none.
    fn shape(&self) -> Vec<usize>;
    /// Whether it learns.
    fn learns(&self) -> bool;
    /// The number format that it is held in.
    fn dtype(&self) -> DType;
    /// Its values outside the autodiff graph, `[elements]`; in f32 where they are held quantised.
    fn values(&self) -> Tensor<1>;
    /// Its gradient outside the autodiff graph, `[elements]`.
    fn gradient(&self, gradients: &Gradients) -> Option<Tensor<1>>;
    /// The same, which `gradients` do not hold any longer then.
    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>>;

    /// What it is to its module.
    fn kind(&self) -> Kind {
        self.place().kind(self.rank())
    }

    /// Whether checkpoints hold its transpose.
    fn transposed(&self) -> bool {
        self.kind() != Kind::Plain
    }

    /// Whether it is the module's own or an adapter's.
    fn tensors(&self) -> Tensors {
        match self.kind() {
            Kind::Factor => Tensors::Adapters,
            Kind::MapWeight | Kind::Plain => Tensors::Base,
        }
    }

    /// Number of its values.
    fn elements(&self) -> usize {
        self.shape().iter().product()
    }

    /// Its path in the module, with the variants of enums, as Burn counts it.
    fn path(&self) -> String {
        self.place().joined(|_| true)
    }

    /// Its path without the variants of enums: which kind of a part it is names no tensor.
    fn field_path(&self) -> String {
        self.place()
            .joined(|container| !container.starts_with("Enum:"))
    }

    /// It as a checkpoint knows it, whose names are `rename`'s. A factor of an adapter is called as PEFT calls it:
    /// `….q_proj.lora_A.weight` beside `….q_proj.weight`.
    fn named(&self, rename: fn(&str) -> String) -> NamedTensor {
        let path = self.field_path();
        let name = match path.rsplit_once(".lora.") {
            None => rename(&path),
            Some((weight, factor)) => {
                let weight = rename(weight);
                let map = weight.strip_suffix(".weight").unwrap_or(&weight);
                format!("{map}.lora_{}.weight", factor.to_uppercase())
            }
        };
        let mut shape = self.shape();
        if self.transposed() {
            shape.reverse();
        }
        NamedTensor { path, name, shape }
    }
}

/// A parameter that a walk may change.
pub trait ParameterMut: Parameter {
    /// Puts what `change` makes of its values, `[elements]`, outside the autodiff graph, into their place. It learns as before,
    /// as a leaf of a graph of its own.
    fn update(&mut self, change: Box<dyn FnOnce(Tensor<1>) -> Tensor<1> + '_>);
    /// Gives it values in number format `dtype`.
    fn set(&mut self, values: TensorData, dtype: DType);
    /// Holds the weight of a linear map quantised.
    fn quantise(&mut self, bits: Bits);
    /// Brings it to `device` as it is.
    fn move_to(&mut self, device: &Device);
}

/// Shows all parameters of `module` to `see`, in the module's order: the factors of an adapter behind its weight.
pub fn each_parameter<M: Module>(module: &M, see: &mut dyn FnMut(&dyn Parameter)) {
    let place = Place::default();
    module.visit(&mut Walk { place, with: see });
}

/// `module` after `change` has had each of its parameters, in the module's order.
pub fn map_parameters<M: Module>(module: M, change: &mut dyn FnMut(&mut dyn ParameterMut)) -> M {
    let place = Place::default();
    module.map(&mut Walk {
        place,
        with: change,
    })
}

struct Walk<'a, F: ?Sized> {
    place: Place,
    with: &'a mut F,
}

impl ModuleVisitor for Walk<'_, dyn FnMut(&dyn Parameter) + '_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let place = &self.place;
        (self.with)(&Held::<_, D> { place, param });
    }
}

impl ModuleMapper for Walk<'_, dyn FnMut(&mut dyn ParameterMut) + '_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let place = &self.place;
        let param = Owned(Some(param));
        let mut held = Held::<_, D> { place, param };
        (self.with)(&mut held);
        held.param.take()
    }
}

/// A parameter and its place.
struct Held<'a, P, const D: usize> {
    place: &'a Place,
    param: P,
}

/// A parameter that is there but for the time of its change.
struct Owned<const D: usize>(Option<Param<Tensor<D>>>);

impl<const D: usize> Owned<D> {
    fn take(&mut self) -> Param<Tensor<D>> {
        self.0.take().expect("a parameter is put back at once")
    }
}

impl<const D: usize> Borrow<Param<Tensor<D>>> for Owned<D> {
    fn borrow(&self) -> &Param<Tensor<D>> {
        self.0.as_ref().expect("a parameter is put back at once")
    }
}

impl<const D: usize, P: Borrow<Param<Tensor<D>>>> Held<'_, P, D> {
    fn param(&self) -> &Param<Tensor<D>> {
        self.param.borrow()
    }
}

fn flat<const D: usize>(values: Tensor<D>) -> Tensor<1> {
    let elements = values.shape().num_elements();
    values.reshape([elements])
}

impl<const D: usize, P: Borrow<Param<Tensor<D>>>> Parameter for Held<'_, P, D> {
    fn place(&self) -> &Place {
        self.place
    }

    fn rank(&self) -> usize {
        D
    }

    fn shape(&self) -> Vec<usize> {
        param_shape(self.param()).to_vec()
    }

    fn learns(&self) -> bool {
        self.param().base().is_require_grad()
    }

    fn dtype(&self) -> DType {
        self.param().base().dtype()
    }

    fn values(&self) -> Tensor<1> {
        flat(dequantise(self.param().base().inner()))
    }

    fn gradient(&self, gradients: &Gradients) -> Option<Tensor<1>> {
        self.param().base().grad(gradients).map(flat)
    }

    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        self.param().base().grad_remove(gradients).map(flat)
    }
}

impl<const D: usize> ParameterMut for Held<'_, Owned<D>, D> {
    fn update(&mut self, change: Box<dyn FnOnce(Tensor<1>) -> Tensor<1> + '_>) {
        let param = self.param.take().map(|old| {
            let (shape, tracks, learns) = (old.dims(), old.is_autodiff(), old.is_require_grad());
            // Nothing else holds the old values then: they may be changed in their place.
            let new = change(flat(old.inner())).reshape(shape);
            match (tracks, learns) {
                (true, true) => new.autodiff().require_grad(),
                (true, false) => new.autodiff(),
                (false, _) => new,
            }
        });
        self.param.0 = Some(param);
    }

    fn set(&mut self, values: TensorData, dtype: DType) {
        let param = self.param.take();
        let (device, id) = (param.lazy_device(), param.id);
        let values = Tensor::from_data(values, (&device, dtype));
        self.param.0 = Some(param.transform_for_load(values, id));
    }

    fn quantise(&mut self, bits: Bits) {
        let param = self.param.take().map(|weight| {
            let [inputs, outputs] = [weight.dims()[0], weight.dims()[D - 1]];
            let quantised = quantise(weight.reshape([inputs, outputs]), bits);
            Tensor::from_dispatch(quantised.into_dispatch())
        });
        self.param.0 = Some(param);
    }

    fn move_to(&mut self, device: &Device) {
        let param = self.param.take().map(|old| old.to_device(device));
        self.param.0 = Some(param);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{AdapterShape, DropoutClock, LayerNorm, attach_adapters, linear};

    #[derive(Module, Debug)]
    struct Part {
        map: Linear,
        norm: Either,
    }

    #[derive(Module, Debug)]
    #[allow(clippy::large_enum_variant, reason = "one of them is made")]
    enum Either {
        Norm(LayerNorm),
    }

    /// Burn calls what holds a field as the walk takes it to.
    #[test]
    fn parameters_are_what_their_module_says() {
        let device = Device::flex().autodiff();
        let part = Part {
            map: linear(3, 5, true, &device),
            norm: Either::Norm(LayerNorm::new(5, 1e-6, &device)),
        };
        let shape = AdapterShape {
            rank: 2,
            scale: 1.0,
            dropout: 0.0,
            clock: DropoutClock::default(),
        };
        let part = attach_adapters(part, &shape, &mut |path| {
            (path == "map.weight").then_some(1)
        });
        let mut found = Vec::new();
        each_parameter(&part, &mut |param| {
            let named = param.named(str::to_owned);
            found.push((param.kind(), param.path(), named.name, named.shape));
        });
        let expected = [
            (Kind::MapWeight, "map.weight", "map.weight", vec![5, 3]),
            (
                Kind::Factor,
                "map.weight.lora.a",
                "map.lora_A.weight",
                vec![2, 3],
            ),
            (
                Kind::Factor,
                "map.weight.lora.b",
                "map.lora_B.weight",
                vec![5, 2],
            ),
            (Kind::Plain, "map.bias", "map.bias", vec![5]),
            (Kind::Plain, "norm.Norm.weight", "norm.weight", vec![5]),
            (Kind::Plain, "norm.Norm.bias", "norm.bias", vec![5]),
        ];
        let expected = expected
            .map(|(kind, path, name, shape)| (kind, path.to_owned(), name.to_owned(), shape));
        assert_eq!(found, expected);
    }
}
