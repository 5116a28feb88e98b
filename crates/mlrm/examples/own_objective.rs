//! Another objective: SigLIP's (Zhai et al., arXiv 2303.15343), which asks of every two notes by themselves whether
//! they are a pair, and has a bias that learns beside the temperature.
//!
//!     cargo run --release --example own_objective

use std::path::Path;
use std::sync::Arc;

use mlrm::burn;
use mlrm::burn::module::{Module, Param};
use mlrm::burn::tensor::activation::log_sigmoid;
use mlrm::burn::tensor::{DType, Tensor};
use mlrm::data::loader::{LoaderSettings, PairBatches};
use mlrm::data::order::Cursor;
use mlrm::model::embedder::EmbedderCore;
use mlrm::train::corpus::Modality;
use mlrm::train::encode::token_batch;
use mlrm::train::features::vision_features;
use mlrm::train::optimiser::{AdamW, Clipping, flat_gradients, squared_norm};
use mlrm::train::plan::RunPlan;
use mlrm::{Embedder, Error, RunConfig};

/// What learns: the model, and the bias of the loss.
#[derive(Module, Debug)]
struct WithBias {
    core: EmbedderCore,
    /// b, `[1]`.
    bias: Param<Tensor<1>>,
}

/// −Σ log σ(± (exp(t) cos + b)) over all queries and targets, + for pairs, by the number of pairs. `[1]`
///
/// `queries`, `targets`: of length 1, `[pairs, e]`; `t`, `b`: `[1]`.
fn sigmoid_loss(queries: Tensor<2>, targets: Tensor<2>, t: Tensor<1>, b: Tensor<1>) -> Tensor<1> {
    let [pairs, _] = queries.dims();
    let cosines = queries.matmul(targets.transpose());
    let logits = cosines * t.exp().reshape([1, 1]) + b.reshape([1, 1]);
    let signs = Tensor::<2>::eye(pairs, &logits.device())
        .mul_scalar(2.0)
        .sub_scalar(1.0);
    log_sigmoid(logits * signs)
        .sum()
        .neg()
        .div_scalar(pairs as f64)
}

fn main() -> Result<(), Error> {
    run(Path::new("runs/own_objective"))
}

/// Writes the sample set and the model below `home`.
pub fn run(home: &Path) -> Result<(), Error> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let data = format!("data.root={}", home.join("data").display());
    let mut plan = RunPlan::prepare(RunConfig::load(tiny, &[data])?, &|_, _| {})?;
    let encoder = plan
        .encoding
        .encoder(&plan.notes, &plan.embedder, Modality::Both)?;
    let settings = LoaderSettings::new(&plan.config.data, &plan.config.train);
    let pairs = plan.pairs.pairs.train.as_slice().into();
    let batches = PairBatches::new(Arc::new(encoder), pairs, 1, Cursor::default(), settings)?;
    let mut optimiser = AdamW::new(&plan.config.train);

    let device = plan.device.clone().autodiff();
    let start = Tensor::from_floats([-10.0], &device).require_grad();
    let mut model = WithBias {
        core: plan.embedder.core.clone(),
        bias: Param::from_tensor(start),
    };
    for (step, batch) in batches.take(6).enumerate() {
        let (_, mut batch) = batch?;
        let features = vision_features(&plan.embedder, &mut batch)?;
        let config = &plan.embedder.config;
        let embeddings = model
            .core
            .forward(config, &token_batch(&batch), features, None)?;

        // The notes of a batch stand at places of pairs: queries first, then their targets.
        let places: Vec<i32> = batch.places.iter().map(|&note| note as i32).collect();
        let places = Tensor::from_ints(places.as_slice(), &embeddings.multimodal.device());
        let halves = embeddings.multimodal.select(0, places).chunk(2, 0);
        let (queries, targets) = (halves[0].clone(), halves[1].clone());
        let t = model.core.head.temperature.val();
        let loss = sigmoid_loss(queries, targets, t, model.bias.val());

        let value = loss.clone().inner().cast(DType::F32);
        let gradients = flat_gradients(&model, loss.backward());
        let norm = squared_norm(&gradients).unwrap_or_else(|| value.zeros_like());
        let clipping = Clipping::by_norm(value.clone(), norm, plan.config.train.clip_norm);
        let taken = clipping.take.clone();
        model = optimiser.step(model, gradients, 1e-3, clipping);
        // Both numbers in one read.
        let read = Tensor::cat(vec![value, taken], 0).try_into_vec_as::<f32>();
        let read = read
            .map_err(|error| Error::device("the numbers cannot be read from the device", error))?;
        optimiser.count(read[1] == 1.0);
        println!("step {}: loss {:.4}", step + 1, read[0]);
    }

    plan.embedder.core = model.core;
    Embedder::from(plan).save_pretrained(home.join("model"))
}
