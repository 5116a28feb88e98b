//! `mlrm embed MODEL --notes FILE --out FILE`: embeddings of a corpus.

mod failed;
mod merge;
mod parts;
mod shard;
mod view;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use miette::miette;
use mlrm_config::{DataSettings, DataSource, RunConfig};
use mlrm_data::files::table_files;
use mlrm_data::notes::FailedPicture;
use mlrm_data::store::local;
use mlrm_eval::{EmbeddingSet, Embeddings, Numbers, clear_unfinished, write_embeddings};
use mlrm_train::corpus::{Modality, Notes};
use mlrm_train::encode::{CorpusEmbeddings, Inference};
use mlrm_train::plan::OpenModel;

pub use self::shard::Shard;

use self::failed::write_failed;
use self::parts::{Content, Kept, Parts};
use self::shard::Manifest;
use self::view::View;
use super::model_source::{ModelSource, images_of, picture_progress, tell_of_pictures};
use super::{at_least_one, check_place, folder_of};

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

/// What is to be embedded by what.
struct Job<'a> {
    args: &'a EmbedArgs,
    source: &'a ModelSource,
    config: RunConfig,
    settings: DataSettings,
    model: OpenModel,
    notes: Notes,
    /// How many rows the notes have, of which a shard has some.
    all_rows: usize,
}

impl<'a> Job<'a> {
    fn open(args: &'a EmbedArgs, source: &'a ModelSource, path: &Path) -> miette::Result<Self> {
        let config = source.run_config(&args.set)?;
        let model = source.open(&config)?;
        let images = images_of(path, args.images.as_deref(), &config.data);
        let settings = DataSettings {
            source: DataSource::Folder,
            root: PathBuf::new(),
            images,
            notes: path.to_owned(),
            // How pictures are read, and what becomes of those that cannot be, is the run's.
            ..config.data.clone()
        };
        let looks = model.embedder.reads_pictures();
        let all = Cell::new(0);
        let shard = args.shard.unwrap_or(Shard::WHOLE);
        let part = |notes| {
            all.set(notes);
            shard.rows(notes, args.part_notes)
        };
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
        let notes = Notes::open_part(&settings, looks, &picture_progress(), part)?;
        let job = Self {
            args,
            source,
            config,
            settings,
            model,
            notes,
            all_rows: all.get(),
        };
        if job.notes.set.is_empty() {
            return Err(miette!(
                help = "give at most as many shards as there are notes",
                "shard {}/{} of {} notes holds none",
                shard.index,
                shard.count,
                job.all_rows
            ));
        }
        Ok(job)
    }

    fn run(mut self) -> miette::Result<ExitCode> {
        let (args, out) = (self.args, &self.args.out);
        // A job of one part has nothing to go on from.
        let in_parts = self.notes.set.len() > args.part_notes;
        let manifest = match in_parts || args.shard.is_some() {
            true => Some(self.manifest()?),
            false => None,
        };
        if let Some(manifest) = manifest.as_ref().filter(|_| args.shard.is_some()) {
            if is_there(manifest, out)? {
                println!("{} is there already, of the same job", out.display());
                return Ok(ExitCode::SUCCESS);
            }
            // What is written from here on is not what an older manifest speaks of.
            remove(&Manifest::path_of(out))?;
        }
        let parts = match &manifest {
            Some(manifest) if in_parts => Some(Parts::of(out, &numbers_of(manifest)?)),
            _ => None,
        };
        let source = self.source;
        source.keep_features(&mut self.model, &self.notes, &self.config)?;
        let Embedded {
            set,
            mut failed,
            taken,
        } = self.embed(parts.as_ref())?;
        tell_of_pictures(&self.notes, &self.model.embedder);
        let whole = match args.dim {
            Some(dim) => set.cut_to(dim).map_err(mlrm_train::TrainError::from)?,
            None => set,
        };
        // Threads find them in any order.
        failed.sort();
        failed.dedup();
        write_failed(&failed::path_of(out), &failed)?;
        write_embeddings(out, &whole, args.dtype.into()).map_err(mlrm_train::TrainError::from)?;
        if let (Some(manifest), Some(_)) = (manifest, args.shard) {
            let manifest = Manifest {
                embeddings: whole.multimodal().len(),
                failed_pictures: failed.len(),
                ..manifest
            };
            manifest.seal(out)?;
        }
        if let Some(parts) = &parts {
            parts.clear();
        }
        tell(&whole, &failed, out);
        if taken > 0 {
            println!("{taken} of them are from an interrupted run of the same job");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The embeddings of all notes, those of parts that are kept aside.
    fn embed(&self, parts: Option<&Parts>) -> miette::Result<Embedded> {
        let OpenModel { embedder, encoding } = &self.model;
        let (args, notes) = (self.args, &self.notes);
        let encoder = encoding.encoder(notes, embedder, Modality::Both)?;
        let inference = Inference::new(embedder);
        let rows: Vec<u32> = (0..notes.set.len() as u32).collect();
        let mut view = View::new(rows.len());
        let mut sets = Vec::new();
        let mut failed = notes.by_text.take_failed();
        view.fail(failed.len());
        let mut taken = 0;
        for (number, chunk) in rows.chunks(args.part_notes).enumerate() {
            let done = number * args.part_notes;
            if let Some(parts) = parts {
                let ids = chunk.iter().map(|&row| notes.set[row].id.as_str());
                match parts.kept(number, &ids.collect::<Vec<_>>()) {
                    Kept::Whole(set, late) => {
                        taken += set.multimodal().len();
                        sets.push(set);
                        view.fail(late.len());
                        view.take(chunk.len(), done + chunk.len());
                        failed.extend(late);
                        continue;
                    }
                    Kept::Nothing => {}
                    Kept::Refused(path, why) => {
                        view.say(&format!("computing {} again: {why}", path.display()));
                    }
                }
            }
            let embeddings = inference.embed_corpus(
                &encoder,
                chunk,
                args.batch_notes,
                Modality::Both,
                &mut |n| view.show(done + n),
            )?;
            let set = embedding_set(embeddings, args.visual)?;
            let mut late = notes.by_text.take_failed();
            late.sort();
            view.fail(late.len());
            if let Some(parts) = parts {
                parts.keep(number, &set, &late)?;
            }
            failed.extend(late);
            sets.push(set);
        }
        view.end();
        Ok(Embedded {
            set: concat(sets)?,
            failed,
            taken,
        })
    }

    /// What the embeddings depend on: model, notes, pictures, and the options that touch them.
    fn manifest(&self) -> miette::Result<Manifest> {
        let (args, settings, backend) = (self.args, &self.settings, &self.config.backend);
        let shard = args.shard.unwrap_or(Shard::WHOLE);
        let rows = shard.rows(self.all_rows, args.part_notes);
        let mut model = Content::new();
        model.add(&self.source.folder()?)?;
        let mut notes = Content::new();
        for file in table_files(&settings.notes).map_err(mlrm_train::TrainError::from)? {
            notes.add(&local(&file).map_err(mlrm_train::TrainError::from)?)?;
        }
        let pictures = match &self.notes.images {
            None => None,
            Some(store) => {
                let mut pictures = Content::new();
                let notes = self.notes.set.rows().iter();
                let keys = notes.filter_map(|note| note.image.as_deref());
                pictures.pictures(store, &settings.images, keys)?;
                Some(pictures.hash())
            }
        };
        let options = [
            ("backend.dtype", format!("{:?}", backend.dtype)),
            (
                "backend.matmul_precision",
                format!("{:?}", backend.matmul_precision),
            ),
            (
                "data.on_missing_image",
                format!("{:?}", settings.on_missing_image),
            ),
            ("data.on_bad_image", format!("{:?}", settings.on_bad_image)),
            (
                "the decoding of pictures",
                format!("{:?}", self.notes.decoding),
            ),
            ("--allow-nan", self.source.allow_nan.to_string()),
            ("--visual", args.visual.to_string()),
            ("--batch-notes", args.batch_notes.to_string()),
            ("--part-notes", args.part_notes.to_string()),
            (
                "--dim",
                args.dim.map_or("all".into(), |dim| dim.to_string()),
            ),
            ("--dtype", format!("{:?}", args.dtype)),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value));
        Ok(Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shard: shard.index,
            of: shard.count,
            first_row: rows.start,
            rows: rows.len(),
            all_rows: self.all_rows,
            model: model.hash(),
            notes: notes.hash(),
            pictures,
            options: options.into_iter().collect(),
            device: self.source.device.clone(),
            embeddings: 0,
            failed_pictures: 0,
            files: Vec::new(),
        })
    }
}

/// What a job gave.
struct Embedded {
    set: EmbeddingSet,
    /// The pictures that could not be read.
    failed: Vec<FailedPicture>,
    /// Embeddings that an interrupted run of the same job had computed.
    taken: usize,
}

/// All that the numbers of a part depend on, as a text: what only touches how they are written does not.
fn numbers_of(manifest: &Manifest) -> miette::Result<String> {
    let mut numbers = manifest.clone();
    numbers.options.remove("--dim");
    numbers.options.remove("--dtype");
    serde_json::to_string(&numbers).map_err(|error| miette!("{error}"))
}

/// Whether the shard is there, whole and of this job.
fn is_there(manifest: &Manifest, out: &Path) -> miette::Result<bool> {
    let path = Manifest::path_of(out);
    // A manifest that cannot be read is one of no job: it is written again.
    let Ok(Some(there)) = Manifest::read(&path) else {
        return Ok(false);
    };
    Ok(there.is_same_job(manifest) && there.damage(&path).is_none())
}

fn remove(path: &Path) -> miette::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(miette!("cannot remove the old {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Says what was written.
fn tell(whole: &EmbeddingSet, failed: &[FailedPicture], out: &Path) {
    println!(
        "{} embeddings of {} values: {}",
        whole.multimodal().len(),
        whole.multimodal().dim(),
        out.display()
    );
    if !failed.is_empty() {
        let list = failed::path_of(out);
        println!("{} pictures failed: {}", failed.len(), list.display());
    }
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
