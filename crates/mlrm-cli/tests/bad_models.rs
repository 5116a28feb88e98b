//! Model folders that are broken or not implemented, and files that are not there: refused with the
//! file and the tensor or option named, and nothing made or changed.

#[path = "support/spoil.rs"]
mod spoil;
mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use spoil::{Model, edit_json, truncate};
use support::{Home, training};
use tensors::{RawTensor, edit};

#[test]
fn weights_that_do_not_fit() {
    let model = Model::new();
    let head = |folder: &Path| folder.join("head.safetensors");
    for bytes in [0, 4, 300, 50_000] {
        model.refused(
            |folder| truncate(&head(folder), bytes),
            &["model/head.safetensors"],
        );
    }
    let llm = "model/llm/model.safetensors";
    model.refused(
        |folder| truncate(&folder.join("llm/model.safetensors"), 9_000),
        &[llm],
    );
    model.refused(
        |folder| fs::remove_file(head(folder)).expect("a head"),
        &["head.safetensors"],
    );
    model.refused(
        |folder| {
            edit(&head(folder), |tensors| {
                let tensor = RawTensor::of(&[24, 32], &[0.0; 24 * 32]);
                tensors.insert("linear.weight".into(), tensor);
            });
        },
        &[
            "model/head.safetensors",
            "linear.weight",
            "[24, 32]",
            "[16, 32]",
        ],
    );
    model.refused(
        |folder| {
            edit(&head(folder), |tensors| {
                tensors.insert("gate.extra".into(), RawTensor::of(&[1], &[0.0]));
            });
        },
        &["model/head.safetensors", "gate.extra"],
    );
    model.refused(
        |folder| {
            edit(&head(folder), |tensors| {
                tensors.remove("query_tokens").expect("a tensor");
            });
        },
        &["model/head.safetensors", "query_tokens", "missing"],
    );
}

#[test]
fn model_configs_that_are_not_implemented() {
    let model = Model::new();
    let llm = "model/llm/config.json";
    let set = |key: &'static str, value: Value| {
        move |folder: &Path| {
            edit_json(&folder.join("llm/config.json"), |config| {
                config[key] = value
            });
        }
    };
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    model.refused(set("rope_scaling", yarn), &[llm, "rope_scaling", "yarn"]);
    model.refused(
        set("model_type", "mamba".into()),
        &[llm, "model_type", "mamba", "qwen3"],
    );
    model.refused(
        set("hidden_act", "relu".into()),
        &[llm, "hidden_act", "relu"],
    );
    model.refused(set("hidden_size", 48.into()), &["48"]);
    let vision = |folder: &Path| {
        let path = folder.join("vision/config.json");
        edit_json(&path, |config| config["hidden_act"] = "relu".into());
    };
    model.refused(vision, &["model/vision/config.json", "hidden_act", "relu"]);
    for file in [
        "llm/config.json",
        "vision/config.json",
        "llm/tokenizer.json",
        "mlrm.toml",
    ] {
        let place = format!("model/{file}");
        model.refused(
            |folder| fs::write(folder.join(file), "{").expect("a file"),
            &[&place],
        );
        if file == "mlrm.toml" {
            continue;
        }
        model.refused(
            |folder| fs::remove_file(folder.join(file)).expect("a file"),
            &[&place],
        );
    }
    for (right, wrong, says) in [
        (
            "variant = \"notellm2\"",
            "variant = \"notellm3\"",
            "notellm3",
        ),
        ("format = 1", "format = 9", "format 9"),
        ("[provenance]", "[provenance]\ncolour = 1", "colour"),
        ("head_dim = 16", "head_dim = 24", "linear.weight"),
    ] {
        let spoil = |folder: &Path| {
            let path = folder.join("mlrm.toml");
            let text = fs::read_to_string(&path).expect("a file");
            assert!(text.contains(right), "{text}");
            fs::write(path, text.replace(right, wrong)).expect("a file");
        };
        model.refused(spoil, &["model/", says]);
    }
}

#[test]
fn sizes_that_no_machine_can_hold() {
    let model = Model::new();
    let llm = "model/llm/config.json";
    for (key, value) in [
        ("vocab_size", 4_000_000_000_u64),
        ("hidden_size", 1_000_000_000_000),
        ("intermediate_size", u64::MAX),
        ("num_hidden_layers", 1_000_000_000),
        ("num_attention_heads", 1 << 40),
    ] {
        let set = |folder: &Path| {
            let path = folder.join("llm/config.json");
            edit_json(&path, |config| config[key] = value.into());
        };
        model.refused(set, &[llm, &format!("`{key}`"), "at most"]);
    }
    for (key, value) in [
        ("image_size", 1_000_000_000_u64),
        ("num_hidden_layers", 1 << 50),
    ] {
        let set = |folder: &Path| {
            let path = folder.join("vision/config.json");
            edit_json(&path, |config| config[key] = value.into());
        };
        let words = [
            "model/vision/config.json",
            &format!("`{key}`") as &str,
            "at most",
        ];
        model.refused(set, &words);
    }

    let home = &model.home;
    for (key, value) in [
        ("model.llm.hidden_size", "1000000000000"),
        ("model.llm.num_hidden_layers", "1000000000"),
        ("model.llm.lora.rank", "1000000000000"),
        ("model.vision.image_size", "1000000000"),
        ("model.connector.hidden_size", "1000000000000"),
        ("model.head.dim", "1000000000000"),
    ] {
        let train = training("tiny.toml", "big", format!("{key}={value}"));
        home.refused(train, &[key, "out of range"]);
    }
    // Each within its bounds, together more than any machine has.
    let sets = "model.llm.vocab_size=9000000 model.llm.hidden_size=1048576";
    home.refused(
        training("tiny.toml", "big", sets),
        &["weights of this model", "`vocab_size` = 9000000", "GiB"],
    );
    assert!(!home.path("big").exists());
}

#[test]
fn a_model_whose_tokenizer_is_broken_is_not_exported() {
    let home = Home::trained();
    // As a folder that others wrote: what is wrong has to be seen in the files themselves.
    fs::remove_file(home.path("run/model/checksums.json")).expect("checksums");
    let export = "export run --out copy";
    let path = home.path("run/model/llm/tokenizer.json");
    let sound = fs::read_to_string(&path).expect("a tokenizer");
    fs::write(&path, "{").expect("a file");
    home.refused(export, &["tokenizer.json"]);
    fs::write(&path, sound).expect("a file");
    edit_json(&path, |file| file["model"]["vocab"]["far"] = 50_000.into());
    home.refused(export, &["50001 tokens", "rows"]);
    assert!(!home.path("copy").exists());
}

#[test]
fn models_and_files_that_are_not_there() {
    let home = Home::trained();
    fs::create_dir(home.path("empty")).expect("a folder");
    for command in ["eval", "saliency"] {
        home.refused(
            format!("{command} empty"),
            &["empty is neither a model folder", "run folder"],
        );
        home.refused(
            format!("{command} absent"),
            &["absent is neither a model folder"],
        );
    }
    home.refused(
        "embed run --notes data/notes.jsonl --out x.txt",
        &["x.txt", ".parquet", ".npy", ".safetensors"],
    );
    home.refused(
        "embed run --notes absent.jsonl --out x.npy",
        &["absent.jsonl"],
    );
    home.refused("embed empty --notes n --out x.npy", &["empty"]);
    home.refused("similar absent.npy --id a", &["absent.npy"]);
    home.refused(
        "eval run --set data.pairs.test_fraction=0",
        &["test_fraction"],
    );
    home.refused("eval run --set eval.kk=[1]", &["eval.kk"]);

    home.write("file", "");
    home.refused(
        "train tiny.toml --set run.dir=file",
        &["cannot create file"],
    );

    let few = "model.variant=text train.max_steps=1 eval.baselines=[]";
    home.train("text", few).done();
    let visual = "embed text --notes data/notes.jsonl --out x.npy --visual";
    home.refused(visual, &["--visual", "`text` has no visual embeddings"]);
}
