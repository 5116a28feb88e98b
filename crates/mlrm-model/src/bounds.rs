//! Bounds of the sizes that a config may name: well above every published model, and low enough that
//! a module can be laid out and that no number of its elements overflows.

use crate::error::InvalidConfig;

/// Widths of states and of feed-forward networks.
pub(crate) const WIDTH: usize = 1 << 20;
/// Layers.
pub(crate) const LAYERS: usize = 1 << 12;
/// Attention heads.
pub(crate) const HEADS: usize = 1 << 12;
/// Width of one head.
pub(crate) const HEAD_WIDTH: usize = 1 << 14;
/// Rows of an embedding table.
pub(crate) const WORDS: usize = 10_000_000;
/// Positions of a sequence.
pub(crate) const POSITIONS: usize = i32::MAX as usize;
/// Pixels along a side of a picture.
pub(crate) const SIDE: usize = 1 << 16;
/// Visual tokens of a picture.
pub(crate) const QUERIES: usize = 1 << 16;
/// Width between the factors of an adapter.
pub(crate) const RANK: usize = 1 << 16;

/// Refuses sizes that are 0 or beyond their bound, all of them in one message.
///
/// `sizes`: key, its value, the largest value that it may have.
pub(crate) fn check(sizes: &[(&'static str, usize, usize)]) -> Result<(), InvalidConfig> {
    let (keys, wrong): (Vec<&str>, Vec<String>) = sizes
        .iter()
        .filter_map(|&(key, size, most)| match size {
            0 => Some((key, format!("`{key}` must be at least 1"))),
            _ if size > most => Some((key, format!("`{key}` = {size} must be at most {most}"))),
            _ => None,
        })
        .unzip();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(InvalidConfig::new(&keys, wrong.join("; "))),
    }
}
