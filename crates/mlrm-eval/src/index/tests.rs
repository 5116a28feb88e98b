use std::path::Path;

use super::files::{ids_path, report_path};
use super::*;

/// `notes` directions that are the same on every machine.
fn embeddings(notes: usize, dim: usize) -> Embeddings {
    let value = |n: usize| (n as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let values = (0..notes * dim).map(|n| value(n * n + 7 * n)).collect();
    let ids = (0..notes).map(|note| format!("note {note}")).collect();
    let all = Embeddings::new(ids, dim, values).unwrap();
    all.into_normalised().unwrap()
}

fn options(numbers: IndexNumbers) -> IndexOptions {
    IndexOptions {
        numbers,
        connectivity: 16,
        expansion_add: 128,
        expansion_search: 200,
    }
}

#[test]
fn what_is_found_is_what_is_near_in_any_numbers() {
    let all = embeddings(3000, 24);
    let home = tempfile::tempdir().unwrap();
    for (numbers, least) in [
        (IndexNumbers::F32, 0.97),
        (IndexNumbers::F16, 0.97),
        (IndexNumbers::Int8, 0.9),
    ] {
        let heard = AtomicUsize::new(0);
        let most = |done| {
            heard.fetch_max(done, Ordering::Relaxed);
        };
        let index = Index::build(&all, options(numbers), &most).unwrap();
        assert_eq!(heard.into_inner(), 3000);
        let recall = index.recall(&all, 200, 10).unwrap();
        assert!(recall.recall >= least, "{numbers:?}: {recall:?}");
        assert_eq!((recall.queries, recall.k), (200, 10));

        let path = home.path().join(format!("{numbers:?}.usearch"));
        let report = index.write(&path, recall).unwrap();
        assert_eq!(report.bytes, path.metadata().unwrap().len());
        let again = Index::open(&path).unwrap();
        assert_eq!(again.ids(), all.ids());
        for row in [0, 17, 2999] {
            let near = again.nearest(row, 10).unwrap();
            assert_eq!(near, index.nearest(row, 10).unwrap());
            assert!(near.len() == 10 && near.iter().all(|found| found.row as usize != row));
            assert!(
                near.windows(2).all(|two| two[0].score >= two[1].score),
                "{near:?}"
            );
            let exact = top_k(&all, &[row as u32], 1).unwrap();
            assert!(
                (near[0].score - exact[0][0].score).abs() < 0.02,
                "{numbers:?}"
            );
        }
    }
    let names = std::fs::read_dir(home.path()).unwrap();
    assert_eq!(names.count(), 9, "nothing else is left");
}

#[test]
fn few_notes_are_all_found() {
    let all = embeddings(3, 4);
    let index = Index::build(&all, options(IndexNumbers::F32), &|_| ()).unwrap();
    assert_eq!(index.nearest(1, 10).unwrap().len(), 2);
    assert_eq!(index.recall(&all, 1000, 10).unwrap().recall, 1.0);
    assert!(matches!(index.nearest(3, 1), Err(Error::NoSuchRow { .. })));
    let others = embeddings(4, 4);
    assert!(index.recall(&others, 2, 1).is_err());
}

#[test]
fn a_file_that_is_no_index_or_not_whole_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let all = embeddings(50, 8);
    let index = Index::build(&all, options(IndexNumbers::F16), &|_| ()).unwrap();
    let recall = index.recall(&all, 10, 5).unwrap();
    let path = home.path().join("notes.usearch");
    index.write(&path, recall).unwrap();
    let problem = |path: &Path| Index::open(path).err().map(|error| error.to_string());
    assert_eq!(problem(&path), None);
    let refused = |path: &Path, word: &str| {
        let found = problem(path).unwrap_or_default();
        assert!(found.contains(word), "no `{word}` in {found}");
    };
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    refused(&path, "cut off");
    let other = home.path().join("other.usearch");
    std::fs::write(
        &other,
        b"\x93NUMPY that is no index at all, however long it may be",
    )
    .unwrap();
    refused(&other, "no index of usearch");
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(ids_path(&path), "a\nb\n").unwrap();
    refused(&path, "has 2 ids");
    std::fs::remove_file(report_path(&path)).unwrap();
    refused(&path, "notes.usearch.json");
    refused(&home.path().join("none"), "none");
}

/// Before, every index was built with the cosine, and in eight bits with numbers that usearch made.
#[test]
fn an_index_of_before_answers_as_it_did() {
    let all = embeddings(2000, 24);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notes.usearch");
    for (numbers, quantization, far) in [
        (IndexNumbers::F32, ScalarKind::F32, 1e-5),
        (IndexNumbers::F16, ScalarKind::F16, 1e-3),
        (IndexNumbers::Int8, ScalarKind::I8, 0.05),
    ] {
        let options = options(numbers);
        let inner = usearch::Index::new(&usearch::ffi::IndexOptions {
            dimensions: 24,
            metric: MetricKind::Cos,
            quantization,
            connectivity: options.connectivity,
            expansion_add: options.expansion_add,
            expansion_search: options.expansion_search,
            multi: false,
        });
        let inner = inner.unwrap();
        inner.reserve(all.len()).unwrap();
        for row in 0..all.len() {
            inner.add(row as u64, all.row(row)).unwrap();
        }
        let before = Index {
            inner,
            ids: all.ids().to_vec(),
            options,
            build_seconds: 1.0,
        };
        let recall = before.recall(&all, 100, 10).unwrap();
        assert!(recall.recall > 0.75, "{numbers:?}: {recall:?}");
        before.write(&path, recall).unwrap();
        let opened = Index::open(&path).unwrap();
        for row in [0, 17, 1999] {
            let near = opened.nearest(row, 10).unwrap();
            assert_eq!(near, before.nearest(row, 10).unwrap());
            for found in near {
                let dot = all.row(row).iter().zip(all.row(found.row as usize));
                let exact: f32 = dot.map(|(a, b)| a * b).sum();
                assert!(
                    (found.score - exact).abs() < far,
                    "{numbers:?}: {found:?} {exact}"
                );
            }
        }
    }
}
