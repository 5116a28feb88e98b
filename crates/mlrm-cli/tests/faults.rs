//! Runs that meet damaged files, changed settings and changed data: nothing is lost, and nothing is wrong
//! in silence.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::{FOUR, Home, end, events, files_below, losses, resume, set, warned, weights_below};

/// Copies a folder, links as links, no file shared with the original.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            copy(&path, &to);
        } else if kind.is_symlink() {
            #[cfg(unix)]
            std::os::unix::fs::symlink(fs::read_link(&path).expect("a link"), &to).expect("a link");
        } else {
            fs::copy(&path, &to).expect("a copy");
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    // Near the end: the weights of a safetensors file.
    let place = bytes.len() - 1 - bytes.len() / 4;
    bytes[place] ^= 1;
    fs::write(path, bytes).expect("a file");
}

/// The last checkpoint and the model that a run ends with, but for the time that it took.
fn outcome(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    weights_below(run, &["model", "checkpoints/step-4"])
}

#[test]
#[cfg(unix)]
fn every_damaged_file_of_a_checkpoint_is_found_named_and_passed_over() {
    let home = Home::with_config();
    home.train("whole", FOUR).done();
    let whole = outcome(&home.path("whole"));
    let newest = home.path("whole/checkpoints/step-4");
    let files = files_below(&newest);
    assert!(files.len() >= 11, "{files:?}");
    type Damage = fn(&Path);
    let kinds: [(&str, Damage); 3] = [
        ("flipped", flip),
        ("cut", |path| {
            let bytes = fs::read(path).expect("a file");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
        }),
        ("deleted", |path| fs::remove_file(path).expect("a file")),
    ];
    for file in &files {
        let name = file.strip_prefix(&newest).expect("below");
        for (kind, damage) in kinds {
            copy(&home.path("whole"), &home.path("run"));
            damage(&home.path("run/checkpoints/step-4").join(name));
            let ran = resume(&home, "run", "--set run.dir=run");
            let what = format!("{} {kind}: {ran:?}", name.display());
            assert_eq!(ran.code, Some(0), "{what}");
            let words = ["checkpoints/step-4 is passed over", "goes on from step 2"];
            for word in words.into_iter().chain([name.to_str().expect("a name")]) {
                assert!(ran.err.contains(word), "no `{word}`: {what}");
            }
            assert!(outcome(&home.path("run")) == whole, "other weights: {what}");
            fs::remove_dir_all(home.path("run")).expect("a folder");
        }
    }

    // Nothing whole is left.
    for step in ["step-2", "step-4"] {
        flip(
            &home
                .path("whole/checkpoints")
                .join(step)
                .join("optimiser.safetensors"),
        );
    }
    let ran = resume(&home, "whole", "");
    let words = [
        "holds no checkpoint that is whole",
        "step-2 is passed",
        "step-4 is passed",
    ];
    ran.failed_with(1, &words);
}

#[test]
#[cfg(unix)]
fn links_that_lead_nowhere_lose_nothing() {
    let home = Home::with_config();
    home.train("run", "eval.baselines=[]").done();
    let whole = losses(&events(&home, "run"));
    // The newest checkpoint is gone, and what `best` points at too.
    let best = fs::read_link(home.path("run/best")).expect("a link");
    fs::remove_dir_all(home.path("run/checkpoints/step-6")).expect("a folder");
    let ran = resume(&home, "run", "");
    ran.done();
    ran.tells(&["`last` points at step 6, which is gone"]);
    assert_eq!(losses(&events(&home, "run")), whole);
    assert_eq!(fs::read_link(home.path("run/best")).expect("a link"), best);
    assert!(home.path("run/last/state.json").is_file());

    // A best checkpoint that is gone no longer counts, and the run ends with a model.
    let mut state = home.json("run/checkpoints/step-6/state.json");
    state["best"] = serde_json::json!([0.999, 1]);
    state["format"] = 0.into();
    home.write("run/checkpoints/step-6/state.json", state.to_string());
    fs::remove_file(home.path("run/checkpoints/step-6/checksums.json")).expect("a file");
    let ran = resume(&home, "run", "--set train.max_steps=8");
    ran.done();
    let word = "the best checkpoint so far, step 1 with 0.9990, is damaged or gone";
    ran.tells(&[word]);
    assert!(home.path("run/best/state.json").is_file());
}

/// The template of a resumed run neither goes with the checkpoint that the run began with, nor with the file it came from.
#[test]
fn a_template_outlives_the_checkpoint_that_a_run_goes_on_from() {
    let home = Home::with_config();
    let film = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../configs/prompts/film.toml"
    );
    home.write("film.toml", fs::read_to_string(film).expect("a template"));
    let template = "prompt.template_file=film.toml";
    home.train("run", format!("{FOUR} {template}")).done();
    let more = "--set train.max_steps=10 --set train.keep_checkpoints=1";
    resume(&home, "run", more).done();
    assert!(!home.path("run/checkpoints/step-4").exists());
    let kept = fs::read(home.path("run/model/template.toml")).expect("a template");
    assert_eq!(kept, fs::read(home.path("film.toml")).expect("a template"));
}

#[test]
fn a_place_past_the_end_is_refused() {
    let home = Home::with_config();
    home.train("run", FOUR).done();
    resume(&home, "run", "--set train.max_steps=3").failed_with(
        1,
        &[
            "step-4 is at step 4, past the end of a run of 3 steps",
            "train.max_steps",
        ],
    );
    let name = "run/checkpoints/step-4/state.json";
    let state = home.json(name);
    fs::remove_file(home.path("run/checkpoints/step-4/checksums.json")).expect("a file");
    for (key, words) in [
        (
            "step",
            "is at step 900000, past the end of a run of 4 steps",
        ),
        ("position", "is at pair 900000 of pass 0"),
    ] {
        let mut wrong = state.clone();
        wrong["format"] = 0.into();
        match key {
            "step" => wrong["step"] = 900_000.into(),
            key => wrong["cursor"][key] = 900_000.into(),
        }
        home.write(name, wrong.to_string());
        resume(&home, "run", "").failed_with(1, &[words]);
    }
}

#[test]
fn a_run_does_not_go_on_as_another_run() {
    let home = Home::with_config();
    home.train("run", FOUR).done();
    let sets = [
        ("run.seed=2", "run.seed is 1 there and 2 here"),
        (
            "data.pairs.test_fraction=0.3",
            "data.pairs.test_fraction is 0.25 there and 0.3 here",
        ),
        (
            "data.pairs.split=time",
            "data.pairs.split is \"note\" there and \"time\" here",
        ),
        (
            "objective.multimodal_weight=1",
            "objective.multimodal_weight is 9.0 there and 1.0 here",
        ),
        (
            "backend.dtype=bf16",
            "backend.dtype is \"f32\" there and \"bf16\" here",
        ),
        (
            "train.batch_pairs=4",
            "train.batch_pairs is 8 there and 4 here",
        ),
        (
            "train.betas=[0.8,0.9]",
            "train.betas is [0.9,0.999] there and [0.8,0.9] here",
        ),
        (
            "train.weight_decay=0.5",
            "train.weight_decay is 0.001 there and 0.5 here",
        ),
    ];
    let config = "train run/config.toml --resume";
    for (set, words) in sets {
        let key = set.split('=').next().expect("a key");
        let flag = format!("--accept-change {key}");
        home.refused(format!("{config} --set {set}"), &[words, &flag]);
    }
    let all: Vec<&str> = sets.iter().map(|(set, _)| *set).collect();
    let all_words: Vec<&str> = sets.iter().map(|(_, words)| *words).collect();
    home.refused(format!("{config}{}", set(all)), &all_words);

    home.refused(
        format!("{config} --accept-change run.sead"),
        &["--accept-change run.sead: there is no such setting"],
    );
    let accepted = "--set run.seed=2 --accept-change run --set train.max_steps=6";
    let ran = resume(&home, "run", accepted);
    ran.done();
    for words in [
        "run.seed is 1 there and 2 here",
        "the schedule of the learning rate now spans 6 steps",
        "begun with 4: step 5 takes",
    ] {
        assert!(ran.err.contains(words), "no `{words}`: {ran:?}");
    }
    // It is the run's own seed now.
    resume(&home, "run", "").done();
}

/// The command that measures `run`.
fn eval(more: &str) -> String {
    format!("eval run --set eval.baselines=[] {more}")
}

#[test]
fn a_run_is_not_measured_on_what_it_learnt() {
    let home = Home::with_config();
    home.train("run", FOUR).done();
    let own = home.mlrm(eval("--json"));
    assert_eq!(own.done().json(), home.json("run/eval.json"));
    home.refused(
        eval("--set run.seed=2"),
        &[
            "run.seed is 1 there and 2 here",
            "trained on",
            "--accept-change run.seed",
        ],
    );
    home.refused(
        eval("--set data.pairs.test_fraction=0.5"),
        &["data.pairs.test_fraction is 0.25 there and 0.5 here"],
    );
    let other = home.mlrm(eval("--json --set run.seed=2 --accept-change run.seed"));
    assert_ne!(other.done().json(), own.json());
    other.tells(&["accepted: run.seed"]);
}

#[test]
fn a_run_does_not_go_on_with_other_data() {
    let home = Home::with_notes();
    home.mlrm(format!("train folder.toml{}", set(FOUR))).done();
    let resumed = "train run/config.toml --resume";
    let evaluated = "eval run --set eval.baselines=[]";

    // The same data in another place is the same data.
    fs::rename(home.path("data"), home.path("moved")).expect("a move");
    for words in [resumed, evaluated] {
        home.mlrm(format!("{words} --set data.root=moved")).done();
    }
    fs::rename(home.path("moved"), home.path("data")).expect("a move");
    home.mlrm(format!("{resumed} --set data.root=data")).done();

    let spoil = |name: &str, edit: &dyn Fn(&[u8]) -> Vec<u8>, words: &str| {
        let path = home.path(name);
        let content = fs::read(&path).expect("a file");
        fs::write(&path, edit(&content)).expect("a file");
        home.refused(resumed, &[words]);
        home.refused(evaluated, &[words]);
        fs::write(&path, content).expect("a file");
    };
    let cut = |content: &[u8]| {
        let text = std::str::from_utf8(content).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        (lines[..lines.len() - 1].join("\n") + "\n").into_bytes()
    };
    spoil(
        "data/interactions.csv",
        &cut,
        "data.interactions has other content",
    );
    let reworded = |content: &[u8]| {
        let text = std::str::from_utf8(content).expect("text");
        let (title, other) = ("\"title\":\"", "\"title\":\"other ");
        assert!(text.contains(title));
        text.replacen(title, other, 1).into_bytes()
    };
    spoil(
        "data/notes.jsonl",
        &reworded,
        "data.notes has other content",
    );
    let pictures = files_below(&home.path("data/images"));
    let other = fs::read(&pictures[1]).expect("a picture");
    let name = format!(
        "data/images/{}",
        pictures[0].file_name().expect("a name").display()
    );
    spoil(
        &name,
        &|_| other.clone(),
        "data.images holds other pictures",
    );
    home.mlrm(resumed).done();
}

#[test]
fn a_finished_model_that_was_damaged_is_not_used() {
    let home = Home::trained();
    flip(&home.path("run/model/llm/model.safetensors"));
    let words = [
        "run/model: damaged: llm/model.safetensors",
        "has other content",
    ];
    home.refused("eval run", &words);
    home.refused("saliency run", &words);
    home.refused("export run --out out", &words);
    home.refused("embed run --notes data/notes.jsonl --out x.npy", &words);
}

#[test]
fn a_run_needs_a_batch_of_pairs() {
    let home = Home::with_config();
    let ran = home.train("run", "train.batch_pairs=5000");
    ran.failed_with(
        1,
        &[
            "training pairs, fewer than the 5000 of a batch",
            "train.batch_pairs",
        ],
    );
    assert!(!home.path("run").exists());
}

#[test]
fn a_run_that_diverges_goes_back_and_then_says_so() {
    let home = Home::with_config();
    let sets = "train.max_steps=400 train.learning_rate=1e30 train.warmup_ratio=0.5 \
        train.clip_norm=0 train.save_every_steps=1 eval.baselines=[]";
    let ran = home.train("run", sets);
    ran.failed_with(
        1,
        &["the run has diverged at step", "lower train.learning_rate"],
    );
    assert!(!ran.err.contains("dimension"), "{ran:?}");
    let events = events(&home, "run");
    end(&events, "failed");
    let back = warned(&events, "It goes back to step").into_iter();
    let slower = back.filter(|message| message.contains("of the learning rate"));
    assert_eq!(slower.count(), 2, "{ran:?}");
    let state = home.json("run/last/state.json");
    assert!(
        state["step"].as_u64().is_some_and(|step| step > 0),
        "{state}"
    );
}
