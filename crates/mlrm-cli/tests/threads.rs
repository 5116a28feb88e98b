//! What a run computes does not depend on how many threads compute it, nor on whether it is evaluated meanwhile.

mod support;

use std::collections::BTreeMap;
use std::fs;

use support::{Home, events, losses, training};

/// Large enough that every kernel shares its work out.
const SIZES: &str = "model.llm.hidden_size=128 model.llm.intermediate_size=352 train.batch_pairs=32 \
    train.max_steps=2 train.eval_every_steps=0 train.saliency_every_steps=0 \
    data.pairs.validation_fraction=0 eval.baselines=[]";

/// Numbers of every step, and the values of the model afterwards by file.
type Outcome = (BTreeMap<u64, String>, BTreeMap<String, Vec<u8>>);

fn trained(home: &Home, run: &str, threads: &str, sets: &str) -> Outcome {
    let sets = format!("{SIZES} {sets}");
    let mut command = home.command(training("tiny.toml", run, sets));
    home.ran(command.env("RAYON_NUM_THREADS", threads)).done();
    let mut values = BTreeMap::new();
    for part in ["llm", "vision", "adapter", ""] {
        let folder = home.path(run).join("model").join(part);
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|end| end == "safetensors") {
                let name = format!("{part}/{}", path.file_name().expect("a name").display());
                values.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    (losses(&events(home, run)), values)
}

#[test]
fn a_run_is_the_same_bit_by_bit_with_any_number_of_threads() {
    let home = Home::with_config();
    let cases = [
        ("full", ""),
        ("lora", "model.llm.tune=lora"),
        ("bf16-products", "backend.matmul_precision=bf16"),
    ];
    for (name, sets) in cases {
        let [one, two, three] = ["1", "2", "3"]
            .map(|threads| trained(&home, &format!("{name}-{threads}"), threads, sets));
        assert_eq!(one.0.len(), 2, "{name}: two steps");
        assert!(one.1.len() >= 2, "{name}: the files of a model");
        for (threads, other) in [(2, two), (3, three)] {
            assert_eq!(one.0, other.0, "{name} with {threads} threads");
            for (file, values) in &one.1 {
                let same = other.1.get(file) == Some(values);
                assert!(same, "{name} with {threads} threads: {file}");
            }
        }
    }
}

/// An evaluation keeps weights laid out for its products; the steps after it must not read them as they were.
#[test]
fn evaluations_change_nothing_that_is_learnt() {
    let home = Home::with_config();
    let steps = "backend.matmul_precision=bf16 data.pairs.validation_fraction=0.2 \
        train.batch_pairs=8 train.max_steps=4 train.learning_rate=1e-2";
    let cases = [
        "",
        "train.micro_batch_notes=4 train.checkpoint_layers=true",
        "model.llm.tune=lora",
    ];
    for (index, sets) in cases.into_iter().enumerate() {
        let [often, never] = ["1", "0"].map(|every| {
            let sets = format!("{steps} {sets} train.eval_every_steps={every}");
            trained(&home, &format!("{index}-{every}"), "2", &sets).0
        });
        assert_eq!(often.len(), 4, "{sets:?}");
        assert_eq!(often, never, "{sets:?}");
    }
}
