//! Metrics of Burn: of a batch of pairs, and of a whole pool of notes.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use mlrm_eval::{Embeddings, Metric as Figure, Task, all_notes, evaluate, geometry};

use crate::learner::{EmbeddedNotes, PairFigures};

/// What is told of every training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Temperature,
    Gate,
}

/// A number of every training step.
#[derive(Clone)]
pub struct PairMetric {
    told: Told,
    state: NumericMetricState,
    /// Whether a batch had it.
    any: bool,
}

impl PairMetric {
    /// τ = exp(−t): logits are cosines over it.
    pub fn temperature() -> Self {
        Self::new(Told::Temperature)
    }

    /// Mean of the fusion gate: 1 keeps the language model's state, 0 the picture. Not available for models
    /// without one.
    pub fn gate() -> Self {
        Self::new(Told::Gate)
    }

    fn new(told: Told) -> Self {
        Self {
            told,
            state: NumericMetricState::new(),
            any: false,
        }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(4)
    }
}

impl Metric for PairMetric {
    type Input = PairFigures;

    fn name(&self) -> MetricName {
        let name = match self.told {
            Told::Temperature => "Temperature",
            Told::Gate => "Gate mean",
        };
        Arc::new(name.into())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: false,
        }
        .into()
    }

    fn update(
        &mut self,
        item: &PairFigures,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = match self.told {
            Told::Temperature => Some(item.temperature_logit.clone().neg().exp()),
            Told::Gate => item.gate_mean.clone(),
        };
        let Some(value) = value else {
            return Ok(SerializedEntry::not_available(None));
        };
        self.any = true;
        self.state.update(value.try_into_scalar::<f64>()?, 1);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(match self.any {
            true => self.state.compute_final(self.format()),
            false => SerializedEntry::not_available(None),
        })
    }

    fn clear(&mut self) {
        self.state.reset();
        self.any = false;
    }
}

impl Numeric for PairMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.any.then(|| self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.any.then(|| self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// What is measured of a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measured {
    Ranks(Figure),
    Uniformity,
    Alignment,
}

/// A number of all notes of a task, known once all of them were embedded: at the end of an epoch. As
/// `mlrm eval` computes it ([`mlrm_eval`]): Recall and the others are fractions, 0 to 1.
#[derive(Clone)]
pub struct PoolMetric {
    task: Arc<Task>,
    measured: Measured,
    rows: Vec<u32>,
    /// `[rows, e]`, row-major.
    values: Vec<f32>,
    computed: f64,
}

impl PoolMetric {
    /// Share of the related notes within the first `k`.
    pub fn recall(task: Arc<Task>, k: usize) -> Self {
        Self::new(task, Measured::Ranks(Figure::Recall(k)))
    }

    /// Discounted gain of the related notes within the first `k`, over the best possible one.
    pub fn ndcg(task: Arc<Task>, k: usize) -> Self {
        Self::new(task, Measured::Ranks(Figure::Ndcg(k)))
    }

    /// 1 / rank of the first related note.
    pub fn mrr(task: Arc<Task>) -> Self {
        Self::new(task, Measured::Ranks(Figure::Mrr))
    }

    /// `log E exp(−2‖x − y‖²)` over pairs of notes: lower is more evenly spread.
    pub fn uniformity(task: Arc<Task>) -> Self {
        Self::new(task, Measured::Uniformity)
    }

    /// `E ‖x − y‖²` over related notes: lower is closer together.
    pub fn alignment(task: Arc<Task>) -> Self {
        Self::new(task, Measured::Alignment)
    }

    fn new(task: Arc<Task>, measured: Measured) -> Self {
        Self {
            task,
            measured,
            rows: Vec::new(),
            values: Vec::new(),
            computed: f64::NAN,
        }
    }

    /// The figure; NaN where a note of the task was not embedded, or its embedding is not finite.
    fn measure(&self) -> f64 {
        self.in_order()
            .and_then(|embeddings| match self.measured {
                Measured::Ranks(figure) => {
                    let cutoffs = match figure {
                        Figure::Recall(k) | Figure::Ndcg(k) => vec![k],
                        _ => Vec::new(),
                    };
                    let slices = evaluate(&self.task, &embeddings, &cutoffs, &[all_notes()]);
                    let all = slices.ok()?.swap_remove("all")?;
                    all.values.get(&figure.name()).copied()
                }
                Measured::Uniformity => Some(geometry(&self.task, &embeddings).ok()?.uniformity),
                Measured::Alignment => Some(geometry(&self.task, &embeddings).ok()?.alignment),
            })
            .unwrap_or(f64::NAN)
    }

    /// The embeddings in the order of the task's notes.
    fn in_order(&self) -> Option<Embeddings> {
        let ids = self.task.ids();
        let width = self.values.len().checked_div(self.rows.len())?;
        let width = Some(width).filter(|&width| width > 0)?;
        let mut ordered = vec![f32::NAN; ids.len() * width];
        for (vector, &row) in self.values.chunks_exact(width).zip(&self.rows) {
            let place = ordered.chunks_exact_mut(width).nth(row as usize)?;
            place.copy_from_slice(vector);
        }
        Embeddings::new(ids.to_vec(), width, ordered).ok()
    }
}

impl Metric for PoolMetric {
    type Input = EmbeddedNotes;

    fn name(&self) -> MetricName {
        let name = match self.measured {
            Measured::Ranks(figure) => figure.name(),
            Measured::Uniformity => "uniformity".into(),
            Measured::Alignment => "alignment".into(),
        };
        Arc::new(name)
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: matches!(self.measured, Measured::Ranks(_)),
        }
        .into()
    }

    fn update(
        &mut self,
        item: &EmbeddedNotes,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let values = item.embeddings.clone().try_into_vec_as::<f32>()?;
        self.rows.extend_from_slice(&item.rows);
        self.values.extend(values);
        Ok(SerializedEntry::not_available(None))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.computed = self.measure();
        let formatted = format!("epoch {:.4}", self.computed);
        let serialized = self.final_value().serialize();
        Ok(SerializedEntry::new(formatted, serialized))
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.values.clear();
        self.computed = f64::NAN;
    }
}

impl Numeric for PoolMetric {
    fn value(&self) -> Option<NumericEntry> {
        None
    }

    fn running_value(&self) -> Option<NumericEntry> {
        None
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.computed)
    }
}
