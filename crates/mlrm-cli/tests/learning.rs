//! Warnings of runs that do not learn, provoked; and a run that learns, which has none.

mod support;

use std::fs;

use support::{Home, events, named, training, warned};

const STEPS: &str = "train.max_steps=60 train.eval_every_steps=0 train.save_every_steps=0 \
    train.saliency_every_steps=0 train.probe_every_steps=5 \
    data.pairs.validation_fraction=0.1 data.pairs.test_fraction=0.1 eval.baselines=[]";

/// The warnings of a run that was given these settings on top; it ends well.
fn warnings(home: &Home, run: &str, sets: &str) -> Vec<String> {
    home.train(run, format!("{STEPS} {sets}")).done();
    messages(home, run)
}

fn messages(home: &Home, run: &str) -> Vec<String> {
    let events = events(home, run);
    let messages = warned(&events, "").into_iter();
    messages.map(str::to_owned).collect()
}

/// Exactly one warning of `cause`, with all of `words`.
#[track_caller]
fn one(warnings: &[String], cause: &str, words: &[&str]) {
    let found: Vec<&String> = warnings
        .iter()
        .filter(|text| text.contains(cause))
        .collect();
    assert_eq!(found.len(), 1, "{cause}: {warnings:#?}");
    for word in words {
        assert!(found[0].contains(word), "no `{word}` in {}", found[0]);
    }
}

#[test]
fn a_run_that_learns_nothing_is_told_so() {
    let home = Home::with_config();
    let found = warnings(&home, "run", "train.learning_rate=1e-12");
    one(
        &found,
        "the loss stays at log N",
        &["candidates", "train.learning_rate (now 1e-12)"],
    );
    let probes = events(&home, "run");
    let probes = named(&probes, "embedding_probe");
    // Every five steps; the last one is an evaluation too, and is looked at once.
    assert_eq!(probes.len(), 12, "{probes:#?}");
}

/// What a run saw and told is a part of its checkpoints: stopped and resumed, it warns where it would have
/// warned, and once.
#[test]
fn a_run_that_goes_on_neither_forgets_nor_repeats_a_warning() {
    let home = Home::with_config();
    let go = |run: &str, steps: usize, more: &str| {
        let sets = format!(
            "{STEPS} train.learning_rate=1e-12 train.warmup_ratio=0 train.max_steps={steps}"
        );
        home.mlrm(training("tiny.toml", run, sets) + more).done();
    };
    let told = |run: &str| -> Vec<u64> {
        let events = events(&home, run);
        let warnings = named(&events, "warning").into_iter();
        let told = warnings.filter(|warning| {
            let message = warning["message"].as_str().unwrap_or_default();
            message.contains("the loss stays at log N")
        });
        told.map(|warning| warning["step"].as_u64().expect("a step"))
            .collect()
    };
    go("whole", 60, "");
    assert_eq!(told("whole"), [40]);
    go("stopped", 30, "");
    assert_eq!(told("stopped"), [0; 0]);
    go("stopped", 60, " --resume");
    assert_eq!(told("stopped"), [40]);
    go("stopped", 110, " --resume");
    assert_eq!(told("stopped"), [40]);
}

/// One partner a note is learnt by heart, and logits that are right gain from being larger.
#[test]
fn a_temperature_that_runs_off_upwards_is_told_of() {
    let home = Home::with_config();
    let sets = "train.max_steps=120 train.learning_rate=1e-2 train.schedule=constant \
        train.batch_pairs=16 data.pairs.top_k=1 objective.temperature_logit=4.5";
    let found = warnings(&home, "run", sets);
    let words = [
        "it began at 4.500",
        "objective.max_temperature_logit = 4.605",
    ];
    one(&found, "the temperature runs off", &words);
}

/// At such a rate everything falls onto one point, and the temperature with it.
#[test]
fn a_collapse_and_a_temperature_that_runs_off_are_told_of_and_the_latter_can_be_bounded() {
    let home = Home::with_config();
    let sets = "train.learning_rate=1 train.clip_norm=0 train.batch_pairs=16";
    let found = warnings(&home, "run", sets);
    let words = [
        "mean cosine of",
        "effective rank",
        "lower train.learning_rate",
    ];
    one(&found, "the embeddings have collapsed", &words);
    one(
        &found,
        "the temperature runs off",
        &["it began at 3.000", "no candidate stands out"],
    );

    // A run that learns sharpens its logits, up to the bound.
    let sets = "train.batch_pairs=32 train.learning_rate=3e-3 objective.max_temperature_logit=3.0";
    warnings(&home, "bounded", sets);
    let free = "train.batch_pairs=32 train.learning_rate=3e-3";
    warnings(&home, "free", free);
    let most = |run: &str| {
        let events = events(&home, run);
        let steps = named(&events, "train_step").into_iter();
        let logits = steps.map(|step| step["temperature_logit"].as_f64().expect("a number"));
        logits.fold(f64::NEG_INFINITY, f64::max)
    };
    assert_eq!(most("bounded"), 3.0);
    assert!(most("free") > 3.005, "{}", most("free"));
    home.refused(
        "train tiny.toml --set objective.max_temperature_logit=2",
        &[
            "objective.max_temperature_logit",
            "is below the temperature logit that training starts at, 3.0000",
        ],
    );
}

/// A picture of noise, as a bitmap.
fn noise(seed: u32) -> Vec<u8> {
    const SIDE: u32 = 32;
    let size = SIDE * SIDE * 3;
    let mut file = b"BM".to_vec();
    for value in [
        54 + size,
        0,
        54,
        40,
        SIDE,
        SIDE,
        1 | 24 << 16,
        0,
        size,
        2835,
        2835,
        0,
        0,
    ] {
        file.extend(value.to_le_bytes());
    }
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    file.extend((0..size).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    file
}

/// Trains on notes whose pictures are these, by their number.
fn with_pictures(picture: impl Fn(u32) -> Vec<u8>, sets: &str) -> Vec<String> {
    let home = Home::with_notes();
    let mut files: Vec<_> = fs::read_dir(home.path("data/images"))
        .expect("pictures")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    for (number, path) in files.into_iter().enumerate() {
        fs::write(path, picture(number as u32)).expect("a picture");
    }
    let sets = format!("{STEPS} train.batch_pairs=32 train.learning_rate=3e-3 {sets}");
    home.mlrm(training("folder.toml", "run", sets)).done();
    messages(&home, "run")
}

#[test]
fn pictures_that_say_nothing_are_found_to_be_ignored() {
    // The same one of every note: embeddings do not move with it.
    let found = with_pictures(|_| noise(1), "");
    let words = [
        "pictures of other notes, embeddings of the probe move by 0.00 %",
        "model.variant",
    ];
    one(&found, "the picture is ignored", &words);
    // Noise tells the notes of the training apart, and nothing of others.
    let tested = "train.max_steps=40 data.pairs.validation_fraction=0.2 \
        data.pairs.test_fraction=0.25 eval.baselines=[\"random\",\"text_only\"]";
    let found = with_pictures(noise, tested);
    one(
        &found,
        "the picture is ignored",
        &["retrieval of the test notes", "% without", "model.variant"],
    );
}

#[test]
fn a_run_that_learns_has_no_warning() {
    let home = Home::with_config();
    let sets = "train.max_steps=120 train.batch_pairs=32 train.learning_rate=3e-3 \
        train.saliency_every_steps=30 train.probe_every_steps=10 \
        data.pairs.validation_fraction=0.2 data.pairs.test_fraction=0.25 \
        eval.baselines=[\"random\",\"text_only\"]";
    let found = warnings(&home, "run", sets);
    assert!(found.is_empty(), "{found:#?}");
    let events = events(&home, "run");
    let probes = named(&events, "embedding_probe");
    let first = |key: &str| probes[0][key].as_f64().expect("a number");
    let last = |key: &str| probes[probes.len() - 1][key].as_f64().expect("a number");
    let gap = |of: &dyn Fn(&str) -> f64| of("positive_similarity") - of("negative_similarity");
    assert!(gap(&last) > gap(&first) + 0.05, "{probes:#?}");
    assert!(
        last("effective_rank") > 2.0 && last("picture_share") > 0.04,
        "{probes:#?}"
    );
}
