//! Sizes and options of a vision encoder: what the shared core is built from.
//!
//! A family reads them from its Hugging Face `config.json` and writes them back; see
//! [`VisionEncoderFamily`].

use std::path::Path;

use mlrm_config::{SelectFeature, VisionActivation, VisionSettings};
use serde_json::{Value, json};

use super::families::{self, VisionEncoderFamily};
use super::options::{AttentionKind, MaskToken, MlpKind, Stretch, Summary};
use super::{Grid, PatchBlocks};
use crate::bounds;
use crate::error::{InvalidConfig, ModelError};
use crate::hf_config::{Accepted, HfConfig, Noted};
use crate::nn::Activation;

/// Sizes and options of a vision encoder; names are those of Hugging Face's configs where these agree.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Which family it belongs to.
    pub family: &'static VisionEncoderFamily,
    /// Width of the hidden states (v).
    pub hidden_size: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input in pixels. A family whose positions stretch reads pictures of any
    /// size: then it is that of the pictures ([`Self::fit_pictures`]), and `position_grid` says what
    /// the encoder was made for.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Added to the variance inside LayerNorm.
    pub layer_norm_eps: f64,
    /// Whether query and value have biases.
    pub qkv_bias: bool,
    /// Whether the key has one, where they do.
    pub key_bias: bool,
    /// Base of the angles by which queries and keys turn with the place of their patch; such an encoder stores no
    /// positions, unless its `blocks` say so.
    pub rope_theta: Option<f64>,
    /// Side of the grid of stored positions: that of the patches, where positions do not stretch.
    pub position_grid: usize,
    /// What becomes of the positions where the pictures have another number of patches.
    pub stretch: Stretch,
    /// Whether the projection of patches has a bias.
    pub patch_bias: bool,
    /// Whether there is a norm before the first layer.
    pub pre_layernorm: bool,
    /// How queries, keys and values are made.
    pub attention: AttentionKind,
    /// The feed-forward network.
    pub mlp: MlpKind,
    /// Whether what a layer adds to its input is scaled by channel.
    pub layer_scale: bool,
    /// Learnt vectors between the class token and the patches, which nothing reads.
    pub register_tokens: usize,
    /// How checkpoints hold the vector of hidden patches, which only pre-training uses.
    pub mask_token: MaskToken,
    /// Whether checkpoints store class token and positions as a batch of one picture.
    pub tables_in_batches: bool,
    /// How patches go together, where several become one visual token.
    pub blocks: Option<PatchBlocks>,
    /// Most blocks of a picture, where each has a grid of its own; no `config.json` tells it. `None`: all pictures have the
    /// grid of `image_size`.
    pub own_grids: Option<usize>,
    /// The picture as one vector.
    pub summary: Summary,
}

impl VisionConfig {
    /// Reads the `config.json` of a vision encoder, or the vision half of a whole model's; refuses
    /// what is not implemented, by name.
    ///
    /// # Errors
    /// A file that cannot be read, or describes an encoder that is not supported.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Ok(Self::read_accepting(path, &[])?.config)
    }

    /// [`Self::read`] that passes over the unknown keys of `accept_keys`.
    ///
    /// # Errors
    /// A file that cannot be read, sizes that do not fit, and every option that is not implemented.
    pub fn read_accepting(path: &Path, accept_keys: &[String]) -> Result<Noted<Self>, ModelError> {
        let accepted = Accepted {
            keys: accept_keys,
            setting: "model.vision.accept_keys",
        };
        let (config, rest) = Self::glance(HfConfig::read(path)?.accepting(accepted))?;
        let notes = rest.finish()?;
        config
            .check()
            .map_err(|e| ModelError::format(path, e.message))?;
        Ok(Noted { config, notes })
    }

    /// What the keys `hf` say, before sizes and the keys that are left over are judged.
    pub(crate) fn glance(mut hf: HfConfig<'_>) -> Result<(Self, HfConfig<'_>), ModelError> {
        let model_type: String = hf.get("model_type", None)?;
        let Some((family, section)) = families::of_type(&model_type) else {
            let hint = format!(
                "vision encoders that mlrm implements: {}",
                families::types()
            );
            return Err(hf.unsupported("model_type", &json!(model_type), &hint));
        };
        let mut vision = match section {
            None => hf,
            Some(section) => hf.section(section)?,
        };
        Ok(((family.read)(&mut vision)?, vision))
    }

    /// The family's entry: its tensor names among others.
    pub fn family(&self) -> &'static VisionEncoderFamily {
        self.family
    }

    /// Reads the keys that CLIP, SigLIP and BLIP-2 share; an absent one has the value in `defaults`.
    ///
    /// # Errors
    /// A key of the wrong kind, and options that are not implemented.
    pub fn read_common(hf: &mut HfConfig<'_>, defaults: &Self) -> Result<Self, ModelError> {
        hf.refuse_unless("attention_dropout", &[json!(0.0), json!(0)], "set it to 0");
        hf.refuse_unless("num_channels", &[json!(3)], "only RGB is");
        let mut size = |key, default| hf.get(key, Some(default));
        let (image_size, patch_size) = (
            size("image_size", defaults.image_size)?,
            size("patch_size", defaults.patch_size)?,
        );
        Ok(Self {
            hidden_size: size("hidden_size", defaults.hidden_size)?,
            intermediate_size: size("intermediate_size", defaults.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", defaults.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", defaults.num_attention_heads)?,
            image_size,
            patch_size,
            hidden_act: hf.get("hidden_act", Some(defaults.hidden_act))?,
            layer_norm_eps: hf.get("layer_norm_eps", Some(defaults.layer_norm_eps))?,
            position_grid: image_size.checked_div(patch_size).unwrap_or(0),
            ..defaults.clone()
        })
    }

    /// The keys of [`Self::read_common`].
    pub fn common_json(&self) -> Value {
        json!({
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_channels": 3,
            "image_size": self.stored_image_size(),
            "patch_size": self.patch_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "attention_dropout": 0.0,
        })
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        let wrong = |keys: &[_], message: String| Err(InvalidConfig::new(keys, message));
        bounds::check(&[
            ("hidden_size", self.hidden_size, bounds::WIDTH),
            ("intermediate_size", self.intermediate_size, bounds::WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, bounds::LAYERS),
            (
                "num_attention_heads",
                self.num_attention_heads,
                bounds::HEADS,
            ),
            ("image_size", self.image_size, bounds::SIDE),
            ("patch_size", self.patch_size, bounds::SIDE),
        ])?;
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            let message = format!(
                "`num_attention_heads` = {heads} must divide `hidden_size` = {}",
                self.hidden_size
            );
            return wrong(&["num_attention_heads", "hidden_size"], message);
        }
        // Half the channels of a head turn with the row of a patch, half with its column, two at a time.
        let head_dim = self.hidden_size / heads;
        if self.rope_theta.is_some() && !head_dim.is_multiple_of(4) {
            let message = format!(
                "`hidden_size` / `num_attention_heads` = {head_dim} must be a multiple of 4 for rotary positions"
            );
            return wrong(&["hidden_size", "num_attention_heads"], message);
        }
        let patch = self.patch_size;
        let merge = self.merge();
        if patch == 0 || merge == 0 || self.image_size / patch < merge {
            let message = format!(
                "`patch_size` = {patch} must fit into `image_size` = {}",
                self.image_size
            );
            return wrong(&["patch_size", "image_size"], message);
        }
        if let Some(blocks) = &self.blocks {
            let deepest = blocks.deep.last().max(blocks.full.last());
            let layers = self.num_hidden_layers;
            if blocks.frames == 0 || blocks.window == Some(0) {
                let message = "windows and the pictures of a patch start at 1".into();
                return wrong(&["window_size", "temporal_patch_size"], message);
            }
            if let Some(index) = deepest.filter(|index| *index >= layers) {
                let message = format!("layer {index} is spoken of, but there are {layers}");
                return wrong(&["num_hidden_layers"], message);
            }
        }
        if self.num_hidden_layers == 0 || self.intermediate_size == 0 || self.position_grid == 0 {
            let message = "layers, widths and positions start at 1".into();
            return wrong(
                &["num_hidden_layers", "intermediate_size", "image_size"],
                message,
            );
        }
        Ok(())
    }

    /// The sizes of a config section, for an encoder from scratch.
    pub fn from_settings(settings: &VisionSettings) -> Self {
        (families::of(settings.family).scratch)(settings)
    }

    /// The options of `self` with the sizes of a config section.
    pub fn sized(&self, settings: &VisionSettings) -> Self {
        Self {
            hidden_size: settings.hidden_size,
            intermediate_size: settings.intermediate_size,
            num_hidden_layers: settings.num_hidden_layers,
            num_attention_heads: settings.num_attention_heads,
            image_size: settings.image_size,
            patch_size: settings.patch_size,
            hidden_act: match settings.hidden_act {
                VisionActivation::QuickGelu => Activation::QuickGelu,
                VisionActivation::Gelu => Activation::Gelu,
                VisionActivation::GeluPytorchTanh => Activation::GeluPytorchTanh,
            },
            position_grid: settings.image_size / settings.patch_size.max(1),
            ..self.clone()
        }
    }

    /// The `config.json` that Hugging Face tools read.
    pub fn to_json(&self) -> Value {
        let family = self.family();
        let mut config = (family.write)(self);
        config["model_type"] = json!(family.name);
        if !family.architecture.is_empty() {
            config["architectures"] = json!([family.architecture]);
        }
        config
    }

    /// Whether it reads pictures of other sizes than its own.
    pub fn stretches(&self) -> bool {
        self.stretch != Stretch::No
    }

    /// Reads pictures of `side` by `side` pixels, where positions stretch; else it keeps its own size.
    pub fn fit_pictures(&mut self, side: usize) {
        if self.stretches() && side >= self.patch_size {
            self.image_size = side;
        }
    }

    /// Reads pictures of at most `pixels` pixels, in the largest square of whole blocks of patches; at least one block.
    /// Only where patches go in blocks, which is for pictures of any size.
    pub fn fit_pixels(&mut self, pixels: usize) {
        let side = self.patch_size * self.merge();
        self.fit_pictures((pixels.isqrt() / side).max(1) * side);
    }

    /// Reads each picture in a grid of its own, of at most `blocks` blocks of patches. Only where patches go in blocks.
    pub fn with_own_grids(&mut self, blocks: usize) {
        self.own_grids = self.blocks.is_some().then_some(blocks);
    }

    /// Side of the pictures, where the config.json tells another.
    pub(crate) fn own_image_size(&self) -> Option<usize> {
        // That of an encoder whose patches go in blocks tells none.
        let untold = self.blocks.is_some() || self.image_size != self.stored_image_size();
        untold.then_some(self.image_size)
    }

    /// Side of the pictures that the stored positions are for.
    pub(super) fn stored_image_size(&self) -> usize {
        match self.stretch {
            Stretch::No => self.image_size,
            Stretch::Bicubic | Stretch::Antialiased | Stretch::Corners => {
                self.position_grid * self.patch_size
            }
        }
    }

    /// Whole patches along one side of the picture; pixels past the last one are not read, as in a
    /// convolution (SigLIP so400m: 384 pixels are 27 patches of 14).
    ///
    /// Where patches go in blocks, whole blocks are read.
    pub fn grid(&self) -> usize {
        self.whole_patches(self.image_size)
    }

    /// [`Self::grid`] of `side` pixels.
    fn whole_patches(&self, side: usize) -> usize {
        let merge = self.merge();
        side / (self.patch_size * merge) * merge
    }

    /// The patches that are read of pictures `[pictures, 3, height, width]`.
    pub(super) fn grid_of(&self, [_, _, height, width]: [usize; 4]) -> Grid {
        [height, width].map(|side| self.whole_patches(side))
    }

    /// Side of a block of patches; 1 where each stands for itself.
    pub fn merge(&self) -> usize {
        self.blocks.map_or(1, |blocks| blocks.merge)
    }

    /// Values of each position that is read: the width of the selected state, and as much for each layer beside it.
    pub fn feature_width(&self) -> usize {
        let deep = self.blocks.map_or(0, |blocks| blocks.deep.count());
        self.hidden_size * (1 + deep)
    }

    /// Patches of one picture (P).
    pub fn patches(&self) -> usize {
        self.grid().pow(2)
    }

    /// Positions of a picture that `select` means.
    pub fn positions(&self, select: SelectFeature) -> usize {
        let class = self.has_class_token() && select == SelectFeature::ClsPatch;
        self.patches() + usize::from(class)
    }

    /// Positions of a hidden state: class token, registers, patches.
    pub fn state_positions(&self) -> usize {
        usize::from(self.has_class_token()) + self.register_tokens + self.patches()
    }

    /// Whether position 0 of the hidden states is a class token.
    pub fn has_class_token(&self) -> bool {
        self.family.traits.class_token
    }

    /// Whether the encoder ends in a norm that [`super::FeatureSelection::post_layernorm`] can ask for.
    pub fn has_post_layernorm(&self) -> bool {
        self.family.traits.post_layernorm
    }
}
