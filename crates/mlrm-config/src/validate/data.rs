//! `[data]`, `[prompt]` and `[tokenizer]`.

use std::path::Path;

use super::Finding;
use crate::load::Places;
use crate::suggest::closest;
use crate::{DataSource, PromptSettings, RunConfig, check_address};

/// The templates that ship with mlrm.
const LANGUAGES: [&str; 2] = ["en", "zh"];

pub(super) fn check(config: &RunConfig, findings: &mut Vec<Finding>) {
    places(config, findings);
    source(config, findings);
    scores(config, findings);
    tokenizer(config, findings);
    language(&config.prompt, findings);
    special_tokens(&config.prompt, findings);
    token_budget(config, findings);
}

/// Addresses in object stores.
fn places(config: &RunConfig, findings: &mut Vec<Finding>) {
    for (key, path) in config.data.places() {
        if let Err(error) = check_address(path) {
            findings.push(Finding::new(key, error.message).help(error.help));
        }
    }
    if config.data.draws_at_address() {
        findings.push(
            Finding::new(
                "data.root",
                "the sample set is drawn into a folder, not at an address",
            )
            .related(["data.source"])
            .help("name a folder of this machine: root = \"runs/sample\""),
        );
    }
}

fn source(config: &RunConfig, findings: &mut Vec<Finding>) {
    let data = &config.data;
    let nothing_to_pair = data.interactions.is_none() && data.pairs_file.is_none();
    if nothing_to_pair && data.source == DataSource::Folder {
        findings.push(
            Finding::new(
                "data.interactions",
                "there is neither a behaviour log nor a pairs file to learn from",
            )
            .related(["data.source", "data.pairs_file"])
            .help("set `data.interactions` (a log) or `data.pairs_file` (ready-made pairs)"),
        );
    }
    if data.source == DataSource::Synth && data.root == Path::new(".") {
        findings.push(
            Finding::new(
                "data.source",
                "the sample set would be drawn into the current folder",
            )
            .related(["data.root"])
            .help("give it a folder of its own: root = \"runs/sample\""),
        );
    }
}

fn scores(config: &RunConfig, findings: &mut Vec<Finding>) {
    let pairs = &config.data.pairs;
    if let (Some(lower), Some(upper)) = (pairs.lower, pairs.upper)
        && lower > upper
    {
        findings.push(
            Finding::new(
                "data.pairs.lower",
                format!("no score is at least {lower} (`lower`) and at most {upper} (`upper`)"),
            )
            .related(["data.pairs.upper"])
            .help("swap the two, or leave one out"),
        );
    }
}

fn tokenizer(config: &RunConfig, findings: &mut Vec<Finding>) {
    let tokenizer = &config.tokenizer;
    let keys = [
        "tokenizer.path",
        "model.llm.path",
        "model.path",
        "model.checkpoint",
    ];
    let model = &config.model;
    let folders = [&model.path, &model.checkpoint, &model.llm.path];
    match (&tokenizer.path, tokenizer.train_vocab_size) {
        (Some(_), Some(_)) => findings.push(
            Finding::new(
                "tokenizer.train_vocab_size",
                "`tokenizer.path` and `tokenizer.train_vocab_size` are both set",
            )
            .related(["tokenizer.path"])
            .help("keep one: a tokenizer is either read or trained"),
        ),
        (None, None) if folders.iter().all(|folder| folder.is_none()) => {
            findings.push(
                Finding::new("tokenizer.train_vocab_size", "there is no tokenizer")
                    .related(keys)
                    .help(
                        "set `tokenizer.train_vocab_size` (train one on the notes, say 8000), \
                         `tokenizer.path` (a tokenizer.json), or `model.llm.path` or \
                         `model.checkpoint` (a folder that holds one)",
                    ),
            );
        }
        _ => {}
    }
}

/// A warning where words are trained for a language model that has learnt others.
pub(crate) fn foreign_words(config: &RunConfig, places: &Places) -> Option<Finding> {
    const KEY: &str = "tokenizer.train_vocab_size";
    let model = &config.model;
    let folder = match (&model.path, &model.checkpoint, &model.llm.path) {
        (None, Some(folder), _) | (None, None, Some(folder)) => folder,
        _ => return None,
    };
    // One on the Hub has a tokenizer; a folder of this machine may have none, and then words must be trained.
    let bare = folder.is_dir() && !folder.join("tokenizer.json").is_file();
    (config.tokenizer.train_vocab_size.is_some() && !bare).then(|| {
        Finding::new(
            KEY,
            format!(
                "`{KEY}` trains new words, whose numbers mean nothing to the weights of {}",
                folder.display()
            ),
        )
        .at(places.of(KEY).cloned())
        .help("leave it out: the tokenizer of that folder is read")
    })
}

fn language(prompt: &PromptSettings, findings: &mut Vec<Finding>) {
    let language = prompt.language.as_str();
    if prompt.template_file.is_some() || LANGUAGES.contains(&language) {
        return;
    }
    let meant = closest(language, LANGUAGES).map(|meant| format!("did you mean \"{meant}\"? "));
    findings.push(
        Finding::new(
            "prompt.language",
            format!("there is no prompt template for the language \"{language}\""),
        )
        .related(["prompt.template_file"])
        .help(format!(
            "{}allowed: \"en\", \"zh\"; for others, write a template and set \
             `prompt.template_file`",
            meant.unwrap_or_default()
        )),
    );
}

/// Special tokens are found by their spelling: two that are the same could not be told apart.
fn special_tokens(prompt: &PromptSettings, findings: &mut Vec<Finding>) {
    let tokens = [
        ("prompt.image_token", &prompt.image_token),
        ("prompt.image_end_token", &prompt.image_end_token),
        ("prompt.image_emb_token", &prompt.image_emb_token),
    ];
    for (index, (key, token)) in tokens.iter().enumerate() {
        if token.trim() != token.as_str() {
            findings.push(
                Finding::new(*key, format!("`{key}` starts or ends with white space"))
                    .help("take the white space away"),
            );
        }
        if let Some((other, _)) = tokens[..index].iter().find(|(_, known)| known == token) {
            findings.push(
                Finding::new(*key, format!("`{key}` and `{other}` are both \"{token}\""))
                    .related([*other])
                    .help("give each special token a spelling of its own"),
            );
        }
    }
}

/// The visual tokens count as part of the prompt, and the text needs room too.
fn token_budget(config: &RunConfig, findings: &mut Vec<Finding>) {
    let visual = match config.model.variant.image_tokens() && config.model.path.is_none() {
        true => config.model.connector.queries,
        false => 0,
    };
    if let Some(max_tokens) = config.prompt.max_tokens
        && max_tokens <= visual
    {
        findings.push(
            Finding::new(
                "prompt.max_tokens",
                format!("{visual} visual tokens leave no room in a prompt of {max_tokens}"),
            )
            .related(["model.connector.queries", "model.variant"])
            .help(format!(
                "the paper has 140 tokens of text beside them: max_tokens = {}",
                visual.saturating_add(140)
            )),
        );
    }
}
