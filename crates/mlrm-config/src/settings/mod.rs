//! The settings of a run, section by section.

mod absent;
mod connector;
mod data;
mod device;
mod eval;
mod families;
mod llm;
mod model;
mod prompt;
mod training;
mod vision;
mod words;

pub use connector::*;
pub use data::*;
pub use device::*;
pub use eval::*;
pub use families::*;
pub use llm::*;
pub use model::*;
pub use prompt::*;
pub use training::*;
pub use vision::*;

use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use words::words;

/// Everything that a run can be told, as written in its TOML file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct RunConfig {
    /// Where the run lives and which seed everything random derives from.
    pub run: RunSettings,
    /// The device and number format that the model computes with.
    pub backend: BackendSettings,
    /// Notes, pictures and the pairs to train on.
    pub data: DataSettings,
    /// How a note becomes text for the language model.
    pub prompt: PromptSettings,
    /// Where token ids come from.
    pub tokenizer: TokenizerSettings,
    /// The parts of the embedder.
    pub model: ModelSettings,
    /// What training minimises.
    pub objective: ObjectiveSettings,
    /// How training minimises it.
    pub train: TrainSettings,
    /// How retrieval is measured.
    pub eval: EvalSettings,
    /// The terminal dashboard.
    pub dashboard: DashboardSettings,
}

/// `[run]`: where the run lives and which seed everything random derives from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct RunSettings {
    /// Folder that the run writes: config, events, checkpoints, model, report.
    #[schemars(length(min = 1))]
    pub dir: PathBuf,
    /// Seed of initial weights, data order, splits and dropout. Same seed, same losses on `flex`.
    #[schemars(range(max = 9_223_372_036_854_775_807_i64))]
    pub seed: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("runs/run"),
            seed: 0,
        }
    }
}

/// `[backend]`: the device and number format that the model computes with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct BackendSettings {
    /// `flex` (CPU), `vulkan[:i]`, `wgpu[:i]`, `metal`, `cuda[:i]`, `rocm[:i]`, or a list of them that train
    /// together, each on a share of every batch; `flex` may be listed several times. See `mlrm devices`.
    pub device: DeviceNames,
    /// Number format of weights and activations.
    pub dtype: DType,
    /// What the factors of f32 matrix products on `flex` are rounded to; sums stay in f32. `bf16` is about what PyTorch's
    /// autocast does; it needs a processor that multiplies bf16 faster (AMX or, from AMD, AVX512-BF16, see `mlrm
    /// devices`), and elsewhere the products are in f32, which the run says.
    pub matmul_precision: MatmulPrecision,
    /// What gradients travel in between the processes of a run that is started by `mpirun` or `srun`; they are
    /// added up in f32.
    pub reduce_dtype: ReduceDType,
    /// Bytes of memory that training may take where the model computes; a run that is predicted to take
    /// more is refused before its first step. Not set: what the device, or this machine for `flex`, has.
    #[schemars(range(min = 1))]
    pub max_memory_bytes: Option<u64>,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self {
            device: DeviceNames::One("flex".into()),
            dtype: DType::F32,
            matmul_precision: MatmulPrecision::F32,
            reduce_dtype: ReduceDType::F32,
            max_memory_bytes: None,
        }
    }
}

/// One device name, or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DeviceNames {
    /// A single device.
    One(String),
    /// Several devices, for data-parallel training.
    Many(Vec<String>),
}

impl DeviceNames {
    /// The names in the order written.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

words! {
    /// Number format of weights and activations.
    #[derive(Default)]
    pub enum DType {
        /// 32-bit floating point.
        #[default]
        F32 = "f32",
        /// bfloat16: the range of f32 with 8 bits of precision.
        Bf16 = "bf16",
        /// IEEE half precision.
        F16 = "f16",
    }
}

/// What the factors of a product of two f32 matrices are rounded to. Sums are in f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MatmulPrecision {
    /// Not rounded.
    #[default]
    F32,
    /// bfloat16, as PyTorch's `set_float32_matmul_precision("medium")`.
    Bf16,
}

/// What gradients travel in between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReduceDType {
    /// As they are.
    #[default]
    F32,
    /// Half of the bytes: each process's and the sum are rounded to 8 bits.
    Bf16,
}

impl FromStr for MatmulPrecision {
    type Err = MatmulPrecisionError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(MatmulPrecisionError(name.into())),
        }
    }
}

/// A text that is not a precision of products.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a precision of matrix products: f32 or bf16")]
pub struct MatmulPrecisionError(String);

/// A text that is not a number format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number format: f32, bf16 or f16")]
pub struct DTypeError(String);

impl FromStr for DType {
    type Err = DTypeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|dtype| dtype.name() == name);
        known.ok_or_else(|| DTypeError(name.into()))
    }
}

/// `[dashboard]`: the terminal dashboard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "mlrm"))]
pub struct DashboardSettings {
    /// `auto` shows it when standard output is a terminal.
    pub enabled: Toggle,
    /// Upper bound of redraws per second; only changed cells are sent.
    #[schemars(range(min = 1, max = 60))]
    pub frames_per_second: u32,
}

impl Default for DashboardSettings {
    fn default() -> Self {
        Self {
            enabled: Toggle::Auto,
            frames_per_second: 10,
        }
    }
}

/// On, off, or decided by where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Toggle {
    /// On when standard output is a terminal.
    #[default]
    Auto,
    /// Always on.
    On,
    /// Always off.
    Off,
}
