//! Whole models as others publish them: evaluated as they are, fine-tuned, inspected, and refused where
//! something does not fit.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;

use support::{Home, events, golden_cases, named, printed, training};
use tensors::{RawTensor, Tensors, copy_folder, edit, read};

/// The golden cases that hold whole models, with what each needs of the config beside it.
const SYSTEMS: [(&str, &str); 6] = [
    ("system_blip2", "model.variant=basic model.head.dim=0"),
    (
        "system_qwen_vl",
        "model.variant=basic model.head.dim=0 prompt.layout=after",
    ),
    (
        "system_qwen2_5_vl",
        "model.variant=basic model.head.dim=0 prompt.layout=after \
            model.vision.max_pixels=600",
    ),
    (
        "system_qwen3_vl",
        "model.variant=basic model.head.dim=0 model.vision.max_pixels=576",
    ),
    ("system_notellm2_mllama", "model.connector.hidden_size=12"),
    (
        "system_notellm2_qwen_selfvl",
        "model.connector.hidden_size=20 prompt.layout=after",
    ),
];

/// What is said of NoteLLM-2's parts that its config.json does not describe.
const RELEASED: &str = "model.vision.path=vision model.connector.queries=4 model.connector.layers=1 \
    model.connector.num_attention_heads=4 model.connector.intermediate_size=24 \
    model.head.dim=6";

/// A config that starts from the whole model `system`, which is copied into the home.
fn home(system: &str) -> Home {
    let home = Home::with_config();
    let case = golden_cases().join(system);
    copy_folder(&case.join("system"), &home.path("system"));
    if case.join("vision").is_dir() {
        copy_folder(&case.join("vision"), &home.path("vision"));
    }
    home
}

fn overrides(system: &str, steps: usize) -> String {
    let (_, own) = SYSTEMS
        .iter()
        .find(|(name, _)| *name == system)
        .expect("a system");
    let released = match system.starts_with("system_notellm2") {
        true => RELEASED,
        false => "",
    };
    format!(
        "model.checkpoint=system train.max_steps={steps} prompt.content_chars=16 prompt.topics=1 \
        prompt.max_tokens=60 eval.baselines=[] {own} {released}"
    )
}

fn train(home: &Home, system: &str, steps: usize) {
    home.train("run", overrides(system, steps)).done();
}

#[test]
fn without_a_step_the_model_is_evaluated_as_it_is() {
    for (system, _) in SYSTEMS {
        let home = home(system);
        train(&home, system, 0);
        let events = events(&home, "run");
        assert!(named(&events, "train_step").is_empty(), "{system}");
        assert_eq!(named(&events, "evaluation").len(), 1, "{system}");
        // The model folder has the weights, bit for bit, but for rows that new words got.
        let stored = read(&home.path("system/model.safetensors"));
        let llm = read(&home.path("run/model/llm/model.safetensors"));
        let norms = llm
            .keys()
            .filter(|name| name.contains("norm") || name.contains("ln_"));
        let mut compared = 0;
        for name in norms {
            let theirs = match system {
                "system_blip2" => format!("language_model.{name}"),
                "system_qwen3_vl" => name.replacen("model.", "model.language_model.", 1),
                _ => name.clone(),
            };
            assert_eq!(llm[name].values(), stored[&theirs].values(), "{name}");
            compared += 1;
        }
        assert!(compared >= 3, "{system}");
        let embed = "embed run --notes data/notes.jsonl --out x.safetensors";
        home.mlrm(embed).done();
        let embeddings = &read(&home.path("x.safetensors"))["embeddings"];
        assert_eq!(embeddings.shape[0], 80, "{system}");
    }
}

#[test]
fn fine_tuning_changes_what_learns_and_leaves_the_encoder() {
    for (system, _) in SYSTEMS {
        let home = home(system);
        train(&home, system, 3);
        let steps = events(&home, "run");
        assert_eq!(named(&steps, "train_step").len(), 3, "{system}");
        let stored = read(&home.path("system/model.safetensors"));
        let head = read(&home.path("run/model/head.safetensors"));
        let (own, theirs) = match system {
            "system_qwen_vl" => ("resampler.query", "transformer.visual.attn_pool.query"),
            "system_qwen2_5_vl" => ("merger.last.fc1.weight", "visual.merger.mlp.0.weight"),
            "system_qwen3_vl" => (
                "merger.deep.1.fc2.weight",
                "model.visual.deepstack_merger_list.1.linear_fc2.weight",
            ),
            _ => ("query_tokens", "query_tokens"),
        };
        assert_ne!(head[own].values(), stored[theirs].values(), "{system}");
        let vision = read(&home.path("run/model/vision/model.safetensors"));
        for (name, tensor) in &vision {
            let suffix = name.strip_prefix("vision_model.").unwrap_or(name);
            let (_, theirs) = stored
                .iter()
                .find(|(theirs, _)| {
                    let vision = theirs.contains("vision") || theirs.contains("visual");
                    vision && theirs.ends_with(suffix)
                })
                .expect(name);
            assert_eq!(tensor.values(), theirs.values(), "{system}: {name}");
        }
    }
}

#[test]
fn a_gate_that_comes_trained_takes_no_initial_weight() {
    let system = "system_notellm2_mllama";
    let home = home(system);
    let sets = format!("{} model.fusion.initial_weight=0.9", overrides(system, 1));
    let ran = home.mlrm(training("tiny.toml", "run", sets));
    ran.failed_with(
        1,
        &["model.fusion.initial_weight = 0.9", "its trained gate"],
    );
    assert!(!home.path("run").exists());
}

#[test]
fn inspect_names_the_parts() {
    for (system, family) in [
        ("system_blip2", "opt"),
        ("system_qwen_vl", "qwen"),
        ("system_qwen2_5_vl", "qwen2_5_vl_text"),
        ("system_qwen3_vl", "qwen3_vl_text"),
        ("system_notellm2_mllama", "llama"),
        ("system_notellm2_qwen_selfvl", "qwen"),
    ] {
        let home = home(system);
        let report = home.mlrm("inspect system --json --load").done().json();
        let parts = report["parts"].as_array().expect("parts");
        let names: Vec<&str> = parts
            .iter()
            .filter_map(|part| part["part"].as_str())
            .collect();
        assert_eq!(names, ["llm", "vision", "head"], "{system}");
        assert_eq!(parts[0]["family"], family);
        for part in parts {
            assert!(
                part["parameters"].as_u64().is_some_and(|n| n > 500),
                "{part}"
            );
            assert_eq!(
                part["mismatches"].as_array().map(Vec::len),
                Some(0),
                "{part}"
            );
        }
    }
}

/// Name of a stored tensor of a half as the half alone has it; `None` of what is not written.
fn of_half(system: &str, half: &str, stored: &str) -> Option<String> {
    let head = [
        "query_tokens",
        "qformer.",
        "attn_pool.",
        "ln_post.",
        "visual.proj",
    ];
    let visual = stored.strip_prefix("transformer.visual.");
    match (system, half) {
        ("system_blip2", "llm") => {
            let name = stored.strip_prefix("language_model.")?;
            (!name.starts_with("lm_head.")).then(|| name.to_owned())
        }
        ("system_blip2", _) => Some(stored.strip_prefix("vision_model.")?.to_owned()),
        ("system_qwen_vl", "vision") => {
            let own = visual.is_some() && !head.iter().any(|part| stored.contains(part));
            own.then(|| stored.to_owned())
        }
        ("system_qwen2_5_vl" | "system_qwen3_vl", "vision") => {
            let own = stored.strip_prefix("model.").unwrap_or(stored);
            let own = own.strip_prefix("visual.")?;
            (!own.contains("merger")).then(|| own.to_owned())
        }
        ("system_qwen3_vl", _) => {
            let own = stored.strip_prefix("model.language_model.")?;
            Some(format!("model.{own}"))
        }
        _ => {
            let decoder = ["model.", "transformer."];
            let own = visual.is_none() && decoder.iter().any(|part| stored.starts_with(part));
            own.then(|| stored.to_owned())
        }
    }
}

#[test]
fn the_halves_of_a_whole_model_are_exported_each_with_its_own_config() {
    for (system, classes) in [
        ("system_blip2", [Some("OPTModel"), Some("Blip2VisionModel")]),
        ("system_qwen_vl", [Some("QWenModel"), None]),
        ("system_notellm2_mllama", [Some("LlamaModel"), None]),
        (
            "system_qwen2_5_vl",
            [
                Some("Qwen2_5_VLTextModel"),
                Some("Qwen2_5_VisionTransformerPretrainedModel"),
            ],
        ),
        (
            "system_qwen3_vl",
            [Some("Qwen3VLTextModel"), Some("Qwen3VLVisionModel")],
        ),
    ] {
        let home = home(system);
        for file in ["generation_config.json", "preprocessor_config.json"] {
            home.write(&format!("system/{file}"), "{}");
        }
        let ran = home.mlrm("export system --out out");
        ran.done();
        ran.tells(&["in neither", "train.max_steps = 0"]);
        let stored = read(&home.path("system/model.safetensors"));
        for (half, class) in ["llm", "vision"].into_iter().zip(classes) {
            let folder = home.path("out").join(half);
            if system == "system_notellm2_mllama" && half == "vision" {
                assert!(!folder.exists() && ran.err.contains("does not describe a vision encoder"));
                continue;
            }
            let written = read(&folder.join("model.safetensors"));
            let expected = stored
                .iter()
                .filter_map(|(name, tensor)| Some((of_half(system, half, name)?, tensor.clone())));
            assert_eq!(written, expected.collect(), "{system}, {half}");
            assert!(written.len() > 8, "{system}, {half}");
            let config: serde_json::Value =
                serde_json::from_str(&home.read(format!("out/{half}/config.json"))).expect("JSON");
            assert_eq!(config["architectures"][0].as_str(), class, "{config}");
            assert!(config.get("visual").is_none(), "{config}");
            let shown = class.filter(|class| !class.starts_with("QWen"));
            assert!(shown.is_none_or(|class| ran.out.contains(class)), "{ran:?}");
            home.mlrm(format!("inspect out/{half}")).done();
        }
        assert!(
            home.path("out/llm/generation_config.json").is_file(),
            "{system}"
        );
        let pictures = home.path("out/vision/preprocessor_config.json").is_file();
        assert_eq!(pictures, system != "system_notellm2_mllama", "{system}");
    }
}

/// The connector of a whole model before another language model.
#[test]
fn a_connector_alone_is_a_start() {
    let home = home("system_blip2");
    let sets = "model.connector.path=system model.vision.path=system \
        model.vision.post_layernorm=true train.max_steps=0 eval.baselines=[]";
    home.train("run", sets).done();
    let stored = read(&home.path("system/model.safetensors"));
    let head = read(&home.path("run/model/head.safetensors"));
    let own = |name: &String| name.starts_with("qformer.") || name == "query_tokens";
    let mut compared = 0;
    for (name, tensor) in head.iter().filter(|(name, _)| own(name)) {
        assert_eq!(tensor.values(), stored[name].values(), "{name}");
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
    // The projector leads to this language model's width.
    assert_eq!(head["mm_projector.0.weight"].shape, [32, 12]);
    let train = "train tiny.toml --set run.dir=other --set model.connector.path=system --set";
    let kind = format!("{train} model.connector.kind=resampler");
    home.refused(&kind, &["model.connector.path", "QFormer", "Resampler"]);
    let width = format!("{train} model.vision.hidden_size=24");
    home.refused(&width, &["features of width 12", "gives 24"]);
}

#[test]
fn unknown_keys_of_the_connector_are_noted_refused_or_accepted() {
    let home = home("system_blip2");
    edit_config(&home, |config| {
        config["qformer_config"]["new_norm"] = false.into()
    });
    let report = home.mlrm("inspect system --json").done().json();
    let notes = report["parts"][2]["notes"].to_string();
    assert!(
        notes.contains("`qformer_config.new_norm` = false is unknown and off"),
        "{notes}"
    );
    edit_config(&home, |config| {
        config["qformer_config"]["surprise"] = 3.into();
        config["qformer_config"]["other"] = "on".into();
        config["text_config"]["odd"] = 2.into();
    });
    // All of them in one message, each with its setting.
    let words = [
        "`qformer_config.surprise` = 3",
        "`qformer_config.other` = \"on\"",
        "model.connector.accept_keys = [\"surprise\",\"other\"]",
        "`text_config.odd` = 2",
        "model.llm.accept_keys = [\"odd\"]",
    ];
    home.refused("inspect system", &words);
    let accepted = "inspect system --accept-keys odd,other,surprise";
    home.mlrm(accepted).done();
    let sets =
        overrides("system_blip2", 0) + " model.connector.accept_keys=[\"other\",\"surprise\"]";
    home.train("run", format!("{sets} model.llm.accept_keys=[\"odd\"]"))
        .done();
    home.refused(
        training("tiny.toml", "other", sets),
        &["`text_config.odd` = 2"],
    );
}

/// A spoilt copy is refused by training, and nothing is written.
fn refused(system: &str, spoil: impl FnOnce(&Home), words: &[&str]) {
    let home = home(system);
    // Also draws the notes, which refused runs leave behind.
    train(&home, system, 0);
    spoil(&home);
    home.refused(training("tiny.toml", "other", overrides(system, 1)), words);
}

/// As [`refused`], for spoilt weights.
fn refused_weights(system: &str, spoil: impl FnOnce(&mut Tensors), words: &[&str]) {
    let weights = |home: &Home| home.path("system/model.safetensors");
    refused(system, |home| edit(&weights(home), spoil), words);
}

fn edit_config(home: &Home, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = home.path("system/config.json");
    let text = fs::read_to_string(&path).expect("a config");
    let mut config = serde_json::from_str(&text).expect("JSON");
    edit(&mut config);
    fs::write(&path, config.to_string()).expect("a file");
}

#[test]
fn tensors_that_do_not_fit_are_named_as_they_are_stored() {
    refused_weights(
        "system_blip2",
        |tensors| {
            let norm = tensors.remove("qformer.layernorm.weight");
            norm.expect("a tensor");
        },
        &["missing: `qformer.layernorm.weight`", "model.safetensors"],
    );
    refused_weights(
        "system_blip2",
        |tensors| {
            tensors.insert("itm_head.weight".into(), RawTensor::of(&[2], &[0.0; 2]));
        },
        &["`itm_head.weight`", "no place in a blip-2 model"],
    );
    refused_weights(
        "system_blip2",
        |tensors| {
            let wide = RawTensor::of(&[3, 12], &[0.5; 36]);
            tensors.insert("language_projection.weight".into(), wide);
        },
        &["wrong shape", "`language_projection.weight`", "[3, 12]"],
    );
    let query = "transformer.visual.attn_pool.query";
    refused_weights(
        "system_qwen_vl",
        |tensors| {
            let nan = RawTensor::of(&[9, 12], &[f32::NAN; 108]);
            tensors.insert(query.into(), nan);
        },
        &["not finite", &format!("`{query}`"), "--allow-nan"],
    );
    refused_weights(
        "system_notellm2_mllama",
        |tensors| {
            tensors.remove("gate.trans_all.weight").expect("a tensor");
        },
        &["missing: `gate.trans_all.weight`"],
    );
}

#[test]
fn configs_that_say_something_else() {
    let with = |section: &'static str, key: &'static str, value: &'static str| {
        move |home: &Home| edit_config(home, |config| config[section][key] = value.into())
    };
    refused(
        "system_blip2",
        with("text_config", "model_type", "t5"),
        &["text_config.model_type", "t5", "opt"],
    );
    refused(
        "system_blip2",
        with("qformer_config", "hidden_act", "relu"),
        &["qformer_config.hidden_act", "only gelu is"],
    );
    refused_weights(
        "system_notellm2_mllama",
        |tensors| {
            tensors.remove("temperature").expect("a tensor");
        },
        &["no whole multimodal model", "Qwen-VL"],
    );
    let home = home("system_blip2");
    train(&home, "system_blip2", 0);
    let train = "train tiny.toml --set run.dir=other --set model.checkpoint=system --set";
    for (key, words) in [
        ("model.llm.path=system", "model.llm.path"),
        ("model.path=system", "model.path"),
    ] {
        let arguments = format!("{train} {key}");
        home.refused(&arguments, &["model.checkpoint", words, "leave out one"]);
    }
    let arguments = format!("{train} model.vision.path=system");
    home.refused(&arguments, &["model.vision.path", "its own vision encoder"]);
}

/// The first files of Qwen2.5-VL hold the keys of the language model beside the section of the tower.
#[test]
fn a_flat_config_of_qwen2_5_vl_means_the_same() {
    let home = home("system_qwen2_5_vl");
    let parts = || {
        let report = home.mlrm("inspect system --json").done().json();
        report["parts"].clone()
    };
    let sectioned = parts();
    edit_config(&home, |config| {
        let text = config["text_config"].take();
        for (key, value) in text.as_object().expect("keys") {
            if key != "model_type" {
                config[key] = value.clone();
            }
        }
        let keys = config.as_object_mut().expect("keys");
        keys.remove("text_config");
        keys.remove("rope_parameters");
        keys.insert("rope_theta".into(), 10_000.0.into());
        let rope = serde_json::json!({"type": "mrope", "mrope_section": [1, 2, 3]});
        keys.insert("rope_scaling".into(), rope);
    });
    assert_eq!(parts(), sectioned);
}

/// What a run can say of the size of pictures, and where it cannot.
#[test]
fn pictures_are_of_the_size_that_the_run_allows() {
    let home = home("system_qwen3_vl");
    train(&home, "system_qwen3_vl", 0);
    let written = home.read("run/model/mlrm.toml");
    // Three blocks of 8 pixels each way.
    assert!(written.contains("image_size = 24"), "{written}");
    assert!(written.contains("grid = 3"), "{written}");
    // Without a step a model that was written gives what it gave.
    let embed = |model: &str, out: &str| {
        home.embed(model, out);
        read(&home.path(out))["embeddings"].values()
    };
    let first = embed("run", "a.safetensors");
    home.mlrm("export run --out copy").done();
    assert_eq!(embed("copy", "b.safetensors"), first);
    home.refused(
        "train tiny.toml --set run.dir=other --set model.vision.max_pixels=900",
        &["model.vision.max_pixels", "leave the key out"],
    );
    home.refused("export run --python python", &["--python", "merger"]);
}

#[test]
fn the_guides_first_config_of_a_whole_model_works_as_it_is_printed() {
    let home = Home::trained();
    let config = &printed("whole-models.md", "toml")[0];
    assert!(
        config.contains("checkpoint = \"models/blip2-opt-2.7b\""),
        "{config}"
    );
    home.write("blip2.toml", config);
    let folder = home.path("models/blip2-opt-2.7b");
    fs::create_dir_all(home.path("models")).expect("a folder");
    copy_folder(&golden_cases().join("system_blip2/system"), &folder);
    let tokenizer = home.path("run/model/llm/tokenizer.json");
    fs::copy(tokenizer, folder.join("tokenizer.json")).expect("a tokenizer");
    // The page says nothing of data; the rest is what a model of a few positions needs.
    let sets = "data.root=data data.pairs.min_users=2 data.pairs.test_fraction=0.25 \
        data.pairs.test_targets=all prompt.content_chars=16 prompt.topics=1 \
        prompt.max_tokens=60 eval.baselines=[]";
    home.mlrm(training("blip2.toml", "blip2", sets)).done();
    assert!(home.path("blip2/model/llm/tokenizer.json").is_file());
}
