//! What notes are embedded to, whatever notes are beside them.

use std::collections::BTreeMap;
use std::path::Path;

use mlrm_config::{Quantisation, RunConfig, TrainSettings, Tune, Variant};
use mlrm_data::batch::NoteBatch;
use mlrm_model::weights::each_parameter;

use super::*;
use crate::group::Alone;
use crate::small::small_config;

/// A small model behind its first step, and a batch.
fn small(
    root: &Path,
    variant: Variant,
    tune: Tune,
    quantisation: Quantisation,
) -> (RunPlan, NoteBatch) {
    let mut config = small_config(root);
    config.model.variant = variant;
    let llm = &mut config.model.llm;
    (llm.tune, llm.quantisation) = (tune, quantisation);
    after_a_step(config, 1e-2)
}

/// The model of `config` behind its first step, at `learning_rate`, and the batch of the second.
fn after_a_step(config: RunConfig, learning_rate: f64) -> (RunPlan, NoteBatch) {
    let mut plan = RunPlan::prepare(config, &|_, _| {}).unwrap();
    plan.config.run.seed = 1;
    let encoder = plan.encoder().unwrap();
    let mut batches = plan.batches(&encoder, Cursor::default()).unwrap();
    let [first, second] = [(); 2].map(|()| batches.next().unwrap().unwrap().1);
    let context = StepContext::new(&plan);
    let mut optimiser = AdamW::new(&plan.config.train);
    let embedder = &mut plan.embedder;
    let taken = train_step(
        embedder,
        &mut optimiser,
        first,
        learning_rate,
        &context,
        false,
        &mut Alone,
    );
    taken.unwrap();
    (plan, second)
}

/// Embeddings of a batch of which so many notes are held, row after row.
fn embedded(plan: &RunPlan, batch: &NoteBatch, micro_batch_notes: usize) -> Vec<Vec<f32>> {
    let context = StepContext {
        micro_batch_notes,
        ..StepContext::new(plan)
    };
    let work = context.work(3);
    let passes = Passes::new(&plan.embedder, &work);
    let mut clock = PhaseClock::new(&context.device, false);
    let held = EmbeddedBatch::new(&passes, batch.clone(), 0, &mut clock).unwrap();
    let embeddings = held.embeddings.unwrap();
    let all = [Some(embeddings.multimodal), embeddings.visual];
    let values = all.into_iter().flatten();
    values.map(|values| read(values).unwrap()).collect()
}

#[test]
fn embeddings_do_not_depend_on_the_notes_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for variant in Variant::ALL {
        for tune in [Tune::Full, Tune::Lora, Tune::Frozen] {
            models.push((variant, tune, Quantisation::None));
        }
    }
    models.push((Variant::NoteLlm2, Tune::Lora, Quantisation::Q8));
    models.push((Variant::NoteLlm2, Tune::Frozen, Quantisation::Q4));
    let mut differ = Vec::new();
    for (variant, tune, quantisation) in models {
        let (plan, batch) = small(folder.path(), variant, tune, quantisation);
        let whole = embedded(&plan, &batch, 0);
        for notes in [1, 2, 3, 5, 8, batch.notes - 1] {
            let parts = embedded(&plan, &batch, notes);
            let pairs = whole.iter().flatten().zip(parts.iter().flatten());
            let others = pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            if others > 0 {
                differ.push((variant, tune, notes, others));
            }
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn parts_learn_at_rates_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |set: &dyn Fn(&mut TrainSettings), learning_rate| {
        let mut config = small_config(folder.path());
        set(&mut config.train);
        let (plan, _) = after_a_step(config, learning_rate);
        let mut weights = BTreeMap::new();
        each_parameter(&plan.embedder.core, &mut |param| {
            let values = read::<1, f32>(param.values()).unwrap();
            weights.insert(param.path(), values);
        });
        weights
    };
    let slow = weights(&|_| {}, 1e-2);
    let fast = weights(&|_| {}, 2e-2);
    let connector = weights(
        &|train| train.connector_learning_rate = Some(2.0 * train.learning_rate),
        1e-2,
    );
    let head = weights(
        &|train| train.head_learning_rate = Some(2.0 * train.learning_rate),
        1e-2,
    );
    let mut parts = [0; 3];
    for (path, slow) in &slow {
        let fast = &fast[path];
        let (part, as_fast) = match path.strip_prefix("head.") {
            None => (0, [slow, slow]),
            Some(rest) if rest.starts_with("connector.") => (1, [fast, slow]),
            Some(_) => (2, [slow, fast]),
        };
        parts[part] += usize::from(slow != fast);
        assert_eq!([&connector[path], &head[path]], as_fast, "{path}");
    }
    assert!(parts.iter().all(|&moved| moved > 3), "{parts:?}");
}
