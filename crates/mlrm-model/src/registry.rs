//! Which families there are: the only place that tells them apart by name.

use mlrm_config::LlmFamily;

use crate::decoder::{DecoderFamily, families};

/// The entry of a decoder family.
pub fn decoder(family: LlmFamily) -> &'static DecoderFamily {
    match family {
        LlmFamily::Llama => &families::LLAMA,
        LlmFamily::Mistral => &families::MISTRAL,
        LlmFamily::Qwen => &families::QWEN,
        LlmFamily::Qwen2 => &families::QWEN2,
        LlmFamily::Qwen3 => &families::QWEN3,
        LlmFamily::Opt => &families::OPT,
    }
}

/// The decoder family of a Hugging Face `model_type`.
pub fn decoder_of_type(model_type: &str) -> Option<&'static DecoderFamily> {
    let family = LlmFamily::ALL.iter().find(|f| f.name() == model_type)?;
    Some(decoder(*family))
}

/// The `model_type` of every decoder family, for messages: `llama, mistral, …`.
pub fn decoder_types() -> String {
    LlmFamily::ALL.map(LlmFamily::name).join(", ")
}
