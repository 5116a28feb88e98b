//! Slices and checkpoints against the step that holds everything at once.

use std::path::Path;
use std::sync::Arc;

use mlrm_config::{DataSource, ObjectiveKind, RunConfig, Tune, Variant};
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::{LoaderSettings, PairBatches};
use mlrm_data::order::Cursor;
use mlrm_train::corpus::Modality;
use mlrm_train::optimiser::AdamW;
use mlrm_train::plan::RunPlan;
use mlrm_train::step::{StepContext, batch_gradients, train_step};

/// A small model of `variant` that is tuned so, and two batches of its sample set.
fn small(root: &Path, variant: Variant, tune: Tune) -> (RunPlan, [NoteBatch; 2]) {
    let mut config = RunConfig::default();
    config.data.source = DataSource::Synth;
    config.data.root = root.to_path_buf();
    config.data.synth.notes = 60;
    config.data.synth.users = 150;
    config.data.synth.image_pixels = 16;
    config.data.pairs.min_users = 1;
    config.data.loader_threads = 1;
    config.data.prefetch_batches = 0;
    config.tokenizer.train_vocab_size = Some(400);
    config.model.variant = variant;
    config.model.head.dim = 16;
    let llm = &mut config.model.llm;
    (llm.hidden_size, llm.intermediate_size) = (32, 64);
    (llm.num_hidden_layers, llm.num_attention_heads) = (3, 4);
    llm.num_key_value_heads = Some(2);
    llm.tune = tune;
    (llm.lora.rank, llm.lora.dropout) = (4, 0.3);
    let vision = &mut config.model.vision;
    (vision.hidden_size, vision.intermediate_size) = (24, 48);
    (vision.num_hidden_layers, vision.num_attention_heads) = (2, 3);
    (vision.image_size, vision.patch_size) = (16, 8);
    let connector = &mut config.model.connector;
    (connector.queries, connector.layers, connector.hidden_size) = (3, 1, 24);
    (connector.num_attention_heads, connector.intermediate_size) = (3, 48);
    connector.query_init_std = 0.02;
    config.train.batch_pairs = 9;
    let plan = RunPlan::prepare_training(config, &|_, _| {}).expect("a plan");
    let encoder = plan
        .encoding
        .encoder(&plan.notes, &plan.embedder, Modality::Both);
    let pairs = Arc::from(plan.pairs.pairs.train.as_slice());
    let loader = LoaderSettings::new(&plan.config.data, &plan.config.train);
    let encoder = Arc::new(encoder.expect("an encoder"));
    let mut batches =
        PairBatches::new(encoder, pairs, 1, Cursor::default(), loader).expect("batches");
    let mut next = || batches.next().expect("a batch").expect("readable").1;
    let batches = [next(), next()];
    (plan, batches)
}

fn gradients(plan: &RunPlan, batch: &NoteBatch, context: &StepContext) -> Vec<(String, Vec<f32>)> {
    let found = batch_gradients(&plan.embedder, batch.clone(), 5, context);
    let found = found.expect("gradients");
    let loss = ("loss".to_owned(), found.loss);
    let all = found.gradients.into_iter().chain([loss]);
    all.map(|(path, values)| (path, values.try_into_vec_as().expect("values")))
        .collect()
}

/// The largest difference: as a share of the largest of all values, and of the largest value of its
/// own tensor.
fn largest_errors(found: &[(String, Vec<f32>)], expected: &[(String, Vec<f32>)]) -> [f64; 2] {
    assert_eq!(found.len(), expected.len());
    let (mut worst, mut difference, mut of_all) = (0.0_f64, 0.0_f32, 0.0_f32);
    for ((path, found), (expected_path, expected)) in found.iter().zip(expected) {
        assert_eq!((path, found.len()), (expected_path, expected.len()));
        let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let pairs = found.iter().zip(expected);
        let error = pairs.fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        if path != "loss" {
            (difference, of_all) = (difference.max(error), of_all.max(largest));
        }
        // Key biases have no gradient but for rounding: softmax does not see them.
        if largest > 1e-6 {
            worst = worst.max(f64::from(error / largest));
        }
    }
    [f64::from(difference / of_all), worst]
}

/// Every variant, way to tune and objective: gradients of `changed` contexts beside those of the
/// plain one.
fn worst_over_models(change: impl Fn(&mut StepContext)) -> [f64; 2] {
    let folder = tempfile::tempdir().expect("a folder");
    let variants = [
        Variant::Text,
        Variant::Basic,
        Variant::Micl,
        Variant::LateFusion,
        Variant::NoteLlm2,
    ];
    let mut worst = [0.0_f64; 2];
    for variant in variants {
        for tune in [Tune::Full, Tune::Lora, Tune::Frozen] {
            let (mut plan, [first, second]) = small(folder.path(), variant, tune);
            let mut context = StepContext::new(&plan);
            assert!(context.partners.is_some(), "false negatives are masked");
            // Off the start, where half of the adapters have no gradient.
            let mut optimiser = AdamW::new(&plan.config.train);
            let model = &mut plan.embedder;
            train_step(model, &mut optimiser, first, 1e-2, &context, false).expect("a step");
            for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
                context.objective.kind = kind;
                (context.micro_batch_notes, context.checkpoint_layers) = (0, false);
                let expected = gradients(&plan, &second, &context);
                change(&mut context);
                let errors = largest_errors(&gradients(&plan, &second, &context), &expected);
                let [of_all, of_tensor] = errors;
                println!("{variant:?} {tune:?} {kind:?}: {of_all:.1e}, {of_tensor:.1e}");
                worst = [worst[0].max(errors[0]), worst[1].max(errors[1])];
            }
        }
    }
    worst
}

/// In f32 the parts add up in another order, over other paddings, and the temperature makes the
/// softmax twenty times as sensitive to the rounding of cosines.
#[track_caller]
fn assert_rounding(worst: [f64; 2]) {
    let [of_all, of_tensor] = worst;
    assert!(of_all <= 2e-6, "{of_all:.1e} of the largest value");
    assert!(
        of_tensor <= 1e-5,
        "{of_tensor:.1e} of a tensor's largest value"
    );
}

#[test]
fn gradients_in_slices_are_those_of_the_whole_batch() {
    assert_rounding(worst_over_models(|context| context.micro_batch_notes = 5));
}

#[test]
fn gradients_of_layers_run_again_are_the_same_bit_by_bit() {
    let worst = worst_over_models(|context| context.checkpoint_layers = true);
    assert_eq!(worst, [0.0; 2]);
}

#[test]
fn slices_and_layers_run_again_go_together() {
    assert_rounding(worst_over_models(|context| {
        (context.micro_batch_notes, context.checkpoint_layers) = (7, true);
    }));
}
