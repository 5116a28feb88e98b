//! Pillow's `Image.resize` for 8-bit RGB, bit for bit.
//!
//! The faster libraries pass over the axes in another order or round their weights to 16 bits, and
//! since the picture is rounded to bytes between the two passes, sharp edges then differ by up to a
//! twentieth of the range. Pillow (`Resample.c`): rows first, weights in f64 rounded to 22 binary
//! places, sums in i32, bytes after each pass.

use super::config::Resample;

const CHANNELS: usize = 3;

/// Binary places of the weights: 8 bits of the pixel and 2 for overshoot are left of 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A resize of one axis, of which only some outputs are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    /// Pixels before.
    pub input: u32,
    /// Pixels after.
    pub output: u64,
    /// First output wanted.
    pub from: u64,
    /// Outputs wanted.
    pub count: u32,
}

/// What one output pixel is made of: `weights` times the inputs from `start` on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// The wanted part of a resized picture, `[rows.count, columns.count, 3]`. `pixels` is
/// `[rows.input, columns.input, 3]`.
pub(super) fn resample(pixels: &[u8], rows: &Axis, columns: &Axis, filter: Resample) -> Vec<u8> {
    let row_taps = taps(rows, filter);
    let column_taps = taps(columns, filter);
    // Only the input rows that the second pass reads go through the first.
    let first = row_taps.iter().map(|taps| taps.start).min().unwrap_or(0);
    let ends = row_taps.iter().map(|taps| taps.start + taps.weights.len());
    let last = ends.max().unwrap_or(0);
    let input_row = columns.input as usize * CHANNELS;
    let row = columns.count as usize * CHANNELS;
    let mut between = vec![0; (last - first) * row];
    let inputs = pixels[first * input_row..last * input_row].chunks_exact(input_row);
    for (input, output) in inputs.zip(between.chunks_exact_mut(row)) {
        along_row(input, &column_taps, output);
    }
    let mut resized = vec![0; row_taps.len() * row];
    let mut sums = vec![0; row];
    for (taps, output) in row_taps.iter().zip(resized.chunks_exact_mut(row)) {
        let inputs = between[(taps.start - first) * row..].chunks_exact(row);
        across_rows(inputs, &taps.weights, &mut sums, output);
    }
    resized
}

/// One row, resized along itself.
fn along_row(input: &[u8], taps: &[Taps], output: &mut [u8]) {
    for (taps, output) in taps.iter().zip(output.chunks_exact_mut(CHANNELS)) {
        let mut sums = [1 << (PRECISION_BITS - 1); CHANNELS];
        let inputs = input[taps.start * CHANNELS..].chunks_exact(CHANNELS);
        for (pixel, &weight) in inputs.zip(&taps.weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        for (output, sum) in output.iter_mut().zip(sums) {
            *output = byte(sum);
        }
    }
}

/// One output row from several input rows.
fn across_rows<'a>(
    inputs: impl Iterator<Item = &'a [u8]>,
    weights: &[i32],
    sums: &mut [i32],
    output: &mut [u8],
) {
    sums.fill(1 << (PRECISION_BITS - 1));
    for (input, &weight) in inputs.zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(input) {
            *sum += i32::from(value) * weight;
        }
    }
    for (output, &sum) in output.iter_mut().zip(sums.iter()) {
        *output = byte(sum);
    }
}

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The weights of each wanted output (`precompute_coeffs` and `normalize_coeffs_8bpc`).
fn taps(axis: &Axis, filter: Resample) -> Vec<Taps> {
    let identity = axis.output == u64::from(axis.input);
    let scale = f64::from(axis.input) / axis.output as f64;
    // Antialiasing: where the picture shrinks, the filter widens.
    let widening = scale.max(1.0);
    let narrowing = 1.0 / widening;
    let reach = support(filter) * widening;
    let outputs = axis.from..axis.from + u64::from(axis.count);
    outputs
        .map(|output| {
            if identity {
                return Taps {
                    start: output as usize,
                    weights: vec![1 << PRECISION_BITS],
                };
            }
            let center = (output as f64 + 0.5) * scale;
            // Casts cut towards zero and at zero, as Pillow's do.
            let start = (center - reach + 0.5) as usize;
            let end = ((center + reach + 0.5) as usize).min(axis.input as usize);
            let weight = |input| weight(filter, (input as f64 - center + 0.5) * narrowing);
            let weights: Vec<f64> = (start..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| fixed(if sum == 0.0 { *weight } else { weight / sum });
            Taps {
                start,
                weights: weights.iter().map(fixed).collect(),
            }
        })
        .collect()
}

/// A weight with [`PRECISION_BITS`] binary places, halves away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << PRECISION_BITS);
    (scaled + 0.5f64.copysign(scaled)) as i32
}

/// How far a filter reaches, in pixels of the smaller picture.
fn support(filter: Resample) -> f64 {
    match filter {
        Resample::Box => 0.5,
        Resample::Bilinear | Resample::Hamming => 1.0,
        Resample::Bicubic => 2.0,
        Resample::Lanczos => 3.0,
    }
}

/// A filter at a distance from its centre.
fn weight(filter: Resample, x: f64) -> f64 {
    use std::f64::consts::PI;
    let sinc = |x: f64| match x {
        0.0 => 1.0,
        x => (x * PI).sin() / (x * PI),
    };
    match filter {
        Resample::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
        Resample::Bilinear => (1.0 - x.abs()).max(0.0),
        Resample::Hamming if x.abs() >= 1.0 => 0.0,
        Resample::Hamming => sinc(x) * (0.54 + 0.46 * (x * PI).cos()),
        Resample::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        Resample::Lanczos => 0.0,
        Resample::Bicubic => cubic(x.abs()),
    }
}

/// Keys' cubic with a = -0.5, which is Catmull-Rom's.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
