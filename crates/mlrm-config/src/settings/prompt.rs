//! `[prompt]` and `[tokenizer]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelPath;

/// `[prompt]`: how a note becomes text for the language model (method §1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §1; NoteLLM-2 (KDD 2025)"))]
pub struct PromptSettings {
    /// Template that ships with mlrm: `en` or `zh`. Not read when `template_file` is set.
    pub language: String,
    /// A template file of your own (see the guide, "Prompts").
    pub template_file: Option<PathBuf>,
    /// Where the visual tokens stand (method §1).
    pub layout: ImageLayout,
    /// Most characters (graphemes) of the title. Paper: 20.
    pub title_chars: usize,
    /// Which end of a longer title is kept. `end` suits titles whose last words tell most, such as
    /// a year or a model number.
    pub title_keep: TitleKeep,
    /// Most characters (graphemes) of the content. Paper: 80.
    pub content_chars: usize,
    /// Most topics of a note. Paper: 10.
    pub topics: usize,
    /// Most characters (graphemes) of one topic. Paper: 16.
    pub topic_chars: usize,
    /// Most tokens of the whole prompt, visual tokens included; default 140 + visual tokens.
    #[schemars(range(min = 1))]
    pub max_tokens: Option<usize>,
    /// Spelling of the image placeholder token; `<img>` for Qwen's `after` layout.
    #[schemars(length(min = 1))]
    pub image_token: String,
    /// Spelling of the token that closes an image in the `after` layout.
    #[schemars(length(min = 1))]
    pub image_end_token: String,
    /// Spelling of the mICL token whose predecessor gives the visual embedding
    /// (Qwen: `<|extra_0|>`).
    #[schemars(length(min = 1))]
    pub image_emb_token: String,
}

impl PromptSettings {
    /// Text tokens of a prompt when `max_tokens` is not set (released code).
    pub const DEFAULT_TEXT_TOKENS: usize = 140;

    /// Most tokens of the whole prompt, `visual_tokens` included.
    pub fn token_budget(&self, visual_tokens: usize) -> usize {
        self.max_tokens
            .unwrap_or(Self::DEFAULT_TEXT_TOKENS + visual_tokens)
    }
}

impl Default for PromptSettings {
    fn default() -> Self {
        Self {
            language: "en".into(),
            template_file: None,
            layout: ImageLayout::Replace,
            title_chars: 20,
            title_keep: TitleKeep::Start,
            content_chars: 80,
            topics: 10,
            topic_chars: 16,
            max_tokens: None,
            image_token: "<IMG>".into(),
            image_end_token: "</img>".into(),
            image_emb_token: "<IMG_EMB>".into(),
        }
    }
}

/// Which end of a title that is over its budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TitleKeep {
    /// Its first characters.
    #[default]
    Start,
    /// Its last characters.
    End,
}

/// Where the visual tokens stand in the sequence (method §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageLayout {
    /// In place of the image token: S ids become S - 1 + V positions (Llama style).
    #[default]
    Replace,
    /// After the image token, which stays: S ids become S + V positions (Qwen style).
    After,
}

/// `[tokenizer]`: where token ids come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §1"))]
pub struct TokenizerSettings {
    /// A Hugging Face `tokenizer.json`, or the folder of one; default: the one beside `model.llm.path` or
    /// `model.checkpoint`. Or `hf:owner/name@revision`.
    pub path: Option<ModelPath>,
    /// Train a byte-level BPE of this many words on the training notes instead.
    #[schemars(range(min = 300, max = 1_000_000))]
    pub train_vocab_size: Option<usize>,
}
