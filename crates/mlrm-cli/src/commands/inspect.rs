//! `mlrm inspect PATH`: what a model is, whether its weights fit its config, and what training it
//! would need of memory.

mod print;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use miette::{IntoDiagnostic, miette};
use mlrm_config::{
    ConnectorSettings, DataSettings, EvalSettings, LoraSettings, PromptSettings, Quantisation,
    TrainSettings,
};
use mlrm_data::tokenizer::Tokenizer;
use mlrm_model::adapter::AdapterConfig;
use mlrm_model::source::{ModelSource, Part};
use mlrm_model::weights::LoadOptions;
use mlrm_train::memory::{TrainingMemory, TrainingShape, peak_resident_bytes};
use mlrm_train::{TrainError, device};
use serde::Serialize;

use super::formats::{FormatArg, QuantisationArg};
use crate::hub::{self, Outline};

/// Say what a model is, whether its weights fit its config, and what training it would need.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A model folder, a run folder (its `model/`), or a language model or vision encoder as Hugging
    /// Face's libraries save it.
    pub model: PathBuf,
    /// Keys of its config.json that mlrm does not know and that do not change the forward pass.
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub accept_keys: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Load the weights as well: every value is read and checked, and time and memory are told.
    #[arg(long)]
    pub load: bool,
    /// Take weights that are NaN or infinite as they are.
    #[arg(long, requires = "load")]
    pub allow_nan: bool,
    /// Number format that training and --load are to use; default: the one of the weights.
    #[arg(long, value_enum)]
    pub dtype: Option<FormatArg>,
    /// Pairs of a training step.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch_pairs: u64,
    /// Notes whose activations are held at a time (`train.micro_batch_notes`); 0: all of the batch.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub micro_batch_notes: u64,
    /// Run layers again for their gradients (`train.checkpoint_layers`).
    #[arg(long)]
    pub checkpoint_layers: bool,
    /// Positions of a note in the language model, visual tokens included; default: the prompt's
    /// token budget.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub positions: Option<u64>,
    /// Rank of the adapters for `lora`; default: that of the model's adapters, or 8.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub rank: Option<u64>,
    /// Maps that have adapters for `lora`, such as `q_proj,v_proj`; default: those of the model's
    /// adapters, or all-linear.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub targets: Option<Vec<String>>,
    /// Hold the matrices quantised for `lora` and `frozen`.
    #[arg(long, value_enum)]
    pub quantisation: Option<QuantisationArg>,
}

#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    parts: Vec<Part>,
    tokenizer: Option<Words>,
    training: Option<Training>,
    loaded: Option<LoadReport>,
}

/// The words of the tokenizer beside the rows of the lookup table.
#[derive(Debug, Serialize)]
pub(super) struct Words {
    tokens: usize,
    rows: usize,
}

impl Words {
    /// Refuses a tokenizer with tokens that the lookup table of `model` has no row for.
    pub(super) fn check(&self, model: &Path) -> miette::Result<()> {
        if self.tokens <= self.rows {
            return Ok(());
        }
        Err(miette!(
            "{}: the tokenizer has {} tokens, the lookup table {} rows",
            model.display(),
            self.tokens,
            self.rows
        ))
    }
}

#[derive(Debug, Serialize)]
struct Training {
    dtype: &'static str,
    batch_pairs: u64,
    positions: u64,
    rank: usize,
    target_modules: Vec<String>,
    estimates: [TrainingMemory; 3],
}

#[derive(Debug, Serialize)]
struct LoadReport {
    dtype: &'static str,
    seconds: f64,
    /// Size of the parameters in `dtype`.
    parameter_bytes: u64,
    /// Largest resident memory of the process; `None` where the system does not tell.
    peak_bytes: Option<u64>,
}

/// Runs the command. Fails where weights and config do not fit.
pub fn run(mut args: InspectArgs) -> miette::Result<ExitCode> {
    let outline = hub::outline(&args.model, args.load)?;
    args.model = outline.shown.clone();
    // What is made for this alone is no name that means anything to the reader.
    let renamed = |error: miette::Report| match outline.folder == outline.shown {
        true => error,
        false => renamed(&error, &outline),
    };
    inspect(args, &outline).map_err(renamed)
}

/// The same error with the name of the model in the place of its folder.
fn renamed(error: &miette::Report, outline: &Outline) -> miette::Report {
    let folder = outline.folder.display().to_string();
    let with_name = |text: String| text.replace(&folder, &outline.shown.display().to_string());
    let causes = error.chain().map(ToString::to_string);
    let message = with_name(causes.collect::<Vec<_>>().join(": "));
    match error.help() {
        Some(help) => miette!(help = with_name(help.to_string()), "{message}"),
        None => miette!("{message}"),
    }
}

fn inspect(args: InspectArgs, outline: &Outline) -> miette::Result<ExitCode> {
    let source = ModelSource::open(&outline.folder, &args.accept_keys).map_err(TrainError::from)?;
    let mut parts = source.parts().map_err(TrainError::from)?;
    for part in &mut parts {
        if let Ok(below) = part.path.strip_prefix(&outline.folder) {
            part.path = match below.as_os_str().is_empty() {
                true => outline.shown.clone(),
                false => outline.shown.join(below),
            };
        }
    }
    let fits = parts.iter().all(|part| part.mismatches.is_empty());
    let tokenizer = words(&source)?;
    let report = Report {
        path: args.model.clone(),
        training: training(&args, &source, &parts)?,
        // Weights that do not fit are reported, not loaded.
        loaded: (args.load && fits)
            .then(|| load(&args, &source, &parts))
            .transpose()?,
        tokenizer,
        parts,
    };
    if args.json {
        super::print_json(&report)?;
    } else {
        print::report(&report);
    }
    if !fits {
        return Err(miette!(
            help = "is config.json the one of these weights?",
            "{}: weights and config do not fit",
            args.model.display()
        ));
    }
    if let Some(words) = &report.tokenizer {
        words.check(&args.model)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` where there is no language model or no tokenizer beside it; an error where the tokenizer
/// cannot be read.
pub(super) fn words(source: &ModelSource) -> miette::Result<Option<Words>> {
    let Some(llm) = source.llm() else {
        return Ok(None);
    };
    let folder = match source {
        ModelSource::Model(folder) => folder.llm(),
        _ => source.root().to_owned(),
    };
    let file = folder.join("tokenizer.json");
    if !file.is_file() {
        return Ok(None);
    }
    let tokenizer = Tokenizer::load(&file).map_err(TrainError::from)?;
    Ok(Some(Words {
        tokens: tokenizer.vocabulary_rows(),
        rows: llm.vocab_size,
    }))
}

fn training(
    args: &InspectArgs,
    source: &ModelSource,
    parts: &[Part],
) -> miette::Result<Option<Training>> {
    let Some(llm) = source.llm() else {
        return Ok(None);
    };
    let format = match args.dtype {
        Some(dtype) => dtype.format(),
        None => source.dtype().map_err(TrainError::from)?,
    };
    let budget = match source {
        ModelSource::Model(folder) => folder
            .prompt
            .settings
            .token_budget(folder.config.visual_tokens()),
        _ => PromptSettings::default().token_budget(ConnectorSettings::default().queries),
    };
    let parameters = |name| {
        let part = parts.iter().find(|part| part.part == name);
        part.map_or(0, |part| part.parameters)
    };
    let adapters = adapters(args, source)?;
    let (train, eval) = (TrainSettings::default(), EvalSettings::default());
    let shape = TrainingShape {
        llm,
        model: match source {
            ModelSource::Model(folder) => Some(&folder.config),
            _ => None,
        },
        llm_parameters: parameters("llm"),
        head_parameters: parameters("head"),
        vision_parameters: parameters("vision"),
        format,
        kernels: format == device::Format::F32,
        short_products: false,
        batch_pairs: args.batch_pairs,
        workers: 1,
        workers_here: 1,
        batch_notes: 2 * args.batch_pairs,
        micro_batch_notes: args.micro_batch_notes,
        checkpoint_layers: args.checkpoint_layers,
        positions: args.positions.unwrap_or(budget as u64),
        adapters: &adapters,
        quantisation: args.quantisation.map_or(Quantisation::None, Into::into),
        notes: 0,
        read_notes: 0,
        saliency_notes: match source {
            ModelSource::Model(folder) if folder.config.connector.is_some() => {
                train.saliency_notes as u64
            }
            _ => 0,
        },
        eval_batch_notes: eval.batch_notes as u64,
        prefetch_batches: DataSettings::default().prefetch_batches as u64,
        keeps_untrained: false,
        keeps_states: false,
        program_bytes: None,
    };
    let estimates = TrainingMemory::estimates(&shape).map_err(TrainError::from)?;
    Ok(Some(Training {
        dtype: format.name(),
        batch_pairs: shape.batch_pairs,
        positions: shape.positions,
        estimates,
        rank: adapters.rank,
        target_modules: adapters.target_modules,
    }))
}

/// The adapters that `lora` is estimated with: the model's own or PEFT's defaults, but for what the
/// command line says.
fn adapters(args: &InspectArgs, source: &ModelSource) -> miette::Result<AdapterConfig> {
    let own = match source {
        ModelSource::Model(folder) => folder.adapter(),
        _ => None,
    };
    let mut adapters = match own {
        Some(folder) => AdapterConfig::read(&folder).map_err(TrainError::from)?,
        None => AdapterConfig::from_settings(&LoraSettings::default()),
    };
    if let Some(rank) = args.rank {
        adapters.rank = usize::try_from(rank).into_diagnostic()?;
    }
    if let Some(targets) = &args.targets {
        adapters.target_modules = targets.clone();
        adapters.pattern = false;
    }
    Ok(adapters)
}

fn load(args: &InspectArgs, source: &ModelSource, parts: &[Part]) -> miette::Result<LoadReport> {
    let dtype = match args.dtype {
        Some(dtype) => dtype.format(),
        None => source.dtype().map_err(TrainError::from)?,
    };
    let options = LoadOptions {
        allow_nan: args.allow_nan,
        ..LoadOptions::new(dtype)
    };
    let device = device::open("flex").map_err(TrainError::from)?;
    let started = Instant::now();
    let loaded = source.load(&device, &options).map_err(TrainError::from)?;
    let seconds = started.elapsed().as_secs_f64();
    let peak_bytes = peak_resident_bytes();
    drop(loaded);
    let parameters: u64 = parts.iter().map(|part| part.parameters).sum();
    Ok(LoadReport {
        dtype: dtype.name(),
        seconds,
        parameter_bytes: parameters * dtype.size() as u64,
        peak_bytes,
    })
}
