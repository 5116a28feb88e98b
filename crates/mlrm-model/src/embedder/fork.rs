//! Copies of a model that learn side by side.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;

use super::Embedder;
use crate::weights::map_parameters;

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
            core: map_parameters(core, &mut |param| match (param.learns(), same) {
                (true, _) => param.update(Box::new(|old| old.to_device(device))),
                // A graph does not hold on to what does not learn.
                (false, true) => {}
                (false, false) => param.move_to(device),
            }),
            ..self.clone()
        }
    }
}
