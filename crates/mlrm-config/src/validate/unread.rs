//! Keys that were set but that nothing will read.

use super::Finding;
use crate::catalog::catalog;
use crate::load::Places;
use crate::{ConnectorKind, DataSource, FusionKind, RunConfig, Tune};

/// A warning for every key that was written, differs from its default and is not read, because another
/// key decides.
pub(crate) fn unread_keys(config: &RunConfig, places: &Places) -> Vec<Finding> {
    let (Ok(actual), Ok(default)) = (
        toml::Value::try_from(config),
        toml::Value::try_from(RunConfig::default()),
    ) else {
        return Vec::new();
    };
    let differs = |key: &str| lookup(&actual, key) != lookup(&default, key);
    // Who turns swapping off by `--set` or in a sweep knows that the file's settings of it rest.
    let turned_off = places.overridden("train.swap.share");
    let rests = |key: &str| turned_off && key.starts_with("train.swap.") && !places.overridden(key);
    let mut warnings = Vec::new();
    for (_, reason, section, but) in rules(config).into_iter().filter(|rule| rule.0) {
        let keys = below(section, but).into_iter();
        for key in keys.filter(|key| places.written(key) && differs(key) && !rests(key)) {
            let message = format!("`{key}` is set but not read: {reason}");
            warnings.push(Finding::new(&key, message).at(places.of(&key).cloned()));
        }
    }
    warnings
}

/// Whether it applies, why keys are not read, and which: a key, or all of a section but those named.
type Rule = (bool, &'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip] // A line a rule.
fn rules(config: &RunConfig) -> [Rule; 25] {
    let (data, train, model) = (&config.data, &config.train, &config.model);
    let (llm, connector) = (&model.llm, &model.connector);
    let scratch = [&model.path, &llm.path, &model.checkpoint].iter().all(|path| path.is_none());
    [
        (model.path.is_some(), "`model.path` brings the whole model",
            "model", &["path", "allow_nan", "llm.tune", "llm.quantisation", "llm.lora"]),
        (model.checkpoint.is_some(), "`model.checkpoint` brings the language model",
            "model.llm", &["accept_keys", "keep_layers", "tune", "quantisation", "lora"]),
        (model.path.is_none() && llm.path.is_some(), "`model.llm.path` brings the sizes",
            "model.llm", &["path", "accept_keys", "keep_layers", "tune", "quantisation", "lora"]),
        (llm.tune != Tune::Lora && llm.lora.path.is_none(),
            "no adapter is trained unless model.llm.tune = \"lora\"", "model.llm.lora", &[]),
        (llm.lora.path.is_some(), "`model.llm.lora.path` brings it",
            "model.llm.lora", &["path", "dropout"]),
        (scratch, "it is for a config.json, and no folder is given", "model.llm.accept_keys", &[]),
        (scratch, "from scratch `model.llm.num_hidden_layers` decides", "model.llm.keep_layers", &[]),
        (scratch && !llm.family.traits().rotary, "`opt` has learnt positions and LayerNorm",
            "model.llm.rope_theta", &[]),
        (scratch && !llm.family.traits().rotary, "`opt` has learnt positions and LayerNorm",
            "model.llm.rms_norm_eps", &[]),
        (scratch && llm.family.traits().plain_heads,
            "in this family the heads fill `model.llm.hidden_size`", "model.llm.head_dim", &[]),
        (model.path.is_none() && model.vision.path.is_some(), "`model.vision.path` brings the sizes",
            "model.vision", &["path", "accept_keys", "image_size", "grid", "max_pixels", "input_size", "resize_mode", "select_layer", "select_feature", "post_layernorm"]),
        (model.path.is_none() && model.vision.path.is_some(),
            "`model.vision.path` brings the sizes; `model.vision.input_size` asks for another one", "model.vision.image_size", &[]),
        (model.checkpoint.is_none() && model.vision.path.is_none(), "from scratch `model.vision.image_size` decides",
            "model.vision.input_size", &[]),
        (connector.path.is_some(), "`model.connector.path` brings the sizes",
            "model.connector", &["path", "accept_keys", "kind", "projector"]),
        (model.checkpoint.is_none() && connector.path.is_none(),
            "it is for a config.json, and no folder is given", "model.connector.accept_keys", &[]),
        (connector.kind == ConnectorKind::Mlp, "the connector \"mlp\" is the projector alone",
            "model.connector", &["kind", "projector"]),
        (connector.kind == ConnectorKind::Resampler,
            "the connector \"resampler\" is one layer, as wide as the LLM", "model.connector",
            &["path", "accept_keys", "kind", "queries", "num_attention_heads"]),
        (model.fusion.kind == FusionKind::Vector, "it belongs to the scalar gate",
            "model.fusion.hidden_size", &[]),
        (data.source == DataSource::Folder, "nothing is drawn with data.source = \"folder\"",
            "data.synth", &[]),
        (train.max_steps.is_some(), "`train.max_steps` decides", "train.epochs", &[]),
        (train.feature_cache == "off", "no features are kept with train.feature_cache = \"off\"",
            "train.feature_cache_max_bytes", &[]),
        (train.feature_cache == "off", "no features are kept with train.feature_cache = \"off\"",
            "train.feature_cache_dtype", &[]),
        (train.swap.share == 0.0, "nothing is swapped with train.swap.share = 0",
            "train.swap", &["share"]),
        (data.pairs_file.is_some(), "ready-made pairs are taken as they are",
            "data.pairs.train_top_k", &[]),
        (config.prompt.template_file.is_some(), "`prompt.template_file` is used",
            "prompt.language", &[]),
    ]
}

/// A key by itself; of a section all keys below it but the named ones and what is below those.
fn below(key: &str, but: &[&str]) -> Vec<String> {
    let rest = |path: &str, of: &str| Some(path.strip_prefix(of)?.strip_prefix('.')?.to_owned());
    let kept = |name: &str| {
        but.iter()
            .any(|kept| name == *kept || rest(name, kept).is_some())
    };
    let mut keys = catalog().paths();
    keys.retain(|path| rest(path, key).is_some_and(|name| !kept(&name)));
    if keys.is_empty() {
        keys.push(key.to_owned());
    }
    keys
}

fn lookup<'a>(value: &'a toml::Value, key: &str) -> Option<&'a toml::Value> {
    key.split('.')
        .try_fold(value, |value, name| value.get(name))
}
