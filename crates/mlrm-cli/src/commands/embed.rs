//! `mlrm embed MODEL --notes FILE --out FILE`: embeddings of a corpus.

mod corpus;
mod failed;
mod job;
mod merge;
mod parts;
mod progress;
mod shard;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use miette::miette;
use mlrm_eval::{Numbers, clear_unfinished};
use mlrm_files::folder_of;
use mlrm_train::encode::EmbedSeconds;

pub use self::shard::Shard;

use self::job::Job;
use super::model_source::ModelSource;
use super::{at_least_one, check_place};

/// Write the embeddings of a corpus.
///
/// A long job keeps a part beside the result every --part-notes notes; the same command, given again
/// after an interruption, goes on after the last one.
#[derive(Debug, Args)]
#[command(mut_arg("model", |model| model.required_unless_present("merge").conflicts_with("merge")))]
pub struct EmbedArgs {
    #[command(flatten)]
    pub source: Option<ModelSource>,
    /// The notes, JSON Lines, CSV or Parquet: a file, a folder of them or a pattern such as `notes-*.parquet`.
    #[arg(long, value_name = "FILE", required_unless_present = "merge")]
    pub notes: Option<PathBuf>,
    /// Join the shards in this folder, if all are there, whole, and of one model, notes and options.
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "notes", "shard", "images", "visual", "dim", "dtype", "batch_notes", "part_notes", "set", "device",
        "allow_nan",
    ])]
    pub merge: Option<PathBuf>,
    /// Folder, tar or Parquet shards, or address of the pictures; default: the folder of the notes, or what the run's config says
    /// for its own notes.
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// Where to write: `.parquet`, `.npy` or `.safetensors`.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write the visual embeddings too (mICL models).
    #[arg(long)]
    pub visual: bool,
    /// Write their first N dimensions alone, normalised; for models trained so (`objective.matryoshka_dims`).
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub dim: Option<usize>,
    /// Numbers of the file: `int8` keeps directions in eight bits a number, for comparison by cosine.
    #[arg(long, value_enum, default_value_t)]
    pub dtype: NumbersArg,
    /// Embed only shard i of n, as `i/n` with i from 0, and write a manifest beside it
    /// (`OUT.shard.json`). A shard that is there already is not computed again.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Notes encoded at a time.
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    pub batch_notes: usize,
    /// Notes between two saves of what is done so far.
    #[arg(long, default_value_t = 50_000, value_parser = at_least_one, value_name = "N")]
    pub part_notes: usize,
    /// Override how the run reads pictures: `data.exif_orientation`, `data.max_image_bytes`,
    /// `data.max_image_pixels`, and `data.on_missing_image` and `data.on_bad_image`. Where the run leaves these at
    /// `error`, notes whose picture fails are embedded by their text and listed; `error` given here stops at
    /// them.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Numbers of an embedding file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum NumbersArg {
    /// As they are computed.
    #[default]
    F32,
    /// Eight bits each.
    Int8,
}

impl From<NumbersArg> for Numbers {
    fn from(numbers: NumbersArg) -> Self {
        match numbers {
            NumbersArg::F32 => Self::F32,
            NumbersArg::Int8 => Self::Int8,
        }
    }
}

/// Runs the command.
pub fn run(args: EmbedArgs) -> miette::Result<ExitCode> {
    mlrm_eval::Format::of(&args.out).map_err(mlrm_train::TrainError::from)?;
    // A folder that is not there yet is made.
    if folder_of(&args.out).exists() {
        check_place(&args.out)?;
    }
    clear_unfinished(&args.out);
    match (&args.source, &args.notes, &args.merge) {
        (_, _, Some(folder)) => merge::run(folder, &args.out),
        (Some(source), Some(notes), None) => Job::open(&args, source, notes)?.run(),
        // The command line demands them.
        _ => Err(miette!("name a model and --notes, or --merge")),
    }
}

/// Says what was written.
fn tell(notes: usize, dim: usize, failed: usize, out: &Path) {
    println!("{notes} embeddings of {dim} values: {}", out.display());
    if failed > 0 {
        let list = failed::path_of(out);
        println!("{failed} pictures failed: {}", list.display());
    }
}

/// Says where the time went.
fn tell_seconds(seconds: &EmbedSeconds) {
    println!(
        "{:.1} s of computing, {:.1} s of waiting for notes ({:.1} %)",
        seconds.computing,
        seconds.waiting,
        100.0 * seconds.share_waiting()
    );
}
