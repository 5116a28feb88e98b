//! The language model of Qwen2.5-VL (arXiv 2502.13923): Qwen 2.5 whose visual tokens turn with row and column of their
//! picture.

use serde_json::{Map, Value, json};

use super::{DecoderFamily, llama, qwen2};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::MultimodalRope;

pub(crate) static FAMILY: DecoderFamily = DecoderFamily {
    name: "qwen2_5_vl_text",
    architecture: "Qwen2_5_VLTextModel",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| DecoderConfig {
        qkv_bias: true,
        ..llama::scratch_line(&FAMILY, settings, words)
    },
};

/// Sections of a file that does not say any, as `Qwen2_5_VLRotaryEmbedding` has them.
const SECTIONS: [usize; 3] = [16, 24, 24];

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    qwen2::refuse_sliding_window(hf)?;
    let rope = take_multimodal(hf, SECTIONS, false, 1_000_000.0)?;
    Ok(DecoderConfig {
        qkv_bias: true,
        multimodal_rope: Some(rope),
        ..llama::read_line(&FAMILY, hf)?
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    put_multimodal(&mut keys, config);
    keys
}

/// Takes what the keys of rotary angles say of pictures; what is left there is as in other decoders. The base of angles
/// where the file says none is `theta`.
pub(super) fn take_multimodal(
    hf: &mut HfConfig<'_>,
    sections: [usize; 3],
    interleaved: bool,
    theta: f64,
) -> Result<MultimodalRope, ModelError> {
    let mut rope = MultimodalRope {
        sections,
        interleaved,
    };
    let mut told = hf.peek("rope_theta").is_some_and(|theta| !theta.is_null());
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(mut fields)) = hf.peek(key).cloned() else {
            continue;
        };
        if let Some(value) = fields.remove("mrope_section") {
            rope.sections = serde_json::from_value(value.clone())
                .map_err(|_| hf.unsupported(key, &value, "`mrope_section` holds three numbers"))?;
        }
        if let Some(value) = fields.remove("mrope_interleaved")
            && value != json!(interleaved)
        {
            let hint = format!("of this family only `mrope_interleaved` = {interleaved} is");
            return Err(hf.unsupported(key, &value, &hint));
        }
        // The published files call their angles so, which are the usual ones.
        for kind in ["type", "rope_type"] {
            if fields.get(kind) == Some(&json!("mrope")) {
                fields.insert(kind.into(), json!("default"));
            }
        }
        told |= fields.contains_key("rope_theta");
        replace(hf, key, fields);
    }
    if !told {
        hf.default_to("rope_theta", json!(theta));
    }
    Ok(rope)
}

fn replace(hf: &mut HfConfig<'_>, key: &str, fields: Map<String, Value>) {
    hf.take(key);
    hf.default_to(key, Value::Object(fields));
}

/// Writes what [`take_multimodal`] takes.
pub(super) fn put_multimodal(keys: &mut Value, config: &DecoderConfig) {
    let Some(rope) = config.multimodal_rope else {
        return;
    };
    let mut fields = match keys["rope_scaling"].take() {
        Value::Object(fields) => fields,
        _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
    };
    fields.insert("mrope_section".into(), json!(rope.sections));
    if rope.interleaved {
        fields.insert("mrope_interleaved".into(), json!(true));
    }
    keys["rope_scaling"] = Value::Object(fields);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;
    use crate::decoder::Positions;
    use crate::nn::{Rope, RopeScaling};

    /// The section of Qwen2.5-VL 3B as transformers 5 writes it, but for the sizes.
    const QWEN: &str = r#"{
        "model_type": "qwen2_5_vl_text", "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
        "intermediate_size": 100, "layer_types": ["full_attention", "full_attention"],
        "max_position_embeddings": 128000, "max_window_layers": 70, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_parameters": {"mrope_section": [2, 3, 3], "rope_theta": 1000000.0, "rope_type": "default",
            "type": "default"},
        "sliding_window": null, "tie_word_embeddings": true, "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936
    }"#;

    #[test]
    fn sections_of_channels_are_read_in_either_spelling() {
        let config = read(QWEN);
        assert!(config.qkv_bias);
        let rope = config.multimodal_rope.expect("sections");
        assert_eq!(rope.sections, [2, 3, 3]);
        assert!(!rope.interleaved);
        let usual = Rope {
            theta: 1_000_000.0,
            scaling: RopeScaling::Default,
        };
        assert_eq!(config.positions, Positions::Rotary(usual));
        let mut old: Value = serde_json::from_str(QWEN).expect("JSON");
        old["rope_parameters"] = Value::Null;
        old["rope_theta"] = json!(1_000_000.0);
        old["rope_scaling"] = json!({"type": "mrope", "mrope_section": [2, 3, 3]});
        assert_eq!(read(&old.to_string()), config);
    }

    #[test]
    fn what_is_not_implemented() {
        let rope = json!({"rope_type": "default", "rope_theta": 5.0, "mrope_section": [2, 3, 4]});
        let yarn = json!({"rope_type": "yarn", "mrope_section": [2, 3, 3]});
        refused(QWEN, "rope_parameters", yarn, "default, linear");
        refused(
            QWEN,
            "use_sliding_window",
            json!(true),
            "only full attention is",
        );
        let mut keys: Value = serde_json::from_str(QWEN).expect("JSON");
        keys["rope_parameters"] = rope;
        let path = std::path::Path::new("config.json");
        let hf = HfConfig::parse(path, &keys.to_string()).expect("keys");
        let error = DecoderConfig::from_hf(path, hf, &[])
            .expect_err("sections")
            .to_string();
        assert!(error.contains("`mrope_section` = [2, 3, 4]"), "{error}");
    }
}
