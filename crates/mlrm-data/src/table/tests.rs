use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, MapBuilder, StringBuilder};
use arrow_array::*;
use arrow_schema::{DataType, Field, Fields};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(name);
    fs::write(&path, content).unwrap();
    (home, path)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(content).unwrap();
    packer.finish().unwrap()
}

fn zstandard(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, codec: Compression) {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let properties = WriterProperties::builder().set_compression(codec).build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Lines and texts of the columns `a` and `b`.
fn cells(path: &Path, options: &TableOptions<'_>) -> Result<Vec<(u64, String, String)>> {
    let table = Table::open(path, options)?;
    let mut found = Vec::new();
    let mut failed = None;
    table.rows(&["b", "a", "none"], |line, row| {
        let texts = row.and_then(|row| {
            assert_eq!(row.cell(2)?, Cell::Null);
            Ok((
                row.cell(1)?.id("a")?.into_owned(),
                row.cell(0)?.id("b")?.into_owned(),
            ))
        });
        match texts {
            Ok((a, b)) => found.push((line, a, b)),
            Err(problem) => failed = failed.take().or(Some(problem.at(path, line))),
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(found), Err)
}

fn objects(path: &Path) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut failed = None;
    Table::open(path, &TableOptions::default())?.objects(|line, fields| {
        match fields {
            Ok(fields) => found.push(Value::Object(fields)),
            Err(problem) => failed = failed.take().or(Some(problem.at(path, line))),
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(found), Err)
}

fn message_of(name: &str, content: impl AsRef<[u8]>) -> String {
    let (_home, path) = file(name, content);
    cells(&path, &TableOptions::default())
        .unwrap_err()
        .to_string()
}

fn texts(rows: &[(u64, String, String)]) -> Vec<(&str, &str)> {
    rows.iter()
        .map(|(_, a, b)| (a.as_str(), b.as_str()))
        .collect()
}

#[test]
fn every_form_and_packing_gives_the_same_cells() {
    let wanted = [("1", "x, y"), ("2", "é;|")];
    let csv = "\u{feff}a, b ,c\r\n1,\"x, y\",\r\n\r\n2,é;|,z\r\n";
    let json = "{\"c\":null,\"a\":1,\"b\":\"x, y\"}\n\n{\"b\":\"é;|\",\"a\":\"2\"}";
    let lines = csv.split_inclusive('\n').map(|line| gzip(line.as_bytes()));
    let parts: Vec<u8> = lines.flatten().collect();
    for (name, content) in [
        ("t.csv", csv.as_bytes().to_vec()),
        ("t.tsv", b"\"a\"\tb\n1\tx, y\n2\t\xc3\xa9;|\n".to_vec()),
        ("t.txt", b"b;a\nx, y;1\n\"\xc3\xa9;|\";2\n".to_vec()),
        ("t.csv", b"q|a|b\n|1|x, y\n|2|\"\xc3\xa9;|\"\n".to_vec()),
        ("t.jsonl", json.as_bytes().to_vec()),
        ("t", json.as_bytes().to_vec()),
        ("t.csv.gz", gzip(csv.as_bytes())),
        ("t.csv.gz", parts),
        ("t.csv.zst", zstandard(csv.as_bytes())),
        ("t.jsonl.gz", gzip(json.as_bytes())),
        ("t.zst", zstandard(json.as_bytes())),
        // Known by its bytes, whatever it is called.
        ("t.jsonl", gzip(json.as_bytes())),
    ] {
        let (_home, path) = file(name, content);
        let rows = cells(&path, &TableOptions::default()).unwrap();
        assert_eq!(texts(&rows), wanted, "{name}");
    }
    let (home, path) = file("t.parquet", "");
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int16Array::from(vec![1, 2]))),
            ("b", Arc::new(LargeStringArray::from(vec!["x, y", "é;|"]))),
        ];
        write_parquet(&path, columns, codec);
        let rows = cells(&path, &TableOptions::default()).unwrap();
        assert_eq!(texts(&rows), wanted, "{codec}");
        assert_eq!(rows[1].0, 2);
    }
    drop(home);
}

#[test]
fn rows_are_told_by_their_lines() {
    let csv = "a,b\n1,\"two\nlines\"\n2,x\n";
    let (_home, path) = file("t.csv", csv);
    let rows = cells(&path, &TableOptions::default()).unwrap();
    let lines: Vec<u64> = rows.iter().map(|row| row.0).collect();
    assert_eq!(lines, [2, 4]);
    assert_eq!(rows[0].2, "two\nlines");
    let csv = "a,b\r\n1,x\r\n2,\"two\r\nlines\"\r\n3,y\r\n";
    let (_home, path) = file("t.csv", csv);
    let rows = cells(&path, &TableOptions::default()).unwrap();
    let lines: Vec<u64> = rows.iter().map(|row| row.0).collect();
    assert_eq!(lines, [2, 3, 5]);
}

#[test]
fn separators_and_missing_headers_are_said() {
    let notices = |content: &str, options: &TableOptions<'_>| {
        let (_home, path) = file("t.csv", content);
        let table = Table::open(&path, options).unwrap();
        (table.columns().join(" "), table.notices().join("; "))
    };
    let named = TableOptions::default();
    assert_eq!(notices("a,b\n", &named), ("a b".into(), String::new()));
    let said = "fields are separated by semicolons".to_owned();
    assert_eq!(
        notices("a;b,c;d\n", &named),
        ("a b,c d".into(), said.clone())
    );
    // Known names go before the number of fields.
    let known = TableOptions {
        known: &["a", "b"],
        ..TableOptions::default()
    };
    assert_eq!(notices("a;b;c,d,e,f,g\n", &known).1, said);
    let optional = TableOptions {
        known: &["a", "b"],
        header: Header::Optional {
            names: &["a", "b"],
            fields: 2..=2,
        },
        ..TableOptions::default()
    };
    let (columns, said) = notices("1\t2;3;4\n", &optional);
    assert_eq!(columns, "a b");
    assert!(
        said.contains("tabs") && said.contains("no header row"),
        "{said}"
    );
    // Names of ids in the first row are a header, if not the one that is wanted.
    assert_eq!(notices("item_id,note\n", &optional).0, "item_id note");
}

#[test]
fn separators_of_several_characters_and_latin_1_are_read() {
    let (_home, path) = file("t.dat", b"7::Am\xe9lie: \"the\" film\r\n\n8::x\n");
    let options = TableOptions {
        header: Header::None(&["a", "b"]),
        separator: Some("::"),
        encoding: Encoding::Latin1,
        ..TableOptions::default()
    };
    let rows = cells(&path, &options).unwrap();
    let row = |line, a: &str, b: &str| (line, a.to_owned(), b.to_owned());
    assert_eq!(
        rows,
        [row(1, "7", "Amélie: \"the\" film"), row(3, "8", "x")]
    );
    // More than what is looked at in advance.
    let long = b"1::\xe9\n".repeat(400_000);
    let (_home, path) = file("t.dat", long);
    let rows = cells(&path, &options).unwrap();
    assert!(rows.len() == 400_000 && rows.iter().all(|row| row.2 == "é"));
}

#[test]
fn damaged_and_foreign_files_are_errors_that_say_so() {
    let csv: String = (0..5000)
        .map(|row| format!("{row},{}\n", row * 7919 % 1000))
        .collect();
    let csv = format!("a,b\n{csv}");
    for (name, whole) in [
        ("t.csv.gz", gzip(csv.as_bytes())),
        ("t.csv.zst", zstandard(csv.as_bytes())),
    ] {
        let message = message_of(name, &whole[..whole.len() - 5]);
        assert!(message.contains("cut off"), "{message}");
        let mut broken = whole.clone();
        let middle = broken.len() / 2;
        broken[middle..middle + 40].fill(0x55);
        // Where the packing does not notice, the rows do.
        message_of(name, &broken);
    }
    for (name, content, wanted) in [
        ("t.csv", b"\xff\xfea\0,\0b\0\n\0".as_slice(), "UTF-16"),
        ("t.csv", b"\xfe\xff\0a\0,\0b", "UTF-16"),
        ("t.csv", b"a\0,\0b\0\n\0", "UTF-16"),
        ("t.xlsx", b"PK\x03\x04....", "spreadsheet"),
        ("t.csv", b"BZh91AY&SY", "bzip2"),
        ("t.csv", b"\xfd7zXZ\0\0", "xz"),
        ("t.arrow", b"ARROW1\0\0", "Feather"),
        ("t.jsonl", b"[{\"a\":1,\"b\":2}]", "one JSON list"),
        ("t.json", b"\n [\n{\"a\":1,\"b\":2}]", "one JSON list"),
        ("t.csv", b"a,b\n1,\xff\n", ":2: the row is no UTF-8"),
        ("t.csv", b"a,b\n1,\"x\n2,y\n3,z\n", "a quote goes on over"),
        (
            "t.csv",
            b"a,b\n1\n",
            ":2: 1 fields where the first row has 2",
        ),
        ("t.csv", b"a,b,a\n1,2,3\n", "two columns have the name `a`"),
        (
            "t.jsonl",
            b"{\"a\":1,\"b\":2,\"a\":3}\n",
            ":1: the key `a` occurs twice",
        ),
        (
            "t.jsonl",
            b"{\"a\":1,\"b\":2,\"c\":[{\"d\":1,\"d\":1}]}\n",
            "the key `d` occurs twice",
        ),
        (
            "t.jsonl",
            b"{\"a\":7.0,\"b\":2}\n",
            ":1: `a` is the floating point number 7.0",
        ),
        (
            "t.jsonl",
            b"{\"a\":true,\"b\":2}\n",
            ":1: `a` is a truth value",
        ),
    ] {
        let message = message_of(name, content);
        assert!(message.contains(wanted), "{message}");
    }
    let mut inner = Vec::new();
    let (_home, path) = file("x.parquet", "");
    write_parquet(
        &path,
        vec![("a", Arc::new(Int16Array::from(vec![1])))],
        Compression::SNAPPY,
    );
    inner.extend(gzip(&fs::read(&path).unwrap()));
    let message = message_of("t.parquet.gz", inner);
    assert!(
        message.contains("Parquet file that is packed with gzip"),
        "{message}"
    );
}

#[test]
fn missing_columns_are_named_with_what_is_there() {
    let required = |content: &str| {
        let (_home, path) = file("t.csv", content);
        let table = Table::open(&path, &TableOptions::default()).unwrap();
        table
            .require(&["user_id", "note_id"])
            .unwrap_err()
            .to_string()
    };
    let message = required("user_id,item_id,time\n");
    assert!(
        message.contains("the file has user_id,item_id,time") && message.contains("data import"),
        "{message}"
    );
    let message = required("User_ID,note_id\n");
    assert!(
        message.contains("write `user_id` for `User_ID`"),
        "{message}"
    );
    assert!(required("").contains("the file is empty"));
}

/// A column of every kind that Parquet files hold, with its row as JSON.
fn columns_of_every_type() -> Vec<(&'static str, ArrayRef, Value)> {
    let mut vector = FixedSizeListBuilder::new(Float32Builder::new(), 2);
    vector.values().append_slice(&[0.5, -1.0]);
    vector.append(true);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Float32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(0.5);
    map.append(true).unwrap();
    let members = Fields::from(vec![
        Field::new("x", DataType::Int32, true),
        Field::new("day", DataType::Date32, true),
    ]);
    let members = StructArray::new(
        members,
        vec![
            Arc::new(Int32Array::from(vec![3])),
            Arc::new(Date32Array::from(vec![0])),
        ],
        None,
    );
    let words: DictionaryArray<types::Int8Type> = ["word"].into_iter().collect();
    let short = Decimal128Array::from(vec![1250])
        .with_precision_and_scale(9, 2)
        .unwrap();
    let long = Decimal128Array::from(vec![12_345_678_901_234_567_890])
        .with_precision_and_scale(30, 4)
        .unwrap();
    let point = 1_696_118_400_123_i64;
    let zoned = TimestampMillisecondArray::from(vec![point]).with_timezone("+02:00");
    vec![
        (
            "date32",
            Arc::new(Date32Array::from(vec![18_262])),
            json!("2020-01-01"),
        ),
        (
            "date64",
            Arc::new(Date64Array::from(vec![-86_400_000])),
            json!("1969-12-31"),
        ),
        (
            "seconds",
            Arc::new(TimestampSecondArray::from(vec![point / 1000])),
            json!("2023-10-01T00:00:00"),
        ),
        ("zoned", Arc::new(zoned), json!("2023-10-01T00:00:00.123Z")),
        (
            "nanoseconds",
            Arc::new(TimestampNanosecondArray::from(vec![-1])),
            json!("1969-12-31T23:59:59.999999999"),
        ),
        (
            "time",
            Arc::new(Time64MicrosecondArray::from(vec![3_600_000_000])),
            json!("01:00:00"),
        ),
        ("price", Arc::new(short), json!(12.5)),
        ("long", Arc::new(long), json!("1234567890123456.7890")),
        ("vector", Arc::new(vector.finish()), json!([0.5, -1.0])),
        ("map", Arc::new(map.finish()), json!({"k": 0.5})),
        (
            "struct",
            Arc::new(members),
            json!({"x": 3, "day": "1970-01-01"}),
        ),
        ("dictionary", Arc::new(words), json!("word")),
        (
            "large",
            Arc::new(UInt64Array::from(vec![u64::MAX])),
            json!(u64::MAX),
        ),
        (
            "truth",
            Arc::new(BooleanArray::from(vec![true])),
            json!(true),
        ),
        (
            "half",
            Arc::new(Float16Array::from(vec![half(0.5)])),
            json!(0.5),
        ),
        (
            "text",
            Arc::new(LargeStringArray::from(vec!["t"])),
            json!("t"),
        ),
        (
            "view",
            Arc::new(StringViewArray::from(vec!["v"])),
            json!("v"),
        ),
        ("null", Arc::new(NullArray::new(1)), Value::Null),
        (
            "missing",
            Arc::new(Int8Array::from(vec![None])),
            Value::Null,
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from_iter_values([b"\xff"])),
            Value::Null,
        ),
        (
            "duration",
            Arc::new(DurationMillisecondArray::from(vec![1500])),
            json!("PT1.5S"),
        ),
    ]
}

fn half(value: f32) -> <types::Float16Type as ArrowPrimitiveType>::Native {
    <<types::Float16Type as ArrowPrimitiveType>::Native>::from_f32(value)
}

#[test]
fn parquet_columns_of_every_type_become_json() {
    let columns = columns_of_every_type();
    let (_home, path) = file("t.parquet", "");
    let arrays = columns
        .iter()
        .map(|(name, array, _)| (*name, array.clone()));
    write_parquet(&path, arrays.collect(), Compression::SNAPPY);
    let table = Table::open(&path, &TableOptions::default()).unwrap();
    assert_eq!(table.left_out(), ["bytes"]);
    let row = &objects(&path).unwrap()[0];
    for (name, _, wanted) in &columns {
        assert_eq!(row.get(name).unwrap_or(&Value::Null), wanted, "{name}");
        assert!(
            !wanted.is_null() || row.get(name).is_none(),
            "{name}: nulls are absent"
        );
    }
    // Times that are no text come with their seconds.
    let names = ["date64", "zoned", "nanoseconds"];
    let table = Table::open(&path, &TableOptions::default()).unwrap();
    table
        .rows(&names, |_, row| {
            let row = row.unwrap();
            let times = [0, 1, 2].map(|index| row.cell(index).unwrap());
            let wanted = [-86_400, 1_696_118_400, -1].map(Cell::Time);
            assert_eq!(times, wanted);
            ControlFlow::Continue(())
        })
        .unwrap();
}

#[test]
fn fields_of_csv_become_json_texts_without_empty_ones() {
    let (_home, path) = file("t.csv", ",id,price,note\n0,7,,\"a\nb\"\n");
    assert_eq!(
        objects(&path).unwrap(),
        [json!({"id": "7", "note": "a\nb"})]
    );
    let table = Table::open(&path, &TableOptions::default()).unwrap();
    assert_eq!(table.left_out().len(), 1);
    let (_home, path) = file("t.csv", "id,x,x\n1,2,3\n");
    let message = objects(&path).unwrap_err().to_string();
    assert!(
        message.contains("two columns have the name `x`"),
        "{message}"
    );
}

#[test]
fn no_bytes_make_the_reader_panic() {
    proptest!(ProptestConfig::with_cases(400), |(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        text in "[ab,;\t|\"{}:\n0-9.-]{0,60}",
        name in prop::sample::select(vec!["t.csv", "t.jsonl", "t", "t.gz"]),
        pack in prop::sample::select(vec!["", "gzip", "zstd"]),
    )| {
        for content in [&bytes, text.as_bytes()] {
            let content = match pack {
                "gzip" => gzip(content),
                "zstd" => zstandard(content),
                _ => content.to_vec(),
            };
            let (_home, path) = file(name, content);
            let _ = cells(&path, &TableOptions::default());
            let _ = objects(&path);
        }
    });
}
