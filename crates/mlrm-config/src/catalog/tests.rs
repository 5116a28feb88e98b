use super::*;

#[test]
fn every_key_is_documented_and_sourced() {
    for section in catalog().sections() {
        assert!(!section.meaning.is_empty(), "[{}]", section.key);
        for entry in &section.entries {
            let key = join(&section.key, &entry.name);
            assert!(!entry.meaning.is_empty(), "{key} has no doc comment");
            assert!(!entry.source.is_empty(), "{key} has no source");
            for choice in entry.kind.choices() {
                assert!(
                    !choice.value.is_empty() && !choice.meaning.is_empty(),
                    "{key}"
                );
            }
        }
    }
}

#[test]
fn kinds_are_read_from_the_types() {
    for (key, kind) in [
        ("run.dir", "string"),
        ("backend.device", "string or list of strings"),
        ("backend.dtype", r#"one of "f32", "bf16", "f16""#),
        ("data.synth.image_pixels", "integer in [8, 4096]"),
        ("data.pairs.window_days", "number > 0"),
        ("data.pairs.test_fraction", "number in [0, 1)"),
        ("data.pairs.top_k", "integer ≥ 0"),
        ("data.interactions", "string"),
        ("run.seed", "integer ≥ 0"),
        ("model.vision.select_layer", "integer"),
        ("model.fusion.initial_weight", "number in (0, 1)"),
        ("train.betas", "list of 2 numbers"),
        ("train.micro_batch_notes", r#"integer ≥ 0 or "auto""#),
        ("train.tensorboard", "boolean (true or false)"),
        ("eval.k", "list of integers ≥ 1"),
        ("eval.slices", "list of tables"),
        ("eval.slices.name", "string"),
        ("model.llm", "table"),
    ] {
        let entry = catalog().find(key).unwrap_or_else(|| panic!("{key}"));
        assert_eq!(entry.kind.to_string(), kind, "{key}");
    }
}

#[test]
fn defaults_are_written_as_toml() {
    for (key, default) in [
        ("train.learning_rate", Some("3e-6")),
        ("train.betas", Some("[0.9, 0.999]")),
        ("train.max_steps", None),
        ("run.dir", Some(r#""runs/run""#)),
        ("data.interactions", Some(r#""interactions.csv""#)),
        ("data.pairs.top_k", Some("10")),
        ("eval.slices.name", None),
    ] {
        let entry = catalog().find(key).unwrap_or_else(|| panic!("{key}"));
        assert_eq!(entry.default.as_deref(), default, "{key}");
    }
}
