//! What `burn::train` is given computes what mlrm's own trainer computes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use mlrm::burn::data::dataloader::batcher::Batcher;
use mlrm::burn::data::dataloader::{DataLoader, DataLoaderBuilder, Progress};
use mlrm::burn::data::dataset::Dataset;
use mlrm::burn::module::Module;
use mlrm::burn::optim::{AdamWConfig, GradientsParams};
use mlrm::burn::store::ModuleRecord;
use mlrm::burn::tensor::Tensor;
use mlrm::burn::train::metric::{LossMetric, Metric, MetricMetadata, Numeric};
use mlrm::burn::train::{InferenceStep, Learner, SupervisedTraining, TrainStep};
use mlrm::data::batch::NoteBatch;
use mlrm::data::loader::NoteEncoder;
use mlrm::datasets::{
    Collate, EncodedPair, EncodedPicture, NoteDataset, PairBatch, PairDataset, PictureDataset,
};
use mlrm::events::{EndReason, Event, Stamped};
use mlrm::learner::PairLearner;
use mlrm::metrics::{PairMetric, PoolMetric};
use mlrm::train::corpus::Modality;
use mlrm::train::encode::Inference;
use mlrm::train::evaluate::Retrieval;
use mlrm::train::group::Alone;
use mlrm::train::plan::RunPlan;
use mlrm::train::step::{StepContext, batch_gradients};
use mlrm::{EventRenderer, RunConfig, Task};

fn plan(home: &Path) -> (RunPlan, Arc<NoteEncoder>) {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = format!("data.root={}", home.join("data").display());
    let config = RunConfig::load(tiny, &[data]).expect("the config");
    let plan = RunPlan::prepare(config, &|_, _| {}).expect("a plan");
    let encoder = plan
        .encoding
        .encoder(&plan.notes, &plan.embedder, Modality::Both);
    (plan, Arc::new(encoder.expect("an encoder")))
}

fn learner(plan: &RunPlan) -> PairLearner {
    PairLearner::new(plan.embedder.clone(), &plan.config.objective).expect("a learner")
}

fn number(tensor: Tensor<1>) -> f64 {
    tensor.try_into_scalar::<f64>().expect("a number")
}

#[test]
fn a_step_has_the_loss_and_the_gradients_of_the_trainer() {
    let home = tempfile::tempdir().expect("a folder");
    let (plan, encoder) = plan(home.path());
    let pairs = &plan.pairs.pairs;
    let dataset = PairDataset::new(Arc::clone(&encoder), pairs.train.as_slice());
    assert_eq!(Dataset::<EncodedPair>::len(&dataset), pairs.train.len());
    let items = dataset.get_many((0..12).collect()).expect("pairs");
    let partners = pairs.known_partners(plan.notes.set.len());
    let collate = Collate::new(&encoder).with_partners(partners);
    let batch: PairBatch = collate.batch(items, &plan.device);
    let rows = batch.notes.at_places(&batch.notes.rows);
    let expected: Vec<u32> = pairs.train[..12].iter().map(|pair| pair.query).collect();
    assert_eq!(rows[..12], expected);
    assert!(batch.notes.notes < 24, "a note stands at two places");

    let notes: NoteBatch = batch.notes.clone();
    let own = batch_gradients(
        &plan.embedder,
        notes,
        1,
        &StepContext::new(&plan),
        &mut Alone,
    );
    let own = own.expect("gradients");
    let output = TrainStep::step(&learner(&plan), batch);
    let (loss, expected) = (number(output.item.loss.inner()), number(own.loss));
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    let core = &plan.embedder.core;
    let head = core.head.linear.as_ref().expect("a projection");
    for parameter in [&head.weight, &core.llm.embed_tokens.weight] {
        let found = output.grads.get::<2>(parameter.id).expect("a gradient");
        let path = match parameter.id == head.weight.id {
            true => "head.linear.weight",
            false => "llm.embed_tokens.weight",
        };
        let expected = own.gradients[path].clone();
        let elements = expected.dims()[0];
        let difference = (found.reshape([elements]) - expected.clone()).abs().max();
        let largest = number(expected.abs().max());
        assert!(largest > 0.0, "{path}");
        let difference = number(difference);
        assert!(
            difference <= 1e-4 * largest,
            "{path}: {difference} of {largest}"
        );
    }
}

#[test]
fn the_temperature_stays_where_it_may_be() {
    let home = tempfile::tempdir().expect("a folder");
    let (mut plan, encoder) = plan(home.path());
    plan.config.objective.max_temperature_logit = Some(2.5);
    let dataset = PairDataset::new(Arc::clone(&encoder), plan.pairs.pairs.train.as_slice());
    let items = dataset.get_many((0..8).collect()).expect("pairs");
    let batch: PairBatch = Collate::new(&encoder).batch(items, &plan.device);
    let learner = learner(&plan);
    let gradients: GradientsParams = TrainStep::step(&learner, batch).grads;
    let mut optimiser = AdamWConfig::new().init();
    let learnt = learner.optimize(&mut optimiser, 1e-3.into(), gradients);
    let t = learnt.embedder.core.head.temperature.val();
    assert!(t.is_require_grad());
    assert_eq!(number(t.inner()), 2.5);
}

/// The task of the validation notes.
fn task(plan: &RunPlan) -> (Retrieval, Arc<Task>) {
    let pairs = &plan.pairs.pairs.validation;
    let held_out = Retrieval::new(&plan.notes.set, &plan.pairs, pairs, &plan.config.eval);
    let held_out = held_out.expect("a task");
    let task = Arc::new(held_out.task().clone());
    (held_out, task)
}

#[test]
fn metrics_of_the_pool_are_those_of_the_evaluation() {
    let home = tempfile::tempdir().expect("a folder");
    let (plan, encoder) = plan(home.path());
    let (held_out, task) = task(&plan);
    let notes: Arc<dyn DataLoader<NoteBatch>> = DataLoaderBuilder::new(Collate::new(&encoder))
        .batch_size(7)
        .build(NoteDataset::all(encoder));
    let learner = learner(&plan).valid();
    let mut metrics = [
        PoolMetric::recall(Arc::clone(&task), 10),
        PoolMetric::ndcg(Arc::clone(&task), 10),
        PoolMetric::mrr(Arc::clone(&task)),
        PoolMetric::uniformity(Arc::clone(&task)),
        PoolMetric::alignment(task),
    ];
    let metadata = MetricMetadata {
        progress: Progress::new(0, 0, None),
        iteration: None,
        lr: None,
    };
    for (index, batch) in notes.iter().enumerate() {
        let embedded = InferenceStep::step(&learner, batch.expect("notes"));
        for metric in &mut metrics {
            metric.update(&embedded, &metadata).expect("embeddings");
            if index == 0 {
                // Not of a part of the notes.
                metric.compute().expect("a metric");
                assert!(metric.final_value().current().is_nan());
                assert!(metric.value().is_none());
            }
        }
    }
    let model = Inference::new(&plan.embedder);
    let all = held_out.embed(&model, &plan.notes, &plan.encoding, Modality::Both, 32);
    let all = all.expect("embeddings").multimodal;
    let slices = held_out.measure(&model, &all, None).expect("metrics");
    let geometry = held_out.geometry(&all).expect("figures");
    for metric in &mut metrics {
        metric.compute().expect("a metric");
        let name = metric.name().to_string();
        let expected = match name.as_str() {
            "uniformity" => geometry.uniformity,
            "alignment" => geometry.alignment,
            name => slices["all"].values[name],
        };
        let found = metric.final_value().current();
        assert!(
            (found - expected).abs() < 1e-5,
            "{name}: {found} {expected}"
        );
        metric.clear();
    }
}

#[test]
fn pictures_are_those_that_notes_show() {
    let home = tempfile::tempdir().expect("a folder");
    let (plan, encoder) = plan(home.path());
    let images = plan.notes.images.clone().expect("pictures");
    let preprocessor = plan.encoding.preprocessor.clone().expect("a preprocessor");
    let keys = plan.notes.set.rows()[..3].iter();
    let mut keys: Vec<String> = keys.filter_map(|note| note.image.clone()).collect();
    keys.push("images/gone.png".into());
    let pictures = PictureDataset::new(images, keys, preprocessor, plan.notes.decoding);
    let all: Vec<EncodedPicture> = pictures.get_many(vec![0, 1, 2]).expect("pictures");
    let notes = encoder.encode_rows(&[0, 1, 2]).expect("notes");
    let shown = notes.pictures.expect("pictures").distinct;
    for (picture, shown) in all.iter().zip(&shown) {
        assert_eq!(shown.values.as_deref(), Some(picture.values.as_slice()));
    }
    let error = pictures.get(3).expect_err("an error").to_string();
    assert!(error.contains("images/gone.png"), "{error}");
    let collate = Collate::new(&encoder);
    let tensor: Tensor<4> = collate.batch(all, &plan.device);
    assert_eq!(tensor.dims(), [3, 3, 32, 32]);
}

#[test]
fn burns_records_hold_what_learns() {
    let home = tempfile::tempdir().expect("a folder");
    let (mut plan, encoder) = plan(home.path());
    let file = home.path().join("learner");
    let trained = learner(&plan);
    trained.clone().into_record().save(&file).expect("a record");
    plan.config.run.seed = 2;
    let other = RunPlan::prepare(plan.config.clone(), &|_, _| {}).expect("a plan");
    let batch = || encoder.encode_rows(&[0, 1, 2]).expect("notes");
    let embed = |learner: PairLearner| {
        let embedded = InferenceStep::step(&learner.valid(), batch());
        embedded
            .embeddings
            .try_into_vec_as::<f32>()
            .expect("numbers")
    };
    let expected = embed(trained);
    // The frozen encoder is no part of a record.
    let mut fresh = learner(&plan);
    fresh.embedder.core = other.embedder.core;
    assert_ne!(embed(fresh.clone()), expected);
    let record = ModuleRecord::load(&file).expect("a record");
    assert_eq!(embed(fresh.load_record(record)), expected);
}

#[test]
fn the_renderer_tells_a_training_as_events() {
    let home = tempfile::tempdir().expect("a folder");
    let (plan, encoder) = plan(home.path());
    let (_, task) = task(&plan);
    let (sink, events) = mpsc::channel::<Stamped>();
    let collate = Collate::new(&encoder);
    let pairs = &plan.pairs.pairs.train[..20];
    let train = DataLoaderBuilder::new(collate.clone())
        .batch_size(8)
        .build(PairDataset::new(Arc::clone(&encoder), pairs));
    let valid = DataLoaderBuilder::new(collate)
        .batch_size(32)
        .build(NoteDataset::all(encoder));
    let training = SupervisedTraining::new(home.path().join("burn"), train, valid)
        .metric_train_numeric(LossMetric::new())
        .metric_train_numeric(PairMetric::temperature())
        .metric_train_numeric(PairMetric::gate())
        .metric_valid_numeric(PoolMetric::recall(Arc::clone(&task), 10))
        .metric_valid_numeric(PoolMetric::alignment(task))
        .with_application_logger(None)
        .num_epochs(2)
        .renderer(Box::new(EventRenderer::new(sink)));
    let learner = Learner::new(learner(&plan), AdamWConfig::new().init(), 1e-3);
    let result = training.launch(learner);
    assert!(result.error.is_none(), "{:?}", result.error);
    drop(result);

    let events: Vec<Event> = events.into_iter().map(|stamped| stamped.event).collect();
    let names: Vec<&str> = events.iter().map(Event::name).collect();
    let epoch = ["train_step", "train_step", "train_step", "evaluation"];
    let expected = [&["run_started"][..], &epoch, &epoch, &["run_ended"]].concat();
    assert_eq!(names, expected);
    let Event::RunStarted(started) = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!((started.total_steps, started.train_pairs), (6, 20));
    let Event::TrainStep(step) = &events[6] else {
        panic!("{events:?}");
    };
    assert_eq!((step.step, step.epoch), (5, 1.8));
    assert!(step.loss > 0.0 && step.gate_mean.is_some());
    assert!((step.temperature_logit - 3.0).abs() < 0.1, "{step:?}");
    let Event::Evaluation(evaluation) = &events[8] else {
        panic!("{events:?}");
    };
    assert_eq!(evaluation.step, 6);
    assert!(evaluation.slices["all"]["recall@10"] > 0.0);
    assert!(
        evaluation
            .alignment
            .is_some_and(|alignment| alignment > 0.0)
    );
    assert!(evaluation.figures["train Loss"] > 0.0);
    let Some(Event::RunEnded(ended)) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!((ended.step, ended.reason), (6, EndReason::Completed));
}
