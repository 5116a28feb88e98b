//! Every family of decoders through the binary: it trains, what it writes it reads again, and what
//! it does not implement it refuses by name.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Home, TINY, golden_cases, training};
use tensors::{copy_folder, edit};

const FAMILIES: [&str; 11] = [
    "llama",
    "mistral",
    "qwen",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "smollm3",
    "granite",
    "opt",
];

/// A config for one step of `family`, whose heads are plain so that every family takes them.
fn config(family: &str) -> String {
    let llm = format!("[model.llm]\nfamily = \"{family}\"\nmax_position_embeddings = 200");
    TINY.replace("num_key_value_heads = 1\n", "")
        .replace("[model.llm]", &llm)
        .replace("max_steps = 6", "max_steps = 1")
        .replace("_every_steps = 3", "_every_steps = 0")
}

#[test]
fn every_family_trains_and_its_folder_is_read_and_written_without_a_change() {
    let home = Home::empty();
    let mut losses = Vec::new();
    for family in FAMILIES {
        home.write("family.toml", config(family));
        let train = |run: &str, sets: &str| {
            let sets = format!("eval.baselines=[] {sets}");
            home.mlrm(training("family.toml", run, sets)).done();
        };
        train(family, "");
        let path = format!("model.llm.path={family}/model/llm");
        let again = format!("{family}-again");
        train(&again, &format!("{path} model.llm.tune=frozen"));
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let read =
                |run: &str| fs::read(home.path(run).join("model/llm").join(file)).expect(file);
            assert!(read(family) == read(&again), "{family}: {file} changed");
        }
        let kind = home.json(&format!("{family}/model/llm/config.json"));
        assert_eq!(kind["model_type"], family);
        losses.push(support::losses(&support::events(&home, family))[&1].clone());
    }
    // From scratch Mistral has no window, Granite no multipliers, and of two layers SmolLM 3 leaves none
    // without positions: they are Llama. Every other family computes or draws something of its own.
    for llama in ["granite", "smollm3", "mistral"] {
        let index = FAMILIES.iter().position(|f| *f == llama).expect("a family");
        assert_eq!(losses.remove(index), losses[0], "{llama}");
    }
    for (index, loss) in losses.iter().enumerate() {
        assert!(!losses[..index].contains(loss), "{losses:?}");
    }
}

/// Other tools cut a model by `num_hidden_layers` in its config.json, and pass over the tensors behind.
#[test]
fn the_first_layers_alone_are_those_of_a_folder_that_was_cut_by_hand() {
    let home = Home::empty();
    for family in ["llama", "qwen", "gemma2", "opt"] {
        home.write("family.toml", config(family));
        let train = |run: &str, sets: &str| {
            let sets = format!("eval.baselines=[] {sets}");
            home.mlrm(training("family.toml", run, sets)).done();
        };
        train(family, "");
        let whole = format!("model.llm.path={family}/model/llm");
        train("kept", &format!("{whole} model.llm.keep_layers=1"));

        copy_folder(&home.path(family).join("model/llm"), &home.path("cut"));
        edit(&home.path("cut/model.safetensors"), |tensors| {
            let all = tensors.len();
            tensors.retain(|name, _| !name.contains("layers.1.") && !name.contains("h.1."));
            assert!(tensors.len() < all, "{family}");
        });
        let file = home.path("cut/config.json");
        set(&file, "num_hidden_layers", json!(1));
        let kinds = home.json("cut/config.json")["layer_types"][0].clone();
        assert_eq!(kinds.is_null(), family != "gemma2");
        if !kinds.is_null() {
            set(&file, "layer_types", json!([kinds]));
        }
        train("by-hand", "model.llm.path=cut");
        for file in ["config.json", "model.safetensors"] {
            let read = |run: &str| fs::read(home.path(run).join("model/llm").join(file));
            let (kept, cut) = (read("kept").expect(file), read("by-hand").expect(file));
            assert!(kept == cut, "{family}: {file}");
        }
        home.refused(
            format!("train family.toml --set {whole} --set model.llm.keep_layers=3"),
            &["model.llm.keep_layers = 3", "2 layers", "1 to 2"],
        );
        for folder in [family, "kept", "cut", "by-hand"] {
            fs::remove_dir_all(home.path(folder)).expect("a folder");
        }
    }
    let text = config("llama").replace("[model.llm]", "[model.llm]\nkeep_layers = 1");
    home.write("scratch.toml", text);
    let says = "`model.llm.keep_layers` is set but not read: from scratch `model.llm.num_hidden_layers` decides";
    home.mlrm("config check scratch.toml").done().tells(&[says]);
}

#[test]
fn input_longer_than_the_learnt_positions_is_refused_before_anything_is_written() {
    let home = Home::empty();
    let text = config("opt").replace("embeddings = 200", "embeddings = 100");
    home.write("family.toml", text);
    home.mlrm("train family.toml --set prompt.max_tokens=100 --set run.dir=short")
        .done();
    home.refused(
        "train family.toml --set prompt.max_tokens=101",
        &[
            "101 positions",
            "the 100 of this `opt` model",
            "prompt.max_tokens",
        ],
    );
}

#[test]
fn sizes_that_a_family_does_not_have() {
    let home = Home::empty();
    for family in ["qwen", "opt"] {
        let text =
            config(family).replace("[model.vision]", "num_key_value_heads = 1\n[model.vision]");
        home.write("bad.toml", text);
        let says = format!("`{family}` has a key/value head for each of its 2 query heads");
        home.refused("train bad.toml", &["num_key_value_heads", &says]);
    }
    let odd = config("qwen").replace("intermediate_size = 64", "intermediate_size = 63");
    home.write("bad.toml", odd);
    home.refused(
        "train bad.toml",
        &["model.llm.intermediate_size", "62 or 64"],
    );
    let unread = config("opt").replace("[model.llm]", "[model.llm]\nrope_theta = 500.0");
    home.write("odd.toml", unread);
    let ran = home.mlrm("config check odd.toml");
    let says = "`model.llm.rope_theta` is set but not read: `opt` has learnt positions";
    ran.done().tells(&[says]);
}

/// A golden case with one key of its `llm/config.json` set; verifying it is refused with `words`.
#[track_caller]
fn refused(home: &Home, case: &str, key: &str, value: Value, words: &[&str]) {
    let folder = home.path("case");
    copy_folder(&golden_cases().join(case), &folder);
    set(&folder.join("llm/config.json"), key, value);
    let place = ["case/llm/config.json", key];
    home.refused("verify case", &[&place, words].concat());
    fs::remove_dir_all(folder).expect("a folder");
}

fn set(path: &Path, key: &str, value: Value) {
    let text = fs::read_to_string(path).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config[key] = value;
    fs::write(path, config.to_string()).expect("a file");
}

#[test]
fn options_that_are_not_implemented_are_refused_by_name() {
    let home = Home::empty();
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0});
    let no_factor = json!({"rope_type": "linear", "rope_theta": 10000.0});
    let windowed = json!(["full_attention", "sliding_attention"]);
    let not = "is not implemented";
    for (case, key, value, words) in [
        (
            "llama_text_linear",
            "rope_parameters",
            yarn,
            ["yarn", "llama3"],
        ),
        (
            "llama_text_linear",
            "rope_parameters",
            no_factor,
            ["factor", "positive"],
        ),
        (
            "llama_text_linear",
            "pretraining_tp",
            json!(4),
            [not, "only 1"],
        ),
        (
            "mistral_basic_window",
            "attention_bias",
            json!(true),
            [not, "accept_keys = [\"attention_bias\"]"],
        ),
        (
            "qwen2_notellm2",
            "use_sliding_window",
            json!(true),
            [not, "full attention"],
        ),
        (
            "qwen3_latefusion",
            "layer_types",
            windowed,
            [not, "full_attention"],
        ),
        (
            "opt_micl_ragged",
            "activation_function",
            json!("gelu"),
            [not, "relu"],
        ),
        ("qwen_text", "rotary_pct", json!(0.5), [not, "only 1"]),
        (
            "qwen_text",
            "kv_channels",
            json!(4),
            ["`hidden_size` = 12", "heads"],
        ),
    ] {
        refused(&home, case, key, value, &words);
    }
    // Long enough for the config, too short for the prompts of the case.
    let case = home.path("case");
    for (name, key, words) in [
        (
            "qwen_text",
            "seq_length",
            ["11 positions", "`use_dynamic_ntk`"],
        ),
        (
            "opt_micl_ragged",
            "max_position_embeddings",
            ["learnt", "tensor"],
        ),
    ] {
        copy_folder(&golden_cases().join(name), &case);
        set(&case.join("llm/config.json"), key, json!(10));
        let ran = home.mlrm("verify case");
        ran.failed_with(1, &[]);
        assert!(words.iter().any(|word| ran.err.contains(word)), "{ran:?}");
        fs::remove_dir_all(&case).expect("a folder");
    }
}

#[test]
fn a_folder_without_tokenizer_json_says_what_is_missing() {
    let home = Home::empty();
    let llm = home.path("llm");
    copy_folder(&golden_cases().join("qwen_text/llm"), &llm);
    fs::write(llm.join("qwen.tiktoken"), "IQ== 0\n").expect("a file");
    let text = config("qwen").replace("[tokenizer]\ntrain_vocab_size = 300\n", "");
    home.write("family.toml", text);
    let ran = home.mlrm("train family.toml --set model.llm.path=llm");
    ran.failed_with(1, &["llm/tokenizer.json", "qwen.tiktoken"]);
    assert!(!home.path("run").exists());
}
