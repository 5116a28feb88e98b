//! The published configs load, and every config survives being written down.

use std::path::{Path, PathBuf};

use mlrm_config::{DeviceNames, LoadedConfig, RunConfig, SliceSettings, explain};

fn published() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "toml"));
    paths.sort();
    assert!(paths.len() >= 4, "{paths:?}");
    paths
}

fn written(config: &RunConfig) -> RunConfig {
    let text = config.to_toml_string().unwrap();
    RunConfig::from_toml_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn published_configs_load_without_a_word() {
    for path in published() {
        let loaded = RunConfig::load_with_places(&path, &[]);
        let LoadedConfig {
            config, warnings, ..
        } = loaded.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(warnings, [], "{}", path.display());
        config.validate().unwrap();
        assert_eq!(written(&config), config, "{}", path.display());
        assert!(config.run.dir.starts_with("runs"), "{}", path.display());
    }
}

/// The demo is a tutorial: no section of it goes without a word.
#[test]
fn the_demo_is_commented() {
    let text = include_str!("../../../configs/demo.toml");
    for section in text.split("\n[").skip(1) {
        assert!(section.contains('#'), "[{section}");
    }
}

#[test]
fn floats_round_trip_bit_for_bit() {
    let mut config = RunConfig::default();
    config.tokenizer.train_vocab_size = Some(2000);
    // SplitMix64: any 64 bits, and so any float.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from_bits((z ^ (z >> 31)) >> 1)
    };
    let mut checked = 0;
    while checked < 300 {
        let value = next();
        if !value.is_finite() || value == 0.0 {
            continue;
        }
        config.train.learning_rate = value;
        config.train.weight_decay = 0.1 + 0.2;
        config.data.pairs.lower = Some(-value);
        let text = config.to_toml_string().unwrap();
        let back = RunConfig::from_toml_str(&text).unwrap();
        assert_eq!(
            back.train.learning_rate.to_bits(),
            value.to_bits(),
            "{value:e}"
        );
        assert_eq!(back, config);
        checked += 1;
    }
}

/// Keys that can be absent, odd strings, lists of tables: all have a spelling that reads back.
#[test]
fn every_shape_round_trips() {
    let mut config = RunConfig::default();
    config.tokenizer.path = Some("a \"quoted\" \\ path/ü\n.json".into());
    config.data.interactions = None;
    config.data.pairs_file = Some("pairs.csv".into());
    config.data.pairs.top_k = None;
    config.train.max_steps = Some(usize::MAX >> 1);
    config.run.seed = u64::MAX >> 1;
    config.backend.device = DeviceNames::Many(vec!["cuda:0".into(), "cuda:1".into()]);
    config.eval.baselines.clear();
    for name in ["films", "[x] = \"y\" # z"] {
        config.eval.slices.push(SliceSettings {
            name: name.into(),
            field: "category".into(),
            value: String::new(),
        });
    }
    assert_eq!(written(&config), config);
    config.run.seed = u64::MAX;
    assert!(config.to_toml_string().is_err());
    assert!(config.validate().is_err());
}

#[test]
fn settings_made_in_a_program_are_checked_alike() {
    let mut config = RunConfig::default();
    config.tokenizer.train_vocab_size = Some(2000);
    config.validate().unwrap();
    config.train.learning_rate = f64::NAN;
    config.train.betas = [0.9, f64::INFINITY];
    config.train.batch_pairs = 1;
    config.model.llm.num_key_value_heads = Some(0);
    config.model.vision.patch_size = 0;
    let error = config.validate().unwrap_err();
    let mut keys: Vec<&str> = error.findings().iter().map(|f| f.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "model.llm.num_key_value_heads",
            "model.vision.patch_size",
            "train.batch_pairs",
            "train.betas[1]",
            "train.learning_rate",
        ],
        "{error}"
    );
}

#[test]
fn overrides_are_read_as_toml_or_as_text() {
    let load = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo.toml");
        RunConfig::load(path, &overrides).unwrap_or_else(|error| panic!("{error}"))
    };
    let config = load(&[
        "train.learning_rate=1e-4",
        "train.learning_rate = 2",
        "eval.k=[5, 50]",
        "run.dir=2024-01-02",
        "data.root=../a b/[c]=d",
        "backend.device=[\"cuda:0\", \"cuda:1\"]",
        "model.variant=basic",
        "model.llm={hidden_size = 64, tune = \"frozen\"}",
        "train.max_steps=",
        "data.interactions=\"\"",
        "data.pairs.top_k=0",
        "eval.slices=[{name = \"a\", field = \"category\", value = \"b\"}]",
    ]);
    assert_eq!(config.train.learning_rate, 2.0);
    assert_eq!(config.eval.k, [5, 50]);
    assert_eq!(config.run.dir, Path::new("2024-01-02"));
    assert_eq!(config.data.root, Path::new("../a b/[c]=d"));
    assert_eq!(config.backend.device.names(), ["cuda:0", "cuda:1"]);
    assert_eq!(config.model.variant.name(), "basic");
    assert_eq!(config.model.llm.hidden_size, 64);
    assert_eq!(
        config.model.llm.num_hidden_layers, 3,
        "merged, not replaced"
    );
    assert_eq!(config.train.max_steps, None, "back to the default");
    assert_eq!(config.data.interactions, None);
    assert_eq!(config.data.pairs.top_k, None);
    assert_eq!(config.eval.slices.len(), 1);
    assert_eq!(
        load(&["backend.device=cuda:1"]).backend.device.names(),
        ["cuda:1"]
    );
}

#[test]
fn places_and_unread_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let text = "\u{feff}[model.llm]\r\npath = \"llm\"\r\nhidden_size = 64\r\n\r\n[eval]\r\nk = [1,\r\n  10]\r\n";
    std::fs::write(&path, text).unwrap();
    let overrides = ["train.epochs=2".to_owned(), "train.max_steps=5".to_owned()];
    let loaded = RunConfig::load_with_places(&path, &overrides).unwrap();
    let line = |key: &str| loaded.places.of(key).map(|place| place.line);
    assert_eq!(line("model.llm.hidden_size"), Some(3));
    assert_eq!(line("eval.k[1]"), Some(7));
    assert_eq!(line("model.llm.num_hidden_layers"), None);
    assert_eq!(loaded.value("eval.k").as_deref(), Some("[1, 10]"));
    assert_eq!(loaded.value("train.max_stops"), None);
    let place = loaded.places.of("train.epochs").unwrap();
    assert_eq!(place.to_string(), "--set train.epochs=2");
    let keys: Vec<&str> = loaded.warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(keys, ["model.llm.hidden_size", "train.epochs"]);
}

#[test]
fn an_override_that_turns_swapping_off_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let unread = |share: &str, overrides: &[&str]| {
        std::fs::write(
            &path,
            format!(
                "tokenizer.train_vocab_size = 300\n[train.swap]\nside = \"query\"\nshare = {share}"
            ),
        )
        .unwrap();
        let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
        let loaded = RunConfig::load_with_places(&path, &overrides).unwrap();
        let keys = loaded.warnings.iter().map(|w| w.key.clone());
        keys.collect::<Vec<String>>()
    };
    let off = "train.swap.share=0";
    assert_eq!(unread("0.0", &[]), ["train.swap.side"]);
    assert!(unread("1.0", &[off]).is_empty());
    // What is set beside it in the same breath is not.
    assert_eq!(
        unread("1.0", &[off, "train.swap.side=query"]),
        ["train.swap.side"]
    );
}

#[test]
fn words_that_weights_have_not_learnt_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, "[tokenizer]\ntrain_vocab_size = 300\n").unwrap();
    let warned = |set: String| {
        let loaded = RunConfig::load_with_places(&path, &[set]).unwrap();
        let warnings = loaded.warnings.iter().map(|w| w.report("warning"));
        warnings.collect::<Vec<String>>().concat()
    };
    let said = warned("model.llm.path=hf:acme/words".into());
    assert!(
        said.contains("run.toml:2") && said.contains("the tokenizer of that folder is read"),
        "{said}"
    );
    // A folder without a tokenizer, a whole model of ours, and weights from nothing have none to lose.
    let bare = folder.path().display();
    for set in [format!("model.llm.path={bare}"), "run.seed=2".into()] {
        assert_eq!(warned(set), "");
    }
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(warned(format!("model.checkpoint={bare}")).contains("mean nothing"));
}

#[test]
fn what_learns_is_read_beside_a_folder_and_ranks_are_only_where_adapters_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let unread = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let loaded = RunConfig::load_with_places(&path, &[]).unwrap();
        let keys = loaded.warnings.iter().map(|w| w.key.clone());
        keys.collect::<Vec<String>>()
    };
    let tuned = "llm.tune = \"lora\"\nllm.quantisation = \"q8\"\nllm.lora.rank = 4\n";
    assert!(unread(&format!("[model]\npath = \"m\"\n{tuned}")).is_empty());
    assert!(unread(&format!("[model]\nllm.path = \"m\"\n{tuned}")).is_empty());
    assert_eq!(
        unread("[model]\npath = \"m\"\nllm.lora.rank = 4\nllm.hidden_size = 8"),
        ["model.llm.hidden_size", "model.llm.lora.rank"]
    );
    let from = format!("[model]\nllm.path = \"m\"\n{tuned}llm.lora.path = \"a\"");
    assert_eq!(unread(&from), ["model.llm.lora.rank"]);
}

#[test]
fn explanations() {
    insta::assert_snapshot!(explain("train.learning_rate").unwrap(), @r###"
    train.learning_rate

      type     number > 0
      default  3e-6
      meaning  Peak learning rate. Paper: 3e-6 (pre-trained weights).
      source   method §3; NoteLLM-2 released code
    "###);
    insta::assert_snapshot!(explain("data.pairs.weight").unwrap(), @r###"
    data.pairs.weight

      type     one of "count", "events", "inverse_activity", "cosine"
      default  "inverse_activity"
      meaning  How co-occurrences add up to a score.
      source   method §5; NoteLLM (WWW 2024)

      values
        "count"             Users that saw B after A.
        "events"            Every occurrence of B after A.
        "inverse_activity"  Each user adds 1 / (distinct notes that the user saw). NoteLLM (WWW 2024), equation 1.
        "cosine"            users(A, B) / sqrt(users(A) * users(B)), where users(A) saw A at all.
    "###);
    insta::assert_snapshot!(explain("[model.head]").unwrap(), @r###"
    model.head

      type     section
      meaning  The last projection.
      source   method §2.6; NoteLLM-2 released code (64)

      keys
        model.head.dim  Embedding size; 0 leaves the projection out and the embedding is as wide as the LLM.
    "###);
    insta::assert_snapshot!(explain("eval.slices[0].name").unwrap(), @r###"
    eval.slices.name

      type     string
      default  none: it has to be given
      meaning  Name in the table.
      source   method §6
    "###);
    insta::assert_snapshot!(explain("train.betas.first").unwrap_err(), @r###"
    error: unknown key `train.betas.first`
      help: `train.betas` is a plain key: nothing is below it
    "###);
    insta::assert_snapshot!(explain("trian.lr").unwrap_err(), @r###"
    error: unknown key `trian`
      help: did you mean `train`?
    "###);
    let sections = explain("").unwrap().keys;
    assert_eq!(sections.len(), 10);
    for (section, _) in sections {
        for (key, _) in explain(&section).unwrap().keys {
            assert_eq!(explain(&key).unwrap().key, key);
        }
    }
}
