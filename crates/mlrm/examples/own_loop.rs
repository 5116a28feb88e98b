//! A training loop of one's own: the parts of a run in one's own order.
//!
//!     cargo run --release --example own_loop

use std::path::Path;
use std::sync::Arc;

use mlrm::data::loader::{LoaderSettings, PairBatches};
use mlrm::data::order::Cursor;
use mlrm::train::corpus::Modality;
use mlrm::train::encode::Inference;
use mlrm::train::evaluate::Retrieval;
use mlrm::train::group::Alone;
use mlrm::train::optimiser::AdamW;
use mlrm::train::plan::RunPlan;
use mlrm::train::step::{StepContext, train_step};
use mlrm::{Embedder, Error, RunConfig};

fn main() -> Result<(), Error> {
    run(Path::new("runs/own_loop"))
}

/// Writes the sample set and the model below `home`.
pub fn run(home: &Path) -> Result<(), Error> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = format!("data.root={}", home.join("data").display());
    let mut plan = RunPlan::prepare(RunConfig::load(tiny, &[data])?, &|_, _| {})?;
    let train = &plan.config.train;

    let encoder = plan
        .encoding
        .encoder(&plan.notes, &plan.embedder, Modality::Both)?;
    let settings = LoaderSettings::new(&plan.config.data, train);
    let (encoder, pairs) = (Arc::new(encoder), plan.pairs.pairs.train.as_slice().into());
    let batches = PairBatches::new(Arc::clone(&encoder), pairs, 1, Cursor::default(), settings)?;
    let mut optimiser = AdamW::new(train);
    let context = StepContext::new(&plan);

    for (step, batch) in batches.take(train.max_steps.unwrap_or(6)).enumerate() {
        let (_, batch) = batch?;
        let stats = train_step(
            &mut plan.embedder,
            &mut optimiser,
            batch,
            1e-3,
            &context,
            false,
            &mut Alone,
        )?;
        println!("step {}: loss {:.4}", step + 1, stats.loss);
    }

    let held_out = &plan.pairs.pairs.test;
    let retrieval = Retrieval::new(&plan.notes.set, &plan.pairs, held_out, &plan.config.eval)?;
    let model = Inference::new(&plan.embedder);
    let all = retrieval.embed(&model, &plan.notes, &plan.encoding, Modality::Both, 32)?;
    let metrics = retrieval.measure(&model, &all.multimodal, None)?;
    println!("Recall@10 {:.4}", metrics["all"].values["recall@10"]);
    Embedder::from(plan).save_pretrained(home.join("model"))
}
