//! How the embeddings of a few pairs of notes lie to each other: whether partners are near, others far,
//! and how many directions are used.

use crate::score::dot;

/// Figures of some pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean cosine of partners.
    pub positive_similarity: f64,
    /// Mean cosine of notes that are not related.
    pub negative_similarity: f64,
    /// `exp` of the entropy of the singular values' shares (Roy & Vetterli 2007; RankMe, Garrido et al.
    /// 2023): the directions that the embeddings use, from 1 to the number of notes or dimensions.
    pub effective_rank: f64,
    /// `log E exp(−2‖x − y‖²)` over notes that are not the same, as in [`crate::Geometry`].
    pub uniformity: f64,
    /// `E ‖x − y‖²` over partners, as in [`crate::Geometry`].
    pub alignment: f64,
}

/// The figures of `values`, `[notes, width]` normalised, row-major, where note i and note i + notes/2
/// are partners. `related[i * notes + j]`: the two are the same note or known partners, and so no
/// negatives of each other. Figures of which there is no pair are NaN.
///
/// # Panics
/// Where `related` is not `[notes, notes]`.
pub fn spread(values: &[f32], width: usize, related: &[bool]) -> Spread {
    let rows: Vec<&[f32]> = values.chunks_exact(width.max(1)).collect();
    let notes = rows.len();
    assert_eq!(related.len(), notes * notes, "one entry a pair of notes");
    let (mut positive, mut negative, mut near) =
        (Mean::default(), Mean::default(), Mean::default());
    for (i, x) in rows.iter().enumerate() {
        for (j, y) in rows.iter().enumerate().skip(i + 1) {
            let cosine = f64::from(dot(x, y));
            let squared_distance = (2.0 - 2.0 * cosine).max(0.0);
            if j == i + notes / 2 {
                positive.add(cosine);
            }
            if !related[i * notes + j] {
                negative.add(cosine);
                near.add((-2.0 * squared_distance).exp());
            }
        }
    }
    Spread {
        positive_similarity: positive.value(),
        negative_similarity: negative.value(),
        effective_rank: effective_rank(&rows, width),
        uniformity: near.value().ln(),
        alignment: (2.0 - 2.0 * positive.value()).max(0.0),
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> f64 {
        self.sum / self.count as f64
    }
}

fn effective_rank(rows: &[&[f32]], width: usize) -> f64 {
    // The singular values are the roots of the eigenvalues of the smaller of the two products.
    let matrix = if rows.len() <= width {
        symmetric(rows.len(), |i, j| f64::from(dot(rows[i], rows[j])))
    } else {
        symmetric(width, |i, j| {
            rows.iter()
                .map(|row| f64::from(row[i]) * f64::from(row[j]))
                .sum()
        })
    };
    let singular: Vec<f64> = eigenvalues(matrix)
        .into_iter()
        .map(|value| value.max(0.0).sqrt())
        .collect();
    let sum: f64 = singular.iter().sum();
    let shares = singular
        .iter()
        .map(|value| value / sum)
        .filter(|p| *p > 0.0);
    let entropy: f64 = shares.map(|p| -p * p.ln()).sum();
    entropy.exp()
}

fn symmetric(size: usize, entry: impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    (0..size)
        .map(|i| (0..size).map(|j| entry(i, j)).collect())
        .collect()
}

/// Sweeps after which a matrix counts as diagonal; few hundred rows take about ten.
const MOST_SWEEPS: usize = 50;

/// The eigenvalues of a symmetric matrix, in no order, by Jacobi's rotations.
fn eigenvalues(mut a: Vec<Vec<f64>>) -> Vec<f64> {
    let size = a.len();
    let whole: f64 = a.iter().flatten().map(|x| x * x).sum();
    for _ in 0..MOST_SWEEPS {
        let off: f64 = (0..size)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a[i][j] * a[i][j])
            .sum();
        if off <= 1e-18 * whole || off.is_nan() {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut a, p, q);
            }
        }
    }
    (0..size).map(|i| a[i][i]).collect()
}

/// Makes the entry at `p`, `q` zero.
fn rotate(a: &mut [Vec<f64>], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for row in a.iter_mut() {
        let (x, y) = (row[p], row[q]);
        (row[p], row[q]) = (c * x - s * y, s * x + c * y);
    }
    let (above, from_q) = a.split_at_mut(q);
    for (x, y) in above[p].iter_mut().zip(&mut from_q[0]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The partners are the only related notes.
    fn partners(notes: usize) -> Vec<bool> {
        (0..notes * notes)
            .map(|at| (at / notes) % (notes / 2) == (at % notes) % (notes / 2))
            .collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn orthogonal_pairs_use_a_direction_each() {
        // e1, e2, e3, e1, e2, e3
        let values: Vec<f32> = (0..6)
            .flat_map(|note| (0..5).map(move |axis| f32::from(u8::from(axis == note % 3))))
            .collect();
        let found = spread(&values, 5, &partners(6));
        close(found.positive_similarity, 1.0);
        close(found.negative_similarity, 0.0);
        close(found.effective_rank, 3.0);
        close(found.uniformity, -4.0);
        close(found.alignment, 0.0);
    }

    #[test]
    fn one_point_has_one_direction() {
        let found = spread(&[0.6, 0.8].repeat(8), 2, &partners(8));
        close(found.positive_similarity, 1.0);
        close(found.negative_similarity, 1.0);
        close(found.effective_rank, 1.0);
        close(found.uniformity, 0.0);
    }

    #[test]
    fn both_products_give_the_same_rank() {
        // Singular values 2 and 1 of any shape: shares 2/3 and 1/3.
        let wide = [2.0_f32, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        let tall = [2.0_f32, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let (p, q) = (2.0 / 3.0_f64, 1.0 / 3.0_f64);
        let expected = (-p * p.ln() - q * q.ln()).exp();
        let rank = |values: &[f32], width| {
            let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
            effective_rank(&rows, width)
        };
        close(rank(&wide, 4), expected);
        close(rank(&tall, 2), expected);
    }

    #[test]
    fn eigenvalues_are_those_of_a_rotated_diagonal() {
        // 3 x 3 with eigenvalues 1, 2, 4: Q diag Qᵀ for a Q of three rotations.
        let mut matrix = vec![
            vec![1.0, 0.0, 0.0],
            vec![0.0, 2.0, 0.0],
            vec![0.0, 0.0, 4.0],
        ];
        for (p, q, angle) in [(0, 1, 0.7_f64), (1, 2, -0.4), (0, 2, 1.1)] {
            let (s, c) = angle.sin_cos();
            for row in matrix.iter_mut() {
                let (x, y) = (row[p], row[q]);
                (row[p], row[q]) = (c * x - s * y, s * x + c * y);
            }
            let (above, from_q) = matrix.split_at_mut(q);
            for (x, y) in above[p].iter_mut().zip(&mut from_q[0]) {
                (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
            }
        }
        let mut found = eigenvalues(matrix);
        found.sort_by(f64::total_cmp);
        for (found, expected) in found.into_iter().zip([1.0, 2.0, 4.0]) {
            close(found, expected);
        }
    }
}
