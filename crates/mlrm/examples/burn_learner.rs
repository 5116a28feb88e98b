//! Burn's own learner: Burn's data loaders over notes and pairs, Burn's optimiser and schedule, metrics of retrieval,
//! and mlrm's dashboard.
//!
//!     cargo run --release --example burn_learner -- configs/demo.toml
//!
//! Without a config it trains a tiny model for an epoch.

use std::path::Path;
use std::sync::Arc;

use mlrm::burn::data::dataloader::DataLoaderBuilder;
use mlrm::burn::grad_clipping::GradientClippingConfig;
use mlrm::burn::lr_scheduler::LrSchedulerConfig;
use mlrm::burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use mlrm::burn::lr_scheduler::sequential::SequentialLrSchedulerConfig;
use mlrm::burn::module::Module;
use mlrm::burn::optim::AdamWConfig;
use mlrm::burn::train::metric::{LearningRateMetric, LossMetric};
use mlrm::burn::train::{Learner, SupervisedTraining};
use mlrm::datasets::{Collate, NoteDataset, PairDataset};
use mlrm::learner::PairLearner;
use mlrm::metrics::{PairMetric, PoolMetric};
use mlrm::train::corpus::Modality;
use mlrm::train::encode::Inference;
use mlrm::train::evaluate::Retrieval;
use mlrm::train::plan::RunPlan;
use mlrm::{Embedder, Error, EventRenderer, RunConfig};

fn main() -> Result<(), Error> {
    let home = Path::new("runs/burn_learner");
    match std::env::args().nth(1) {
        Some(config) => train(RunConfig::load(config, &[])?, home),
        None => run(home),
    }
}

/// Writes the sample set and the model below `home`.
pub fn run(home: &Path) -> Result<(), Error> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = format!("data.root={}", home.join("data").display());
    train(RunConfig::load(tiny, &[data])?, home)
}

/// Trains as long as `config` says, in whole epochs.
fn train(config: RunConfig, home: &Path) -> Result<(), Error> {
    let mut plan = RunPlan::prepare(config, &|_, _| {})?;
    let encoder = Arc::new(
        plan.encoding
            .encoder(&plan.notes, &plan.embedder, Modality::Both)?,
    );
    let (settings, pairs) = (&plan.config.train, &plan.pairs.pairs);
    let batches = pairs.train.len().div_ceil(settings.batch_pairs);
    let epochs = plan.total_steps.div_ceil(batches);
    let steps = epochs * batches;

    let collate = Collate::new(&encoder);
    let masked = collate
        .clone()
        .with_partners(pairs.known_partners(plan.notes.set.len()));
    let train_pairs = DataLoaderBuilder::new(masked)
        .batch_size(settings.batch_pairs)
        .shuffle(plan.config.run.seed)
        .num_workers(1)
        .build(PairDataset::new(
            Arc::clone(&encoder),
            pairs.train.as_slice(),
        ));
    let all_notes = DataLoaderBuilder::new(collate)
        .batch_size(plan.config.eval.batch_notes)
        .build(NoteDataset::all(encoder));

    let rate = settings.learning_rate;
    let warm_up = (steps / 10).max(1);
    let linear =
        |from, to, steps| LrSchedulerConfig::Linear(LinearLrSchedulerConfig::new(from, to, steps));
    let schedule = SequentialLrSchedulerConfig::new(
        vec![
            linear(rate / warm_up as f64, rate, warm_up),
            linear(rate, 0.0, (steps - warm_up).max(1)),
        ],
        vec![warm_up],
    );
    let schedule = schedule.init().map_err(Error::Refused)?;
    let optimiser = AdamWConfig::new()
        .with_weight_decay(settings.weight_decay as f32)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(
            settings.clip_norm as f32,
        )));

    let held_out = Retrieval::new(
        &plan.notes.set,
        &plan.pairs,
        &pairs.validation,
        &plan.config.eval,
    )?;
    let task = Arc::new(held_out.task().clone());
    let training = SupervisedTraining::new(home.join("burn"), train_pairs, all_notes)
        .metric_train_numeric(LossMetric::new())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(PairMetric::temperature())
        .metric_train_numeric(PairMetric::gate())
        .metric_valid_numeric(PoolMetric::recall(Arc::clone(&task), 10))
        .metric_valid_numeric(PoolMetric::ndcg(Arc::clone(&task), 10))
        .metric_valid_numeric(PoolMetric::mrr(Arc::clone(&task)))
        .metric_valid_numeric(PoolMetric::uniformity(Arc::clone(&task)))
        .metric_valid_numeric(PoolMetric::alignment(task))
        .num_epochs(epochs);
    // The one line that brings the dashboard to any training of Burn's.
    let renderer = EventRenderer::dashboard("burn_learner", training.interrupter());
    let learner = PairLearner::new(plan.embedder.clone(), &plan.config.objective)?;
    let learner = Learner::new(learner, optimiser.init(), schedule);
    let result = training.renderer(Box::new(renderer)).launch(learner);
    if let Some(error) = result.error {
        return Err(Error::Refused(error.to_string()));
    }
    drop(result.renderer);

    plan.embedder = result.model.train().embedder;
    let held_out = Retrieval::new(&plan.notes.set, &plan.pairs, &pairs.test, &plan.config.eval)?;
    let model = Inference::new(&plan.embedder);
    let all = held_out.embed(&model, &plan.notes, &plan.encoding, Modality::Both, 32)?;
    let metrics = held_out.measure(&model, &all.multimodal, None)?;
    let recall = 100.0 * metrics["all"].values["recall@10"];
    println!(
        "{steps} steps; Recall@10 of {} test queries: {recall:.2} %",
        held_out.queries()
    );
    Embedder::from(plan).save_pretrained(home.join("model"))
}
