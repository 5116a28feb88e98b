//! The words of the sample texts, from `vocabulary.txt`.

use std::sync::LazyLock;

type Words = Vec<&'static str>;

/// What a text can be about.
#[derive(Debug)]
pub(super) struct TextTheme {
    pub(super) topics: Words,
    pub(super) things: Words,
    /// Verbs in the past tense.
    pub(super) acts: Words,
}

/// What texts are made of.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) themes: Vec<TextTheme>,
    /// People.
    pub(super) names: Words,
    /// Where it happened.
    pub(super) places: Words,
    /// When it happened.
    pub(super) times: Words,
    /// Last words.
    pub(super) closers: Words,
    /// First words of a title.
    pub(super) moods: Words,
}

/// All words.
pub(super) static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let text = include_str!("vocabulary.txt");
    let lists = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lists: Vec<Words> = lists.map(|line| line.split(", ").collect()).collect();
    let (themes, others) = lists.split_at(lists.len() - 5);
    let theme = |lists: &[Words]| TextTheme {
        topics: lists[0].clone(),
        things: lists[1].clone(),
        acts: lists[2].clone(),
    };
    Vocabulary {
        themes: themes.chunks_exact(3).map(theme).collect(),
        names: others[0].clone(),
        places: others[1].clone(),
        times: others[2].clone(),
        closers: others[3].clone(),
        moods: others[4].clone(),
    }
});
