//! `mlrm index`, and `mlrm similar --index`. Both are behind the cargo feature `index`, which the binary under test
//! has or has not (`MLRM_TEST_BINARY`).

mod support;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use support::{Home, skipped};

/// Embeddings of `notes` notes in 32 dimensions, the same on every machine.
fn write_embeddings(home: &Home, notes: usize) {
    const DIM: usize = 32;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({notes}, {DIM}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(10 + padded - 1, b' ');
    bytes.push(b'\n');
    let mut state = 1_u64;
    for _ in 0..notes * DIM {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
        bytes.extend(value.to_le_bytes());
    }
    home.write("notes.npy", bytes);
    let ids: String = (0..notes).map(|note| format!("n{note}\n")).collect();
    home.write("notes.ids.txt", ids);
}

const BUILD: &str = "index notes.npy --out notes.usearch";

/// A folder with embeddings, where the binary can index them.
fn home(test: &str, notes: usize) -> Option<Home> {
    let home = Home::empty();
    write_embeddings(&home, 3);
    let ran = home.mlrm(BUILD);
    if ran.code != Some(0) {
        // What a binary without the feature says is right, too.
        ran.failed_with(1, &["cargo feature `index`", "--features mlrm-cli/index"]);
        let asked = home.mlrm("similar --index x --id n1");
        asked.failed_with(1, &["cargo feature `index`"]);
        skipped(
            test,
            "index",
            "the binary was built without the feature `index`",
        );
        return None;
    }
    let home = Home::empty();
    write_embeddings(&home, notes);
    Some(home)
}

/// What `mlrm similar` finds: ids and scores.
fn near(home: &Home, source: &str) -> Vec<(String, f64)> {
    let ran = home.mlrm(format!("similar {source} --id n7 --json"));
    let answer = &ran.done().json()[0]["neighbours"];
    let pair = |found: &Value| {
        let id = found["id"].as_str().expect("an id").to_owned();
        (id, found["score"].as_f64().expect("a score"))
    };
    answer
        .as_array()
        .expect("a list")
        .iter()
        .map(pair)
        .collect()
}

#[test]
fn an_index_answers_as_its_embeddings_do() {
    let Some(home) = home("an_index_answers_as_its_embeddings_do", 4000) else {
        return;
    };
    let exact = near(&home, "notes.npy");
    for dtype in ["f32", "f16", "int8"] {
        let wide = format!("--expansion-search 400 --dtype {dtype}");
        let ran = home.mlrm(format!("{BUILD} {wide}"));
        ran.done().shows(&["recall@10"]);
        let report = home.json("notes.usearch.json");
        let recall = report["recall"]["recall"].as_f64().expect("a number");
        let least = if dtype == "int8" { 0.9 } else { 0.99 };
        assert!(recall >= least, "{report}");
        assert_eq!(
            (&report["notes"], &report["numbers"]),
            (&4000.into(), &dtype.into())
        );
        let found = near(&home, "--index notes.usearch");
        assert_eq!(found.len(), 10);
        assert!(
            (found[0].1 - exact[0].1).abs() < 0.02,
            "{found:?} {exact:?}"
        );
        let same = found
            .iter()
            .filter(|(id, _)| exact.iter().any(|(other, _)| other == id));
        assert!(same.count() >= 8, "{found:?} {exact:?}");
    }
    let names: Vec<String> = home
        .files()
        .into_keys()
        .map(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(names.len(), 5, "nothing else is left: {names:?}");
    let shorter = home.mlrm(format!("{BUILD} --dim 8"));
    shorter.done();
    assert_eq!(home.json("notes.usearch.json")["dim"], 8);
}

#[test]
fn what_is_no_index_is_told_as_such() {
    let Some(home) = home("what_is_no_index_is_told_as_such", 100) else {
        return;
    };
    home.mlrm(BUILD).done();
    let ask = |file: &str, id: &str, says: &[&str]| {
        home.refused(format!("similar --index {file} --id {id}"), says);
    };
    ask("notes.npy", "n1", &["notes.npy", "no index of usearch"]);
    ask("none", "n1", &["none"]);
    ask(
        "notes.usearch",
        "x",
        &["notes.usearch", "no note has the id \"x\"", "100 notes"],
    );
    let whole = fs::read(home.path("notes.usearch")).expect("an index");
    home.write("notes.usearch", &whole[..whole.len() / 2]);
    ask("notes.usearch", "n1", &["cut off or of another build"]);
    home.write("notes.usearch", whole);
    home.write("notes.usearch.ids.txt", "n0\nn1\n");
    ask(
        "notes.usearch",
        "n1",
        &["has 2 ids", "must belong together"],
    );
    home.mlrm("index notes.npy --out x -k 0")
        .failed_with(2, &["at least 1"]);
    home.refused("index notes.npy --out none/x", &["none"]);
    home.refused("index notes.npy --out x --dim 33", &["--dim", "1 to 32"]);
    home.refused(
        "index notes.npy --out x --visual",
        &["no visual embeddings"],
    );
    home.mlrm("similar notes.npy --index x --id n1")
        .failed_with(2, &["cannot be used with"]);
}

#[test]
fn a_killed_build_leaves_nothing_half_written() {
    let Some(home) = home("a_killed_build_leaves_nothing_half_written", 40_000) else {
        return;
    };
    let mut killed = 0;
    for wait in [50, 150, 400, 800, 1500, 2500] {
        let mut running = home.command(BUILD).spawn().expect("the binary runs");
        sleep(Duration::from_millis(wait));
        killed += usize::from(running.try_wait().expect("its state").is_none());
        running.kill().expect("a kill");
        let _killed = running.wait();
        if home.path("notes.usearch").exists() {
            assert_eq!(near(&home, "--index notes.usearch").len(), 10);
        }
    }
    assert!(killed > 0, "no build lasted 50 ms");
    home.mlrm(BUILD).done();
    let found = near(&home, "--index notes.usearch");
    assert_eq!(found.len(), 10);
    assert_eq!(home.files().len(), 5, "{:?}", home.files());
}
