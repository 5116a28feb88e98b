//! A corpus, or a shard of one, and what embeds it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use miette::miette;
use mlrm_config::{DataSettings, DataSource, OnImageProblem, RunConfig};
use mlrm_data::files::table_files;
use mlrm_data::image::DecodeOptions;
use mlrm_data::notes::ByText;
use mlrm_data::store::local;
use mlrm_eval::{EmbeddingSet, join_embeddings, write_embeddings};
use mlrm_train::corpus::Modality;
use mlrm_train::encode::{CorpusEmbeddings, Inference};
use mlrm_train::plan::OpenModel;

use super::corpus::{Corpus, CorpusPart, hash_of_pictures};
use super::failed::{self, write_failed};
use super::parts::{Content, Kept, Parts};
use super::progress::Embedded;
use super::shard::{Manifest, Shard};
use super::{EmbedArgs, tell, tell_seconds};
use crate::commands::model_source::{ModelSource, images_of};

/// The keys that say what becomes of notes without a usable picture.
const ON_MISSING: &str = "data.on_missing_image";
const ON_BAD: &str = "data.on_bad_image";

/// What is to be embedded by what.
pub struct Job<'a> {
    args: &'a EmbedArgs,
    source: &'a ModelSource,
    config: RunConfig,
    model: OpenModel,
    /// The model for inference, once features of pictures that are kept are known.
    inference: Option<Inference>,
    corpus: Corpus,
}

impl<'a> Job<'a> {
    pub fn open(args: &'a EmbedArgs, source: &'a ModelSource, path: &Path) -> miette::Result<Self> {
        let config = source.run_config(&args.set)?;
        let model = source.open(&config)?;
        let images = images_of(path, args.images.as_deref(), &config.data);
        let on = |key: &str, setting| match setting {
            // A run is strict about what it learns from; a corpus has pictures that fail.
            OnImageProblem::Error if !is_set(&args.set, key) => OnImageProblem::Text,
            setting => setting,
        };
        let settings = DataSettings {
            source: DataSource::Folder,
            root: PathBuf::new(),
            images,
            notes: path.to_owned(),
            on_missing_image: on(ON_MISSING, config.data.on_missing_image),
            on_bad_image: on(ON_BAD, config.data.on_bad_image),
            // How pictures are read is the run's.
            ..config.data.clone()
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
        let looks = model.embedder.reads_pictures();
        let by_default = settings.on_missing_image != config.data.on_missing_image;
        let corpus = Corpus::open(settings, looks, by_default, args)?;
        Ok(Self {
            args,
            source,
            config,
            model,
            inference: None,
            corpus,
        })
    }

    pub fn run(mut self) -> miette::Result<ExitCode> {
        let (args, out) = (self.args, &self.args.out);
        // A job of one part has nothing to go on from.
        let in_parts = self.corpus.parts() > 1;
        let manifest = match in_parts || args.shard.is_some() {
            true => Some(self.manifest()?),
            false => None,
        };
        let parts = match &manifest {
            Some(manifest) if in_parts => Some(Parts::of(out, &numbers_of(manifest)?)),
            _ => None,
        };
        if let Some(manifest) = manifest.as_ref().filter(|_| args.shard.is_some()) {
            if self.is_there(manifest)? {
                // Killed after it was sealed, it has parts left.
                parts.iter().for_each(Parts::clear);
                println!("{} is there already, of the same job", out.display());
                return Ok(ExitCode::SUCCESS);
            }
            // What is written from here on is not what an older manifest speaks of.
            remove(&Manifest::path_of(out))?;
        }
        let mut all = Embedded::new(self.corpus.rows.len());
        for part in self.corpus.read_ahead()? {
            self.embed_part(part?, parts.as_ref(), &mut all)?;
        }
        all.view.end();
        self.tell_of_pictures(&all);
        if all.notes == 0 {
            parts.iter().for_each(Parts::clear);
            return Err(mlrm_train::TrainError::from(ByText::nothing_left()).into());
        }
        let dim = self.write(&mut all)?;
        if let (Some(manifest), Some(_)) = (manifest, args.shard) {
            let manifest = Manifest {
                embeddings: all.notes,
                failed_pictures: all.failed.len(),
                pictures: hash_of_pictures(&all.pictures),
                ..manifest
            };
            manifest.seal(out)?;
        }
        if let Some(parts) = &parts {
            parts.clear();
        }
        tell(all.notes, dim, all.failed.len(), out);
        tell_seconds(&all.view.seconds());
        if all.taken > 0 {
            println!(
                "{} of them are from an interrupted run of the same job",
                all.taken
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the embeddings and the list of what failed; their dimensions.
    fn write(&self, all: &mut Embedded) -> miette::Result<usize> {
        let (args, out) = (self.args, &self.args.out);
        // Threads find them in any order.
        all.failed.sort();
        all.failed.dedup();
        write_failed(&failed::path_of(out), &all.failed)?;
        let numbers = args.dtype.into();
        let Some(set) = all.whole.take() else {
            let joined = join_embeddings(out, &all.kept, args.dim, numbers);
            return Ok(joined.map_err(mlrm_train::TrainError::from)?.dim);
        };
        let set = match args.dim {
            Some(dim) => set.cut_to(dim).map_err(mlrm_train::TrainError::from)?,
            None => set,
        };
        write_embeddings(out, &set, numbers).map_err(mlrm_train::TrainError::from)?;
        Ok(set.multimodal().dim())
    }

    /// Adds the embeddings of a part: those that are kept aside, or else computed.
    fn embed_part(
        &mut self,
        part: CorpusPart,
        parts: Option<&Parts>,
        all: &mut Embedded,
    ) -> miette::Result<()> {
        let CorpusPart {
            number,
            rows,
            pictures,
            notes,
        } = part;
        if number == 0 {
            let Self { source, model, .. } = self;
            source.keep_features(model, &notes, &self.config)?;
        }
        let ids: Vec<&str> = notes.set.rows().iter().map(|n| n.id.as_str()).collect();
        all.begin(rows, &notes, pictures.clone());
        match parts.map(|parts| parts.kept(number, pictures.as_deref(), &ids)) {
            Some(Kept::Whole(path, late)) => {
                all.take(path, ids.len(), late);
                return Ok(());
            }
            Some(Kept::Refused(path, why)) => {
                let line = format!("computing {} again: {why}", path.display());
                all.view.say(&line);
            }
            Some(Kept::Nothing) | None => {}
        }
        let OpenModel { embedder, encoding } = &self.model;
        let encoder = Arc::new(encoding.encoder(&notes, embedder, Modality::Both)?);
        let of_part: Vec<u32> = (0..ids.len() as u32).collect();
        let before = all.rows - rows;
        let inference = self
            .inference
            .get_or_insert_with(|| Inference::new(embedder));
        let embeddings = inference.embed_corpus(
            &encoder,
            &of_part,
            self.args.batch_notes,
            Modality::Both,
            &mut |n, seconds| all.view.show(before + n, seconds),
        )?;
        all.view.add(embeddings.seconds);
        let set = embedding_set(embeddings, self.args.visual)?;
        let mut late = notes.by_text.take_failed();
        late.sort();
        match parts {
            None => all.whole = Some(set),
            Some(parts) => {
                let path = parts.keep(number, pictures.as_deref(), &set, &late)?;
                all.keep(path, ids.len());
            }
        }
        notes
            .by_text
            .take_news()
            .iter()
            .for_each(|line| all.warn(line));
        all.fail(late);
        if let Some(images) = &notes.images {
            images.forget_seen();
        }
        Ok(())
    }

    /// Says which notes were not seen with their picture, and what is wrong with features that are kept.
    fn tell_of_pictures(&self, all: &Embedded) {
        let features = self.model.embedder.features.iter();
        let features = features.flat_map(|cache| cache.news());
        let more = all.untold();
        let more = (more > 0).then(|| format!("… and {more} more"));
        let summary = all.without_picture.summary();
        for line in more.into_iter().chain(summary).chain(features) {
            eprintln!("warning: {line}");
        }
    }

    /// Whether the shard is there, whole and of this job.
    fn is_there(&self, manifest: &Manifest) -> miette::Result<bool> {
        let path = Manifest::path_of(&self.args.out);
        // A manifest that cannot be read is one of no job: it is written again.
        let Ok(Some(there)) = Manifest::read(&path) else {
            return Ok(false);
        };
        if !there.is_same_job(manifest) || there.damage(&path).is_some() {
            return Ok(false);
        }
        Ok(there.pictures == self.corpus.pictures()?)
    }

    /// What the embeddings depend on: model, notes, and the options that touch them. The pictures are still
    /// to be looked at.
    fn manifest(&self) -> miette::Result<Manifest> {
        let (args, settings, backend) = (self.args, &self.corpus.settings, &self.config.backend);
        let shard = args.shard.unwrap_or(Shard::WHOLE);
        let rows = &self.corpus.rows;
        let mut model = Content::new();
        model.add(&self.source.folder()?)?;
        let mut notes = Content::new();
        for file in table_files(&settings.notes).map_err(mlrm_train::TrainError::from)? {
            notes.add(&local(&file).map_err(mlrm_train::TrainError::from)?)?;
        }
        let options = [
            ("backend.dtype", format!("{:?}", backend.dtype)),
            (
                "backend.matmul_precision",
                format!("{:?}", backend.matmul_precision),
            ),
            (ON_MISSING, format!("{:?}", settings.on_missing_image)),
            (ON_BAD, format!("{:?}", settings.on_bad_image)),
            (
                "the decoding of pictures",
                format!("{:?}", DecodeOptions::new(settings)),
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
            all_rows: self.corpus.files.len(),
            model: model.hash(),
            notes: notes.hash(),
            pictures: None,
            options: options.into_iter().collect(),
            device: self.source.device.clone(),
            embeddings: 0,
            failed_pictures: 0,
            files: Vec::new(),
        })
    }
}

/// Whether the command line sets a key.
fn is_set(sets: &[String], key: &str) -> bool {
    let keys = sets.iter().filter_map(|set| set.split_once('='));
    keys.into_iter().any(|(name, _)| name.trim() == key)
}

/// All that the numbers of a part depend on, as a text: what only touches how they are written does not.
fn numbers_of(manifest: &Manifest) -> miette::Result<String> {
    let mut numbers = manifest.clone();
    numbers.options.remove("--dim");
    numbers.options.remove("--dtype");
    serde_json::to_string(&numbers).map_err(|error| miette!("{error}"))
}

fn remove(path: &Path) -> miette::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(miette!("cannot remove the old {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

fn embedding_set(embeddings: CorpusEmbeddings, visual: bool) -> miette::Result<EmbeddingSet> {
    let visual = embeddings.visual.filter(|_| visual);
    Ok(EmbeddingSet::new(embeddings.multimodal, visual).map_err(mlrm_train::TrainError::from)?)
}
