//! `mlrm embed MODEL --notes FILE --out FILE`: embeddings of a corpus.

mod parts;

use std::cell::Cell;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use miette::miette;
use mlrm_config::{DType, DataSettings, DataSource};
use mlrm_eval::{EmbeddingSet, Embeddings, Numbers, clear_unfinished, write_embeddings};
use mlrm_train::corpus::{Modality, Notes};
use mlrm_train::encode::{CorpusEmbeddings, Inference};

use self::parts::{Job, Kept, Parts};
use super::model_source::{ModelSource, images_of, picture_progress, tell_of_pictures};
use super::{at_least_one, check_place, folder_of};

/// Write the embeddings of a corpus.
///
/// A long job keeps a part beside the result every --part-notes notes; the same command, given again
/// after an interruption, goes on after the last one.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub source: ModelSource,
    /// The notes, JSON Lines or Parquet.
    #[arg(long, value_name = "FILE")]
    pub notes: PathBuf,
    /// Folder or tar file of the pictures; default: the folder of the notes, or what the run's config says
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
    /// Embed only shard i of n, as `i/n` with i from 0.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    /// Notes encoded at a time.
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    pub batch_notes: usize,
    /// Notes between two saves of what is done so far.
    #[arg(long, default_value_t = 50_000, value_parser = at_least_one, value_name = "N")]
    pub part_notes: usize,
    /// Override how the run reads pictures: `data.on_missing_image`, `data.on_bad_image`,
    /// `data.exif_orientation`, `data.max_image_bytes`, `data.max_image_pixels`.
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
    /// Whether the shard takes one of many things in turn.
    pub(super) fn takes(self, place: usize) -> bool {
        place % self.count == self.index
    }

    /// The rows of the shard: a contiguous part, so that shards concatenate in order.
    fn rows(self, notes: usize) -> Range<usize> {
        let bound = |part: usize| notes * part / self.count;
        bound(self.index)..bound(self.index + 1)
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
    let config = args.source.run_config(&args.set)?;
    let mut model = args.source.open(&config)?;
    let images = images_of(&args.notes, args.images.as_deref(), &config.data);
    let settings = DataSettings {
        source: DataSource::Folder,
        root: PathBuf::new(),
        images,
        notes: args.notes.clone(),
        // How pictures are read, and what becomes of those that cannot be, is the run's.
        ..config.data.clone()
    };
    let looks = model.embedder.reads_pictures();
    let all = Cell::new(0);
    let part = |notes| {
        all.set(notes);
        args.shard.rows(notes)
    };
    let notes = Notes::open_part(&settings, looks, &picture_progress(), part)?;
    let rows: Vec<u32> = (0..notes.set.len() as u32).collect();
    if rows.is_empty() {
        return Err(miette!(
            help = "give at most as many shards as there are notes",
            "shard {}/{} of {} notes holds none",
            args.shard.index,
            args.shard.count,
            all.get()
        ));
    }
    if args.visual && !model.embedder.config.variant.micl() {
        return Err(miette!(
            "--visual: variant `{}` has no visual embeddings (mICL variants do)",
            model.embedder.config.variant.name()
        ));
    }
    let size = model.embedder.config.embedding_size();
    if args.dim.is_some_and(|dim| dim > size) {
        return Err(miette!(
            help = "leave it out for all of them",
            "--dim: the embeddings of this model have {size} dimensions"
        ));
    }
    args.source.keep_features(&mut model, &notes, &config)?;
    let encoder = model
        .encoding
        .encoder(&notes, &model.embedder, Modality::Both)?;
    let inference = Inference::new(&model.embedder);
    let chunks: Vec<&[u32]> = rows.chunks(args.part_notes).collect();
    // A job of one part has nothing to go on from.
    let parts = match chunks.len() {
        0 | 1 => None,
        _ => Some(Parts::of(
            &args.out,
            job(&args, &notes, &settings, config.backend.dtype)?,
        )),
    };
    let bar = ProgressBar::new(rows.len() as u64);
    let mut sets = Vec::new();
    let mut taken = 0;
    for (number, chunk) in chunks.into_iter().enumerate() {
        let done = number * args.part_notes;
        if let Some(parts) = &parts {
            let ids = chunk.iter().map(|&row| notes.set[row].id.as_str());
            match parts.kept(number, &ids.collect::<Vec<_>>()) {
                Kept::Whole(set) => {
                    taken += set.multimodal().len();
                    sets.push(set);
                    bar.set_position((done + chunk.len()) as u64);
                    continue;
                }
                Kept::Nothing => {}
                Kept::Refused(path, why) => bar.suspend(|| {
                    eprintln!("computing {} again: {why}", path.display());
                }),
            }
        }
        let embeddings = inference.embed_corpus(
            &encoder,
            chunk,
            args.batch_notes,
            Modality::Both,
            &mut |n| bar.set_position((done + n) as u64),
        )?;
        let set = embedding_set(embeddings, args.visual)?;
        if let Some(parts) = &parts {
            parts.keep(number, &set)?;
        }
        sets.push(set);
    }
    bar.finish_and_clear();
    tell_of_pictures(&notes, &model.embedder);
    let mut whole = concat(sets)?;
    if let Some(dim) = args.dim {
        whole = whole.cut_to(dim).map_err(mlrm_train::TrainError::from)?;
    }
    write_embeddings(&args.out, &whole, args.dtype.into()).map_err(mlrm_train::TrainError::from)?;
    if let Some(parts) = &parts {
        parts.clear();
    }
    let count = whole.multimodal().len();
    println!(
        "{count} embeddings of {} values: {}",
        whole.multimodal().dim(),
        args.out.display()
    );
    if taken > 0 {
        println!("{taken} of them are from an interrupted run of the same job");
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of what the numbers depend on: model, notes, pictures, and the options that touch them.
fn job(
    args: &EmbedArgs,
    notes: &Notes,
    settings: &DataSettings,
    dtype: DType,
) -> miette::Result<String> {
    let mut job = Job::new(&format!(
        "{} {dtype:?} {} {} {:?} {} {} {:?} {:?} {:?}",
        args.source.device,
        args.source.allow_nan,
        args.visual,
        args.shard,
        args.batch_notes,
        args.part_notes,
        notes.decoding,
        settings.on_missing_image,
        settings.on_bad_image
    ));
    job.content(&args.source.folder()?)?;
    job.content(&args.notes)?;
    if notes.images.is_some() {
        job.pictures(
            &settings.images,
            notes
                .set
                .rows()
                .iter()
                .filter_map(|note| note.image.as_deref()),
        )?;
    }
    Ok(job.name())
}

fn embedding_set(embeddings: CorpusEmbeddings, visual: bool) -> miette::Result<EmbeddingSet> {
    let visual = embeddings.visual.filter(|_| visual);
    Ok(EmbeddingSet::new(embeddings.multimodal, visual).map_err(mlrm_train::TrainError::from)?)
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
