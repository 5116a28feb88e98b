//! `mlrm export --python DIR`: what makes a model folder one that `transformers` and
//! `sentence-transformers` load.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use miette::miette;
use mlrm_data::prompt::{PromptEncoder, PromptStyle};
use mlrm_data::tokenizer::Tokenizer;
use mlrm_model::connector::ConnectorConfig;
use mlrm_model::embedder::ModelFolder;
use mlrm_model::source::ModelSource;
use mlrm_model::vision::Summary;
use mlrm_train::TrainError;
use mlrm_train::plan::picture_settings;
use serde_json::{Value, json};

/// The one file of code of such a folder.
const MODELING: &str = include_str!("../../../templates/modeling_mlrm.py");

/// The model of a folder that can be exported so.
///
/// # Errors
/// A part of a model, or one that `transformers` has no classes for.
pub fn exportable(source: &ModelSource) -> miette::Result<&ModelFolder> {
    let ModelSource::Model(folder) = source else {
        return Err(miette!(
            help = "name a model folder or a run; parts of models are exported by --out",
            "--python: {} is no whole model of mlrm (no mlrm.toml)",
            source.root().display()
        ));
    };
    let config = &folder.config;
    let halves = [
        Some(("language model", config.llm.to_json())),
        config
            .vision
            .as_ref()
            .map(|v| ("vision encoder", v.to_json())),
    ];
    for (what, json) in halves.into_iter().flatten() {
        if super::class_of(&json).is_none() {
            return Err(miette!(
                help = "export it by --out, for mlrm alone",
                "--python: transformers has no class for the {what} `{}`",
                json["model_type"].as_str().unwrap_or_default()
            ));
        }
    }
    let merger = matches!(config.connector, Some(ConnectorConfig::Merger(_)));
    if merger || config.has_own_grids() {
        return Err(miette!(
            help = "export it by --out; transformers has classes for the whole models that it came from",
            "--python: the code of an exported model has no merger, and no grids of pictures' own"
        ));
    }
    Ok(folder)
}

/// Adds to a model folder that was just written to `root` what Python needs, and a model card.
///
/// # Errors
/// A tokenizer or template that cannot be read, and files that cannot be written.
pub fn complete(root: &Path, source: &Path, name: &str) -> Result<(), TrainError> {
    let folder = ModelFolder::open(root)?;
    let write = |file: &str, text: &str| {
        let path = root.join(file);
        fs::write(&path, text).map_err(TrainError::io("write", &path))
    };
    let json = |value: Value| format!("{value:#}\n");
    write("config.json", &json(config(&folder)?))?;
    write("modeling_mlrm.py", MODELING)?;
    let module = json!([{
        "idx": 0, "name": "0", "path": "", "type": "modeling_mlrm.MlrmSentenceModule",
    }]);
    write("modules.json", &json(module))?;
    let sentence = json!({"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"});
    write("config_sentence_transformers.json", &json(sentence))?;
    write("README.md", &super::card::card(&folder, source, name)?)
}

/// `config.json`: every choice of the model, resolved, so that the code has nothing to look up.
fn config(folder: &ModelFolder) -> Result<Value, TrainError> {
    let config = &folder.config;
    let path = folder.llm().join("config.json");
    let text = fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    let llm: Value =
        serde_json::from_str(&text).map_err(|error| TrainError::file(&path, error.to_string()))?;
    let vision = config.vision.as_ref();
    let picture = vision
        .map(|vision| picture_settings(Some(&folder.vision()), vision))
        .transpose()?;
    Ok(json!({
        "model_type": "mlrm",
        "architectures": ["MlrmModel"],
        "auto_map": {
            "AutoConfig": "modeling_mlrm.MlrmConfig",
            "AutoModel": "modeling_mlrm.MlrmModel",
        },
        "dtype": llm["torch_dtype"],
        "variant": config.variant,
        "micl": config.variant.micl(),
        "layout": config.layout,
        "connector": config.connector,
        "projector": config.projector,
        "fusion": config.fusion,
        "head_dim": config.head_dim,
        "features": {
            "layer": config.features.layer,
            "positions": config.features.positions,
            "post_layernorm": config.features.post_layernorm,
            "summary": match vision.map(|vision| vision.summary) {
                Some(Summary::AttentionHead) => "attention_head",
                Some(Summary::MeanPatch) => "mean_patch",
                Some(Summary::ClassToken) | None => "class_token",
            },
        },
        "picture": picture.map(|picture| picture.to_json()),
        "prompts": prompts(folder)?,
    }))
}

/// How notes become ids: the prompt of a note with a picture, and of one without.
fn prompts(folder: &ModelFolder) -> Result<Value, TrainError> {
    let tokenizer = Arc::new(Tokenizer::load(&folder.tokenizer())?);
    let mut settings = folder.prompt.settings.clone();
    if settings.template_file.is_some() {
        settings.template_file = Some(folder.root().join("template.toml"));
    }
    let visual_tokens = folder.config.visual_tokens();
    let encoder = |style, visual_tokens| {
        PromptEncoder::new(&settings, Arc::clone(&tokenizer), style, visual_tokens)
    };
    let picture = encoder(PromptStyle::from(folder.config.variant), visual_tokens)?;
    let text = encoder(PromptStyle::Text, 0)?;
    Ok(json!({
        "styles": {"picture": picture.outline(), "text": text.outline()},
        "sentence_mark": text.template().sentence_mark,
        "topic_separator": text.template().topic_separator,
        "title_chars": settings.title_chars,
        "title_keep": settings.title_keep,
        "content_chars": settings.content_chars,
        "topics": settings.topics,
        "topic_chars": settings.topic_chars,
        "prefix_ids": tokenizer.prefix_ids(),
        "pad_id": tokenizer.pad_id(),
    }))
}
