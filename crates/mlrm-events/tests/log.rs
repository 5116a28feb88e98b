//! The log on disk: whole lines only, whatever happens to its writer, and a reader that follows it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use mlrm_events::{Event, EventLog, EventSink, EventTail, Stamped, Warning, read_log};
use tempfile::TempDir;

fn warning(number: u64) -> Stamped {
    Stamped {
        time_seconds: number as f64,
        event: Event::Warning(Warning {
            step: Some(number),
            message: format!("warning {number}"),
        }),
    }
}

fn steps(events: &[Stamped]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| event.event.step())
        .collect()
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    (folder, path)
}

fn write_raw(path: &Path, bytes: &[u8]) {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

#[test]
fn a_log_is_read_as_it_was_written_and_never_overwritten() {
    let (_folder, path) = folder();
    let mut log = EventLog::create(&path).unwrap();
    for number in 0..5 {
        log.emit(&warning(number)).unwrap();
    }
    log.emit_now(warning(5).event).unwrap();
    let events = read_log(&path).unwrap().events;
    assert_eq!(steps(&events), [0, 1, 2, 3, 4, 5]);
    assert!(
        events[5].time_seconds > 1.6e9,
        "stamped with the time of day"
    );

    let error = EventLog::create(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("events.jsonl"), "{error}");
}

#[test]
fn append_cuts_a_torn_line_of_any_length() {
    for torn_bytes in [0, 1, 100, 70_000, 200_000] {
        for whole_lines in [0, 1, 3] {
            let (_folder, path) = folder();
            let mut log = EventLog::append(&path).unwrap();
            for number in 0..whole_lines {
                log.emit(&warning(number)).unwrap();
            }
            drop(log);
            write_raw(&path, &vec![b'x'; torn_bytes]);
            assert_eq!(
                read_log(&path).unwrap().events.len() as u64,
                whole_lines,
                "torn is left out"
            );

            EventLog::append(&path).unwrap().emit(&warning(99)).unwrap();
            let mut expected: Vec<u64> = (0..whole_lines).collect();
            expected.push(99);
            assert_eq!(steps(&read_log(&path).unwrap().events), expected);
        }
    }
}

#[test]
fn what_can_be_read_is_read_and_the_rest_counted() {
    let (_folder, path) = folder();
    let lines = [
        &warning(1).to_line(),
        "garbage",
        &warning(2).to_line(),
        "{\"event\":1}",
        &warning(3).to_line(),
        "torn",
    ];
    write_raw(&path, lines.join("\n").as_bytes());
    let log = read_log(&path).unwrap();
    assert_eq!(steps(&log.events), [1, 2, 3]);
    let malformed: Vec<usize> = log.malformed.iter().map(|error| error.line).collect();
    assert_eq!(malformed, [2, 4]);
    let first = log.malformed[0].to_string();
    assert!(first.starts_with("line 2: "), "{first}");
    let error = read_log(path.with_extension("none")).unwrap_err();
    assert!(error.to_string().contains("events.none"), "{error}");
}

#[test]
fn a_tail_follows_growth_byte_by_byte() {
    let (_folder, path) = folder();
    let mut tail = EventTail::new(&path);
    assert!(tail.poll().unwrap().events.is_empty(), "no file yet");

    let bytes: Vec<u8> = (0..4)
        .flat_map(|n| format!("{}\n", warning(n).to_line()).into_bytes())
        .collect();
    let mut seen = Vec::new();
    for byte in bytes.chunks(1) {
        write_raw(&path, byte);
        let batch = tail.poll().unwrap();
        assert!(!batch.restarted && batch.malformed.is_empty());
        seen.extend(batch.events);
    }
    assert_eq!(seen, read_log(&path).unwrap().events);
    assert!(tail.poll().unwrap().events.is_empty());
}

#[test]
fn a_tail_skips_malformed_lines_and_counts_them() {
    let (_folder, path) = folder();
    write_raw(&path, format!("{}\n", warning(1).to_line()).as_bytes());
    let mut tail = EventTail::new(&path);
    assert_eq!(steps(&tail.poll().unwrap().events), [1]);
    write_raw(
        &path,
        &[b"\n\xff not json\n", warning(2).to_line().as_bytes(), b"\n"].concat(),
    );
    let batch = tail.poll().unwrap();
    assert_eq!(steps(&batch.events), [2]);
    assert_eq!(batch.malformed.len(), 1);
    assert_eq!(batch.malformed[0].line, 3);
}

#[test]
fn a_tail_notices_replacement() {
    let (folder, path) = folder();
    let write = |name: &str, numbers: std::ops::Range<u64>| {
        let path = folder.path().join(name);
        for number in numbers {
            write_raw(&path, format!("{}\n", warning(number).to_line()).as_bytes());
        }
        path
    };
    write("events.jsonl", 0..3);
    let mut tail = EventTail::new(&path);
    assert_eq!(tail.poll().unwrap().events.len(), 3);

    // Longer than the old log: only its beginning tells that it is another one.
    fs::rename(write("longer", 10..20), &path).unwrap();
    let batch = tail.poll().unwrap();
    assert!(batch.restarted);
    assert_eq!(steps(&batch.events), (10..20).collect::<Vec<_>>());

    // Shorter, and a torn line that an appending writer cuts off.
    fs::rename(write("shorter", 10..11), &path).unwrap();
    let batch = tail.poll().unwrap();
    assert!(batch.restarted);
    assert_eq!(steps(&batch.events), [10]);
    write_raw(&path, b"{\"event\":\"torn");
    assert!(tail.poll().unwrap().events.is_empty());
    EventLog::append(&path).unwrap().emit(&warning(11)).unwrap();
    let batch = tail.poll().unwrap();
    assert!(!batch.restarted);
    assert_eq!(steps(&batch.events), [11]);

    fs::remove_file(&path).unwrap();
    assert!(tail.poll().unwrap().restarted);
}

#[test]
fn a_subscriber_that_has_gone_is_no_error() {
    let (mut sender, receiver) = mpsc::channel();
    sender.emit(&warning(1)).unwrap();
    assert_eq!(receiver.recv().unwrap(), warning(1));
    drop(receiver);
    sender.emit(&warning(2)).unwrap();
}
