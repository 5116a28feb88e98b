//! What users get wrong: each mistake ends with exit code 1 (2 for the command line itself), says
//! what is wrong, where and how to mend it, never panics, and leaves no file made or changed.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;

use support::{Home, TINY, end, events, losses, named};
use tensors::copy_folder;

#[test]
fn a_command_line_that_makes_no_sense() {
    let home = Home::with_config();
    for (words, says) in [
        ("trian tiny.toml", "train"),
        ("train", "<CONFIG>"),
        ("train tiny.toml --sett run.seed=1", "--set"),
        ("embed run --notes n --out x.npy --shard 2/2", "i/n"),
        ("data pairs log.csv --weight cosin", "cosin"),
        ("watch run --svg x.svg --size 1x1", "60x15"),
    ] {
        home.mlrm(words).failed_with(2, &[says]);
    }
    assert_eq!(home.files().len(), 1);
}

#[test]
fn configs_that_say_what_no_run_can_do() {
    let home = Home::with_config();
    home.refused("train absent.toml", &["absent.toml"]);
    home.refused(
        "train tiny.toml --set prompt.template_file=nowhere.toml",
        &["prompt.template_file", "nowhere.toml", "leave the key out"],
    );
    for (right, wrong, words) in [
        (
            "batch_pairs",
            "batch_pair",
            ["train.batch_pair`", "did you mean `train.batch_pairs`?"],
        ),
        ("[model.head]", "[model.haed]", ["model.haed", "model.head"]),
        (
            "batch_pairs = 8",
            "batch_pairs = 0",
            ["train.batch_pairs", "integer ≥ 2"],
        ),
        (
            "batch_pairs = 8",
            "batch_pairs = \"8\"",
            ["train.batch_pairs", "integer ≥ 2"],
        ),
        (
            "batch_pairs = 8",
            "batch_pairs = 8.5",
            ["train.batch_pairs", "integer ≥ 2"],
        ),
        ("\"notellm2\"", "\"notellm\"", ["model.variant", "notellm2"]),
        (
            "batch_pairs = 8",
            "batch_pairs = = 8",
            ["not valid TOML", "batch_pairs"],
        ),
        (
            "num_key_value_heads = 1",
            "num_key_value_heads = 3",
            ["num_key_value_heads", "divisor of 2"],
        ),
        (
            "patch_size = 16",
            "patch_size = 15",
            ["image_size", "multiple of 15"],
        ),
    ] {
        assert!(TINY.contains(right), "{right}");
        let text = TINY.replacen(right, wrong, 1);
        home.write("bad.toml", &text);
        let line = text
            .lines()
            .position(|line| line.contains(wrong))
            .map(|line| line + 1);
        let place = format!("bad.toml:{}", line.expect("the line"));
        for command in ["config check", "train"] {
            let ran = home.refused(format!("{command} bad.toml"), &words);
            // Two keys that do not fit each other are shown at one of them.
            assert!(
                ran.err.contains(&place) || wrong.contains("size"),
                "{place}: {ran:?}"
            );
            ran.tells(&["bad.toml:"]);
        }
    }
    home.write(
        "bad.toml",
        TINY.replace("seed = 1", "sede = 1")
            .replace("dim = 16", "dimm = 16"),
    );
    home.refused(
        "train bad.toml",
        &["run.sede", "model.head.dimm", "2 errors"],
    );
}

#[test]
fn overrides_that_set_nothing() {
    let home = Home::with_config();
    for (set, words) in [
        (
            "train.max_step=3",
            ["--set train.max_step=3", "did you mean `train.max_steps`?"],
        ),
        ("train.max_steps=many", ["train.max_steps", "integer"]),
        (
            "train.max_steps",
            ["--set train.max_steps", "section.key=value"],
        ),
        ("prompt.language=xx", ["xx", "\"en\", \"zh\""]),
        (
            "model.connector.projector=mlpx_gelu",
            ["mlpx_gelu", "mlp2x_gelu"],
        ),
    ] {
        home.refused(format!("train tiny.toml --set {set}"), &words);
    }
}

/// Spoils the notes of a user, trains on them, and mends them again.
struct Spoilt {
    home: Home,
}

impl Spoilt {
    /// Trains after `spoil`; refused with `words` before anything is written.
    #[track_caller]
    fn refused(&self, spoil: impl FnOnce(&Home), words: &[&str]) {
        self.refused_with("", spoil, words);
    }

    #[track_caller]
    fn refused_with(&self, more: &str, spoil: impl FnOnce(&Home), words: &[&str]) {
        let whole = self.home.path("whole");
        if !whole.exists() {
            copy_folder(&self.home.path("data"), &whole);
        }
        spoil(&self.home);
        self.home
            .refused(format!("train folder.toml {more}"), words);
        fs::remove_dir_all(self.home.path("data")).expect("a folder");
        copy_folder(&whole, &self.home.path("data"));
    }
}

fn remove(home: &Home, name: &str) {
    fs::remove_file(home.path(name)).expect(name);
}

const NOTES: &str = "data/notes.jsonl";
const LOG: &str = "data/interactions.csv";

#[test]
fn notes_that_cannot_be_read() {
    let set = Spoilt {
        home: Home::with_notes(),
    };
    set.refused(|home| remove(home, NOTES), &[NOTES, "No such file"]);
    set.refused(
        |home| home.edit_line(NOTES, 3, |line| format!("{line}}}")),
        &["data/notes.jsonl:3", "JSON"],
    );
    set.refused(
        |home| {
            home.edit_line(NOTES, 3, |line| {
                line.replace("n00002\",\"t", "n00001\",\"t")
            })
        },
        &["data/notes.jsonl:3", "n00001", "row 2", "--fix"],
    );
    set.refused(
        |home| {
            home.edit_line(NOTES, 3, |line| {
                line.replace("\"topics\":[", "\"topics\":[7,")
            })
        },
        &["data/notes.jsonl:3", "topics"],
    );
    set.refused(
        |home| home.write(NOTES, [0xff, 0xfe, b'\n']),
        &["data/notes.jsonl", "UTF-16"],
    );
    set.refused(
        |home| home.write(NOTES, [0xff, b'\n']),
        &["data/notes.jsonl:1"],
    );
    for empty in ["", "\n\n"] {
        set.refused(
            |home| home.write(NOTES, empty),
            &["data/notes.jsonl", "there are no notes in it"],
        );
    }
}

#[test]
fn logs_that_cannot_be_read() {
    let set = Spoilt {
        home: Home::with_notes(),
    };
    set.refused(|home| remove(home, LOG), &[LOG, "No such file"]);
    let spoil = |row: usize, text: &'static str| {
        move |home: &Home| home.edit_line(LOG, row, |_| text.to_owned())
    };
    set.refused(spoil(4, "u1,nobody,1704103955"), &[LOG, "nobody", "--fix"]);
    set.refused(
        spoil(4, "u1,n00001,yesterday"),
        &["interactions.csv:4", "yesterday", "Unix seconds"],
    );
    set.refused(spoil(4, "u1,n00001"), &["interactions.csv:4"]);
    set.refused(
        spoil(1, "user_id,note_id,when"),
        &["interactions.csv:1", "timestamp"],
    );
    set.refused(|home| home.write(LOG, ""), &["interactions.csv:1", "empty"]);
    set.refused(
        |home| home.write(LOG, "user_id,note_id,timestamp\n"),
        &["data.pairs", "no training pair"],
    );
    let few = "--set data.pairs.min_users=1000";
    set.refused_with(few, |_| {}, &["no training pair", "min_users"]);
    let ready = "--set data.pairs_file=pairs.csv --set data.interactions=";
    set.refused_with(ready, |_| {}, &["data/pairs.csv", "No such file"]);
    set.refused_with(
        ready,
        |home| {
            home.write(
                "data/pairs.csv",
                "query_id,target_id,weight\nn00001,nobody,1\n",
            )
        },
        &["data/pairs.csv", "nobody"],
    );
}

#[test]
fn a_note_without_a_picture() {
    let home = Home::with_notes();
    home.edit_line(NOTES, 4, |line| {
        line.replace(",\"image\":\"images/n00003.png\"", "")
    });
    let ran = home.mlrm("train folder.toml");
    ran.failed_with(1, &["n00003", "picture", "model.variant = \"text\""]);
    let text = "train folder.toml --overwrite --set model.variant=text";
    home.mlrm(text).done();
}

#[test]
fn a_picture_that_breaks_a_run_can_be_mended() {
    let home = Home::with_notes();
    // A note that only the evaluation of step 3 looks at: it is held out from training.
    let split = "--config folder.toml --split note --seed 1 --out split";
    home.mlrm(format!("data pairs {split}")).done();
    let test = home.read("split/test.csv");
    let id = test
        .lines()
        .nth(1)
        .and_then(|line| line.split(',').next())
        .expect("a pair");
    // Whole by its first and last bytes: that its pixels are damaged shows when they are decoded.
    let png = format!("images/{id}.png");
    let picture = fs::read(home.path(format!("data/{png}"))).expect("a picture");
    let mut damaged = picture.clone();
    let pixels = damaged.windows(4).position(|name| name == b"IDAT");
    damaged[pixels.expect("pixels") + 9] ^= 0xff;
    home.write(&format!("data/{png}"), &damaged);

    let sets = "--set train.save_every_steps=2 --set eval.baselines=[]";
    let train = format!("train folder.toml {sets}");
    let ran = home.mlrm(&train);
    ran.failed_with(1, &[id, &png, "data.on_bad_image"]);
    let broken = events(&home, "run");
    assert_eq!(losses(&broken).len(), 3);
    let end = end(&broken, "failed");
    assert!(
        end["message"]
            .as_str()
            .is_some_and(|message| message.contains(id)),
        "{end}"
    );
    assert!(
        !home
            .files()
            .keys()
            .any(|path| path.display().to_string().contains(".writing"))
    );

    home.write(&format!("data/{png}"), &picture);
    // The run's pictures are others now, which has to be said.
    let resume = format!("{train} --resume");
    home.mlrm(&resume)
        .failed_with(1, &["--accept-change data.images"]);
    let accept = "--accept-change data.images";
    home.mlrm(format!("{resume} {accept}")).done();
    let mended = events(&home, "run");
    // What was learnt before the error was saved.
    assert_eq!(named(&mended, "run_started")[1]["resumed_from_step"], 3);
    assert_eq!(losses(&mended).len(), 6);
}

#[test]
fn pictures_that_are_none() {
    let home = Home::with_notes();
    for (content, says) in [
        (None, "No such file"),
        (Some("hello"), "it is no JPEG, PNG"),
    ] {
        remove(&home, "data/images/n00005.png");
        if let Some(content) = content {
            home.write("data/images/n00005.png", content);
        }
        let ran = home.mlrm("train folder.toml --overwrite");
        ran.failed_with(1, &["n00005", "images/n00005.png", says]);
        assert!(!home.path("run/model").exists());
        home.write("data/images/n00005.png", "");
    }
}
