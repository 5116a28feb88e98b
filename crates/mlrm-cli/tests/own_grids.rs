//! Whole models that read each picture in a grid of its own: trained, embedded and measured on pictures of six shapes, and
//! refused where that cannot be.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;

use support::{Home, events, golden_cases, losses, named, training};
use tensors::{copy_folder, read};

/// The golden cases of such models, and where their visual tokens stand.
const SYSTEMS: [(&str, &str); 2] = [
    ("system_qwen2_5_vl_own_grids", "after"),
    ("system_qwen3_vl_own_grids", "replace"),
];

/// Drawn notes with the pictures of the golden case `system`, whose model is in `system/`.
fn home(system: &str) -> Home {
    let home = Home::with_notes();
    let case = golden_cases().join(system);
    copy_folder(&case.join("system"), &home.path("system"));
    for note in 0..80 {
        let picture = case.join(format!("pictures/{}.png", note % 6));
        let picture = fs::read(picture).expect("a picture");
        home.write(&format!("data/images/n{note:05}.png"), picture);
    }
    home
}

/// The whole model as it is published, with prompts as short as its few words need.
fn sets(layout: &str, more: &str) -> String {
    format!(
        "model.checkpoint=system model.variant=basic model.head.dim=0 prompt.layout={layout} \
        prompt.content_chars=16 prompt.topics=1 eval.baselines=[] {more}"
    )
}

fn train(home: &Home, run: &str, sets: String) {
    home.mlrm(training("folder.toml", run, sets)).done();
}

/// Embeddings of all notes, so many of them at a time.
fn embed(home: &Home, model: &str, batch_notes: usize) -> Vec<f32> {
    let notes = format!("--notes data/notes.jsonl --batch-notes {batch_notes}");
    home.mlrm(format!("embed {model} {notes} --out x.safetensors"))
        .done();
    let values = read(&home.path("x.safetensors"))["embeddings"].values();
    fs::remove_file(home.path("x.safetensors")).expect("embeddings");
    values
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn notes_of_a_batch_may_have_pictures_of_any_shape() {
    for (system, layout) in SYSTEMS {
        let home = home(system);
        train(&home, "run", sets(layout, "train.max_steps=3"));
        // Notes held two at a time, and layers run again, make the same steps.
        let sliced = "train.max_steps=3 train.micro_batch_notes=2 train.checkpoint_layers=true";
        train(&home, "sliced", sets(layout, sliced));
        let [whole, sliced] = ["run", "sliced"].map(|run| losses(&events(&home, run)));
        assert_eq!(whole.len(), 3, "{system}");
        for (step, loss) in &whole {
            let first = |numbers: &str| numbers.split(' ').next().map(str::parse::<f64>);
            let [a, b] =
                [loss, &sliced[step]].map(|all| first(all).expect("a loss").expect("a number"));
            assert!(
                (a / b - 1.0).abs() < 1e-4,
                "{system}, step {step}: {a}, {b}"
            );
        }
        // Features that were kept, by this run or another one, make the same steps, and no picture is read again.
        for run in ["kept", "again"] {
            train(
                &home,
                run,
                sets(layout, "train.max_steps=3 train.feature_cache=features"),
            );
            assert_eq!(losses(&events(&home, run)), whole, "{system}, {run}");
        }
        let read = |run: &str| {
            let steps = events(&home, run);
            let steps = named(&steps, "train_step").into_iter();
            let encoded = steps.map(|step| step["pictures_encoded"].as_u64().expect("a number"));
            encoded.sum::<u64>()
        };
        let [kept, again] = ["kept", "again"].map(read);
        assert!(
            (1..=6).contains(&kept) && again == 0,
            "{system}: {kept}, {again}"
        );
        // The folder says all of it.
        let manifest = home.read("run/model/mlrm.toml");
        assert!(manifest.contains("own_grids = 9"), "{manifest}");
        let pictures = home.json("run/model/vision/preprocessor_config.json");
        assert_eq!(pictures["image_processor_type"], "Qwen2VLImageProcessor");
        let together = embed(&home, "run", 32);
        assert!(close(&together, &embed(&home, "run", 1)), "{system}");
        home.mlrm("export run --out copy").done();
        assert_eq!(embed(&home, "copy", 32), together, "{system}");
        let saliency = home.mlrm("saliency run --json --notes 8").done().json();
        let layers = saliency["layers"].as_array().map_or(0, Vec::len);
        assert!(layers >= 2, "{saliency}");
    }
}

#[test]
fn a_square_is_a_choice() {
    let (system, layout) = SYSTEMS[0];
    let home = home(system);
    train(&home, "own", sets(layout, "train.max_steps=0"));
    let square = "train.max_steps=0 model.vision.grid=square";
    train(&home, "square", sets(layout, square));
    let manifest = home.read("square/model/mlrm.toml");
    assert!(!manifest.contains("own_grids"), "{manifest}");
    assert!(manifest.contains("image_size = 24"), "{manifest}");
    let [own, square] = ["own", "square"].map(|model| embed(&home, model, 32));
    assert!(!close(&own, &square));
    // Of note 3, whose picture is a square of that size, both make the same.
    let width = own.len() / 80;
    let [own, square] = [own, square].map(|all| all[3 * width..4 * width].to_vec());
    assert!(close(&own, &square), "{own:?} {square:?}");
}

#[test]
fn larger_pictures_become_smaller() {
    let (system, layout) = SYSTEMS[1];
    let home = home(system);
    let sets = sets(layout, "train.max_steps=0 model.vision.max_pixels=256");
    train(&home, "small", sets);
    let manifest = home.read("small/model/mlrm.toml");
    assert!(manifest.contains("own_grids = 4"), "{manifest}");
    let pictures = home.json("small/model/vision/preprocessor_config.json");
    let sizes = [
        &pictures["size"]["shortest_edge"],
        &pictures["size"]["longest_edge"],
    ];
    assert_eq!(sizes.map(|size| size.as_u64()), [Some(256), Some(256)]);
    embed(&home, "small", 32);
}

#[test]
fn batches_for_other_loops_hold_each_picture_by_itself() {
    let (system, layout) = SYSTEMS[1];
    let home = home(system);
    let batches = training("folder.toml", "other", sets(layout, ""));
    let batches = batches.replacen("train ", "data batches ", 1);
    home.mlrm(format!("{batches} --steps 1 --out b.safetensors"))
        .done();
    let tensors = read(&home.path("b.safetensors"));
    let pictures = tensors
        .iter()
        .filter(|(name, _)| name.starts_with("pixel_values."));
    let sizes: Vec<&[usize]> = pictures
        .map(|(_, tensor)| tensor.shape.as_slice())
        .collect();
    // Of six that there are, in one step; the sixth is as large as the third.
    assert!((4..=6).contains(&sizes.len()), "{sizes:?}");
    let different: std::collections::BTreeSet<_> = sizes.iter().collect();
    assert!(different.len() >= 3, "{sizes:?}");
    assert!(sizes.iter().all(|size| size.len() == 3 && size[0] == 3));
    assert!(!tensors.contains_key("pixel_values"));
}

/// A picture of three rows, as a BMP.
fn three_rows(width: u32) -> Vec<u8> {
    let row = (3 * width).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    for number in [54 + 3 * row, 0, 54, 40, width, 3] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.resize(54 + 3 * row as usize, 0);
    bytes
}

#[test]
fn what_cannot_be_is_refused_with_what_helps() {
    let (system, layout) = SYSTEMS[1];
    let home = home(system);
    let own = |more: &str| training("folder.toml", "other", sets(layout, more));
    home.refused(
        own("prompt.max_tokens=9"),
        &["prompt.max_tokens", "too few"],
    );
    let bench = own("").replacen("train folder.toml", "bench train folder.toml", 1);
    home.refused(&bench, &["model.vision.grid", "\"square\""]);
    let scratch = "train folder.toml --set run.dir=other --set model.vision.grid=own";
    home.refused(scratch, &["model.vision.grid", "leave the key out"]);
    let tower = format!("{scratch} --set model.vision.path=system");
    home.refused(&tower, &["model.vision.grid", "model.checkpoint"]);
    // Too long for any grid.
    home.write("data/images/n00004.png", three_rows(601));
    let words = ["n00004", "200 times", "model.vision.grid"];
    home.mlrm(own("train.max_steps=0")).failed_with(1, &words);
    train(
        &home,
        "square",
        sets(layout, "train.max_steps=0 model.vision.grid=square"),
    );
}
