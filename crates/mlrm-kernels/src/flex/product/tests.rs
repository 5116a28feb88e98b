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
