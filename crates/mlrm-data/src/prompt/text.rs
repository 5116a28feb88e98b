//! The text of a note as a prompt shows it: cleaned, and cut to the budgets of the settings.

use mlrm_config::{PromptSettings, TitleKeep};

use super::template::{Field, Template};
use crate::clean::{clean, cut_bytes, cut_graphemes, last_graphemes};
use crate::notes::Note;

/// Title, topics and content of one note, ready for a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NoteText {
    title: String,
    content: String,
    /// All topics with separators between them.
    topics: String,
    /// Where each topic ends in `topics`, in bytes.
    topic_ends: Vec<usize>,
}

impl NoteText {
    pub fn new(note: &Note, settings: &PromptSettings, template: &Template) -> Self {
        let cleaned = |text: &str, most: usize| {
            let text = clean(text, &template.sentence_mark);
            cut_graphemes(&text, most).to_owned()
        };
        let title = clean(&note.title, &template.sentence_mark);
        let title = match settings.title_keep {
            TitleKeep::Start => cut_graphemes(&title, settings.title_chars),
            TitleKeep::End => last_graphemes(&title, settings.title_chars),
        };
        let mut text = Self {
            title: title.to_owned(),
            content: cleaned(&note.content, settings.content_chars),
            ..Self::default()
        };
        let topics = note.topics.iter();
        let topics = topics.map(|topic| cleaned(topic, settings.topic_chars));
        for topic in topics
            .filter(|topic| !topic.is_empty())
            .take(settings.topics)
        {
            if !text.topics.is_empty() {
                text.topics.push_str(&template.topic_separator);
            }
            text.topics.push_str(&topic);
            text.topic_ends.push(text.topics.len());
        }
        text
    }

    pub fn get(&self, field: Field) -> &str {
        match field {
            Field::Title => &self.title,
            Field::Topics => &self.topics,
            Field::Content => &self.content,
        }
    }

    /// Cuts a field to at most `bytes` bytes, which must be fewer than it has: title and content
    /// between two graphemes, topics between two topics.
    pub fn cut(&mut self, field: Field, bytes: usize) {
        match field {
            Field::Title => self.title = cut_bytes(&self.title, bytes).to_owned(),
            Field::Content => self.content = cut_bytes(&self.content, bytes).to_owned(),
            Field::Topics => {
                self.topic_ends.retain(|&end| end <= bytes);
                self.topics
                    .truncate(self.topic_ends.last().copied().unwrap_or(0));
            }
        }
    }
}
