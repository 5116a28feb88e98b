//! `mlrm data pairs --sql` against `mlrm data pairs`, in the engines that the queries are for: random
//! logs under random rules, row by row and bit by bit. Runs where the Python that `MLRM_PYTHON` names
//! (or `python3`) has the engine's package.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Home, skipped};

/// SplitMix64: the cases are the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Ids that are all integers (some of one value, some longer than any type), or not all.
fn note_ids(random: &mut Random, count: usize) -> Vec<String> {
    const ODD: [&str; 10] = [
        "-0",
        "007",
        "7",
        "-12",
        "-3",
        "170141183460469231731687303715884105727",
        "-170141183460469231731687303715884105728",
        "00000000000000000000000000000000000000000012",
        "99999999999999999999",
        "9007199254740993",
    ];
    // Kept as texts by the first of these: UTF-16 order would put the last two the other way round.
    const TEXTS: [&str; 8] = [
        "170141183460469231731687303715884105728",
        "+7",
        "é'q",
        "a,\"b",
        "Z\\n",
        "a b",
        "\u{ffff}",
        "\u{10000}",
    ];
    let mut ids: Vec<String> = (0..count).map(|number| format!("{}", number * 3)).collect();
    let mut fill = |from: &[&str]| {
        for (slot, id) in ids.iter_mut().skip(1).step_by(2).zip(from) {
            *slot = (*id).to_owned();
        }
    };
    match random.below(4) {
        0 => {}
        1 => fill(&ODD),
        2 => fill(&TEXTS),
        _ => {
            for id in &mut ids {
                *id = format!("n{id}");
            }
        }
    }
    ids
}

fn csv(rows: impl Iterator<Item = Vec<String>>, header: &str) -> String {
    let mut text = format!("{header}\n");
    for row in rows {
        let fields = row
            .iter()
            .map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
        let _in_memory = writeln!(text, "{}", fields.collect::<Vec<_>>().join(","));
    }
    text
}

/// A log of few users, notes and times, so that ties of all kinds are in it.
fn log(random: &mut Random, ids: &[String], per_second: u64) -> String {
    let (users, times) = (1 + random.below(9), 1 + random.below(60));
    let events = 20 + random.below(180);
    let rows = (0..events).map(|_| {
        let blanks = random.pick(&["", "", "", " ", "\u{3000}", "\t"]);
        let time = (random.below(times) * 3600) * per_second + random.below(per_second);
        vec![
            format!("{blanks}u{}", random.below(users)),
            format!("{}{blanks}", ids[random.below(ids.len() as u64) as usize]),
            time.to_string(),
        ]
    });
    csv(
        rows.collect::<Vec<_>>().into_iter(),
        "user_id,note_id,timestamp",
    )
}

/// A case: what the commands are told.
struct Case {
    rules: Vec<String>,
    split: Option<(&'static str, &'static str)>,
    notes: bool,
}

impl Case {
    fn draw(random: &mut Random) -> Self {
        let mut rules = Vec::new();
        let mut rule = |name: &str, value: String| rules.push(format!("--{name}={value}"));
        rule(
            "weight",
            random
                .pick(&["count", "events", "inverse_activity", "cosine"])
                .into(),
        );
        rule(
            "window-days",
            random.pick(&["0.05", "0.5", "1", "400"]).into(),
        );
        for (name, values) in [
            ("ties", ["ignore", "both", "both"].as_slice()),
            ("min-users", &["1", "2", "3"]),
            ("lower", &["0.3", "0.3333333333333333", "1", "-inf"]),
            ("upper", &["2", "1", "3", "inf"]),
            ("top-k", &["all", "1", "3", "0"]),
            ("max-events-per-user", &["2", "4", "12"]),
        ] {
            if random.chance(35) {
                rule(name, random.pick(values).into());
            }
        }
        let split = random.chance(70).then(|| {
            let kind = random.pick(&["note", "time", "none"]);
            let part = random.pick(&["train", "validation", "test"]);
            for (name, values) in [
                ("train-top-k", ["all", "2", "5"].as_slice()),
                ("test-fraction", &["0", "0.25", "0.5"]),
                ("validation-fraction", &["0", "0.35", "0.5"]),
                ("test-targets", &["all", "held_out"]),
            ] {
                if random.chance(60) {
                    rule(name, random.pick(values).into());
                }
            }
            rule(
                "seed",
                random.pick(&["0", "7", "18446744073709551615"]).into(),
            );
            (kind, part)
        });
        Self {
            rules,
            split,
            notes: random.chance(40),
        }
    }
}

/// What the built-in command gives: header and rows, weights as numbers.
fn built_in(home: &Home, folder: &str, case: &Case, unit: &str) -> Vec<[String; 3]> {
    let log = format!("{folder}/log.csv");
    let mut words = vec!["data", "pairs", &log, "--time-unit", unit];
    words.extend(case.rules.iter().map(String::as_str));
    let notes = format!("{folder}/notes.csv");
    if case.notes {
        words.extend(["--notes", &notes]);
    }
    let Some((kind, part)) = case.split else {
        return rows(&home.mlrm(&words).done().out);
    };
    let out = format!("split-{}", folder.replace('/', "-"));
    words.extend(["--split", kind, "--out", &out]);
    home.mlrm(&words).done();
    rows(&home.read(format!("{out}/{part}.csv")))
}

/// Rows of a file of pairs, by a small reader of CSV; the weight is its bits.
fn rows(text: &str) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            _ => field.push(letter),
        }
    }
    assert_eq!(rows.remove(0), ["query_id", "target_id", "weight"]);
    let bits = |row: Vec<String>| {
        let [query, target, weight] = row.try_into().expect("three fields");
        let weight = weight
            .parse::<f64>()
            .map_or(weight, |weight| format!("{:x}", weight.to_bits()));
        [query, target, weight]
    };
    rows.into_iter().map(bits).collect()
}

/// Draws cases, runs the queries of all of them in one process of the engine, and compares.
fn holds(engine: &str, cases: usize) {
    let home = Home::empty();
    let mut random = Random(engine.len() as u64);
    let mut drawn = Vec::new();
    for number in 0.. {
        if drawn.len() == cases {
            break;
        }
        let folder = format!("cases/{number:05}");
        let case = Case::draw(&mut random);
        let count = 2 + random.below(24) as usize;
        let ids = note_ids(&mut random, count);
        let (unit, per_second) =
            random.pick(&[("s", 1), ("ms", 1_000), ("us", 1_000_000), ("auto", 1)]);
        home.write(
            &format!("{folder}/log.csv"),
            log(&mut random, &ids, per_second),
        );
        let mut words = vec!["data", "pairs", "--sql", engine, "--time-unit", unit];
        words.extend(case.rules.iter().map(String::as_str));
        if case.notes {
            let extra = (0..random.below(6)).map(|number| format!("extra{number}"));
            let ids = ids.iter().cloned().chain(extra).map(|id| vec![id]);
            home.write(&format!("{folder}/notes.csv"), csv(ids, "id"));
            words.extend(["--notes", "a table"]);
        }
        if let Some((kind, part)) = case.split {
            words.extend(["--split", kind, "--part", part]);
        }
        let query = home.mlrm(&words).done().out.clone();
        home.write(&format!("{folder}/query.sql"), query);
        let wanted = built_in(&home, &folder, &case, unit);
        // Cases that give nothing show little: few of them are kept.
        match wanted.len() > 3 || random.chance(10) {
            true => drawn.push((folder, case, wanted)),
            false => fs::remove_dir_all(home.path(folder)).expect("a case"),
        }
    }

    let python = std::env::var("MLRM_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sql/run_queries.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(engine)
        .arg(home.path("cases"))
        .output();
    let test = format!("{engine}_gives_what_is_built_in");
    let output = match output {
        Ok(output) if output.status.code() != Some(77) => output,
        Ok(output) => {
            return skipped(&test, engine, &String::from_utf8_lossy(&output.stderr));
        }
        Err(_) => {
            return skipped(
                &test,
                engine,
                &format!("there is no `{python}` (set MLRM_PYTHON)"),
            );
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    for (folder, case, wanted) in drawn {
        let found = rows(&home.read(format!("{folder}/result.csv")));
        assert_eq!(
            found,
            wanted,
            "{:?} {:?}\n{}",
            case.rules,
            case.split,
            home.read(format!("{folder}/log.csv"))
        );
    }
}

#[test]
fn duckdb_gives_what_is_built_in() {
    holds("duckdb", 100);
}

#[test]
fn datafusion_gives_what_is_built_in() {
    holds("datafusion", 60);
}

#[test]
fn spark_gives_what_is_built_in() {
    holds("spark", 4);
}

#[test]
fn a_config_is_written_whole_and_what_tells_nothing_is_refused() {
    let home = Home::with_config();
    let sql = |more: &str| home.mlrm(format!("data pairs --sql duckdb --config tiny.toml {more}"));
    let text = sql("").done().out.clone();
    for word in [
        "-- split = note, part = all, train_top_k = 10, test_fraction = 0.25",
        "seed = 1",
        "FROM notes",
        "weight = cosine, min_users = 2",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(
        text.trim_end()
            .ends_with("ORDER BY p.query_note, p.weight DESC, p.target_note")
    );
    sql("--out plan.sql").done();
    assert_eq!(home.read("plan.sql"), text);
    home.refused("data pairs --sql spark --out x.csv", &["end in .sql"]);
    home.refused(
        "data pairs --sql spark --split time",
        &["data.pairs.split", "--part train"],
    );
    home.refused("data pairs --sql spark --part test", &["there is no split"]);
    home.refused(
        "data pairs --sql spark --split note --test-fraction 1.5",
        &["data.pairs.test_fraction", "1.5", "[0, 1)"],
    );
    home.mlrm("data pairs log.csv --sql spark")
        .failed_with(2, &["cannot be used with"]);
    home.mlrm("data pairs --sql oracle")
        .failed_with(2, &["`spark`, `duckdb`, `datafusion`"]);
}
