//! A family of decoders from outside of mlrm: MiniCPM (arXiv 2404.06395), which is Llama with scaled embeddings and
//! scaled layers.
//!
//!     cargo run --release --example own_decoder

use std::path::Path;

use mlrm::burn::tensor::{DType, Device};
use mlrm::model::ModelError;
use mlrm::model::decoder::families::{self, DecoderFamily, llama};
use mlrm::model::decoder::{Decoder, DecoderConfig};
use mlrm::model::hf_config::HfConfig;
use mlrm::model::weights::{self, InitRule, NamedTensor, Tensors, WriteOptions};
use mlrm::{Embedder, Error, Note, RunConfig};

static MINICPM: DecoderFamily = DecoderFamily {
    name: "minicpm",
    architecture: "MiniCPMModel",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| llama::scratch_line(&MINICPM, settings, words),
};

/// Reads its `config.json`; keys that nothing takes are refused by name.
fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    // Of the LM head, which is never computed.
    hf.take("dim_model_base");
    let word_scale = hf.get("scale_emb", Some(1.0))?;
    let depth: f64 = hf.get("scale_depth", Some(1.0))?;
    let line = llama::read_line(&MINICPM, hf)?;
    Ok(DecoderConfig {
        word_scale,
        residual_scale: depth / (line.num_hidden_layers as f64).sqrt(),
        ..line
    })
}

/// Writes what `read` reads.
fn write(config: &DecoderConfig) -> serde_json::Value {
    let mut keys = llama::write_line(config);
    keys["scale_emb"] = config.word_scale.into();
    let layers = config.num_hidden_layers as f64;
    keys["scale_depth"] = (config.residual_scale * layers.sqrt()).into();
    keys
}

/// As published with MiniCPM 2B, but for the sizes.
const CONFIG: &str = r#"{
    "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "initializer_range": 0.1, "hidden_size": 32, "intermediate_size": 64,
    "max_position_embeddings": 2048, "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05, "rope_scaling": null, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 300,
    "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4
}"#;

fn main() -> Result<(), Error> {
    run(Path::new("runs/own_decoder"))
}

/// Writes checkpoint, data and model below `home`.
pub fn run(home: &Path) -> Result<(), Error> {
    families::register(&MINICPM)?;
    let checkpoint = home.join("minicpm");
    checkpoint_in(&checkpoint)?;

    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = home.join("data");
    let overrides = [
        format!("model.llm.path={}", checkpoint.display()),
        format!("data.root={}", data.display()),
    ];
    let embedder = Embedder::from_config(RunConfig::load(tiny, &overrides)?)?;
    let llm = &embedder.model().embedder.config.llm;
    println!("{} with words times {}", llm.family().name, llm.word_scale);

    // It trains, embeds, is saved and opened again as any other.
    let notes = || {
        vec![Note {
            id: "mug".into(),
            title: "A red mug".into(),
            image: Some("images/n00001.png".into()),
            ..Note::default()
        }]
    };
    let model = home.join("model");
    embedder.save_pretrained(&model)?;
    let opened = Embedder::from_pretrained(&model, "flex")?;
    let (before, after) = (
        embedder.embed(notes(), &data)?,
        opened.embed(notes(), &data)?,
    );
    assert_eq!(before, after);
    Ok(())
}

/// Random weights in the place of a download.
fn checkpoint_in(folder: &Path) -> Result<(), Error> {
    let file = folder.join("config.json");
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    std::fs::write(&file, CONFIG).map_err(Error::io("write", &file))?;
    let config = DecoderConfig::read(&file)?;
    let (prefix, rename) = (MINICPM.prefix, MINICPM.names.rename);
    let mut values = |tensor: &NamedTensor| {
        let rule = match tensor.shape.len() {
            1 => InitRule::Constant(1.0),
            _ => InitRule::Normal(config.initializer_range),
        };
        Some(weights::initial_values(tensor, rule, 1, "llm"))
    };
    let empty = Decoder::new(&config, &Device::default());
    let decoder = weights::fill(empty, Tensors::Base, rename, DType::F32, &mut values);
    weights::write_module(folder, &decoder, prefix, rename, WriteOptions::default())?;
    Ok(())
}
