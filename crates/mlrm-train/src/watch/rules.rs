//! When a run is warned of: each cause once, and again only after it was over.

#[cfg(test)]
mod tests;

use mlrm_config::{ObjectiveSettings, RunConfig};
use mlrm_events::{EmbeddingProbe, Evaluation, Interval, Metrics, ModalityShares, Saliency};

use super::Watched;
use crate::step::StepStats;

/// Share of the steps over which losses are averaged, and its bounds.
const WINDOW_SHARE: usize = 20;
const SHORTEST_WINDOW: usize = 20;
const LONGEST_WINDOW: usize = 100;

/// The loss counts as that of chance from this share of it on, and no more below the second.
const AT_CHANCE: f64 = 0.98;
const OFF_CHANCE: f64 = 0.9;

/// Embeddings have collapsed above this mean cosine of unrelated notes or below this effective rank,
/// and no more on the other side of the second.
const COLLAPSED_COSINE: [f64; 2] = [0.99, 0.97];
const COLLAPSED_RANK: [f64; 2] = [1.5, 2.0];

/// The picture is ignored where its share is below the first, and no more above the second.
const IGNORED_SHARE: [f64; 2] = [0.02, 0.04];

/// CLIP's bound of t: logits of at most 100.
const MOST_TEMPERATURE_LOGIT: f64 = 4.605_170_185_988_092;
/// Below this all logits lie within 1 of 0.
const LEAST_TEMPERATURE_LOGIT: f64 = 0.0;
/// How far t must have moved from its beginning, and come back to be in bounds again.
const TEMPERATURE_MARGIN: f64 = 0.1;

/// Probes in a row that must agree.
const PROBES: usize = 2;

/// What is watched in a run.
pub(crate) struct Watch {
    warmup_steps: usize,
    window: usize,
    learning_rate: f64,
    /// t at the beginning; `None` where it does not learn or is bounded.
    initial_temperature_logit: Option<f64>,
    watched: Watched,
}

impl Watch {
    pub(crate) fn new(config: &RunConfig, total_steps: usize) -> Self {
        let window = (total_steps / WINDOW_SHARE).clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        let warmup_steps = (config.train.warmup_ratio * total_steps as f64).round() as usize;
        Self {
            warmup_steps,
            window,
            learning_rate: config.train.learning_rate,
            initial_temperature_logit: free_temperature(&config.objective),
            watched: Watched::default(),
        }
    }

    /// Forgets what a run that goes back to a checkpoint saw since, but not what it told.
    pub(crate) fn forget(&mut self) {
        self.watched.losses.clear();
    }

    /// What was seen and told so far.
    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Goes on from what was seen and told before.
    pub(crate) fn recall(&mut self, mut watched: Watched) {
        // Another number of steps may have made the windows shorter.
        let old = watched.losses.len().saturating_sub(2 * self.window);
        watched.losses.drain(..old);
        self.watched = watched;
    }

    /// What a step gives to say.
    pub(crate) fn step(&mut self, step: usize, stats: &StepStats) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.loss(step, stats));
        warnings.extend(self.temperature(stats.temperature_logit));
        warnings
    }

    /// The loss stays at that of chance: its mean over a window of steps after the warm-up is within 2 %
    /// of it, and has not fallen by 2 % from the window before.
    fn loss(&mut self, step: usize, stats: &StepStats) -> Option<String> {
        if step <= self.warmup_steps || !stats.updated {
            return None;
        }
        let losses = &mut self.watched.losses;
        if losses.len() == 2 * self.window {
            losses.pop_front();
        }
        losses.push_back((stats.loss_multimodal, stats.chance_loss));
        if losses.len() < 2 * self.window {
            return None;
        }
        let mean = |from: usize, of: fn(&(f64, f64)) -> f64| {
            let steps = losses.iter().skip(from).take(self.window);
            steps.map(of).sum::<f64>() / self.window as f64
        };
        let (before, now) = (mean(0, |s| s.0), mean(self.window, |s| s.0));
        let chance = mean(self.window, |s| s.1);
        let stays = now >= AT_CHANCE * chance && now >= AT_CHANCE * before;
        let over = now < OFF_CHANCE * chance;
        if !self.watched.chance.rings(stays, over, 1) {
            return None;
        }
        Some(format!(
            "the loss stays at log N: its mean over the last {} steps is {now:.4}, that of embeddings \
             which tell nothing apart is {chance:.4}, the logarithm of {:.0} candidates. Try a higher \
             train.learning_rate (now {:e}) or a longer run; look at the pairs with `mlrm data check`: \
             partners must share something that notes show",
            self.window,
            chance.exp(),
            self.learning_rate,
        ))
    }

    fn temperature(&mut self, t: f64) -> Option<String> {
        let initial = self.initial_temperature_logit?;
        let (most, least) = (
            MOST_TEMPERATURE_LOGIT.max(initial + TEMPERATURE_MARGIN),
            LEAST_TEMPERATURE_LOGIT.min(initial - TEMPERATURE_MARGIN),
        );
        let inside = t < most - TEMPERATURE_MARGIN && t > least + TEMPERATURE_MARGIN;
        if !self
            .watched
            .temperature
            .rings(t > most || t < least, inside, 1)
        {
            return None;
        }
        let factor = t.exp();
        Some(match t > most {
            true => format!(
                "the temperature runs off: its logit is {t:.3}, so that logits are cosines times \
                 {factor:.0}; it began at {initial:.3}, and CLIP bounds it at ln 100 = 4.605. Set \
                 objective.max_temperature_logit = 4.605, lower train.learning_rate, or set \
                 objective.learn_temperature = false"
            ),
            false => format!(
                "the temperature runs off: its logit is {t:.3}, so that logits are cosines times \
                 {factor:.2} and no candidate stands out; it began at {initial:.3}. Lower \
                 train.learning_rate, or set objective.learn_temperature = false"
            ),
        })
    }

    /// What a probe of the embeddings gives to say.
    pub(crate) fn probe(&mut self, probe: &EmbeddingProbe) -> Vec<String> {
        if probe.step as usize <= self.warmup_steps {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let (cosine, rank) = (probe.negative_similarity, probe.effective_rank);
        let collapsed = cosine > COLLAPSED_COSINE[0] || rank < COLLAPSED_RANK[0];
        let apart = cosine < COLLAPSED_COSINE[1] && rank > COLLAPSED_RANK[1];
        if self.watched.collapse.rings(collapsed, apart, PROBES) {
            warnings.push(format!(
                "the embeddings have collapsed: unrelated notes of the probe have a mean cosine of \
                 {cosine:.3} (partners {:.3}), and {} notes use {rank:.2} directions (effective rank). \
                 Try a lower train.learning_rate (train.connector_learning_rate for a new connector alone) or a \
                 longer train.warmup_ratio, more negatives \
                 (train.batch_pairs), or a higher objective.temperature_logit",
                probe.positive_similarity, probe.notes
            ));
        }
        if let Some(share) = probe.picture_share
            && !collapsed
            && self.ignores(share)
        {
            warnings.push(format!(
                "the picture is ignored: with the pictures of other notes, embeddings of the probe move \
                 by {:.2} % of the distance between unrelated notes. {TRY_PICTURES}",
                100.0 * share
            ));
        }
        warnings
    }

    /// What a probe of saliency gives to say.
    pub(crate) fn saliency(&mut self, saliency: &Saliency) -> Option<String> {
        let share = visual_share(&saliency.layers)?;
        if (saliency.step as usize) <= self.warmup_steps || share >= IGNORED_SHARE[0] {
            return None;
        }
        if self.watched.picture.told {
            return None;
        }
        self.watched.picture.told = true;
        Some(format!(
            "the picture is ignored: visual tokens have {:.2} % of the saliency, mean over the layers. \
             {TRY_PICTURES}",
            100.0 * share
        ))
    }

    fn ignores(&mut self, share: f64) -> bool {
        self.watched
            .picture
            .rings(share < IGNORED_SHARE[0], share > IGNORED_SHARE[1], PROBES)
    }
}

const TRY_PICTURES: &str = "Look whether pictures tell anything here (`mlrm saliency`, the table's \
    `text_only`); try a stronger vision encoder or more visual tokens (model.connector.queries), late \
    fusion (model.variant), or a higher objective.visual_weight; where pictures say nothing, \
    model.variant = \"text\" is cheaper";

/// t at the beginning, where it may run off.
fn free_temperature(objective: &ObjectiveSettings) -> Option<f64> {
    let free = objective.learn_temperature && objective.max_temperature_logit.is_none();
    free.then(|| objective.initial_temperature_logit())
}

/// The share of the picture in the saliency of a layer, mean over the layers.
fn visual_share(layers: &[ModalityShares]) -> Option<f64> {
    let shares: Vec<f64> = layers
        .iter()
        .map(|[visual, text, other]| visual / (visual + text + other))
        .filter(|share| share.is_finite())
        .collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

/// A model whose recall is so many times that of chance has learnt something.
const LEARNT: f64 = 1.2;

/// What the final table says of pictures: that the same model ranks as well by the text alone, within
/// the 95 % interval, where it ranks better than by chance at all.
pub(crate) fn ignored_in_test(evaluation: &Evaluation, cutoffs: &[usize]) -> Option<String> {
    let k = cutoffs.iter().copied().min_by_key(|k| k.abs_diff(10))?;
    let key = format!("recall@{k}");
    let of = |metrics: &Metrics, name: &str| metrics.get(name).copied();
    let all = evaluation.slices.get("all")?;
    let baseline = |name: &str| of(evaluation.baselines.get(name)?.get("all")?, &key);
    let [low, _] = Interval::bound_names(&key);
    let (model, low) = (of(all, &key)?, of(all, &low)?);
    let text = baseline("text_only")?;
    let learnt = baseline("random").is_none_or(|random| model.max(text) > LEARNT * random);
    if !learnt || text < low {
        return None;
    }
    Some(format!(
        "the picture is ignored: it adds nothing to the retrieval of the test notes, Recall@{k} is {:.2} % with it and \
         {:.2} % without (the 95 % interval of the first begins at {:.2} %). {TRY_PICTURES}",
        100.0 * model,
        100.0 * text,
        100.0 * low
    ))
}
