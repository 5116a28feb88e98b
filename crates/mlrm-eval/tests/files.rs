//! Embedding files: what is written is read back, and what is broken is refused with a reason.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, ListBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use mlrm_eval::{EmbeddingSet, Embeddings, Error, Numbers, read_embeddings, write_embeddings};
use parquet::arrow::ArrowWriter;

fn embeddings(ids: &[&str], dim: usize, first: f32) -> Embeddings {
    let values = (0..ids.len() * dim)
        .map(|at| first + at as f32 / 7.0)
        .collect();
    Embeddings::new(ids.iter().map(|id| (*id).to_owned()).collect(), dim, values).unwrap()
}

const IDS: [&str; 4] = ["12", "小红书", "a b", "-"];

fn set(visual: bool) -> EmbeddingSet {
    let visual = visual.then(|| embeddings(&IDS, 3, -5.0));
    EmbeddingSet::new(embeddings(&IDS, 5, 0.1), visual).unwrap()
}

fn message(path: &Path) -> String {
    let error = read_embeddings(path).unwrap_err();
    let text = error.to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        text.contains(name.split('.').next().unwrap()),
        "{text} names no file"
    );
    text
}

#[test]
fn what_killed_writes_left_is_cleared_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let own = [
        ".embeddings-x.npy-a1B2c3.part",
        ".embeddings-x.ids.txt-a1B2c3.part",
        ".embeddings-x.visual.npy-a1B2c3.part",
        ".embeddings-x.npy.part-3-0f-unsealed.safetensors-a1B2c3.part",
    ];
    let others = [
        ".embeddings-y.npy-a1B2c3.part",
        ".embeddings-x.npy-2.npy-a1B2c3.part",
        "x.npy",
        "x.npy.part-3-0f-77.safetensors",
    ];
    for name in own.iter().chain(&others) {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    mlrm_eval::clear_unfinished(&folder.path().join("x.npy"));
    let left = std::fs::read_dir(folder.path()).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let mut expected = others;
    expected.sort_unstable();
    assert_eq!(left, expected);
    // What is written has a name of this kind while it is.
    write_embeddings(&folder.path().join("z.npy"), &set(true), Numbers::F32).unwrap();
    mlrm_eval::clear_unfinished(&folder.path().join("z.npy"));
    assert!(folder.path().join("z.visual.npy").is_file());
}

#[test]
fn every_format_reads_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "x.parquet",
        "x.npy",
        "new/folder/x.safetensors",
        "UPPER.NPY",
    ] {
        let path = folder.path().join(name);
        // With visual embeddings first: the second write must leave none behind.
        for visual in [true, false] {
            write_embeddings(&path, &set(visual), Numbers::F32).unwrap();
            assert_eq!(read_embeddings(&path).unwrap(), set(visual), "{name}");
        }
    }
    let leftovers = std::fs::read_dir(folder.path()).unwrap();
    for entry in leftovers {
        let name = entry.unwrap().file_name();
        assert!(!name.to_str().unwrap().ends_with(".part"), "{name:?}");
    }
}

#[test]
fn eight_bits_are_a_quarter_and_the_same_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let whole = set(true);
    let expected = whole.multimodal().in_eight_bits().unwrap();
    for name in ["x.parquet", "x.npy", "x.safetensors"] {
        let path = folder.path().join(name);
        write_embeddings(&path, &whole, Numbers::Int8).unwrap();
        let (read, visual) = read_embeddings(&path).unwrap().into_parts();
        assert!(
            read.values()
                .iter()
                .all(|value| value.fract() == 0.0 && value.abs() <= 127.0)
        );
        assert!(!read.is_normalised(), "{name}");
        assert_eq!(read.into_normalised().unwrap(), expected, "{name}");
        let visual = visual.unwrap().into_normalised().unwrap();
        assert_eq!(
            visual,
            whole.visual().unwrap().in_eight_bits().unwrap(),
            "{name}"
        );
    }
    let bytes = std::fs::read(folder.path().join("x.npy")).unwrap();
    let values = whole.multimodal().len() * whole.multimodal().dim();
    assert_eq!(bytes.len() % 64, values % 64, "a byte a number");
}

#[test]
fn no_note_and_many_notes() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<String> = (0..40_000).map(|id| id.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for ending in ["parquet", "npy", "safetensors"] {
        let path = folder.path().join(format!("x.{ending}"));
        for embeddings in [embeddings(&[], 1, 0.0), embeddings(&many, 2, 1.0)] {
            let set = EmbeddingSet::new(embeddings, None).unwrap();
            write_embeddings(&path, &set, Numbers::F32).unwrap();
            assert_eq!(read_embeddings(&path).unwrap(), set, "{ending}");
        }
    }
}

#[test]
fn cut_off_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for ending in ["parquet", "npy", "safetensors"] {
        let path = folder.path().join(format!("x.{ending}"));
        write_embeddings(&path, &set(false), Numbers::F32).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            message(&path);
        }
    }
}

#[test]
fn unknown_endings_and_missing_files() {
    let unknown = read_embeddings(Path::new("x.csv")).unwrap_err();
    assert!(matches!(unknown, Error::UnknownFormat { .. }));
    assert!(
        unknown
            .to_string()
            .contains(".parquet, .npy or .safetensors")
    );
    for ending in ["parquet", "npy", "safetensors"] {
        let missing = read_embeddings(Path::new(&format!("nowhere/x.{ending}"))).unwrap_err();
        let expected = format!("nowhere/x.{ending}: cannot open: ");
        assert!(missing.to_string().starts_with(&expected), "{missing}");
    }
}

#[test]
fn ids_and_rows_must_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    write_embeddings(&path, &set(false), Numbers::F32).unwrap();
    let ids = folder.path().join("x.ids.txt");
    std::fs::write(&ids, "a\nb\n").unwrap();
    assert!(message(&path).contains("4 rows, but"));
    std::fs::write(&ids, "a\nb\nc\na\n").unwrap();
    assert!(message(&path).contains("rows 0 and 3 have the same id \"a\""));
    std::fs::remove_file(&ids).unwrap();
    assert!(message(&path).contains("x.ids.txt"));
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    write_embeddings(&path, &set(false), Numbers::F32).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert!(message(&path).contains("row 3 (id \"-\"): dimension 4 is NaN"));
}

#[test]
fn npy_of_other_widths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    std::fs::write(folder.path().join("x.ids.txt"), "a\r\nb\r\n").unwrap();
    let file = |descr: &str, numbers: &[&[u8]]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 1), }}\n");
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(numbers.concat());
        bytes
    };
    let expected = Embeddings::new(vec!["a".into(), "b".into()], 1, vec![1.0, -2.0]).unwrap();
    for bytes in [
        file("<f8", &[&1f64.to_le_bytes(), &(-2f64).to_le_bytes()]),
        file("<f2", &[&[0x00, 0x3c], &[0x00, 0xc0]]),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_embeddings(&path).unwrap().multimodal(), &expected);
    }
}

/// Lists of f64, as data frames are usually saved.
fn lists(rows: &[Option<&[f64]>]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    for row in rows {
        builder.append_option(row.map(|row| row.iter().copied().map(Some)));
    }
    Arc::new(builder.finish())
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let ids = || Arc::new(Int64Array::from(vec![7, -8])) as ArrayRef;
    let (a, b): (&[f64], &[f64]) = (&[1.0, 2.0], &[3.0, -4.5]);

    write_parquet(
        &path,
        vec![
            ("n", ids()),
            ("embedding", lists(&[Some(a), Some(b)])),
            ("id", ids()),
        ],
    );
    let values = vec![1.0, 2.0, 3.0, -4.5];
    let expected = Embeddings::new(vec!["7".into(), "-8".into()], 2, values).unwrap();
    assert_eq!(read_embeddings(&path).unwrap().multimodal(), &expected);

    write_parquet(
        &path,
        vec![
            ("id", ids()),
            ("embedding", lists(&[Some(a), Some(&[1.0])])),
        ],
    );
    assert!(message(&path).contains("row 1: column \"embedding\" has 1 numbers"));
    write_parquet(
        &path,
        vec![("id", ids()), ("embedding", lists(&[Some(a), None]))],
    );
    assert!(message(&path).contains("row 1: column \"embedding\" is empty"));
    write_parquet(&path, vec![("id", ids()), ("embedding", ids())]);
    assert!(message(&path).contains("must be a list"));
    write_parquet(
        &path,
        vec![("id", ids()), ("vector", lists(&[Some(a), Some(b)]))],
    );
    assert!(message(&path).contains("no column \"embedding\" in it; it has [\"id\", \"vector\"]"));
    write_parquet(
        &path,
        vec![("id", lists(&[Some(a)])), ("embedding", lists(&[Some(a)]))],
    );
    assert!(message(&path).contains("ids are strings or integers"));
}
