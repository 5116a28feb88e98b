//! `mlrm export MODEL --out DIR`: a model, or a part of one, as Hugging Face's libraries read it.

mod card;
mod python;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use miette::miette;
use mlrm_model::source::ModelSource;
use mlrm_model::weights::{LoadOptions, WriteOptions};
use mlrm_train::folders::replace_folder;
use mlrm_train::{TrainError, device};

use super::formats::{ByteSize, FormatArg, bytes};

/// Write a model as Hugging Face folders, in another number format or in shards.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args(["out", "python"])))]
pub struct ExportArgs {
    /// A model folder, a run folder (its `model/`), a language model or vision encoder as Hugging
    /// Face's libraries save it, or a whole BLIP-2, Qwen-VL or NoteLLM-2 of others, whose two halves are
    /// written.
    pub model: PathBuf,
    /// Keys of its config.json that mlrm does not know and that do not change the forward pass.
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub accept_keys: Vec<String>,
    /// The folder to write; it must not be there yet.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The folder to write, with code and model card: one that `AutoModel.from_pretrained` and
    /// `SentenceTransformer` of Python load whole. Adapters become a part of the weights.
    #[arg(long, value_name = "DIR")]
    pub python: Option<PathBuf>,
    /// Number format of the weights; default: the one they are in.
    #[arg(long, value_enum)]
    pub dtype: Option<FormatArg>,
    /// Begin another file before one grows beyond this size, such as `2GB`; default: one file.
    #[arg(long, value_name = "SIZE")]
    pub shard_size: Option<ByteSize>,
    /// Make the adapters of a LoRA run a part of the language model's weights.
    #[arg(long)]
    pub merge: bool,
    /// Write weights that are NaN or infinite as they are.
    #[arg(long)]
    pub allow_nan: bool,
}

/// Runs the command.
pub fn run(args: ExportArgs) -> miette::Result<ExitCode> {
    let (option, out) = match (&args.out, &args.python) {
        (Some(out), _) => ("--out", out),
        (None, Some(out)) => ("--python", out),
        (None, None) => return Err(miette!("name the folder to write: --out, or --python")),
    };
    if out.exists() {
        return Err(miette!(
            help = "remove it, or name another folder",
            "{option}: {} is there already",
            out.display()
        ));
    }
    let source = ModelSource::open(&args.model, &args.accept_keys).map_err(TrainError::from)?;
    let for_python = args.python.is_some();
    if for_python {
        python::exportable(&source)?;
    }
    let options = LoadOptions {
        allow_nan: args.allow_nan,
        ..LoadOptions::new(source.dtype().map_err(TrainError::from)?)
    };
    // A copy of a tokenizer that cannot be read would be found by whoever opens the export.
    if let Some(words) = super::inspect::words(&source)? {
        words.check(&args.model)?;
    }
    let device = device::open("flex").map_err(TrainError::from)?;
    let mut loaded = source.load(&device, &options).map_err(TrainError::from)?;
    if args.merge || (for_python && loaded.has_adapters()) {
        loaded = loaded.merged().ok_or_else(|| {
            miette!(
                help = "leave --merge out",
                "--merge: {} has no adapters (no `adapter/`)",
                source.root().display()
            )
        })?;
    }
    let weights = WriteOptions {
        dtype: args.dtype.map(FormatArg::format),
        shard_bytes: args.shard_size.map(|size| size.0),
    };
    let mut written = Vec::new();
    replace_folder(out, |folder| {
        written = source.export(&loaded, folder, weights)?;
        match for_python {
            true => python::complete(folder, &args.model, &name_of(out)),
            false => Ok(()),
        }
    })?;
    for part in written {
        let folder = match part.folder {
            "" => out.clone(),
            below => out.join(Path::new(below)),
        };
        let class =
            class(&folder).map_or(String::new(), |class| format!("; transformers: {class}"));
        println!(
            "{}: {} in {}, {} {}{class}",
            folder.display(),
            bytes(part.weights.bytes),
            part.weights.dtype.name(),
            part.weights.files.len(),
            match part.weights.files.len() {
                1 => "file",
                _ => "files",
            }
        );
    }
    if for_python {
        println!(
            "{}: AutoModel and SentenceTransformer load it with trust_remote_code=True",
            out.display()
        );
    }
    if let ModelSource::System { whole, .. } = &source {
        eprintln!(
            "what is between and behind the two is in neither: `mlrm train` with model.checkpoint = {:?} and \
             train.max_steps = 0 makes a model folder of the whole",
            args.model
        );
        if !out.join("vision").exists() {
            eprintln!(
                "{}: its config.json does not describe a vision encoder, which is not written",
                whole.root().display()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The class of `transformers` that a written folder loads as.
fn class(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("config.json")).ok()?;
    class_of(&serde_json::from_str(&text).ok()?)
}

/// The class of a `config.json`; `None` for Qwen 1 and Qwen-VL's tower, which `transformers` does not have.
fn class_of(config: &serde_json::Value) -> Option<String> {
    let class = config["architectures"][0].as_str()?;
    (!class.starts_with("QWen")).then(|| class.to_owned())
}

/// What a folder is called.
fn name_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
