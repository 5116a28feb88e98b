//! The saliency probe of a run: a fixed set of notes, measured every so many steps within a budget.

use std::time::Instant;

use mlrm_config::TrainSettings;
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::NoteEncoder;
use mlrm_data::split::Pair;
use mlrm_events::{AttentionMass, Event, Saliency};
use mlrm_model::embedder::{Embedder, Embeddings};
use mlrm_model::saliency::{Formula, attention_mass, mean_over_notes, saliency};

use crate::encode::{pixels, token_batch};
use crate::error::TrainError;
use crate::objective::{Exclusions, Objective};

/// Measures modality saliency on a fixed set of pairs.
pub struct SaliencyProbe {
    batch: NoteBatch,
    every_steps: usize,
    max_ratio: f64,
    /// Seconds that probes have taken.
    pub spent: f64,
    last_cost: f64,
}

impl SaliencyProbe {
    /// A probe over the first of `pairs`; `None` where the variant has no visual tokens or probing is
    /// off.
    pub fn new(
        encoder: &NoteEncoder,
        pairs: &[Pair],
        settings: &TrainSettings,
    ) -> Result<Option<Self>, TrainError> {
        let count = (settings.saliency_notes / 2).min(pairs.len());
        let image = encoder.prompts().style().has_image() && encoder.prompts().style().has_text();
        if settings.saliency_every_steps == 0 || count < 2 || !image {
            return Ok(None);
        }
        let pairs = &pairs[..count];
        let queries = pairs.iter().map(|pair| pair.query);
        let rows: Vec<u32> = queries.chain(pairs.iter().map(|pair| pair.target)).collect();
        Ok(Some(Self {
            batch: encoder.encode_rows(&rows)?,
            every_steps: settings.saliency_every_steps,
            max_ratio: settings.saliency_max_ratio,
            spent: 0.0,
            last_cost: 0.0,
        }))
    }

    /// Whether the probe is due after `step`, `elapsed` seconds into the run. A probe that would go
    /// over its share of the run time is put off to the next turn.
    pub fn due(&self, step: usize, elapsed: f64) -> bool {
        let turn = step.is_multiple_of(self.every_steps);
        turn && self.spent + self.last_cost <= self.max_ratio * elapsed.max(self.last_cost / self.max_ratio)
    }

    /// Measures and returns the event.
    pub fn measure(
        &mut self,
        step: usize,
        embedder: &Embedder,
        objective: &Objective,
    ) -> Result<Event, TrainError> {
        let start = Instant::now();
        let scores = batch_saliency(embedder, objective, self.batch.clone(), Formula::PUBLISHED)?;
        self.last_cost = start.elapsed().as_secs_f64();
        self.spent += self.last_cost;
        Ok(Event::Saliency(Saliency {
            step: step as u64,
            formula: "abs_then_sum".into(),
            layers: mean_over_notes(&scores),
            seconds: self.last_cost,
        }))
    }

    /// The cheaper probe: attention without its gradient.
    pub fn measure_mass(&mut self, step: usize, embedder: &Embedder) -> Result<Event, TrainError> {
        let start = Instant::now();
        let mut batch = self.batch.clone();
        let inference = embedder.inference();
        let device = inference.head.temperature.val().device();
        let features = pixels(&mut batch, &device).and_then(|p| embedder.encode_vision(p));
        let tokens = token_batch(&batch);
        let scores = attention_mass(&inference, &embedder.config, &tokens, features)?;
        self.spent += start.elapsed().as_secs_f64();
        Ok(Event::AttentionMass(AttentionMass {
            step: step as u64,
            layers: mean_over_notes(&scores),
        }))
    }
}

/// Saliency scores of every note of a batch of pairs, `[notes][layers]` of `[S_v, S_t, S_o]`.
pub fn batch_saliency(
    embedder: &Embedder,
    objective: &Objective,
    mut batch: NoteBatch,
    formula: Formula,
) -> Result<Vec<Vec<[f64; 3]>>, TrainError> {
    let temperature = embedder.core.head.temperature.val();
    let device = temperature.device().without_autodiff();
    let features = pixels(&mut batch, &device).and_then(|p| embedder.encode_vision(p));
    let tokens = token_batch(&batch);
    let exclusions = Exclusions::diagonal(batch.notes);
    let result = saliency(
        &embedder.core,
        &embedder.config,
        &tokens,
        features,
        formula,
        |multimodal| {
            let alone = Embeddings {
                multimodal,
                visual: None,
                gate: None,
            };
            objective.losses(&alone, temperature, &exclusions).total
        },
    )?;
    Ok(result.scores)
}
