//! `mlrm embed MODEL --notes FILE --out FILE`: embeddings of a corpus.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use indicatif::ProgressBar;
use miette::miette;
use mlrm_config::DataSettings;
use mlrm_eval::{EmbeddingSet, Embeddings, read_embeddings, write_embeddings};
use mlrm_train::corpus::{Modality, Notes};
use mlrm_train::encode::{CorpusEmbeddings, Inference};

use super::model_source::{ModelSource, images_of};

/// Notes embedded between two writes of the partial result.
const NOTES_A_PART: usize = 50_000;

/// Write the embeddings of a corpus.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub source: ModelSource,
    /// The notes, JSON Lines or Parquet.
    #[arg(long, value_name = "FILE")]
    pub notes: PathBuf,
    /// Folder or tar file of the pictures; default: the folder of the notes.
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// Where to write: `.parquet`, `.npy` or `.safetensors`.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write the visual embeddings too (mICL models).
    #[arg(long)]
    pub visual: bool,
    /// Embed only shard i of n, as `i/n` with i from 0.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    /// Notes encoded at a time.
    #[arg(long, default_value_t = 32)]
    pub batch_notes: usize,
}

/// One of n equal parts of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err("write it as i/n with 0 <= i < n, such as 0/4".into()),
        }
    }
}

impl Shard {
    /// The rows of the shard: a contiguous part, so that shards concatenate in order.
    fn rows(self, notes: usize) -> Vec<u32> {
        let bound = |part: usize| (notes * part / self.count) as u32;
        (bound(self.index)..bound(self.index + 1)).collect()
    }
}

/// Runs the command.
pub fn run(args: EmbedArgs) -> miette::Result<ExitCode> {
    mlrm_eval::Format::of(&args.out).map_err(mlrm_train::TrainError::from)?;
    let config = args.source.run_config(&[])?;
    let model = args.source.open(&config)?;
    let settings = DataSettings {
        root: PathBuf::new(),
        images: images_of(&args.notes, args.images.as_deref()),
        notes: args.notes.clone(),
        ..DataSettings::default()
    };
    let notes = Notes::open(&settings, model.embedder.reads_pictures())?;
    let rows = args.shard.rows(notes.set.len());
    if args.visual && !model.embedder.config.variant.micl() {
        return Err(miette!(
            "--visual: variant `{}` has no visual embeddings (mICL variants do)",
            model.embedder.config.variant.name()
        ));
    }
    let variant = model.embedder.config.variant;
    let encoder = model.encoding.encoder(&notes, variant, Modality::Both)?;
    encoder
        .require_pictures(rows.iter().copied())
        .map_err(mlrm_train::TrainError::from)?;
    let inference = Inference::new(&model.embedder);
    let bar = ProgressBar::new(rows.len() as u64);
    let mut parts = Vec::new();
    for (index, chunk) in rows.chunks(NOTES_A_PART).enumerate() {
        let partial = part_path(&args.out, index);
        let ids: Vec<&str> = chunk
            .iter()
            .map(|&row| notes.set[row].id.as_str())
            .collect();
        if let Some(part) = finished_part(&partial, &ids) {
            parts.push((partial, part));
            continue;
        }
        let done = index * NOTES_A_PART;
        let embeddings = inference.embed_corpus(
            &encoder,
            chunk,
            args.batch_notes,
            Modality::Both,
            &mut |n| bar.set_position((done + n) as u64),
        )?;
        let set = embedding_set(embeddings, args.visual)?;
        if rows.len() > NOTES_A_PART {
            write_embeddings(&partial, &set).map_err(mlrm_train::TrainError::from)?;
        }
        parts.push((partial, set));
    }
    bar.finish_and_clear();
    let (partials, sets): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let whole = concat(sets)?;
    write_embeddings(&args.out, &whole).map_err(mlrm_train::TrainError::from)?;
    for partial in partials.iter().filter(|path| path.exists()) {
        // What is left over does no harm: it is read again only for the same notes.
        let _left = std::fs::remove_file(partial);
    }
    let count = whole.multimodal().len();
    println!(
        "{count} embeddings of {} values: {}",
        whole.multimodal().dim(),
        args.out.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn embedding_set(embeddings: CorpusEmbeddings, visual: bool) -> miette::Result<EmbeddingSet> {
    let visual = embeddings.visual.filter(|_| visual);
    Ok(EmbeddingSet::new(embeddings.multimodal, visual).map_err(mlrm_train::TrainError::from)?)
}

/// Where a part of a long job is kept until the whole is there.
fn part_path(out: &Path, index: usize) -> PathBuf {
    out.with_extension(format!("part-{index}.safetensors"))
}

/// A part of an interrupted job, where it holds just these notes.
fn finished_part(path: &Path, ids: &[&str]) -> Option<EmbeddingSet> {
    let set = read_embeddings(path).ok()?;
    let same = set
        .multimodal()
        .ids()
        .iter()
        .map(String::as_str)
        .eq(ids.iter().copied());
    same.then_some(set)
}

fn concat(sets: Vec<EmbeddingSet>) -> miette::Result<EmbeddingSet> {
    let (all, visual): (Vec<_>, Vec<_>) = sets.into_iter().map(EmbeddingSet::into_parts).unzip();
    let visual: Option<Vec<Embeddings>> = visual.into_iter().collect();
    let join = |parts| Embeddings::concat(parts).map_err(mlrm_train::TrainError::from);
    let visual = visual
        .filter(|parts| !parts.is_empty())
        .map(join)
        .transpose()?;
    Ok(EmbeddingSet::new(join(all)?, visual).map_err(mlrm_train::TrainError::from)?)
}
