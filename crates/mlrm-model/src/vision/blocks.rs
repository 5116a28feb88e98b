//! Patches in square blocks, each of which becomes one visual token (Qwen2.5-VL, arXiv 2502.13923, and Qwen3-VL).

/// Rows and columns of the patches of a picture, or of blocks of them.
pub type Grid = [usize; 2];

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
    /// The blocks of a picture of as many patches, one each its visual token.
    pub fn blocks_of(&self, patches: Grid) -> Grid {
        patches.map(|side| side / self.merge)
    }

    /// The blocks of a picture of `rows` by `columns` blocks, window after window, each counted row by row.
    fn windows_of(&self, [rows, columns]: Grid) -> Vec<Vec<usize>> {
        let window = self.window.unwrap_or(rows.max(columns)).max(1);
        let span = |tile: usize, side: usize| tile * window..((tile + 1) * window).min(side);
        let beside = columns.div_ceil(window);
        let tile = |index: usize| {
            let within = span(index % beside, columns);
            let row = move |row: usize| within.clone().map(move |column| row * columns + column);
            span(index / beside, rows).flat_map(row).collect()
        };
        (0..rows.div_ceil(window) * beside).map(tile).collect()
    }

    /// For each position the patch that stands there, counted row by row, of a picture of `grid` patches.
    pub fn order(&self, grid: Grid) -> Vec<usize> {
        let (merge, [_, columns]) = (self.merge, grid);
        let beside = columns / merge;
        let patches = |block: usize| {
            let (top, left) = (block / beside * merge, block % beside * merge);
            (0..merge * merge).map(move |at| (top + at / merge) * columns + left + at % merge)
        };
        let blocks = self.windows_of(self.blocks_of(grid)).into_iter().flatten();
        blocks.flat_map(patches).collect()
    }

    /// Patches of each window, in the order of positions.
    pub fn window_lengths(&self, grid: Grid) -> Vec<usize> {
        let windows = self.windows_of(self.blocks_of(grid));
        let patches = |window: Vec<usize>| window.len() * self.merge.pow(2);
        windows.into_iter().map(patches).collect()
    }

    /// The positions of all patches, block after block, the blocks row by row.
    pub fn by_rows(&self, grid: Grid) -> Vec<usize> {
        let windows = self.windows_of(self.blocks_of(grid));
        let blocks: Vec<usize> = windows.into_iter().flatten().collect();
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
        assert_eq!(BLOCKS.window_lengths([6, 6]), [16, 8, 8, 4]);
        let order = BLOCKS.order([6, 6]);
        assert_eq!(order[..8], [0, 1, 6, 7, 2, 3, 8, 9]);
        assert_eq!(order[16..20], [4, 5, 10, 11]);
        let back = |grid: Grid| -> Vec<usize> {
            let order = BLOCKS.order(grid);
            let back = BLOCKS.by_rows(grid).into_iter();
            back.map(|at| order[at]).collect()
        };
        let whole = PatchBlocks {
            window: None,
            ..BLOCKS
        };
        assert_eq!(back([6, 6]), whole.order([6, 6]));
        assert_eq!(back([6, 6])[8..12], [4, 5, 10, 11]);
        assert_eq!(whole.window_lengths([6, 6]), [36]);
        assert!(whole.by_rows([6, 6]).into_iter().eq(0..36));
        // 1 by 3 blocks: windows of 2 and 1; 5 by 1: of 2, 2 and 1.
        assert_eq!(BLOCKS.window_lengths([2, 6]), [8, 4]);
        assert_eq!(BLOCKS.order([2, 6])[..6], [0, 1, 6, 7, 2, 3]);
        assert_eq!(BLOCKS.window_lengths([10, 2]), [8, 8, 4]);
        for grid in [[2, 6], [10, 2], [4, 8], [6, 14]] {
            assert_eq!(back(grid), whole.order(grid), "{grid:?}");
        }
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
