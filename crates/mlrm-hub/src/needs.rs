//! Which files of a repository are needed: those that mlrm reads or hands on, never the same weights in
//! another format.

/// What a repository is to be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A language model, a vision encoder, a whole model of others or a model folder of mlrm, with
    /// everything beside the weights.
    Model,
    /// An adapter in PEFT's layout.
    Adapter,
    /// A tokenizer alone.
    Tokenizer,
}

/// Weights that are not sharded.
pub(crate) const SINGLE: &str = "model.safetensors";
/// How a file of weights ends.
pub(crate) const WEIGHTS: &str = ".safetensors";
/// Which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Small files that are read, or that an export hands on.
const BESIDE_WEIGHTS: [&str; 12] = [
    "config.json",
    "mlrm.toml",
    "template.toml",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];
/// The folders of a model folder of mlrm.
const PARTS: [&str; 3] = ["llm/", "vision/", "adapter/"];

impl Needs {
    /// The needed ones of a repository's files, small ones first, so that a folder that has its weights
    /// has all. Shards are named by the index, which is one of these files.
    pub(crate) fn of<'a>(self, files: &[&'a str]) -> Vec<&'a str> {
        let root = model_root(files);
        let within = |file: &&'a str| {
            let below = file.strip_prefix(root)?;
            let part = PARTS.iter().find_map(|part| below.strip_prefix(part));
            let whole = files.contains(&format!("{root}mlrm.toml").as_str());
            let name = match part {
                Some(name) if whole && self == Self::Model => name,
                _ => below,
            };
            self.rank(name, &file[..file.len() - name.len()], files)
        };
        let mut needed: Vec<(u8, &str)> = files
            .iter()
            .filter_map(|file| Some((within(file)?, *file)))
            .collect();
        needed.sort_by_key(|(rank, _)| *rank);
        needed.into_iter().map(|(_, file)| file).collect()
    }

    /// When a file of a folder is fetched: 0 for small ones, 1 for weights; `None` when it is not needed.
    fn rank(self, name: &str, folder: &str, files: &[&str]) -> Option<u8> {
        let there = |other: &str| files.contains(&format!("{folder}{other}").as_str());
        let small = match self {
            Self::Tokenizer => TOKENIZER.contains(&name),
            Self::Adapter => name == ADAPTER[0],
            Self::Model => {
                TOKENIZER.contains(&name)
                    || BESIDE_WEIGHTS.contains(&name)
                    || name == ADAPTER[0]
                    || (name == INDEX && !there(SINGLE))
            }
        };
        let weights = match self {
            Self::Tokenizer => false,
            Self::Adapter => name == ADAPTER[1],
            Self::Model => [SINGLE, ADAPTER[1], "head.safetensors"].contains(&name),
        };
        match (small, weights) {
            (true, _) => Some(0),
            (_, true) => Some(1),
            _ => None,
        }
    }

    /// What a folder with these files lacks to be read as this; empty when it has all that must be there.
    pub(crate) fn missing(self, files: &[&str]) -> Vec<String> {
        let there = |name: &str| files.contains(&name);
        let any = |names: &[&str]| names.iter().any(|name| there(name));
        let mut missing = Vec::new();
        match self {
            Self::Tokenizer if !there(TOKENIZER[0]) => missing.push(TOKENIZER[0].to_owned()),
            Self::Adapter => missing.extend(
                ADAPTER
                    .iter()
                    .filter(|name| !there(name))
                    .map(|name| (*name).to_owned()),
            ),
            Self::Model if any(&["mlrm.toml", "model/mlrm.toml"]) => {
                let root = model_root(files);
                let head = format!("{root}head.safetensors");
                missing.extend((!there(&head)).then_some(head));
                for part in ["llm/", "vision/"] {
                    let part = format!("{root}{part}");
                    let used = files.iter().any(|file| file.starts_with(&part));
                    let weights = [SINGLE, INDEX]
                        .iter()
                        .any(|name| there(&format!("{part}{name}")));
                    missing.extend((used && !weights).then(|| format!("{part}{SINGLE}")));
                }
            }
            // An adapter beside no weights can be looked at.
            Self::Model if there(ADAPTER[0]) && !there("config.json") => {
                missing.extend((!there(ADAPTER[1])).then(|| ADAPTER[1].to_owned()));
            }
            Self::Model => {
                missing.extend((!there("config.json")).then(|| "config.json".to_owned()));
                missing.extend((!any(&[SINGLE, INDEX])).then(|| SINGLE.to_owned()));
            }
            Self::Tokenizer => {}
        }
        missing
    }
}

/// Where a model folder of mlrm begins: `model/` in a run folder, else the root.
fn model_root(files: &[&str]) -> &'static str {
    match !files.contains(&"mlrm.toml") && files.contains(&"model/mlrm.toml") {
        true => "model/",
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_weights_in_another_format_are_not_needed() {
        let files = [
            "README.md",
            "pytorch_model.bin",
            "model.safetensors",
            "model.safetensors.index.json",
            "tf_model.h5",
            "onnx/model.onnx",
            "onnx/config.json",
            "original/consolidated.00.pth",
            "consolidated.safetensors",
            "tokenizer.json",
            "tokenizer.model",
            "config.json",
        ];
        let needed = ["tokenizer.json", "config.json", "model.safetensors"];
        assert_eq!(Needs::Model.of(&files), needed);
        assert_eq!(Needs::Tokenizer.of(&files), ["tokenizer.json"]);
        assert!(Needs::Adapter.of(&files).is_empty());
    }

    #[test]
    fn shards_are_found_by_their_index() {
        let files = ["model-00001-of-00002.safetensors", INDEX, "config.json"];
        assert_eq!(Needs::Model.of(&files), [INDEX, "config.json"]);
        assert!(Needs::Model.missing(&files).is_empty());
    }

    #[test]
    fn a_model_folder_brings_its_parts() {
        for root in ["", "model/"] {
            let names = [
                "mlrm.toml",
                "head.safetensors",
                "llm/config.json",
                "llm/model.safetensors",
                "llm/tokenizer.json",
                "vision/preprocessor_config.json",
                "vision/model.safetensors",
                "adapter/adapter_config.json",
                "adapter/adapter_model.safetensors",
            ];
            let all: Vec<String> = names.iter().map(|name| format!("{root}{name}")).collect();
            let mut files: Vec<&str> = all.iter().map(String::as_str).collect();
            files.push("checkpoints/step-1/head.safetensors");
            let mut needed = Needs::Model.of(&files);
            needed.sort_unstable();
            let mut expected: Vec<&str> = all.iter().map(String::as_str).collect();
            expected.sort_unstable();
            assert_eq!(needed, expected);
            assert!(Needs::Model.missing(&files).is_empty());
            files.retain(|file| !file.ends_with("llm/model.safetensors"));
            assert_eq!(
                Needs::Model.missing(&files),
                [format!("{root}llm/model.safetensors")]
            );
        }
    }

    #[test]
    fn what_must_be_there_is_named() {
        assert_eq!(
            Needs::Model.missing(&["config.json"]),
            ["model.safetensors"]
        );
        assert_eq!(
            Needs::Adapter.missing(&["adapter_config.json"]),
            ["adapter_model.safetensors"]
        );
        assert_eq!(
            Needs::Tokenizer.missing(&["config.json"]),
            ["tokenizer.json"]
        );
    }
}
