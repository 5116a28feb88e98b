//! Products of few rows and many.

use super::*;

fn random(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Rows are the same bit for bit whatever rows they are computed with, on one thread or all.
#[test]
fn a_row_does_not_depend_on_the_others() {
    const ROWS: usize = 150;
    for (inputs, outputs, turned) in [
        (1, 20, false),
        (2, 20, true),
        (32, 16, false),
        (32, 16, true),
        (600, 1, false),
        (700, 24, false),
        (1100, 64, true),
        (1100, 96, false),
    ] {
        let x = random(ROWS * inputs);
        let weight = random(inputs * outputs);
        let right = match turned {
            true => transposed((&weight, Part::whole(outputs, inputs))),
            false => (&weight[..], Part::whole(inputs, outputs)),
        };
        let of = |first: usize, rows: usize| {
            let part = Part::new(first * inputs, rows, inputs, inputs);
            let ready = Ready::left(Arithmetic::F32, (&x, part));
            let shared = Ready::right(Arithmetic::F32, right);
            let mut added = vec![0.5; rows * outputs];
            let whole = Part::whole(rows, outputs);
            multiply_ready((&mut added, whole), (&ready, &shared), None, 1.0, true);
            let mut sums = vec![0.5; rows * outputs];
            add_product(&mut sums, (&x, part), right);
            (product((&x, part), right), added, sums)
        };
        let all = of(0, ROWS);
        for rows in [1, 2, 3, 7, 64, 65] {
            for first in [0, ROWS - rows] {
                let some = of(first, rows);
                let same = |all: &[f32], some: &[f32]| {
                    let all = &all[first * outputs..][..rows * outputs];
                    assert!(all == some, "{rows} rows of {inputs} to {outputs}");
                };
                same(&all.0, &some.0);
                same(&all.1, &some.1);
                same(&all.2, &some.2);
            }
        }
    }
}

/// Sums over rows are those of f64 to a few roundings, however many rows there are, in parts as in the whole.
#[test]
fn sums_over_rows_round_little() {
    for (rows, inputs, outputs) in [
        (1, 1, 1),
        (31, 8, 32),
        (700, 9, 33),
        (5000, 40, 70),
        (5000, 3, 130),
    ] {
        let (left, right) = (random(rows * (inputs + 3)), random(rows * outputs));
        let wide = Part::new(2, rows, inputs, inputs + 3);
        let of = |start: usize, count: usize, turned: bool| {
            let right_of = (
                &right[..],
                Part::whole(rows, outputs).some_rows(start, count),
            );
            let left_of = (&left[..], wide.some_rows(start, count));
            if !turned {
                return product_over_rows(left_of, right_of);
            }
            // The same values by columns.
            let turned: Vec<f32> = (0..inputs * count)
                .map(|at| left[2 + (start + at % count) * (inputs + 3) + at / count])
                .collect();
            let by_columns = transposed((&turned, Part::whole(inputs, count)));
            product_over_rows(by_columns, right_of)
        };
        let all = of(0, rows, false);
        assert!(all == of(0, rows, true));
        let first = rows / 3;
        let parts = [of(0, first, false), of(first, rows - first, false)];
        for (at, sum) in all.iter().enumerate() {
            let (input, output) = (at / outputs, at % outputs);
            let exact: f64 = (0..rows)
                .map(|row| {
                    let left = left[2 + row * (inputs + 3) + input];
                    f64::from(left) * f64::from(right[row * outputs + output])
                })
                .sum();
            // Of terms of which each is below 1: a few roundings of sums on the way, which are as large as their root, and
            // of the result.
            let close = 2e-7 * (rows as f64).sqrt() + 1.2e-7 * exact.abs();
            assert!((f64::from(*sum) - exact).abs() <= close, "{rows} rows");
            let of_parts = f64::from(parts[0][at] + parts[1][at]);
            assert!((of_parts - exact).abs() <= close, "{rows} rows");
        }
    }
}
