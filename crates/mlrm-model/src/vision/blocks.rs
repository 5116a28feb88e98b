//! Patches in square blocks, each of which becomes one visual token (Qwen2.5-VL, arXiv 2502.13923, and Qwen3-VL).

/// What an encoder whose patches go in blocks has beside the core. Its patches stand block after block, those of a block
/// row by row; its rotary angles count rows and columns of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchBlocks {
    /// Side of a block in patches (HF `spatial_merge_size`).
    pub merge: usize,
    /// Side in blocks of the windows that layers attend within; `None`: they attend to the whole picture.
    pub window: Option<usize>,
    /// Layers that attend to the whole picture nonetheless.
    pub full: LayerSet,
    /// Pictures of a film that one patch spans; a still picture stands for all of them.
    pub frames: usize,
    /// Layers whose outputs are read beside the selected state (HF `deepstack_visual_indexes`).
    pub deep: LayerSet,
    /// Norms are RMSNorm, else LayerNorm.
    pub rms_norm: bool,
    /// There are stored positions beside the rotary ones.
    pub stored_positions: bool,
}

/// Some of the first 128 layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerSet(u128);

impl LayerSet {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// The layers `indices`; `None` where they do not ascend or are none of the first 128.
    pub fn of(indices: &[usize]) -> Option<Self> {
        let ascending = indices.windows(2).all(|pair| pair[0] < pair[1]);
        let known = indices.last().is_none_or(|last| *last < 128);
        (ascending && known).then(|| Self(indices.iter().fold(0, |set, index| set | 1 << index)))
    }

    /// Whether layer `index` is one of them.
    pub fn contains(self, index: usize) -> bool {
        index < 128 && self.0 >> index & 1 == 1
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Their indices.
    pub fn indices(self) -> Vec<usize> {
        (0..128).filter(|&index| self.contains(index)).collect()
    }

    /// The index of the last one.
    pub fn last(self) -> Option<usize> {
        self.indices().pop()
    }
}

impl PatchBlocks {
    /// The blocks of a picture of `side` by `side` blocks, window after window, each counted row by row.
    fn windows_of(&self, side: usize) -> Vec<Vec<usize>> {
        let window = self.window.unwrap_or(side).max(1);
        let span = |tile: usize| tile * window..((tile + 1) * window).min(side);
        let tiles = side.div_ceil(window);
        let tile = |index: usize| {
            let columns = span(index % tiles);
            let row = move |row: usize| columns.clone().map(move |column| row * side + column);
            span(index / tiles).flat_map(row).collect()
        };
        (0..tiles * tiles).map(tile).collect()
    }

    /// For each position the patch that stands there, counted row by row, of a picture of `grid` by `grid` patches.
    pub fn order(&self, grid: usize) -> Vec<usize> {
        let (merge, side) = (self.merge, grid / self.merge);
        let patches = |block: usize| {
            let (top, left) = (block / side * merge, block % side * merge);
            (0..merge * merge).map(move |at| (top + at / merge) * grid + left + at % merge)
        };
        let blocks = self.windows_of(side).into_iter().flatten();
        blocks.flat_map(patches).collect()
    }

    /// Patches of each window, in the order of positions.
    pub fn window_lengths(&self, grid: usize) -> Vec<usize> {
        let windows = self.windows_of(grid / self.merge);
        let patches = |window: Vec<usize>| window.len() * self.merge.pow(2);
        windows.into_iter().map(patches).collect()
    }

    /// The positions of all patches, block after block, the blocks row by row.
    pub fn by_rows(&self, grid: usize) -> Vec<usize> {
        let blocks: Vec<usize> = self
            .windows_of(grid / self.merge)
            .into_iter()
            .flatten()
            .collect();
        let mut places = vec![0; blocks.len()];
        for (place, block) in blocks.into_iter().enumerate() {
            places[block] = place;
        }
        let patches = self.merge.pow(2);
        let block = |place: usize| (0..patches).map(move |at| place * patches + at);
        places.into_iter().flat_map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: PatchBlocks = PatchBlocks {
        merge: 2,
        window: Some(2),
        full: LayerSet::NONE,
        frames: 2,
        deep: LayerSet::NONE,
        rms_norm: true,
        stored_positions: false,
    };

    #[test]
    fn patches_stand_window_after_window_and_go_back() {
        // 3 by 3 blocks: windows of 4, 2, 2 and 1.
        assert_eq!(BLOCKS.window_lengths(6), [16, 8, 8, 4]);
        let order = BLOCKS.order(6);
        assert_eq!(order[..8], [0, 1, 6, 7, 2, 3, 8, 9]);
        assert_eq!(order[16..20], [4, 5, 10, 11]);
        let back: Vec<usize> = BLOCKS.by_rows(6).into_iter().map(|at| order[at]).collect();
        let whole = PatchBlocks {
            window: None,
            ..BLOCKS
        };
        assert_eq!(back, whole.order(6));
        assert_eq!(back[8..12], [4, 5, 10, 11]);
        assert_eq!(whole.window_lengths(6), [36]);
        assert!(whole.by_rows(6).into_iter().eq(0..36));
    }

    #[test]
    fn sets_of_layers() {
        let set = LayerSet::of(&[7, 15, 127]).expect("layers");
        assert_eq!(set.indices(), [7, 15, 127]);
        assert_eq!((set.count(), set.last()), (3, Some(127)));
        assert!(!set.contains(128) && !set.contains(8));
        assert_eq!(LayerSet::of(&[128]), None);
        assert_eq!(LayerSet::of(&[3, 2]), None);
        assert_eq!(LayerSet::of(&[]), Some(LayerSet::NONE));
    }
}
