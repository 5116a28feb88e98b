//! What adapters are: PEFT's `adapter_config.json`, and the maps that it means.

use std::collections::BTreeSet;
use std::path::Path;

use mlrm_config::{ALL_LINEAR, LoraSettings, closest};
use serde_json::{Value, json};

use super::CONFIG;
use crate::bounds;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::weights::LinearMap;

/// What a PEFT `LoraConfig` says, as far as mlrm computes it.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Width of the product between A and B (`r`).
    pub rank: usize,
    /// Numerator of the scale (`lora_alpha`).
    pub alpha: f64,
    /// Share of the adapter's inputs that a training step leaves out (`lora_dropout`).
    pub dropout: f64,
    /// Ends of the adapted maps' names, `all-linear` alone, or a pattern alone.
    pub target_modules: Vec<String>,
    /// `target_modules` is one regular expression that matches whole names.
    pub pattern: bool,
    /// The scale is alpha / sqrt(rank), not alpha / rank (`use_rslora`).
    pub rslora: bool,
}

impl AdapterConfig {
    /// The adapters that a config section means.
    pub fn from_settings(settings: &LoraSettings) -> Self {
        Self {
            rank: settings.rank,
            alpha: settings.alpha,
            dropout: settings.dropout,
            target_modules: settings.target_modules.clone(),
            pattern: false,
            rslora: settings.rslora,
        }
    }

    /// Reads `adapter_config.json` of `folder`; refuses what mlrm does not compute, by name.
    ///
    /// # Errors
    /// A file that cannot be read, or describes adapters of another kind.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(CONFIG);
        let mut peft = HfConfig::read(&path)?;
        peft.refuse_unless("peft_type", &[json!("LORA")], "only LORA is");
        peft.refuse_unless("bias", &[json!("none")], "only `none` is");
        for key in REFUSED {
            let nothing = [json!(false), json!({}), json!([])];
            peft.refuse_unless(key, &nothing, "");
        }
        let layers = peft.get("modules_to_save", Some(Vec::<String>::new()))?;
        if layers
            .iter()
            .any(|name| !SAVED_WHOLE.contains(&name.as_str()))
        {
            let hint = format!(
                "of layers that are saved whole only {} are",
                SAVED_WHOLE.join(" and ")
            );
            return Err(peft.unsupported("modules_to_save", &json!(layers), &hint));
        }
        peft.refuse_unless(
            "init_lora_weights",
            &[json!(true), json!(false), json!("gaussian")],
            "such an initialisation changes the base weights as well",
        );
        for key in WITHOUT_EFFECT {
            peft.take(key);
        }
        let mut pattern = false;
        let targets = match peft.take("target_modules") {
            Some(Value::String(name)) if name == ALL_LINEAR => vec![name],
            Some(Value::String(text)) if !text.is_empty() => {
                pattern = true;
                vec![text]
            }
            Some(Value::Array(names)) if !names.is_empty() => names
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            other => {
                let value = other.unwrap_or(Value::Null);
                let hint = "it must be a list of names, a pattern, or \"all-linear\"";
                return Err(peft.unsupported("target_modules", &value, hint));
            }
        };
        let config = Self {
            rank: read_rank(&mut peft, &path)?,
            alpha: peft.get("lora_alpha", None)?,
            dropout: peft.get("lora_dropout", Some(0.0))?,
            target_modules: targets,
            pattern,
            rslora: peft.get("use_rslora", Some(false))?,
        };
        peft.finish()?;
        let sound = config.rank > 0 && config.alpha > 0.0 && (0.0..1.0).contains(&config.dropout);
        if !sound {
            let message =
                "`r` must be at least 1, `lora_alpha` above 0 and `lora_dropout` in [0, 1)";
            return Err(ModelError::format(&path, message));
        }
        Ok(config)
    }

    pub(super) fn to_json(&self, names: &BTreeSet<String>) -> Value {
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": Value::Null,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": names,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "use_dora": false,
        })
    }

    /// What the adapters' output is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// The maps that are adapted; an error names the target that is none and what was meant.
    ///
    /// # Errors
    /// A pattern that is none, or that names no linear map.
    pub fn targets<'a>(&self, maps: &'a [LinearMap]) -> Result<Vec<&'a LinearMap>, ModelError> {
        if self.target_modules == [ALL_LINEAR] {
            return Ok(maps.iter().collect());
        }
        if let (true, [pattern]) = (self.pattern, self.target_modules.as_slice()) {
            return matching(pattern, maps);
        }
        let is = |map: &LinearMap, target: &String| {
            // PEFT counts names from the causal model, whose decoder is called `model`.
            let full = format!(".model.{}", map.name);
            map.name == *target || full.ends_with(&format!(".{target}"))
        };
        for target in &self.target_modules {
            if !maps.iter().any(|map| is(map, target)) {
                return Err(unknown_target(target, maps));
            }
        }
        let adapted = |map: &&LinearMap| self.target_modules.iter().any(|target| is(map, target));
        Ok(maps.iter().filter(adapted).collect())
    }
}

/// The maps whose whole name `pattern` matches, as PEFT does it (`re.fullmatch`): the name in a
/// causal model (`model.layers.0.self_attn.q_proj`), or in a headless one.
fn matching<'a>(pattern: &str, maps: &'a [LinearMap]) -> Result<Vec<&'a LinearMap>, ModelError> {
    let refusal = |why: String| {
        let message = format!("LoRA target_modules = {}: {why}", json!(pattern));
        ModelError::config(&["target_modules"], message)
    };
    let whole = fancy_regex::Regex::new(&format!("^(?:{pattern})$"));
    let whole = whole.map_err(|e| refusal(format!("not a regular expression: {e}")))?;
    let mut found = Vec::new();
    for map in maps {
        let full = format!("model.{}", map.name);
        let mut matched = false;
        for name in [&map.name, &full] {
            let result = whole.is_match(name);
            matched |= result.map_err(|e| refusal(format!("cannot be matched: {e}")))?;
        }
        if matched {
            found.push(map);
        }
    }
    match (found.is_empty(), maps.first()) {
        (false, _) => Ok(found),
        (true, Some(map)) => Err(refusal(format!(
            "no linear map of the language model has such a name; the first is `model.{}`",
            map.name
        ))),
        (true, None) => Err(refusal("the language model has no linear maps".into())),
    }
}

/// Keys that change what is computed, or to what; all of them off by default.
const REFUSED: [&str; 24] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "lora_ga_config",
    "megatron_config",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
];

/// Layers that a folder may bring whole: the table of words, which takes the place of the model's,
/// and the LM head, which is never computed.
const SAVED_WHOLE: [&str; 2] = ["embed_tokens", "lm_head"];

/// Keys that describe provenance, or belong to options that are off.
const WITHOUT_EFFECT: [&str; 8] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// The key `r`, within bounds.
fn read_rank(peft: &mut HfConfig<'_>, path: &Path) -> Result<usize, ModelError> {
    let rank = peft.get("r", None)?;
    bounds::check(&[("r", rank, bounds::RANK)]).map_err(|e| ModelError::format(path, e.message))?;
    Ok(rank)
}

fn unknown_target(target: &str, maps: &[LinearMap]) -> ModelError {
    let known = last_names(maps);
    let meant = closest(target, known.iter().map(String::as_str));
    let meant = meant.map_or(String::new(), |name| format!("did you mean `{name}`? "));
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let message = format!(
        "LoRA target `{target}`: the language model has no linear map of this name; {meant}it has {}, \
         or `{ALL_LINEAR}`",
        known.join(", ")
    );
    ModelError::config(&["target_modules"], message)
}

/// Last parts of the maps' names: `q_proj`.
pub(super) fn last_names<'a>(maps: impl IntoIterator<Item = &'a LinearMap>) -> BTreeSet<String> {
    let last = |map: &LinearMap| map.name.rsplit('.').next().map(str::to_owned);
    maps.into_iter().filter_map(last).collect()
}
