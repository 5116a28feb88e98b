//! The probes of a run: modality saliency, and attention mass between its turns, on a fixed set of
//! notes and within a share of the run time.

use std::time::Instant;

use mlrm_config::TrainSettings;
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::NoteEncoder;
use mlrm_data::split::Pair;
use mlrm_events::{AttentionMass, Event, Saliency};
use mlrm_model::embedder::Embedder;
use mlrm_model::saliency::{Formula, attention_mass, mean_over_notes, saliency};

use crate::encode::token_batch;
use crate::error::TrainError;
use crate::features::vision_features;
use crate::objective::Objective;

/// Measures modality saliency and attention mass on a fixed set of pairs.
pub struct SaliencyProbe {
    batch: NoteBatch,
    turns: Turns,
}

impl SaliencyProbe {
    /// A probe over the first of `pairs`; `None` where the variant has no visual tokens or probing is
    /// off.
    ///
    /// # Errors
    /// Notes that cannot be encoded.
    pub fn new(
        encoder: &NoteEncoder,
        pairs: &[Pair],
        settings: &TrainSettings,
    ) -> Result<Option<Self>, TrainError> {
        let shown = |pair: &&Pair| both_show_pictures(encoder, pair);
        let most = settings.saliency_notes / 2;
        let pairs: Vec<Pair> = pairs.iter().filter(shown).take(most).copied().collect();
        let count = pairs.len();
        let image = encoder.prompts().style().has_image() && encoder.prompts().style().has_text();
        if settings.saliency_every_steps == 0 || count < 2 || !image {
            return Ok(None);
        }
        let queries = pairs.iter().map(|pair| pair.query);
        let rows: Vec<u32> = queries
            .chain(pairs.iter().map(|pair| pair.target))
            .collect();
        Ok(Some(Self {
            batch: encoder.encode_rows(&rows)?,
            turns: Turns::new(settings.saliency_every_steps, settings.saliency_max_ratio),
        }))
    }

    /// Measures what is due after `step`, `elapsed` seconds into the run, and returns its event.
    ///
    /// # Errors
    /// As [`batch_saliency`].
    pub fn measure_due(
        &mut self,
        step: usize,
        elapsed: f64,
        embedder: &Embedder,
        objective: &Objective,
    ) -> Result<Option<Event>, TrainError> {
        let Some(turn) = self.turns.due(step, elapsed) else {
            return Ok(None);
        };
        let start = Instant::now();
        let batch = self.batch.clone();
        let scores = match turn {
            Turn::Saliency => batch_saliency(embedder, objective, batch, Formula::PUBLISHED)?,
            Turn::AttentionMass => batch_attention_mass(embedder, batch)?,
        };
        let (step, layers) = (step as u64, mean_over_notes(&scores));
        let seconds = start.elapsed().as_secs_f64();
        self.turns.spend(turn, seconds);
        Ok(Some(match turn {
            Turn::Saliency => Event::Saliency(Saliency {
                step,
                formula: "abs_then_sum".into(),
                layers,
                seconds,
            }),
            Turn::AttentionMass => Event::AttentionMass(AttentionMass {
                step,
                layers,
                seconds,
            }),
        }))
    }
}

/// Whether there is a picture to read in both notes of a pair.
pub fn both_show_pictures(encoder: &NoteEncoder, pair: &Pair) -> bool {
    encoder.shows_picture(pair.query) && encoder.shows_picture(pair.target)
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Attention times its gradient (method §4).
    Saliency,
    /// Attention alone, in the middle between two turns of saliency.
    AttentionMass,
}

/// When a probe runs: at its turn, where it keeps the time of all probes within their share of the
/// run's. A probe that would go over is put off to its next turn.
#[derive(Debug)]
struct Turns {
    every_steps: usize,
    max_ratio: f64,
    /// Seconds of all probes so far.
    spent: f64,
    /// Seconds of the last probe of either kind; `None` before the first.
    saliency_cost: Option<f64>,
    mass_cost: Option<f64>,
}

impl Turns {
    fn new(every_steps: usize, max_ratio: f64) -> Self {
        Self {
            every_steps,
            max_ratio,
            spent: 0.0,
            saliency_cost: None,
            mass_cost: None,
        }
    }

    /// The probe that is due after `step`, `elapsed` seconds into the run.
    fn due(&self, step: usize, elapsed: f64) -> Option<Turn> {
        let room = self.max_ratio * elapsed - self.spent;
        let position = step % self.every_steps;
        if position == 0 {
            // What the first one costs is only known afterwards.
            let fits = self.saliency_cost.is_none_or(|cost| cost <= room);
            return (fits && self.max_ratio > 0.0).then_some(Turn::Saliency);
        }
        if position != self.every_steps / 2 {
            return None;
        }
        // Attention mass takes only what it leaves over for the next saliency, which comes first.
        let saliency = self.saliency_cost?;
        let mass = self.mass_cost.unwrap_or(saliency);
        (mass + saliency <= room).then_some(Turn::AttentionMass)
    }

    fn spend(&mut self, turn: Turn, seconds: f64) {
        self.spent += seconds;
        match turn {
            Turn::Saliency => self.saliency_cost = Some(seconds),
            Turn::AttentionMass => self.mass_cost = Some(seconds),
        }
    }
}

/// Attention mass of every note of a batch, `[notes][layers]` of the same three scores without the
/// gradient.
///
/// # Errors
/// Inputs that the model does not take; a device that fails.
pub fn batch_attention_mass(
    embedder: &Embedder,
    mut batch: NoteBatch,
) -> Result<Vec<Vec<[f64; 3]>>, TrainError> {
    let inference = embedder.inference();
    let features = vision_features(embedder, &mut batch)?;
    let tokens = token_batch(&batch);
    Ok(attention_mass(
        &inference,
        &embedder.config,
        &tokens,
        features,
    )?)
}

/// Saliency scores of every note of a batch of pairs, `[notes][layers]` of `[S_v, S_t, S_o]`.
///
/// # Errors
/// Inputs that the model does not take; a device that fails.
pub fn batch_saliency(
    embedder: &Embedder,
    objective: &Objective,
    mut batch: NoteBatch,
    formula: Formula,
) -> Result<Vec<Vec<[f64; 3]>>, TrainError> {
    let temperature = embedder.core.head.temperature.val();
    let features = vision_features(embedder, &mut batch)?;
    let tokens = token_batch(&batch);
    let result = saliency(
        &embedder.core,
        &embedder.config,
        &tokens,
        features,
        formula,
        |multimodal| objective.alone(multimodal, temperature),
    )?;
    Ok(result.scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of a run whose steps and probes take these seconds: what ran at which step, and the
    /// share of the time.
    fn simulated(steps: usize, seconds: f64, costs: (f64, f64)) -> (Vec<(usize, Turn)>, f64) {
        let mut turns = Turns::new(100, 0.03);
        let (mut elapsed, mut ran) = (0.0, Vec::new());
        for step in 1..=steps {
            elapsed += seconds;
            if let Some(turn) = turns.due(step, elapsed) {
                let cost = if turn == Turn::Saliency {
                    costs.0
                } else {
                    costs.1
                };
                turns.spend(turn, cost);
                elapsed += cost;
                ran.push((step, turn));
            }
        }
        (ran, turns.spent / elapsed)
    }

    #[test]
    fn cheap_probes_take_every_turn() {
        let (ran, share) = simulated(400, 0.5, (0.5, 0.2));
        use Turn::{AttentionMass, Saliency};
        let expected = [
            (100, Saliency),
            (150, AttentionMass),
            (200, Saliency),
            (250, AttentionMass),
            (300, Saliency),
            (350, AttentionMass),
            (400, Saliency),
        ];
        assert_eq!(ran, expected);
        assert!(share < 0.03);
    }

    #[test]
    fn dear_probes_keep_to_their_share_and_saliency_comes_first() {
        for (cost, mass) in [(2.0, 1.0), (9.0, 0.1), (40.0, 30.0)] {
            let (ran, share) = simulated(20_000, 0.5, (cost, mass));
            assert!(share <= 0.03, "{cost}: {share}");
            // A share that is hardly used would be no share either.
            assert!(share > 0.02, "{cost}: {share}");
            let saliency = ran
                .iter()
                .filter(|(_, turn)| *turn == Turn::Saliency)
                .count();
            // Without attention mass there would be room for as many.
            let most = (0.03 * 10_000.0 / cost).min(200.0);
            assert!(
                saliency as f64 >= 0.45 * most,
                "{cost}: {saliency} of {most}"
            );
        }
    }

    #[test]
    fn no_share_is_no_probe() {
        let turns = Turns::new(10, 0.0);
        assert_eq!((1..100).find_map(|step| turns.due(step, 1e9)), None);
        let every_step = Turns::new(1, 0.5);
        assert_eq!(every_step.due(1, 1.0), Some(Turn::Saliency));
    }
}
