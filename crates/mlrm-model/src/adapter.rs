//! LoRA adapters of a model: where they stand, how they start, and folders of them in PEFT's layout
//! (`adapter_config.json`, `adapter_model.safetensors`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use burn::tensor::DType;
use mlrm_config::{ALL_LINEAR, LoraSettings, closest};
use serde_json::{Value, json};

use crate::bounds;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{AdapterShape, DropoutClock, attach_adapters};
use crate::weights::{
    Checkpoint, InitRule, LinearMap, NamedTensor, StoredTensor, Tensors, export_adapters, fill,
    initial_values, linear_maps, load_adapters, stable_hash, write_safetensors,
};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the adapted model.
const PEFT_PREFIX: &str = "base_model.model.";

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

    fn to_json(&self, names: &BTreeSet<String>) -> Value {
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
fn last_names<'a>(maps: impl IntoIterator<Item = &'a LinearMap>) -> BTreeSet<String> {
    let last = |map: &LinearMap| map.name.rsplit('.').next().map(str::to_owned);
    maps.into_iter().filter_map(last).collect()
}

/// How the adapters of a module are called on disk: `rename` makes checkpoint names of its paths,
/// `prefix` stands before them in a whole checkpoint (`model.`).
#[derive(Debug, Clone, Copy)]
pub struct AdapterNames {
    /// See [`crate::weights::NameTable`].
    pub rename: fn(&str) -> String,
    /// What a Hugging Face checkpoint puts before the module's names.
    pub prefix: &'static str,
}

/// Whether two configs mean the same adapters of `module`, dropout aside.
///
/// # Errors
/// Targets that the module does not have.
pub fn same_adapters<M: Module>(
    module: &M,
    names: AdapterNames,
    one: &AdapterConfig,
    other: &AdapterConfig,
) -> Result<bool, ModelError> {
    let maps = linear_maps(module, names.rename);
    Ok(one.targets(&maps)? == other.targets(&maps)?
        && one.rank == other.rank
        && one.scale() == other.scale())
}

/// Refuses targets that `module` does not have; cheap, so that it can come before any weights.
///
/// # Errors
/// Targets that the model does not have.
pub fn check_targets<M: Module>(
    module: &M,
    names: AdapterNames,
    config: &AdapterConfig,
) -> Result<(), ModelError> {
    config.targets(&linear_maps(module, names.rename)).map(drop)
}

/// `module` with new adapters that change nothing yet: A as PEFT draws it (uniform within
/// ± 1 / sqrt(inputs)), B of zeros. Whatever else of the module learns is left as it is.
///
/// Initial values and dropout masks derive from `seed` and the map's name alone.
///
/// # Errors
/// Targets that the model does not have, or that have an adapter.
pub fn add_adapters<M: Module>(
    module: M,
    names: AdapterNames,
    config: &AdapterConfig,
    seed: u64,
    clock: &DropoutClock,
) -> Result<M, ModelError> {
    let module = attach(module, names, config, seed, clock)?;
    let value = &mut |tensor: &NamedTensor| {
        let rule = match tensor.name.ends_with(".lora_A.weight") {
            true => InitRule::TorchLinear,
            false => InitRule::Constant(0.0),
        };
        Some(initial_values(tensor, rule, seed, "adapter"))
    };
    let which = Tensors::Adapters;
    Ok(fill(module, which, names.rename, DType::F32, value))
}

fn attach<M: Module>(
    module: M,
    names: AdapterNames,
    config: &AdapterConfig,
    seed: u64,
    clock: &DropoutClock,
) -> Result<M, ModelError> {
    let maps = linear_maps(&module, names.rename);
    let streams: BTreeMap<&str, u64> = config
        .targets(&maps)?
        .into_iter()
        .map(|map| (map.path.as_str(), seed ^ stable_hash(&map.name)))
        .collect();
    let shape = AdapterShape {
        rank: config.rank,
        scale: config.scale(),
        dropout: config.dropout,
        clock: clock.clone(),
    };
    let stream = &mut |path: &str| streams.get(path).copied();
    Ok(attach_adapters(module, &shape, stream))
}

/// `module` with the adapters of a PEFT folder that `config` was read from, strictly: every target
/// must be there in its shape, and nothing else but a table of words ([`saved_words`]) and an LM head.
///
/// # Errors
/// A folder that is no adapter, or one of another model.
pub fn load_folder<M: Module>(
    module: M,
    names: AdapterNames,
    folder: &Path,
    config: &AdapterConfig,
    seed: u64,
    clock: &DropoutClock,
) -> Result<M, ModelError> {
    let in_folder = |error: ModelError| match error {
        ModelError::Config(wrong) => ModelError::format(&folder.join(CONFIG), wrong.message),
        other => other,
    };
    let module = attach(module, names, config, seed, clock).map_err(in_folder)?;
    let checkpoint = Checkpoint::open(&folder.join(WEIGHTS))?.part(plain_name);
    // Adapters of a headless model (`AutoModel`) lack the decoder's own prefix.
    let whole = format!("{PEFT_PREFIX}{}", names.prefix);
    let prefix = match checkpoint.names().any(|name| name.starts_with(&whole)) {
        true => whole.as_str(),
        false => PEFT_PREFIX,
    };
    let prefix = prefix.to_owned();
    let adapters = checkpoint.part(|name| (!is_word_table(name)).then(|| name.to_owned()));
    load_adapters(module, &adapters, &prefix, names.rename)
}

/// The name that PEFT gives a tensor when it saves: without the adapter's own name, which a plain
/// `state_dict` has, and the wrapper of layers that are saved whole. `None` for the LM head and for
/// the originals of such layers.
fn plain_name(name: &str) -> Option<String> {
    if name.contains("lm_head.") || name.contains(".original_module.") {
        return None;
    }
    let name = name.replace(".modules_to_save.default.", ".");
    Some(name.replace(".default.weight", ".weight"))
}

fn is_word_table(name: &str) -> bool {
    name.ends_with("embed_tokens.weight") || name.ends_with("wte.weight")
}

/// The table of words that a PEFT folder brings, `[words, hidden]`; `None` where it brings none.
///
/// # Errors
/// A file that cannot be read.
pub fn saved_words(folder: &Path) -> Result<Option<StoredTensor>, ModelError> {
    let checkpoint = Checkpoint::open(&folder.join(WEIGHTS))?.part(plain_name);
    let name = checkpoint.names().find(|name| is_word_table(name));
    match name.map(str::to_owned) {
        Some(name) => checkpoint.get(&name),
        None => Ok(None),
    }
}

/// Writes the adapters of `module` as a PEFT folder, names as for a causal language model.
///
/// # Errors
/// Tensors that cannot be read back, or a folder that cannot be written.
pub fn write_folder<M: Module>(
    module: &M,
    names: AdapterNames,
    folder: &Path,
    config: &AdapterConfig,
) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(|e| ModelError::io("create", folder, e))?;
    let maps = linear_maps(module, names.rename);
    let adapted = config.targets(&maps)?;
    let mut targets = last_names(adapted.iter().copied());
    let short = |map: &&LinearMap| targets.iter().any(|t| map.name.ends_with(&format!(".{t}")));
    // Where only some layers are adapted, the last part of a name means too many maps.
    if maps.iter().filter(short).count() != adapted.len() {
        let full = |map: &&LinearMap| format!("{}{}", names.prefix, map.name);
        targets = adapted.iter().map(full).collect();
    }
    let path = folder.join(CONFIG);
    let text = format!("{:#}\n", config.to_json(&targets));
    std::fs::write(&path, text).map_err(|e| ModelError::io("write", &path, e))?;
    let prefix = format!("{PEFT_PREFIX}{}", names.prefix);
    let tensors = export_adapters(module, &prefix, names.rename)?;
    write_safetensors(&folder.join(WEIGHTS), &tensors)
}
