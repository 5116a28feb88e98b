//! Pictures cut into patches.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{build, dense, tensor, values};
use super::kernel::{Gradients, Kernel, Output};

/// The patches of pictures `[pictures, channels, height, width]`, a row each, `[pictures * rows * columns, channels * patch *
/// patch]`; what is left over at the right and lower edges is not read.
#[derive(Debug, Clone)]
pub(crate) struct Patches {
    pub(crate) patch: usize,
}

/// Where the values of patches stand in pictures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    shape: [usize; 4],
    patch: usize,
}

impl Places {
    /// Patches of a picture below each other and beside each other.
    fn grid(&self) -> [usize; 2] {
        let [_, _, height, width] = self.shape;
        [height / self.patch, width / self.patch]
    }

    /// Patches of a picture.
    fn count(&self) -> usize {
        let [rows, columns] = self.grid();
        rows * columns
    }

    /// Values of a patch.
    fn width(&self) -> usize {
        self.shape[1] * self.patch * self.patch
    }

    /// Where line `line` of the patch in row `row` begins: there are as many in each channel as it is high.
    fn start(&self, row: usize, line: usize) -> usize {
        let [_, channels, height, width] = self.shape;
        let ([_, columns], patch) = (self.grid(), self.patch);
        let (picture, place) = (row / self.count(), row % self.count());
        let (channel, inside) = (line / patch, line % patch);
        let above = (picture * channels + channel) * height + place / columns * patch + inside;
        above * width + place % columns * patch
    }
}

impl Kernel<1> for Patches {
    type Saved = Places;

    fn forward(&self, [pixels]: [FlexTensor; 1], _wanted: [bool; 1]) -> Output<Self::Saved> {
        let pixels = dense(pixels);
        let places = Places {
            shape: pixels.shape().dims(),
            patch: self.patch,
        };
        let (rows, width) = (places.shape[0] * places.count(), places.width());
        let read = values(&pixels);
        let patches = build(
            rows,
            width,
            #[inline(always)]
            |row, slot| {
                let copy = |line, slot: super::buffer::Slot<'_>| {
                    slot.copy(&read[places.start(row, line)..][..self.patch]).1
                };
                slot.rows(self.patch, copy).1
            },
        );
        (tensor(patches, [rows, width]), Some(places))
    }

    fn backward(&self, places: Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> Gradients<1> {
        let gradient = dense(gradient);
        let [pictures, channels, high, wide] = places.shape;
        let (rows, width) = (places.count(), places.width());
        let of_picture = (channels * high * wide).max(1);
        let mut pixels = vec![0.0; pictures * channels * high * wide];
        let read = values(&gradient).par_chunks(rows.max(1) * width);
        let written = pixels.par_chunks_mut(of_picture).zip(read);
        written.for_each(|(pixels, patches)| {
            for (row, patch) in patches.chunks_exact(width).enumerate() {
                for (line, values) in patch.chunks_exact(self.patch).enumerate() {
                    let start = places.start(row, line);
                    pixels[start..][..self.patch].copy_from_slice(values);
                }
            }
        });
        [Some(tensor(pixels, places.shape))]
    }
}
