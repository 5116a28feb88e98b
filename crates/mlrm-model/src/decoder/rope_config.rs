//! Rotary angles in a `config.json`: `rope_theta` with `rope_scaling` (published checkpoints), or
//! `rope_parameters` that holds both (transformers 5).

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Rope, RopeScaling};

const IMPLEMENTED: &str = "of the rotary positions, default, linear, dynamic and llama3 are";

/// The base of angles where neither the config nor its family says another.
const THETA: f64 = 10_000.0;

/// What the config says of rotary angles; `max_position_embeddings` is the same config's.
pub(super) fn read(
    hf: &mut HfConfig<'_>,
    max_position_embeddings: usize,
) -> Result<Rope, ModelError> {
    hf.refuse_unless(
        "partial_rotary_factor",
        &[json!(1.0), json!(1)],
        "only 1 is",
    );
    let outer = hf.take("rope_theta");
    let old = hf.take("rope_scaling");
    let new = hf.take("rope_parameters");
    let (key, rope) = match (old, new) {
        (Some(old), Some(new)) if old != new => {
            return Err(hf.unsupported("rope_scaling", &old, "`rope_parameters` says otherwise"));
        }
        (_, Some(rope)) => ("rope_parameters", rope),
        (Some(rope), None) => ("rope_scaling", rope),
        (None, None) => ("rope_scaling", json!({})),
    };
    of(hf, key, &rope, outer, THETA, max_position_embeddings)
}

/// What the object `rope` under `key` says of angles, their base being `outer` or `default` where it does
/// not say one.
pub(super) fn of(
    hf: &HfConfig<'_>,
    key: &str,
    rope: &Value,
    outer: Option<Value>,
    default: f64,
    max_position_embeddings: usize,
) -> Result<Rope, ModelError> {
    let Value::Object(mut fields) = rope.clone() else {
        return Err(hf.unsupported(key, rope, "it is a JSON object"));
    };
    let inner = fields.remove("rope_theta");
    if let (Some(outer), Some(inner)) = (&outer, &inner)
        && outer.as_f64() != inner.as_f64()
    {
        return Err(hf.unsupported("rope_theta", outer, &format!("`{key}` says {inner}")));
    }
    let whole = fields.remove("partial_rotary_factor");
    if let Some(part) = whole.filter(|part| part.as_f64() != Some(1.0)) {
        return Err(hf.unsupported("partial_rotary_factor", &part, "only 1 is"));
    }
    let theta = match inner.or(outer) {
        None => default,
        Some(value) => match value.as_f64().filter(|theta| *theta > 0.0) {
            Some(theta) => theta,
            None => return Err(hf.unsupported("rope_theta", &value, "it is a positive number")),
        },
    };
    let scaling = scaling(fields, max_position_embeddings)
        .map_err(|hint| hf.unsupported(key, rope, &hint))?;
    Ok(Rope { theta, scaling })
}

/// The scaling of `fields`, all of which must be understood; the error says which is not.
fn scaling(
    mut fields: Map<String, Value>,
    max_position_embeddings: usize,
) -> Result<RopeScaling, String> {
    // Older checkpoints say `type`; some say both.
    let old = fields.remove("type");
    let kind = fields.remove("rope_type").or(old);
    let mut number = |name: &str| -> Result<f64, String> {
        let value = fields.remove(name).unwrap_or(Value::Null);
        let number = value.as_f64().filter(|n| *n > 0.0);
        number.ok_or_else(|| format!("its `{name}` must be a positive number, not {value}"))
    };
    let scaling = match kind.as_ref().and_then(Value::as_str) {
        Some("default") => RopeScaling::Default,
        None if kind.is_none() => RopeScaling::Default,
        Some("linear") => RopeScaling::Linear {
            factor: number("factor")?,
        },
        Some("dynamic") => RopeScaling::Dynamic {
            factor: number("factor")?,
            max_position_embeddings,
        },
        Some("llama3") => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position_embeddings: number("original_max_position_embeddings")? as usize,
        },
        _ => return Err(IMPLEMENTED.into()),
    };
    if let RopeScaling::Llama3 {
        low_freq_factor: low,
        high_freq_factor: high,
        ..
    } = scaling
        && low >= high
    {
        return Err("its `low_freq_factor` must be below its `high_freq_factor`".into());
    }
    match fields.keys().next() {
        Some(name) => Err(format!("its key `{name}` is not understood")),
        None => Ok(scaling),
    }
}

/// Adds the keys that every version of Hugging Face's `transformers` reads.
pub(super) fn write(config: &mut Value, rope: &Rope) {
    config["rope_theta"] = json!(rope.theta);
    config["rope_scaling"] = match rope.scaling {
        RopeScaling::Default => return,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Dynamic { factor, .. } => json!({"rope_type": "dynamic", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    };
}
