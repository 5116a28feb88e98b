//! mlrm's dashboard in a project of Burn's that uses nothing else of mlrm: a small network learns drawn digits.
//!
//!     cargo run --release --example plain_burn              # the dashboard; lines, where there is no terminal
//!     cargo run --release --example plain_burn -- digits    # digits/events.jsonl, for `mlrm watch` and `mlrm report`

use std::error::Error;
use std::path::Path;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamWConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use mlrm::EventRenderer;

/// Columns and rows of a picture.
const SIZE: (usize, usize) = (8, 12);
/// Which of the seven segments a digit has: top, upper left and right, middle, lower left and right, bottom.
const SEGMENTS: [u8; 10] = [
    0b1110111, 0b0010010, 0b1011101, 0b1011011, 0b0111010, 0b1101011, 0b1101111, 0b1010010,
    0b1111111, 0b1111011,
];

/// Digits of a pocket calculator at random places under noise; the same on every machine.
struct Digits {
    seed: u64,
    count: usize,
}

#[derive(Clone, Debug)]
struct Digit {
    /// `[rows, columns]`
    pixels: Vec<f32>,
    digit: i32,
}

impl Dataset<Digit> for Digits {
    fn get(&self, index: usize) -> Result<Digit, DatasetError> {
        let mut state = self.seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let digit = draw(10) as usize;
        let (left, top) = (draw(4) as usize, draw(4) as usize);
        let mut pixels: Vec<f32> = (0..SIZE.0 * SIZE.1)
            .map(|_| draw(1000) as f32 / 900.0)
            .collect();
        let mut dot = |x: usize, y: usize| pixels[(top + y) * SIZE.0 + left + x] += 0.9;
        for segment in (0..7).filter(|segment| SEGMENTS[digit] >> (6 - segment) & 1 == 1) {
            match segment {
                0 | 3 | 6 => (1..4).for_each(|x| dot(x, segment / 3 * 4)),
                _ => {
                    let x = if segment == 1 || segment == 4 { 0 } else { 4 };
                    let y = if segment < 3 { 1 } else { 5 };
                    (0..3).for_each(|row| dot(x, y + row));
                }
            }
        }
        let digit = digit as i32;
        Ok(Digit { pixels, digit })
    }

    fn len(&self) -> usize {
        self.count
    }
}

#[derive(Clone, Debug)]
struct DigitBatch {
    /// `[digits, pixels]`
    pixels: Tensor<2>,
    /// `[digits]`
    digits: Tensor<1, Int>,
}

#[derive(Clone)]
struct Stack;

impl Batcher<Digit, DigitBatch> for Stack {
    fn batch(&self, items: Vec<Digit>, device: &Device) -> DigitBatch {
        let digits: Vec<i32> = items.iter().map(|item| item.digit).collect();
        let shape = [items.len(), SIZE.0 * SIZE.1];
        let pixels: Vec<f32> = items.into_iter().flat_map(|item| item.pixels).collect();
        DigitBatch {
            pixels: Tensor::from_data(TensorData::new(pixels, shape), device),
            digits: Tensor::from_ints(digits.as_slice(), device),
        }
    }
}

#[derive(Module, Debug)]
struct Network {
    hidden: Linear,
    out: Linear,
}

impl Network {
    fn classify(&self, batch: DigitBatch) -> ClassificationOutput {
        let logits = self.out.forward(relu(self.hidden.forward(batch.pixels)));
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        let loss = loss.forward(logits.clone(), batch.digits.clone());
        ClassificationOutput::new(loss, logits, batch.digits)
    }
}

impl TrainStep for Network {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> TrainOutput<ClassificationOutput> {
        let figures = self.classify(batch);
        TrainOutput::new(self, figures.loss.backward(), figures)
    }
}

impl InferenceStep for Network {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(folder) => run(Path::new(&folder)),
        None => train(Path::new("runs/plain_burn"), 20, None),
    }
}

/// Trains and writes the events into `home`.
pub fn run(home: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(home)?;
    let log = mlrm::events::EventLog::create(home.join("events.jsonl"))?;
    train(home, 5, Some(EventRenderer::new(log)))
}

fn train(
    home: &Path,
    epochs: usize,
    renderer: Option<EventRenderer>,
) -> Result<(), Box<dyn Error>> {
    let loader = |seed, count| {
        DataLoaderBuilder::new(Stack)
            .batch_size(64)
            .build(Digits { seed, count })
    };
    let training = SupervisedTraining::new(home.join("burn"), loader(1, 6000), loader(2, 1000))
        .metric_train_numeric(LossMetric::new())
        .metric_train_numeric(AccuracyMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_valid_numeric(AccuracyMetric::new())
        .num_epochs(epochs);
    // The one line that brings the dashboard to any training of Burn's.
    let renderer =
        renderer.unwrap_or_else(|| EventRenderer::dashboard("digits", training.interrupter()));
    let device = Device::default().autodiff();
    let network = Network {
        hidden: LinearConfig::new(SIZE.0 * SIZE.1, 128).init(&device),
        out: LinearConfig::new(128, 10).init(&device),
    };
    let learner = Learner::new(network, AdamWConfig::new().init(), 1e-3);
    let result = training.renderer(Box::new(renderer)).launch(learner);
    match result.error {
        Some(error) => Err(error.to_string().into()),
        None => Ok(()),
    }
}
