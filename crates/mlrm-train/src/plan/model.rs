//! The model of a run: from a folder, or built from the parts that its config names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use mlrm_config::{ModelSettings, RunConfig};
use mlrm_data::split::PairData;
use mlrm_data::tokenizer::{NewToken, Tokenizer};
use mlrm_model::adapter::AdapterConfig;
use mlrm_model::checksums;
use mlrm_model::decoder::DecoderConfig;
use mlrm_model::embedder::{BuildOptions, Embedder, ModelFolder, PromptRecord, WeightSource};
use mlrm_model::weights::NewRows;

use super::pictures::{preprocessor_of, run_pictures};
use crate::corpus::{Encoding, Notes, run_tokenizer};
use crate::error::TrainError;
use crate::parts::Parts;
use crate::{device, memory};

/// A model and the means to feed it, from a model folder.
pub struct OpenModel {
    /// The model.
    pub embedder: Embedder,
    /// How notes become batches.
    pub encoding: Encoding,
}

/// Whether the model that a run starts from looks at pictures.
pub(super) fn looks_at_pictures(settings: &ModelSettings) -> Result<bool, TrainError> {
    match &settings.path {
        Some(folder) => Ok(ModelFolder::open(folder)?.config.vision.is_some()),
        None => Ok(settings.variant.vision()),
    }
}

/// The weights and number format of a run that starts from a model folder or is only evaluated.
///
/// `adapter`: the adapters that belong to these weights; else the config's are meant.
fn build_options(
    config: &RunConfig,
    sources: [WeightSource; 3],
    adapter: Option<PathBuf>,
) -> BuildOptions {
    let [llm, vision, head] = sources;
    let lora = &config.model.llm.lora;
    BuildOptions {
        llm,
        vision,
        head,
        connector: None,
        seed: config.run.seed,
        query_init_std: config.model.connector.query_init_std,
        temperature_logit: config.objective.initial_temperature_logit(),
        tune: config.model.llm.tune,
        quantisation: config.model.llm.quantisation,
        adapter: adapter.or_else(|| lora.path.clone().map(|path| path.to_path_buf())),
        // What a PEFT folder brings, the config does not say again.
        lora: match lora.path {
            Some(_) => None,
            None => Some(AdapterConfig::from_settings(lora)),
        },
        lora_dropout: lora.dropout,
        learn_temperature: config.objective.learn_temperature,
        dtype: device::dtype(config.backend.dtype),
        allow_nan: config.model.allow_nan,
        new_words: None,
        cut_layers: false,
    }
}

/// Opens a model folder on `device`; of `config` only training, number format
/// and the orientation of pictures are used.
///
/// # Errors
/// A folder that is no model, or whose files do not fit each other.
pub fn open_model(
    folder: &Path,
    device: &Device,
    config: &RunConfig,
) -> Result<OpenModel, TrainError> {
    checksums::verify(folder)?;
    let files = ModelFolder::open(folder)?;
    let tokenizer = Arc::new(Tokenizer::load(&files.tokenizer())?);
    let (words, rows) = (tokenizer.vocabulary_rows(), files.config.llm.vocab_size);
    if words > rows {
        return Err(TrainError::Refused(format!(
            "{} has {words} words, but `vocab_size` in {} is {rows}: they are not of one model",
            files.tokenizer().display(),
            files.llm().join("config.json").display()
        )));
    }
    let vision = files.config.vision.as_ref();
    let preprocessor = vision
        .map(|vision| preprocessor_of(&files.vision(), vision))
        .transpose()?;
    let mut prompt = files.prompt.settings.clone();
    if prompt.template_file.is_some() {
        prompt.template_file = Some(folder.join("template.toml"));
    }
    let orientation = config.data.exif_orientation;
    let encoding = Encoding {
        tokenizer,
        prompt,
        preprocessor: preprocessor.map(|pictures| pictures.with_orientation(orientation)),
        visual_tokens: files.config.visual_tokens(),
    };
    memory::check_weights(&files.config, &config.backend)?;
    let sources = [files.llm(), files.vision(), files.head()].map(WeightSource::Checkpoint);
    let options = build_options(config, sources, files.adapter());
    let embedder = Embedder::build(files.config, &options, device)?;
    Ok(OpenModel { embedder, encoding })
}

/// The model that a run of `config` begins with: a model folder, or built from its parts.
///
/// # Errors
/// Folders that are no models, parts that do not fit each other, and settings that do not fit them.
pub fn starting_model(
    config: &RunConfig,
    device: &Device,
    notes: &Notes,
    pairs: &PairData,
) -> Result<OpenModel, TrainError> {
    match &config.model.path {
        Some(folder) => open_model(folder, device, config),
        None => build_model(config, device, notes, pairs),
    }
}

/// Builds the model of a config from its parts, loaded or from scratch.
fn build_model(
    config: &RunConfig,
    device: &Device,
    notes: &Notes,
    pairs: &PairData,
) -> Result<OpenModel, TrainError> {
    let parts = Parts::open(&config.model)?;
    let settings = &config.model;
    let variant = settings.variant;
    let (tokenizer, new_tokens) = run_tokenizer(
        &config.tokenizer,
        &config.prompt,
        variant,
        parts.llm_folder(settings),
        &notes.set,
        pairs,
    )?;
    let tokenizer = Arc::new(tokenizer);
    let words = tokenizer.vocabulary_rows();
    let (llm, new_words) = match parts.llm(settings)? {
        Some(mut llm) => {
            let new_words = new_words(llm.vocab_size, words, &new_tokens);
            llm.vocab_size = new_words.rows();
            (llm, Some(new_words))
        }
        None => {
            let padded = padded_vocabulary(settings.llm.vocab_size, words)?;
            let llm = DecoderConfig::from_settings(&settings.llm, padded);
            (llm, None)
        }
    };
    let mut vision = variant
        .vision()
        .then(|| parts.vision(settings))
        .transpose()?;
    let preprocessor = vision.as_mut().map(|vision| {
        run_pictures(
            vision,
            parts.pictures(settings),
            &settings.vision,
            parts.has_merger(),
        )
    });
    let mut encoding = Encoding {
        tokenizer,
        prompt: config.prompt.clone(),
        preprocessor: preprocessor
            .transpose()?
            .map(|pictures| pictures.with_orientation(config.data.exif_orientation)),
        visual_tokens: 0,
    };
    let tokens = encoding.token_ids();
    let layout = config.prompt.layout;
    let sizes = parts.embedder(settings, layout, llm, vision, tokens)?;
    encoding.visual_tokens = sizes.visual_tokens();
    let options = BuildOptions {
        new_words,
        cut_layers: settings.llm.keep_layers.is_some(),
        connector: parts.bare_connector(),
        ..build_options(config, parts.sources(settings)?, None)
    };
    memory::check_weights(&sizes, &config.backend)?;
    let embedder = Embedder::build(sizes, &options, device)?;
    Ok(OpenModel { embedder, encoding })
}

/// Rows of the embedding table: one a token, or as many as `model.llm.vocab_size` says.
fn padded_vocabulary(vocab_size: Option<usize>, tokens: usize) -> Result<usize, TrainError> {
    match vocab_size {
        Some(rows) if rows < tokens => Err(TrainError::Refused(format!(
            "model.llm.vocab_size = {rows}: the tokenizer has {tokens} tokens, and each needs a row \
             of the embedding table; set it to {tokens} or more, or leave it out"
        ))),
        Some(rows) => Ok(rows),
        None => Ok(tokens),
    }
}

/// The rows that a lookup table of `stored_rows` needs for a tokenizer of `words`: those of its new
/// tokens, which may lie in the table's padding, and those that the table does not reach.
fn new_words(stored_rows: usize, words: usize, new_tokens: &[NewToken]) -> NewRows {
    let mut ids: Vec<u32> = new_tokens.iter().map(|token| token.id).collect();
    ids.extend(stored_rows as u32..words as u32);
    NewRows {
        stored_rows,
        known_rows: words,
        ids,
    }
}

/// What `mlrm.toml` records of the prompts.
pub fn prompt_record(encoding: &Encoding) -> PromptRecord {
    let mut settings = encoding.prompt.clone();
    if settings.template_file.is_some() {
        settings.template_file = Some(PathBuf::from("template.toml"));
    }
    PromptRecord { settings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_words_are_padded_and_never_cut() {
        assert_eq!(padded_vocabulary(None, 300).unwrap(), 300);
        assert_eq!(padded_vocabulary(Some(320), 300).unwrap(), 320);
        let message = padded_vocabulary(Some(299), 300).unwrap_err().to_string();
        assert!(message.contains("has 300 tokens"), "{message}");
        let added = NewToken {
            content: "<image>".into(),
            id: 290,
        };
        // A new token within the table's padding, and two rows past its end.
        let rows = new_words(298, 300, &[added]);
        assert_eq!(rows.ids, [290, 298, 299]);
        assert_eq!((rows.stored_rows, rows.known_rows), (298, 300));
    }
}
