//! What is taken for embeddings, and how rows are rounded, cut and joined.

use super::*;

fn ids(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn refuses_what_is_not_a_set_of_embeddings() {
    let message = |names: &[&str], dim, values: &[f32]| {
        Embeddings::new(ids(names), dim, values.to_vec())
            .unwrap_err()
            .to_string()
    };
    assert!(message(&["a"], 2, &[1.0]).contains("1 ids × 2 dimensions need 2 values"));
    assert!(message(&["a"], 0, &[]).contains("at least one dimension"));
    assert!(message(&["a", ""], 1, &[1.0, 1.0]).contains("row 1: the id \"\" is empty"));
    assert!(message(&["a\nb"], 1, &[1.0]).contains("broken over lines"));
    assert!(message(&["a", "b", "a"], 1, &[1.0; 3]).contains("rows 0 and 2"));
    assert!(message(&["a"], 2, &[1.0, f32::NAN]).contains("dimension 1 is NaN"));
    assert!(message(&["a"], 1, &[f32::INFINITY]).contains("dimension 0 is inf"));
    assert!(message(&["a"], 2, &[1e30, 0.0]).contains("overflows"));
}

#[test]
fn normalises_tiny_and_huge_rows_and_refuses_zero() {
    let embeddings = Embeddings::new(
        ids(&["tiny", "huge", "unit"]),
        2,
        vec![3e-30, 4e-30, 3e17, 4e17, 0.0, 1.0],
    )
    .unwrap();
    assert!(!embeddings.is_normalised());
    let unit = embeddings.into_normalised().unwrap();
    assert_eq!(unit.row(0), [0.6, 0.8]);
    assert_eq!(unit.row(1), [0.6, 0.8]);
    assert!(unit.is_normalised());

    let zero = Embeddings::new(ids(&["z"]), 2, vec![0.0; 2]).unwrap();
    assert!(matches!(
        zero.into_normalised(),
        Err(Error::ZeroVector { row: 0, .. })
    ));
}

#[test]
fn leading_dimensions_are_normalised_anew() {
    let values = vec![0.6, 0.0, 0.8, 0.0, 0.28, 0.96];
    let whole = Embeddings::new(ids(&["a", "b"]), 3, values).unwrap();
    assert_eq!(whole.cut_to(3).unwrap(), whole);
    let cut = whole.cut_to(2).unwrap();
    assert_eq!(
        (cut.row(0), cut.row(1)),
        ([1.0, 0.0].as_slice(), [0.0, 1.0].as_slice())
    );
    assert!(whole.cut_to(4).unwrap_err().to_string().contains("1 to 3"));
    assert!(matches!(
        whole.cut_to(1),
        Err(Error::ZeroVector { row: 1, .. })
    ));
}

#[test]
fn eight_bits_keep_directions_to_within_half_a_step() {
    let row = [0.5, -0.25, 0.125, 0.0];
    assert_eq!(eight_bits(&row).collect::<Vec<i8>>(), [127, -64, 32, 0]);
    assert_eq!(eight_bits(&[0.0; 2]).collect::<Vec<i8>>(), [0, 0]);
    let long = (0..64)
        .map(|n| ((n * 37 % 64) as f32 - 31.5) / 31.5)
        .collect();
    let long = Embeddings::new(ids(&["a"]), 64, long)
        .unwrap()
        .into_normalised()
        .unwrap();
    let rounded = long.in_eight_bits().unwrap();
    let pairs = long.row(0).iter().zip(rounded.row(0));
    let cosine: f32 = pairs.map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999 && rounded != long, "{cosine}");
}

#[test]
fn joins_shards_and_refuses_strangers() {
    let part =
        |name: &str, dim, value| Embeddings::new(ids(&[name]), dim, vec![value; dim]).unwrap();
    let whole = Embeddings::concat(vec![part("a", 2, 1.0), part("b", 2, 2.0)]).unwrap();
    assert_eq!(whole.ids(), ["a", "b"]);
    assert_eq!(whole.row(1), [2.0, 2.0]);
    assert!(Embeddings::concat(vec![part("a", 2, 1.0), part("b", 3, 1.0)]).is_err());
    assert!(Embeddings::concat(vec![part("a", 2, 1.0), part("a", 2, 1.0)]).is_err());
    assert!(Embeddings::concat(vec![]).is_err());
}

#[test]
fn visual_embeddings_must_list_the_same_notes() {
    let of = |names: &[&str]| Embeddings::new(ids(names), 1, vec![1.0; names.len()]).unwrap();
    assert!(EmbeddingSet::new(of(&["a", "b"]), Some(of(&["a", "b"]))).is_ok());
    let error = EmbeddingSet::new(of(&["a", "b"]), Some(of(&["b", "a"]))).unwrap_err();
    assert!(error.to_string().contains("row 0"), "{error}");
    assert!(EmbeddingSet::new(of(&["a", "b"]), Some(of(&["a"]))).is_err());
}
