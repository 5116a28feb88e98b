//! Weights in tiles, kept from one product to the next.
//!
//! Rounding a weight and laying it out takes as long as multiplying it with a few hundred rows. A weight that does not
//! learn, and any weight outside the autodiff graph, is laid out once for each direction that it is read in, two bytes a
//! value.
//!
//! What is kept belongs to a buffer, not to a name: an entry holds the buffer weakly. Whoever writes into a buffer that a
//! weak reference points to is given another one (`Arc::make_mut`, by which flex writes in place, moves the values;
//! `Arc::get_mut` refuses), so that an entry whose buffer lives holds what stands there. Entries whose buffers are gone are
//! let go with the next weight that is laid out.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use burn::backend::flex::FlexTensor;
use burn::tensor::Bytes;

use super::product::Part;
use super::tiles::Panels;

/// A buffer's address, which no other buffer has while an entry refers to it, and the matrix in it.
type Key = (usize, Part);

#[derive(Debug)]
struct Entry {
    buffer: Weak<Bytes>,
    panels: Arc<Panels>,
}

static KEPT: LazyLock<Mutex<HashMap<Key, Entry>>> = LazyLock::new(Mutex::default);

fn kept() -> MutexGuard<'static, HashMap<Key, Entry>> {
    // Entries are put in whole.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The matrix `part` of `tensor` in tiles: those that are kept, or what `pack` makes, which is kept too. Where the tensor
/// `learns`, its values are about to change: nothing is kept, and what was is let go.
pub(super) fn panels(
    tensor: &FlexTensor,
    part: Part,
    learns: bool,
    pack: impl FnOnce() -> Panels,
) -> Arc<Panels> {
    let buffer = tensor.data_arc();
    let key = (Arc::as_ptr(&buffer).addr(), part);
    if let Some(panels) = find(&key, learns) {
        return panels;
    }
    // Outside the lock: others have their own weights to lay out.
    let panels = Arc::new(pack());
    if !learns {
        let entry = Entry {
            buffer: Arc::downgrade(&buffer),
            panels: Arc::clone(&panels),
        };
        kept().insert(key, entry);
    }
    panels
}

fn find(key: &Key, learns: bool) -> Option<Arc<Panels>> {
    let mut kept = kept();
    let found = match learns {
        true => kept.remove(key).map(|entry| entry.panels),
        false => kept.get(key).map(|entry| Arc::clone(&entry.panels)),
    };
    if found.is_none() {
        kept.retain(|_, entry| entry.buffer.strong_count() > 0);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::buffer::{tensor, values_mut};
    use super::super::product::{Arithmetic, Ready, Right, multiply_ready};
    use super::super::tiles;
    use super::*;

    const SIZES: [usize; 3] = [40, 70, 50];

    fn holds(tensor: &FlexTensor) -> usize {
        let address = Arc::as_ptr(&tensor.data_arc()).addr();
        kept().keys().filter(|key| key.0 == address).count()
    }

    fn weight(seed: f32) -> FlexTensor {
        let [_, depth, columns] = SIZES;
        let value = |index: usize| (index as f32 * 0.37 + seed).sin();
        tensor((0..depth * columns).map(value).collect(), [depth, columns])
    }

    /// Rows by a right factor, in tiles.
    fn by(right: Right<'_>) -> Vec<f32> {
        let rows = SIZES[0];
        let (depth, columns) = (right.rows(), right.columns());
        let left: Vec<f32> = (0..rows * depth).map(|i| (i as f32 * 0.11).cos()).collect();
        let left = Ready::left(Arithmetic::Tiles, (&left, Part::whole(rows, depth)));
        let mut out = vec![0.0; rows * columns];
        let to = (&mut *out, Part::whole(rows, columns));
        let right = Ready::shared(Arithmetic::Tiles, right);
        multiply_ready(to, (&left, &right), None, 1.0, false);
        out
    }

    /// The same by a factor of which nothing is known.
    fn afresh(weight: &FlexTensor, turned: bool) -> Vec<f32> {
        let copy = weight.to_contiguous();
        let right = Right::weight(&copy, false);
        let right = if turned { right.transposed() } else { right };
        by(Right::from(right.factor()))
    }

    fn without_tiles(test: &str) -> bool {
        let without = !tiles::available();
        if without {
            eprintln!("SKIPPED {test}: the processor multiplies bf16 no faster than f32");
        }
        without
    }

    #[test]
    fn a_kept_weight_gives_the_same_bits() {
        if without_tiles("a_kept_weight_gives_the_same_bits") {
            return;
        }
        let weight = weight(0.0);
        for turned in [false, true] {
            let kept = Right::weight(&weight, false);
            let kept = if turned { kept.transposed() } else { kept };
            let expected = afresh(&weight, turned);
            assert_eq!(by(kept), expected, "laid out, turned: {turned}");
            assert_eq!(by(kept), expected, "kept, turned: {turned}");
        }
        assert_eq!(holds(&weight), 2, "once for each direction");
    }

    #[test]
    fn a_weight_that_was_written_to_is_read_anew() {
        if without_tiles("a_weight_that_was_written_to_is_read_anew") {
            return;
        }
        let mut weight = weight(1.0);
        let before = by(Right::weight(&weight, false));
        // In place: nobody else holds the values.
        values_mut(&mut weight).iter_mut().for_each(|v| *v += 1.0);
        let after = by(Right::weight(&weight, false));
        assert_ne!(before, after);
        assert_eq!(after, afresh(&weight, false));
        // By whoever shares it: the others keep what they have.
        let mut other = weight.clone();
        values_mut(&mut other).iter_mut().for_each(|v| *v += 1.0);
        assert_eq!(by(Right::weight(&weight, false)), after);
        assert_eq!(by(Right::weight(&other, false)), afresh(&other, false));
        assert_ne!(by(Right::weight(&other, false)), after);
        // In place where that is asked for first, as Burn's own operations do.
        drop(other);
        if let Some(values) = weight.try_storage_mut::<f32>() {
            values.iter_mut().for_each(|v| *v -= 3.0);
        }
        assert_eq!(by(Right::weight(&weight, false)), afresh(&weight, false));
    }

    #[test]
    fn of_a_weight_that_learns_nothing_stays() {
        if without_tiles("of_a_weight_that_learns_nothing_stays") {
            return;
        }
        let weight = weight(2.0);
        let expected = by(Right::weight(&weight, true));
        assert_eq!(holds(&weight), 0);
        assert_eq!(by(Right::weight(&weight, false)), expected);
        assert_eq!(holds(&weight), 1);
        assert_eq!(by(Right::weight(&weight, true)), expected);
        assert_eq!(holds(&weight), 0);
    }

    #[test]
    fn a_weight_that_is_gone_leaves_with_the_next_one() {
        if without_tiles("a_weight_that_is_gone_leaves_with_the_next_one") {
            return;
        }
        let gone = weight(3.0);
        by(Right::weight(&gone, false));
        let panels = {
            let address = Arc::as_ptr(&gone.data_arc()).addr();
            let kept = kept();
            let entry = kept.iter().find(|(key, _)| key.0 == address);
            Arc::downgrade(&entry.expect("an entry").1.panels)
        };
        drop(gone);
        by(Right::weight(&weight(4.0), true));
        assert!(panels.upgrade().is_none(), "its tiles are still held");
    }
}
