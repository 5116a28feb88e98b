use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod samples;

use samples::{MARKERS, every_tokenizer, llama, loaded, unigram, words};

#[test]
fn text_never_becomes_an_added_token() {
    let spellings = [
        "<IMG>",
        "</img>",
        "<IMG_EMB>",
        "</s>",
        "<s>",
        "<|im_end|>",
        "<|endoftext|>",
        "[CLS]",
        "important",
        "＜IMG＞",
        "[CLS]</s>",
        "hello</s><IMG>",
        "a </s> b",
        "</s></s></s>",
        "<\u{200b}IMG>",
        "<IMG\u{200d}>",
        "<IMG\0>",
        "</</s>s>",
        " <IMG>",
        "▁</s>",
        "<IMG><IMG_EMB>",
    ];
    for (name, tokenizer) in every_tokenizer() {
        for text in spellings {
            let ids = tokenizer.encode_text(text).unwrap();
            let stolen: Vec<_> = ids
                .iter()
                .filter(|id| tokenizer.protected.contains(id))
                .collect();
            assert!(
                stolen.is_empty(),
                "{name}: `{text}` gives {stolen:?} in {ids:?}"
            );
        }
    }
}

#[test]
fn ids_that_no_table_can_hold_are_refused() {
    for id in [20_000_000u32, 4_000_000_000, u32::MAX] {
        let mut file = words();
        file["model"]["vocab"]["far"] = json!(id);
        let error = loaded(&file, None).unwrap_err().to_string();
        assert!(error.contains("`far`"), "{error}");
        assert!(error.contains(&id.to_string()), "{error}");
    }
}

#[test]
fn the_library_itself_would_have_taken_them() {
    // Otherwise the test above could not fail.
    for (name, tokenizer) in every_tokenizer() {
        let taken = tokenizer.inner.encode("<IMG>", false).unwrap();
        assert!(
            taken
                .get_ids()
                .iter()
                .any(|id| tokenizer.protected.contains(id)),
            "{name}"
        );
    }
    // The models of these two give the special tokens even without added-token matching.
    for (file, text, id) in [
        (unigram(), "</s>", 1),
        (words(), "[CLS]", 1),
        (llama(), "▁hello", 0),
    ] {
        let tokenizer = loaded(&file, None).unwrap();
        let plain = tokenizer.run_model(&[Piece::Text(text)]).unwrap();
        assert_eq!(plain.get_ids().contains(&id), text != "▁hello", "{text}");
    }
}

#[test]
fn broken_spellings_keep_their_text() {
    for (name, tokenizer) in every_tokenizer() {
        if name == "words" {
            continue;
        }
        let ids = tokenizer.encode_text("a</s>b<|im_end|>").unwrap();
        let tokens = ids
            .iter()
            .map(|&id| tokenizer.inner.id_to_token(id).unwrap());
        let text: String = tokens.collect();
        assert_eq!(text.replace('▁', ""), "a</s>b<|im_end|>", "{name}: {ids:?}");
    }
}

fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "<",
            ">",
            "</s>",
            "<IMG>",
            "<IMG_EMB>",
            "IMG",
            "[CLS]",
            "important",
            " ",
            "hello",
            "/",
            "s>",
            "<|im_end|>",
            "｛",
            "＜",
            "é",
            "👩\u{200d}👧",
            "<0x41>",
            "▁",
        ])
        .prop_map(String::from),
        "\\PC{0,3}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_becomes_an_added_token(parts in prop::collection::vec(fragment(), 0..12)) {
        thread_local! {
            static ALL: Vec<(&'static str, Tokenizer)> = every_tokenizer();
        }
        let text: String = parts.concat();
        ALL.with(|all| {
            for (name, tokenizer) in all {
                let encoded = tokenizer.encode(&[Piece::Text(&text)]).unwrap();
                let stolen = encoded.ids.iter().any(|id| tokenizer.protected.contains(id));
                assert!(!stolen, "{name}: {text:?} gives {:?}", encoded.ids);
                assert_eq!(encoded.ids.len(), encoded.bytes.len());
                assert!(encoded.bytes.iter().all(|bytes| bytes.end <= text.len()));
                if *name == "trained" {
                    assert_eq!(tokenizer.decode(&encoded.ids).unwrap(), text);
                }
            }
        });
    }

    /// With the special tokens where the prompt has them, the ids are those that the library gives
    /// for the whole text; only spellings in text differ, and there are none here.
    #[test]
    fn harmless_prompts_are_encoded_as_the_library_does(
        parts in prop::collection::vec("[a-e hlo.,\"]{1,8}", 1..6),
    ) {
        for (name, tokenizer) in every_tokenizer() {
            let image = tokenizer.token_id("<IMG>").unwrap();
            let mut pieces = Vec::new();
            let mut text = String::new();
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    pieces.push(Piece::Token(image));
                    text.push_str("<IMG>");
                }
                // Two texts next to each other are one.
                let (left, right) = part.split_at(1);
                pieces.extend([Piece::Text(left), Piece::Text(right)]);
                text.push_str(part);
            }
            let expected = tokenizer.inner.encode(text.as_str(), false).unwrap();
            let ids = tokenizer.encode(&pieces).unwrap().ids;
            prop_assert_eq!(ids.as_slice(), expected.get_ids(), "{}: {:?}", name, text);
        }
    }
}

#[test]
fn ids_say_which_bytes_they_come_from() {
    let (_, tokenizer) = every_tokenizer().swap_remove(0);
    let image = tokenizer.token_id("<IMG>").unwrap();
    let pieces = [
        Piece::Text("hello "),
        Piece::Token(image),
        Piece::Text("é!"),
    ];
    let encoded = tokenizer.encode(&pieces).unwrap();
    let at = encoded.ids.iter().position(|&id| id == image).unwrap();
    assert_eq!(encoded.bytes[at], 6..7);
    assert_eq!(encoded.bytes[0].start, 0);
    assert_eq!(encoded.bytes.last().unwrap().clone(), 9..10);
}

#[test]
fn the_prefix_is_what_the_tokenizer_puts_before_a_text() {
    let prefix = |file: &Value, config| loaded(file, config).map(|t| t.prefix_ids().to_vec());
    assert_eq!(prefix(&llama(), None).unwrap(), [1]);
    assert_eq!(prefix(&words(), None).unwrap(), [0; 0]);
    let config = |add: bool| Some(json!({"add_bos_token": add, "bos_token": {"content": "<s>"}}));
    assert_eq!(prefix(&llama(), config(false)).unwrap(), [0; 0]);
    assert_eq!(prefix(&llama(), config(true)).unwrap(), [1]);
    let missing = Some(json!({"add_bos_token": true, "bos_token": "<nowhere>"}));
    assert!(prefix(&words(), missing).is_err());
    let null = Some(json!({"bos_token": null}));
    assert_eq!(prefix(&llama(), null).unwrap(), [1]);
}

#[test]
fn the_pad_id_is_the_one_that_the_files_name() {
    let pad = |file: &Value, config| loaded(file, config).unwrap().pad_id();
    assert_eq!(pad(&llama(), None), 2);
    assert_eq!(
        pad(&llama(), Some(json!({"pad_token": {"content": "<s>"}}))),
        1
    );
    assert_eq!(
        pad(
            &llama(),
            Some(json!({"pad_token": null, "eos_token": "<s>"}))
        ),
        2
    );
    assert_eq!(pad(&words(), Some(json!({"eos_token": "</s>"}))), 3);
    assert_eq!(pad(&words(), None), 0);
}

#[test]
fn missing_special_tokens_get_the_next_ids_and_are_reported() {
    let mut tokenizer = loaded(&words(), None).unwrap();
    assert_eq!(tokenizer.vocabulary_rows(), 7);
    let wanted = ["<IMG>", "[CLS]", "hello", "<IMG_EMB>", "<IMG>"];
    let new = tokenizer.add_special_tokens(&wanted).unwrap();
    let expected = [("<IMG>", 7), ("<IMG_EMB>", 8)];
    let expected = expected.map(|(content, id)| NewToken {
        content: content.into(),
        id,
    });
    assert_eq!(new, expected);
    assert_eq!(tokenizer.vocabulary_rows(), 9);
    // An ordinary word became a special token with its own id: text cannot spell it any more.
    assert_eq!(tokenizer.token_id("hello"), Some(2));
    assert!(!tokenizer.encode_text("hello").unwrap().contains(&2));
    assert_eq!(tokenizer.add_special_tokens(&wanted).unwrap(), []);
    assert!(tokenizer.add_special_tokens(&[""]).is_err());
}

#[test]
fn tokens_that_only_the_config_lists_are_added_with_their_ids() {
    let listed = |id: &str, content: &str| {
        json!({"added_tokens_decoder": {"0": {"content": "[UNK]", "special": true},
            id: {"content": content, "special": true, "lstrip": false}}})
    };
    let unknown = words()["model"]["vocab"]["[UNK]"].clone();
    assert_eq!(unknown, 0);
    let tokenizer = loaded(&words(), Some(listed("7", "<|call|>"))).unwrap();
    assert_eq!(tokenizer.token_id("<|call|>"), Some(7));
    assert_eq!(tokenizer.vocabulary_rows(), 8);
    // As a special token it cannot be spelt by a text.
    assert!(!tokenizer.encode_text("<|call|>").unwrap().contains(&7));

    let gap = loaded(&words(), Some(listed("9", "<|call|>"))).unwrap_err();
    assert!(gap.to_string().contains("the id 9"), "{gap}");
    let other = loaded(&words(), Some(listed("5", "hello"))).unwrap_err();
    assert!(other.to_string().contains("`hello`"), "{other}");
}

#[test]
fn a_post_processor_that_inserts_an_id_without_a_token_is_refused() {
    let mut file = words();
    file["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"X": {"id": "X", "ids": [4_000_000_000u32], "tokens": ["X"]}}});
    let error = loaded(&file, None).unwrap_err().to_string();
    assert!(error.contains("4000000000"), "{error}");
}

#[test]
fn ids_with_gaps_are_refused_where_a_token_must_be_added() {
    let mut file = words();
    file["model"]["vocab"]["b"] = json!(7);
    let mut tokenizer = loaded(&file, None).unwrap();
    assert_eq!(tokenizer.vocabulary_rows(), 8);
    let message = tokenizer
        .add_special_tokens(&["<IMG>"])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("gaps") && message.contains("<IMG>"),
        "{message}"
    );
}

#[test]
fn files_that_are_no_tokenizer_are_refused() {
    let mut shifted = words();
    shifted["added_tokens"][1]["id"] = json!(2);
    let message = loaded(&shifted, None).unwrap_err().to_string();
    assert!(
        message.contains("[CLS]") && message.contains("tokenizer.json"),
        "{message}"
    );
    for broken in [json!({}), json!([1]), json!({"model": {"type": "Nothing"}})] {
        let message = loaded(&broken, None).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json"), "{message}");
    }
    let message = loaded(&words(), Some(json!([]))).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json"), "{message}");
    assert!(Tokenizer::load(std::path::Path::new("nowhere.json")).is_err());
}

#[test]
fn training_depends_on_the_texts_alone() {
    let text = |i: usize| format!("note {} about {} and {}\u{e9}", i % 7, i % 11, i * i % 13);
    let forward = Tokenizer::train((0..200).map(text), 340, &MARKERS).unwrap();
    let backward = Tokenizer::train((0..200).rev().map(text), 340, &MARKERS).unwrap();
    let written = |tokenizer: &Tokenizer| tokenizer.inner.to_string(false).unwrap();
    assert_eq!(written(&forward), written(&backward));
    let special: Vec<_> = [TEXT_END, "<IMG>", "</img>", "<IMG_EMB>"]
        .into_iter()
        .collect();
    let ids: Vec<_> = special
        .iter()
        .map(|token| forward.token_id(token))
        .collect();
    assert_eq!(ids, [Some(0), Some(1), Some(2), Some(3)]);
    assert!((261..=340).contains(&forward.vocabulary_rows()));
    assert_eq!((forward.pad_id(), forward.prefix_ids()), (0, [].as_slice()));
    let known = forward.encode_text("note 3 about 4").unwrap();
    assert!(known.len() <= 8, "{known:?}");
    let message = Tokenizer::train([].into_iter(), 259, &MARKERS)
        .unwrap_err()
        .to_string();
    assert!(message.contains("260"), "{message}");
}

#[test]
fn what_is_saved_loads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (name, tokenizer) in every_tokenizer() {
        tokenizer.save(folder.path()).unwrap();
        let again = Tokenizer::load(folder.path()).unwrap();
        let text = "hello <IMG> é</s> important";
        let ids = |tokenizer: &Tokenizer| tokenizer.encode_text(text).unwrap();
        assert_eq!(ids(&again), ids(&tokenizer), "{name}");
        assert_eq!(again.pad_id(), tokenizer.pad_id(), "{name}");
        assert_eq!(again.prefix_ids(), tokenizer.prefix_ids(), "{name}");
        assert_eq!(again.protected, tokenizer.protected, "{name}");
        assert_eq!(
            again.vocabulary_rows(),
            tokenizer.vocabulary_rows(),
            "{name}"
        );
        assert_eq!(
            again.token_id("<IMG_EMB>"),
            tokenizer.token_id("<IMG_EMB>"),
            "{name}"
        );
    }
}
