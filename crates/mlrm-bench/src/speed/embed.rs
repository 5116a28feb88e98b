//! Inference: notes to embeddings.

use super::filled::{added_positions, budget, fill_to, refuse_own_grids, shape};
use super::model::{ModelRun, report};
use super::{BenchReport, Samples};
use mlrm_train::TrainError;
use mlrm_train::encode::token_batch;
use mlrm_train::features::vision_features;
use mlrm_train::phases::PhaseClock;
use mlrm_train::plan::RunPlan;

/// Measures embedding of batches of `eval.batch_notes` notes at the full token budget, without
/// reading and decoding them.
///
/// # Errors
/// Notes that cannot be read; a device that fails.
pub fn bench_embed(plan: &RunPlan, samples: Samples) -> Result<BenchReport, TrainError> {
    refuse_own_grids(plan)?;
    let config = &plan.embedder.config;
    let encoder = plan.encoder()?;
    let notes = plan.config.eval.batch_notes;
    let all = plan.notes.set.len();
    let rows: Vec<u32> = (0..notes).map(|row| (row % all) as u32).collect();
    let mut filled = encoder.encode_rows(&rows)?;
    fill_to(&mut filled, budget(plan, &encoder));
    let positions = filled.seq + added_positions(plan);
    let core = plan.embedder.inference();
    let device = plan.device.clone().without_autodiff();
    let mut run = ModelRun::new(samples, &plan.device);
    while !run.done() {
        let mut batch = filled.clone();
        run.begin();
        let mut clock = PhaseClock::new(&device, true);
        let features = vision_features(&plan.embedder, &mut batch)?;
        clock.lap("vision")?;
        let inputs = core.llm_inputs(config, &token_batch(&batch), features, None)?;
        clock.lap("connector")?;
        let embeddings = core.embeddings(inputs, None);
        let read = embeddings.multimodal.try_into_vec_as::<f32>();
        read.map_err(|e| TrainError::device("embeddings cannot be read from the device", e))?;
        clock.lap("llm_forward")?;
        run.record(clock.seconds);
    }
    let shape = shape(plan, notes, positions);
    report("embed", plan, shape, &run, |flops| flops.forward)
}
