//! Texts: a few words of a theme among words that mean nothing. They fit the prompt's default
//! budgets (title 20, content 80 characters).

use super::random::Random;
use super::vocabulary::{TextTheme, VOCABULARY};

/// The text of a note.
pub(super) struct Text {
    pub(super) title: String,
    pub(super) topics: Vec<String>,
    pub(super) content: String,
    /// The form of the text, which says nothing about its theme.
    pub(super) category: &'static str,
}

pub(super) fn write(theme: &TextTheme, random: &mut Random) -> Text {
    let things = random.pick_some(&theme.things, 3);
    let [headline, first, second] = [things[0], things[1], things[2]];
    let act = random.pick(&theme.acts);
    let name = random.pick(&VOCABULARY.names);
    let place = random.pick(&VOCABULARY.places);
    let when = random.pick(&VOCABULARY.times);
    let closer = random.pick(&VOCABULARY.closers);
    let mood = random.pick(&VOCABULARY.moods);
    let (category, content) = match random.below(4) {
        0 => (
            "diary",
            format!("{when} I {act} the {first} with {name} {place}. {closer}"),
        ),
        1 => (
            "guide",
            format!("How {name} {act} the {first}: mind the {second}. {closer}"),
        ),
        2 => (
            "review",
            format!("{name} {act} this {first} {place} {when}. {closer}"),
        ),
        _ => (
            "question",
            format!("Who {act} the {first} {place}? {name} asks. {closer}"),
        ),
    };
    let mut content = content;
    if let Some(letter) = content.get(..1) {
        let capital = letter.to_uppercase();
        content.replace_range(..1, &capital);
    }
    let topics = 1 + random.below(2);
    let topics = random.pick_some(&theme.topics, topics);
    Text {
        title: format!("{mood} {headline}"),
        topics: topics.into_iter().map(str::to_owned).collect(),
        content,
        category,
    }
}
