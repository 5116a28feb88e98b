//! Golden case folders: weights, inputs and the values that PyTorch computed from them.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_config::{
    ConnectorKind, FusionKind, ImageLayout, ObjectiveKind, Quantisation, SelectFeature, Tune,
    Variant,
};
use mlrm_model::connector::{ConnectorConfig, MlpConfig, QFormerConfig, ResamplerConfig};
use mlrm_model::decoder::DecoderConfig;
use mlrm_model::embedder::{
    BuildOptions, Embedder, EmbedderConfig, FusionConfig, TokenBatch, TokenIds, WeightSource,
};
use mlrm_model::system::{SystemPart, WholeSystem};
use mlrm_model::vision::{FeatureSelection, VisionConfig};
use mlrm_model::weights::Checkpoint;
use mlrm_model::{InvalidConfig, ModelError};
use serde::Deserialize;

use mlrm_train::objective::Objective;

/// `case.json`, as far as the model needs it.
#[derive(Debug, Deserialize)]
struct CaseFile {
    variant: Variant,
    config: CaseConfig,
    qformer_config: Option<CaseQFormer>,
    /// t, where the weights do not hold it.
    #[serde(default)]
    temperature: f64,
}

#[derive(Debug, Deserialize)]
struct CaseConfig {
    image_tokens: bool,
    micl: bool,
    late_fusion: bool,
    gate_kind: FusionKind,
    gate_hidden_size: usize,
    num_query_tokens: usize,
    mm_projector_type: String,
    vision_select_layer: i32,
    vision_select_feature: SelectFeature,
    /// Absent in cases of the first families, as are the next two.
    #[serde(default)]
    vision_post_layernorm: bool,
    #[serde(default)]
    connector: ConnectorKind,
    #[serde(default)]
    resampler_heads: usize,
    image_insert: ImageLayout,
    embedding_dim: i64,
    text_weight: f64,
    vision_weight: f64,
    pad_token_id: i32,
    image_token_id: i32,
    image_emb_token_id: i32,
}

#[derive(Debug, Deserialize)]
struct CaseQFormer {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    encoder_hidden_size: usize,
    cross_attention_frequency: usize,
    layer_norm_eps: f64,
}

/// A golden case on a device.
pub struct GoldenCase {
    /// Name of the folder.
    pub name: String,
    /// The model with the case's weights.
    pub embedder: Embedder,
    /// The prompts.
    pub tokens: TokenBatch,
    /// Preprocessed pictures, `[notes, 3, side, side]`.
    pub pixels: Option<Tensor<4>>,
    /// Those with sizes of their own, `[1, 3, height, width]` each; empty where `pixels` holds them.
    pub own_pictures: Vec<Tensor<4>>,
    /// The loss and its weights.
    pub objective: Objective,
    /// What PyTorch computed.
    pub expected: Checkpoint,
    /// What `llm/model.safetensors` puts before the decoder's names.
    pub llm_prefix: String,
}

impl GoldenCase {
    /// Reads a case folder and builds its model on `device`.
    ///
    /// # Errors
    /// A folder that is no golden case, or whose weights do not fit its config.
    pub fn open(folder: &Path, device: &Device, dtype: DType) -> Result<Self, ModelError> {
        let path = folder.join("case.json");
        let format = |message: String| ModelError::Format {
            path: path.clone(),
            message,
        };
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let case: CaseFile = serde_json::from_str(&text)
            .map_err(|e| format(format!("not a golden case that mlrm reads: {e}")))?;
        let flags = &case.config;
        let variant = case.variant;
        let same = flags.image_tokens == variant.image_tokens()
            && flags.micl == variant.micl()
            && flags.late_fusion == variant.late_fusion();
        if !same {
            let message = format!("its flags contradict variant `{}`", variant.name());
            return Err(format(message));
        }
        let system = folder.join("system");
        let whole = system.is_dir().then(|| WholeSystem::open(&system));
        let whole = whole.transpose()?;
        let inputs = Checkpoint::open(&folder.join("inputs.safetensors"))?;
        let frozen = device.clone().without_autodiff();
        let (pixels, own_pictures) = (pixels(&inputs, &frozen)?, own_pictures(&inputs, &frozen)?);
        let side = pixels.as_ref().map(|pixels| pixels.dims()[3]);
        let mut config = embedder_config(folder, &case, whole.as_ref(), side)?;
        if let (Some(vision), false) = (&mut config.vision, own_pictures.is_empty()) {
            let block = (vision.patch_size * vision.merge()).pow(2);
            let sizes = own_pictures.iter().map(|picture| picture.dims());
            let blocks = sizes.map(|[_, _, height, width]| height * width / block);
            vision.with_own_grids(blocks.max().unwrap_or(1));
        }
        let options = build_options(folder, &case, whole.as_ref(), dtype);
        let embedder = Embedder::build(config, &options, device)?;
        let weights = match &whole {
            Some(whole) => whole.checkpoint(SystemPart::Llm)?,
            None => Checkpoint::open(&folder.join("llm"))?,
        };
        let prefix = embedder.config.llm.family().prefix;
        let has_prefix = weights.names().any(|name| name.starts_with(prefix));
        Ok(Self {
            name: name_of(folder),
            tokens: tokens(&inputs, flags)?,
            pixels,
            own_pictures,
            embedder,
            objective: Objective {
                kind: ObjectiveKind::OneTower,
                multimodal_weight: flags.text_weight,
                visual_weight: flags.vision_weight,
                prefixes: Vec::new(),
            },
            expected: Checkpoint::open(&folder.join("expected.safetensors"))?,
            llm_prefix: if has_prefix { prefix } else { "" }.into(),
        })
    }
}

fn name_of(folder: &Path) -> String {
    let canonical = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = canonical
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| folder.display().to_string())
}

/// `side`: that of the case's pictures.
fn embedder_config(
    folder: &Path,
    case: &CaseFile,
    whole: Option<&WholeSystem>,
    side: Option<usize>,
) -> Result<EmbedderConfig, ModelError> {
    let flags = &case.config;
    let described = whole.map(|whole| whole.vision(&[])).transpose()?.flatten();
    let id = |id: i32, used: bool| (used && id >= 0).then_some(id as u32);
    let mut vision = case
        .variant
        .vision()
        .then(|| match described {
            Some(vision) => Ok(vision.config),
            None => VisionConfig::read(&folder.join("vision/config.json")),
        })
        .transpose()?;
    if let (Some(vision), Some(side)) = (&mut vision, side) {
        vision.fit_pictures(side);
    }
    let brought = whole.map(|whole| whole.connector(&[])).transpose()?;
    let brought = brought.flatten().map(|connector| connector.config);
    let connector = match (&vision, brought) {
        (Some(vision), Some(connector)) => Some(connector.fitted(vision)),
        (Some(vision), None) if flags.image_tokens => Some(connector_config(case, vision)?),
        _ => None,
    };
    let features = FeatureSelection {
        layer: flags.vision_select_layer,
        positions: flags.vision_select_feature,
        post_layernorm: flags.vision_post_layernorm,
    };
    Ok(EmbedderConfig {
        variant: case.variant,
        layout: flags.image_insert,
        llm: match whole {
            Some(whole) => whole.llm(&[])?.config,
            None => DecoderConfig::read(&folder.join("llm/config.json"))?,
        },
        vision,
        features: whole.and_then(WholeSystem::features).unwrap_or(features),
        connector,
        projector: match whole.and_then(WholeSystem::projector) {
            Some(projector) => projector.into(),
            None => flags.mm_projector_type.clone(),
        },
        fusion: flags.late_fusion.then_some(FusionConfig {
            kind: flags.gate_kind,
            hidden_size: flags.gate_hidden_size,
            initial_weight: 0.5,
            bias: false,
        }),
        head_dim: usize::try_from(flags.embedding_dim).unwrap_or(0),
        tokens: TokenIds {
            pad: flags.pad_token_id.unsigned_abs(),
            image: id(flags.image_token_id, flags.image_tokens),
            image_emb: id(flags.image_emb_token_id, flags.micl),
            image_end: None,
        },
    })
}

fn connector_config(case: &CaseFile, vision: &VisionConfig) -> Result<ConnectorConfig, ModelError> {
    let flags = &case.config;
    let qformer = || {
        let q = case.qformer_config.as_ref();
        q.ok_or_else(|| InvalidConfig::new(&["qformer_config"], "the case has no `qformer_config`"))
    };
    Ok(match flags.connector {
        ConnectorKind::QFormer => {
            let q = qformer()?;
            ConnectorConfig::QFormer(QFormerConfig {
                num_query_tokens: flags.num_query_tokens,
                hidden_size: q.hidden_size,
                num_hidden_layers: q.num_hidden_layers,
                num_attention_heads: q.num_attention_heads,
                intermediate_size: q.intermediate_size,
                encoder_hidden_size: q.encoder_hidden_size,
                cross_attention_frequency: q.cross_attention_frequency,
                layer_norm_eps: q.layer_norm_eps,
            })
        }
        ConnectorKind::Mlp => ConnectorConfig::Mlp(MlpConfig {
            positions: vision.positions(flags.vision_select_feature),
            encoder_hidden_size: vision.hidden_size,
        }),
        ConnectorKind::Resampler => ConnectorConfig::Resampler(ResamplerConfig {
            num_query_tokens: flags.num_query_tokens,
            num_attention_heads: flags.resampler_heads,
            encoder_hidden_size: vision.hidden_size,
            layer_norm_eps: 1e-6,
        }),
    })
}

/// The weights of the case; with adapters beside the LLM, they learn in its stead.
fn build_options(
    folder: &Path,
    case: &CaseFile,
    whole: Option<&WholeSystem>,
    dtype: DType,
) -> BuildOptions {
    let adapter = Some(folder.join("adapter")).filter(|adapter| adapter.is_dir());
    let source = |name: &str| match whole {
        Some(whole) => WeightSource::System(whole.clone()),
        None => WeightSource::Checkpoint(PathBuf::from(folder).join(name)),
    };
    BuildOptions {
        llm: source("llm"),
        vision: source("vision"),
        head: source("head.safetensors"),
        connector: None,
        seed: 0,
        query_init_std: 0.0,
        temperature_logit: case.temperature,
        tune: match &adapter {
            Some(_) => Tune::Lora,
            None => Tune::Full,
        },
        quantisation: Quantisation::None,
        adapter,
        lora: None,
        lora_dropout: 0.0,
        learn_temperature: true,
        dtype,
        allow_nan: false,
        new_words: None,
        cut_layers: false,
    }
}

fn tokens(inputs: &Checkpoint, flags: &CaseConfig) -> Result<TokenBatch, ModelError> {
    let missing = || ModelError::Format {
        path: inputs.path().to_owned(),
        message: "no `input_ids`".into(),
    };
    let (shape, ids) = inputs.get_i64("input_ids")?.ok_or_else(missing)?;
    TokenBatch::from_padded(
        ids.into_iter().map(|id| id as i32).collect(),
        shape.get(1).copied().unwrap_or(0),
        flags.pad_token_id,
        flags.image_tokens.then_some(flags.image_token_id),
        flags.micl.then_some(flags.image_emb_token_id),
    )
}

/// Pictures `pixel_values.0`, `pixel_values.1`, …, `[3, height, width]` each.
fn own_pictures(inputs: &Checkpoint, device: &Device) -> Result<Vec<Tensor<4>>, ModelError> {
    let mut pictures = Vec::new();
    while let Some(stored) = inputs.get(&format!("pixel_values.{}", pictures.len()))? {
        let data = TensorData::new(stored.values, [vec![1], stored.shape].concat());
        pictures.push(Tensor::from_data(data, device));
    }
    Ok(pictures)
}

fn pixels(inputs: &Checkpoint, device: &Device) -> Result<Option<Tensor<4>>, ModelError> {
    let Some(stored) = inputs.get("pixel_values")? else {
        return Ok(None);
    };
    if stored.shape.len() != 4 {
        return Err(ModelError::Shape {
            what: "`pixel_values`".into(),
            expected: "4 axes".into(),
            found: format!("{:?}", stored.shape),
        });
    }
    let data = TensorData::new(stored.values, stored.shape);
    Ok(Some(Tensor::from_data(data, device)))
}
