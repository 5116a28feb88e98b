//! Embeddings of items that have a picture and a text, for finding related ones: a decoder language model and a
//! frozen vision encoder become one model (NoteLLM-2, arXiv 2405.16789), which learns from pairs of items that the
//! same people look at.
//!
//! ```
//! # fn main() -> Result<(), mlrm::Error> {
//! # let home = tempfile::tempdir().expect("a folder");
//! # let home = home.path();
//! # let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
//! # let set = |key: &str, name: &str| format!("{key}={}", home.join(name).display());
//! # let config = mlrm::RunConfig::load(tiny, &[set("run.dir", "run"), set("data.root", "photos")])?;
//! # mlrm::Embedder::from_config(config)?.save_pretrained(home.join("model"))?;
//! # let (model, photos) = (home.join("model"), home.join("photos"));
//! use mlrm::{Embedder, Note};
//!
//! let embedder = Embedder::from_pretrained(model, "flex")?; // what `mlrm train` writes; on the CPU
//! let note = Note {
//!     id: "mug".into(),
//!     title: "A red mug".into(),
//!     image: Some("images/n00001.png".into()), // below the folder `photos`
//!     ..Note::default()
//! };
//! let embeddings = embedder.embed(vec![note], photos)?;
//! assert_eq!(embeddings.row(0).len(), embedder.dim()); // of length 1: a dot product is a cosine
//! # Ok(())
//! # }
//! ```
//!
//! # What is here
//!
//! | | |
//! | --- | --- |
//! | [`Embedder`] | a model and what feeds it: open, embed, save |
//! | [`RunConfig`], [`Run`], [`run`] | a whole training run from its settings, as `mlrm train` does it |
//! | [`Note`], [`NoteSet`], [`Pair`], [`PairData`] | what a model reads, and what it learns from |
//! | [`Objective`] | the contrastive loss |
//! | [`Embeddings`], [`Task`], [`evaluate`] | how well embeddings find the related notes |
//! | [`Event`], [`EventSink`], [`Dashboard`] | what a run tells about itself, and who shows it |
//! | [`datasets`], [`learner`], [`metrics`], [`EventRenderer`] | the same for `burn::train`: datasets and batcher, a model to learn, metrics, the dashboard as a renderer |
//!
//! The crates behind it are whole under the names [`config`], [`data`], [`synth`], [`model`], [`train`], [`eval`],
//! [`mod@bench`], [`events`] and [`report`], and Burn as [`burn`], in the version that all of them were built with. The folder `examples` has
//! a program for each way in: two notes embedded, a training loop of one's own, families of decoders and vision
//! encoders from outside, another objective, and Burn's learner.
#![deny(missing_docs)]

pub mod datasets;
mod embedder;
pub mod learner;
pub mod metrics;
mod renderer;

pub use burn;
pub use mlrm_bench as bench;
pub use mlrm_config as config;
pub use mlrm_data as data;
pub use mlrm_eval as eval;
pub use mlrm_events as events;
pub use mlrm_model as model;
pub use mlrm_report as report;
pub use mlrm_synth as synth;
pub use mlrm_train as train;

pub use embedder::Embedder;
pub use mlrm_config::RunConfig;
pub use mlrm_data::notes::{Note, NoteSet};
pub use mlrm_data::split::{Pair, PairData};
pub use mlrm_eval::{Embeddings, Task, evaluate};
pub use mlrm_events::{Event, EventSink};
pub use mlrm_report::tui::Dashboard;
pub use mlrm_train::objective::Objective;
pub use mlrm_train::{Finished, Run, TrainError as Error, run};
pub use renderer::EventRenderer;
