//! What ranks write to each other before the numbers themselves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_data::batch::NoteBatch;
use mlrm_data::order::Cursor;
use mlrm_model::embedder::Embeddings;
use mlrm_model::transfer::{read, upload};
use serde::{Deserialize, Serialize};

use super::unreadable;
use crate::error::TrainError;
use crate::group::{EmbedOrder, Share};
use crate::step::Work;

/// What the leader says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Head {
    /// The rank may open its data and its model.
    Begin,
    Embed {
        work: Work,
        shares: Vec<Range<usize>>,
        cursor: Cursor,
        /// What the batch must be.
        batch: u64,
    },
    Backward(Tensors),
    Weights {
        /// What the model must be.
        model: u64,
    },
    End,
}

impl Head {
    pub(super) fn embed(order: &EmbedOrder) -> Self {
        Self::Embed {
            work: order.work,
            shares: order.shares.clone(),
            cursor: order.cursor,
            batch: fingerprint(&order.batch),
        }
    }
}

/// A number that tells apart what batches hold, pictures aside.
pub(super) fn fingerprint(batch: &NoteBatch) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&batch.rows, &batch.input_ids, &batch.by_text).hash(&mut hasher);
    hasher.finish()
}

/// How work went.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told<T> {
    Done(T),
    OutOfMemory(String),
    Failed(String),
}

impl<T> Told<T> {
    pub(super) fn of(answer: &Result<T, TrainError>) -> Told<&T> {
        match answer {
            Ok(done) => Told::Done(done),
            Err(TrainError::OutOfMemory(reason)) => Told::OutOfMemory(reason.clone()),
            Err(error) => Told::Failed(error.to_string()),
        }
    }

    pub(super) fn answer(self) -> Result<T, TrainError> {
        match self {
            Self::Done(done) => Ok(done),
            Self::OutOfMemory(reason) => Err(TrainError::OutOfMemory(reason)),
            Self::Failed(reason) => Err(TrainError::Worker(reason)),
        }
    }
}

/// The shapes and number formats of three tensors, whose values follow in f32.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Tensors([Option<([usize; 2], DType)>; 3]);

impl Tensors {
    /// What `parts` are, and their values one after the other.
    ///
    /// # Errors
    /// A device that failed.
    pub(super) fn read(parts: [Option<Tensor<2>>; 3]) -> Result<(Self, Vec<f32>), TrainError> {
        let shape = |part: &Option<Tensor<2>>| part.as_ref().map(|p| (p.dims(), p.dtype()));
        let shapes = [&parts[0], &parts[1], &parts[2]].map(shape);
        let mut all = Vec::new();
        for part in parts.into_iter().flatten() {
            let values: Result<Vec<f32>, _> = read(part);
            all.extend(values.map_err(|e| unreadable("embeddings", e))?);
        }
        Ok((Self(shapes), all))
    }

    /// Numbers of all of them.
    pub(super) fn len(&self) -> usize {
        self.0.iter().flatten().map(|([a, b], _)| a * b).sum()
    }

    /// The tensors on `device`.
    pub(super) fn write(self, mut values: Vec<f32>, device: &Device) -> [Option<Tensor<2>>; 3] {
        self.0.map(|part| {
            let (shape, dtype) = part?;
            let rest = values.split_off(values.len().min(shape[0] * shape[1]));
            let own = std::mem::replace(&mut values, rest);
            Some(upload(TensorData::new(own, shape), (device, dtype)))
        })
    }
}

/// What is told of a [`Share`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ShareHead {
    tensors: Tensors,
    pictures_encoded: u64,
}

impl ShareHead {
    /// What a share is, and the values of its embeddings.
    ///
    /// # Errors
    /// A device that failed.
    pub(super) fn read(share: Share) -> Result<(Self, Vec<f32>), TrainError> {
        let parts = match share.embeddings {
            Some(all) => [Some(all.multimodal), all.visual, all.gate],
            None => [None, None, None],
        };
        let (tensors, values) = Tensors::read(parts)?;
        let head = Self {
            tensors,
            pictures_encoded: share.pictures_encoded,
        };
        Ok((head, values))
    }

    /// The share, its embeddings on `device`.
    pub(super) fn share(self, values: Vec<f32>, device: &Device) -> Result<Share, TrainError> {
        if values.len() != self.tensors.len() {
            return Err(TrainError::Worker("embeddings came in parts".into()));
        }
        let device = device.clone().without_autodiff();
        let [multimodal, visual, gate] = self.tensors.write(values, &device);
        Ok(Share {
            embeddings: multimodal.map(|multimodal| Embeddings {
                multimodal,
                visual,
                gate,
            }),
            pictures_encoded: self.pictures_encoded,
            seconds: 0.0,
        })
    }
}
