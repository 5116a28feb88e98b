//! A made-up run that looks like a real one; the same every time.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

#[path = "../../../../tests/skipped.rs"]
mod skipped;

pub use skipped::skipped;

use mlrm_events::{
    AttentionMass, CheckpointSaved, EmbeddingProbe, EndReason, Evaluation, Event, GATE_BINS,
    GateHistogram, Metrics, ModalityShares, RunEnded, RunStarted, Saliency, Slices, Split, Stamped,
    System, TrainStep, Warning,
};
use serde_json::json;

/// 2026-11-21 10:00:00 UTC.
pub const START: f64 = 1_795_255_200.0;

const SECONDS_PER_STEP: f64 = 1.25;
const LAYERS: usize = 12;

/// How a run is made up.
#[derive(Clone, Copy)]
pub struct Shape {
    pub steps: u64,
    pub total_steps: u64,
    /// Steps between evaluations, probes, gate histograms.
    pub every: u64,
    pub ended: bool,
    /// Moves the curves, so that runs differ.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            steps: 1240,
            total_steps: 2000,
            every: 100,
            ended: false,
            seed: 1,
        }
    }
}

/// Noise in [-1, 1) (SplitMix64).
fn noise(seed: u64, index: u64) -> f64 {
    let mut bits = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(index)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) as f64 / 2_f64.powi(63) - 1.0
}

fn at(step: u64, event: Event) -> Stamped {
    Stamped {
        time_seconds: START + 4.0 + step as f64 * SECONDS_PER_STEP,
        event,
    }
}

/// A look at the embeddings of a fixed batch after `step`.
pub fn embedding_probe(step: u64) -> Stamped {
    let far = step as f64 / (step as f64 + 500.0);
    let probe = EmbeddingProbe {
        step,
        notes: 64,
        positive_similarity: 0.95 - 0.25 * far,
        negative_similarity: 0.9 - 0.85 * far,
        effective_rank: 2.0 + 24.0 * far,
        uniformity: -3.0 * far,
        alignment: 0.1 + 0.5 * far,
        picture_share: Some(0.6 * far),
        gate_mean: Some(0.6),
        temperature_logit: 3.0,
        seconds: 0.02,
    };
    at(step, Event::EmbeddingProbe(probe))
}

/// The events of a run.
pub fn run(shape: Shape) -> Vec<Stamped> {
    let mut events = vec![Stamped {
        time_seconds: START,
        event: started(shape),
    }];
    for step in 1..=shape.steps {
        events.push(at(step, Event::TrainStep(train_step(shape, step))));
        if step % 10 == 0 {
            events.push(at(step, system(step)));
        }
        if step % shape.every == 0 {
            events.push(at(step, gate_histogram(shape, step)));
            events.push(at(step, saliency(shape, step)));
            events.push(at(step, evaluation(shape, step)));
            let path = format!("checkpoints/step-{step}");
            let best = step % (2 * shape.every) == 0;
            let saved = CheckpointSaved {
                step,
                path,
                best,
                reason: "interval".into(),
            };
            events.push(at(step, Event::CheckpointSaved(saved)));
        }
        if step % (shape.every / 4).max(1) == 0 {
            let layers = layers(shape, step, 0.7);
            events.push(at(
                step,
                Event::AttentionMass(AttentionMass {
                    step,
                    layers,
                    seconds: 0.1,
                }),
            ));
        }
        if step == 612 {
            events.push(at(
                step,
                Event::Warning(Warning {
                    step: Some(step),
                    message: "gradient norm 41.8 is 20 times its mean; the update was clipped"
                        .into(),
                }),
            ));
        }
    }
    if shape.ended {
        let seconds = 4.0 + shape.steps as f64 * SECONDS_PER_STEP;
        let ended = RunEnded {
            step: shape.steps,
            reason: EndReason::Completed,
            seconds,
            ..RunEnded::default()
        };
        events.push(at(shape.steps, Event::RunEnded(ended)));
    }
    events
}

/// The time of the newest event and a little more.
pub fn now(shape: Shape) -> f64 {
    START + 4.0 + shape.steps as f64 * SECONDS_PER_STEP + 1.0
}

pub fn started(shape: Shape) -> Event {
    Event::RunStarted(Box::new(RunStarted {
        config: json!({
            "run": {"dir": "runs/posters-notellm2", "seed": shape.seed},
            "backend": {"device": "flex", "dtype": "f32"},
            "model": {
                "variant": "notellm2",
                "llm": {"family": "llama", "hidden_size": 256, "layers": LAYERS},
                "fusion": {"kind": "vector"}
            },
            "objective": {"kind": "one_tower", "temperature_logit": 3.0, "temperature": null},
            "train": {"batch_pairs": 16, "learning_rate": 3e-4, "warmup_ratio": 0.1}
        }),
        device: "flex (2 threads)".into(),
        versions: [("mlrm", "0.1.0"), ("burn", "0.22.1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        total_steps: shape.total_steps,
        train_pairs: 24_180,
        notes: 3255,
        parameters_total: 28_400_000,
        parameters_trained: 17_100_000,
        resumed_from_step: None,
        feature_cache: None,
    }))
}

fn train_step(shape: Shape, step: u64) -> TrainStep {
    let (x, total) = (step as f64, shape.total_steps as f64);
    let seed = shape.seed * 1000;
    let fall = (-x / (total * 0.18)).exp();
    let multimodal = 1.05 + 0.07 * shape.seed as f64 + 2.3 * fall + 0.22 * noise(seed, step);
    let visual = 1.9 + 1.4 * (-x / (total * 0.3)).exp() + 0.25 * noise(seed + 1, step);
    let spike = if step == 612 { 39.0 } else { 0.0 };
    TrainStep {
        step,
        epoch: x / 1511.0,
        loss: 0.9 * multimodal + 0.1 * visual,
        loss_multimodal: multimodal,
        loss_visual: Some(visual),
        learning_rate: 3e-4
            * (x / (0.1 * total))
                .min((total - x) / (0.9 * total))
                .max(0.0),
        temperature_logit: 3.0 + 0.6 * (1.0 - fall),
        gate_mean: Some(0.5 + 0.14 * (1.0 - fall) + 0.01 * noise(seed + 2, step)),
        gradient_norm: 1.6 + 2.5 * fall + 0.5 * noise(seed + 3, step) + spike,
        notes_per_second: 25.6 + 1.5 * noise(seed + 4, step),
        seconds_by_phase: [
            ("data", 0.02),
            ("vision", 0.21),
            ("connector", 0.08),
            ("llm", 0.31),
            ("backward", 0.52),
            ("optimiser", 0.11),
        ]
        .map(|(phase, seconds)| (phase.to_owned(), seconds))
        .into(),
        pictures_encoded: Some(32),
        transfers: None,
    }
}

fn system(step: u64) -> Event {
    Event::System(System {
        step,
        host_memory_bytes: 3_400_000_000 + step * 10_000,
        host_memory_total_bytes: 16_700_000_000,
        host_cpu_percent: 91.0 + 6.0 * noise(5, step),
        device_memory_bytes: Some(2_100_000_000),
        device_use_percent: Some(84.0),
    })
}

fn gate_histogram(shape: Shape, step: u64) -> Event {
    let done = step as f64 / shape.total_steps as f64;
    let (center, width) = (0.5 + 0.16 * done, 0.07 + 0.13 * done);
    let counts = std::array::from_fn(|bin| {
        let middle = (bin as f64 + 0.5) / GATE_BINS as f64;
        (2000.0 * (-((middle - center) / width).powi(2)).exp()) as u64
    });
    Event::GateHistogram(GateHistogram { step, counts })
}

fn layers(shape: Shape, step: u64, strength: f64) -> Vec<ModalityShares> {
    let done = step as f64 / shape.total_steps as f64;
    (0..LAYERS)
        .map(|layer| {
            let depth = layer as f64 / (LAYERS - 1) as f64;
            let visual = strength * (0.15 + 0.6 * done) * (0.4 + depth * (1.6 - depth));
            let text = 0.9 - 0.35 * depth;
            let other = 0.5 * (-3.0 * depth).exp() + 0.06;
            [visual, text, other].map(|share| share * 1e-3 * (1.0 + 0.05 * noise(9, layer as u64)))
        })
        .collect()
}

fn saliency(shape: Shape, step: u64) -> Event {
    let layers = layers(shape, step, 1.0);
    Event::Saliency(Saliency {
        step,
        formula: "abs_then_sum".into(),
        layers,
        seconds: 1.7,
    })
}

fn metrics(recall: f64) -> Metrics {
    let mut metrics = Metrics::new();
    for (k, factor) in [(1, 0.16), (10, 1.0), (100, 3.4)] {
        let recall = recall * factor;
        metrics.insert(format!("recall@{k}"), recall);
        metrics.insert(format!("recall@{k}:low"), recall * 0.93);
        metrics.insert(format!("recall@{k}:high"), recall * 1.07);
        metrics.insert(format!("ndcg@{k}"), recall * 0.55);
        metrics.insert(format!("mrr@{k}"), recall * 0.42);
    }
    metrics
}

fn slices(recall: f64) -> Slices {
    [
        ("all", 1.0),
        ("short_query", 0.8),
        ("long_query", 1.1),
        ("short_target", 0.85),
        ("animation", 1.5),
    ]
    .map(|(name, factor)| (name.to_owned(), metrics(recall * factor)))
    .into()
}

fn evaluation(shape: Shape, step: u64) -> Event {
    let rise = 1.0 - (-(step as f64) / (shape.total_steps as f64 * 0.25)).exp();
    let recall = 0.012 + (0.105 - 0.008 * shape.seed as f64) * rise;
    Event::Evaluation(Evaluation {
        step,
        split: Split::Validation,
        pool: 3255,
        queries: 412,
        slices: slices(recall),
        baselines: [
            ("bm25", 0.0253),
            ("popularity", 0.018),
            ("random", 0.0031),
            ("text_only", 0.074 * rise),
            ("image_only", 0.041 * rise),
        ]
        .map(|(name, recall)| (name.to_owned(), slices(recall)))
        .into(),
        uniformity: Some(-1.2 - 1.9 * rise),
        alignment: Some(1.1 - 0.6 * rise),
        ..Evaluation::default()
    })
}
