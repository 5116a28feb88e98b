use std::sync::Arc;

use mlrm_data::notes::{ByText, NoteSet};
use mlrm_eval::Relevance;
use serde_json::Value;

use super::*;

/// `count` notes on a half circle in the order of their ids; the pictures of the even ones are
/// files, those of the odd ones entries of a shard, and the last note's is missing.
fn corpus(root: &Path, count: usize) -> (Notes, Embeddings) {
    let mut shard = Vec::new();
    for row in (1..count).step_by(2) {
        let mut header = [0_u8; 512];
        header[..name(row).len()].copy_from_slice(name(row).as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(b"00000000003\0");
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        shard.extend(header);
        shard.extend([b'o', b'd', b'd']);
        shard.extend([0; 509]);
    }
    shard.extend([0; 1024]);
    std::fs::write(root.join("odd.tar"), shard).unwrap();
    for row in (0..count - 1).step_by(2) {
        std::fs::write(root.join(name(row)), "even").unwrap();
    }
    let notes = (0..count).map(|row| Note {
        id: row.to_string(),
        title: format!("note {row}"),
        topics: vec!["a".into(), "b".into()],
        content: "c".repeat(1000),
        image: Some(name(row)),
        ..Note::default()
    });
    let angle = |row: usize| std::f32::consts::PI * row as f32 / count as f32;
    let values = (0..count).flat_map(|row| [angle(row).cos(), angle(row).sin()]);
    let ids = (0..count).map(|row| row.to_string()).collect();
    let notes = Notes {
        set: Arc::new(NoteSet::new(notes.collect()).unwrap()),
        decoding: Default::default(),
        by_text: Arc::new(ByText::none(count)),
        without_picture: Default::default(),
        images: Some(Arc::new(ImageStore::open(root).unwrap())),
        pixels: Arc::default(),
    };
    (notes, Embeddings::new(ids, 2, values.collect()).unwrap())
}

fn name(row: usize) -> String {
    format!("picture-{row}.jpg")
}

fn read(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("report/examples.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn results_are_marked_and_pictures_found() {
    let home = tempfile::tempdir().unwrap();
    let (notes, embeddings) = corpus(home.path(), 21);
    let pairs = [("0", "2"), ("0", "20"), ("4", "1")];
    let ids = embeddings.ids();
    let task = Task::all_pairs(ids, &Relevance::from_pairs(ids, pairs)).unwrap();
    let run = home.path().join("run");
    let models = [("notellm2", &embeddings), ("text_only", &embeddings)];
    write_examples(&run, &notes, home.path(), &task, &models, 1).unwrap();

    let examples = read(&run);
    assert_eq!(examples.len(), 2);
    let first = &examples[0];
    assert_eq!(first["query"]["title"], "note 0");
    assert_eq!(
        first["query"]["text"].as_str().unwrap().chars().count(),
        TEXT_LETTERS
    );
    assert_eq!(first["partners"][1]["id"], "20");
    assert_eq!(first["models"][1]["name"], "text_only");
    let model = &first["models"][0];
    assert_eq!(model["first_right_rank"], 2);
    let results = model["results"].as_array().unwrap();
    let ids: Vec<&str> = results
        .iter()
        .map(|hit| hit["note"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    let right: Vec<bool> = results
        .iter()
        .map(|hit| hit["right"].as_bool().unwrap())
        .collect();
    assert_eq!(
        right,
        [false, true, false, false, false, false, false, false]
    );

    let file = results[1]["note"]["image"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "even");
    let copy = results[0]["note"]["image"].as_str().unwrap();
    assert_eq!(
        std::fs::read_to_string(run.join("report").join(copy)).unwrap(),
        "odd"
    );
    assert_eq!(
        first["partners"][1]["image"],
        Value::Null,
        "the picture is missing"
    );
}

#[test]
fn only_notes_of_the_pool_are_shown() {
    let home = tempfile::tempdir().unwrap();
    let (notes, embeddings) = corpus(home.path(), 9);
    let pairs = [("0", "5"), ("2", "7")];
    let task = Task::released_protocol(embeddings.ids(), pairs).unwrap();
    write_examples(
        home.path(),
        &notes,
        home.path(),
        &task,
        &[("m", &embeddings)],
        1,
    )
    .unwrap();
    let model = &read(home.path())[0]["models"][0];
    let results = model["results"].as_array().unwrap();
    let ids: Vec<&str> = results
        .iter()
        .map(|hit| hit["note"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["1", "3", "4", "5", "6", "7", "8"], "2 is a query");
    assert_eq!(model["first_right_rank"], 4);
    assert_eq!(results[3]["right"], true);
}

#[test]
fn the_worst_queries_and_some_others_are_chosen() {
    let ranks: Vec<Option<u32>> = (1..=200).map(Some).collect();
    let chosen = choose(&ranks, 7);
    assert_eq!(chosen.len(), WORST_QUERIES + RANDOM_QUERIES);
    assert!((200 - WORST_QUERIES..200).all(|index| chosen.contains(&index)));
    assert_eq!(chosen, choose(&ranks, 7));
    assert_ne!(chosen, choose(&ranks, 8));
    assert_eq!(choose(&ranks[..3], 1), [0, 1, 2]);
    assert!(choose(&[], 1).is_empty());
}
