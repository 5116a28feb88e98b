//! Catalogues as they are: some pictures are missing, some are broken, some are turned.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Home, events, named, set, training, warned};
use tensors::read as read_tensors;

/// A hundred notes, of which 3 name no picture, 2 one that is not there, 2 a broken one, and 1 one
/// that its EXIF data turn.
fn catalogue() -> Home {
    let home = Home::with_notes();
    home.mlrm("data synth shop --notes 100 --users 200 --events-per-user 12 --image-pixels 32")
        .done();
    fs::remove_file(home.path("shop/synth.json")).expect("the mark of a drawn set");
    for row in [4, 30, 61] {
        home.edit_line("shop/notes.jsonl", row, |line| {
            let mut note: Value = serde_json::from_str(line).expect("a note");
            note.as_object_mut().expect("an object").remove("image");
            note.to_string()
        });
    }
    let picture = |row: usize| {
        let notes = home.read("shop/notes.jsonl");
        let line = notes.lines().nth(row - 1).expect("a row");
        let note: Value = serde_json::from_str(line).expect("a note");
        home.path("shop")
            .join(note["image"].as_str().expect("a key"))
    };
    for row in [11, 77] {
        fs::remove_file(picture(row)).expect("a picture");
    }
    let bytes = fs::read(picture(20)).expect("a picture");
    fs::write(picture(20), &bytes[..bytes.len() / 2]).expect("a picture");
    fs::write(picture(50), "no picture").expect("a picture");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlrm-data/tests/fixtures/images");
    fs::copy(fixtures.join("exif_rotated.jpg"), picture(90)).expect("a picture");
    home
}

/// Trains on the catalogue with these settings for both kinds of problem.
fn words(setting: &str) -> String {
    let sets = format!(
        "data.root=shop data.on_missing_image={setting} data.on_bad_image={setting} \
        data.exif_orientation=apply"
    );
    training("folder.toml", setting, sets)
}

#[test]
fn a_catalogue_with_missing_and_broken_pictures_is_refused_before_anything_is_written() {
    let home = catalogue();
    home.refused(
        words("error"),
        &[
            "5 of 100 notes have no picture",
            "2 of 100 notes have a picture that cannot be used",
            "data.on_missing_image",
            "data.on_bad_image",
            "it names none",
            "No such file",
            "ends before the picture does",
        ],
    );
    let checked = home.mlrm("data check shop");
    checked.failed_with(1, &[]);
    checked.shows(&["missing_image", "truncated_image", "undecodable_image"]);
    checked.shows(&["warnings\n"]);
    for part in ["no_image       3", "turned_image   1"] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            squeezed(&checked.out).contains(&squeezed(part)),
            "{part}: {checked:?}"
        );
    }
}

#[test]
fn a_catalogue_with_missing_and_broken_pictures_trains_evaluates_and_embeds() {
    let home = catalogue();
    for (setting, key, pool, told) in [
        (
            "text",
            "read_by_text",
            100,
            "7 notes without a usable picture: read by text alone",
        ),
        (
            "drop",
            "dropped",
            93,
            "7 notes without a usable picture: left out of pool and queries",
        ),
    ] {
        let ran = home.mlrm(words(setting));
        ran.done().shows(&[told]);
        let log = events(&home, setting);
        let pictures = "5 without a picture, 2 with one that cannot be used";
        assert_eq!(warned(&log, pictures).len(), 1, "{log:?}");
        for step in named(&log, "train_step") {
            for loss in ["loss", "loss_visual", "gate_mean"] {
                assert!(step[loss].as_f64().is_some_and(f64::is_finite), "{step}");
            }
        }
        let report = home.json(&format!("{setting}/eval.json"));
        assert_eq!((&report[key], &report["pool"]), (&7.into(), &pool.into()));
        let measured = home.mlrm(format!("eval {setting} --json")).done().json();
        assert_eq!(
            (&measured[key], &measured["pool"]),
            (&7.into(), &pool.into())
        );
        let table = home.mlrm(format!("eval {setting}"));
        table.done().shows(&[told]);
        for modality in ["text_only", "image_only"] {
            assert!(report["baselines"][modality].is_object(), "{report:#}");
        }

        let out = format!("{setting}.npy");
        let embed = format!("embed {setting} --notes shop/notes.jsonl --out {out} --visual");
        let embedded = home.mlrm(&embed);
        let count = format!("{pool} embeddings of 16 values");
        embedded.done().shows(&[&count]);
        embedded.tells(&["7 notes are"]);
        let refused = home.mlrm(format!("{embed} --set data.on_missing_image=error"));
        refused.failed_with(1, &["5 of 100 notes have no picture"]);
    }
    // Attention is read where both notes of a pair have a picture.
    home.mlrm("saliency text --notes 8").done();
}

/// The same file is found whole by its first and last bytes, and does not decode.
#[test]
fn a_picture_that_does_not_decode_is_told_when_it_shows() {
    let home = Home::with_notes();
    let path = home.path("data/images/n00007.png");
    let mut bytes = fs::read(&path).expect("a picture");
    let pixels = bytes
        .windows(4)
        .position(|name| name == b"IDAT")
        .expect("pixels");
    bytes[pixels + 9] ^= 0xff;
    fs::write(&path, bytes).expect("a picture");
    let train = |dir: &str, setting: &str| {
        let sets = format!("data.on_bad_image={setting}");
        home.mlrm(training("folder.toml", dir, sets))
    };
    train("strict", "error").failed_with(1, &["n00007", "data.on_bad_image"]);
    for setting in ["text", "drop"] {
        train(setting, setting).done();
        let log = events(&home, setting);
        assert_eq!(warned(&log, "n00007").len(), 1, "{log:?}");
    }
}

/// A run stops at a note without a picture unless the settings say otherwise, and so does the check.
#[test]
fn the_check_fails_on_a_note_without_a_picture_where_a_run_would() {
    let home = Home::with_notes();
    home.edit_line("data/notes.jsonl", 4, |line| {
        let mut note: Value = serde_json::from_str(line).expect("a note");
        note.as_object_mut().expect("an object").remove("image");
        note.to_string()
    });
    let checked = home.mlrm("data check data");
    checked.failed_with(1, &[]);
    checked.shows(&["1 notes have no picture", "data.on_missing_image"]);
    assert!(!checked.out.contains("nothing is wrong"), "{checked:?}");
    let config = home.read("folder.toml");
    let text = config.replacen("[data]\n", "[data]\non_missing_image = \"text\"\n", 1);
    home.write("text.toml", text);
    let checked = home.mlrm("data check --config text.toml --json");
    assert_eq!(checked.done().json()["warnings"][0]["kind"], "no_image");

    // Without any picture it is a set of texts, unless a config means to look at pictures.
    for row in 1..=80 {
        home.edit_line("data/notes.jsonl", row, |line| {
            let mut note: Value = serde_json::from_str(line).expect("a note");
            note.as_object_mut().expect("an object").remove("image");
            note.to_string()
        });
    }
    home.mlrm("data check data").done();
    let config = home.mlrm("data check --config folder.toml");
    config.failed_with(1, &[]);
    config.shows(&["no note has a picture"]);
}

/// A model folder alone tells how its run read pictures.
#[test]
fn a_model_reads_pictures_as_it_did_in_training() {
    let home = catalogue();
    home.mlrm(words("text") + &set("train.max_steps=1 eval.baselines=[]"))
        .done();
    fs::rename(home.path("text/model"), home.path("alone")).expect("the model of the run");
    home.mlrm("export alone --out exported").done();
    let embed = |model: &str, more: &str| {
        let words = format!("embed {model} --notes shop/notes.jsonl --out x.safetensors {more}");
        let read = set("data.on_missing_image=text data.on_bad_image=text");
        home.mlrm(words + &read).done();
        let embeddings = &read_tensors(&home.path("x.safetensors"))["embeddings"];
        let width = embeddings.shape[1];
        // Of the note with the turned picture.
        embeddings.values()[89 * width..90 * width].to_vec()
    };
    let turned = embed("alone", "--set data.exif_orientation=apply");
    let stored = embed("alone", "--set data.exif_orientation=ignore");
    assert_ne!(turned, stored);
    assert_eq!(embed("alone", ""), turned);
    assert_eq!(embed("exported", ""), turned);
}
