//! Construction of a tower, its weights read and written.

use std::path::Path;

use burn::tensor::{DType, Device};

use super::{EncoderLayer, PatchEmbedding, PatchRotary, PoolingHead, Vectors, VisionTower};
use crate::error::ModelError;
use crate::nn::{LayerNorm, zeros};
use crate::vision::{MaskToken, Summary, VisionConfig};
use crate::weights::{
    Checkpoint, Fit, LoadOptions, NamedTensor, Tensors, WriteOptions, Written, each_value, fill,
    fit, initial_values, load, write_module,
};

impl VisionTower {
    /// A tower of zeros on `device`, which must not keep gradients.
    pub(crate) fn zeros(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let class = config.has_class_token();
        let positions = config.position_grid.pow(2) + usize::from(class);
        let norm =
            |wanted: bool| wanted.then(|| LayerNorm::new(width, config.layer_norm_eps, device));
        let layer = |_| EncoderLayer::new(config, device);
        let batches = config.tables_in_batches;
        let stored =
            config.rope_theta.is_none() || config.blocks.is_some_and(|b| b.stored_positions);
        Self {
            config: config.clone(),
            class_embedding: class.then(|| match batches {
                true => Vectors::Batch(zeros([1, 1, width], device)),
                false => Vectors::One(zeros([width], device)),
            }),
            mask_token: match config.mask_token {
                MaskToken::Absent => None,
                MaskToken::Row => Some(Vectors::Table(zeros([1, width], device))),
                MaskToken::Batch => Some(Vectors::Batch(zeros([1, 1, width], device))),
            },
            register_tokens: (config.register_tokens > 0)
                .then(|| zeros([1, config.register_tokens, width], device)),
            patch_embedding: PatchEmbedding::new(config, device),
            position_embedding: stored.then(|| match batches {
                true => Vectors::Batch(zeros([1, positions, width], device)),
                false => Vectors::Table(zeros([positions, width], device)),
            }),
            rotary: config.rope_theta.map(|theta| {
                let head_dim = width / config.num_attention_heads;
                PatchRotary::new(theta, head_dim, config.blocks)
            }),
            pre_layernorm: norm(config.pre_layernorm),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            post_layernorm: norm(config.has_post_layernorm()),
            head: (config.summary == Summary::AttentionHead)
                .then(|| PoolingHead::new(config, device)),
        }
    }

    /// The tower with the weights of a checkpoint, strictly: its own, or a whole model's that holds
    /// it, whose other tensors are left unread.
    ///
    /// # Errors
    /// Weights that are not there, or do not fit the config.
    pub fn load(
        config: &VisionConfig,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let family = config.family();
        let prefix = checkpoint.prefix(family.prefix);
        let zeros = Self::zeros(config, device);
        load(zeros, checkpoint, prefix, family.names, options)
    }

    /// How the names and shapes of a checkpoint fit the tower.
    pub fn fit(&self, checkpoint: &Checkpoint) -> Fit {
        let family = self.config.family();
        let prefix = checkpoint.prefix(family.prefix);
        fit(self, checkpoint, prefix, family.names, None)
    }

    /// The tower with initial values drawn from `seed`.
    pub fn from_scratch(config: &VisionConfig, seed: u64, dtype: DType, device: &Device) -> Self {
        let family = config.family();
        let mut value = |tensor: &NamedTensor| {
            let rule = (family.initial)(config, &tensor.name);
            Some(initial_values(tensor, rule, seed, "vision"))
        };
        let zeros = Self::zeros(config, device);
        fill(zeros, Tensors::Base, family.names.rename, dtype, &mut value)
    }

    /// Writes the weights into `folder` under the names of a checkpoint of the encoder alone.
    ///
    /// # Errors
    /// Tensors that cannot be read back, or a folder that cannot be written.
    pub fn write(&self, folder: &Path, options: WriteOptions) -> Result<Written, ModelError> {
        let family = self.config.family();
        let rename = family.names.rename;
        write_module(folder, self, family.own_prefix, rename, options)
    }

    /// Its sizes.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Adds names, shapes and values of all weights to `hasher`.
    pub(in crate::vision) fn hash_weights(
        &self,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), ModelError> {
        each_value(self, str::to_owned, &mut |tensor, data| {
            let head = format!("{} {:?} {:?}\n", tensor.name, tensor.shape, data.dtype());
            hasher.update(head.as_bytes()).update(data.as_bytes());
            Ok(())
        })
    }
}
