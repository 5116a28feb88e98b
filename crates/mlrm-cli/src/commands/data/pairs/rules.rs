//! The settings of `[data.pairs]` as options.

use clap::Args;
use mlrm_config::{PairSettings, PairWeight, Split, TestTargets, Ties};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};

/// The keys of `[data.pairs]`.
#[derive(Debug, Args)]
pub(super) struct RuleArgs {
    /// Longest time from the first view to the second, inclusive [default: 7].
    #[arg(long, value_name = "DAYS")]
    window_days: Option<f64>,
    /// What views of one user at the same time are: ignore (no pair), or both (a pair in both
    /// directions) [default: ignore].
    #[arg(long, value_parser = word::<Ties>)]
    ties: Option<Ties>,
    /// count, events, inverse_activity or cosine [default: inverse_activity].
    #[arg(long, value_parser = word::<PairWeight>)]
    weight: Option<PairWeight>,
    /// Drop pairs that fewer users have in common [default: 1].
    #[arg(long, value_name = "N")]
    min_users: Option<u32>,
    /// Smallest score kept, inclusive; `-inf` keeps all.
    #[arg(long, value_name = "SCORE")]
    lower: Option<f64>,
    /// Largest score kept, inclusive; `inf` keeps all.
    #[arg(long, value_name = "SCORE")]
    upper: Option<f64>,
    /// Partners kept for each note; `all` keeps all [default: 10].
    #[arg(long, value_name = "K", value_parser = count_or_all)]
    top_k: Option<usize>,
    /// Partners kept for each training note of a split; `all` keeps all [default: as --top-k].
    #[arg(long, value_name = "K", requires = "split", value_parser = count_or_all)]
    train_top_k: Option<usize>,
    /// Cut users with more events to their most recent ones.
    #[arg(long, value_name = "N")]
    max_events_per_user: Option<usize>,
    /// Split into training, validation and test pairs: note, time or none.
    #[arg(long, requires = "destination", value_parser = word::<Split>)]
    pub(super) split: Option<Split>,
    /// Share held out for the test [default: 0.1].
    #[arg(long, value_name = "SHARE", requires = "split")]
    test_fraction: Option<f64>,
    /// Share of the remainder held out for validation [default: 0.1].
    #[arg(long, value_name = "SHARE", requires = "split")]
    validation_fraction: Option<f64>,
    /// Targets of held-out notes with `--split note`: held_out or all [default: held_out].
    #[arg(long, requires = "split", value_parser = word::<TestTargets>)]
    test_targets: Option<TestTargets>,
}

impl RuleArgs {
    /// The settings with what was given here in place.
    pub(super) fn over(&self, base: PairSettings) -> PairSettings {
        // `all` is larger than any number of partners.
        let top_k = self.top_k.or(base.top_k).filter(|k| *k < usize::MAX);
        PairSettings {
            window_days: self.window_days.unwrap_or(base.window_days),
            ties: self.ties.unwrap_or(base.ties),
            weight: self.weight.unwrap_or(base.weight),
            min_users: self.min_users.unwrap_or(base.min_users),
            lower: self
                .lower
                .or(base.lower)
                .filter(|lower| *lower > f64::NEG_INFINITY),
            upper: self
                .upper
                .or(base.upper)
                .filter(|upper| *upper < f64::INFINITY),
            top_k,
            // 0 keeps all in a config.
            train_top_k: self
                .train_top_k
                .map(|k| if k == usize::MAX { 0 } else { k })
                .or(base.train_top_k),
            max_events_per_user: self.max_events_per_user.or(base.max_events_per_user),
            split: self.split.unwrap_or(base.split),
            test_fraction: self.test_fraction.unwrap_or(base.test_fraction),
            validation_fraction: self.validation_fraction.unwrap_or(base.validation_fraction),
            test_targets: self.test_targets.unwrap_or(base.test_targets),
        }
    }
}

/// A word that a setting knows; the error names them all.
pub(in crate::commands::data) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let word: StrDeserializer<'_, WordError> = StrDeserializer::new(text);
    T::deserialize(word).map_err(|error| error.to_string())
}

fn count_or_all(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        _ => text
            .parse()
            .map_err(|_| "neither a whole number nor `all`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_config() {
        assert_eq!(word("inverse_activity"), Ok(PairWeight::InverseActivity));
        let message = word::<Split>("notes").unwrap_err();
        assert!(message.contains("`note`, `time`, `none`"), "{message}");
        assert_eq!(count_or_all("all"), Ok(usize::MAX));
        assert!(count_or_all("-1").is_err());
    }
}
