//! The plan of `[data.pairs]` as one SQL query, for logs that live where an engine is.
//!
//! The query gives what [`score_pairs`](crate::pairs::score_pairs) and [`split_log`](crate::split::split_log)
//! give, row by row and bit by bit. A step of it is a named subquery with a comment; only
//! [`Dialect`] knows what engines spell differently. Three things take care to be exact:
//!
//! * the order of ids, which compares whole numbers of any length without a type that holds them;
//! * the sum of 1 / N, which is kept to 45 decimal digits in columns of nine and rounded once, when
//!   its text is read as a double. A sum is a tie between two doubles only where a user saw 2²³
//!   notes or more, and another sum comes that near to a tie with a chance below 10⁻¹⁵;
//! * the seeded hash of the split, in 64-bit arithmetic that wraps around.

mod dialect;
mod parts;
mod scores;

pub use dialect::Dialect;

use mlrm_config::{PairSettings, Split, TimeUnit};

use crate::error::{DataError, Result};
use crate::pairs::Scoring;
use crate::split::{Part, check_fractions};

/// Which pairs a query gives, and how the tables that it reads are written.
#[derive(Debug, Clone, PartialEq)]
pub struct PairQuery {
    /// The rules.
    pub rules: PairSettings,
    /// Unit of the log's times.
    pub time_unit: TimeUnit,
    /// The split; without one, all pairs of the log are given and the rules of the split are not
    /// read.
    pub split: Option<SplitQuery>,
}

/// The split of a [`PairQuery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitQuery {
    /// Seed of `split = "note"`.
    pub seed: u64,
    /// The part whose pairs are given. `None` gives those of all parts; only `split = "note"`, where
    /// the query note tells the part, allows it.
    pub part: Option<Part>,
    /// Whether the notes of `split = "note"` are those of a table `notes(id)`, or those of the log.
    pub notes_table: bool,
}

impl PairQuery {
    /// The query: it reads `interactions(user_id, note_id, timestamp)` and gives `query_id`,
    /// `target_id` and `weight`, query ascending by id, then weight descending, then target
    /// ascending by id.
    ///
    /// # Errors
    /// Settings that cannot work; a split whose part has to be named.
    pub fn sql(&self, dialect: Dialect) -> Result<String> {
        let scoring = Scoring::new(&self.rules)?;
        let split = self.split.map(|split| (self.rules.split, split));
        if let Some((kind, split)) = split {
            check_fractions(&self.rules)?;
            if kind != Split::Note && split.part.is_none() {
                return Err(DataError::setting(
                    "data.pairs.split",
                    "with \"time\" and \"none\" a pair does not tell its part, so a query gives the \
                     pairs of one",
                    "add `--part train`, `--part validation` or `--part test`",
                ));
            }
        }
        let mut steps = Steps {
            dialect,
            rules: &self.rules,
            scoring,
            by_part: matches!(split, Some((Split::Time, _))),
            recursive: false,
            texts: Vec::new(),
        };
        steps.events(self.time_unit);
        steps.note_order();
        let last = match split {
            None => {
                steps.scores();
                steps.candidates();
                steps.best("candidates", self.rules.top_k, "pairs")
            }
            Some((Split::None, split)) => {
                steps.scores();
                steps.candidates();
                let kept = match split.part {
                    Some(Part::Train) => self.rules.training_partners(),
                    Some(Part::Validation) if self.rules.validation_fraction == 0.0 => Some(0),
                    _ => self.rules.top_k,
                };
                steps.best("candidates", kept, "pairs")
            }
            Some((Split::Note, split)) => {
                steps.note_parts(split);
                steps.scores();
                steps.candidates_of_parts();
                steps.best_of_parts(split.part)
            }
            Some((Split::Time, split)) => {
                steps.time_parts();
                steps.scores();
                steps.candidates();
                steps.fresh_pairs(split.part.unwrap_or(Part::Test))
            }
        };
        Ok(self.header(dialect) + &steps.query(last))
    }

    /// What the query is of, as comments.
    fn header(&self, dialect: Dialect) -> String {
        let rules = &self.rules;
        let unit = match self.time_unit {
            TimeUnit::Auto => "whole numbers since 1970, of the unit that their size tells",
            TimeUnit::S => "whole seconds since 1970",
            TimeUnit::Ms => "whole milliseconds since 1970",
            TimeUnit::Us => "whole microseconds since 1970",
            TimeUnit::Ns => "whole nanoseconds since 1970",
        };
        let mut lines = vec![
            format!(
                "Pairs of related notes from a behaviour log, for {}.",
                dialect.name()
            ),
            format!("Reads interactions(user_id, note_id, timestamp); times are {unit}."),
            "Rows that `mlrm` refuses must not be there. This counts them and should give 0:"
                .into(),
            "  SELECT count(*) FROM interactions WHERE user_id IS NULL OR note_id IS NULL \
             OR timestamp IS NULL OR timestamp < 0"
                .into(),
            format!(
                "window_days = {}, ties = {}, weight = {}, min_users = {}, lower = {}, upper = {}, \
                 top_k = {}, max_events_per_user = {}",
                rules.window_days,
                word(&rules.ties),
                word(&rules.weight),
                rules.min_users,
                given(rules.lower),
                given(rules.upper),
                rules.top_k.map_or("all".into(), |k| k.to_string()),
                given(rules.max_events_per_user),
            ),
        ];
        if let Some(split) = self.split {
            let part = split.part.map_or("all", parts::name);
            lines.push(format!(
                "split = {}, part = {part}, train_top_k = {}, test_fraction = {}, \
                 validation_fraction = {}, test_targets = {}, seed = {}",
                word(&rules.split),
                rules
                    .training_partners()
                    .map_or("all".into(), |k| k.to_string()),
                rules.test_fraction,
                rules.validation_fraction,
                word(&rules.test_targets),
                split.seed,
            ));
            if split.notes_table && rules.split == Split::Note {
                lines.push("Reads notes(id) too: all notes, those of the log among them.".into());
            }
        }
        lines.iter().map(|line| format!("-- {line}\n")).collect()
    }
}

/// A setting's word as configs write it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).map_or_else(
        |_| String::new(),
        |value| value.as_str().unwrap_or_default().to_owned(),
    )
}

fn given<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or("none".into(), |value| value.to_string())
}

/// A double, exactly.
fn double(value: f64) -> String {
    let text = match value.is_infinite() {
        true if value > 0.0 => "Infinity".to_owned(),
        true => "-Infinity".to_owned(),
        false => value.to_string(),
    };
    format!("CAST('{text}' AS DOUBLE)")
}

/// The named subqueries of a query, in their order.
struct Steps<'a> {
    dialect: Dialect,
    rules: &'a PairSettings,
    scoring: Scoring,
    /// Whether events have a part, and pairs are made within one.
    by_part: bool,
    /// Whether a step reads itself.
    recursive: bool,
    texts: Vec<String>,
}

impl Steps<'_> {
    /// Adds a step; every line of `comment` becomes one.
    fn step(&mut self, name: &str, comment: &str, body: &str) {
        let comment: String = comment.lines().map(|line| format!("-- {line}\n")).collect();
        let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
        self.texts.push(format!("{comment}{name} AS (\n{body})"));
    }

    /// `part, ` where events have one.
    fn part(&self) -> &'static str {
        if self.by_part { "part, " } else { "" }
    }

    /// All steps, and the last word.
    fn query(&self, last: String) -> String {
        let with = if self.recursive {
            "WITH RECURSIVE"
        } else {
            "WITH"
        };
        format!("{with}\n{}\n{last}", self.texts.join(",\n"))
    }

    fn events(&mut self, unit: TimeUnit) {
        let dialect = self.dialect;
        let time = "CAST(timestamp AS BIGINT)";
        let per_second = |number: i64| dialect.quotient(time, number);
        let seconds = match unit {
            TimeUnit::S => time.to_owned(),
            TimeUnit::Ms => per_second(1_000),
            TimeUnit::Us => per_second(1_000_000),
            TimeUnit::Ns => per_second(1_000_000_000),
            TimeUnit::Auto => {
                let most = crate::time::LATEST_SECONDS + 1;
                let mut text = format!("CASE WHEN {time} < {most} THEN {time}");
                for unit in [1_000, 1_000_000] {
                    let within = format!("\n      WHEN {time} < {} THEN ", most * unit);
                    text += &(within + &per_second(unit));
                }
                text + &format!("\n      ELSE {} END", per_second(1_000_000_000))
            }
        };
        let body = format!(
            "SELECT {} AS user_id,\n  {} AS note_id,\n  {seconds} AS seconds\nFROM interactions",
            dialect.id("user_id"),
            dialect.id("note_id"),
        );
        self.step(
            "events",
            "Ids as text without blanks around them, times in seconds.",
            &body,
        );
    }

    /// `notes_by_id(note_id, note)`: the notes of the log, numbered in the order of their ids.
    fn note_order(&mut self) {
        // What 128 bits hold: longer numbers make the built-in order that of texts, too.
        const LARGEST: [&str; 2] = [
            "170141183460469231731687303715884105727",
            "170141183460469231731687303715884105728",
        ];
        self.step(
            "spelt",
            "The order of ids breaks ties: by value where all are decimal integers, else by their\n\
             bytes. Integers are compared by sign, length and digits, as no type holds them all.",
            "SELECT note_id,\n  \
               CASE WHEN note_id LIKE '-%' THEN substr(note_id, 2) ELSE note_id END AS digits\n\
             FROM (SELECT DISTINCT note_id FROM events) AS ids",
        );
        self.step(
            "magnitudes",
            "",
            "SELECT note_id, digits, TRIM(LEADING '0' FROM digits) AS magnitude,\n  \
               CASE WHEN note_id LIKE '-%' AND TRIM(LEADING '0' FROM digits) <> '' \
               THEN -1 ELSE 1 END AS sign\n\
             FROM spelt",
        );
        let [positive, negative] = LARGEST;
        self.step(
            "numerals",
            "",
            &format!(
                "SELECT note_id, magnitude, sign,\n  \
                   CASE WHEN digits <> '' AND TRIM(BOTH '0123456789' FROM digits) = ''\n    \
                     AND (length(magnitude) < 39 OR length(magnitude) = 39 AND magnitude <=\n      \
                       CASE WHEN sign = 1 THEN '{positive}' ELSE '{negative}' END)\n  \
                   THEN 1 ELSE 0 END AS is_integer\n\
                 FROM magnitudes"
            ),
        );
        self.step(
            "notes_by_id",
            "",
            "SELECT note_id, CAST(row_number() OVER (ORDER BY\n    \
                 CASE WHEN all_integers = 1 THEN sign * length(magnitude) END,\n    \
                 CASE WHEN all_integers = 1 AND sign = 1 THEN magnitude END,\n    \
                 CASE WHEN all_integers = 1 AND sign = -1 THEN magnitude END DESC,\n    \
                 note_id) AS BIGINT) AS note\n\
             FROM (SELECT note_id, magnitude, sign, min(is_integer) OVER () AS all_integers \
             FROM numerals) AS judged",
        );
    }
}
