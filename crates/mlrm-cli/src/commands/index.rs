//! `mlrm index EMBEDDINGS --out FILE`: an approximate index, and how much of the exact answer it finds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
#[cfg(not(feature = "index"))]
use miette::miette;

use super::at_least_one;

/// Build an approximate index (HNSW) of embeddings, and measure its recall.
///
/// FILE is usearch's format; beside it FILE.ids.txt has the id of each key, and FILE.json how the index was built and its
/// recall against the exact answer. `mlrm similar --index FILE` asks it.
#[derive(Debug, Args)]
pub struct IndexArgs {
    /// Embedding file that `mlrm embed` wrote: .parquet, .npy or .safetensors.
    #[arg(value_name = "EMBEDDINGS")]
    pub embeddings: PathBuf,
    /// Where to write the index, such as `shop.usearch`.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Numbers of the index.
    #[arg(long, value_enum, default_value_t)]
    pub dtype: IndexNumbersArg,
    /// Index the visual embeddings of the file instead of the multimodal ones.
    #[arg(long)]
    pub visual: bool,
    /// Index their first N dimensions alone, normalised.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub dim: Option<usize>,
    /// Neighbours of a note in the graph (M): more find more, and take more memory.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = at_least_one)]
    pub connectivity: usize,
    /// Candidates that are looked at where a note is added (efConstruction).
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one)]
    pub expansion_add: usize,
    /// Candidates that a search looks at (ef): more find more, and take longer.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_one)]
    pub expansion_search: usize,
    /// Notes that recall is measured for.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = at_least_one)]
    pub queries: usize,
    /// Nearest notes that recall is measured over.
    #[arg(short, long, default_value_t = 10, value_name = "N", value_parser = at_least_one)]
    pub k: usize,
}

/// Numbers of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum IndexNumbersArg {
    /// Four bytes each.
    F32,
    /// Two bytes each.
    #[default]
    F16,
    /// One byte each.
    Int8,
}

/// Says which feature is missing.
#[cfg(not(feature = "index"))]
pub fn not_built() -> miette::Report {
    miette!(
        help = "build it with `cargo build --release --features mlrm-cli/index`; it needs a C++ compiler",
        "this binary was built without approximate indices (cargo feature `index`)"
    )
}

/// Runs the command.
#[cfg(not(feature = "index"))]
pub fn run(_: IndexArgs) -> miette::Result<ExitCode> {
    Err(not_built())
}

/// Runs the command.
#[cfg(feature = "index")]
pub fn run(args: IndexArgs) -> miette::Result<ExitCode> {
    use indicatif::ProgressBar;
    use mlrm_eval::{Index, IndexNumbers, IndexOptions, clear_unfinished};
    use mlrm_train::TrainError;

    super::check_place(&args.out)?;
    clear_unfinished(&args.out);
    let embeddings = super::similar::embeddings_of(&args.embeddings, args.visual, args.dim)?;
    let options = IndexOptions {
        numbers: match args.dtype {
            IndexNumbersArg::F32 => IndexNumbers::F32,
            IndexNumbersArg::F16 => IndexNumbers::F16,
            IndexNumbersArg::Int8 => IndexNumbers::Int8,
        },
        connectivity: args.connectivity,
        expansion_add: args.expansion_add,
        expansion_search: args.expansion_search,
    };
    let bar = ProgressBar::new(embeddings.len() as u64);
    let bar = super::styled(bar, "{wide_bar} {human_pos}/{human_len} notes, {eta}");
    let index = Index::build(&embeddings, options, &|_| bar.inc(1)).map_err(TrainError::from)?;
    bar.finish_and_clear();
    let recall = index
        .recall(&embeddings, args.queries, args.k)
        .map_err(TrainError::from)?;
    let report = index.write(&args.out, recall).map_err(TrainError::from)?;
    println!(
        "{}: {} notes, {}, built in {:.1} s on {} threads",
        args.out.display(),
        report.notes,
        super::formats::bytes(report.bytes),
        report.build_seconds,
        report.threads
    );
    println!(
        "recall@{} {:.2} % of the exact answer for {} notes, {:.0} searches per second",
        recall.k,
        100.0 * recall.recall,
        recall.queries,
        recall.queries_per_second
    );
    Ok(ExitCode::SUCCESS)
}
