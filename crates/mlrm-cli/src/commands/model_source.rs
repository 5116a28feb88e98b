//! Options that several commands share: which model, which device, which notes.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use mlrm_config::{DataSettings, DeviceNames, RunConfig, is_address};
use mlrm_files::folder_of;
use mlrm_model::embedder::Embedder;
use mlrm_train::corpus::Notes;
use mlrm_train::device::{self, Device};
use mlrm_train::features::{Keeping, keep_features, told};
use mlrm_train::plan::{OpenModel, open_model};
use mlrm_train::pretrained;

/// What `--allow-nan` means.
pub const ALLOW_NAN: &str = "model.allow_nan=true";

/// Where a model is, and where it computes.
#[derive(Debug, Args)]
pub struct ModelSource {
    /// A model folder, or a run folder (its `model/`).
    pub model: PathBuf,
    /// Where to compute; see `mlrm devices`.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Take weights that are NaN or infinite as they are (`model.allow_nan`).
    #[arg(long)]
    pub allow_nan: bool,
}

impl ModelSource {
    /// The model folder: the path itself, or `model/` in a run folder.
    pub fn folder(&self) -> miette::Result<PathBuf> {
        Ok(pretrained::model_folder(&self.model)?)
    }

    /// The config of the run, where the path is a run folder; else as in training, unless the command
    /// line says otherwise.
    pub fn run_config(&self, overrides: &[String]) -> miette::Result<RunConfig> {
        let mut overrides = overrides.to_vec();
        overrides.extend(self.allow_nan.then(|| ALLOW_NAN.to_owned()));
        Ok(pretrained::settings(&self.model, &overrides)?)
    }

    /// Whether the path is a run folder, whose config tells how the model came about.
    pub fn is_run(&self) -> bool {
        pretrained::is_run(&self.model)
    }

    /// Opens the device, for the number format of `config`.
    pub fn device(&self, config: &RunConfig) -> miette::Result<Device> {
        let opened = device::open_for(
            &self.device,
            config.backend.dtype,
            config.backend.matmul_precision,
        );
        Ok(opened.map_err(mlrm_train::TrainError::from)?)
    }

    /// Opens the model.
    pub fn open(&self, config: &RunConfig) -> miette::Result<OpenModel> {
        let device = self.device(config)?;
        let config = self.on_device(config);
        Ok(open_model(&self.folder()?, &device, &config)?)
    }

    /// Lets the model read the features of pictures that are kept.
    pub fn keep_features(
        &self,
        model: &mut OpenModel,
        notes: &Notes,
        config: &RunConfig,
    ) -> miette::Result<()> {
        let OpenModel { embedder, encoding } = model;
        let config = self.on_device(config);
        let kept = keep_features(embedder, encoding, notes, &config, Keeping::Command)?;
        if let Some(kept) = kept {
            eprintln!("{}", told(&kept));
        }
        Ok(())
    }

    /// The config, with the device that was asked for.
    fn on_device(&self, config: &RunConfig) -> RunConfig {
        let mut config = config.clone();
        config.backend.device = DeviceNames::One(self.device.clone());
        config
    }
}

/// Where the pictures of a notes file are: `images`, else where `data` says if these are its notes, else the
/// folder of the file.
pub fn images_of(notes: &Path, images: Option<&Path>, data: &DataSettings) -> PathBuf {
    // A pattern of names is no file, but its folder is one.
    let place = |path: &Path| {
        if is_address(path) {
            return Some(path.to_path_buf());
        }
        let folder = || folder_of(path).canonicalize().ok();
        let pattern = || Some(folder()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(pattern)
    };
    let same = place(notes).is_some_and(|notes| Some(notes) == place(&data.place(&data.notes)));
    match images {
        Some(images) => images.to_owned(),
        None if same => data.place(&data.images),
        None => notes.parent().unwrap_or(Path::new(".")).to_owned(),
    }
}

/// A bar on the terminal while pictures are looked at.
pub fn picture_progress() -> impl Fn(usize, usize) + Sync {
    let bar = ProgressBar::no_length().with_message("looking at pictures");
    let bar = super::styled(bar, "{msg} {wide_bar} {human_pos}/{human_len}");
    move |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        if done == of {
            bar.finish_and_clear();
        }
    }
}

/// Says which notes a model does not see with their picture, and what is wrong with features that are
/// kept.
pub fn tell_of_pictures(notes: &Notes, model: &Embedder) {
    let features = model.features.iter().flat_map(|cache| cache.news());
    let news = notes.by_text.take_news().into_iter().chain(features);
    for line in notes.without_picture.summary().into_iter().chain(news) {
        eprintln!("warning: {line}");
    }
}
