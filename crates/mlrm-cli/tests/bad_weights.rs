//! Weights that are broken, damaged, of another model or in another format: refused with the file and
//! the tensor named, and nothing made or changed.

#[path = "support/spoil.rs"]
mod spoil;
mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use serde_json::Value;
use spoil::{Model, edit_json, truncate};
use support::{Home, TINY, without_tokenizer};
use tensors::{RawTensor, copy_folder, edit, read};

/// A sharded model: every message names the file and the tensor.
#[test]
fn shards_that_are_broken() {
    let home = Home::trained();
    let export = "export run --out sharded --shard-size 8kB";
    home.mlrm(export).done();
    fs::remove_dir_all(home.path("run/model")).expect("a folder");
    fs::rename(home.path("sharded"), home.path("run/model")).expect("a folder");
    let model = Model { home };
    let llm = model.home.path("run/model/llm");
    let mut shards: Vec<String> = fs::read_dir(&llm)
        .expect("a folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    shards.sort();
    assert!(shards.len() >= 4, "{shards:?}");
    let second = shards[1].clone();
    let place = format!("model/llm/{second}");
    let file = |folder: &Path| folder.join("llm").join(&second);
    let held = read(&llm.join(&second));
    let tensor = held.keys().next_back().expect("a tensor").clone();
    let named = format!("`{tensor}`");

    let length = fs::metadata(llm.join(&second)).expect("a file").len() as usize;
    let last = format!("`{}`", last_tensor(&llm.join(&second)));
    model.refused(
        |folder| truncate(&file(folder), length - 4),
        &[&place, &last, "not a whole safetensors file"],
    );
    model.refused(
        |folder| {
            let mut bytes = fs::read(file(folder)).expect("a file");
            bytes[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
            fs::write(file(folder), bytes).expect("a file");
        },
        &[&place, "1152921504606846976"],
    );
    model.refused(
        |folder| {
            edit(&file(folder), |tensors| {
                let shape = [3, 5];
                tensors.insert(tensor.clone(), RawTensor::of(&shape, &[0.0; 15]));
            });
        },
        &["model/llm", &second, &named, "wrong shape", "[3, 5]"],
    );
    model.refused(
        |folder| {
            edit(&file(folder), |tensors| {
                tensors.insert("model.extra".into(), RawTensor::of(&[1], &[0.0]));
            });
            edit_index(folder, |map| map["model.extra"] = second.clone().into());
        },
        &["model/llm", &second, "`model.extra`", "unexpected"],
    );
    let index = "model/llm/model.safetensors.index.json";
    model.refused(
        |folder| {
            edit_index(folder, |map| {
                map.as_object_mut().expect("a map").remove(&tensor);
            });
        },
        &[index, "no entry", &named, &second],
    );
    model.refused(
        |folder| edit_index(folder, |map| map[&tensor] = shards[0].clone().into()),
        &[index, &named, &shards[0], &second],
    );
    model.refused(
        |folder| edit_index(folder, |map| map["model.absent"] = second.clone().into()),
        &[index, "`model.absent`", &second],
    );
    model.refused(
        |folder| fs::remove_file(file(folder)).expect("a file"),
        &[index, &second, "not there"],
    );
    model.refused(
        |folder| edit_index(folder, |map| map[&tensor] = "../x.safetensors".into()),
        &[index, &named, "not a file name"],
    );
}

/// The tensor whose bytes come last.
fn last_tensor(path: &Path) -> String {
    let bytes = fs::read(path).expect("a file");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
    header.offset_keys().pop().expect("a tensor")
}

fn edit_index(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("llm/model.safetensors.index.json");
    edit_json(&path, |index| edit(&mut index["weight_map"]));
}

/// NaN is refused unless it is asked for; where no note reads it, the result is the same.
#[test]
fn weights_that_are_not_numbers() {
    let home = Home::trained();
    let embed = "embed run --notes data/notes.jsonl --out";
    home.mlrm(format!("{embed} clean.npy")).done();
    // As a folder that others wrote: its checksums would tell first.
    fs::remove_file(home.path("run/model/checksums.json")).expect("checksums");
    let weights = home.path("run/model/llm/model.safetensors");
    // The byte C0, which no UTF-8 text has.
    let row = home.json("run/model/llm/tokenizer.json")["model"]["vocab"]["À"].as_u64();
    let start = row.expect("a byte") as usize * 32 * 4;
    edit(&weights, |tensors| {
        let table = tensors
            .get_mut("model.embed_tokens.weight")
            .expect("a table");
        let value = &mut table.bytes[start..start + 8];
        value[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        value[4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    let says = [
        "run/model/llm/model.safetensors",
        "not finite: `model.embed_tokens.weight` holds 2 values",
        "--allow-nan",
    ];
    home.refused(format!("{embed} x.npy"), &says);
    home.refused("eval run", &says);
    home.refused("export run --out x", &says);
    home.refused("inspect run --load", &says);
    let train = "train tiny.toml --set run.dir=x --set model.path=run/model";
    home.refused(train, &says);

    home.mlrm(format!("{embed} nan.npy --allow-nan")).done();
    let file = |name: &str| fs::read(home.path(name)).expect("a file");
    assert_eq!(file("clean.npy"), file("nan.npy"));
    home.mlrm("inspect run --load --allow-nan").done();
    home.mlrm("export run --out copy --allow-nan").done();
    let copied = fs::read(home.path("copy/llm/model.safetensors")).expect("a file");
    assert!(
        copied
            .windows(4)
            .any(|bytes| bytes == f32::NAN.to_le_bytes())
    );
}

/// Parts as other programs leave them, named in a config: nothing is written.
#[test]
fn parts_that_a_config_names() {
    let home = Home::trained();
    copy_folder(&home.path("run/model/llm"), &home.path("llm"));
    home.write("parts.toml", without_tokenizer(TINY));
    let train = "train parts.toml --set run.dir=x --set model.llm.path=llm";
    let config = home.read("llm/config.json");
    let with = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        home.write("llm/config.json", config.replace(from, to));
    };
    for command in [train, "inspect llm", "export llm --out y"] {
        with("\"model_type\": \"qwen2\"", "\"model_type\": \"mamba\"");
        home.refused(command, &["llm/config.json", "mamba", "qwen3"]);
        home.write("llm/config.json", &config);
    }
    for command in [train, "export llm --out y"] {
        // More rows than the weights have: not a vocabulary that grew.
        let rows = home.mlrm("inspect llm --json").done().json();
        let rows = rows["tokenizer"]["rows"].as_u64().expect("a number");
        let stated = format!("\"vocab_size\": {rows}");
        with(&stated, &format!("\"vocab_size\": {}", rows + 64));
        let says = [
            "llm/model.safetensors",
            "`model.embed_tokens.weight`",
            "wrong shape",
        ];
        home.refused(command, &says);
        with("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
        home.refused(
            command,
            &["llm/model.safetensors", "`model.layers.1.", "unexpected"],
        );
        with("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 2");
        home.refused(
            command,
            &["`model.layers.0.self_attn.k_proj.weight`", "wrong shape"],
        );
        home.write("llm/config.json", &config);
    }

    fs::rename(
        home.path("llm/model.safetensors"),
        home.path("llm/pytorch_model.bin"),
    )
    .expect("a file");
    for command in [train, "inspect llm"] {
        let says = [
            "llm: holds weights in PyTorch's own format",
            "python -c",
            "weights_only=True",
            "llm/pytorch_model*.bin",
            "llm/model.safetensors",
        ];
        home.refused(command, &says);
    }
    fs::remove_file(home.path("llm/pytorch_model.bin")).expect("a file");
    home.refused(
        "inspect llm",
        &["llm", "holds neither model.safetensors nor"],
    );
}
