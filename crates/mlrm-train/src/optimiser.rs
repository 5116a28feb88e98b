//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) with decay groups, and the global gradient norm.
//!
//! Moments are kept by checkpoint name, flat and in f32, so that they can be saved and resumed on
//! any backend. Where the model computes in a shorter format, the weights themselves are kept in f32
//! here too: most updates are smaller than the rounding of such a format, and would be lost in it.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use mlrm_config::TrainSettings;
use mlrm_model::ops::{self, AdamRule, AdamState};
use mlrm_model::transfer::upload;
use mlrm_model::weights::{ParameterMut, each_parameter, map_parameters};

/// First and second moment of a parameter, `[elements]` each.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Tensor<1>,
    /// Running mean of the squared gradient.
    pub second: Tensor<1>,
    /// The parameter in f32, where the model has it in a shorter format.
    pub master: Option<Tensor<1>>,
}

/// The optimiser and its state.
#[derive(Debug, Clone)]
pub struct AdamW {
    beta_1: f64,
    beta_2: f64,
    epsilon: f64,
    weight_decay: f64,
    rates: PartRates,
    /// Updates taken.
    pub updates: usize,
    /// Moments by parameter path.
    pub moments: BTreeMap<String, Moments>,
}

/// How many times the learning rate of the language model that of each part is: the language model, the connector, and the
/// rest of the head.
#[derive(Debug, Clone, Copy, PartialEq)]
struct PartRates([f64; 3]);

impl PartRates {
    fn new(settings: &TrainSettings) -> Self {
        let rate = |own: Option<f64>| own.map_or(1.0, |own| own / settings.learning_rate);
        Self([
            1.0,
            rate(settings.connector_learning_rate),
            rate(settings.head_learning_rate),
        ])
    }

    /// The part of the parameter at `path`.
    fn part(path: &str) -> usize {
        match path.strip_prefix("head.") {
            None => 0,
            Some(rest) if rest.starts_with("connector.") => 1,
            Some(_) => 2,
        }
    }
}

/// Gradients by parameter path, flat, in f32, outside the autodiff graph.
pub type FlatGradients = BTreeMap<String, Tensor<1>>;

/// What is known of an update on the device only, so that nothing waits for it.
#[derive(Debug, Clone)]
pub struct Clipping {
    /// 1 where loss and gradient are finite, else 0: then the update changes nothing. `[1]`
    pub take: Tensor<1>,
    /// What gradients are multiplied by, `[1]`.
    pub scale: Tensor<1>,
}

impl Clipping {
    /// Clips by the global norm, whose square is given, as `torch.nn.utils.clip_grad_norm_` does; a
    /// `clip_norm` of 0 does not clip. A loss or norm that is not finite refuses the update.
    ///
    /// # Shapes
    /// `loss`, `squared_norm`: `[1]`, in f32, outside the autodiff graph.
    pub fn by_norm(loss: Tensor<1>, squared_norm: Tensor<1>, clip_norm: f64) -> Self {
        let finite = loss.is_finite().bool_and(squared_norm.clone().is_finite());
        let scale = if clip_norm > 0.0 {
            let norm = squared_norm.sqrt().add_scalar(1e-6);
            norm.recip().mul_scalar(clip_norm).clamp_max(1.0)
        } else {
            squared_norm.ones_like()
        };
        Self {
            take: finite.float().cast(DType::F32),
            scale,
        }
    }
}

impl AdamW {
    /// An optimiser that has taken no step.
    pub fn new(settings: &TrainSettings) -> Self {
        Self {
            beta_1: settings.betas[0],
            beta_2: settings.betas[1],
            epsilon: settings.epsilon,
            weight_decay: settings.weight_decay,
            rates: PartRates::new(settings),
            updates: 0,
            moments: BTreeMap::new(),
        }
    }

    /// `module` after the next update at `learning_rate`, which is that of the language model, if `clipping` lets it be
    /// taken. Parameters without a gradient stay as they are.
    ///
    /// Whether it was taken is known once `clipping.take` has been read: [`Self::count`] wants to hear
    /// of it before the next one. Norms, biases and the temperature (tensors of one axis) are not
    /// decayed.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: FlatGradients,
        learning_rate: f64,
        clipping: Clipping,
    ) -> M {
        let t = self.updates as i32 + 1;
        let rule = AdamRule {
            beta_1: self.beta_1 as f32,
            beta_2: self.beta_2 as f32,
            epsilon: self.epsilon as f32,
            keep: 1.0,
        };
        let PartRates(factors) = self.rates;
        let rates = factors.map(|factor| learning_rate * factor);
        let [first, connector, rest] = rates.map(|rate| rate / (1.0 - self.beta_1.powi(t)));
        let second = (1.0 - self.beta_2.powi(t)).powf(-0.5);
        let sizes = [first, connector, rest, second].map(|size| size as f32);
        let sizes = upload(
            TensorData::new(sizes.to_vec(), [sizes.len()]),
            &clipping.take.device(),
        );
        let control = [0, 1, 2].map(|part| {
            let sizes = [part, 3].map(|at| sizes.clone().narrow(0, at, 1));
            let all = [clipping.take.clone(), clipping.scale.clone()];
            Tensor::cat(all.into_iter().chain(sizes).collect(), 0)
        });
        let decayed = rates.map(|rate| (1.0 - rate * self.weight_decay) as f32);
        let mut gradients = gradients;
        map_parameters(module, &mut |param| {
            let path = param.path();
            let Some(gradient) = gradients.remove(&path) else {
                return;
            };
            let part = PartRates::part(&path);
            let keep = if param.rank() > 1 { decayed[part] } else { 1.0 };
            let rule = AdamRule { keep, ..rule };
            let moments = self.moments.remove(&path);
            let moments = moments.unwrap_or_else(|| Moments::none(&gradient));
            let kept = update(param, moments, gradient, rule, control[part].clone());
            self.moments.extend(kept.map(|moments| (path, moments)));
        })
    }

    /// Keeps the f32 copy of the parameter at `path`, where there is one, at `most` or below.
    pub(crate) fn bound(&mut self, path: &str, most: f64) {
        if let Some(moments) = self.moments.get_mut(path) {
            moments.master = moments.master.take().map(|master| master.clamp_max(most));
        }
    }

    /// Counts the last update, if it was taken.
    pub fn count(&mut self, taken: bool) {
        self.updates += usize::from(taken);
    }
}

impl Moments {
    /// Those of a parameter that was never updated.
    fn none(gradient: &Tensor<1>) -> Self {
        Self {
            first: gradient.zeros_like(),
            second: gradient.zeros_like(),
            master: None,
        }
    }
}

/// Updates `param`, and gives its moments behind that.
fn update(
    param: &mut dyn ParameterMut,
    moments: Moments,
    gradient: Tensor<1>,
    rule: AdamRule,
    control: Tensor<1>,
) -> Option<Moments> {
    let mut kept = None;
    param.update(Box::new(|old| {
        let dtype = old.dtype();
        let Moments {
            first,
            second,
            master,
        } = moments;
        let state = AdamState {
            parameter: master.unwrap_or_else(|| old.cast(DType::F32)),
            first,
            second,
        };
        let state = ops::adamw(state, gradient, rule, control);
        kept = Some(Moments {
            first: state.first,
            second: state.second,
            master: (dtype != DType::F32).then(|| state.parameter.clone()),
        });
        state.parameter.cast(dtype)
    }));
    kept
}

/// The gradients of `module`'s parameters, by path.
pub fn flat_gradients<M: Module>(module: &M, mut gradients: Gradients) -> FlatGradients {
    let mut flat = FlatGradients::new();
    each_parameter(module, &mut |param| {
        if let Some(gradient) = param.take_gradient(&mut gradients) {
            flat.insert(param.path(), gradient.cast(DType::F32));
        }
    });
    flat
}

/// Up to so many values of a tensor, what rounding loses of their sum is kept beside it. Tensors through which all that is
/// learnt passes, such as queries, gains and heads, are that small, and those of large models would take as much again.
const COMPENSATED: usize = 1 << 17;

/// Gradients that are added up part by part. Where parts cancel out, a sum in f32 loses of each as much as it would of a
/// value of that part's size: in small tensors that is put back at the end (the error of each sum is itself a number of
/// f32; Knuth, The Art of Computer Programming 2, section 4.2.2).
#[derive(Default)]
pub struct GradientSum {
    sum: FlatGradients,
    lost: FlatGradients,
}

impl GradientSum {
    /// Adds `more`, parameter by parameter.
    pub fn add(&mut self, more: FlatGradients) {
        for (path, gradient) in more {
            let Some(so_far) = self.sum.remove(&path) else {
                self.sum.insert(path, gradient);
                continue;
            };
            let sum = so_far.clone() + gradient.clone();
            if sum.dims()[0] <= COMPENSATED {
                let added = sum.clone() - so_far.clone();
                let kept = sum.clone() - added.clone();
                let mut lost = (so_far - kept) + (gradient - added);
                if let Some(before) = self.lost.remove(&path) {
                    lost = before + lost;
                }
                self.lost.insert(path.clone(), lost);
            }
            self.sum.insert(path, sum);
        }
    }

    /// The sum.
    pub fn total(self) -> FlatGradients {
        let Self { mut sum, lost } = self;
        for (path, lost) in lost {
            sum.entry(path).and_modify(|sum| *sum = sum.clone() + lost);
        }
        sum
    }
}

/// The square of the global L2 norm, `[1]`, on the device.
pub fn squared_norm(gradients: &FlatGradients) -> Option<Tensor<1>> {
    let squares = gradients.values().cloned().map(ops::squared_norm);
    squares.reduce(|a, b| a + b)
}
