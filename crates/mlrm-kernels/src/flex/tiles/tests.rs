//! Products beside sums in f64 of rounded factors.

use super::*;

/// To the nearest bf16, ties to even.
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// `lines` of `depth` terms that stand side by side, or one below the other.
fn factor(values: &[f32], lines: usize, depth: usize, across: bool) -> Lines<'_> {
    let (line_stride, term_stride) = if across { (1, lines) } else { (depth, 1) };
    Lines {
        values,
        start: 0,
        lines,
        depth,
        line_stride,
        term_stride,
    }
}

fn at(factor: &Lines<'_>, line: usize, term: usize) -> f64 {
    let index = line * factor.line_stride + term * factor.term_stride;
    f64::from(rounded(factor.values[index]))
}

/// What this processor can multiply tiles with, be it faster or not.
fn usable(test: &str) -> Vec<Instructions> {
    let all = [Instructions::Amx, Instructions::Avx512Bf16];
    let usable: Vec<_> = all.into_iter().filter(Instructions::usable).collect();
    if usable.is_empty() {
        eprintln!("SKIPPED {test}: the processor has neither AMX nor AVX512-BF16");
    }
    usable
}

/// A product, or the sum of two, as deep as `depths` says.
#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    by: Instructions,
    rows: usize,
    columns: usize,
    depths: &'a [usize],
    /// Whether the lines of left and right factors stand side by side.
    across: [bool; 2],
    scale: f32,
    add: bool,
}

fn check(case: Case<'_>) {
    let (rows, columns) = (case.rows, case.columns);
    let values = |lines: usize, seed: u64| -> Vec<Vec<f32>> {
        let seeds = seed..;
        let values = case.depths.iter().zip(seeds);
        values.map(|(d, seed)| random(lines * d, seed)).collect()
    };
    let (left, right) = (values(rows, 10), values(columns, 20));
    let pairs: Vec<_> = std::iter::zip(&left, &right)
        .zip(case.depths)
        .map(|((left, right), &depth)| {
            let left = factor(left, rows, depth, case.across[0]);
            (left, factor(right, columns, depth, case.across[1]))
        })
        .collect();
    // Rows of the result stand three values apart, which must stay as they are.
    let stride = columns + 3;
    let before = random(rows * stride, 3);
    let mut after = before.clone();
    let out = Out {
        values: after.as_mut_ptr(),
        rows,
        columns,
        stride,
    };
    // SAFETY: the instructions are usable; all sizes are those of the buffers.
    unsafe {
        let pack = |(left, right): &(Lines<'_>, Lines<'_>)| {
            (left.pack(true, false), right.pack(false, false))
        };
        let panels: Vec<_> = pairs.iter().map(pack).collect();
        let pair = |index: usize| {
            let (left, right) = panels.get(index)?;
            Some((left.from(0), right.from(0)))
        };
        let parallel = rows % 2 == 0;
        let pairs = (pair(0).expect("a pair"), pair(1));
        product_by(case.by, out, pairs, case.scale, case.add, parallel);
    };
    for (index, (found, old)) in after.iter().zip(&before).enumerate() {
        let (row, column) = (index / stride, index % stride);
        if column >= columns {
            assert_eq!(found, old, "the gap behind row {row}");
            continue;
        }
        let sum = |(left, right): &(Lines<'_>, Lines<'_>)| -> f64 {
            let terms = (0..left.depth).map(|term| at(left, row, term) * at(right, column, term));
            terms.sum()
        };
        let start = if case.add { f64::from(*old) } else { 0.0 };
        let exact = start + f64::from(case.scale) * pairs.iter().map(sum).sum::<f64>();
        let error = (exact - f64::from(*found)).abs();
        let terms: usize = case.depths.iter().sum();
        let allowed = 1e-6 * (terms as f64).sqrt() + 1e-6;
        assert!(
            error < allowed,
            "{case:?} at {row}, {column}: off by {error}"
        );
    }
}

#[test]
fn products_are_those_of_rounded_factors() {
    let sizes: [(usize, usize, &[usize]); _] = [
        (1, 1, &[1]),
        (16, 16, &[32]),
        (33, 47, &[65]),
        (100, 31, &[7]),
        (32, 64, &[1100]),
        (257, 290, &[64]),
        (23, 40, &[70, 5]),
        (64, 32, &[1100, 300]),
    ];
    for by in usable("products_are_those_of_rounded_factors") {
        for (rows, columns, depths) in sizes {
            for across in [[false, false], [false, true], [true, false], [true, true]] {
                for (scale, add) in [(1.0, false), (1.0, true), (0.3, false), (0.3, true)] {
                    check(Case {
                        by,
                        rows,
                        columns,
                        depths,
                        across,
                        scale,
                        add,
                    });
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (rows, columns, depth) = (300, 280, 1500);
    let (left, right) = (random(rows * depth, 4), random(columns * depth, 5));
    let run = |by: Instructions, parallel: bool| {
        let mut sums = vec![0.0_f32; rows * columns];
        let out = Out {
            values: sums.as_mut_ptr(),
            rows,
            columns,
            stride: columns,
        };
        let left = factor(&left, rows, depth, false);
        let right = factor(&right, columns, depth, true);
        // SAFETY: as above.
        unsafe {
            let (left, right) = (left.pack(true, parallel), right.pack(false, parallel));
            let pair = (left.from(0), right.from(0));
            product_by(by, out, (pair, None), 1.0, false, parallel);
        };
        sums
    };
    for by in usable("results_do_not_depend_on_the_number_of_threads") {
        assert_eq!(run(by, true), run(by, false));
    }
}
