//! How often the notes of a batch are drawn, for in-batch negatives that are no uniform sample.

use mlrm_data::split::Pair;

/// Share of the training pairs that hold a note on each side.
///
/// Pairs are drawn uniformly, so this is the probability that a given place of a batch holds the
/// note, and the softmax over a batch learns p(partner | note) only up to it: logits are corrected
/// by its logarithm (Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
/// Recommendations", RecSys 2019, equation 3).
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingShares {
    query: Vec<f32>,
    target: Vec<f32>,
}

impl SamplingShares {
    /// The shares in `pairs` of `notes` notes.
    pub fn new(pairs: &[Pair], notes: usize) -> Self {
        let shares = |row: fn(&Pair) -> u32| {
            let mut counts = vec![0_u32; notes];
            for pair in pairs {
                counts[row(pair) as usize] += 1;
            }
            let share = |count| (f64::from(count) / pairs.len() as f64) as f32;
            counts.into_iter().map(share).collect()
        };
        Self {
            query: shares(|pair| pair.query),
            target: shares(|pair| pair.target),
        }
    }

    /// The logarithm of the share of each note of a batch on its side: `rows` are queries first,
    /// then as many targets, all of them of the pairs. `[notes]`
    pub fn logarithms(&self, rows: &[u32]) -> Vec<f32> {
        let (queries, targets) = rows.split_at(rows.len() / 2);
        let of = |shares: &[f32], row: u32| shares[row as usize].ln();
        let queries = queries.iter().map(|&row| of(&self.query, row));
        let targets = targets.iter().map(|&row| of(&self.target, row));
        queries.chain(targets).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_on_each_side() {
        let pair = |query, target| Pair {
            query,
            target,
            weight: 1.0,
        };
        let pairs = [pair(0, 2), pair(0, 3), pair(2, 3), pair(3, 0)];
        let shares = SamplingShares::new(&pairs, 4);
        let logarithms = shares.logarithms(&[0, 2, 3, 0]);
        let expected = [0.5_f32.ln(), 0.25_f32.ln(), 0.5_f32.ln(), 0.25_f32.ln()];
        assert_eq!(logarithms, expected);
    }
}
