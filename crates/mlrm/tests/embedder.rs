//! The front door: a model opened, used and saved.

use std::path::Path;

use mlrm::{Embedder, Note, RunConfig};

/// A model of random weights, and the pictures of a drawn sample set in `home`.
fn tiny(home: &Path) -> Embedder {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = format!("data.root={}", home.join("data").display());
    let config = RunConfig::load(tiny, &[data]).expect("the config");
    Embedder::from_config(config).expect("a model")
}

fn notes() -> Vec<Note> {
    let note = |number: usize| Note {
        id: format!("note {number}"),
        title: format!("title {number}"),
        image: Some(format!("images/n0000{number}.png")),
        ..Note::default()
    };
    (1..4).map(note).collect()
}

#[test]
fn what_is_saved_gives_the_same_embeddings() {
    let home = tempfile::tempdir().expect("a folder");
    let photos = home.path().join("data");
    let embedder = tiny(home.path());
    let before = embedder.embed(notes(), &photos).expect("embeddings");
    assert_eq!((before.len(), before.dim()), (3, embedder.dim()));
    assert_eq!(before.ids(), ["note 1", "note 2", "note 3"]);
    assert!(before.is_normalised());
    assert_ne!(before.row(0), before.row(1));
    let folder = home.path().join("model");
    // Over a model folder, too.
    for _ in 0..2 {
        embedder.save_pretrained(&folder).expect("a model folder");
    }
    let read = Embedder::from_pretrained(&folder, "flex").expect("a model");
    let after = read.embed(notes(), &photos).expect("embeddings");
    assert_eq!(after, before);
}

#[test]
fn notes_do_not_depend_on_their_neighbours() {
    let home = tempfile::tempdir().expect("a folder");
    let photos = home.path().join("data");
    let embedder = tiny(home.path());
    let together = embedder.embed(notes(), &photos).expect("embeddings");
    for (row, note) in notes().into_iter().enumerate() {
        let alone = embedder.embed(vec![note], &photos).expect("an embedding");
        for (a, b) in alone.row(0).iter().zip(together.row(row)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn what_cannot_be_is_said() {
    let home = tempfile::tempdir().expect("a folder");
    let photos = home.path().join("data");
    let embedder = tiny(home.path());
    let said = |notes: Vec<Note>| {
        let error = embedder.embed(notes, &photos).expect_err("an error");
        error.to_string()
    };
    let twice = vec![notes()[0].clone(), notes()[0].clone()];
    assert!(said(twice).contains("same id"));
    let mut bare = notes();
    bare[1].image = None;
    assert!(said(bare).contains("note 2"));
    let mut gone = notes();
    gone[2].image = Some("images/gone.png".into());
    assert!(said(gone).contains("images/gone.png"));

    let nowhere = Embedder::from_pretrained(home.path().join("nowhere"), "flex");
    let error = nowhere.err().expect("an error").to_string();
    assert!(error.contains("neither a model folder"), "{error}");
    // What is no model is never replaced.
    let error = embedder.save_pretrained(&photos).expect_err("an error");
    assert!(error.to_string().contains("no model folder"), "{error}");
    assert!(photos.join("notes.jsonl").is_file());
}
