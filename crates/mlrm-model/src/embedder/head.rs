//! What makes an embedding of a hidden state: connector, late fusion, projection, normalisation.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{EmbedderConfig, EmbedderTrace, Embeddings};
use crate::connector::{Connector, ConnectorOutput};
use crate::error::ModelError;
use crate::fusion::Gate;
use crate::nn::{Linear, linear, zeros};
use crate::transfer::upload;

/// Everything but the LLM and the vision encoder; field names are those of the authors' released
/// checkpoints.
#[derive(Module, Debug)]
pub struct Head {
    /// From vision features to visual tokens.
    pub connector: Option<Connector>,
    /// W_f: from the picture's vector to LLM width, `[v, d]`.
    pub mm_projector_latefusion: Option<Linear>,
    /// The late-fusion gate.
    pub gate: Option<Gate>,
    /// The last projection, `[d, e]`.
    pub linear: Option<Linear>,
    /// t: logits are cosine · exp(t), `[1]`.
    pub temperature: Param<Tensor<1>>,
}

/// The stages of a pass at one pooled position.
#[derive(Debug, Clone)]
pub struct PooledStages {
    /// Before the gate, `[notes, d]`.
    pub pooled: Tensor<2>,
    /// Gate values.
    pub gate_z: Option<Tensor<2>>,
    /// After the gate.
    pub fused: Tensor<2>,
    /// After the last projection.
    pub projected: Tensor<2>,
}

/// What late fusion reads of a batch.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// u = W_f c, `[pictures, d]`.
    pub(super) values: Tensor<2>,
    /// The rows of the batch that they belong to; `None` for all.
    pub(super) rows: Option<Vec<usize>>,
}

impl Head {
    /// A head of zeros; see [`crate::weights`] for its values.
    pub(crate) fn new(config: &EmbedderConfig, device: &Device) -> Result<Self, ModelError> {
        let width = config.llm.word_embed_proj_dim;
        let vision_width = config.vision.as_ref().map_or(0, |v| v.hidden_size);
        let connector = config.connector.as_ref();
        let connector = connector.map(|c| Connector::new(c, &config.projector, width, device));
        let fusion = config.fusion.as_ref();
        Ok(Self {
            connector: connector.transpose()?,
            mm_projector_latefusion: fusion.map(|_| linear(vision_width, width, false, device)),
            gate: fusion.map(|f| Gate::new(f, width, device)),
            linear: (config.head_dim > 0).then(|| linear(width, config.head_dim, false, device)),
            temperature: zeros([1], device),
        })
    }

    /// Visual tokens from the features that the connector reads, `[notes, V, d]`, and what belongs to them.
    pub(super) fn visual_tokens(
        &self,
        features: Tensor<3>,
        trace: &mut Option<&mut EmbedderTrace>,
    ) -> Option<ConnectorOutput> {
        let output = self.connector.as_ref()?.forward(features);
        if let Some(trace) = trace {
            trace.qformer_output = output.qformer.clone();
            trace.visual_tokens = Some(output.visual_tokens.clone());
        }
        Some(output)
    }

    /// Embeddings from the pooled states, `[notes, 1 or 2, d]`, and the stages of each position.
    pub(super) fn embeddings(
        &self,
        pooled: Tensor<3>,
        picture: Option<&Picture>,
    ) -> (Embeddings, Vec<PooledStages>) {
        let [notes, count, width] = pooled.dims();
        let at = |index: usize| pooled.clone().narrow(1, index, 1).reshape([notes, width]);
        let stages: Vec<PooledStages> = (0..count)
            .map(|index| self.stages(at(index), picture))
            .collect();
        let normalised = |index: usize| stages.get(index).map(|s| normalise(s.projected.clone()));
        let embeddings = Embeddings {
            multimodal: normalise(stages[0].projected.clone()),
            visual: normalised(1),
            gate: stages[0].gate_z.clone(),
        };
        (embeddings, stages)
    }

    /// Gate (of rows with a picture), projection, normalisation of one pooled state.
    fn stages(&self, pooled: Tensor<2>, picture: Option<&Picture>) -> PooledStages {
        let (fused, gate_z) = match (&self.gate, picture) {
            (Some(gate), Some(picture)) => {
                let (fused, z) = picture.fuse(gate, pooled.clone());
                (fused, Some(z))
            }
            _ => (pooled.clone(), None),
        };
        PooledStages {
            projected: self.project(fused.clone()),
            pooled,
            gate_z,
            fused,
        }
    }

    pub(super) fn project(&self, fused: Tensor<2>) -> Tensor<2> {
        match &self.linear {
            Some(linear) => linear.forward(fused),
            None => fused,
        }
    }
}

impl Picture {
    /// The same rows with other values.
    pub(super) fn map(self, values: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            values: values(self.values),
            rows: self.rows,
        }
    }

    /// `pooled` `[notes, d]` with the rows that have a picture put through the gate, and the gate's
    /// values for these.
    fn fuse(&self, gate: &Gate, pooled: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let Some(rows) = &self.rows else {
            return gate.forward(pooled, self.values.clone());
        };
        let notes = pooled.dims()[0];
        let index = |rows: &[usize]| rows.iter().map(|&row| row as i64).collect();
        let states = select_rows(pooled.clone(), index(rows));
        let (fused, z) = gate.forward(states, self.values.clone());
        let mut sources: Vec<usize> = (0..notes).collect();
        for (place, &row) in rows.iter().enumerate() {
            sources[row] = notes + place;
        }
        let table = Tensor::cat(vec![pooled, fused], 0);
        (select_rows(table, index(&sources)), z)
    }
}

/// The rows of `table` `[rows, width]` at `index`, `[count, width]`.
pub(super) fn select_rows(table: Tensor<2>, index: Vec<i64>) -> Tensor<2> {
    let count = index.len();
    let device = table.device();
    table.select(0, upload(TensorData::new(index, [count]), &device))
}

/// `x / max(‖x‖₂, 1e-12)` by rows, in f32, as `torch.nn.functional.normalize`: a row of zeros stays
/// zeros, and its gradient finite.
pub fn normalise(x: Tensor<2>) -> Tensor<2> {
    const EPSILON: f32 = 1e-12;
    let x = x.cast(DType::F32);
    // Bounded before the root, whose slope at zero is infinite.
    let squares = x.clone().square().sum_dim(1);
    x / squares.clamp_min(EPSILON * EPSILON).sqrt()
}
