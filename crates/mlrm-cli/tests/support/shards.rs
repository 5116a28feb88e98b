//! Pictures of a folder in files of many.

use std::fs::{self, File};
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::support::Home;

/// Keys of the pictures, in the order of the notes, and what these hold.
pub fn pictures(home: &Home) -> Vec<(String, Vec<u8>)> {
    let text = home.read("data/notes.jsonl");
    let keys = text.lines().map(|line| {
        let note: Value = serde_json::from_str(line).expect("JSON");
        note["image"].as_str().expect("a key").to_owned()
    });
    keys.map(|key| {
        let bytes = fs::read(home.path("data").join(&key)).expect("a picture");
        (key, bytes)
    })
    .collect()
}

pub fn write_tar(home: &Home, name: &str, pictures: &[(String, Vec<u8>)]) {
    let file = File::create(home.path(name)).expect("a file");
    let mut builder = tar::Builder::new(file);
    for (key, bytes) in pictures {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, key, bytes.as_slice())
            .expect("an entry");
    }
    builder.finish().expect("a tar file");
}

/// As structs of bytes and a path, in row groups of so many.
pub fn write_parquet(home: &Home, name: &str, pictures: &[(String, Vec<u8>)], group_rows: usize) {
    let bytes = BinaryArray::from_iter_values(pictures.iter().map(|(_, bytes)| bytes));
    let paths = StringArray::from_iter_values(pictures.iter().map(|(key, _)| key));
    let structs = StructArray::from(vec![
        (
            Arc::new(Field::new("bytes", DataType::Binary, true)),
            Arc::new(bytes) as ArrayRef,
        ),
        (
            Arc::new(Field::new("path", DataType::Utf8, true)),
            Arc::new(paths) as ArrayRef,
        ),
    ]);
    let columns = vec![("image", Arc::new(structs) as ArrayRef)];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let file = File::create(home.path(name)).expect("a file");
    let options = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows));
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), Some(options.build())).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a file");
}
