//! Factors rounded to bf16 and laid out in tiles.

use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};
use std::ops::Range;

use rayon::prelude::*;

use super::{DEPTH, SIDE};

/// Sixteen rows of sixteen pairs of bf16 values (left factor), or sixteen pairs of sixteen columns (right factor):
/// the form that the products read.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile([__m512i; SIDE]);

/// A factor: `lines` rows of the left one (columns of the right one), each of `depth` terms.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Lines<'a> {
    pub(in super::super) values: &'a [f32],
    pub(in super::super) start: usize,
    pub(in super::super) lines: usize,
    pub(in super::super) depth: usize,
    /// Between the first terms of two lines.
    pub(in super::super) line_stride: usize,
    /// Between two terms of a line.
    pub(in super::super) term_stride: usize,
}

impl Lines<'_> {
    /// Whether the values stand so that vectors can read them.
    pub(in super::super) fn readable(&self) -> bool {
        self.line_stride == 1 || self.term_stride == 1
    }

    /// The lines in tiles of the left or of the right factor.
    ///
    /// # Safety
    /// [`available`] is true, and all values of the lines lie in `values`.
    pub(in super::super) unsafe fn pack(&self, left: bool, parallel: bool) -> Panels {
        let (panels, depth) = (self.lines.div_ceil(SIDE), self.depth.div_ceil(DEPTH));
        let mut tiles = Vec::with_capacity(panels * depth);
        let room = &mut tiles.spare_capacity_mut()[..panels * depth];
        let work = |(panel, tiles): (usize, &mut [MaybeUninit<Tile>])| {
            for (index, tile) in tiles.iter_mut().enumerate() {
                // SAFETY: the caller vouches for processor and values.
                unsafe { self.tile(panel * SIDE, index * DEPTH, left, tile) };
            }
        };
        match parallel {
            true => room.par_chunks_mut(depth).enumerate().for_each(work),
            false => room.chunks_mut(depth).enumerate().for_each(work),
        }
        // SAFETY: every tile was written.
        unsafe { tiles.set_len(panels * depth) };
        Panels { tiles, depth }
    }

    /// The lines in tiles of the left factor, as a part of `panels` of as many lines, from tile `first` of each on.
    ///
    /// # Safety
    /// As [`Self::pack`].
    pub(in super::super) unsafe fn pack_into(&self, panels: &mut Panels, first: usize) {
        let tiles = self.depth.div_ceil(DEPTH);
        let all = panels.tiles.chunks_exact_mut(panels.depth);
        for (panel, line) in all.zip((0..self.lines).step_by(SIDE)) {
            for (index, tile) in panel[first..][..tiles].iter_mut().enumerate() {
                // SAFETY: a tile may be seen as one that may have no values; it is given all of them. The caller vouches for
                // processor and values.
                unsafe {
                    let tile = &mut *std::ptr::from_mut(tile).cast();
                    self.tile(line, index * DEPTH, true, tile);
                }
            }
        }
    }

    /// Makes the tile from `line` and `term` on, zeros where the factor ends.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn tile(&self, line: usize, term: usize, left: bool, tile: &mut MaybeUninit<Tile>) {
        let lines = (self.lines - line).min(SIDE);
        let terms = (self.depth - term).min(DEPTH);
        let start = self.start + line * self.line_stride + term * self.term_stride;
        let along_terms = self.term_stride == 1;
        let whole = lines == SIDE && terms == DEPTH;
        // SAFETY: the caller vouches for the values; masks keep to `lines` and `terms`.
        let rows = unsafe {
            let start = self.values.as_ptr().add(start);
            match (along_terms, whole) {
                (true, true) => pairs_along_terms::<true>(start, self.line_stride, lines, terms),
                (true, false) => pairs_along_terms::<false>(start, self.line_stride, lines, terms),
                (false, true) => pairs_along_lines::<true>(start, self.term_stride, lines, terms),
                (false, false) => pairs_along_lines::<false>(start, self.term_stride, lines, terms),
            }
        };
        tile.write(Tile(match along_terms == left {
            true => rows,
            false => transpose(rows),
        }));
    }
}

/// A factor in tiles: one panel of 16 lines after the other, each `depth` tiles long.
#[derive(Debug, Clone)]
pub(in super::super) struct Panels {
    tiles: Vec<Tile>,
    pub(super) depth: usize,
}

impl Panels {
    /// Panels of `lines` lines of `depth` terms, all zeros.
    pub(in super::super) fn zeros(lines: usize, depth: usize) -> Self {
        let (panels, depth) = (lines.div_ceil(SIDE), depth.div_ceil(DEPTH));
        // SAFETY: zero is a value of every lane.
        let tile: Tile = unsafe { std::mem::zeroed() };
        Self {
            tiles: vec![tile; panels * depth],
            depth,
        }
    }

    /// The panels from `panel` on.
    pub(in super::super) fn from(&self, panel: usize) -> View<'_> {
        View {
            tiles: &self.tiles[panel * self.depth..],
            depth: self.depth,
        }
    }
}

/// Panels of a factor, from one of them on.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct View<'a> {
    tiles: &'a [Tile],
    pub(super) depth: usize,
}

impl View<'_> {
    /// Where `steps` of `panel` and of the next one begin. A panel that has no next one before `end` is multiplied twice,
    /// and the double thrown away.
    pub(super) fn pair(&self, panel: usize, end: usize, steps: &Range<usize>) -> [*const Tile; 2] {
        [panel, (panel + 1).min(end - 1)].map(|panel| {
            let tiles = &self.tiles[panel * self.depth..][steps.clone()];
            tiles.as_ptr()
        })
    }
}

/// The first `count` lanes.
#[inline(always)]
fn lanes(count: usize) -> u16 {
    if count >= 16 {
        u16::MAX
    } else {
        (1 << count) - 1
    }
}

/// A row of pairs for each line, whose terms are neighbours; `WHOLE`: all lines and terms of a tile.
///
/// # Safety
/// Lines start `stride` values apart from `start` on, and each has `terms` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_along_terms<const WHOLE: bool>(
    start: *const f32,
    stride: usize,
    lines: usize,
    terms: usize,
) -> [__m512i; SIDE] {
    let mut rows = [_mm512_setzero_si512(); SIDE];
    let (lines, terms) = if WHOLE { (SIDE, DEPTH) } else { (lines, terms) };
    let (low, high) = (lanes(terms), lanes(terms.saturating_sub(16)));
    for (line, row) in rows.iter_mut().enumerate().take(lines) {
        // SAFETY: the caller vouches for the values; masked lanes are not read.
        unsafe {
            let at = start.add(line * stride);
            let first = _mm512_maskz_loadu_ps(low, at);
            let second = _mm512_maskz_loadu_ps(high, at.wrapping_add(16));
            *row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
        }
    }
    rows
}

/// A row of lines for each pair of terms; lines are neighbours; `WHOLE` as above.
///
/// # Safety
/// Terms start `stride` values apart from `start` on, and each has `lines` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_along_lines<const WHOLE: bool>(
    start: *const f32,
    stride: usize,
    lines: usize,
    terms: usize,
) -> [__m512i; SIDE] {
    let (lines, terms) = if WHOLE { (SIDE, DEPTH) } else { (lines, terms) };
    // The lower half of the lanes holds first terms, the upper half second ones: they are to alternate.
    let mut order = [0u16; 32];
    for (lane, from) in order.iter_mut().enumerate() {
        *from = (lane / 2 + lane % 2 * 16) as u16;
    }
    // SAFETY: the order is 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let mask = lanes(lines);
    let mut rows = [_mm512_setzero_si512(); SIDE];
    for (pair, row) in rows.iter_mut().enumerate().take(terms.div_ceil(2)) {
        // SAFETY: the caller vouches for the values; masked lanes are not read.
        unsafe {
            let at = start.add(2 * pair * stride);
            let first = _mm512_maskz_loadu_ps(mask, at);
            let second = match 2 * pair + 1 < terms {
                true => _mm512_maskz_loadu_ps(mask, at.add(stride)),
                false => _mm512_setzero_ps(),
            };
            let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            *row = _mm512_permutexvar_epi16(order, halves);
        }
    }
    rows
}

/// The transpose of a 16 by 16 matrix of pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let zero = _mm512_setzero_si512();
    let (mut r, mut t) = (rows, [zero; SIDE]);
    for i in (0..SIDE).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for i in (0..SIDE).step_by(4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for i in (0..SIDE).step_by(8) {
        for j in i..i + 4 {
            t[j] = _mm512_shuffle_i32x4::<0x88>(r[j], r[j + 4]);
            t[j + 4] = _mm512_shuffle_i32x4::<0xdd>(r[j], r[j + 4]);
        }
    }
    for i in 0..8 {
        r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
        r[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
    }
    r
}
