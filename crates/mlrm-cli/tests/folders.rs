//! `mlrm inspect` and `mlrm export` on every golden case and on a trained model: what is written is
//! what was read, bit for bit.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;
use support::{Home, TINY, golden_cases, golden_parts, training, without_tokenizer};
use tensors::{Tensors, copy_folder, read};

/// The tensors of a folder, whether in one file or in shards.
fn all_tensors(folder: &Path) -> Tensors {
    let mut all = Tensors::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            all.extend(read(&path));
        }
    }
    all
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn every_family_survives_export_and_import_bit_for_bit() {
    let home = Home::empty();
    for part in golden_parts() {
        let source = text(&part);
        let export = |from: &str, to: &str, options: &str| {
            home.mlrm(format!("export {from} --out {to} {options}"))
                .done();
        };
        export(&source, "sharded", "--shard-size 4kB");
        export("sharded", "single", "");
        export("single", "again", "");
        let (original, sharded) = (all_tensors(&part), all_tensors(&home.path("sharded")));
        assert!(
            home.path("sharded/model.safetensors.index.json").is_file(),
            "{source}"
        );
        let report = home.mlrm(format!("inspect {source} --json")).done().json();
        let ignored = report["parts"][0]["ignored"]
            .as_array()
            .expect("a list")
            .clone();
        let ignored: Vec<&str> = ignored.iter().filter_map(|t| t["name"].as_str()).collect();
        // A checkpoint may be without the prefix that is written.
        for (name, tensor) in &original {
            let mut found = sharded
                .iter()
                .filter(|(n, _)| *n == name || n.ends_with(&format!(".{name}")));
            match found.next() {
                Some((_, written)) => assert_eq!(written, tensor, "{source} {name}"),
                None => assert!(ignored.contains(&name.as_str()), "{source} {name}"),
            }
        }
        assert_eq!(sharded.len() + ignored.len(), original.len(), "{source}");
        assert_eq!(sharded, all_tensors(&home.path("single")), "{source}");
        for file in ["model.safetensors", "config.json"] {
            let [a, b] =
                ["single", "again"].map(|f| fs::read(home.path(f).join(file)).expect("a file"));
            assert_eq!(a, b, "{source} {file}");
        }
        for folder in ["sharded", "single", "again"] {
            fs::remove_dir_all(home.path(folder)).expect("a folder");
        }
    }
}

#[test]
fn a_trained_model_is_exported_whole() {
    let home = Home::trained();
    home.mlrm("export run --out copy --shard-size 20kB").done();
    assert_eq!(home.embed("run", "a.npy"), home.embed("copy", "b.npy"));
    for part in ["llm", "vision"] {
        let (run, copy) = (
            home.path("run/model").join(part),
            home.path("copy").join(part),
        );
        assert_eq!(all_tensors(&run), all_tensors(&copy));
        assert!(copy.join("model.safetensors.index.json").is_file());
        assert_eq!(json(&copy.join("config.json"))["torch_dtype"], "float32");
    }
    for file in [
        "mlrm.toml",
        "llm/tokenizer.json",
        "llm/tokenizer_config.json",
        "vision/preprocessor_config.json",
        "head.safetensors",
    ] {
        let [a, b] =
            ["run/model", "copy"].map(|f| fs::read(home.path(f).join(file)).expect("a file"));
        assert_eq!(a, b, "{file}");
    }

    // Half the size, and the same again when it is read.
    home.mlrm("export copy --out half --dtype bf16").done();
    assert!(
        all_tensors(&home.path("half/llm"))
            .values()
            .all(|t| t.dtype == Dtype::BF16)
    );
    assert_eq!(
        json(&home.path("half/llm/config.json"))["torch_dtype"],
        "bfloat16"
    );
    home.mlrm("export half --out half2").done();
    assert_eq!(
        all_tensors(&home.path("half/llm")),
        all_tensors(&home.path("half2/llm"))
    );
    home.mlrm("embed half --notes data/notes.jsonl --out half.npy")
        .done();

    // A part alone is a part of a config.
    home.mlrm("export run/model/llm --out alone").done();
    assert!(home.path("alone/tokenizer.json").is_file());
    home.write("parts.toml", without_tokenizer(TINY));
    let sets = "model.llm.path=alone train.max_steps=1";
    home.mlrm(training("parts.toml", "run2", sets)).done();

    home.refused("export run --out copy", &["--out", "copy is there already"]);
    home.refused(
        "export data --out x",
        &["data: neither a model folder", "config.json"],
    );
    for wrong in ["0", "2 apples"] {
        let command = ["export", "run", "--out", "x", "--shard-size", wrong];
        home.mlrm(command)
            .failed_with(2, &["--shard-size", "500MB"]);
    }
}

#[test]
fn inspect_tells_sizes_formats_and_memory() {
    let home = Home::trained();
    let report = home
        .mlrm("inspect run --json --load --batch-pairs 8")
        .done()
        .json();
    let parts = report["parts"].as_array().expect("a list");
    let names: Vec<&str> = parts
        .iter()
        .filter_map(|part| part["part"].as_str())
        .collect();
    assert_eq!(names, ["llm", "vision", "head"]);
    for part in parts {
        assert_eq!(part["mismatches"], serde_json::json!([]));
        assert_eq!(part["files"], 1);
        assert_eq!(
            part["bytes"].as_u64(),
            part["parameters"].as_u64().map(|n| 4 * n)
        );
        let path = Path::new(part["path"].as_str().expect("a path"));
        let file = home.path(path);
        let tensors = if file.is_dir() {
            all_tensors(&file)
        } else {
            read(&file)
        };
        let values: usize = tensors
            .values()
            .map(|t| t.shape.iter().product::<usize>())
            .sum();
        assert_eq!(part["parameters"], values);
        assert_eq!(part["formats"]["F32"], tensors.len());
    }
    assert_eq!(parts[0]["family"], "qwen2");
    assert_eq!(parts[0]["sizes"]["hidden_size"], 32);
    assert_eq!(parts[1]["family"], "clip_vision_model");
    assert_eq!(parts[1]["sizes"]["patch_size"], 16);
    assert_eq!(report["tokenizer"]["tokens"], report["tokenizer"]["rows"]);

    let training = &report["training"];
    assert_eq!(
        (&training["dtype"], &training["batch_pairs"]),
        (&"f32".into(), &8.into())
    );
    // The paper's 140 tokens of text and two visual tokens.
    assert_eq!(training["positions"], 142);
    let estimates = training["estimates"].as_array().expect("a list");
    let trained = |index: usize| {
        estimates[index]["trained_parameters"]
            .as_u64()
            .expect("a number")
    };
    let parameters = |index: usize| parts[index]["parameters"].as_u64().expect("a number");
    assert_eq!(
        estimates.iter().map(|e| &e["tune"]).collect::<Vec<_>>(),
        ["full", "lora", "frozen"]
    );
    assert_eq!(trained(0), parameters(0) + parameters(2));
    assert_eq!(trained(2), parameters(2));
    // Seven maps in each of two layers: q, o, k, v, gate, up, down; rank 8.
    let maps = (32 + 32) + (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64);
    assert_eq!(trained(1) - trained(2), 2 * 8 * maps);
    for estimate in estimates {
        let bytes = |key: &str| estimate[key].as_u64().expect("a number");
        // What is held, and the largest of what takes turns: activations and gradients do.
        let held = [
            "program_bytes",
            "loader_bytes",
            "weights_bytes",
            "optimiser_bytes",
        ];
        let held: u64 = held.iter().map(|key| bytes(key)).sum();
        assert_eq!(bytes("total_bytes"), held + bytes("largest_at_work_bytes"));
        for key in [
            "gradients_bytes",
            "activations_bytes",
            "pictures_bytes",
            "probe_bytes",
            "evaluation_bytes",
            "saving_bytes",
        ] {
            assert!(bytes("largest_at_work_bytes") >= bytes(key), "{key}");
        }
    }
    let loaded = &report["loaded"];
    let all: u64 = (0..3).map(parameters).sum();
    assert_eq!(loaded["parameter_bytes"], 4 * all);
    assert!(
        loaded["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );

    let table = home.mlrm("inspect run/model/llm").done().out.clone();
    for word in [
        "llm (qwen2)",
        "hidden_size 32",
        "full",
        "lora 8",
        "frozen",
        "tokenizer:",
    ] {
        assert!(table.contains(word), "no `{word}` in {table}");
    }
    let table = home.mlrm("inspect run/model/vision").done().out.clone();
    assert!(table.contains("vision (clip_vision_model)"), "{table}");
}

#[test]
fn inspect_lists_what_does_not_fit() {
    let home = Home::trained();
    let source = golden_cases().join("qwen2_notellm2/llm");
    copy_folder(&source, &home.path("llm"));
    let shown = home.mlrm("inspect llm").done().out.clone();
    assert!(
        shown.contains("ignored: `lm_head.weight`: no LM head is ever computed"),
        "{shown}"
    );
    let config = home.read("llm/config.json");
    let wrong = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    home.write(
        "llm/config.json",
        wrong.replace("\"vocab_size\": 96", "\"vocab_size\": 99"),
    );
    let ran = home.refused("inspect llm", &["llm: weights and config do not fit"]);
    for word in [
        "missing: `model.layers.2.input_layernorm.weight` [16]",
        "wrong shape: `model.embed_tokens.weight` is [96, 16], the config means [99, 16]",
    ] {
        assert!(ran.out.contains(word), "no `{word}` in {ran:?}");
    }
    let ran = home.refused("inspect llm --json --load", &["do not fit"]);
    let missing = ran.json()["parts"][0]["mismatches"]
        .as_array()
        .map(Vec::len);
    assert!(missing.is_some_and(|count| count > 10), "{ran:?}");
    assert_eq!(ran.json()["loaded"], Value::Null);
}

/// DINOv2's `config.json` tells which pictures its positions were made for, its preprocessor which it reads.
#[test]
fn positions_stretch_to_the_pictures_that_the_preprocessor_gives() {
    let home = Home::with_config();
    copy_folder(
        &golden_cases().join("../published/dinov2-small"),
        &home.path("dino"),
    );
    let pictures = |resized: u32, cropped: u32| {
        let mut keys = json(&home.path("dino/preprocessor_config.json"));
        keys["size"]["shortest_edge"] = resized.into();
        keys["crop_size"] = serde_json::json!({"height": cropped, "width": cropped});
        home.write("dino/preprocessor_config.json", keys.to_string());
    };
    let train = |run: &str, set: &str| {
        let sets = "train.max_steps=1 eval.baselines=[] model.vision.path=dino \
            model.connector.kind=mlp";
        home.train(run, format!("{sets} {set}"))
    };
    pictures(16, 12);
    train("run", "").done();
    let manifest = home.read("run/model/mlrm.toml");
    assert!(manifest.contains("\nimage_size = 12\n"), "{manifest}");
    // Three by three patches behind the class token.
    assert!(manifest.contains("\npositions = 10\n"), "{manifest}");
    assert_eq!(
        json(&home.path("run/model/vision/config.json"))["image_size"],
        20
    );
    home.mlrm("export run --out copy").done();
    assert_eq!(home.embed("run", "a.npy"), home.embed("copy", "b.npy"));
    train("again", "model.path=run/model").done();

    // The size that positions are stored for needs no word in the manifest.
    pictures(20, 20);
    train("stored", "").done();
    let manifest = home.read("stored/model/mlrm.toml");
    assert!(!manifest.contains("image_size"), "{manifest}");

    // Less than a patch.
    pictures(4, 3);
    train("none", "").failed_with(1, &["model.vision.image_size", "3 by 3 pixels"]);
}

/// What the config asks of pictures is what a folder whose file says the same gives, and it goes with the model.
#[test]
fn the_size_and_shape_of_pictures_can_be_set() {
    let home = Home::with_config();
    let published = golden_cases().join("../published/dinov2-small");
    let folder = |name: &str, keys: Value| {
        copy_folder(&published, &home.path(name));
        let file = home.path(format!("{name}/preprocessor_config.json"));
        let mut all = json(&file);
        for (key, value) in keys.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        home.write(&format!("{name}/preprocessor_config.json"), all.to_string());
    };
    let square = |side: u32| serde_json::json!({"height": side, "width": side});
    let edge = |side: u32| serde_json::json!({"shortest_edge": side});
    folder(
        "dino",
        serde_json::json!({"size": edge(24), "crop_size": square(20)}),
    );
    folder(
        "cut",
        serde_json::json!({"size": edge(15), "crop_size": square(12)}),
    );
    folder(
        "whole",
        serde_json::json!({"size": square(12), "do_center_crop": false}),
    );
    let train = |run: &str, vision: &str, set: &str| {
        let sets = "train.max_steps=1 eval.baselines=[] model.connector.kind=mlp model.vision.path";
        home.train(run, format!("{sets}={vision} {set}"))
    };
    for (run, vision, set) in [
        ("said", "cut", ""),
        ("set", "dino", "model.vision.input_size=12"),
        ("squash-said", "whole", ""),
        (
            "squash",
            "dino",
            "model.vision.input_size=12 model.vision.resize_mode=squash",
        ),
        ("back", "whole", "model.vision.resize_mode=shortest"),
        ("full", "dino", "model.vision.resize_mode=squash"),
    ] {
        train(run, vision, set).done();
    }
    let of = |run: &str| home.embed(run, &format!("{run}.npy"));
    assert_eq!(of("said"), of("set"));
    assert_eq!(of("squash-said"), of("squash"));
    assert_ne!(of("set"), of("squash"));
    for (run, size, crop) in [
        ("set", edge(15), Some(square(12))),
        ("squash", square(12), None),
        ("back", edge(12), Some(square(12))),
        ("full", square(20), None),
    ] {
        let keys = json(&home.path(format!("{run}/model/vision/preprocessor_config.json")));
        assert_eq!(keys["size"], size, "{run}");
        assert_eq!(keys.get("crop_size").cloned(), crop, "{run}");
        assert_eq!(keys["do_center_crop"], crop.is_some(), "{run}");
    }
    let small = train("none", "dino", "model.vision.input_size=2");
    small.failed_with(
        1,
        &["model.vision.input_size = 2", "a patch is 4 by 4 pixels"],
    );
    let clip = golden_cases().join("qwen2_notellm2/vision");
    let fixed = train(
        "none",
        &clip.display().to_string(),
        "model.vision.input_size=16",
    );
    fixed.failed_with(1, &["model.vision.input_size = 16", "leave the key out"]);
    let scratch = home.train("none", "train.max_steps=1 model.vision.input_size=12");
    assert!(
        scratch
            .done()
            .err
            .contains("`model.vision.image_size` decides"),
        "{scratch:?}"
    );
}
