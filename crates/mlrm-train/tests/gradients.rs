//! Slices and checkpoints against the step that holds everything at once.

#[path = "support/small.rs"]
mod small;

use std::path::Path;

use mlrm_config::{DType, ObjectiveKind, Quantisation, RunConfig, Tune, Variant};
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::PairBatches;
use mlrm_data::order::Cursor;
use mlrm_train::device::Device;
use mlrm_train::group::{Alone, Group, Threads};
use mlrm_train::optimiser::AdamW;
use mlrm_train::plan::RunPlan;
use mlrm_train::step::{StepContext, batch_gradients, train_step};
use small::small_config;

/// A model of the tables.
#[derive(Debug, Clone, Copy)]
struct Model {
    variant: Variant,
    tune: Tune,
    quantisation: Quantisation,
    dtype: DType,
}

/// A small model, and two batches of its sample set.
fn small(root: &Path, model: Model) -> (RunPlan, [NoteBatch; 2]) {
    let mut config = small_config(root);
    config.backend.dtype = model.dtype;
    config.model.variant = model.variant;
    let llm = &mut config.model.llm;
    (llm.tune, llm.quantisation) = (model.tune, model.quantisation);
    let mut plan = RunPlan::prepare(config, &|_, _| {}).expect("a plan");
    // The order of the pairs that the bounds were found with.
    plan.config.run.seed = 1;
    let batches = first_batches(&plan);
    (plan, batches)
}

fn first_batches(plan: &RunPlan) -> [NoteBatch; 2] {
    let mut batches = batches(plan);
    let mut next = || batches.next().expect("a batch").expect("readable").1;
    [next(), next()]
}

/// The batches of training from its beginning.
fn batches(plan: &RunPlan) -> PairBatches {
    let encoder = plan.encoder().expect("an encoder");
    let batches = plan.batches(&encoder, Cursor::default());
    batches.expect("batches")
}

fn gradients(plan: &RunPlan, batch: &NoteBatch, context: &StepContext) -> Vec<(String, Vec<f32>)> {
    gradients_of(plan, batch, context, &mut Alone)
}

fn gradients_of(
    plan: &RunPlan,
    batch: &NoteBatch,
    context: &StepContext,
    group: &mut dyn Group,
) -> Vec<(String, Vec<f32>)> {
    let found = batch_gradients(&plan.embedder, batch.clone(), 5, context, group);
    let found = found.expect("gradients");
    let loss = ("loss".to_owned(), found.loss);
    let all = found.gradients.into_iter().chain([loss]);
    all.map(|(path, values)| {
        let values: Vec<f32> = values.try_into_vec_as().expect("values");
        assert!(values.iter().all(|value| value.is_finite()), "{path}");
        (path, values)
    })
    .collect()
}

/// The largest difference: as a share of the largest of all values, and of the largest value of its
/// own tensor.
fn largest_errors(found: &[(String, Vec<f32>)], expected: &[(String, Vec<f32>)]) -> [f64; 2] {
    assert_eq!(found.len(), expected.len());
    let (mut worst, mut difference, mut of_all) = (0.0_f64, 0.0_f32, 0.0_f32);
    let mut at = "";
    for ((path, found), (expected_path, expected)) in found.iter().zip(expected) {
        assert_eq!((path, found.len()), (expected_path, expected.len()));
        let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let pairs = found.iter().zip(expected);
        let error = pairs.fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        if path != "loss" {
            if error > difference {
                (difference, at) = (error, path.as_str());
            }
            of_all = of_all.max(largest);
        }
        // Key biases have no gradient but for rounding: softmax does not see them.
        if largest > 1e-6 {
            worst = worst.max(f64::from(error / largest));
        }
    }
    println!("largest difference: {difference:.1e} of {at}");
    [f64::from(difference / of_all), worst]
}

/// Every variant and way to tune in f32; quantised weights; and every variant in the short formats.
fn models() -> Vec<Model> {
    let of = |variant, tune, quantisation, dtype| Model {
        variant,
        tune,
        quantisation,
        dtype,
    };
    let mut models = Vec::new();
    for variant in Variant::ALL {
        for tune in [Tune::Full, Tune::Lora, Tune::Frozen] {
            models.push(of(variant, tune, Quantisation::None, DType::F32));
        }
        for dtype in [DType::Bf16, DType::F16] {
            models.push(of(variant, Tune::Full, Quantisation::None, dtype));
        }
    }
    for quantisation in [Quantisation::Q8, Quantisation::Q4] {
        for tune in [Tune::Lora, Tune::Frozen] {
            models.push(of(Variant::NoteLlm2, tune, quantisation, DType::F32));
        }
    }
    models
}

/// Workers on the CPU, and the leader of them.
fn workers(plan: &RunPlan, count: usize) -> Box<dyn Group> {
    let others = vec![("flex".to_owned(), Device::flex()); count - 1];
    match count {
        1 => Box::new(Alone),
        _ => Box::new(Threads::start(&plan.embedder, "flex", &others).expect("threads")),
    }
}

/// How a batch passes through the model.
#[derive(Debug, Clone, Copy)]
struct Way {
    workers: usize,
    /// As [`StepContext::micro_batch_notes`].
    notes: usize,
    /// As [`StepContext::checkpoint_layers`].
    layers_again: bool,
}

impl Way {
    /// In parts of so many notes.
    fn parts(notes: usize) -> Self {
        Self {
            workers: 1,
            notes,
            layers_again: false,
        }
    }

    fn with_layers_again(self) -> Self {
        Self {
            layers_again: true,
            ..self
        }
    }

    fn by(self, workers: usize) -> Self {
        Self { workers, ..self }
    }
}

/// The largest errors of gradients in each of `ways` beside those of the whole batch at once, by number format: f32, bf16,
/// f16.
fn worst_over_models(ways: &[Way]) -> [[f64; 2]; 3] {
    worst_over(models(), ways)
}

fn worst_over(models: Vec<Model>, ways: &[Way]) -> [[f64; 2]; 3] {
    let folder = tempfile::tempdir().expect("a folder");
    let mut worst = [[0.0_f64; 2]; 3];
    for model in models {
        let (mut plan, [first, second]) = small(folder.path(), model);
        let mut context = StepContext::new(&plan);
        assert!(context.partners.is_some(), "false negatives are masked");
        // What a run of this model would come down to after its first steps.
        context.loss_scale = context.loss_scale.min(64.0);
        // Off the start, where half of the adapters have no gradient.
        let mut optimiser = AdamW::new(&plan.config.train);
        let embedder = &mut plan.embedder;
        let taken = train_step(
            embedder,
            &mut optimiser,
            first,
            1e-2,
            &context,
            false,
            &mut Alone,
        );
        taken.expect("a step");
        for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
            context.objective.kind = kind;
            (context.micro_batch_notes, context.checkpoint_layers) = (0, false);
            let expected = gradients(&plan, &second, &context);
            for way in ways {
                (context.micro_batch_notes, context.checkpoint_layers) =
                    (way.notes, way.layers_again);
                let mut group = workers(&plan, way.workers);
                let found = gradients_of(&plan, &second, &context, group.as_mut());
                let [of_all, of_tensor] = largest_errors(&found, &expected);
                println!("| {model:?} | {kind:?} | {way:?} | {of_all:.1e} | {of_tensor:.1e} |");
                let worst = &mut worst[model.dtype as usize];
                *worst = [worst[0].max(of_all), worst[1].max(of_tensor)];
            }
        }
    }
    println!("{worst:?}");
    worst
}

/// In f32 embeddings are the same bit for bit, and what parts add up in another order differs by [`LIMIT`] of the largest
/// value at most. The short formats round embeddings by 2⁻⁹ and 2⁻¹².
#[track_caller]
fn assert_rounding([f32, bf16, f16]: [[f64; 2]; 3]) {
    assert!(f32[0] <= LIMIT && f32[1] <= 5e-6, "{f32:?}");
    assert!(bf16[0] <= 0.1, "{bf16:?}");
    assert!(f16[0] <= 0.02, "{f16:?}");
}

/// 6.8e-7 is the most that was seen.
const LIMIT: f64 = 1e-6;

#[test]
fn gradients_in_slices_are_those_of_the_whole_batch() {
    assert_rounding(worst_over_models(&[Way::parts(5)]));
}

/// Batches of 15 notes, in f32.
#[test]
fn gradients_in_slices_of_any_size_are_those_of_the_whole_batch() {
    let models = models()
        .into_iter()
        .filter(|model| model.dtype == DType::F32);
    let sizes = [1, 2, 3, 7, 8, 11, 14];
    assert_rounding(worst_over(models.collect(), &sizes.map(Way::parts)));
}

#[test]
fn gradients_of_layers_run_again_are_the_same_bit_by_bit() {
    let worst = worst_over_models(&[Way::parts(0).with_layers_again()]);
    assert_eq!(worst, [[0.0; 2]; 3]);
}

#[test]
fn slices_and_layers_run_again_go_together() {
    assert_rounding(worst_over_models(&[Way::parts(7).with_layers_again()]));
}

/// Each worker embeds a share; negatives, dropout masks and gradients are those of the whole batch.
#[test]
fn gradients_of_several_workers_are_those_of_one() {
    assert_rounding(worst_over_models(&[Way::parts(0).by(3)]));
}

#[test]
fn workers_hold_slices_and_run_layers_again_too() {
    assert_rounding(worst_over_models(&[Way::parts(3)
        .with_layers_again()
        .by(2)]));
}

/// The order in which workers end changes nothing.
#[test]
fn gradients_of_several_workers_are_the_same_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plan, [batch, _]) = small(folder.path(), models()[0]);
    let context = StepContext::new(&plan);
    let first = gradients_of(&plan, &batch, &context, workers(&plan, 4).as_mut());
    for _ in 0..5 {
        let again = gradients_of(&plan, &batch, &context, workers(&plan, 4).as_mut());
        assert!(again == first);
    }
}

/// What a worker cannot read ends the step with its name, and the next step is taken.
#[test]
fn a_worker_says_what_is_wrong_with_its_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = Model {
        variant: Variant::NoteLlm2,
        ..models()[0]
    };
    let (plan, [batch, _]) = small(folder.path(), model);
    let context = StepContext::new(&plan);
    let mut group = workers(&plan, 3);
    let mut torn = batch.clone();
    let pictures = torn.pictures.as_mut().expect("pictures");
    let last = pictures.of_note[batch.notes - 1];
    pictures.distinct[last].values = None;
    let failed = batch_gradients(&plan.embedder, torn, 5, &context, group.as_mut());
    let error = failed.err().expect("an error").to_string();
    assert!(
        error.starts_with("worker 2 (flex): a batch lacks the values"),
        "{error}"
    );
    let expected = gradients(&plan, &batch, &context);
    let found = gradients_of(&plan, &batch, &context, group.as_mut());
    let [of_all, _] = largest_errors(&found, &expected);
    assert!(of_all <= LIMIT, "{of_all}");
}

/// A note that stands in several pairs gives the same gradients embedded once and embedded as often;
/// without dropout, whose masks it would share.
#[test]
fn notes_embedded_once_give_the_gradients_of_all_their_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut worst = [0.0_f64; 2];
    for (variant, tune) in [
        (Variant::Text, Tune::Frozen),
        (Variant::Micl, Tune::Full),
        (Variant::NoteLlm2, Tune::Full),
    ] {
        let model = Model {
            variant,
            tune,
            quantisation: Quantisation::None,
            dtype: DType::F32,
        };
        let (mut plan, [_, merged]) = small(folder.path(), model);
        plan.config.train.merge_duplicates = false;
        let [_, apart] = first_batches(&plan);
        assert!(merged.notes < apart.notes && merged.places.len() == apart.notes);
        let mut context = StepContext::new(&plan);
        for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
            context.objective.kind = kind;
            let expected = gradients(&plan, &apart, &context);
            let errors = largest_errors(&gradients(&plan, &merged, &context), &expected);
            println!("{variant:?} {tune:?} {kind:?}: {errors:?}");
            worst = [worst[0].max(errors[0]), worst[1].max(errors[1])];
        }
    }
    assert!(worst[0] <= 3e-6 && worst[1] <= 1.5e-5, "{worst:?}");
}

/// Positions of the language model in a pass over the sample set of `configs/demo.toml`, in batches of 64
/// pairs: computed and needed, by what is done against padding.
#[test]
fn fewer_positions_are_computed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo.toml");
    let mut config = RunConfig::load(&path, &[]).expect("a config");
    config.data.root = folder.path().to_path_buf();
    config.data.pairs.min_users = 1;
    config.train.batch_pairs = 64;
    let mut plan = RunPlan::prepare(config, &|_, _| {}).expect("a plan");
    plan.config.run.seed = 1;
    let steps = plan.pairs.pairs.train.len() / 64;
    let added = plan.encoding.visual_tokens.saturating_sub(1);
    let mut count = |merge_duplicates, length_window_batches, held: usize| -> [usize; 2] {
        let settings = &mut plan.config.train;
        settings.merge_duplicates = merge_duplicates;
        settings.length_window_batches = length_window_batches;
        let mut sum = [0, 0];
        for batch in batches(&plan).take(steps) {
            let (_, batch) = batch.expect("readable");
            for begin in (0..batch.notes).step_by(held) {
                let part = batch.slice(begin..batch.notes.min(begin + held));
                sum[0] += part.notes * (part.seq + added);
                sum[1] += part
                    .lengths
                    .iter()
                    .map(|length| length + added)
                    .sum::<usize>();
            }
        }
        sum
    };
    let [plain, apart] = count(false, 0, 128);
    let [merged, needed] = count(true, 0, 128);
    let [parts, _] = count(true, 0, 16);
    let [windows, in_windows] = count(true, 16, 128);
    println!(
        "plain {plain} of {apart}, merged {merged} of {needed}, in parts {parts}, in windows {windows} \
         of {in_windows}"
    );
    assert!(merged < plain && needed < apart && parts < merged);
    let share = |computed: usize, needed: usize| computed as f64 / needed as f64;
    assert!(share(windows, in_windows) < share(merged, needed));
}
