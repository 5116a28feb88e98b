//! What a batch says of the weights: shares embedded by all workers, the loss of all of them, and the
//! way back.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use mlrm_data::batch::NoteBatch;
use mlrm_events::Named;
use mlrm_model::embedder::{Embedder, Embeddings};
use mlrm_model::transfer::upload;

use super::StepContext;
use super::slices::{Passes, Work};
use crate::error::TrainError;
use crate::group::{EmbedOrder, Group, Order, OwnPart};
use crate::objective::{EmbeddingGradients, rows_at_a_time};
use crate::optimiser::{FlatGradients, GradientSum, flat_gradients};
use crate::phases::PhaseClock;

/// What a batch says of the weights.
pub struct BatchGradients {
    /// Gradients of the parameters that learn.
    pub gradients: FlatGradients,
    /// The minimised loss, `[1]`.
    pub loss: Tensor<1>,
    /// L(E_m), `[1]`.
    pub multimodal: Tensor<1>,
    /// L(E_v), with mICL, `[1]`.
    pub visual: Option<Tensor<1>>,
    /// L(E_m) of embeddings that tell nothing apart.
    pub chance_loss: f64,
    /// Gate values at the places of the batch, as in [`mlrm_model::embedder::Embeddings`].
    pub gate: Option<Tensor<2>>,
    /// Pictures that passed through the vision encoders of all workers.
    pub pictures_encoded: u64,
    /// Seconds by phase, as in [`StepStats`](super::StepStats).
    pub seconds_by_phase: Named<f64>,
}

/// The gradients of `batch`, with the dropout masks of `step`. Each worker of `group` embeds a share of
/// its notes, and carries the gradients of these embeddings to the parameters.
///
/// # Errors
/// A batch that the model cannot read, or a device or worker that failed.
pub fn batch_gradients(
    embedder: &Embedder,
    mut batch: NoteBatch,
    step: u64,
    context: &StepContext,
    group: &mut dyn Group,
) -> Result<BatchGradients, TrainError> {
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    let exclusions = context.exclusions(&batch);
    let places = std::mem::take(&mut batch.places);
    let gate_places = places_with_picture(&places, &batch.by_text);
    let work = context.work(step);
    let own = OwnPart {
        passes: Passes::new(embedder, &work),
        device: &context.device,
        // A leader without others is guarded as a whole.
        may_run_out_of_memory: group.size() > 1 && context.may_run_out_of_memory,
        timed: group.timed(),
    };
    let (notes, batch) = own_share(batch, work, context, group)?;
    let (share, embedded) = match own.embed(batch, 0, &mut clock) {
        Ok((share, embedded)) => (Ok(share), Some(embedded)),
        Err(error) => (Err(error), None),
    };
    let shares = group.gather(share, &context.device)?;
    if group.size() > 1 {
        clock.lap("exchange")?;
    }
    let pictures_encoded = shares.iter().map(|share| share.pictures_encoded).sum();
    let embeddings = shares.into_iter().filter_map(|share| share.embeddings);
    let embeddings = Embeddings::cat(embeddings.collect()).ok_or_else(no_notes)?;
    let gate = embeddings.gate.clone();
    let gate = gate.map(|gate| at_places(gate, &gate_places));

    let temperature = embedder.core.head.temperature.val();
    let placed = Embeddings {
        multimodal: at_places(embeddings.multimodal.clone(), &places),
        visual: embeddings.visual.clone().map(|all| at_places(all, &places)),
        gate: None,
    };
    let rows = rows_at_a_time(placed.multimodal.dims()[0]);
    // The temperature is the one parameter that the loss reads by itself.
    let mut of_loss = GradientSum::default();
    let mut others = |gradients| of_loss.add(flat_gradients(&embedder.core, gradients));
    let (losses, of_places) =
        context
            .objective
            .backward(&placed, temperature, &exclusions, rows, &mut others);
    let all = embeddings.multimodal.dims()[0];
    let of_embeddings = EmbeddingGradients {
        multimodal: of_notes(of_places.multimodal, &places, all),
        visual: of_places.visual.map(|of| of_notes(of, &places, all)),
    };
    clock.lap("llm_forward")?;

    group.broadcast(Order::Backward(of_embeddings.clone()))?;
    let summand = embedded
        .ok_or_else(no_notes)
        .and_then(|embedded| own.backward(embedded, &of_embeddings.slice(notes), &mut clock));
    let mut gradients = GradientSum::default();
    gradients.add(group.reduce(summand, &context.device)?);
    if group.size() > 1 {
        clock.lap("exchange")?;
    }
    gradients.add(of_loss.total());
    Ok(BatchGradients {
        gradients: gradients.total(),
        loss: losses.total,
        multimodal: losses.multimodal,
        visual: losses.visual,
        chance_loss: exclusions.chance_loss(context.objective.kind),
        gate,
        pictures_encoded,
        seconds_by_phase: clock.seconds,
    })
}

/// Deals the notes of a batch to the workers, asks the others to embed theirs, and gives back the
/// leader's: which they are, and what they hold.
fn own_share(
    batch: NoteBatch,
    work: Work,
    context: &StepContext,
    group: &mut dyn Group,
) -> Result<(Range<usize>, NoteBatch), TrainError> {
    if group.size() == 1 {
        return Ok((0..batch.notes, batch));
    }
    let shares = group.shares(&batch.lengths);
    let own = shares[0].clone();
    let batch = Arc::new(batch);
    group.broadcast(Order::Embed(EmbedOrder {
        work,
        shares,
        cursor: context.cursor,
        batch: Arc::clone(&batch),
    }))?;
    Ok((own.clone(), batch.slice(own)))
}

fn no_notes() -> TrainError {
    TrainError::Batch("a batch holds no notes".into())
}

/// What a tensor says of the note at each place, as [`NoteBatch::at_places`].
///
/// # Shapes
/// `[notes, width]` → `[P, width]`
fn at_places(of_notes: Tensor<2>, places: &[usize]) -> Tensor<2> {
    match places.is_empty() {
        true => of_notes,
        false => {
            let places = indices(places, &of_notes);
            of_notes.select(0, places)
        }
    }
}

/// `places` in what only the notes with a picture have: their rank among these, without the places of the others.
/// `by_text`: which notes have no picture, `[notes]`; empty where none is without.
fn places_with_picture(places: &[usize], by_text: &[bool]) -> Vec<usize> {
    if by_text.is_empty() {
        return places.to_vec();
    }
    let ranks = by_text.iter().scan(0, |before, by_text| {
        let rank = (!by_text).then_some(*before);
        *before += usize::from(!by_text);
        Some(rank)
    });
    let ranks: Vec<Option<usize>> = ranks.collect();
    places.iter().filter_map(|&note| ranks[note]).collect()
}

/// The gradients at all places of each note, added up: what [`at_places`] does backward.
///
/// # Shapes
/// `[P, width]` → `[notes, width]`
fn of_notes(at_places: Tensor<2>, places: &[usize], notes: usize) -> Tensor<2> {
    if places.is_empty() {
        return at_places;
    }
    let [_, width] = at_places.dims();
    let sum = Tensor::<2>::zeros([notes, width], &at_places.device()).cast(at_places.dtype());
    sum.select_assign(
        0,
        indices(places, &at_places),
        at_places,
        IndexingUpdateOp::Add,
    )
}

fn indices(places: &[usize], beside: &Tensor<2>) -> Tensor<1, Int> {
    let places: Vec<i64> = places.iter().map(|&note| note as i64).collect();
    let count = places.len();
    upload(TensorData::new(places, [count]), &beside.device())
}
