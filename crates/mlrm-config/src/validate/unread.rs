//! Keys that were set but that nothing will read.

use super::Finding;
use crate::catalog::catalog;
use crate::load::Places;
use crate::{ConnectorKind, DataSource, FusionKind, RunConfig, Tune};

/// A warning for every key that was written, differs from its default and is not read, because
/// another key makes it moot.
pub(crate) fn unread_keys(config: &RunConfig, places: &Places) -> Vec<Finding> {
    let (Ok(actual), Ok(default)) = (
        toml::Value::try_from(config),
        toml::Value::try_from(RunConfig::default()),
    ) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    for (reason, keys) in moot(config) {
        for key in keys {
            if places.written(&key) && lookup(&actual, &key) != lookup(&default, &key) {
                warnings.push(
                    Finding::new(&key, format!("`{key}` is set but not read: {reason}"))
                        .at(places.of(&key).cloned()),
                );
            }
        }
    }
    warnings
}

/// Why keys are not read, and which.
fn moot(config: &RunConfig) -> Vec<(&'static str, Vec<String>)> {
    let model = &config.model;
    let mut moot: Vec<(&'static str, Vec<String>)> = Vec::new();
    let mut add = |condition: bool, reason, keys: Vec<String>| {
        if condition {
            moot.push((reason, keys));
        }
    };
    add(
        model.path.is_some(),
        "`model.path` brings the whole model",
        below(
            "model",
            &[
                "path",
                "allow_nan",
                "llm.tune",
                "llm.quantisation",
                "llm.lora",
            ],
        ),
    );
    add(
        model.checkpoint.is_some(),
        "`model.checkpoint` brings the language model",
        below(
            "model.llm",
            &["accept_keys", "tune", "quantisation", "lora"],
        ),
    );
    add(
        model.path.is_none() && model.llm.path.is_some(),
        "`model.llm.path` brings the sizes",
        below(
            "model.llm",
            &["path", "accept_keys", "tune", "quantisation", "lora"],
        ),
    );
    add(
        model.llm.tune != Tune::Lora && model.llm.lora.path.is_none(),
        "no adapter is trained unless model.llm.tune = \"lora\"",
        below("model.llm.lora", &[]),
    );
    add(
        model.llm.lora.path.is_some(),
        "`model.llm.lora.path` brings it",
        below("model.llm.lora", &["path", "dropout"]),
    );
    let given = [&model.path, &model.llm.path, &model.checkpoint];
    let scratch = given.iter().all(|path| path.is_none());
    add(
        scratch,
        "it is for a config.json, and no folder is given",
        vec!["model.llm.accept_keys".into()],
    );
    add(
        scratch && !model.llm.family.traits().rotary,
        "`opt` has learnt positions and LayerNorm",
        vec![
            "model.llm.rope_theta".into(),
            "model.llm.rms_norm_eps".into(),
        ],
    );
    add(
        scratch && model.llm.family.traits().plain_heads,
        "in this family the heads fill `model.llm.hidden_size`",
        vec!["model.llm.head_dim".into()],
    );
    add(
        model.path.is_none() && model.vision.path.is_some(),
        "`model.vision.path` brings the sizes",
        below(
            "model.vision",
            &[
                "path",
                "accept_keys",
                "select_layer",
                "select_feature",
                "post_layernorm",
            ],
        ),
    );
    add(
        model.connector.path.is_some(),
        "`model.connector.path` brings the sizes",
        below(
            "model.connector",
            &["path", "accept_keys", "kind", "projector"],
        ),
    );
    add(
        model.checkpoint.is_none() && model.connector.path.is_none(),
        "it is for a config.json, and no folder is given",
        vec!["model.connector.accept_keys".into()],
    );
    add(
        model.connector.kind == ConnectorKind::Mlp,
        "the connector \"mlp\" is the projector alone",
        below("model.connector", &["kind", "projector"]),
    );
    add(
        model.connector.kind == ConnectorKind::Resampler,
        "the connector \"resampler\" is one layer, as wide as the LLM",
        below(
            "model.connector",
            &[
                "path",
                "accept_keys",
                "kind",
                "queries",
                "num_attention_heads",
            ],
        ),
    );
    add(
        model.fusion.kind == FusionKind::Vector,
        "it belongs to the scalar gate",
        below("model.fusion", &["kind"]),
    );
    add(
        config.data.source == DataSource::Folder,
        "nothing is drawn with data.source = \"folder\"",
        below("data.synth", &[]),
    );
    add(
        config.train.max_steps.is_some(),
        "`train.max_steps` decides",
        vec!["train.epochs".into()],
    );
    add(
        config.train.feature_cache == "off",
        "no features are kept with train.feature_cache = \"off\"",
        vec![
            "train.feature_cache_max_bytes".into(),
            "train.feature_cache_dtype".into(),
        ],
    );
    add(
        config.train.swap.share == 0.0,
        "nothing is swapped with train.swap.share = 0",
        below("train.swap", &["share"]),
    );
    add(
        config.data.pairs_file.is_some(),
        "ready-made pairs are taken as they are",
        vec!["data.pairs.train_top_k".into()],
    );
    add(
        config.prompt.template_file.is_some(),
        "`prompt.template_file` is used",
        vec!["prompt.language".into()],
    );
    moot
}

/// All keys below a section but the named ones and what is below them.
fn below(section: &str, except: &[&str]) -> Vec<String> {
    let prefix = format!("{section}.");
    let paths = catalog().paths().into_iter();
    paths
        .filter(|path| {
            path.strip_prefix(&prefix).is_some_and(|name| {
                let within = |kept: &&str| {
                    let rest = name.strip_prefix(*kept);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                };
                !except.iter().any(within)
            })
        })
        .collect()
}

fn lookup<'a>(value: &'a toml::Value, key: &str) -> Option<&'a toml::Value> {
    key.split('.')
        .try_fold(value, |value, name| value.get(name))
}
