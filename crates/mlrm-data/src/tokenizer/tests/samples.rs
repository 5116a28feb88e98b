//! Small tokenizers of every kind.

use std::fs;

use serde_json::{Value, json};

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// A tokenizer of this `tokenizer.json`, and of a `tokenizer_config.json` where one is given.
pub fn loaded(file: &Value, config: Option<Value>) -> Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    if let Some(config) = config {
        fs::write(
            folder.path().join("tokenizer_config.json"),
            config.to_string(),
        )
        .unwrap();
    }
    Tokenizer::load(folder.path())
}

fn added(id: u32, content: &str, special: bool, normalized: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": normalized, "special": special,
    })
}

fn file(model: Value, added_tokens: Vec<Value>) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": model,
    })
}

/// Characters that the small vocabularies below consist of.
const LETTERS: &str = "abcde <>/|_[]simportunknCLSIMGEBhelwd";

fn characters() -> Vec<String> {
    let mut characters: Vec<char> = LETTERS.chars().chain("▁".chars()).collect();
    characters.sort_unstable();
    characters.dedup();
    characters.into_iter().map(String::from).collect()
}

/// Like T5: the model itself knows its special tokens, and gives them the best score.
pub fn unigram() -> Value {
    let mut vocab = vec![json!(["<unk>", 0.0]), json!(["</s>", 0.0])];
    vocab.extend(characters().iter().map(|c| json!([c, -5.0])));
    vocab.push(json!(["▁hello", -3.0]));
    let mut file = file(
        json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false}),
        vec![
            added(0, "<unk>", true, false),
            added(1, "</s>", true, false),
        ],
    );
    file["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    file
}

/// Like Llama 2: byte-pair merges over whole texts, a blank put before each, a beginning token.
pub fn llama() -> Value {
    let mut vocab = serde_json::Map::new();
    let start = ["<unk>", "<s>", "</s>", "<|im_end|>"].map(String::from);
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let merged = ["he", "ll", "llo", "hello", "▁hello", "im"].map(String::from);
    for token in start
        .into_iter()
        .chain(bytes)
        .chain(characters())
        .chain(merged)
    {
        vocab.insert(token, json!(vocab.len()));
    }
    let merges = json!([
        ["h", "e"],
        ["l", "l"],
        ["ll", "o"],
        ["he", "llo"],
        ["▁", "hello"],
        ["i", "m"]
    ]);
    let mut file = file(
        json!({
            "type": "BPE", "dropout": 0.5, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            // With this, a whole text that is in the vocabulary is one token.
            "ignore_merges": true, "vocab": vocab, "merges": merges,
        }),
        vec![
            added(0, "<unk>", true, false),
            added(1, "<s>", true, false),
            added(2, "</s>", true, false),
            added(3, "<|im_end|>", false, true),
        ],
    );
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]});
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
            "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
        },
    });
    file["padding"] = json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 2, "pad_type_id": 0, "pad_token": "</s>",
    });
    file["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    file
}

/// Whole words, among them special ones and a plain one that is listed as added; compatibility
/// characters become plain ones first.
pub fn words() -> Value {
    let mut vocab = serde_json::Map::new();
    for token in ["[UNK]", "[CLS]", "hello", "</s>", "important", "a", "b"] {
        vocab.insert(token.into(), json!(vocab.len()));
    }
    let mut file = file(
        json!({"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}),
        vec![
            added(0, "[UNK]", true, false),
            added(1, "[CLS]", true, false),
            added(3, "</s>", true, false),
            added(4, "important", false, true),
        ],
    );
    file["normalizer"] = json!({"type": "NFKC"});
    file["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    file
}

/// The special tokens of prompts.
pub const MARKERS: [&str; 3] = ["<IMG>", "</img>", "<IMG_EMB>"];

/// Every kind of tokenizer, with the tokens of prompts added.
pub fn every_tokenizer() -> Vec<(&'static str, Tokenizer)> {
    let texts = || (0..50).map(|i| format!("hello <IMG> </s> world <|im_end|> {i} important IMG"));
    let trained = Tokenizer::train(texts(), 400, &MARKERS).unwrap();
    let mut all = vec![
        ("trained", trained),
        ("unigram", loaded(&unigram(), None).unwrap()),
        ("llama", loaded(&llama(), None).unwrap()),
        ("words", loaded(&words(), None).unwrap()),
    ];
    for (_, tokenizer) in &mut all {
        tokenizer.add_special_tokens(&MARKERS).unwrap();
    }
    all
}
