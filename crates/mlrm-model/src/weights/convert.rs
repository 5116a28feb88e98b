//! From stored bytes to values in the run's number format, in the module's layout, in one pass.
//!
//! The work is shared by all processors. A matrix that is stored transposed is turned in tiles that
//! fit the first-level cache: a plain double loop would miss the cache at every element.

use std::ops::Range;

use burn::tensor::{DType, Element, TensorData};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// Elements that one task converts.
const BLOCK: usize = 1 << 16;

/// Elements after which the source's memory is given back.
const GROUP: usize = 1 << 23;

/// Side of a tile of a matrix that is turned: 64 rows of 64 values, at most 16 KiB.
const TILE: usize = 64;

/// How a tensor's bytes become a parameter.
pub(super) struct Source<'a> {
    /// The bytes, little-endian and row-major.
    pub(super) bytes: &'a [u8],
    /// Their number format.
    pub(super) dtype: Dtype,
    /// The stored shape.
    pub(super) shape: &'a [usize],
    /// Told which bytes will not be read again.
    pub(super) release: &'a (dyn Fn(Range<usize>) + Sync),
}

/// What the parameter is to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    /// Number format.
    pub(super) dtype: DType,
    /// Turn a stored matrix `[rows, columns]` into `[columns, rows]`.
    pub(super) transposed: bool,
    /// Rows that the stored ones do not have, or that are to be made anew.
    pub(super) new_rows: Option<&'a NewRows>,
}

/// Rows of a lookup table that start as the mean of others (method §1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRows {
    /// Rows that the stored table has.
    pub stored_rows: usize,
    /// Rows below this index count for the mean, but for those in `ids`: padding does not.
    pub known_rows: usize,
    /// The rows that become the mean. Those behind the stored ones must be among them.
    pub ids: Vec<u32>,
}

impl NewRows {
    /// Rows of the resulting table.
    pub fn rows(&self) -> usize {
        let last = self.ids.iter().max().map_or(0, |&id| id as usize + 1);
        self.stored_rows.max(last)
    }
}

/// A parameter's data, and how many of its values are NaN or infinite.
pub(super) struct Converted {
    pub(super) data: TensorData,
    pub(super) not_finite: usize,
}

/// A number format that parameters can have.
trait Value: Element + Copy + Send + Sync {
    fn zeros(count: usize) -> Vec<Self>;
    fn of_f32(value: f32) -> Self;
    fn of_bf16(value: bf16) -> Self {
        Self::of_f32(value.to_f32())
    }
    fn of_f16(value: f16) -> Self {
        Self::of_f32(value.to_f32())
    }
    fn is_finite(self) -> bool;
}

impl Value for f32 {
    fn zeros(count: usize) -> Vec<Self> {
        vec![0.0; count]
    }
    fn of_f32(value: f32) -> Self {
        value
    }
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

/// `$same` is the conversion from the format itself, which changes no bit.
macro_rules! half_value {
    ($format:ty, $same:ident) => {
        impl Value for $format {
            fn zeros(count: usize) -> Vec<Self> {
                // Zeros of an integer come untouched from the system, those of a struct are written.
                vec![0u16; count].reinterpret_into()
            }
            fn of_f32(value: f32) -> Self {
                Self::from_f32(value)
            }
            fn $same(value: $format) -> Self {
                value
            }
            fn is_finite(self) -> bool {
                <$format>::is_finite(self)
            }
        }
    };
}
half_value!(bf16, of_bf16);
half_value!(f16, of_f16);

/// Converts a tensor; `None` where it is not of floating point.
pub(super) fn convert(source: &Source<'_>, wanted: &Wanted<'_>) -> Option<Converted> {
    match wanted.dtype {
        DType::BF16 => to::<bf16>(source, wanted),
        DType::F16 => to::<f16>(source, wanted),
        _ => to::<f32>(source, wanted),
    }
}

fn to<E: Value>(source: &Source<'_>, wanted: &Wanted<'_>) -> Option<Converted> {
    Some(match source.dtype {
        Dtype::F32 => place(source, wanted, |v| E::of_f32(f32::from_le_bytes(v))),
        Dtype::F64 => place(source, wanted, |v| E::of_f32(f64::from_le_bytes(v) as f32)),
        Dtype::BF16 => place(source, wanted, |v| E::of_bf16(bf16::from_le_bytes(v))),
        Dtype::F16 => place(source, wanted, |v| E::of_f16(f16::from_le_bytes(v))),
        _ => return None,
    })
}

fn place<const N: usize, E: Value>(
    source: &Source<'_>,
    wanted: &Wanted<'_>,
    value: impl Fn([u8; N]) -> E + Sync,
) -> Converted {
    let (elements, _) = source.bytes.as_chunks::<N>();
    let mut shape = source.shape.to_vec();
    let (values, not_finite) = match (shape.as_mut_slice(), wanted.new_rows) {
        ([rows, columns], _) if wanted.transposed => {
            let mut out = E::zeros(elements.len());
            let not_finite = turn(elements, *columns, &mut out, &value);
            std::mem::swap(rows, columns);
            (source.release)(0..source.bytes.len());
            (out, not_finite)
        }
        ([rows, columns], Some(new)) => {
            *rows = new.rows();
            let mut out = E::zeros(*rows * *columns);
            let not_finite = copy(elements, &mut out, &value, source.release);
            fill_new_rows(&mut out, *columns, new);
            (out, not_finite)
        }
        _ => {
            let mut out = E::zeros(elements.len());
            let not_finite = copy(elements, &mut out, &value, source.release);
            (out, not_finite)
        }
    };
    Converted {
        data: TensorData::new(values, shape),
        not_finite,
    }
}

/// `elements` in their order.
fn copy<const N: usize, E: Value>(
    elements: &[[u8; N]],
    out: &mut [E],
    value: &(impl Fn([u8; N]) -> E + Sync),
    release: &(dyn Fn(Range<usize>) + Sync),
) -> usize {
    let block = |(from, to): (&[[u8; N]], &mut [E])| {
        let mut not_finite = 0;
        for (&bytes, slot) in from.iter().zip(to) {
            *slot = value(bytes);
            not_finite += usize::from(!slot.is_finite());
        }
        not_finite
    };
    let mut not_finite = 0;
    let mut done = 0;
    for (from, to) in elements.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
        let blocks = from.par_chunks(BLOCK).zip(to.par_chunks_mut(BLOCK));
        not_finite += blocks.map(block).sum::<usize>();
        release(done..done + from.len() * N);
        done += from.len() * N;
    }
    not_finite
}

/// A matrix `[rows, columns]` as `[columns, rows]`.
fn turn<const N: usize, E: Value>(
    elements: &[[u8; N]],
    columns: usize,
    out: &mut [E],
    value: &(impl Fn([u8; N]) -> E + Sync),
) -> usize {
    let rows = elements.len().checked_div(columns).unwrap_or(0);
    // A band is TILE columns of the stored matrix: TILE whole rows of the result.
    let band = |(index, out): (usize, &mut [E])| {
        let first = index * TILE;
        let width = out.len() / rows;
        // The tile is copied first: rows that are a power of two apart would otherwise evict each
        // other from the cache.
        let mut tile = [[E::of_f32(0.0); TILE]; TILE];
        let mut not_finite = 0;
        for top in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - top);
            for (r, line) in tile.iter_mut().take(height).enumerate() {
                let start = (top + r) * columns + first;
                for (slot, &bytes) in line.iter_mut().zip(&elements[start..start + width]) {
                    *slot = value(bytes);
                    not_finite += usize::from(!slot.is_finite());
                }
            }
            for (c, row) in out.chunks_exact_mut(rows).enumerate() {
                for (slot, line) in row[top..top + height].iter_mut().zip(&tile) {
                    *slot = line[c];
                }
            }
        }
        not_finite
    };
    out.par_chunks_mut((TILE * rows).max(1))
        .enumerate()
        .map(band)
        .sum()
}

/// Writes the mean of the known rows into the new ones.
fn fill_new_rows<E: Value>(table: &mut [E], width: usize, new: &NewRows) {
    let known = new.known_rows.min(new.stored_rows);
    let is_new: std::collections::HashSet<usize> = new.ids.iter().map(|&id| id as usize).collect();
    let rows_a_task = BLOCK.div_ceil(width.max(1));
    let partial = |(task, rows): (usize, &[E])| {
        let mut sums = vec![0.0f64; width];
        for (r, row) in rows.chunks_exact(width.max(1)).enumerate() {
            if !is_new.contains(&(task * rows_a_task + r)) {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += f64::from(value.to_f32());
                }
            }
        }
        sums
    };
    // Collected in order, so that the sum does not depend on which task ends first.
    let partials: Vec<Vec<f64>> = table[..known * width]
        .par_chunks((rows_a_task * width).max(1))
        .enumerate()
        .map(partial)
        .collect();
    let count = known - is_new.iter().filter(|&&row| row < known).count();
    let mean: Vec<E> = (0..width)
        .map(|c| partials.iter().map(|sums| sums[c]).sum::<f64>() / count.max(1) as f64)
        .map(|mean| E::of_f32(mean as f32))
        .collect();
    for &row in &is_new {
        table[row * width..(row + 1) * width].copy_from_slice(&mean);
    }
}
