//! Batches whose prompts all have the length of the token budget.

use mlrm_config::ImageLayout;
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::NoteEncoder;
use mlrm_events::Named;
use mlrm_model::weights::{parameter_count, trained_parameter_count};

use mlrm_train::TrainError;
use mlrm_train::plan::RunPlan;

/// Refuses models whose visual tokens are as many as each picture makes them: what is measured would be a matter of the
/// pictures, and the operations are counted for one size.
pub(super) fn refuse_own_grids(plan: &RunPlan) -> Result<(), TrainError> {
    match plan.embedder.config.has_own_grids() {
        false => Ok(()),
        true => Err(TrainError::Refused(
            "model.vision.grid = \"own\": a measurement needs pictures of one size; set model.vision.grid = \"square\", and \
             model.vision.max_pixels to what the pictures have"
                .into(),
        )),
    }
}

/// Ids of a prompt that uses the whole token budget, before the visual tokens are put in.
pub(super) fn budget(plan: &RunPlan, encoder: &NoteEncoder) -> usize {
    let positions = encoder.prompts().max_tokens();
    positions.saturating_sub(added_positions(plan))
}

/// Positions that the visual tokens add to the ids of a prompt.
pub(super) fn added_positions(plan: &RunPlan) -> usize {
    let config = &plan.embedder.config;
    match config.layout {
        _ if !config.variant.image_tokens() => 0,
        ImageLayout::Replace => plan.encoding.visual_tokens.saturating_sub(1),
        ImageLayout::After => plan.encoding.visual_tokens,
    }
}

/// Lengthens every prompt to `seq` ids with ordinary words of the batch, so that a measurement
/// depends on the config's sizes and not on how long the notes happen to be.
pub(super) fn fill_to(batch: &mut NoteBatch, seq: usize) {
    let (old, seq) = (batch.seq, seq.max(batch.seq));
    let mut ids = Vec::with_capacity(batch.notes * seq);
    for (row, &length) in batch.input_ids.chunks_exact(old.max(1)).zip(&batch.lengths) {
        ids.extend_from_slice(&row[..length]);
        // The last id of a prompt is an ordinary one.
        ids.extend(std::iter::repeat_n(row[length - 1], seq - length));
    }
    batch.input_ids = ids;
    batch.lengths = vec![seq; batch.notes];
    batch.seq = seq;
}

/// The sizes of the model and of a batch.
pub(super) fn shape(plan: &RunPlan, notes: usize, positions: usize) -> Named<usize> {
    let llm = &plan.embedder.config.llm;
    let vision = plan.embedder.config.vision.as_ref();
    [
        ("notes", notes),
        ("positions", positions),
        ("llm_hidden_size", llm.hidden_size),
        ("llm_layers", llm.num_hidden_layers),
        ("vocabulary", llm.vocab_size),
        ("vision_hidden_size", vision.map_or(0, |v| v.hidden_size)),
        ("vision_layers", vision.map_or(0, |v| v.num_hidden_layers)),
        ("visual_tokens", plan.encoding.visual_tokens),
        ("core_parameters", parameter_count(&plan.embedder.core)),
        (
            "trained_parameters",
            trained_parameter_count(&plan.embedder.core),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_filled_behind_their_end() {
        let mut batch = NoteBatch {
            notes: 2,
            seq: 3,
            input_ids: vec![1, 2, 0, 4, 5, 6],
            lengths: vec![2, 3],
            ..NoteBatch::default()
        };
        fill_to(&mut batch, 5);
        assert_eq!(batch.input_ids, [1, 2, 2, 2, 2, 4, 5, 6, 6, 6]);
        assert_eq!((batch.seq, batch.lengths), (5, vec![5, 5]));
    }
}
