//! The report: whole, self-contained, and deaf to what notes contain.

mod support;

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use mlrm_events::{Event, EventLog, EventSink, Split, Stamped, Warning};
use mlrm_report::examples::{Example, Hit, ModelResults, Note, read_examples};
use mlrm_report::run::{Run, RunError};
use mlrm_report::{html, markdown};
use support::{START, Shape, embedding_probe, run};
use tempfile::TempDir;

const EVIL: &str = "</p><script>alert('note')</script><img src=x onerror=alert(1)> & \"quotes\"";

fn note(id: &str, image: Option<&str>) -> Note {
    let title = format!("Title {id} {EVIL}");
    Note {
        id: id.into(),
        title,
        text: EVIL.into(),
        image: image.map(PathBuf::from),
    }
}

fn example(id: &str, rank: Option<u64>) -> Example {
    let hit = |id: &str, right| Hit {
        note: note(id, Some("images/a.png")),
        score: 0.75,
        right,
    };
    Example {
        query: note(id, Some("images/a.png")),
        partners: vec![
            note("partner", Some("images/missing.png")),
            note("bare", None),
        ],
        models: vec![ModelResults {
            name: EVIL.into(),
            first_right_rank: rank,
            results: vec![hit("x", false), hit("y", rank == Some(2))],
        }],
    }
}

/// A run folder with events, pictures and examples.
fn folder(name: &str, shape: Shape) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join(name);
    std::fs::create_dir_all(folder.join("report/images")).unwrap();
    let mut log = EventLog::create(folder.join("events.jsonl")).unwrap();
    run(shape).iter().for_each(|event| log.emit(event).unwrap());
    for step in [100, 200] {
        log.emit(&embedding_probe(step)).unwrap();
    }
    let message = EVIL.to_owned();
    let event = Event::Warning(Warning {
        step: Some(1),
        message,
    });
    log.emit(&Stamped {
        time_seconds: START + 9.0,
        event,
    })
    .unwrap();
    let picture = RgbImage::from_fn(500, 300, |x, y| Rgb([x as u8, y as u8, 90]));
    picture.save(folder.join("report/images/a.png")).unwrap();
    let examples = [
        example("2", Some(2)),
        example("none", None),
        example("57", Some(57)),
    ];
    let lines: Vec<String> = examples
        .iter()
        .map(|example| serde_json::to_string(example).unwrap())
        .collect();
    std::fs::write(folder.join("report/examples.jsonl"), lines.join("\n")).unwrap();
    (parent, folder)
}

const SHAPE: Shape = Shape {
    steps: 400,
    total_steps: 400,
    every: 100,
    ended: true,
    seed: 1,
};

fn page(runs: &[Run]) -> String {
    html::page(runs, &html::Options::default())
}

#[test]
fn a_page_is_self_contained_and_whole() {
    let (_parent, folder) = folder("posters", SHAPE);
    let page = page(&[Run::read(&folder).unwrap()]);
    for wanted in [
        "<title>posters</title>",
        "default-src 'none'",
        "Recall@10",
        "BM25",
        "<small>",
        "Saliency by layer at step 400",
        "Gate values at step 400",
        "Learning rate",
        "Effective rank",
        "Similarity of unrelated notes",
        "train.learning_rate",
        "picture cannot be read",
        "no picture",
        "data:image/jpeg;base64,/9j/",
        "first true partner at rank 57",
        "no true partner found",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    for (index, _) in page.match_indices("src=\"") {
        assert!(page[index..].starts_with("src=\"data:image/jpeg;base64,"));
    }
    for forbidden in [
        "http://", "https://", "@import", "url(", "<script", "<link", "<iframe",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_tags_match(&page);
}

#[test]
fn notes_are_text_and_nothing_else() {
    let (_parent, folder) = folder("<b>run", SHAPE);
    let runs = [Run::read(&folder).unwrap()];
    let page = page(&runs);
    assert!(!page.contains("<script") && !page.contains("onerror=alert(1)>"));
    assert!(page.contains("&lt;script&gt;alert(&#39;note&#39;)&lt;/script&gt;"));
    assert!(!page.contains("<b>run"));
    let text = markdown::page(&runs);
    assert!(
        !text.contains("<b>") && text.contains("&lt;b&gt;run"),
        "{text}"
    );
}

#[test]
fn worst_failures_come_first() {
    let (_parent, folder) = folder("posters", SHAPE);
    let examples = read_examples(&folder.join("report/examples.jsonl")).unwrap();
    let ids: Vec<&str> = examples
        .iter()
        .map(|example| example.query.id.as_str())
        .collect();
    assert_eq!(ids, ["none", "57", "2"]);
    let options = html::Options {
        examples: 1,
        ..html::Options::default()
    };
    let page = html::page(&[Run::read(&folder).unwrap()], &options);
    assert_eq!(page.matches("<article").count(), 1);
    assert!(page.contains("1 of 3 queries"));
}

#[test]
fn runs_are_compared() {
    let (_first_parent, first) = folder("first", SHAPE);
    let (_second_parent, second) = folder("second", Shape { seed: 3, ..SHAPE });
    let runs = [Run::read(&first).unwrap(), Run::read(&second).unwrap()];
    let page = page(&runs);
    assert!(page.contains("<title>first, second</title>"));
    assert!(page.contains("2 training runs compared"));
    assert!(page.contains("What differs:"));
    assert!(page.contains("var(--c0)") && page.contains("var(--c1)"));
    assert_eq!(
        page.matches("BM25</td>").count(),
        1,
        "the same baseline stands once"
    );
    assert_tags_match(&page);
    let text = markdown::page(&runs);
    assert!(
        text.contains("| **first** |") && text.contains("| **second** |"),
        "{text}"
    );
}

#[test]
fn small_runs_have_a_report_too() {
    for steps in [0, 1] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("events.jsonl");
        let mut log = EventLog::create(&path).unwrap();
        let shape = Shape {
            steps,
            ..Shape::default()
        };
        run(shape).iter().for_each(|event| log.emit(event).unwrap());
        let runs = [Run::read(&path).unwrap()];
        assert_tags_match(&page(&runs));
        assert!(markdown::page(&runs).contains("not ended"));
    }
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("events.jsonl");
    EventLog::create(&path).unwrap();
    assert!(matches!(
        Run::read(parent.path()),
        Err(RunError::Empty { .. })
    ));
    assert!(
        Run::read(Path::new("/no/such/run"))
            .unwrap_err()
            .to_string()
            .contains("/no/such/run")
    );
}

#[test]
fn malformed_examples_are_named() {
    let (_parent, folder) = folder("posters", SHAPE);
    let path = folder.join("report/examples.jsonl");
    std::fs::write(&path, "\n{\"query\": {}}\n").unwrap();
    let error = Run::read(&folder).unwrap_err().to_string();
    assert!(
        error.contains("examples.jsonl: line 2: missing field `id`"),
        "{error}"
    );
}

/// Every element that is opened is closed, in order.
fn assert_tags_match(page: &str) {
    const VOID: [&str; 3] = ["meta", "img", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/', '\n'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(
                open.pop(),
                Some(name),
                "before {}",
                &rest[..rest.len().min(80)]
            );
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn values_of_two_splits_make_no_line() {
    let (_parent, folder) = folder("posters", SHAPE);
    let mut run = Run::read(&folder).unwrap();
    let mut test = run.evaluation().unwrap().clone();
    test.split = Split::Test;
    test.step = SHAPE.steps;
    test.slices.get_mut("all").unwrap()["recall@10"] = 0.9;
    let before = page(std::slice::from_ref(&run));
    let event = Event::Evaluation(test);
    run.state.apply(&Stamped {
        time_seconds: START + 1e6,
        event,
    });
    let after = page(&[run]);
    let course = |page: &str| {
        let chart = page.split("Recall@10 over training").nth(2).unwrap();
        let chart = chart.split("</svg>").next().unwrap().to_owned();
        let line = chart.split("<polyline points=\"").nth(1).unwrap();
        (line.split('"').next().unwrap().split(' ').count(), chart)
    };
    // Four evaluations of the validation notes, before and after; the test's is a level.
    assert_eq!(course(&before).0, 4);
    assert_eq!(course(&after).0, 4);
    assert!(!course(&before).1.contains("posters, test"));
    assert!(course(&after).1.contains("posters, test"));
    assert!(after.contains("on the test notes"));
}

#[test]
fn names_and_messages_stay_text_in_markdown() {
    let (_folder, path) = folder("nasty", Shape::default());
    let mut run = Run::read(&path).unwrap();
    run.name = "a\u{1b}[31m|b\u{202e}\n# c".into();
    let text = mlrm_report::markdown::page(&[run]);
    assert!(
        text.contains("## a\\\\u001b\\[31m\\|b\\\\u202e \\# c\n"),
        "{text}"
    );
    assert!(!text.contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn a_run_that_diverged_has_a_report() {
    let (_folder, path) = folder("diverged", Shape::default());
    let log = path.join("events.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let diverged: Vec<String> = text
        .lines()
        .map(|line| {
            let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
            if event["event"] == "evaluation" {
                for slice in event["slices"].as_object_mut().unwrap().values_mut() {
                    for value in slice.as_object_mut().unwrap().values_mut() {
                        *value = "NaN".into();
                    }
                }
                event["uniformity"] = "NaN".into();
            }
            if event["event"] == "train_step" {
                event["loss"] = "NaN".into();
                event["gradient_norm"] = "Infinity".into();
            }
            event.to_string()
        })
        .collect();
    std::fs::write(&log, diverged.join("\n") + "\n").unwrap();
    let runs = [Run::read(&path).unwrap()];
    let html = page(&runs);
    assert!(html.contains("NaN"));
    assert!(
        !html.contains("=\"NaN") && !html.contains(" NaN,"),
        "a place that is no number"
    );
    assert_tags_match(&html);
    assert!(mlrm_report::markdown::page(&runs).contains("NaN"));
}
