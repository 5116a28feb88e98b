//! Training steps.

use mlrm_data::order::Cursor;

use super::filled::{added_positions, budget, fill_to, refuse_own_grids, shape};
use super::model::{ModelRun, report};
use super::{BenchReport, Samples};
use mlrm_train::TrainError;
use mlrm_train::group::Alone;
use mlrm_train::optimiser::AdamW;
use mlrm_train::plan::RunPlan;
use mlrm_train::preflight::Preflight;
use mlrm_train::step::{StepContext, train_step};

/// Measures training steps of a plan at its full token budget.
///
/// # Errors
/// Steps that do not fit into memory, as for a run; notes that cannot be read; a device that fails.
pub fn bench_train(mut plan: RunPlan, samples: Samples) -> Result<BenchReport, TrainError> {
    refuse_own_grids(&plan)?;
    // Every batch has the notes that the config's sizes say. There is neither an evaluation nor a probe.
    plan.config.train.merge_duplicates = false;
    plan.config.train.saliency_every_steps = 0;
    plan.config.eval.baselines.clear();
    Preflight::of_measured_steps(&mut plan)?;
    let config = plan.config.clone();
    let encoder = plan.encoder()?;
    let budget = budget(&plan, &encoder);
    let mut batches = plan.batches(&encoder, Cursor::default())?;
    let mut optimiser = AdamW::new(&config.train);
    let context = StepContext {
        sync_phases: true,
        ..StepContext::new(&plan)
    };
    let mut run = ModelRun::new(samples, &plan.device);
    let mut positions = 0;
    while !run.done() {
        let ended = || TrainError::Batch("the data loader ended before the measurement did".into());
        let (_, mut batch) = batches.next().ok_or_else(ended)??;
        fill_to(&mut batch, budget);
        positions = batch.seq + added_positions(&plan);
        run.begin();
        let stats = train_step(
            &mut plan.embedder,
            &mut optimiser,
            batch,
            config.train.learning_rate,
            &context,
            false,
            &mut Alone,
        )?;
        run.record(stats.seconds_by_phase);
    }
    let notes = 2 * config.train.batch_pairs;
    let mut shape = shape(&plan, notes, positions);
    shape.insert("pairs".into(), config.train.batch_pairs);
    report("train", &plan, shape, &run, |flops| {
        flops.forward + flops.backward
    })
}
