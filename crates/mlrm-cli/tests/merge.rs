//! `mlrm export --merge`, and what other tools read of an exported language model.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;

use support::{Home, training};
use tensors::read;

const LORA: &str = "model.llm.tune=lora model.llm.lora.rank=4 train.saliency_every_steps=0 \
    eval.baselines=[]";

/// The embeddings of all notes by a model.
fn embeddings(home: &Home, model: &str) -> Vec<f32> {
    let out = format!("{}.safetensors", model.replace('/', "-"));
    home.embed(model, &out);
    read(&home.path(out))["embeddings"].values()
}

/// The largest difference, as a share of the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let pairs = a.iter().zip(b);
    pairs.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn merged_adapters_are_a_part_of_the_weights() {
    let home = Home::with_config();
    for (run, sets) in [
        ("plain", ""),
        (
            "rslora",
            "model.llm.lora.rslora=true model.llm.lora.alpha=3 \
                model.llm.lora.target_modules=[\"q_proj\",\"down_proj\"]",
        ),
        ("q4", "model.llm.quantisation=q4"),
    ] {
        // Rates so high that the adapters change something.
        let fast = "train.learning_rate=0.02";
        home.train(run, format!("{LORA} {fast} {sets}")).done();
        let merged = format!("{run}-merged");
        home.mlrm(format!("export {run} --out {merged} --merge"))
            .done();
        assert!(!home.path(&merged).join("adapter").exists());

        let config = home.json(&format!("{run}/model/adapter/adapter_config.json"));
        let number = |key: &str| config[key].as_f64().expect("a number") as f32;
        let rank = number("r");
        let scale = match config["use_rslora"] == true {
            true => number("lora_alpha") / rank.sqrt(),
            false => number("lora_alpha") / rank,
        };
        let weights = |model: &str| read(&home.path(format!("{model}/llm/model.safetensors")));
        let (before, after) = (weights(&format!("{run}/model")), weights(&merged));
        let adapter = home.path(format!("{run}/model/adapter/adapter_model.safetensors"));
        let adapter = read(&adapter);
        assert_eq!(before.len(), after.len());
        let mut changed = 0;
        for (name, old) in &before {
            let map = name.trim_end_matches(".weight");
            let factor = |f: &str| adapter.get(&format!("base_model.model.{map}.lora_{f}.weight"));
            let (Some(a), Some(b)) = (factor("A"), factor("B")) else {
                assert_eq!(old, &after[name], "{run} {name} has no adapter");
                continue;
            };
            // W + scale · B A, W being [outputs, inputs].
            let (a_values, b_values) = (a.values(), b.values());
            let [outputs, inputs] = [old.shape[0], old.shape[1]];
            let mut expected = old.values();
            for (index, value) in expected.iter_mut().enumerate() {
                let (row, column) = (index / inputs, index % inputs);
                let products = (0..a.shape[0])
                    .map(|r| b_values[row * a.shape[0] + r] * a_values[r * inputs + column]);
                *value += scale * products.sum::<f32>();
            }
            assert_eq!(expected.len(), outputs * inputs);
            let error = difference(&after[name].values(), &expected);
            assert!(error < 1e-6, "{run} {name}: {error:e}");
            changed += 1;
        }
        assert_eq!(changed, adapter.len() / 2, "{run}");

        let (beside, merged) = (embeddings(&home, run), embeddings(&home, &merged));
        let error = difference(&merged, &beside);
        assert!(error < 1e-5, "{run}: embeddings differ by {error:e}");
        // Without the adapters they are others.
        fs::rename(
            home.path(format!("{run}/model/adapter")),
            home.path(format!("{run}-adapter")),
        )
        .expect("moved");
        // Changed on purpose.
        fs::remove_file(home.path(format!("{run}/model/checksums.json"))).expect("checksums");
        let without = embeddings(&home, &format!("{run}/model"));
        assert!(difference(&without, &beside) > 1e-3, "{run}");
        home.refused(
            format!("export {run} --out again --merge"),
            &["--merge", "no adapters"],
        );
    }
}

#[test]
fn a_tied_language_model_stays_tied() {
    let home = Home::trained();
    let file = home.path("run/model/llm/config.json");
    let config = home.read("run/model/llm/config.json");
    let (untied, tied) = (
        "\"tie_word_embeddings\": false",
        "\"tie_word_embeddings\": true",
    );
    assert!(config.contains(untied), "{config}");
    fs::write(&file, config.replace(untied, tied)).expect("a file");
    // Changed on purpose.
    fs::remove_file(home.path("run/model/checksums.json")).expect("checksums");
    home.mlrm("export run --out copy").done();
    let folder = home.read("tiny.toml");
    home.write(
        "more.toml",
        folder.replace("[model]", "[model]\npath = \"run/model\""),
    );
    for tune in ["full", "lora"] {
        let sets = format!("model.llm.tune={tune} train.max_steps=1");
        home.mlrm(training("more.toml", tune, sets)).done();
    }
    home.mlrm("export lora --out merged --merge").done();
    for folder in ["copy", "full/model", "lora/model", "merged"] {
        let config = home.json(&format!("{folder}/llm/config.json"));
        assert_eq!(config["tie_word_embeddings"], true, "{folder}");
    }
}
