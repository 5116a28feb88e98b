use std::fs;

use image::{Rgb, RgbImage};

use super::*;
use crate::interactions::Interactions;
use crate::notes::NoteSet;
use crate::pairs::read_pairs;

fn write(home: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A data set with one of every problem.
fn broken() -> (tempfile::TempDir, Sources) {
    let home = tempfile::tempdir().unwrap();
    let picture = RgbImage::from_pixel(20, 20, Rgb([200, 10, 10]));
    for name in ["good.png", "big.png", "cut.jpg"] {
        let side = if name == "big.png" { 40 } else { 20 };
        fs::create_dir_all(home.path().join("images")).unwrap();
        let picture =
            image::imageops::resize(&picture, side, side, image::imageops::FilterType::Nearest);
        picture.save(home.path().join("images").join(name)).unwrap();
    }
    let cut = home.path().join("images/cut.jpg");
    let whole = fs::read(&cut).unwrap();
    fs::write(&cut, &whole[..whole.len() - 20]).unwrap();
    write(home.path(), "images/text.png", "no picture");
    let notes = [
        r#"{"id":"a","title":"A","image":"images/good.png","year":1}"#,
        r#"{"id":"b","content":"B"}"#,
        r#"{"id":"a","title":"again"}"#,
        r#"{oops"#,
        r#"{"id":"empty","title":"  ","image":"images/good.png"}"#,
        r#"{"id":"none","title":"x","image":"images/none.png"}"#,
        r#"{"id":"cut","title":"x","image":"images/cut.jpg"}"#,
        r#"{"id":"text","title":"x","image":"images/text.png"}"#,
        r#"{"id":"big","title":"x","image":"images/big.png"}"#,
        r#"{"id":"out","title":"x","image":"../secret.png"}"#,
        r#"{"title":"no id"}"#,
        r#"{"id":"c","topics":["only"],"image":"images/good.png"}"#,
    ];
    write(home.path(), "notes.jsonl", notes.join("\n"));
    let log = "user_id,note_id,timestamp\nu,a,1\nu,gone,2\nu,b,soon\nu,b\nu,cut,4\nu,c,5\n";
    write(home.path(), "interactions.csv", log);
    let pairs =
        "query_id,target_id,weight\na,b,2\nb,b,1\na,b,3\na,gone,1\na,c,-1\nbig,a,1\nc,a,0.5\n";
    write(home.path(), "pairs.csv", pairs);
    let sources = Sources {
        notes: home.path().join("notes.jsonl"),
        interactions: Some(home.path().join("interactions.csv")),
        pairs: Some(home.path().join("pairs.csv")),
        images: home.path().into(),
        time_unit: TimeUnit::Auto,
        image_cache_max_bytes: 1 << 30,
    };
    (home, sources)
}

fn limits() -> DecodeOptions {
    DecodeOptions {
        pixels: 500,
        ..DecodeOptions::default()
    }
}

fn places(findings: &[Finding]) -> Vec<(String, u64, &'static str)> {
    let name = |finding: &Finding| {
        finding
            .file
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    findings
        .iter()
        .map(|finding| (name(finding), finding.row.unwrap_or(0), finding.kind.name()))
        .collect()
}

#[test]
fn every_problem_is_found_with_file_and_row() {
    let (_home, sources) = broken();
    let report = check(&sources, &limits());
    let place = |file: &str, row, kind| (file.to_owned(), row, kind);
    assert_eq!(
        places(&report.findings),
        [
            place("notes.jsonl", 3, "duplicate_id"),
            place("notes.jsonl", 4, "bad_json"),
            place("notes.jsonl", 5, "empty_text"),
            place("notes.jsonl", 11, "bad_field"),
            place("notes.jsonl", 6, "missing_image"),
            place("notes.jsonl", 7, "truncated_image"),
            place("notes.jsonl", 8, "undecodable_image"),
            place("notes.jsonl", 9, "oversized_image"),
            place("notes.jsonl", 10, "bad_image_key"),
            place("interactions.csv", 3, "dangling_id"),
            place("interactions.csv", 4, "bad_time"),
            place("interactions.csv", 5, "wrong_columns"),
            place("pairs.csv", 3, "self_pair"),
            place("pairs.csv", 4, "duplicate_pair"),
            place("pairs.csv", 5, "dangling_id"),
            place("pairs.csv", 6, "bad_weight"),
        ]
    );
    assert_eq!(
        (
            report.notes,
            report.interactions,
            report.pairs,
            report.images
        ),
        (12, 6, 7, 6)
    );
    assert!(
        report
            .findings
            .iter()
            .all(|finding| !finding.mend.is_empty())
    );
}

#[test]
fn notes_in_several_files_are_checked_and_cleaned_as_one() {
    let home = tempfile::tempdir().unwrap();
    write(
        home.path(),
        "notes/b.jsonl",
        "{\"id\":\"2\",\"title\":\"x\"}\n{\"id\":\"1\",\"title\":\"y\"}\n",
    );
    write(home.path(), "notes/a.csv", "id,title\n1,x\n3,\n");
    let sources = Sources {
        notes: home.path().join("notes"),
        interactions: None,
        pairs: None,
        images: home.path().into(),
        time_unit: TimeUnit::Auto,
        image_cache_max_bytes: 1 << 30,
    };
    let report = check(&sources, &limits());
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            let name = finding.file.file_name().unwrap().to_str().unwrap();
            (name, finding.row.unwrap(), finding.kind)
        })
        .collect();
    let wanted = [
        ("a.csv", 3, ProblemKind::EmptyText),
        ("b.jsonl", 2, ProblemKind::DuplicateId),
    ];
    assert_eq!((found.as_slice(), report.notes), (wanted.as_slice(), 4));
    let message = &report.findings[1].message;
    assert!(
        message.contains("is that of row 2 of `") && message.contains("a.csv` already"),
        "{message}"
    );
    let out = home.path().join("clean");
    write_clean(&sources, &report, &out).unwrap();
    let notes = NoteSet::read(&out.join("notes.jsonl")).unwrap();
    let ids: Vec<&str> = notes.rows().iter().map(|note| note.id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);
}

#[test]
fn bytes_are_limited_too() {
    let (_home, sources) = broken();
    let report = check(
        &sources,
        &DecodeOptions {
            file_bytes: 10,
            ..limits()
        },
    );
    let oversized = report
        .findings
        .iter()
        .filter(|f| f.kind == ProblemKind::OversizedImage);
    assert_eq!(oversized.count(), 5);
}

#[test]
fn the_clean_rest_is_clean_and_the_list_is_complete() {
    let (home, sources) = broken();
    let report = check(&sources, &limits());
    let out = home.path().join("clean");
    let summary = write_clean(&sources, &report, &out).unwrap();
    let wanted = FixSummary {
        notes: 3,
        interactions: 2,
        pairs: 2,
        images: 1,
        left_out: 18,
    };
    assert_eq!(summary, wanted);
    let clean = Sources {
        notes: out.join("notes.jsonl"),
        interactions: Some(out.join("interactions.csv")),
        pairs: Some(out.join("pairs.csv")),
        images: out.clone(),
        time_unit: TimeUnit::Auto,
        image_cache_max_bytes: 1 << 30,
    };
    let again = check(&clean, &limits());
    assert_eq!(again.findings, []);
    let notes = NoteSet::read(&clean.notes).unwrap();
    assert_eq!(notes.get("a").unwrap().extra["year"], 1);
    assert_eq!(
        Interactions::read(&out.join("interactions.csv"), TimeUnit::Auto)
            .unwrap()
            .events
            .len(),
        2
    );
    assert_eq!(
        read_pairs(&out.join("pairs.csv")).unwrap().pairs[1].weight,
        0.5
    );

    let left_out = fs::read_to_string(out.join("left_out.jsonl")).unwrap();
    let left_out: Vec<serde_json::Value> = left_out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(left_out.len() as u64, summary.left_out);
    let reasons: Vec<_> = left_out
        .iter()
        .filter_map(|row| row["message"].as_str())
        .collect();
    assert!(
        reasons.contains(&"the note `cut` is left out"),
        "{reasons:?}"
    );
    assert!(
        reasons.contains(&"the note `big` is left out"),
        "{reasons:?}"
    );

    // Never over something that is there, and never half.
    let message = write_clean(&sources, &report, &out)
        .unwrap_err()
        .to_string();
    assert!(message.contains("not empty"), "{message}");
}

#[test]
fn whole_files_that_cannot_be_read_are_findings_and_cannot_be_cleaned() {
    let (home, sources) = broken();
    for (broken, row, kind) in [
        (
            Sources {
                notes: home.path().join("x.jsonl"),
                ..sources.clone()
            },
            None,
            "unreadable_file",
        ),
        (
            Sources {
                images: home.path().join("x"),
                ..sources.clone()
            },
            None,
            "unreadable_file",
        ),
        (
            Sources {
                interactions: Some(home.path().join("pairs.csv")),
                ..sources.clone()
            },
            Some(1),
            "wrong_columns",
        ),
        (
            Sources {
                pairs: Some(home.path().join("x.parquet")),
                ..sources.clone()
            },
            None,
            "unreadable_file",
        ),
    ] {
        let report = check(&broken, &limits());
        let found = |finding: &&Finding| finding.row == row && finding.kind.name() == kind;
        let finding = report.findings.iter().find(found).unwrap();
        assert!(finding.whole_file);
        let out = home.path().join("out");
        let message = write_clean(&broken, &report, &out).unwrap_err().to_string();
        assert!(message.contains("cannot be cleaned"), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn pictures_of_shards_are_checked_and_copied() {
    let (home, mut sources) = broken();
    let shard = home.path().join("shard.tar");
    let mut builder = tar::Builder::new(fs::File::create(&shard).unwrap());
    builder
        .append_dir_all("images", home.path().join("images"))
        .unwrap();
    builder.into_inner().unwrap();
    let before = check(&sources, &limits());
    sources.images = shard;
    let report = check(&sources, &limits());
    assert_eq!(places(&report.findings), places(&before.findings));
    let out = home.path().join("clean");
    assert_eq!(write_clean(&sources, &report, &out).unwrap().images, 1);
    let good = fs::read(home.path().join("images/good.png")).unwrap();
    assert_eq!(fs::read(out.join("images/good.png")).unwrap(), good);
}

#[test]
fn what_may_not_be_meant_is_a_warning_and_no_finding() {
    let home = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    for name in ["grey16.png", "rgba.png", "exif_rotated.jpg"] {
        fs::copy(fixtures.join(name), home.path().join(name)).unwrap();
    }
    RgbImage::new(90, 10)
        .save(home.path().join("long.png"))
        .unwrap();
    RgbImage::new(9, 9)
        .save(home.path().join("e\u{301}.png"))
        .unwrap();
    RgbImage::new(9, 9)
        .save(home.path().join("\u{e9}.png"))
        .unwrap();
    let notes = [
        r#"{"id":"1","title":"A","image":"grey16.png"}"#,
        r#"{"id":"2","title":"B","image":"rgba.png"}"#,
        r#"{"id":"3","title":"C","image":"exif_rotated.jpg"}"#,
        r#"{"id":"4","title":"D","image":"long.png"}"#,
        "{\"id\":\"5\",\"title\":\"E\",\"image\":\"e\u{301}.png\"}",
        r#"{"id":"6","title":"<b>F</b>"}"#,
        "{\"id\":\"7\",\"title\":\"\u{200b}\",\"image\":\"long.png\"}",
    ];
    write(home.path(), "notes.jsonl", notes.join("\n"));
    let log = "user_id,note_id,timestamp\nu,1,5\nu,2,5\nv,1,5\n";
    write(home.path(), "interactions.csv", log);
    let sources = Sources {
        notes: home.path().join("notes.jsonl"),
        interactions: Some(home.path().join("interactions.csv")),
        pairs: None,
        images: home.path().into(),
        time_unit: mlrm_config::TimeUnit::Auto,
        image_cache_max_bytes: 1 << 30,
    };
    let report = check(&sources, &DecodeOptions::default());
    assert_eq!(report.findings, []);
    let place = |row, kind| ("notes.jsonl".to_owned(), row, kind);
    assert_eq!(
        places(&report.warnings),
        [
            place(6, "markup"),
            place(7, "invisible_text"),
            place(6, "no_image"),
            place(1, "sixteen_bit_image"),
            place(2, "transparent_image"),
            place(3, "turned_image"),
            place(4, "extreme_shape"),
            place(5, "twin_images"),
            place(7, "extreme_shape"),
            ("interactions.csv".into(), 0, "tied_times"),
        ]
    );
    // Notes of which none has a picture are a set of texts.
    write(home.path(), "notes.jsonl", r#"{"id":"1","title":"A"}"#);
    fs::remove_file(home.path().join("interactions.csv")).unwrap();
    let texts = Sources {
        interactions: None,
        ..sources
    };
    assert_eq!(check(&texts, &DecodeOptions::default()).warnings, []);
}
