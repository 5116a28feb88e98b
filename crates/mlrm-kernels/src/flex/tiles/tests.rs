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

fn check([rows, columns, depth]: [usize; 3], across: [bool; 2], scale: f32, add: bool) {
    let (left, right) = (random(rows * depth, 1), random(columns * depth, 2));
    let left = factor(&left, rows, depth, across[0]);
    let right = factor(&right, columns, depth, across[1]);
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
    // SAFETY: `available` was asked; all sizes are those of the buffers.
    unsafe {
        let (left, right) = (left.pack(true, false), right.pack(false, false));
        product(
            out,
            (left.from(0), right.from(0)),
            None,
            scale,
            add,
            depth % 2 == 0,
        );
    };
    for (index, (found, old)) in after.iter().zip(&before).enumerate() {
        let (row, column) = (index / stride, index % stride);
        if column >= columns {
            assert_eq!(found, old, "the gap behind row {row}");
            continue;
        }
        let terms = (0..depth).map(|term| at(&left, row, term) * at(&right, column, term));
        let start = if add { f64::from(*old) } else { 0.0 };
        let exact = start + f64::from(scale) * terms.sum::<f64>();
        let error = (exact - f64::from(*found)).abs();
        let allowed = 1e-6 * (depth as f64).sqrt() + 1e-6;
        let case = (rows, columns, depth, across, scale, add);
        assert!(
            error < allowed,
            "{case:?} at {row}, {column}: off by {error}"
        );
    }
}

#[test]
fn products_are_those_of_rounded_factors() {
    if !available() {
        eprintln!("SKIPPED products_are_those_of_rounded_factors: the processor has no AMX");
        return;
    }
    let sizes = [
        [1, 1, 1],
        [16, 16, 32],
        [33, 47, 65],
        [100, 31, 7],
        [32, 64, 1100],
        [257, 290, 64],
    ];
    for size in sizes {
        for across in [[false, false], [false, true], [true, false], [true, true]] {
            for (scale, add) in [(1.0, false), (1.0, true), (0.3, false), (0.3, true)] {
                check(size, across, scale, add);
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    if !available() {
        eprintln!(
            "SKIPPED results_do_not_depend_on_the_number_of_threads: the processor has no AMX"
        );
        return;
    }
    let (rows, columns, depth) = (300, 280, 1500);
    let (left, right) = (random(rows * depth, 4), random(columns * depth, 5));
    let run = |parallel: bool| {
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
            product(
                out,
                (left.from(0), right.from(0)),
                None,
                1.0,
                false,
                parallel,
            );
        };
        sums
    };
    assert_eq!(run(true), run(false));
}
