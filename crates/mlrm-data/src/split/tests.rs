use std::collections::HashMap;

use mlrm_config::{PairWeight, TestTargets};
use proptest::prelude::*;

use super::parts::assign_parts;
use super::*;
use crate::notes::Note;

fn notes(count: usize) -> NoteSet {
    let note = |number: usize| Note {
        id: format!("n{number}"),
        ..Note::default()
    };
    NoteSet::new((0..count).map(note).collect()).unwrap()
}

fn log(events: &[(u8, u8, i64)]) -> Interactions {
    let mut log = Interactions::default();
    for (user, note, time) in events {
        log.push(&user.to_string(), &format!("n{note}"), *time);
    }
    log
}

fn events() -> impl Strategy<Value = Vec<(u8, u8, i64)>> {
    prop::collection::vec((0u8..8, 0u8..20, 0i64..100), 0..150)
}

fn rules(split: Split, test_targets: TestTargets) -> PairSettings {
    PairSettings {
        window_days: 20.0 / 86_400.0,
        weight: PairWeight::Count,
        split,
        test_targets,
        test_fraction: 0.3,
        validation_fraction: 0.25,
        ..PairSettings::default()
    }
}

#[test]
fn no_training_pair_holds_a_held_out_note() {
    let targets = prop::sample::select(vec![TestTargets::HeldOut, TestTargets::All]);
    proptest!(|(events in events(), seed: u64, targets in targets)| {
        let (notes, log) = (notes(20), log(&events));
        let data = split_log(&log, &notes, &rules(Split::Note, targets), seed).unwrap();
        let part = |row: u32| data.parts[row as usize];
        let count = |wanted| data.parts.iter().filter(|&&part| part == wanted).count();
        prop_assert_eq!([count(Part::Test), count(Part::Validation), count(Part::Train)], [6, 4, 10]);
        for pair in &data.pairs.train {
            prop_assert_eq!((part(pair.query), part(pair.target)), (Part::Train, Part::Train));
        }
        for pair in &data.pairs.validation {
            prop_assert_eq!(part(pair.query), Part::Validation);
            prop_assert_ne!(part(pair.target), Part::Test);
        }
        for pair in &data.pairs.test {
            prop_assert_eq!(part(pair.query), Part::Test);
        }
        let held_out = data.pairs.validation.iter().chain(&data.pairs.test);
        for pair in held_out.filter(|_| targets == TestTargets::HeldOut) {
            prop_assert_eq!(part(pair.query), part(pair.target));
        }
    });
}

#[test]
fn the_split_keeps_every_pair_that_may_be_kept() {
    proptest!(|(events in events(), seed: u64)| {
        let (notes, log) = (notes(20), log(&events));
        let settings = PairSettings { top_k: None, ..rules(Split::Note, TestTargets::All) };
        let data = split_log(&log, &notes, &settings, seed).unwrap();
        let all = split_log(&log, &notes, &PairSettings { split: Split::None, ..settings }, seed).unwrap();
        prop_assert_eq!(&all.pairs.train, &all.pairs.test);
        prop_assert_eq!(&all.pairs.train, &all.pairs.validation);
        let part = |row: u32| data.parts[row as usize];
        let wanted = |query_part: Part, may: &dyn Fn(Part) -> bool| -> Vec<Pair> {
            let keeps = |pair: &&Pair| part(pair.query) == query_part && may(part(pair.target));
            all.pairs.train.iter().filter(keeps).copied().collect()
        };
        prop_assert_eq!(&data.pairs.train, &wanted(Part::Train, &|part| part == Part::Train));
        prop_assert_eq!(&data.pairs.validation, &wanted(Part::Validation, &|part| part != Part::Test));
        prop_assert_eq!(&data.pairs.test, &wanted(Part::Test, &|_| true));
    });
}

#[test]
fn later_parts_hold_no_pair_of_an_earlier_one() {
    proptest!(|(events in events(), seed: u64)| {
        let (notes, log) = (notes(20), log(&events));
        let rules = rules(Split::Time, TestTargets::HeldOut);
        let data = split_log(&log, &notes, &rules, seed).unwrap();
        let pairs = &data.pairs;
        let mut parts_of: HashMap<_, Vec<usize>> = HashMap::new();
        for (part, pairs) in [&pairs.train, &pairs.validation, &pairs.test].into_iter().enumerate() {
            for pair in pairs {
                parts_of.entry(unordered(pair.query, pair.target)).or_default().push(part);
            }
        }
        for (pair, mut parts) in parts_of {
            parts.dedup();
            prop_assert_eq!(parts.len(), 1, "{:?} is in several parts", pair);
        }
        // Training pairs are those of the early events alone.
        let mut times: Vec<i64> = events.iter().map(|event| event.2).collect();
        times.sort();
        let before = |count: usize| times.get(count).copied().unwrap_or(i64::MAX);
        let test_from = before(events.len() - (events.len() as f64 * 0.3).round() as usize);
        let rest = times.iter().filter(|&&time| time < test_from).count();
        let validation_from = match rest - (rest as f64 * 0.25).round() as usize {
            count if count == rest => test_from,
            count => times[count],
        };
        let early: Vec<_> = events.iter().filter(|event| event.2 < validation_from).copied().collect();
        let alone = split_log(&self::log(&early), &notes, &PairSettings { split: Split::None, ..rules }, seed);
        let sorted = |pairs: &[Pair]| {
            let mut pairs: Vec<_> = pairs.iter().map(|pair| (pair.query, pair.target)).collect();
            pairs.sort();
            pairs
        };
        let alone = alone.unwrap();
        prop_assert_eq!(sorted(&pairs.train), sorted(&alone.pairs.train));
        prop_assert_eq!(&data.note_users, &alone.note_users);
    });
}

#[test]
fn parts_depend_on_seed_and_id_alone() {
    let settings = rules(Split::Note, TestTargets::HeldOut);
    let forward = notes(50);
    let backward = NoteSet::new(forward.rows().iter().rev().cloned().collect()).unwrap();
    let mut other = assign_parts(&backward, &settings, 3);
    other.reverse();
    let parts = assign_parts(&forward, &settings, 3);
    assert_eq!(parts, other);
    assert_ne!(parts, assign_parts(&forward, &settings, 4));
    // Fixed for all time: a run that is resumed after an update must find its parts again.
    let test: Vec<_> = (0..50).filter(|&row| parts[row] == Part::Test).collect();
    assert_eq!(
        test,
        [1, 2, 3, 4, 5, 13, 14, 16, 20, 21, 24, 36, 37, 41, 43]
    );
}

#[test]
fn partners_know_both_directions_of_training_pairs_only() {
    let pair = |query, target| Pair {
        query,
        target,
        weight: 1.0,
    };
    let split = PairSplit {
        train: vec![pair(0, 2), pair(2, 0), pair(3, 2)],
        test: vec![pair(1, 0)],
        ..PairSplit::default()
    };
    let partners = split.known_partners(5);
    assert_eq!(partners.of(2), [0, 3]);
    assert_eq!(partners.of(0), [2]);
    assert!(partners.of(1).is_empty() && partners.of(4).is_empty() && partners.of(9).is_empty());
    assert!(partners.contains(2, 3) && partners.contains(3, 2) && !partners.contains(0, 1));
}

mod settings {
    use mlrm_config::DataSettings;

    use super::*;

    fn home(log: &str, pairs: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("interactions.csv"), log).unwrap();
        std::fs::write(home.path().join("pairs.csv"), pairs).unwrap();
        home
    }

    fn load(
        home: &tempfile::TempDir,
        change: impl FnOnce(&mut DataSettings),
    ) -> Result<PairData, String> {
        let mut settings = DataSettings {
            root: home.path().into(),
            ..DataSettings::default()
        };
        settings.pairs.test_fraction = 0.0;
        settings.pairs.validation_fraction = 0.0;
        change(&mut settings);
        load_pairs(&settings, &notes(4), 1).map_err(|error| error.to_string())
    }

    const LOG: &str = "user_id,note_id,timestamp\nu,n0,1\nu,n1,2\nv,n0,1\nv,n1,2\nw,n1,5\n";

    #[test]
    fn a_log_gives_pairs_and_popularity() {
        let home = home(LOG, "");
        let data = load(&home, |settings| settings.pairs.weight = PairWeight::Count).unwrap();
        assert_eq!(
            data.pairs.train,
            [Pair {
                query: 0,
                target: 1,
                weight: 2.0
            }]
        );
        assert_eq!(data.note_users, [2, 3, 0, 0]);
        assert_eq!(data.parts, [Part::Train; 4]);
    }

    #[test]
    fn a_file_of_pairs_goes_before_the_log() {
        let home = home(
            LOG,
            "n2,n3\nn3,n3\nn0,n2,0.5\n"
                .replace("n3\nn", "n3,1\nn")
                .as_str(),
        );
        let set = |settings: &mut DataSettings| settings.pairs_file = Some("pairs.csv".into());
        let data = load(&home, set).unwrap();
        let pair = |query, target, weight| Pair {
            query,
            target,
            weight,
        };
        assert_eq!(data.pairs.train, [pair(2, 3, 1.0), pair(0, 2, 0.5)]);
        assert_eq!(data.note_users, [2, 3, 0, 0]);
        let without_log = |settings: &mut DataSettings| {
            set(settings);
            settings.interactions = None;
        };
        assert_eq!(load(&home, without_log).unwrap().note_users, [0, 0, 1, 1]);
        let message = load(&home, |settings| {
            set(settings);
            settings.pairs.split = Split::Time;
        });
        assert!(
            message
                .unwrap_err()
                .contains("ready-made pairs have no time")
        );
    }

    /// As `mlrm data check --fix` would leave them out: the rest is as if they had never been.
    #[test]
    fn notes_that_are_dropped_are_in_no_pair_and_in_no_count() {
        let log = "user_id,note_id,timestamp\nu,n0,1\nu,n3,2\nu,n1,3\nv,n0,1\nv,n1,2\n";
        let home = home(log, "n0,n1\nn3,n0\nn1,n3\n");
        let mut settings = DataSettings {
            root: home.path().into(),
            ..DataSettings::default()
        };
        settings.pairs.test_fraction = 0.0;
        settings.pairs.validation_fraction = 0.0;
        let kept = notes(4).without(&[3]);
        let from_log = load_pairs(&settings, &kept, 1).unwrap();
        // Two users, each of which saw two notes: 1/2 + 1/2.
        let pair = Pair {
            query: 0,
            target: 1,
            weight: 1.0,
        };
        assert_eq!(from_log.pairs.train, [pair]);
        assert_eq!(from_log.note_users, [2, 2, 0]);
        settings.pairs_file = Some("pairs.csv".into());
        let from_pairs = load_pairs(&settings, &kept, 1).unwrap();
        assert_eq!(from_pairs.pairs.train, [pair]);
        assert_eq!(from_pairs.note_users, [2, 2, 0]);
    }

    #[test]
    fn a_split_is_written_in_three_files() {
        let home = home(LOG, "");
        let data = load(&home, |settings| settings.pairs.weight = PairWeight::Count).unwrap();
        let out = home.path().join("split");
        data.pairs.write(&out, &notes(4)).unwrap();
        let train = std::fs::read_to_string(out.join("train.csv")).unwrap();
        assert_eq!(train, "query_id,target_id,weight\nn0,n1,2\n");
        let test = std::fs::read_to_string(out.join("test.csv")).unwrap();
        assert_eq!(test, "query_id,target_id,weight\n");
        assert!(out.join("validation.csv").is_file());
        assert!(data.pairs.write(&out, &notes(4)).is_err());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let home = home(&format!("{LOG}u,n9,1\n"), "n0,n9\n");
        let message = load(&home, |_| ()).unwrap_err();
        assert!(message.contains("the note `n9` of the log is not among the notes"));
        let message = load(&home, |settings| {
            settings.pairs_file = Some("pairs.csv".into())
        });
        assert!(message.unwrap_err().contains("no note has the id `n9`"));
        let message = load(&home, |settings| settings.interactions = None).unwrap_err();
        assert!(
            message.contains("neither a log nor a file of pairs"),
            "{message}"
        );
        let message = load(&home, |settings| settings.pairs.test_fraction = 1.0).unwrap_err();
        assert!(message.contains("data.pairs.test_fraction"), "{message}");
        let home = self::home(LOG, "");
        let message = load(&home, |settings| settings.pairs.min_users = 3).unwrap_err();
        assert!(message.contains("no training pair is left"), "{message}");
    }
}

/// Training notes learn from `train_top_k` partners: the best of what they would have without a
/// bound; and the truth of held-out notes is what it is without the key.
#[test]
fn training_partners_have_a_bound_of_their_own() {
    let bound = prop::sample::select(vec![0, 1, 2, 5, 1000]);
    let splits = prop::sample::select(vec![Split::Note, Split::None]);
    proptest!(|(events in events(), seed: u64, bound in bound, split in splits)| {
        let (notes, log) = (notes(20), log(&events));
        let plain = PairSettings { top_k: Some(2), ..rules(split, TestTargets::All) };
        let deep = PairSettings { train_top_k: Some(bound), ..plain.clone() };
        let all = PairSettings { top_k: None, ..plain.clone() };
        let [plain, deep, all] = [plain, deep, all]
            .map(|rules| split_log(&log, &notes, &rules, seed).unwrap().pairs);
        prop_assert_eq!(&deep.validation, &plain.validation);
        prop_assert_eq!(&deep.test, &plain.test);
        let mut expected = Vec::new();
        for pair in &all.train {
            let before = expected.iter().filter(|p: &&Pair| p.query == pair.query).count();
            if bound == 0 || before < bound {
                expected.push(*pair);
            }
        }
        prop_assert_eq!(&deep.train, &expected);
    });
}

/// With `split = "time"` a deeper training list keeps its pairs out of the later parts too.
#[test]
fn deeper_training_pairs_are_not_in_later_parts() {
    proptest!(|(events in events(), seed: u64)| {
        let (notes, log) = (notes(20), log(&events));
        let deep = PairSettings {
            top_k: Some(2),
            train_top_k: Some(0),
            ..rules(Split::Time, TestTargets::All)
        };
        let all = PairSettings { top_k: None, ..deep.clone() };
        let pairs = split_log(&log, &notes, &deep, seed).unwrap().pairs;
        prop_assert_eq!(&pairs.train, &split_log(&log, &notes, &all, seed).unwrap().pairs.train);
        let known: std::collections::HashSet<_> =
            pairs.train.iter().map(|pair| unordered(pair.query, pair.target)).collect();
        let later = pairs.validation.iter().chain(&pairs.test);
        let mut counts = HashMap::new();
        for pair in later {
            prop_assert!(!known.contains(&unordered(pair.query, pair.target)));
            *counts.entry(pair.query).or_insert(0) += 1;
        }
        // Two partners from the validation events and two from the test events.
        prop_assert!(counts.values().all(|&count| count <= 4));
    });
}
