//! From events to the best partners of each note.

use mlrm_config::{PairWeight, Ties};

use super::{Steps, double};

/// Digits of 1 / N that a column holds, and how many columns there are.
const DIGITS: usize = 9;
const COLUMNS: usize = 5;
/// 10 to the power of [`DIGITS`].
const BASE: u64 = 1_000_000_000;

impl Steps<'_> {
    /// `scores(query_note, target_note, users, weight)`, with `part` first where events have one.
    pub(super) fn scores(&mut self) {
        self.views();
        self.common();
        let part = self.part();
        let pair = format!("{part}query_note, target_note");
        match self.scoring.weight {
            PairWeight::Count => self.step(
                "scores",
                "A pair's score is the number of its users.",
                &format!(
                    "SELECT {pair}, count(*) AS users, CAST(count(*) AS DOUBLE) AS weight\n\
                     FROM common\nGROUP BY {pair}"
                ),
            ),
            PairWeight::Events => self.step(
                "scores",
                "A pair's score is the number of its occurrences.",
                &format!(
                    "SELECT {pair}, count(DISTINCT user_id) AS users, \
                     CAST(count(*) AS DOUBLE) AS weight\n\
                     FROM common\nGROUP BY {pair}"
                ),
            ),
            PairWeight::Cosine => self.cosine(),
            PairWeight::InverseActivity => self.inverse_activity(&pair),
        }
    }

    /// `views(user_id, note, seconds)`: the events that count.
    fn views(&mut self) {
        let part = self.part();
        let (source, from_part) = match self.by_part {
            true => ("parted_events", "e.part, "),
            false => ("events", ""),
        };
        let all = format!(
            "SELECT {from_part}e.user_id, n.note, e.seconds\n\
             FROM {source} AS e JOIN notes_by_id AS n ON n.note_id = e.note_id"
        );
        let Some(most) = self.scoring.max_events_per_user else {
            self.step("views", "The events, with their notes' numbers.", &all);
            return;
        };
        self.step("all_views", "The events, with their notes' numbers.", &all);
        self.step(
            "views",
            "The most recent events of each user; of equal times those with the larger id.",
            &format!(
                "SELECT {part}user_id, note, seconds\n\
                 FROM (SELECT {part}user_id, note, seconds,\n    \
                   row_number() OVER (PARTITION BY {part}user_id ORDER BY seconds DESC, note DESC) \
                   AS recency\n  FROM all_views) AS numbered\n\
                 WHERE recency <= {most}"
            ),
        );
    }

    /// `common(query_note, target_note, user_id)`: who saw the target within the window after the
    /// query; once a user and pair, or once an occurrence where these are counted.
    fn common(&mut self) {
        let each = self.scoring.weight == PairWeight::Events;
        let (distinct, times) = match each {
            true => ("", "once for each occurrence"),
            false => ("DISTINCT ", "once each"),
        };
        let (from_part, same_part) = match self.by_part {
            true => ("a.part, ", "b.part = a.part AND "),
            false => ("", ""),
        };
        let after = match self.scoring.ties {
            Ties::Ignore => ">",
            Ties::Both => ">=",
        };
        let window = self.scoring.window_seconds;
        self.step(
            "common",
            &format!("Users that saw the target within the window after the query, {times}."),
            &format!(
                "SELECT {distinct}{from_part}a.note AS query_note, b.note AS target_note, a.user_id\n\
                 FROM views AS a JOIN views AS b ON {same_part}b.user_id = a.user_id\n\
                 WHERE b.note <> a.note AND b.seconds {after} a.seconds \
                 AND b.seconds - a.seconds <= {window}"
            ),
        );
    }

    fn cosine(&mut self) {
        let part = self.part();
        let (of_pair, query_part, target_part) = match self.by_part {
            true => ("s.part, ", " AND q.part = s.part", " AND t.part = s.part"),
            false => ("", "", ""),
        };
        self.step(
            "audiences",
            "How many users saw a note at all.",
            &format!(
                "SELECT {part}note, count(DISTINCT user_id) AS audience\n\
                 FROM views\nGROUP BY {part}note"
            ),
        );
        self.step(
            "sums",
            "",
            &format!(
                "SELECT {part}query_note, target_note, count(*) AS users\n\
                 FROM common\nGROUP BY {part}query_note, target_note"
            ),
        );
        self.step(
            "scores",
            "A pair's score is the cosine of the two notes' sets of users.",
            &format!(
                "SELECT {of_pair}s.query_note, s.target_note, s.users,\n  \
                   CAST(s.users AS DOUBLE) / \
                   sqrt(CAST(q.audience AS DOUBLE) * CAST(t.audience AS DOUBLE)) AS weight\n\
                 FROM sums AS s\n\
                 JOIN audiences AS q ON q.note = s.query_note{query_part}\n\
                 JOIN audiences AS t ON t.note = s.target_note{target_part}"
            ),
        );
    }

    fn inverse_activity(&mut self, pair: &str) {
        let dialect = self.dialect;
        let part = self.part();
        self.step(
            "activities",
            "N, how many notes a user saw.",
            &format!(
                "SELECT {part}user_id, count(DISTINCT note) AS activity\n\
                 FROM views\nGROUP BY {part}user_id"
            ),
        );
        // Long division: the remainder so far, times the base, by N.
        let mut scaled = BASE.to_string();
        let mut columns = Vec::new();
        for column in 1..=COLUMNS {
            let digits = dialect.quotient(&scaled, "activity");
            columns.push(format!("  {digits} AS d{column}"));
            scaled = format!("({scaled} % activity) * {BASE}");
        }
        self.step(
            "inverses",
            "1 / N to 45 digits after the point, nine a column, by long division.",
            &format!(
                "SELECT {part}user_id,\n{}\nFROM activities",
                columns.join(",\n")
            ),
        );
        let (of_pair, same_part) = match self.by_part {
            true => ("c.part, ", "i.part = c.part AND "),
            false => ("", ""),
        };
        let sums: Vec<String> = (1..=COLUMNS)
            .map(|column| format!("CAST(sum(i.d{column}) AS BIGINT) AS d{column}"))
            .collect();
        self.step(
            "sums",
            "A pair's score is the sum of 1 / N over its users. Whole numbers add up to the same in\n\
             any order; the sum becomes a double once, when its digits are read.",
            &format!(
                "SELECT {of_pair}c.query_note, c.target_note, count(*) AS users,\n  {}\n\
                 FROM common AS c JOIN inverses AS i ON {same_part}i.user_id = c.user_id\n\
                 GROUP BY {of_pair}c.query_note, c.target_note",
                sums.join(", ")
            ),
        );
        // What is over nine digits is carried to the column on the left.
        let mut carried = format!("d{COLUMNS}");
        let mut columns = vec![format!("  {carried} AS d{COLUMNS}")];
        for column in (1..COLUMNS).rev() {
            carried = format!(
                "d{column} + {}",
                dialect.quotient(&format!("({carried})"), BASE)
            );
            columns.push(format!("  {carried} AS d{column}"));
        }
        self.step(
            "carried",
            "",
            &format!("SELECT {pair}, users,\n{}\nFROM sums", columns.join(",\n")),
        );
        let text = dialect.text();
        let groups: Vec<String> = (1..=COLUMNS)
            .map(|column| format!("lpad(CAST(d{column} % {BASE} AS {text}), {DIGITS}, '0')"))
            .collect();
        self.step(
            "scores",
            "",
            &format!(
                "SELECT {pair}, users,\n  \
                   CAST(concat(CAST({} AS {text}), '.',\n    {}) AS DOUBLE) AS weight\n\
                 FROM carried",
                dialect.quotient("d1", BASE),
                groups.join(",\n    ")
            ),
        );
    }

    /// The conditions that every pair has to meet.
    pub(super) fn conditions(&self) -> Vec<String> {
        let scoring = &self.scoring;
        let mut conditions = vec![format!("users >= {}", scoring.min_users)];
        conditions.extend(
            scoring
                .lower
                .map(|lower| format!("weight >= {}", double(lower))),
        );
        conditions.extend(
            scoring
                .upper
                .map(|upper| format!("weight <= {}", double(upper))),
        );
        conditions
    }

    /// `candidates`: the pairs within the bounds.
    pub(super) fn candidates(&mut self) {
        self.step(
            "candidates",
            "Pairs with enough users and a score within the bounds.",
            &format!(
                "SELECT {}query_note, target_note, weight\nFROM scores\nWHERE {}",
                self.part(),
                self.conditions().join(" AND ")
            ),
        );
    }

    /// The last word: the `kept` best partners of every note in `source`.
    pub(super) fn best(&mut self, source: &str, kept: Option<usize>, name: &str) -> String {
        self.best_step(source, kept, name);
        Self::last(name)
    }

    /// A step `name` of the `kept` best partners of every note in `source`.
    pub(super) fn best_step(&mut self, source: &str, kept: Option<usize>, name: &str) {
        let Some(kept) = kept else {
            let all = format!("SELECT query_note, target_note, weight FROM {source}");
            self.step(name, "All partners of a note.", &all);
            return;
        };
        self.step(
            name,
            "The best partners of a note: highest score, then lowest id.",
            &format!(
                "SELECT query_note, target_note, weight\n\
                 FROM (SELECT query_note, target_note, weight,\n    \
                   row_number() OVER (PARTITION BY query_note ORDER BY weight DESC, target_note) \
                   AS place\n  FROM {source}) AS ranked\n\
                 WHERE place <= {kept}"
            ),
        );
    }

    /// Pairs with their ids, in order.
    pub(super) fn last(pairs: &str) -> String {
        format!(
            "SELECT q.note_id AS query_id, t.note_id AS target_id, p.weight AS weight\n\
             FROM {pairs} AS p\n\
             JOIN notes_by_id AS q ON q.note = p.query_note\n\
             JOIN notes_by_id AS t ON t.note = p.target_note\n\
             ORDER BY p.query_note, p.weight DESC, p.target_note\n"
        )
    }
}
