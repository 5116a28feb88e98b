//! Copies of a model that learn side by side.

use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};

use super::Embedder;

impl Embedder {
    /// A copy on `device` that learns by itself: its parameters are leaves of graphs of their own, so that
    /// threads do not wait for each other. On the same device the values are shared. Dropout and the
    /// features that are kept are those of this model; pictures are counted apart.
    pub fn fork(&self, device: &Device) -> Self {
        let frozen = device.clone().without_autodiff();
        let same = self.core.head.temperature.val().device() == *device;
        let vision = self.vision.clone();
        let core = self.core.clone();
        Self {
            vision: match same {
                true => vision,
                false => vision.map(|vision| vision.to_device(&frozen)),
            },
            encoded: Arc::default(),
            core: core.map(&mut Fork { device, same }),
            ..self.clone()
        }
    }
}

struct Fork<'a> {
    device: &'a Device,
    /// Whether the parameters are on it already.
    same: bool,
}

impl ModuleMapper for Fork<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match (param.val().is_require_grad(), self.same) {
            (true, _) => param.map(|old| {
                let values = old.inner().to_device(self.device);
                values.autodiff().require_grad()
            }),
            // A graph does not hold on to what does not learn.
            (false, true) => param,
            (false, false) => param.map(|old| old.to_device(self.device)),
        }
    }
}
