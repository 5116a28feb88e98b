use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use mlrm_config::{PairSettings, PairWeight, Ties, TimeUnit};
use proptest::prelude::*;

use super::*;
use crate::interactions::Interactions;

type Event = (u8, u8, i64);

/// The definition, word for word: every ordered pair of rows of every user.
fn naive(events: &[Event], rules: &Scoring) -> Vec<(u8, u8, f64)> {
    let mut views: BTreeMap<u8, Vec<(i64, u8)>> = BTreeMap::new();
    for &(user, note, time) in events {
        views.entry(user).or_default().push((time, note));
    }
    for rows in views.values_mut() {
        rows.sort();
        let most = rules.max_events_per_user.unwrap_or(usize::MAX);
        rows.drain(..rows.len().saturating_sub(most));
    }
    let saw: BTreeMap<u8, BTreeSet<u8>> = views
        .iter()
        .map(|(&user, rows)| (user, rows.iter().map(|row| row.1).collect()))
        .collect();
    let audience = |note| saw.values().filter(|notes| notes.contains(&note)).count();
    // Users, occurrences, and the sum of 1 / N_u as a fraction of 2520 (N_u ≤ 10).
    let mut sums: BTreeMap<(u8, u8), (u32, u32, u32)> = BTreeMap::new();
    for (user, rows) in &views {
        let mut seen: HashMap<(u8, u8), u32> = HashMap::new();
        for &(time, a) in rows {
            for &(later, b) in rows {
                let follows = 0 < later - time || rules.ties == Ties::Both && later == time;
                if a != b && follows && later - time <= rules.window_seconds {
                    *seen.entry((a, b)).or_default() += 1;
                }
            }
        }
        for (pair, times) in seen {
            let sum = sums.entry(pair).or_default();
            *sum = (
                sum.0 + 1,
                sum.1 + times,
                sum.2 + 2520 / saw[user].len() as u32,
            );
        }
    }
    let mut related: BTreeMap<u8, Vec<(u8, f64)>> = BTreeMap::new();
    for ((a, b), (users, times, parts)) in sums {
        let score = match rules.weight {
            PairWeight::Count => users as f64,
            PairWeight::Events => times as f64,
            PairWeight::InverseActivity => parts as f64 / 2520.0,
            PairWeight::Cosine => users as f64 / ((audience(a) * audience(b)) as f64).sqrt(),
        };
        if users >= rules.min_users
            && rules.lower.is_none_or(|lower| score >= lower)
            && rules.upper.is_none_or(|upper| score <= upper)
        {
            related.entry(a).or_default().push((b, score));
        }
    }
    let mut pairs = Vec::new();
    for (a, mut partners) in related {
        partners.sort_by(|x, y| y.1.partial_cmp(&x.1).unwrap().then(x.0.cmp(&y.0)));
        partners.truncate(rules.top_k.unwrap_or(usize::MAX));
        pairs.extend(partners.into_iter().map(|(b, score)| (a, b, score)));
    }
    pairs
}

fn log_of(events: &[Event]) -> Interactions {
    let mut log = Interactions::default();
    for (user, note, time) in events {
        log.push(&format!("user {user}"), &note.to_string(), *time);
    }
    log
}

fn with_ids(log: &Interactions, pairs: &[ScoredPair]) -> Vec<(String, String, u64)> {
    let ids = |pair: &ScoredPair| {
        (
            log.notes[pair.query].to_owned(),
            log.notes[pair.target].to_owned(),
            pair.weight.to_bits(),
        )
    };
    pairs.iter().map(ids).collect()
}

fn scorings() -> impl Strategy<Value = Scoring> {
    (
        0i64..12,
        prop::sample::select(vec![
            PairWeight::Count,
            PairWeight::Events,
            PairWeight::InverseActivity,
            PairWeight::Cosine,
        ]),
        0u32..3,
        prop::option::of(prop::sample::select(vec![0.1, 0.25, 0.5, 1.0, 2.0])),
        prop::option::of(prop::sample::select(vec![0.2, 0.5, 1.0, 3.0])),
        prop::option::of(0usize..5),
        prop::option::of(0usize..12),
        prop::sample::select(vec![Ties::Ignore, Ties::Both]),
    )
        .prop_map(
            |(
                window_seconds,
                weight,
                min_users,
                lower,
                upper,
                top_k,
                max_events_per_user,
                ties,
            )| {
                Scoring {
                    window_seconds,
                    ties,
                    weight,
                    min_users,
                    lower,
                    upper,
                    top_k,
                    max_events_per_user,
                }
            },
        )
}

#[test]
fn scores_are_those_of_the_definition() {
    let events = prop::collection::vec((0u8..6, 5u8..15, 0i64..30), 0..90);
    proptest!(ProptestConfig::with_cases(1500), |(events in events, rules in scorings())| {
        let log = log_of(&events);
        let wanted: Vec<_> = naive(&events, &rules)
            .into_iter()
            .map(|(a, b, score)| (a.to_string(), b.to_string(), score.to_bits()))
            .collect();
        prop_assert_eq!(with_ids(&log, &score_pairs(&log, &rules)), wanted);
    });
}

#[test]
fn the_order_of_rows_does_not_matter() {
    let events = prop::collection::vec((0u8..6, 5u8..15, 0i64..30), 0..90);
    proptest!(|(events in events, rules in scorings(), by in 0usize..90)| {
        let mut other = events.clone();
        other.rotate_left(by % events.len().max(1));
        other.reverse();
        let (log, other) = (log_of(&events), log_of(&other));
        let pairs = with_ids(&log, &score_pairs(&log, &rules));
        prop_assert_eq!(pairs, with_ids(&other, &score_pairs(&other, &rules)));
    });
}

#[test]
fn only_eligible_partners_take_places() {
    let log = log_of(&[(0, 1, 0), (0, 2, 1), (0, 3, 2), (1, 1, 0), (1, 2, 1)]);
    let rules = Scoring {
        top_k: Some(1),
        weight: PairWeight::Count,
        ..Scoring::new(&PairSettings::default()).unwrap()
    };
    let two = log.notes.number("2").unwrap();
    let scored = score_pairs_where(&log, &log.events, &rules, |_, target| target != two);
    let dropped = PairLosses {
        split: 1,
        ..PairLosses::default()
    };
    assert_eq!(scored.dropped, dropped);
    let pairs = scored.pairs;
    let ids = with_ids(&log, &pairs);
    let ids: Vec<_> = ids
        .iter()
        .map(|(a, b, _)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(ids, [("1", "3"), ("2", "3")]);
}

#[test]
fn extreme_times_do_not_overflow() {
    let log = log_of(&[(0, 1, i64::MIN), (0, 2, i64::MAX), (0, 3, i64::MAX)]);
    let rules = Scoring::new(&PairSettings::default()).unwrap();
    assert_eq!(score_pairs(&log, &rules), []);
}

#[test]
fn python_gives_the_same_doubles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pairs");
    let log = Interactions::read(&folder.join("interactions.csv"), TimeUnit::Auto).unwrap();
    let cases = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&cases).unwrap();
    for case in &cases {
        let number = |key: &str| case[key].as_u64();
        let rules = Scoring {
            window_seconds: number("window").unwrap_or(7 * 24 * 3600) as i64,
            ties: Ties::Ignore,
            weight: serde_json::from_value(case["weight"].clone()).unwrap(),
            min_users: number("min_users").unwrap_or(1) as u32,
            lower: case["lower"].as_f64(),
            upper: case["upper"].as_f64(),
            top_k: number("top_k").map(|k| k as usize),
            max_events_per_user: None,
        };
        let wanted: Vec<(String, String, f64)> =
            serde_json::from_value(case["pairs"].clone()).unwrap();
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(a, b, s)| (a, b, s.to_bits()))
            .collect();
        assert!(wanted.len() > 30);
        assert_eq!(
            with_ids(&log, &score_pairs(&log, &rules)),
            wanted,
            "{rules:?}"
        );
    }
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for window_days in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let settings = PairSettings {
            window_days,
            ..PairSettings::default()
        };
        let message = Scoring::new(&settings).unwrap_err().to_string();
        assert!(message.contains("data.pairs.window_days"), "{message}");
    }
    let settings = PairSettings {
        lower: Some(f64::NAN),
        ..PairSettings::default()
    };
    assert!(Scoring::new(&settings).is_err());
    let settings = PairSettings {
        lower: Some(5.0),
        upper: Some(1.0),
        ..PairSettings::default()
    };
    let message = Scoring::new(&settings).unwrap_err().to_string();
    assert!(
        message.contains("at least 5 (`lower`) and at most 1"),
        "{message}"
    );
    // 0.3 days are 25,919.999… seconds as a double.
    let settings = PairSettings {
        window_days: 0.3,
        ..PairSettings::default()
    };
    assert_eq!(Scoring::new(&settings).unwrap().window_seconds, 25_920);
}

mod files {
    use super::*;

    fn read(name: &str, content: &str) -> std::result::Result<Vec<(String, String, f64)>, String> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(name);
        std::fs::write(&path, content).unwrap();
        let list = read_pairs(&path).map_err(|error| error.to_string())?;
        let ids = |pair: &ScoredPair| {
            (
                list.notes[pair.query].into(),
                list.notes[pair.target].into(),
                pair.weight,
            )
        };
        Ok(list.pairs.iter().map(ids).collect())
    }

    #[test]
    fn header_weight_and_order_of_columns_are_free() {
        let wanted = vec![("a".to_owned(), "b".to_owned(), 1.0)];
        for content in [
            "a,b",
            "a,b,1\n",
            "a,b,\n",
            "query_id,target_id\na,b\n",
            "target_id,weight,x,query_id\nb,1.0,?,a\n",
        ] {
            assert_eq!(read("p.csv", content).unwrap(), wanted, "{content}");
        }
        assert_eq!(read("p.csv", "").unwrap(), []);
    }

    #[test]
    fn errors_name_the_row() {
        for (content, wanted) in [
            ("a,b\nc\n", ":2: 1 fields where the first row has 2"),
            ("a,b,x\n", ":1: `weight` is `x`"),
            (
                "query_id,target_id,weight\na,b,NaN\n",
                ":2: `weight` is `NaN`",
            ),
            ("a,b,-1\n", ":1: `weight` is `-1`"),
            ("a,\n", ":1: `target_id` is empty"),
            (
                "query_id,target\na,b\n",
                ":1: the columns query_id,target_id are not all there",
            ),
            (
                "a,b,c,d\n",
                ":1: the columns query_id,target_id are not all there",
            ),
        ] {
            let message = read("p.csv", content).unwrap_err();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn csv_and_parquet_give_back_what_was_written() {
        let home = tempfile::tempdir().unwrap();
        let weights =
            prop::collection::vec(("[a-z\",\n é]{1,5}x", "[0-9]{1,3}", 0.0..1e300f64), 0..40);
        proptest!(ProptestConfig::with_cases(50), |(rows in weights)| {
            for name in ["p.csv", "p.parquet"] {
                let path = home.path().join(name);
                write_pairs(&path, rows.iter().map(|(query, target, weight)| RawPair {
                    query: query.trim(), target, weight: *weight,
                })).unwrap();
                let list = read_pairs(&path).unwrap();
                prop_assert_eq!(list.pairs.len(), rows.len());
                for (pair, (query, target, weight)) in list.pairs.iter().zip(&rows) {
                    prop_assert_eq!(&list.notes[pair.query], query.trim());
                    prop_assert_eq!(&list.notes[pair.target], target);
                    prop_assert_eq!(pair.weight.to_bits(), weight.to_bits());
                }
            }
        });
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        proptest!(ProptestConfig::with_cases(300), |(text in "[a,\"\n0-9.eN-]{0,60}")| {
            let _ = read("p.csv", &text);
        });
    }
}
