//! LoRA adapters of a model: where they stand, how they start, and folders of them in PEFT's layout
//! (`adapter_config.json`, `adapter_model.safetensors`).

mod config;

pub use config::AdapterConfig;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::DType;

use self::config::last_names;
use crate::error::ModelError;
use crate::nn::{AdapterShape, DropoutClock, attach_adapters};
use crate::weights::{
    Checkpoint, InitRule, LinearMap, NamedTensor, StoredTensor, Tensors, export_adapters, fill,
    initial_values, linear_maps, load_adapters, stable_hash, write_safetensors,
};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the adapted model.
const PEFT_PREFIX: &str = "base_model.model.";

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
    (folder, kept_layers): (&Path, Option<usize>),
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
    let mut adapters = checkpoint.part(|name| (!is_word_table(name)).then(|| name.to_owned()));
    if let Some(kept) = kept_layers {
        adapters = adapters.first_layers(kept);
    }
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
