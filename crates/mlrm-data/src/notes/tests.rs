use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(name);
    fs::write(&path, content).unwrap();
    (home, path)
}

fn error_of(name: &str, content: &str) -> String {
    let (_home, path) = file(name, content);
    NoteSet::read(&path).unwrap_err().to_string()
}

#[test]
fn json_lines_are_read_with_their_defaults() {
    let lines = "\u{feff}{\"id\": 7}\n\n  \r\n{\"id\":\"b\",\"title\":\"T\",\"topics\":[\"x\",\"y\"],\
                 \"content\":null,\"image\":\"\",\"category\":\"c\",\"year\":1995,\"z\":[1]}\r\n";
    let (_home, path) = file("notes.jsonl", lines);
    let notes = NoteSet::read(&path).unwrap();
    assert_eq!(notes.len(), 2);
    assert_eq!(
        notes.rows()[0],
        Note {
            id: "7".into(),
            ..Note::default()
        }
    );
    let note = notes.get("b").unwrap();
    assert_eq!(notes.row("b"), Some(1));
    assert_eq!(note.topics, ["x", "y"]);
    assert_eq!(note.image, None);
    assert_eq!(note.category.as_deref(), Some("c"));
    assert_eq!(
        Value::Object(note.extra.clone()),
        json!({"year": 1995, "z": [1]})
    );
}

#[test]
fn errors_name_file_line_and_cure() {
    for (content, wanted) in [
        (
            "{\"id\":1}\n{oops\n",
            ":2: no JSON: key must be a string at column 2",
        ),
        ("{\"id\":1}\n[1]\n", ":2: the line is JSON, but no object"),
        ("{\"title\":\"x\"}\n", ":1: `id` is missing"),
        (
            "{\"id\":1.5}\n",
            ":1: `id` must be text or a whole number, found a number",
        ),
        (
            "{\"id\":\" \"}\n",
            "`id` must be text or a whole number, found an empty text",
        ),
        ("{\"id\":1,\"topics\":\"a\"}\n", "write [\"one\", \"two\"]"),
        (
            "{\"id\":1,\"topics\":[1]}\n",
            "`topics` must be a list of texts, found a number",
        ),
        (
            "{\"id\":1,\"title\":[]}\n",
            "`title` must be text, found a list",
        ),
        (
            "{\"id\":1}\n\n{\"id\":\"1\"}\n",
            ":3: the id `1` is that of row 1 already",
        ),
    ] {
        let message = error_of("notes.jsonl", content);
        assert!(message.contains(wanted), "{message}");
    }
    let missing = NoteSet::read(Path::new("nowhere/notes.jsonl")).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("cannot read `nowhere/notes.jsonl`: ")
    );
}

#[test]
fn written_notes_are_read_back() {
    let notes = vec![
        Note {
            id: "1".into(),
            title: "a \"b\" \u{0} 😀".into(),
            topics: vec!["t".into()],
            image: Some("i/1.png".into()),
            extra: serde_json::from_str("{\"zz\":1.1,\"a\":{\"b\":null}}").unwrap(),
            ..Note::default()
        },
        Note {
            id: "2".into(),
            content: "line\nline".into(),
            ..Note::default()
        },
    ];
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("out/notes.jsonl");
    write_notes(&path, &notes).unwrap();
    assert_eq!(NoteSet::read(&path).unwrap().rows(), notes);
}

#[test]
fn parquet_and_json_lines_give_the_same_notes() {
    let home = tempfile::tempdir().unwrap();
    let mut topics =
        arrow_array::builder::ListBuilder::new(arrow_array::builder::StringBuilder::new());
    topics.append_value([Some("x"), Some("y")]);
    topics.append_null();
    let topics: ListArray = topics.finish();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![5, 6]))),
        ("title", Arc::new(StringArray::from(vec![Some("T"), None]))),
        ("topics", Arc::new(topics)),
        ("year", Arc::new(Int64Array::from(vec![None, Some(3)]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let path = home.path().join("notes.parquet");
    let mut writer = parquet::arrow::ArrowWriter::try_new(
        fs::File::create(&path).unwrap(),
        batch.schema(),
        None,
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let lines = "{\"id\":5,\"title\":\"T\",\"topics\":[\"x\",\"y\"]}\n{\"id\":\"6\",\"year\":3}\n";
    let (_home, json) = file("notes.jsonl", lines);
    let read = NoteSet::read(&path).unwrap();
    assert_eq!(read.rows(), NoteSet::read(&json).unwrap().rows());

    // Broken copies give errors, never panics.
    let whole = fs::read(&path).unwrap();
    proptest!(ProptestConfig::with_cases(300), |(at in 4..whole.len(), byte: u8, cut: bool)| {
        let mut broken = whole.clone();
        broken[at] = byte;
        if cut {
            broken.truncate(at);
        }
        let (_home, path) = file("x.parquet", broken);
        let _ = NoteSet::read(&path);
    });
}

#[test]
fn the_authors_headerless_csv_is_read() {
    let csv =
        "fake001,Pumpkins!,\"Perfect 🎃\n#CottonDoll[话题]# \",pic001,Hobbies@Toys@\nf2,t,c,,\n";
    let (_home, path) = file("notes.csv", csv);
    let notes = NoteSet::read(&path).unwrap();
    let first = &notes.rows()[0];
    assert_eq!(first.topics, ["CottonDoll"]);
    assert_eq!(first.content, "Perfect 🎃\n ");
    assert_eq!(first.image.as_deref(), Some("pic001"));
    assert_eq!(first.category.as_deref(), Some("Hobbies"));
    assert_eq!(first.extra["subcategory"], "Toys");
    assert_eq!(notes.rows()[1].category, None);
    let message = error_of("notes.csv", "a,b,c,d,e\nx,y\n");
    assert!(
        message.contains("notes.csv:2: 2 fields where the first row has 5"),
        "{message}"
    );
}

/// Writes a Parquet file with three row groups.
fn write_pictures(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(3))
        .set_data_page_row_count_limit(2)
        .set_write_batch_size(1)
        .build();
    let file = fs::File::create(path).unwrap();
    let writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties));
    let mut writer = writer.unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn pictures_in_parquet_columns_are_found_by_path_or_id() {
    use arrow_array::{BinaryArray, LargeBinaryArray, StructArray};
    use arrow_schema::{DataType, Field};
    let home = tempfile::tempdir().unwrap();
    let content: Vec<Vec<u8>> = (0..8u8)
        .map(|row| vec![row; 40 + usize::from(row)])
        .collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(10..18));
    let titles: ArrayRef = Arc::new(StringArray::from(vec!["t"; 8]));
    let paths = (0..8).map(|row| (row % 2 == 0).then(|| format!("p/{row}.png")));
    let paths: ArrayRef = Arc::new(StringArray::from(paths.collect::<Vec<_>>()));
    let bytes = content
        .iter()
        .enumerate()
        .map(|(row, bytes)| (row != 6).then_some(bytes.as_slice()));
    let bytes: Vec<_> = bytes.collect();
    let structs = StructArray::from(vec![
        (
            Arc::new(Field::new("bytes", DataType::Binary, true)),
            Arc::new(BinaryArray::from(bytes.clone())) as ArrayRef,
        ),
        (Arc::new(Field::new("path", DataType::Utf8, true)), paths),
    ]);
    let structs_file = home.path().join("structs.parquet");
    let columns = vec![
        ("id", ids.clone()),
        ("image", Arc::new(structs) as ArrayRef),
        ("title", titles.clone()),
    ];
    write_pictures(&structs_file, columns);
    let plain: ArrayRef = Arc::new(LargeBinaryArray::from(bytes));
    let bytes_file = home.path().join("bytes.parquet");
    write_pictures(
        &bytes_file,
        vec![("title", titles), ("image", plain), ("id", ids)],
    );

    for file in [&structs_file, &bytes_file] {
        let notes = NoteSet::read(file).unwrap();
        assert_eq!(notes.notices(), [] as [String; 0]);
        let store = ImageStore::open(file).unwrap();
        let keys: Vec<String> = notes
            .rows()
            .iter()
            .map(|note| note.image.clone().unwrap())
            .collect();
        for row in (0..8).rev() {
            let wanted = match (file == &structs_file, row % 2) {
                (true, 0) => format!("p/{row}.png"),
                _ => (row + 10).to_string(),
            };
            assert_eq!(keys[row], wanted);
            match row {
                6 => {
                    let message = store.read(&keys[row]).unwrap_err().to_string();
                    assert!(message.contains("row 7 has no bytes"), "{message}");
                }
                _ => {
                    assert_eq!(store.read(&keys[row]).unwrap(), content[row]);
                    assert_eq!(store.size(&keys[row]).unwrap(), content[row].len() as u64);
                }
            }
        }
        assert!(store.read("nothing").is_err());
    }
    // One picture in two shards; a file without pictures; nothing there.
    let message = |path: &Path| ImageStore::open(path).unwrap_err().to_string();
    let twice = message(&home.path().join("*.parquet"));
    assert!(
        twice.contains("`11` is in `") && twice.contains("keep every key in one shard"),
        "{twice}"
    );
    let none = home.path().join("none.parquet");
    write_pictures(
        &none,
        vec![("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)],
    );
    assert!(message(&none).contains("there are no pictures in it"));
    assert!(message(&home.path().join("gone.parquet")).contains("cannot read"));
    assert!(message(&home.path().join("*.tar")).contains("no file has such a name"));
    let same: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
    let three: ArrayRef = Arc::new(BinaryArray::from(vec![b"x".as_slice(); 3]));
    write_pictures(&none, vec![("id", same), ("image", three)]);
    assert!(message(&none).contains(":3: the picture `a` is in row 1 already"));
}

#[test]
fn several_files_are_read_by_name_as_one() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    write("b.jsonl", "{\"id\":\"1\"}\n{\"id\":\"2\"}\n");
    write("a.csv", "id;title\n3;x\n");
    write("c.csv", "id;title\n4;y\n");
    write("_SUCCESS", "");
    let ids = |path: &Path| -> Vec<String> {
        let notes = NoteSet::read(path).unwrap();
        notes.rows().iter().map(|note| note.id.clone()).collect()
    };
    assert_eq!(ids(home.path()), ["3", "1", "2", "4"]);
    assert_eq!(ids(&home.path().join("*.csv")), ["3", "4"]);
    // What is said of several files is said once.
    let notices = NoteSet::read(home.path()).unwrap().notices().to_vec();
    assert_eq!(
        notices,
        ["a.csv and 1 more: fields are separated by semicolons"]
    );

    write("c.csv", "id;title\n5;y\n2;z\n");
    let message = NoteSet::read(home.path()).unwrap_err().to_string();
    let first = format!("the id `2` is that of row 2 of `{}", home.path().display());
    assert!(
        message.contains("c.csv:3: ") && message.contains(&first),
        "{message}"
    );
    assert!(message.contains("b.jsonl` already"), "{message}");
    write("c.csv", "id;title\n5;y\n5;z\n");
    let message = NoteSet::read(home.path()).unwrap_err().to_string();
    assert!(
        message.contains("c.csv:3: the id `5` is that of row 2 already"),
        "{message}"
    );
    write("c.csv", "id;title\n5\n");
    let message = NoteSet::read(home.path()).unwrap_err().to_string();
    assert!(message.contains("c.csv:2: 1 fields"), "{message}");
}

#[test]
fn no_bytes_make_a_reader_panic() {
    proptest!(ProptestConfig::with_cases(500), |(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        json in "[\\[\\]{}\":,0-9a-id.e\\\\ \n-]{0,60}",
        name in prop::sample::select(vec!["n.jsonl", "n.csv", "n.parquet"]),
        parquet: bool,
    )| {
        for content in [&bytes, json.as_bytes()] {
            let mut content = content.to_vec();
            if parquet {
                content.splice(0..0, *b"PAR1");
                content.extend(*b"PAR1");
            }
            let (_home, path) = file(name, content);
            let _ = for_each_note(&path, |_, _| ControlFlow::Continue(()));
        }
    });
}

mod images {
    use super::*;

    fn shard(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn folder_and_shards_give_the_same_bytes() {
        let home = tempfile::tempdir().unwrap();
        let long = format!("{}/x.png", "long".repeat(40));
        fs::create_dir(home.path().join("images")).unwrap();
        fs::write(home.path().join("images/a.png"), b"from the folder").unwrap();
        fs::write(
            home.path().join("0.tar"),
            shard(&[
                ("images/b.png", b"bb"),
                (&long, b"deep"),
                ("images/a.png", b"hidden"),
            ]),
        )
        .unwrap();
        fs::write(home.path().join("1.tar"), shard(&[("c.png", &[9; 2000])])).unwrap();
        let store = ImageStore::open(home.path()).unwrap();
        assert_eq!(store.read("images/a.png").unwrap(), b"from the folder");
        assert_eq!(store.read("images/b.png").unwrap(), b"bb");
        assert_eq!(store.read("./c.png").unwrap(), [9; 2000]);
        assert_eq!(store.size("c.png").unwrap(), 2000);
        assert_eq!(store.read(&long).unwrap(), b"deep");
        let one = ImageStore::open(&home.path().join("0.tar")).unwrap();
        assert_eq!(one.read("images/a.png").unwrap(), b"hidden");
        assert!(
            one.read("c.png")
                .unwrap_err()
                .to_string()
                .contains("no shard has this entry")
        );
    }

    #[test]
    fn keys_cannot_leave_the_folder() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("secret"), "x").unwrap();
        let folder = home.path().join("images");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("in.png"), "y").unwrap();
        let store = ImageStore::open(&folder).unwrap();
        let absolute = home.path().join("secret").display().to_string();
        for key in [
            "../secret",
            "sub/../../secret",
            "..\\secret",
            &absolute,
            "",
            "a\0b",
            "file:///x",
        ] {
            let message = store.read(key).unwrap_err().to_string();
            assert!(message.contains("the key"), "{key}: {message}");
        }
        assert!(store.read("sub/../in.png").is_err());
        assert!(
            store
                .read("sub")
                .unwrap_err()
                .to_string()
                .contains("no regular file")
        );
        assert!(
            store
                .read("none.png")
                .unwrap_err()
                .to_string()
                .contains("image `none.png`: cannot read")
        );
        assert_eq!(store.read("./in.png").unwrap(), b"y");
    }

    #[test]
    fn names_are_found_across_unicode_normal_forms() {
        let (composed, decomposed) = ("caf\u{e9}/\u{e4}.png", "cafe\u{301}/a\u{308}.png");
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("cafe\u{301}")).unwrap();
        fs::write(home.path().join(decomposed), b"d").unwrap();
        let store = ImageStore::open(home.path()).unwrap();
        assert_eq!(store.read(composed).unwrap(), b"d");
        assert_eq!(store.read(decomposed).unwrap(), b"d");
        assert_eq!(store.twins(decomposed), [""; 0]);
        let (_shard, path) = file("x.tar", shard(&[(decomposed, b"t")]));
        assert_eq!(
            ImageStore::open(&path).unwrap().read(composed).unwrap(),
            b"t"
        );

        // Two that differ by it only: each is found under its own name, and a third is refused.
        let (one, two) = ("\u{1e69}.png", "s\u{323}\u{307}.png");
        let third = "s\u{307}\u{323}.png";
        fs::write(home.path().join(one), b"1").unwrap();
        fs::write(home.path().join(two), b"2").unwrap();
        let store = ImageStore::open(home.path()).unwrap();
        assert_eq!(store.read(one).unwrap(), b"1");
        assert_eq!(store.read(two).unwrap(), b"2");
        assert_eq!(store.twins(one), [two]);
        let message = store.read(third).unwrap_err().to_string();
        assert!(
            message.contains("2 differ from it by their Unicode normal form"),
            "{message}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused_and_others_are_followed() {
        use std::os::unix::fs::symlink;
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("images");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(home.path().join("secret.png"), "x").unwrap();
        fs::write(folder.join("sub/in.png"), "y").unwrap();
        symlink("../secret.png", folder.join("out.png")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        symlink("sub/in.png", folder.join("again.png")).unwrap();
        symlink(&folder, home.path().join("link")).unwrap();
        for store in [&folder, &home.path().join("link")] {
            let store = ImageStore::open(store).unwrap();
            assert_eq!(store.read("again.png").unwrap(), b"y");
            for key in ["out.png", "up/secret.png"] {
                let message = store.read(key).unwrap_err().to_string();
                assert!(
                    message.contains("a link leads outside the image folder"),
                    "{message}"
                );
            }
        }
    }

    #[test]
    fn broken_shards_are_errors() {
        let whole = shard(&[("a", &[1; 700]), ("b", b"2")]);
        let (_home, path) = file("x.tar", &whole[..900]);
        let message = ImageStore::open(&path).unwrap_err().to_string();
        assert!(message.contains("no readable tar file"), "{message}");
        proptest!(ProptestConfig::with_cases(300), |(at in 0..whole.len(), byte: u8, cut: bool)| {
            let mut broken = whole.clone();
            broken[at] = byte;
            if cut {
                broken.truncate(at);
            }
            let (_home, path) = file("x.tar", broken);
            if let Ok(store) = ImageStore::open(&path) {
                let _ = store.read("a");
            }
        });
    }
}
