//! DINOv2 with registers (arXiv 2309.16588; Hugging Face `dinov2_with_registers`): learnt vectors between
//! the class token and the patches take what would else be written over patches; positions are
//! antialiased where there are fewer patches than stored.

use mlrm_config::VisionFamily;
use serde_json::json;

use super::{VisionEncoderFamily, dinov2};
use crate::vision::{Stretch, VisionConfig};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Dinov2WithRegisters.name(),
    traits: VisionFamily::Dinov2WithRegisters.traits(),
    architecture: "Dinov2WithRegistersModel",
    whole: None,
    prefix: "dinov2_with_registers.",
    own_prefix: "",
    names: dinov2::NAMES,
    read: |hf| {
        // Published files repeat what the class does.
        hf.refuse_unless("interpolate_antialias", &[json!(true)], "only true is");
        hf.refuse_unless("interpolate_offset", &[json!(0.0), json!(0)], "only 0 is");
        let register_tokens = hf.get("num_register_tokens", Some(DEFAULTS.register_tokens))?;
        Ok(VisionConfig {
            register_tokens,
            ..dinov2::read(hf, &DEFAULTS)?
        })
    },
    write: |config| {
        let mut keys = dinov2::write(config);
        keys["num_register_tokens"] = json!(config.register_tokens);
        keys
    },
    scratch: |settings| DEFAULTS.sized(settings),
    initial: dinov2::initial,
};

/// Those of `Dinov2WithRegistersConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    patch_size: 16,
    position_grid: 224 / 16,
    stretch: Stretch::Antialiased,
    register_tokens: 4,
    ..dinov2::DEFAULTS
};
