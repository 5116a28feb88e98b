//! Absolute positions of the patches of a square grid: fixed sines and cosines, and stretching.

use burn::tensor::{DType, Tensor, TensorData};

/// 2-d sine and cosine positions of a `grid` by `grid` square, `[grid², width]` row-major (MAE, arXiv
/// 2111.06377): half of the channels tell the column, half the row; each half is `[sin, cos]` of the
/// coordinate over 10000^(2i / (width / 2)).
///
/// `width` must be a multiple of 4.
pub fn sin_cos_2d(width: usize, grid: usize) -> Vec<f32> {
    let quarter = width / 4;
    let angle = |at: usize, i: usize| at as f64 / 10_000f64.powf(i as f64 / quarter as f64);
    let mut values = Vec::with_capacity(grid * grid * width);
    for row in 0..grid {
        for column in 0..grid {
            for at in [column, row] {
                values.extend((0..quarter).map(|i| angle(at, i).sin() as f32));
                values.extend((0..quarter).map(|i| angle(at, i).cos() as f32));
            }
        }
    }
    values
}

/// How positions are interpolated, by the arguments of PyTorch's `interpolate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// `mode="bicubic"`
    Bicubic,
    /// `mode="bicubic", antialias=True`
    BicubicAntialiased,
    /// `mode="bilinear", align_corners=True`
    BilinearCorners,
}

/// Positions `[stored, width]` of a square grid, stretched to one of `rows` by `columns` positions.
///
/// That is linear in the stored values: one matrix product, in f32. The count of those stored must be a square.
pub fn resize_positions(
    stored: Tensor<2>,
    [rows, columns]: [usize; 2],
    interpolation: Interpolation,
) -> Tensor<2> {
    let [count, _] = stored.dims();
    let from = count.isqrt();
    if [rows, columns] == [from, from] {
        return stored;
    }
    let along = |to: usize| match interpolation {
        Interpolation::Bicubic => bicubic(from, to),
        Interpolation::BicubicAntialiased => bicubic_antialiased(from, to),
        Interpolation::BilinearCorners => bilinear_corners(from, to),
    };
    let wanted = rows * columns;
    let mut both = Vec::with_capacity(wanted * count);
    let (down, across) = (along(rows), along(columns));
    for rows in &down {
        for columns in &across {
            for row in rows {
                both.extend(columns.iter().map(|column| (row * column) as f32));
            }
        }
    }
    let matrix = TensorData::new(both, [wanted, count]);
    let matrix = Tensor::<2>::from_data(matrix, (&stored.device(), DType::F32));
    let dtype = stored.dtype();
    matrix.matmul(stored.cast(DType::F32)).cast(dtype)
}

/// Keys' kernel.
fn keys(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Weights of `from` samples in each of `to` new ones along one axis. Samples outside are the
/// outermost ones. The `a` is PyTorch's.
fn bicubic(from: usize, to: usize) -> Vec<Vec<f64>> {
    let weights = |index: usize| {
        let at = (index as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let first = at.floor();
        let mut weights = vec![0.0; from];
        for step in -1..=2 {
            let sample = first + f64::from(step);
            let inside = sample.clamp(0.0, from as f64 - 1.0) as usize;
            weights[inside] += keys(at - sample, -0.75);
        }
        weights
    };
    (0..to).map(weights).collect()
}

/// Weights of the two samples that a new one lies between, the first and the last of both being the same.
fn bilinear_corners(from: usize, to: usize) -> Vec<Vec<f64>> {
    let step = (from - 1) as f64 / (to - 1).max(1) as f64;
    let weights = |index: usize| {
        let at = index as f64 * step;
        let mut weights = vec![0.0; from];
        let first = (at.floor() as usize).min(from - 1);
        weights[first] += 1.0 - at.fract();
        weights[(first + 1).min(from - 1)] += at.fract();
        weights
    };
    (0..to).map(weights).collect()
}

/// The same with antialiasing: the kernel, whose `a` is Pillow's then, is as wide as a new sample, and
/// samples outside do not count.
fn bicubic_antialiased(from: usize, to: usize) -> Vec<Vec<f64>> {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let weights = |index: usize| {
        let centre = scale * (index as f64 + 0.5);
        let reach = |end: f64| (end + 0.5).clamp(0.0, from as f64) as usize;
        let (first, end) = (reach(centre - 2.0 * wide), reach(centre + 2.0 * wide));
        let mut weights = vec![0.0; from];
        for (sample, weight) in weights.iter_mut().enumerate().take(end).skip(first) {
            *weight = keys((sample as f64 - centre + 0.5) / wide, -0.5);
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights
    };
    (0..to).map(weights).collect()
}
