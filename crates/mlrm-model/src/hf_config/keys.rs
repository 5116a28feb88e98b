//! Keys of Hugging Face's `config.json` that every family has in common, and whether they change a forward pass.

use serde_json::Value;

/// Keys that describe provenance, tools, generation or training and do not change a forward pass.
/// So does every key that begins with an underscore, and no other.
const WITHOUT_EFFECT: &[&str] = &[
    "adapters",
    "architectures",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "decoder_input_ids",
    "dtype",
    "eos_token_id",
    "generation_config",
    "gradient_checkpointing",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "logit_scale_init_value",
    "mask_token_id",
    "max_sequence_length",
    "model_max_length",
    "model_name",
    "model_type",
    "name_or_path",
    "pad_token_id",
    "projection_dim",
    "projection_size",
    "return_dict",
    "tie_word_embeddings",
    "tokenizer_padding_side",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// Keys that are known to change the forward pass where a family's file does not read them, with what can
/// be done. No setting accepts them.
pub(super) const WITH_EFFECT: &[(&str, &str)] = &[
    ("alibi", ""),
    ("attention_multiplier", ""),
    ("attn_logit_softcapping", ""),
    (
        "compression_config",
        "load the weights that were not quantised",
    ),
    ("embedding_multiplier", ""),
    ("moe_intermediate_size", "mixtures of experts are not"),
    ("no_rope_layers", ""),
    ("num_experts", "mixtures of experts are not"),
    ("num_experts_per_tok", "mixtures of experts are not"),
    ("num_local_experts", "mixtures of experts are not"),
    ("partial_rotary_factor", "only 1 is"),
    (
        "quantization_config",
        "load the weights that were not quantised",
    ),
    ("query_pre_attn_scalar", ""),
    ("residual_multiplier", ""),
    ("rope_local_base_freq", ""),
    ("rotary_pct", "only 1 is"),
    ("use_parallel_residual", ""),
];

/// What transformers 4 wrote into every section of a file, with the values that are without effect.
/// Its settings of text generation, which no value makes matter here, are [`GENERATION`].
const OLD_DEFAULTS: &[(&str, &str)] = &[
    ("add_cross_attention", "false"),
    ("chunk_size_feed_forward", "0"),
    ("is_decoder", "false"),
    ("is_encoder_decoder", "false"),
    ("pretraining_tp", "1"),
    ("pruned_heads", "{}"),
    ("torchscript", "false"),
    ("use_bfloat16", "false"),
];

/// Settings of text generation, of classification and of what a call returns.
const GENERATION: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "typical_p",
];

/// Whether a value turns nothing on.
pub(super) fn inert(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Whether a key changes nothing of a forward pass, whatever its value or with this one.
pub(super) fn without_effect(key: &str, value: &Value) -> bool {
    let old_default = |(name, harmless): &(&str, &str)| {
        *name == key
            && serde_json::from_str(harmless).is_ok_and(|harmless: Value| *value == harmless)
    };
    key.starts_with('_')
        || WITHOUT_EFFECT.contains(&key)
        || GENERATION.contains(&key)
        || OLD_DEFAULTS.iter().any(old_default)
}
