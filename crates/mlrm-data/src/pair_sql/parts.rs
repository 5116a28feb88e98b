//! The splits: which notes or events belong to which part, and what may pair.

use mlrm_config::TestTargets;

use super::{Dialect, SplitQuery, Steps, double};
use crate::split::{FNV_PRIME, FNV_START, Part, SPLIT_MIX, mixed_seed};

pub(super) fn name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    }
}

/// The rounded share of a whole number, as a whole number.
fn share(of: &str, fraction: f64) -> String {
    format!(
        "CAST(round(CAST({of} AS DOUBLE) * {}) AS BIGINT)",
        double(fraction)
    )
}

impl Steps<'_> {
    /// `note_parts(note, part)`: the notes in the order of a seeded hash of their ids, the first
    /// share is test, the next validation.
    pub(super) fn note_parts(&mut self, split: SplitQuery) {
        let dialect = self.dialect;
        let ids = match split.notes_table {
            true => format!("SELECT DISTINCT {} AS note_id FROM notes", dialect.id("id")),
            false => "SELECT note_id FROM notes_by_id".into(),
        };
        self.step("all_notes", "The notes that are split.", &ids);
        self.step(
            "spelt_bytes",
            "",
            &format!(
                "SELECT note_id, {} AS bytes FROM all_notes",
                dialect.hexadecimal("note_id")
            ),
        );
        self.hash();
        let seed = dialect.xor("hash", &mixed_seed(split.seed).cast_signed().to_string());
        self.step(
            "mixed_0",
            "The finaliser of SplitMix64 mixes the seed in.",
            &format!("SELECT note_id, {seed} AS hash FROM hashed"),
        );
        let shifted = |by: u32| dialect.xor("hash", &dialect.shift_right("hash", by));
        let [(first, factor), (second, other_factor), (last, _)] = SPLIT_MIX;
        let rounds = [
            dialect.low_product(&shifted(first), factor.cast_signed()),
            dialect.low_product(&shifted(second), other_factor.cast_signed()),
            shifted(last),
        ];
        for (round, hash) in rounds.iter().enumerate() {
            let body = format!("SELECT note_id, {hash} AS hash FROM mixed_{round}");
            self.step(&format!("mixed_{}", round + 1), "", &body);
        }
        self.step(
            "placed",
            "Notes in the order of their hashes as numbers without a sign.",
            "SELECT note_id, count(*) OVER () AS notes, row_number() OVER (\n    \
               ORDER BY CASE WHEN hash < 0 THEN 1 ELSE 0 END, hash, note_id) AS place\n\
             FROM mixed_3",
        );
        self.step(
            "test_shares",
            "The first share of them is the test, the next is validation.",
            &format!(
                "SELECT note_id, notes, place, {} AS test\nFROM placed",
                share("notes", self.rules.test_fraction)
            ),
        );
        self.step(
            "shares",
            "",
            &format!(
                "SELECT note_id, place, test, {} AS validation\nFROM test_shares",
                share("(notes - test)", self.rules.validation_fraction)
            ),
        );
        self.step(
            "note_parts",
            "",
            "SELECT n.note,\n  \
               CASE WHEN s.place <= s.test THEN 'test'\n    \
                 WHEN s.place <= s.test + s.validation THEN 'validation' ELSE 'train' END AS part\n\
             FROM shares AS s JOIN notes_by_id AS n ON n.note_id = s.note_id",
        );
    }

    /// `hashed(note_id, hash)`: FNV-1a over the bytes of an id.
    fn hash(&mut self) {
        let dialect = self.dialect;
        let digit = |place: &str| {
            format!("(position(substr(bytes, {place}, 1) IN '0123456789ABCDEF') - 1)")
        };
        let byte = format!(
            "16 * {} + {}",
            digit("2 * place + 1"),
            digit("2 * place + 2")
        );
        let byte = format!("CAST({byte} AS BIGINT)");
        let next = dialect.low_product(&dialect.xor("hash", &byte), FNV_PRIME.cast_signed());
        let start = format!("CAST({} AS BIGINT)", FNV_START.cast_signed());
        let comment = "FNV-1a over the bytes of an id.";
        if dialect == Dialect::Spark {
            let body = format!(
                "SELECT note_id, aggregate(sequence(0, {} - 1), {start},\n    \
                   (hash, place) -> {next}) AS hash\nFROM spelt_bytes",
                dialect.quotient("length(bytes)", 2)
            );
            return self.step("hashed", comment, &body);
        }
        self.recursive = true;
        self.step(
            "hashing",
            comment,
            &format!(
                "SELECT note_id, bytes, {start} AS hash, CAST(0 AS BIGINT) AS place\n\
                 FROM spelt_bytes\n\
                 UNION ALL\n\
                 SELECT note_id, bytes,\n  {next} AS hash,\n  place + 1 AS place\n\
                 FROM hashing WHERE 2 * place < length(bytes)"
            ),
        );
        self.step(
            "hashed",
            "",
            "SELECT note_id, hash FROM hashing WHERE 2 * place = length(bytes)",
        );
    }

    /// `candidates(query_note, target_note, weight, part)`: the pairs within the bounds whose notes'
    /// parts allow them.
    pub(super) fn candidates_of_parts(&mut self) {
        let (rule, allowed) = match self.rules.test_targets {
            TestTargets::HeldOut => ("both notes of one part", "t.part = q.part".to_owned()),
            TestTargets::All => (
                "a training note with one of its kind, a validation\n\
                 note with any that is not of the test, a test note with any",
                "(t.part = q.part OR q.part = 'test' \
                 OR q.part = 'validation' AND t.part = 'train')"
                    .to_owned(),
            ),
        };
        let mut conditions = self.conditions();
        conditions.push(allowed);
        self.step(
            "candidates",
            &format!("Pairs with enough users, a score within the bounds, and {rule}."),
            &format!(
                "SELECT s.query_note, s.target_note, s.weight, q.part\n\
                 FROM scores AS s\n\
                 JOIN note_parts AS q ON q.note = s.query_note\n\
                 JOIN note_parts AS t ON t.note = s.target_note\n\
                 WHERE {}",
                conditions.join("\n  AND ")
            ),
        );
    }

    /// The last word: the best partners of every note, of one part or of all.
    pub(super) fn best_of_parts(&mut self, part: Option<Part>) -> String {
        let (train, held_out) = (self.rules.training_partners(), self.rules.top_k);
        if let Some(part) = part {
            let name = name(part);
            self.step(
                "candidates_of_part",
                "",
                &format!(
                    "SELECT query_note, target_note, weight FROM candidates WHERE part = '{name}'"
                ),
            );
            let kept = if part == Part::Train { train } else { held_out };
            return self.best("candidates_of_part", kept, "pairs");
        }
        if train == held_out {
            return self.best("candidates", train, "pairs");
        }
        for (name, of, kept) in [
            ("training_pairs", "= 'train'", train),
            ("held_out_pairs", "<> 'train'", held_out),
        ] {
            let source = format!(
                "(SELECT query_note, target_note, weight FROM candidates WHERE part {of}) AS {name}_all"
            );
            self.best_step(&source, kept, name);
        }
        self.step(
            "pairs",
            "",
            "SELECT query_note, target_note, weight FROM training_pairs\n\
             UNION ALL\n\
             SELECT query_note, target_note, weight FROM held_out_pairs",
        );
        Self::last("pairs")
    }

    /// `parted_events`: the log's last events are the test, those before validation. Events of one
    /// time stay together in the later part.
    pub(super) fn time_parts(&mut self) {
        let start = |fraction: f64, name: &str| {
            format!(
                "SELECT min(CASE WHEN place > events - {} THEN seconds END) AS {name}",
                share("events", fraction)
            )
        };
        self.step(
            "timed",
            "The log's last events are the test, those before validation. Events of one time stay\n\
             together in the later part. A start that is NULL leaves its part empty.",
            "SELECT seconds, count(*) OVER () AS events, \
             row_number() OVER (ORDER BY seconds) AS place\nFROM events",
        );
        let test = start(self.rules.test_fraction, "test_start");
        self.step("test_starts", "", &format!("{test}\nFROM timed"));
        self.step(
            "before_test",
            "",
            "SELECT t.seconds, t.place, count(*) OVER () AS events\n\
             FROM timed AS t CROSS JOIN test_starts AS s\n\
             WHERE s.test_start IS NULL OR t.seconds < s.test_start",
        );
        let validation = start(self.rules.validation_fraction, "validation_start");
        self.step(
            "validation_starts",
            "",
            &format!("{validation}\nFROM before_test"),
        );
        self.step(
            "parted_events",
            "",
            "SELECT CASE WHEN e.seconds >= t.test_start THEN 'test'\n    \
                 WHEN e.seconds >= v.validation_start THEN 'validation' ELSE 'train' END AS part,\n  \
               e.user_id, e.note_id, e.seconds\n\
             FROM events AS e CROSS JOIN test_starts AS t CROSS JOIN validation_starts AS v",
        );
    }

    /// The last word: the best pairs of a part that no earlier part has, in either direction.
    pub(super) fn fresh_pairs(&mut self, wanted: Part) -> String {
        let parts = [Part::Train, Part::Validation, Part::Test];
        let mut earlier: Vec<&str> = Vec::new();
        for part in parts {
            let part_name = name(part);
            let mut body = format!(
                "SELECT c.query_note, c.target_note, c.weight\nFROM candidates AS c\n\
                 WHERE c.part = '{part_name}'"
            );
            if !earlier.is_empty() {
                let both: Vec<String> = earlier
                    .iter()
                    .flat_map(|part| {
                        [
                            format!("SELECT query_note, target_note FROM {part}_pairs"),
                            format!(
                                "SELECT target_note AS query_note, query_note AS target_note \
                                 FROM {part}_pairs"
                            ),
                        ]
                    })
                    .collect();
                self.step(
                    &format!("known_before_{part_name}"),
                    "Pairs of the earlier parts, in both directions.",
                    &both.join("\nUNION\n"),
                );
                body += &format!(
                    "\n  AND NOT EXISTS (SELECT 1 FROM known_before_{part_name} AS k\n    \
                       WHERE k.query_note = c.query_note AND k.target_note = c.target_note)"
                );
            }
            let fresh = format!("fresh_{part_name}");
            self.step(
                &fresh,
                &format!("Candidates of the {part_name} part."),
                &body,
            );
            let kept = match part {
                Part::Train => self.rules.training_partners(),
                _ => self.rules.top_k,
            };
            let pairs = format!("{part_name}_pairs");
            self.best_step(&fresh, kept, &pairs);
            if part == wanted {
                return Self::last(&pairs);
            }
            earlier.push(part_name);
        }
        Self::last("test_pairs")
    }
}
