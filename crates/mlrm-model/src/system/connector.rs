//! The connectors of whole models: their tensors' names and their sizes.

use serde_json::json;

use crate::connector::{ConnectorConfig, QFormerConfig, ResamplerConfig};
use crate::error::ModelError;
use crate::hf_config::{HfConfig, Noted};

/// The name in a head of a tensor of Qwen2.5-VL's or Qwen3-VL's mergers; `None` for those of the tower.
pub(super) fn merger(name: &str) -> Option<String> {
    let parts = [
        ("ln_q.", "norm."),
        ("mlp.0.", "fc1."),
        ("mlp.2.", "fc2."),
        ("linear_fc", "fc"),
    ];
    let own = |rest: &str| {
        let part = parts
            .iter()
            .find_map(|(theirs, own)| Some(format!("{own}{}", rest.strip_prefix(theirs)?)));
        part.unwrap_or_else(|| rest.to_owned())
    };
    if let Some(rest) = name.strip_prefix("merger.") {
        return Some(format!("merger.last.{}", own(rest)));
    }
    let (index, rest) = name
        .strip_prefix("deepstack_merger_list.")?
        .split_once('.')?;
    Some(format!("merger.deep.{index}.{}", own(rest)))
}

/// Whether a tensor of the head is the connector's, without a projector behind it.
pub(crate) fn is_bare_connector(name: &str) -> bool {
    is_connector(name) && !name.starts_with("mm_projector.")
}

/// Whether a tensor of the head is the connector's or the projector's.
pub(crate) fn is_connector(name: &str) -> bool {
    let parts = [
        "query_tokens",
        "qformer.",
        "mm_projector.",
        "resampler.",
        "merger.",
    ];
    parts.iter().any(|part| name.starts_with(part))
}

/// The Q-Former of a `blip-2` config; the defaults are those of `Blip2QFormerConfig`.
pub(super) fn qformer(mut config: HfConfig<'_>) -> Result<Noted<ConnectorConfig>, ModelError> {
    let num_query_tokens = config.get("num_query_tokens", Some(32))?;
    let mut hf = config.section("qformer_config")?;
    hf.refuse_unless("hidden_act", &[json!("gelu")], "only gelu is");
    hf.refuse_unless(
        "position_embedding_type",
        &[json!("absolute")],
        "only absolute is",
    );
    hf.refuse_unless("use_qformer_text_input", &[json!(false)], "only false is");
    // Of its own training (none is applied here), and of a lookup table that queries do not use.
    for key in [
        "attention_probs_dropout_prob",
        "hidden_dropout_prob",
        "max_position_embeddings",
        "vocab_size",
        "classifier_dropout",
    ] {
        hf.take(key);
    }
    let sizes = QFormerConfig {
        num_query_tokens,
        hidden_size: hf.get("hidden_size", Some(768))?,
        num_hidden_layers: hf.get("num_hidden_layers", Some(12))?,
        num_attention_heads: hf.get("num_attention_heads", Some(12))?,
        intermediate_size: hf.get("intermediate_size", Some(3072))?,
        encoder_hidden_size: hf.get("encoder_hidden_size", Some(1408))?,
        cross_attention_frequency: hf.get("cross_attention_frequency", Some(2))?,
        layer_norm_eps: hf.get("layer_norm_eps", Some(1e-12))?,
    };
    Ok(Noted {
        config: ConnectorConfig::QFormer(sizes),
        notes: hf.finish()?,
    })
}

/// The resampler of a Qwen-VL config. The published code gives its heads 128 channels each. The section is
/// that of the vision encoder, which answers for its other keys.
pub(super) fn resampler(config: HfConfig<'_>) -> Result<Noted<ConnectorConfig>, ModelError> {
    const CHANNELS: usize = 128;
    let mut visual = config.section("visual")?;
    let width: usize = visual.get("output_dim", Some(4096))?;
    let sizes = ResamplerConfig {
        num_query_tokens: visual.get("n_queries", Some(256))?,
        num_attention_heads: (width / CHANNELS).max(1),
        encoder_hidden_size: visual.get("width", Some(1664))?,
        layer_norm_eps: 1e-6,
    };
    Ok(Noted {
        config: ConnectorConfig::Resampler(sizes),
        notes: Vec::new(),
    })
}
