use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::*;
use proptest::prelude::*;

use super::*;

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(name);
    fs::write(&path, content).unwrap();
    (home, path)
}

fn rows(log: &Interactions) -> Vec<(&str, &str, i64)> {
    let texts = |event: &Interaction| {
        (
            &log.users[event.user],
            &log.notes[event.note],
            event.timestamp_seconds,
        )
    };
    log.events.iter().map(texts).collect()
}

#[test]
fn columns_are_found_by_name() {
    let csv = "\u{feff}x,timestamp,note_id,user_id\r\n,5,\"a,b\",u\r\n\r\nq,0, b ,u\r\n";
    let (_home, path) = file("log.csv", csv);
    let log = Interactions::read(&path, TimeUnit::Auto).unwrap();
    assert_eq!(rows(&log), [("u", "a,b", 5), ("u", "b", 0)]);
    assert_eq!(log.users.len(), 1);
    assert_eq!(log.notes.number("b"), Some(1));
    let again = path.with_file_name("again.csv");
    write_interactions(
        &again,
        rows(&log)
            .into_iter()
            .map(|(user, note, timestamp_seconds)| RawInteraction {
                user,
                note,
                timestamp_seconds,
            }),
    )
    .unwrap();
    let again = Interactions::read(&again, TimeUnit::Auto).unwrap();
    assert_eq!(rows(&again), rows(&log));
}

#[test]
fn errors_name_file_row_and_cure() {
    let head = "user_id,note_id,timestamp\n";
    for (content, wanted) in [
        (
            format!("{head}u,n,1\nu,n,x\n"),
            ":3: `timestamp` is `x`, no whole number",
        ),
        (format!("{head}u,n,1.5\n"), ":2: `timestamp` is `1.5`"),
        (format!("{head}u,n,\n"), ":2: `timestamp` is ``"),
        (format!("{head}u,n,-1\n"), "before 1970"),
        (
            format!("{head}u,n,5\nu,n,1700000000000\n"),
            ":3: `timestamp` 1700000000000 is written as milliseconds, that of row 2 as seconds",
        ),
        (
            format!("{head}u,n,20230101\n"),
            "every `timestamp` reads as a day without hyphens",
        ),
        (format!("{head},n,1\n"), ":2: `user_id` is empty"),
        (
            format!("{head}u,n\n"),
            ":2: 2 fields where the first row has 3",
        ),
        (
            "user,note,time\n".into(),
            ":1: the columns user_id,note_id,timestamp are not all",
        ),
        (String::new(), "the file is empty"),
    ] {
        let (_home, path) = file("log.csv", content);
        let message = Interactions::read(&path, TimeUnit::Auto)
            .unwrap_err()
            .to_string();
        assert!(message.contains(wanted), "{message}");
    }
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> (tempfile::TempDir, PathBuf) {
    let (home, path) = file("log.parquet", "");
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let file = fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (home, path)
}

#[test]
fn parquet_columns_of_many_types_are_read() {
    let users: DictionaryArray<types::Int32Type> = ["u", "v"].into_iter().collect();
    let times = TimestampMillisecondArray::from(vec![1_999, 5_000]);
    let (_home, path) = parquet(vec![
        ("note_id", Arc::new(UInt64Array::from(vec![u64::MAX, 7]))),
        ("timestamp", Arc::new(times)),
        ("user_id", Arc::new(users)),
        (
            "vector",
            Arc::new(BinaryArray::from_iter_values([b"not read", b"not read"])),
        ),
    ]);
    let log = Interactions::read(&path, TimeUnit::Auto).unwrap();
    assert_eq!(
        rows(&log),
        [("u", "18446744073709551615", 1), ("v", "7", 5)]
    );
}

#[test]
fn parquet_errors_name_the_row_or_the_column() {
    let ids = || -> ArrayRef { Arc::new(StringViewArray::from(vec![Some("a"), None])) };
    let (_home, path) = parquet(vec![
        ("note_id", ids()),
        ("user_id", ids()),
        ("timestamp", Arc::new(Int32Array::from(vec![1, 1]))),
    ]);
    let message = Interactions::read(&path, TimeUnit::Auto)
        .unwrap_err()
        .to_string();
    assert!(message.contains(":2: `user_id` is empty"), "{message}");
    let (_home, path) = parquet(vec![("note_id", ids()), ("user_id", ids())]);
    let message = Interactions::read(&path, TimeUnit::Auto)
        .unwrap_err()
        .to_string();
    assert!(message.contains("timestamp are not all there"), "{message}");
    let binary: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"a", b"b"]));
    let (_home, path) = parquet(vec![
        ("note_id", ids()),
        ("user_id", binary),
        ("timestamp", ids()),
    ]);
    let message = Interactions::read(&path, TimeUnit::Auto)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("column `user_id` has the type Binary"),
        "{message}"
    );
}

#[test]
fn no_bytes_make_the_reader_panic() {
    proptest!(ProptestConfig::with_cases(300), |(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        text in "[a,\"\n0-9.-]{0,60}",
        header: bool,
    )| {
        for content in [&bytes, text.as_bytes()] {
            let mut content = content.to_vec();
            if header {
                content.splice(0..0, *b"user_id,note_id,timestamp\n");
            }
            let (_home, path) = file("log.csv", content);
            let _ = Interactions::read(&path, TimeUnit::Auto);
        }
    });
}
