//! States of a language model that does not learn, kept by prompt.
//!
//! With `tune = "frozen"` a prompt without visual tokens has the same pooled state in every step (variants `text` and
//! `latefusion`). It is computed once, so that from the second pass over the notes on a step is the head alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};

use super::forward::rows_at;
use super::{EmbedderCore, SequenceLayout, TokenBatch};
use crate::decoder::DecoderInput;
use crate::error::ModelError;
use crate::transfer::upload;

/// Most bytes of a [`StateCache`]; prompts past them are computed each time.
pub const STATE_CACHE_BYTES: u64 = 1 << 30;

/// Prompts that are computed at a time, all of one length: a matrix product may round differently in another size, and
/// a prompt is to have the same state whichever others come with it.
const PROMPTS_AT_A_TIME: usize = 8;

/// Bytes of an entry besides ids and values.
const ENTRY_BYTES: u64 = 96;

/// Pooled states `[d]` by token ids, in memory.
#[derive(Debug, Default)]
pub struct StateCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    states: HashMap<Box<[i32]>, Arc<[u8]>>,
    bytes: u64,
}

impl StateCache {
    /// Bytes that a prompt of `tokens` takes whose state has `state_bytes`.
    pub fn entry_bytes(tokens: u64, state_bytes: u64) -> u64 {
        ENTRY_BYTES + size_of::<i32>() as u64 * tokens + state_bytes
    }

    /// The states of `prompts`, one behind the other. `compute` gives those of the prompts at
    /// [`PROMPTS_AT_A_TIME`] places, which are of one length.
    fn states(
        &self,
        prompts: &[&[i32]],
        mut compute: impl FnMut(&[usize]) -> Result<Vec<u8>, ModelError>,
    ) -> Result<Vec<u8>, ModelError> {
        let mut found: HashMap<&[i32], Arc<[u8]>> = HashMap::new();
        let mut missing: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let mut seen = HashSet::new();
            for (place, prompt) in prompts.iter().enumerate() {
                match kept.states.get(*prompt) {
                    Some(state) => drop(found.insert(prompt, Arc::clone(state))),
                    None if seen.insert(*prompt) => {
                        missing.entry(prompt.len()).or_default().push(place);
                    }
                    None => {}
                }
            }
        }
        for places in missing.into_values().flat_map(|places| in_chunks(&places)) {
            let states = compute(&places)?;
            let each = states.chunks_exact(states.len() / places.len());
            for (&place, state) in places.iter().zip(each) {
                let state = found.entry(prompts[place]).or_insert_with(|| state.into());
                self.keep(prompts[place], state);
            }
        }
        Ok(prompts
            .iter()
            .flat_map(|prompt| found[prompt].to_vec())
            .collect())
    }

    fn keep(&self, prompt: &[i32], state: &Arc<[u8]>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes + Self::entry_bytes(prompt.len() as u64, state.len() as u64);
        if bytes > STATE_CACHE_BYTES || kept.states.contains_key(prompt) {
            return;
        }
        kept.bytes = bytes;
        kept.states.insert(prompt.into(), Arc::clone(state));
    }
}

/// `places` by [`PROMPTS_AT_A_TIME`], the last ones filled up by repeating one.
fn in_chunks(places: &[usize]) -> Vec<Vec<usize>> {
    let filled = |chunk: &[usize]| {
        let mut chunk = chunk.to_vec();
        chunk.resize(PROMPTS_AT_A_TIME, chunk[0]);
        chunk
    };
    places.chunks(PROMPTS_AT_A_TIME).map(filled).collect()
}

impl EmbedderCore {
    /// The pooled states of a batch without visual tokens, `[notes, 1, d]`, computed where they are not known.
    ///
    /// # Errors
    /// A device that states cannot be read from.
    pub(super) fn known_states(
        &self,
        cache: &StateCache,
        tokens: &TokenBatch,
        layout: &SequenceLayout,
        input: &DecoderInput,
    ) -> Result<Tensor<3>, ModelError> {
        let rows = tokens.input_ids.chunks_exact(tokens.seq.max(1));
        let prompts = rows.zip(&tokens.lengths);
        let prompts: Vec<&[i32]> = prompts.map(|(row, &length)| &row[..length]).collect();
        let (device, dtype) = (input.embeds.device(), input.embeds.dtype());
        let states = cache.states(&prompts, |places| {
            let length = prompts[places[0]].len();
            let embeds = rows_at(input.embeds.clone(), places).narrow(1, 0, length);
            let last = places.iter().map(|&place| layout.final_position[place]);
            let states = self.llm.forward_pooled(embeds, &last.collect::<Vec<_>>());
            let data = states.try_into_data();
            let data = data.map_err(|e| ModelError::unreadable("states", e))?;
            Ok(data.as_bytes().to_vec())
        })?;
        let width = states.len() / (prompts.len() * dtype.size()).max(1);
        let data = TensorData::from_bytes_vec(states, [prompts.len(), 1, width], dtype);
        Ok(upload(data, (&device, dtype)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_computed_once_beside_others_of_its_length() {
        let cache = StateCache::default();
        let prompts: Vec<Vec<i32>> = (0..12).map(|n| vec![n; 1 + n as usize % 2]).collect();
        let mut computed = Vec::new();
        let mut ask = |asked: &[usize]| {
            let asked: Vec<&[i32]> = asked.iter().map(|&n| prompts[n].as_slice()).collect();
            let mut places = Vec::new();
            let states = cache.states(&asked, |at| {
                assert_eq!(at.len(), PROMPTS_AT_A_TIME);
                assert!(at.iter().all(|&p| asked[p].len() == asked[at[0]].len()));
                places.extend(at.iter().map(|&place| asked[place][0]));
                Ok(at.iter().flat_map(|&p| [asked[p][0] as u8, 7]).collect())
            });
            places.sort_unstable();
            places.dedup();
            computed.push(places);
            states.expect("states")
        };
        assert_eq!(ask(&[3, 3, 0, 5]), [3, 7, 3, 7, 0, 7, 5, 7]);
        assert_eq!(ask(&[0, 4, 3]), [0, 7, 4, 7, 3, 7]);
        let all: Vec<usize> = (0..12).collect();
        assert_eq!(ask(&all).len(), 24);
        let first = vec![vec![0, 3, 5], vec![4]];
        assert_eq!(computed[..2], first);
        assert_eq!(computed[2], [1, 2, 6, 7, 8, 9, 10, 11]);
    }
}
