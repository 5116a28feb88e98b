//! Every family: what is written is read back bit for bit, and what is not implemented is refused.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_config::{SelectFeature, VisionActivation, VisionFamily, VisionSettings};
use serde_json::{Value, json};

use super::*;
use crate::error::ModelError;
use crate::nn::Activation;
use crate::weights::{
    Checkpoint, ExportedTensor, LoadOptions, WriteOptions, parameter_count, write_safetensors,
};

/// Three heads of seven channels, a grid of three by three; Qwen-VL stretches four by four positions, and
/// DINOv2's networks are twice as wide as its states.
fn small(family: VisionFamily) -> VisionConfig {
    let settings = VisionSettings {
        family,
        // Three heads; of rotary positions four channels go together.
        hidden_size: if family.traits().rotary { 24 } else { 21 },
        intermediate_size: if family.traits().whole_mlp_ratio {
            42
        } else {
            13
        },
        num_hidden_layers: 2,
        num_attention_heads: 3,
        image_size: 12,
        patch_size: 4,
        hidden_act: VisionActivation::Gelu,
        ..VisionSettings::default()
    };
    let stored = if family == VisionFamily::QwenVl { 4 } else { 3 };
    VisionConfig {
        position_grid: stored,
        layer_norm_eps: 1e-6,
        ..VisionConfig::from_settings(&settings)
    }
}

/// What a `config.json` is read as.
pub(super) fn parsed(config: &Value) -> VisionConfig {
    of(config).expect("a config")
}

/// Why it is refused.
pub(super) fn refusal(config: &Value) -> String {
    of(config).expect_err("a refusal").to_string()
}

fn of(config: &Value) -> Result<VisionConfig, ModelError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).expect("config.json");
    VisionConfig::read(&path)
}

fn write(folder: &Path, config: &Value, tensors: &[ExportedTensor]) {
    std::fs::write(folder.join("config.json"), config.to_string()).expect("config.json");
    write_safetensors(&folder.join("model.safetensors"), tensors).expect("weights");
}

fn load(config: &VisionConfig, folder: &Path) -> Result<VisionTower, ModelError> {
    let checkpoint = Checkpoint::open(folder).expect("weights");
    let options = LoadOptions::new(DType::F32);
    VisionTower::load(config, &checkpoint, &options, &Device::default())
}

fn read(folder: &Path) -> VisionTower {
    let config = VisionConfig::read(&folder.join("config.json")).expect("a config");
    load(&config, folder).expect("a tower")
}

/// What the tower writes.
fn tensors(tower: &VisionTower) -> Vec<ExportedTensor> {
    let folder = tempfile::tempdir().expect("a folder");
    let written = tower.write(folder.path(), WriteOptions::default());
    written.expect("weights");
    let checkpoint = Checkpoint::open(folder.path()).expect("weights");
    let tensor = |name: &str| {
        let stored = checkpoint.get(name).expect("a tensor").expect(name);
        (name.to_owned(), stored.shape, stored.values)
    };
    checkpoint.names().map(tensor).collect()
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    for &family in VisionFamily::ALL {
        let config = small(family);
        let drawn = VisionTower::from_scratch(&config, 7, DType::F32, &Device::default());
        let folder = tempfile::tempdir().expect("a folder");
        let once = tensors(&drawn);
        write(folder.path(), &config.to_json(), &once);
        let path = folder.path().join("config.json");
        assert_eq!(VisionConfig::read(&path).expect("a config"), config);
        let again = read(folder.path());
        assert_eq!(tensors(&again), once, "{family:?}");
        assert_eq!(parameter_count(&again), parameter_count(&drawn));
    }
}

/// Features of whole models' vision halves are those of the encoder alone.
#[test]
fn the_vision_half_of_a_whole_model_is_read() {
    let others = [
        "text_model.embeddings.position_embedding.weight",
        "logit_scale",
    ];
    let blip = ["query_tokens", "language_model.lm_head.weight"];
    let qwen = [
        "transformer.wte.weight",
        "transformer.visual.attn_pool.query",
    ];
    for (family, kind, section, others) in [
        (VisionFamily::Clip, "clip", "vision_config", others),
        (VisionFamily::Siglip, "siglip", "vision_config", others),
        (VisionFamily::Blip2, "blip-2", "vision_config", blip),
        (VisionFamily::QwenVl, "qwen", "visual", qwen),
    ] {
        let config = small(family);
        let tower = VisionTower::from_scratch(&config, 7, DType::F32, &Device::default());
        let own = tensors(&tower);
        let whole = |(name, shape, values): &ExportedTensor| match family {
            VisionFamily::Blip2 => (
                format!("vision_model.{name}"),
                shape.clone(),
                values.clone(),
            ),
            _ => (name.clone(), shape.clone(), values.clone()),
        };
        let mut stored: Vec<_> = own.iter().map(whole).collect();
        stored.extend(others.map(|name| (name.to_owned(), vec![1], vec![0.5])));
        let folder = tempfile::tempdir().expect("a folder");
        let json = json!({"model_type": kind, section: config.to_json(), "text_config": {"x": 1}});
        write(folder.path(), &json, &stored);
        assert_eq!(tensors(&read(folder.path())), own, "{kind}");

        // A tensor that is nobody's is still an error.
        stored.push(("vision_model.surprise".into(), vec![1], vec![0.5]));
        write(folder.path(), &json, &stored);
        let error = load(&config, folder.path());
        let message = error.expect_err("a left-over tensor").to_string();
        assert!(message.contains("vision_model.surprise"), "{message}");
    }
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    let with = |family: VisionFamily, key: &str, value: Value| {
        let mut config = small(family).to_json();
        config[key] = value;
        config
    };
    for (config, named) in [
        (json!({"model_type": "swinv2"}), "swinv2"),
        (json!({"model_type": "clip"}), "vision_config"),
        (json!({"hidden_size": 12}), "model_type"),
        (
            with(VisionFamily::Siglip, "vision_use_head", json!(false)),
            "vision_use_head",
        ),
        (
            with(VisionFamily::Siglip, "num_patches", json!(256)),
            "num_patches",
        ),
        (
            with(VisionFamily::Clip, "attention_dropout", json!(0.1)),
            "attention_dropout",
        ),
        (
            with(VisionFamily::Clip, "image_size", json!([12, 16])),
            "image_size",
        ),
        (
            with(VisionFamily::Clip, "add_cross_attention", json!(true)),
            "add_cross_attention",
        ),
        (
            with(VisionFamily::Blip2, "hidden_act", json!("relu")),
            "hidden_act",
        ),
        (
            with(VisionFamily::Blip2, "num_attention_heads", json!(4)),
            "num_attention_heads",
        ),
        (
            with(VisionFamily::Blip2, "patch_size", json!(13)),
            "patch_size",
        ),
        (
            with(VisionFamily::QwenVl, "ls_init_value", json!(64)),
            "ls_init_value",
        ),
        (
            json!({"model_type": "clip", "vision_config": {"hidden_act": "silu"}}),
            "vision_config.hidden_act",
        ),
    ] {
        let message = refusal(&config);
        assert!(message.contains(named), "{config}: {message}");
    }
}

/// The defaults of HF's classes, which published files rely on: openai/clip-vit-base-patch32 states
/// nothing but what differs, under `vision_config_dict`.
#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let parse = |config: Value| parsed(&config);
    let clip = parse(json!({
        "model_type": "clip", "logit_scale_init_value": 2.6592, "projection_dim": 512,
        "vision_config": {"top_k": 50, "is_decoder": false, "pruned_heads": {}, "patch_size": 32},
        "vision_config_dict": {"patch_size": 16},
    }));
    let sizes = |c: &VisionConfig| {
        let sizes = [c.hidden_size, c.intermediate_size, c.num_hidden_layers];
        (sizes, c.num_attention_heads, c.image_size, c.patch_size)
    };
    assert_eq!(sizes(&clip), ([768, 3072, 12], 12, 224, 16));
    assert_eq!(clip.hidden_act, Activation::QuickGelu);
    let siglip = parse(json!({"model_type": "siglip_vision_model"}));
    assert_eq!(sizes(&siglip), ([768, 3072, 12], 12, 224, 16));
    assert_eq!(siglip.hidden_act, Activation::GeluPytorchTanh);
    let blip = parse(json!({"model_type": "blip-2", "vision_config": {}}));
    assert_eq!(sizes(&blip), ([1408, 6144, 39], 16, 224, 14));
    let visual = json!({
        "heads": 16, "image_size": 448, "image_start_id": 151857, "layers": 48,
        "mlp_ratio": 4.9231, "output_dim": 4096, "patch_size": 14, "width": 1664,
    });
    let qwen = parse(json!({"model_type": "qwen", "visual": visual}));
    assert_eq!(sizes(&qwen), ([1664, 8192, 48], 16, 448, 14));
    assert_eq!(qwen.patches(), 1024);
    assert_eq!(qwen.position_grid, 16);
}

/// A layer that nobody reads is not computed, and the state that is read does not depend on whether
/// all are kept.
#[test]
fn the_selected_state_is_the_one_among_all() {
    let device = Device::default();
    for &family in VisionFamily::ALL {
        let config = small(family);
        let tower = VisionTower::from_scratch(&config, 3, DType::F32, &device);
        let pixels = Tensor::random(
            [2, 3, 12, 12],
            burn::tensor::Distribution::Normal(0.0, 1.0),
            &device,
        );
        let values = |x: Tensor<3>| x.try_into_vec_as::<f32>().expect("values");
        for (layer, index) in [(-1, 2), (-2, 1), (0, 0), (2, 2)] {
            let selection = FeatureSelection {
                layer,
                positions: SelectFeature::ClsPatch,
                post_layernorm: false,
            };
            let mut every = Vec::new();
            let kept = tower.forward(pixels.clone(), selection, Some(&mut every));
            let alone = tower.forward(pixels.clone(), selection, None);
            assert_eq!(every.len(), 3);
            assert_eq!(
                every[index].dims(),
                [2, config.state_positions(), config.hidden_size]
            );
            let state = tower.readable(every[index].clone(), [3, 3], SelectFeature::ClsPatch);
            assert_eq!(values(alone.positions.clone()), values(state));
            assert_eq!(values(alone.positions), values(kept.positions));
        }
        let patches = FeatureSelection {
            layer: -1,
            positions: SelectFeature::Patch,
            post_layernorm: false,
        };
        let read = tower.forward(pixels, patches, None).positions;
        assert_eq!(read.dims(), [2, 9, config.hidden_size], "{family:?}");
    }
}

/// Pictures of another size than positions are stored for are read by the families that stretch these.
#[test]
fn positions_stretch_to_the_pictures() {
    for &family in VisionFamily::ALL {
        let mut config = small(family);
        config.fit_pictures(20);
        let stretches = config.stretch != Stretch::No;
        assert_eq!(
            config.image_size,
            if stretches { 20 } else { 12 },
            "{family:?}"
        );
        let written = config.to_json();
        let qwen = family == VisionFamily::QwenVl;
        assert_eq!(
            written["image_size"],
            json!(if qwen { 20 } else { 12 }),
            "{family:?}"
        );
        if !stretches {
            continue;
        }
        let tower = VisionTower::from_scratch(&config, 7, DType::F32, &Device::default());
        let pixels = Tensor::ones([2, 3, 20, 20], &Device::default());
        let read = |positions| {
            let selection = FeatureSelection {
                layer: -1,
                positions,
                post_layernorm: false,
            };
            tower
                .forward(pixels.clone(), selection, None)
                .positions
                .dims()
        };
        let width = config.hidden_size;
        assert_eq!(read(SelectFeature::Patch), [2, 25, width], "{family:?}");
        let all = config.positions(SelectFeature::ClsPatch);
        assert_eq!(read(SelectFeature::ClsPatch), [2, all, width], "{family:?}");
    }
}

/// The giant's gated network comes back as wide as it was, from a ratio that `transformers` takes.
#[test]
fn the_width_of_a_gated_network_is_written_as_a_ratio() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    let read = |config: &Value| {
        std::fs::write(&path, config.to_string()).expect("config.json");
        VisionConfig::read(&path).expect("a config")
    };
    for (width, ratio, inner) in [(1536, 4, 4096), (24, 4, 64), (12, 3, 24), (6, 5, 24)] {
        let gated = read(&json!({
            "model_type": "dinov2", "hidden_size": width, "num_attention_heads": 6,
            "mlp_ratio": ratio, "use_swiglu_ffn": true,
        }));
        assert_eq!(gated.intermediate_size, inner);
        let written = gated.to_json();
        assert!(written["mlp_ratio"].is_u64(), "{written}");
        assert_eq!(read(&written), gated, "{written}");
    }
}

/// Matrix products of such small towers round otherwise in batches of another size.
#[test]
fn a_picture_has_the_same_features_whichever_others_come_with_it() {
    let device = Device::default();
    let pictures = 2 * PICTURES_AT_A_TIME + 3;
    for (family, dtype) in VisionFamily::ALL
        .iter()
        .flat_map(|&f| [(f, DType::F32), (f, DType::BF16)])
    {
        let config = small(family);
        let tower = VisionTower::from_scratch(&config, 7, dtype, &device);
        let side = config.image_size;
        let size = 3 * side * side;
        let values: Vec<f32> = (0..pictures * size)
            .map(|n| ((n * 37 + n / 7) % 101) as f32 / 50.0 - 1.0)
            .collect();
        let selection = FeatureSelection {
            layer: -1,
            positions: SelectFeature::ClsPatch,
            post_layernorm: false,
        };
        let encoded = |order: &[usize]| -> Vec<Vec<f32>> {
            let picture = |&picture: &usize| &values[picture * size..][..size];
            let chosen: Vec<f32> = order.iter().flat_map(picture).copied().collect();
            let data = TensorData::new(chosen, [order.len(), 3, side, side]);
            let features = tower.encode(Tensor::from_data(data, &device), selection);
            let read = |values: Result<Vec<f32>, _>| -> Vec<f32> { values.expect("values") };
            let (summary, rest) = (features.summary, features.positions);
            let (summary, rest) = (
                read(summary.try_into_vec_as()),
                read(rest.try_into_vec_as()),
            );
            let [first, others] = [&summary, &rest].map(|all| all.len() / order.len());
            let both = summary.chunks(first).zip(rest.chunks(others));
            both.map(|(first, others)| [first, others].concat())
                .collect()
        };
        let all: Vec<usize> = (0..pictures).collect();
        let together = encoded(&all);
        for (picture, features) in together.iter().enumerate() {
            assert_eq!(
                &encoded(&[picture])[0],
                features,
                "{family:?} {dtype:?}, {picture} alone"
            );
        }
        for shift in [1, 5, PICTURES_AT_A_TIME + 2] {
            let order: Vec<usize> = all.iter().map(|n| (n * 5 + shift) % pictures).collect();
            for (features, &picture) in encoded(&order).iter().zip(&order) {
                assert_eq!(
                    features, &together[picture],
                    "{family:?} {dtype:?}, moved by {shift}"
                );
            }
        }
    }
}
