//! Floating-point operations that a model needs, for the utilisation that benchmarks report.
//!
//! Counted are matrix products alone, a multiplication and an addition for each pair of operands, as
//! in PaLM (arXiv 2204.02311, appendix B): what the method needs, whatever a backend computes beside
//! it. Of the last decoder layer only the pooled positions are needed: its keys and values are those
//! of all positions, everything else is counted at the pooled ones. Attention counts every key, also
//! those that the causal mask hides.

use burn::module::Module;
use mlrm_model::connector::ConnectorConfig;
use mlrm_model::embedder::{Embedder, EmbedderConfig};
use mlrm_model::weights::each_parameter;

/// The sizes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Notes.
    pub notes: usize,
    /// Positions of the language model, visual tokens included (T).
    pub positions: usize,
}

/// Operations of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flops {
    /// From pixels and ids to embeddings.
    pub forward: f64,
    /// Gradients of activations and of the weights that learn.
    pub backward: f64,
}

/// A weight that is multiplied with, and by how many rows.
struct Product {
    elements: f64,
    rows: f64,
    /// Its gradient is needed.
    learns: bool,
    /// The gradient of what it is multiplied with is needed.
    passes: bool,
}

impl Flops {
    /// What a batch of `shape` needs of `embedder`.
    pub fn of(embedder: &Embedder, shape: BatchShape) -> Self {
        let (config, core) = (&embedder.config, &embedder.core);
        let mut sum = Self::default();
        if let Some(vision) = &embedder.vision {
            sum.forward += vision_forward(matrices(vision), config, shape.notes);
        }
        let head = matrices(&core.head);
        for matrix in &head {
            sum.add(head_product(matrix, config, shape));
        }
        let visual_path = config.connector.is_some();
        sum.add_attention(connector_attention(config, shape.notes), true);
        let llm = matrices(&core.llm);
        let learns = llm.iter().any(|matrix| matrix.learns);
        let layers = config.llm.num_hidden_layers;
        for matrix in llm {
            let rows = llm_rows(&matrix.path, config, shape);
            sum.add(Product {
                elements: matrix.elements,
                rows,
                learns: matrix.learns,
                passes: learns || visual_path,
            });
        }
        let width = config.llm.num_attention_heads * config.llm.head_dim;
        let queries = layers.saturating_sub(1) * shape.positions + pooled(config);
        let attention = attention(shape.notes, queries, shape.positions, width);
        sum.add_attention(attention, learns || visual_path);
        sum
    }

    fn add_attention(&mut self, forward: f64, passes: bool) {
        self.forward += forward;
        if passes {
            self.backward += 2.0 * forward;
        }
    }

    fn add(&mut self, product: Product) {
        let once = 2.0 * product.elements * product.rows;
        self.forward += once;
        let gradients = usize::from(product.learns) + usize::from(product.passes);
        self.backward += once * gradients as f64;
    }
}

/// Scores and weighted values of `queries` rows a note over `keys`, heads of `width` in all.
fn attention(notes: usize, queries: usize, keys: usize, width: usize) -> f64 {
    4.0 * notes as f64 * queries as f64 * keys as f64 * width as f64
}

/// Positions of a note whose states are pooled.
fn pooled(config: &EmbedderConfig) -> usize {
    1 + usize::from(config.variant.micl())
}

/// A connector's queries over each other and over the vision features.
fn connector_attention(config: &EmbedderConfig, notes: usize) -> f64 {
    match &config.connector {
        None | Some(ConnectorConfig::Mlp(_) | ConnectorConfig::Merger(_)) => 0.0,
        Some(ConnectorConfig::QFormer(connector)) => {
            let (queries, width) = (connector.num_query_tokens, connector.hidden_size);
            let layers = connector.num_hidden_layers;
            let crossing = layers.div_ceil(connector.cross_attention_frequency.max(1));
            attention(notes, layers * queries, queries, width)
                + attention(notes, crossing * queries, positions_read(config), width)
        }
        Some(ConnectorConfig::Resampler(connector)) => attention(
            notes,
            connector.num_query_tokens,
            positions_read(config),
            config.llm.hidden_size,
        ),
    }
}

/// Positions of a picture that the connector reads.
fn positions_read(config: &EmbedderConfig) -> usize {
    let vision = config.vision.as_ref();
    vision.map_or(0, |vision| vision.positions(config.features.positions))
}

fn llm_rows(path: &str, config: &EmbedderConfig, shape: BatchShape) -> f64 {
    let (all, pooled) = (shape.positions as f64, pooled(config) as f64);
    let last = format!("layers.{}.", config.llm.num_hidden_layers.saturating_sub(1));
    let rows = if path.starts_with("project_out") {
        pooled
    } else if !path.contains(&last) || path.contains(".k_proj.") || path.contains(".v_proj.") {
        all
    } else if path.contains(".qkv.") && !path.contains(".q_proj.") {
        // One matrix for queries, keys and values.
        let llm = &config.llm;
        let (queries, keys) = (
            llm.num_attention_heads as f64,
            llm.num_key_value_heads as f64,
        );
        (queries * pooled + 2.0 * keys * all) / (queries + 2.0 * keys)
    } else {
        pooled
    };
    shape.notes as f64 * rows
}

/// Layers above the selected state are not needed.
fn vision_forward(matrices: Vec<Matrix>, config: &EmbedderConfig, notes: usize) -> f64 {
    let Some(vision) = &config.vision else {
        return 0.0;
    };
    let depth = vision.num_hidden_layers;
    let selected =
        mlrm_model::vision::selected_state(config.features.layer, depth).unwrap_or(depth);
    let positions = vision.state_positions();
    let needed = |path: &str| match path.split_once("layers.") {
        None => true,
        Some((_, rest)) => {
            let layer = rest.split('.').next().and_then(|n| n.parse().ok());
            layer.is_none_or(|layer: usize| layer < selected)
        }
    };
    let weights: f64 = matrices
        .iter()
        .filter(|matrix| needed(&matrix.path))
        .map(|matrix| 2.0 * matrix.elements * (notes * positions) as f64)
        .sum();
    let patch_values = 3 * vision.patch_size * vision.patch_size;
    let patches = 2 * notes * vision.patches() * patch_values * vision.hidden_size;
    let heads = attention(notes, selected * positions, positions, vision.hidden_size);
    weights + patches as f64 + heads
}

/// Connector, fusion and projection. What reads vision features passes no gradient on to them.
fn head_product(matrix: &Matrix, config: &EmbedderConfig, shape: BatchShape) -> Product {
    let path = matrix.path.as_str();
    let path = path.strip_prefix("connector.").unwrap_or(path);
    let crossing = path.contains("crossattention");
    let reads_features = path.starts_with("resampler.kv_proj")
        || crossing && (path.contains(".key.") || path.contains(".value."));
    let connects = ["qformer", "resampler", "mm_projector."];
    let connects = connects.iter().any(|part| path.starts_with(part));
    let (positions, tokens) = (positions_read(config) as f64, config.visual_tokens() as f64);
    let rows = match path {
        _ if reads_features => positions,
        // One matrix for queries, keys and values, a third each.
        "resampler.attn.in_proj_weight" => (tokens + 2.0 * positions) / 3.0,
        _ if connects => tokens,
        _ if path.starts_with("mm_projector_latefusion") => 1.0,
        _ => pooled(config) as f64,
    };
    Product {
        elements: matrix.elements,
        rows: shape.notes as f64 * rows,
        learns: matrix.learns,
        passes: !(reads_features || path.starts_with("mm_projector_latefusion")),
    }
}

/// A weight matrix of a module.
struct Matrix {
    path: String,
    elements: f64,
    learns: bool,
}

/// The weights of `module` that rows are multiplied with: every matrix but lookup tables.
fn matrices<M: Module>(module: &M) -> Vec<Matrix> {
    let tables = [
        "embed_tokens",
        "embed_positions",
        "position_embedding",
        "mask_token",
    ];
    let mut found = Vec::new();
    each_parameter(module, &mut |param| {
        let path = param.path();
        if param.rank() == 2 && !tables.iter().any(|table| path.contains(table)) {
            found.push(Matrix {
                path,
                elements: param.elements() as f64,
                learns: param.learns(),
            });
        }
    });
    found
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::path::Path;

    use burn::tensor::{DType, Device};

    use super::*;
    use crate::verify::GoldenCase;

    fn embedder(case: &str) -> Embedder {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cases");
        let case = GoldenCase::open(&cases.join(case), &Device::flex(), DType::F32);
        case.expect("the case opens").embedder
    }

    #[test]
    fn a_text_model_is_counted_by_hand() {
        let embedder = embedder("qwen3_text_no_head");
        let llm = &embedder.config.llm;
        assert_eq!(llm.num_hidden_layers, 2);
        let (notes, positions) = (5, 20);
        let shape = BatchShape { notes, positions };
        let queries = llm.num_attention_heads * llm.head_dim;
        let keys = 2 * llm.hidden_size * llm.num_key_value_heads * llm.head_dim;
        let others = llm.hidden_size * (2 * queries + 3 * llm.intermediate_size);
        // Two layers have keys and values of all positions, only the first has all the rest.
        let weights = 2 * notes * (2 * positions * keys + (positions + 1) * others);
        let attention = 4 * notes * (positions + 1) * positions * queries;
        let flops = Flops::of(&embedder, shape);
        assert_eq!(flops.forward, (weights + attention) as f64);
        assert_eq!(flops.backward, 2.0 * flops.forward);
    }

    #[test]
    fn frozen_parts_have_no_gradients_of_weights() {
        let mut embedder = embedder("qwen2_notellm2");
        let shape = BatchShape {
            notes: 6,
            positions: 29,
        };
        let whole = Flops::of(&embedder, shape);
        // The vision encoder has no backward pass at all.
        assert!(whole.backward < 2.0 * whole.forward);
        embedder.core.llm = embedder.core.llm.no_grad();
        let frozen = Flops::of(&embedder, shape);
        assert_eq!(frozen.forward, whole.forward);
        // The connector still learns, through the language model.
        assert!(frozen.backward < whole.backward);
        assert!(frozen.backward > whole.backward / 2.0);
    }
}
