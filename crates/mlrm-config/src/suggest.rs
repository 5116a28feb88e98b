//! Which name was probably meant.

/// Likeness from which on a name is offered as what was meant.
const CLOSE: f64 = 0.82;

/// How alike a written name and a known one are, in [0, 1].
///
/// Jaro-Winkler catches typing errors; the other two catch names carried over from other tools:
/// `lr` for `learning_rate` (initials) and `steps` for `max_steps` (one of its words).
pub(crate) fn likeness(written: &str, known: &str) -> f64 {
    let written = written.to_lowercase().replace('-', "_");
    if written == known {
        return 1.0;
    }
    let words: Vec<&str> = known.split('_').collect();
    let initials: String = words
        .iter()
        .filter_map(|word| word.chars().next())
        .collect();
    if written.len() > 1 && written == initials {
        return 0.95;
    }
    let spelling = strsim::jaro_winkler(&written, known);
    let squeezed = strsim::jaro_winkler(&written.replace('_', ""), &known.replace('_', ""));
    let word = if written.len() > 2 && words.contains(&written.as_str()) {
        0.85
    } else {
        0.0
    };
    // One letter wrong weighs much in a short name.
    let slip = if written.len() > 1 && strsim::osa_distance(&written, known) == 1 {
        0.85
    } else {
        0.0
    };
    spelling.max(squeezed).max(word).max(slip)
}

/// The known name most like the written one, however unlike; ties go to the first.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<(f64, &'a str)> {
    let mut best: Option<(f64, &'a str)> = None;
    for name in known {
        let score = likeness(written, name);
        if best.is_none_or(|(top, _)| score > top) {
            best = Some((score, name));
        }
    }
    best
}

/// The known name that was probably meant, if one is alike enough to say so.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(written, known)
        .filter(|(score, _)| *score >= CLOSE)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_and_habits_find_their_key() {
        let known = [
            "batch_pairs",
            "max_steps",
            "learning_rate",
            "weight_decay",
            "warmup_ratio",
        ];
        for (written, meant) in [
            ("learning_rat", "learning_rate"),
            ("learningrate", "learning_rate"),
            ("Learning-Rate", "learning_rate"),
            ("lr", "learning_rate"),
            ("steps", "max_steps"),
            ("wd", "weight_decay"),
            ("warmup", "warmup_ratio"),
            ("batch_size", "batch_pairs"),
        ] {
            assert_eq!(closest(written, known), Some(meant), "{written}");
        }
        assert_eq!(closest("optimizer", known), None);
        assert_eq!(closest("", known), None);
    }
}
