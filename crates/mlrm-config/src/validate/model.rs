//! `[model]` and its parts.

use super::{Finding, divides, divisors_around, multiples_around};
use crate::{
    ALL_LINEAR, ConnectorKind, ConnectorSettings, LlmSettings, ModelSettings, Quantisation,
    RunConfig, SelectFeature, TokenizerSettings, Tune, VisionSettings,
};

pub(super) fn check(config: &RunConfig, findings: &mut Vec<Finding>) {
    let model = &config.model;
    tuning(config, findings);
    sources(model, findings);
    // A model folder brings its own sizes, and so do the folders of the parts.
    if model.path.is_some() || model.checkpoint.is_some() {
        return;
    }
    if model.llm.path.is_none() {
        llm(&model.llm, findings);
        vocabulary(&model.llm, &config.tokenizer, findings);
    }
    if model.variant.vision() && model.vision.path.is_none() {
        vision(&model.vision, findings);
    }
    let scratch = model.variant.image_tokens() && model.connector.path.is_none();
    if scratch {
        connector(&model.connector, findings);
    }
    if scratch && model.connector.kind == ConnectorKind::Resampler {
        resampler(model, findings);
    }
}

/// Two places for the same weights.
fn sources(model: &ModelSettings, findings: &mut Vec<Finding>) {
    const CHECKPOINT: &str = "model.checkpoint";
    if model.checkpoint.is_none() {
        return;
    }
    let others = [
        ("model.path", model.path.is_some()),
        ("model.llm.path", model.llm.path.is_some()),
        ("model.connector.path", model.connector.path.is_some()),
    ];
    for (key, _) in others.into_iter().filter(|(_, set)| *set) {
        findings.push(
            Finding::new(
                CHECKPOINT,
                format!("it brings language model and connector, and so would `{key}`"),
            )
            .related([key])
            .help(format!("leave out one of `{CHECKPOINT}` and `{key}`")),
        );
    }
}

fn tuning(config: &RunConfig, findings: &mut Vec<Finding>) {
    const QUANTISATION: &str = "model.llm.quantisation";
    const TARGETS: &str = "model.llm.lora.target_modules";
    let llm = &config.model.llm;
    if llm.quantisation != Quantisation::None && llm.tune == Tune::Full {
        findings.push(
            Finding::new(
                QUANTISATION,
                "weights that learn cannot be held quantised, and model.llm.tune = \"full\" lets \
                 all of them learn",
            )
            .related(["model.llm.tune"])
            .help("set `model.llm.tune` to \"lora\" or \"frozen\", or leave `quantisation` out"),
        );
    }
    if llm.lora.target_modules.len() > 1 && llm.lora.target_modules.iter().any(|t| t == ALL_LINEAR)
    {
        findings.push(
            Finding::new(TARGETS, "\"all-linear\" already means every linear map")
                .help("name it alone, or name the maps"),
        );
    }
}

fn llm(llm: &LlmSettings, findings: &mut Vec<Finding>) {
    const HEADS: &str = "model.llm.num_attention_heads";
    const KV_HEADS: &str = "model.llm.num_key_value_heads";
    const WIDTH: &str = "model.llm.hidden_size";
    const HEAD_DIM: &str = "model.llm.head_dim";
    let (heads, kv_heads) = (llm.num_attention_heads, llm.resolved_num_key_value_heads());
    let traits = llm.family.traits();
    let free_head_dim = llm.head_dim.is_some() && !traits.plain_heads;
    let width_splits = free_head_dim || divides(heads, llm.hidden_size);
    if !width_splits {
        findings
            .push(heads_do_not_divide(WIDTH, llm.hidden_size, HEADS, heads).related([HEAD_DIM]));
    }
    let head_dim = llm.resolved_head_dim();
    if width_splits && traits.rotary && !head_dim.is_multiple_of(2) {
        findings.push(
            Finding::new(
                HEAD_DIM,
                format!(
                    "a head is {head_dim} wide, but rotary positions turn channels in pairs: the \
                     width has to be even"
                ),
            )
            .related([WIDTH, HEADS])
            .help(format!(
                "set `{HEAD_DIM}` to {}",
                multiples_around(2, head_dim)
            )),
        );
    }
    let family = llm.family.name();
    if traits.plain_heads && kv_heads != heads {
        findings.push(
            Finding::new(
                KV_HEADS,
                format!("`{family}` has a key/value head for each of its {heads} query heads"),
            )
            .related(["model.llm.family", HEADS])
            .help(format!("leave `{KV_HEADS}` out, or set it to {heads}")),
        );
    } else if !divides(kv_heads, heads) {
        findings.push(
            Finding::new(
                KV_HEADS,
                format!(
                    "{heads} query heads (`num_attention_heads`) cannot share {kv_heads} key/value \
                     heads evenly"
                ),
            )
            .related([HEADS])
            .help(format!(
                "set `{KV_HEADS}` to a divisor of {heads}: {}",
                divisors_around(heads, kv_heads)
            )),
        );
    }
    let inner = llm.intermediate_size;
    if traits.counts_both_halves && !inner.is_multiple_of(2) {
        const INNER: &str = "model.llm.intermediate_size";
        findings.push(
            Finding::new(
                INNER,
                format!(
                    "`{family}` counts both halves of its feed-forward network: {inner} does not split"
                ),
            )
            .related(["model.llm.family"])
            .help(format!("set `{INNER}` to {}", multiples_around(2, inner))),
        );
    }
}

/// What a tokenizer from a file needs shows when it is read.
fn vocabulary(llm: &LlmSettings, tokenizer: &TokenizerSettings, findings: &mut Vec<Finding>) {
    const ROWS: &str = "model.llm.vocab_size";
    const TOKENS: &str = "tokenizer.train_vocab_size";
    if let (Some(rows), Some(tokens)) = (llm.vocab_size, tokenizer.train_vocab_size)
        && tokens > rows
    {
        findings.push(
            Finding::new(
                ROWS,
                format!(
                    "an embedding table of {rows} rows has no room for {tokens} tokens (`{TOKENS}`)"
                ),
            )
            .related([TOKENS])
            .help(format!("set `{ROWS}` to {tokens} or more, or leave it out")),
        );
    }
}

fn vision(vision: &VisionSettings, findings: &mut Vec<Finding>) {
    let (width, heads) = (vision.hidden_size, vision.num_attention_heads);
    if !divides(heads, width) {
        findings.push(heads_do_not_divide(
            "model.vision.hidden_size",
            width,
            "model.vision.num_attention_heads",
            heads,
        ));
    }
    if vision.family.traits().rotary && divides(heads, width) && !divides(4, width / heads) {
        findings.push(
            Finding::new(
                "model.vision.hidden_size",
                format!(
                    "`{}` turns the channels of a head by fours: {width} / {heads} is no multiple of 4",
                    vision.family.name()
                ),
            )
            .related(["model.vision.num_attention_heads", "model.vision.family"])
            .help(format!(
                "set `model.vision.hidden_size` to {}",
                multiples_around(4 * heads, width)
            )),
        );
    }
    let (image, patch) = (vision.image_size, vision.patch_size);
    if !divides(patch, image) {
        findings.push(
            Finding::new(
                "model.vision.image_size",
                format!("a picture of {image} pixels does not split into patches of {patch}"),
            )
            .related(["model.vision.patch_size"])
            .help(format!(
                "set `model.vision.image_size` to a multiple of {patch}: {}",
                multiples_around(patch, image)
            )),
        );
    }
    let inner = vision.intermediate_size;
    if vision.family.traits().whole_mlp_ratio && !divides(width, inner) {
        const INNER: &str = "model.vision.intermediate_size";
        findings.push(
            Finding::new(
                INNER,
                format!(
                    "`{}` has a feed-forward network a whole number of times as wide as its states: \
                     {inner} is no multiple of {width}",
                    vision.family.name()
                ),
            )
            .related(["model.vision.hidden_size", "model.vision.family"])
            .help(format!("set `{INNER}` to {}", multiples_around(width, inner))),
        );
    }
    if vision.post_layernorm && !vision.family.traits().post_layernorm {
        findings.push(
            Finding::new(
                "model.vision.post_layernorm",
                format!(
                    "the family {} has no norm after its layers",
                    vision.family.name()
                ),
            )
            .related(["model.vision.family"])
            .help("set `model.vision.post_layernorm` to false"),
        );
    }
    // Like HF's `hidden_states`: the embeddings, then the output of every layer.
    let states = i64::try_from(vision.num_hidden_layers).unwrap_or(i64::MAX - 1) + 1;
    let select = i64::from(vision.select_layer);
    if !(-states..states).contains(&select) {
        findings.push(
            Finding::new(
                "model.vision.select_layer",
                format!(
                    "there is no hidden state {select} in an encoder of {} layers",
                    states - 1
                ),
            )
            .related(["model.vision.num_hidden_layers"])
            .help(format!(
                "it takes {} to {}; -1 is the last layer's output",
                -states,
                states - 1
            )),
        );
    }
}

fn connector(connector: &ConnectorSettings, findings: &mut Vec<Finding>) {
    let (width, heads) = (connector.hidden_size, connector.num_attention_heads);
    if connector.kind == ConnectorKind::QFormer && !divides(heads, width) {
        findings.push(heads_do_not_divide(
            "model.connector.hidden_size",
            width,
            "model.connector.num_attention_heads",
            heads,
        ));
    }
    if connector.projector_layers().is_none() {
        findings.push(
            Finding::new(
                "model.connector.projector",
                format!("there is no projector \"{}\"", connector.projector),
            )
            .help("allowed: \"linear\", or \"mlp2x_gelu\" with 1 to 8 in place of 2"),
        );
    }
}

/// A resampler is as wide as the LLM, and its queries and the patches are squares.
fn resampler(model: &ModelSettings, findings: &mut Vec<Finding>) {
    const QUERIES: &str = "model.connector.queries";
    const HEADS: &str = "model.connector.num_attention_heads";
    const WIDTH: &str = "model.llm.hidden_size";
    let (queries, heads) = (model.connector.queries, model.connector.num_attention_heads);
    let side = queries.isqrt();
    if side * side != queries {
        findings.push(
            Finding::new(
                QUERIES,
                format!("the queries of a resampler stand in a square: {queries} do not"),
            )
            .related(["model.connector.kind"])
            .help(format!(
                "set `{QUERIES}` to a square number: {} or {}",
                side.max(1) * side.max(1),
                (side + 1) * (side + 1)
            )),
        );
    }
    let width = model.llm.hidden_size;
    if model.llm.path.is_none() && !divides(heads, width) {
        findings.push(heads_do_not_divide(WIDTH, width, HEADS, heads));
    } else if model.llm.path.is_none() && !width.is_multiple_of(4) {
        findings.push(
            Finding::new(
                WIDTH,
                format!(
                    "a width of {width} is not a multiple of 4, and the positions of a resampler \
                     (`model.connector.kind`) need one"
                ),
            )
            .related(["model.connector.kind"])
            .help(format!("set `{WIDTH}` to {}", multiples_around(4, width))),
        );
    }
    let class_token = model.vision.family.traits().class_token;
    let reads_class = model.vision.select_feature == SelectFeature::ClsPatch;
    if model.vision.path.is_none() && class_token && reads_class {
        findings.push(
            Finding::new(
                "model.vision.select_feature",
                "a resampler reads the square of patches, and the class token has no place in it",
            )
            .related(["model.connector.kind"])
            .help("set `model.vision.select_feature` to \"patch\""),
        );
    }
}

fn heads_do_not_divide(width_key: &str, width: usize, heads_key: &str, heads: usize) -> Finding {
    Finding::new(
        width_key,
        format!("a width of {width} (`{width_key}`) does not split into {heads} heads"),
    )
    .related([heads_key])
    .help(format!(
        "set `{width_key}` to a multiple of {heads}: {}; or `{heads_key}` to a divisor of {width}: \
         {}",
        multiples_around(heads, width),
        divisors_around(width, heads)
    ))
}
