//! In what families of vision encoders differ: the words of a [`super::VisionConfig`].

/// How the self-attention of a vision encoder makes queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKind {
    /// A map for each of the three.
    Separate,
    /// One map, whose outputs are ordered by query, key, value and then by head.
    Fused,
    /// One map, whose outputs are ordered by head and then by query, key, value.
    FusedByHead,
}

/// What becomes of stored positions where the pictures have another number of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// Such pictures are refused.
    No,
    /// They are interpolated.
    Bicubic,
    /// They are interpolated, with a wider filter where there are fewer patches.
    Antialiased,
    /// They are interpolated linearly, the outermost ones staying where they are.
    Corners,
}

/// The feed-forward network of a vision encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// `fc2(activation(fc1(x)))`
    TwoLayers,
    /// `down(silu(gate(x)) * up(x))`, gate and up in one map.
    SwiGlu,
    /// The same with a map for each of the two.
    SeparateSwiGlu,
}

/// How checkpoints hold the vector of hidden patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskToken {
    /// Not at all.
    Absent,
    /// `[1, hidden]`
    Row,
    /// `[1, 1, hidden]`
    Batch,
}

/// What stands for a whole picture in late fusion (c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// The class token of the state that is read.
    ClassToken,
    /// What the encoder's own attention head makes of the last state, whichever is read.
    AttentionHead,
    /// The mean of the patches of the state that is read.
    MeanPatch,
}
