//! `[backend]`, `[objective]`, `[train]` and `[eval]`.

use serde::Serialize;

use super::Finding;
use crate::{
    BackendName, DType, DeviceName, DeviceNames, EvalSettings, MatmulPrecision, ObjectiveSettings,
    Quantisation, RunConfig, SwapSettings, TrainSettings,
};

/// Names of slices that every evaluation has.
const BUILT_IN_SLICES: [&str; 5] = [
    "all",
    "short_query",
    "long_query",
    "short_target",
    "long_target",
];

pub(super) fn check(config: &RunConfig, findings: &mut Vec<Finding>) {
    devices(config, findings);
    objective(&config.objective, config.model.variant.micl(), findings);
    matryoshka(&config.objective, embedding_size(config), findings);
    train(&config.train, findings);
    swap(&config.train.swap, findings);
    cut_offs(&config.eval, findings);
    slices(&config.eval, findings);
}

fn devices(config: &RunConfig, findings: &mut Vec<Finding>) {
    const KEY: &str = "backend.device";
    let backend = &config.backend;
    if backend.matmul_precision == MatmulPrecision::Bf16 && backend.dtype != DType::F32 {
        let message = "`backend.matmul_precision` is about products of f32 matrices, and `backend.dtype` is not f32";
        findings.push(
            Finding::new("backend.matmul_precision", message)
                .related(["backend.dtype"])
                .help("leave one of the two at f32: a model in bf16 multiplies in bf16"),
        );
    }
    let names = config.backend.device.names();
    if names.is_empty() {
        findings.push(
            Finding::new(KEY, "the list of devices is empty").help("name one: device = \"flex\""),
        );
    }
    let mut kinds = names
        .iter()
        .filter_map(|name| name.parse::<DeviceName>().ok());
    let first = kinds.next().map(|first| first.backend);
    let quantised = config.model.llm.quantisation != Quantisation::None;
    if quantised && kinds.any(|other| Some(other.backend) != first) {
        let message = "`backend.device` lists devices of different kinds, which cannot hold the same quantised weights";
        findings.push(
            Finding::new(KEY, message)
                .related(["model.llm.quantisation"])
                .help("list devices of one kind, or set model.llm.quantisation = \"none\""),
        );
    }
    let mut seen: Vec<DeviceName> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let key = match &config.backend.device {
            DeviceNames::One(_) => KEY.to_owned(),
            DeviceNames::Many(_) => format!("{KEY}[{index}]"),
        };
        match name.parse::<DeviceName>() {
            Ok(device) if device.backend != BackendName::Flex && seen.contains(&device) => {
                findings.push(
                    Finding::new(key, format!("the device `{device}` is listed twice"))
                        .help("list each device once; only `flex` may be listed several times"),
                );
            }
            Ok(device) => seen.push(device),
            Err(error) => {
                let meant = error.nearest.as_ref();
                let meant = meant.map(|name| format!("did you mean \"{name}\"? "));
                findings.push(Finding::new(key, error.to_string()).help(format!(
                    "{}allowed: flex, vulkan[:i], wgpu[:i], metal, cuda[:i], rocm[:i]",
                    meant.unwrap_or_default()
                )));
            }
        }
    }
}

fn objective(objective: &ObjectiveSettings, micl: bool, findings: &mut Vec<Finding>) {
    if let (Some(_), Some(temperature)) = (objective.temperature_logit, objective.temperature) {
        findings.push(
            Finding::new(
                "objective.temperature",
                "`objective.temperature` and `objective.temperature_logit` are both set",
            )
            .related(["objective.temperature_logit"])
            .help(format!(
                "keep one: they are the same number, temperature = exp(-temperature_logit); \
                 temperature = {temperature} is temperature_logit = {:.4}",
                -temperature.ln()
            )),
        );
    }
    let initial = objective.initial_temperature_logit();
    if let Some(most) = objective
        .max_temperature_logit
        .filter(|most| *most < initial)
    {
        findings.push(
            Finding::new(
                "objective.max_temperature_logit",
                format!("the bound {most} is below the temperature logit that training starts at, {initial:.4}"),
            )
            .related(["objective.temperature_logit", "objective.temperature"])
            .help("raise the bound, or start lower by objective.temperature_logit"),
        );
    }
    let weighs_nothing =
        objective.multimodal_weight == 0.0 && (!micl || objective.visual_weight == 0.0);
    if weighs_nothing {
        findings.push(
            Finding::new(
                "objective.multimodal_weight",
                "every loss has the weight 0: there is nothing to learn",
            )
            .related(["objective.visual_weight", "model.variant"])
            .help("the paper has multimodal_weight = 9 and visual_weight = 1"),
        );
    }
}

/// Dimensions of the embeddings, where the config alone tells.
fn embedding_size(config: &RunConfig) -> Option<usize> {
    let model = &config.model;
    let own = model.path.is_none() && model.checkpoint.is_none();
    (own && model.head.dim > 0).then_some(model.head.dim)
}

fn matryoshka(
    objective: &ObjectiveSettings,
    embedding_size: Option<usize>,
    findings: &mut Vec<Finding>,
) {
    const KEY: &str = "objective.matryoshka_dims";
    let dims = &objective.matryoshka_dims;
    for (index, dim) in dims.iter().enumerate() {
        let key = format!("{KEY}[{index}]");
        if dims[..index].contains(dim) {
            findings.push(
                Finding::new(key, format!("the size {dim} is listed twice"))
                    .help("list each size once"),
            );
        } else if let Some(size) = embedding_size.filter(|size| dim > size) {
            findings.push(
                Finding::new(
                    key,
                    format!("embeddings have {size} dimensions, fewer than {dim}"),
                )
                .related(["model.head.dim"])
                .help(format!("list sizes up to {size}, or raise model.head.dim")),
            );
        }
    }
    let weights = objective.matryoshka_weights.as_ref();
    if weights.is_some_and(|weights| weights.contains(&0.0)) {
        findings.push(
            Finding::new("objective.matryoshka_weights", "a size has the weight 0")
                .related([KEY])
                .help("leave it out of objective.matryoshka_dims: it would not be trained"),
        );
    }
    if let Some(weights) = weights.filter(|weights| weights.len() != dims.len()) {
        findings.push(
            Finding::new(
                "objective.matryoshka_weights",
                format!("{} weights for {} sizes", weights.len(), dims.len()),
            )
            .related([KEY])
            .help("give a weight for each of objective.matryoshka_dims, or leave them out"),
        );
    }
}

fn train(train: &TrainSettings, findings: &mut Vec<Finding>) {
    for (index, beta) in train.betas.iter().enumerate() {
        // Not finite: found already, like every number that is not.
        if beta.is_finite() && !(0.0..1.0).contains(beta) {
            let key = format!("train.betas[{index}]");
            findings.push(
                Finding::new(&key, format!("`{key}` is out of range: {beta}"))
                    .help("averaging factors are in [0, 1); AdamW's usual ones are [0.9, 0.999]"),
            );
        }
    }
    if train.max_steps.is_none() && train.epochs == 0.0 {
        findings.push(
            Finding::new("train.epochs", "training would stop before its first step")
                .related(["train.max_steps"])
                .help("set `train.max_steps`, or `train.epochs` above 0"),
        );
    }
}

fn swap(swap: &SwapSettings, findings: &mut Vec<Finding>) {
    if swap.share > 0.0 && swap.fields.is_empty() {
        findings.push(
            Finding::new("train.swap.fields", "no part of a note would be swapped")
                .related(["train.swap.share"])
                .help("name a part, such as fields = [\"title\"], or set share = 0"),
        );
    }
    once("train.swap.fields", "part", &swap.fields, findings);
}

fn cut_offs(eval: &EvalSettings, findings: &mut Vec<Finding>) {
    once("eval.k", "cut-off", &eval.k, findings);
    once("eval.baselines", "baseline", &eval.baselines, findings);
}

/// Refuses what a list has already; `what` names an item.
fn once<T>(list: &str, what: &str, items: &[T], findings: &mut Vec<Finding>)
where
    T: PartialEq + Serialize,
{
    for (index, item) in items.iter().enumerate() {
        if items[..index].contains(item) {
            let name = toml::Value::try_from(item).map(|name| name.to_string());
            let name = name.unwrap_or_default();
            let message = format!("the {what} {name} is listed twice");
            let finding = Finding::new(format!("{list}[{index}]"), message);
            findings.push(finding.help(format!("list each {what} once")));
        }
    }
}

fn slices(eval: &EvalSettings, findings: &mut Vec<Finding>) {
    for (index, slice) in eval.slices.iter().enumerate() {
        let key = format!("eval.slices[{index}].name");
        let name = &slice.name;
        if BUILT_IN_SLICES.contains(&name.as_str()) {
            findings.push(
                Finding::new(&key, format!("there is a built-in slice \"{name}\"")).help(format!(
                    "choose another name than {}",
                    BUILT_IN_SLICES.join(", ")
                )),
            );
        } else if eval.slices[..index].iter().any(|other| other.name == *name) {
            findings.push(
                Finding::new(&key, format!("two slices are named \"{name}\""))
                    .help("results are stored by name: give each slice its own"),
            );
        }
    }
}
