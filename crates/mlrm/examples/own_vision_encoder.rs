//! A family of vision encoders from outside of mlrm: I-JEPA (arXiv 2301.08243; Hugging Face `ijepa`), a vision
//! transformer without a class token, whose mean stands for the picture in late fusion.
//!
//!     cargo run --release --example own_vision_encoder

use std::path::Path;

use mlrm::burn::tensor::{DType, Device};
use mlrm::config::{PictureDefaults, VisionTraits};
use mlrm::model::ModelError;
use mlrm::model::hf_config::HfConfig;
use mlrm::model::nn::Activation;
use mlrm::model::vision::families::{self, VisionEncoderFamily};
use mlrm::model::vision::{
    AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig, VisionTower,
};
use mlrm::model::weights::{InitRule, NameTable, WriteOptions, renamed};
use mlrm::{Embedder, Error, Note, RunConfig};
use serde_json::{Value, json};

static IJEPA: VisionEncoderFamily = VisionEncoderFamily {
    name: "ijepa",
    traits: VisionTraits {
        class_token: false,
        post_layernorm: true,
        whole_mlp_ratio: false,
        rotary: false,
        pictures: PictureDefaults::Vit,
    },
    architecture: "IJepaModel",
    whole: None,
    prefix: "ijepa.",
    own_prefix: "",
    names: NameTable {
        rename: |path| renamed(path, TABLE),
        ignored: &[("pooler.", "features are taken before the pooler")],
    },
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    initial: |_, name| families::identity(name).unwrap_or(InitRule::Normal(0.02)),
};

/// Beginnings of the core's paths, and what checkpoints have in their place.
const TABLE: &[(&str, &str)] = &[
    (
        "patch_embedding.",
        "embeddings.patch_embeddings.projection.",
    ),
    ("position_embedding", "embeddings.position_embeddings"),
    ("layers.", "encoder.layer."),
    ("layer_norm1.", "layernorm_before."),
    ("layer_norm2.", "layernorm_after."),
    ("self_attn.q_proj.", "attention.attention.query."),
    ("self_attn.k_proj.", "attention.attention.key."),
    ("self_attn.v_proj.", "attention.attention.value."),
    ("self_attn.out_proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
    ("post_layernorm.", "layernorm."),
];

/// Those of `IJepaConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &IJEPA,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 16,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-12,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 224 / 16,
    stretch: Stretch::Bicubic,
    patch_bias: true,
    pre_layernorm: false,
    attention: AttentionKind::Separate,
    mlp: MlpKind::TwoLayers,
    layer_scale: false,
    register_tokens: 0,
    mask_token: MaskToken::Absent,
    tables_in_batches: true,
    blocks: None,
    own_grids: None,
    summary: Summary::MeanPatch,
};

const DROPOUTS: [&str; 2] = ["hidden_dropout_prob", "attention_probs_dropout_prob"];

/// Reads its `config.json`; keys that nothing takes are refused by name.
fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    // Of the pooler.
    hf.take("pooler_act");
    hf.take("pooler_output_size");
    for key in DROPOUTS {
        hf.refuse_unless(key, &[json!(0.0), json!(0)], "set it to 0");
    }
    let qkv_bias = hf.get("qkv_bias", Some(true))?;
    Ok(VisionConfig {
        qkv_bias,
        ..VisionConfig::read_common(hf, &DEFAULTS)?
    })
}

/// Writes what `read` reads.
fn write(config: &VisionConfig) -> Value {
    let mut keys = config.common_json();
    if let Some(keys) = keys.as_object_mut() {
        keys.remove("attention_dropout");
        keys.extend(DROPOUTS.map(|key| (key.to_owned(), json!(0.0))));
    }
    keys["qkv_bias"] = config.qkv_bias.into();
    keys
}

/// As published with I-JEPA ViT-H/14, but for the sizes.
const CONFIG: &str = r#"{
    "architectures": ["IJepaModel"], "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0, "hidden_size": 24, "image_size": 32, "initializer_range": 0.02,
    "intermediate_size": 48, "layer_norm_eps": 1e-06, "model_type": "ijepa", "num_attention_heads": 2,
    "num_channels": 3, "num_hidden_layers": 2, "patch_size": 8, "qkv_bias": true, "torch_dtype": "float32"
}"#;

fn main() -> Result<(), Error> {
    run(Path::new("runs/own_vision_encoder"))
}

/// Writes checkpoint, data and model below `home`.
pub fn run(home: &Path) -> Result<(), Error> {
    families::register(&IJEPA)?;
    let checkpoint = home.join("ijepa");
    checkpoint_in(&checkpoint)?;

    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = home.join("data");
    let overrides = [
        format!("model.vision.path={}", checkpoint.display()),
        format!("data.root={}", data.display()),
    ];
    let embedder = Embedder::from_config(RunConfig::load(tiny, &overrides)?)?;
    if let Some(vision) = &embedder.model().embedder.config.vision {
        println!("{} of {} patches", vision.family().name, vision.patches());
    }

    // It embeds, is saved and opened again as any other.
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
    let config = VisionConfig::read(&file)?;
    let tower = VisionTower::from_scratch(&config, 1, DType::F32, &Device::default());
    tower.write(folder, WriteOptions::default())?;
    Ok(())
}
