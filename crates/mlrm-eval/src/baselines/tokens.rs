//! Words of a text for BM25.

use unicode_segmentation::UnicodeSegmentation;

/// The words of a text (Unicode word boundaries, UAX #29), lower-cased, in order, repeats kept.
///
/// Chinese and Japanese are written without spaces: their characters are tokens of their own.
/// (Word boundaries separate Han and Hiragana already; runs of Katakana are separated here.)
pub fn tokenize(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in text.unicode_words() {
        if word.chars().any(is_katakana) {
            tokens.extend(word.graphemes(true).map(str::to_lowercase));
        } else {
            tokens.push(word.to_lowercase());
        }
    }
    tokens
}

fn is_katakana(character: char) -> bool {
    matches!(character, '\u{30A1}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' | '\u{FF66}'..='\u{FF9F}')
}

#[cfg(test)]
mod tests {
    use super::tokenize;

    #[test]
    fn splits_words_and_characters() {
        assert_eq!(
            tokenize("Don't STOP, it's 3.5 km!"),
            ["don't", "stop", "it's", "3.5", "km"]
        );
        assert_eq!(tokenize("Ärger in CAFÉ"), ["ärger", "in", "café"]);
        assert_eq!(
            tokenize("小红书Notes夏天"),
            ["小", "红", "书", "notes", "夏", "天"]
        );
        assert_eq!(
            tokenize("カメラのガイド"),
            ["カ", "メ", "ラ", "の", "ガ", "イ", "ド"]
        );
        assert_eq!(tokenize("서울 여행"), ["서울", "여행"]);
        assert!(tokenize(" … 🎉 ").is_empty());
    }
}
