//! `mlrm data`: the sample set, checks and their mends, pairs, MovieLens files.

mod support;

use std::fs;

use serde_json::Value;
use support::{Home, SYNTH, training};

#[test]
fn data_is_drawn_checked_and_paired() {
    let home = Home::empty();
    let synth = format!("{SYNTH} --json");
    let made = home.mlrm(&synth).done().json();
    assert_eq!(
        (&made["made"], &made["settings"]["notes"]),
        (&Value::from(true), &80.into())
    );
    assert_eq!(
        home.mlrm(&synth).done().json()["made"],
        false,
        "the same set is kept"
    );
    assert_eq!(home.read("data/notes.jsonl").lines().count(), 80);

    // The same settings draw the same set, another seed another.
    for (folder, seed, same) in [("twin", "7", true), ("other", "8", false)] {
        let synth = SYNTH.replace(" data ", &format!(" {folder} "));
        home.mlrm(format!("{synth} --seed {seed}")).done();
        for file in ["notes.jsonl", "interactions.csv", "images/n00003.png"] {
            let read = |folder: &str| fs::read(home.path(folder).join(file)).expect(file);
            assert_eq!(read(folder) == read("data"), same, "{folder}/{file}");
        }
    }

    let report = home.mlrm("data check data --json").done().json();
    assert_eq!(
        (&report["notes"], &report["images"]),
        (&80.into(), &80.into())
    );
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    home.mlrm("data check data")
        .done()
        .shows(&["nothing is wrong"]);

    let log = "data pairs data/interactions.csv --notes data/notes.jsonl";
    let counts = home.mlrm(format!("{log} --json --out pairs.csv"));
    let count = counts.done().json()["pairs"].as_u64().expect("a count");
    let text = home.read("pairs.csv");
    assert_eq!(text.lines().next(), Some("query_id,target_id,weight"));
    assert_eq!(text.lines().count() as u64, count + 1);
    assert_eq!(
        home.mlrm(log).done().out,
        text,
        "standard output is the same file"
    );

    let split = "--split note --test-fraction 0.25 --out split --json";
    let parts = home.mlrm(format!("{log} {split}")).done().json();
    for part in ["train", "validation", "test"] {
        let rows = home.read(format!("split/{part}.csv")).lines().count() as u64 - 1;
        assert!(rows > 0 && parts[part] == rows, "{part}: {parts}");
    }
    // Without leakage: no note is in training and in the test.
    let ids = |part: &str| -> Vec<String> {
        let text = home.read(format!("split/{part}.csv"));
        let fields = text
            .lines()
            .skip(1)
            .flat_map(|line| line.split(',').take(2));
        fields.map(str::to_owned).collect()
    };
    let train = ids("train");
    assert!(ids("test").iter().all(|id| !train.contains(id)));
}

#[test]
fn check_finds_each_problem_and_fix_leaves_the_clean_rest() {
    let home = Home::with_notes();
    let notes = "data/notes.jsonl";
    home.edit_line(notes, 3, |line| format!("{line}}}"));
    home.edit_line(notes, 5, |line| {
        line.replace("n00004\",\"title", "n00003\",\"title")
    });
    home.edit_line(notes, 6, |line| {
        let mut note: Value = serde_json::from_str(line).expect("a note");
        (note["title"], note["content"], note["topics"]) =
            ("".into(), " ".into(), Value::Array(vec![]));
        note.to_string()
    });
    fs::remove_file(home.path("data/images/n00006.png")).expect("a picture");
    let png = fs::read(home.path("data/images/n00007.png")).expect("a picture");
    home.write("data/images/n00007.png", &png[..60]);
    home.write("data/images/n00008.png", "no picture");
    let (first, log) = ("user_id,note_id,timestamp", "data/interactions.csv");
    home.edit_line(log, 1, |line| {
        assert_eq!(line, first);
        format!("{first}\nu1,nobody,1704103955\nu1,n00001,yesterday")
    });
    home.write(
        "data/pairs.csv",
        "query_id,target_id,weight\nn00010,n00011,1\nn00010,nobody,1\n",
    );

    let words = "data check data --json --fix clean";
    let ran = home.mlrm(words);
    ran.failed_with(1, &[]);
    let report = ran.json();
    let findings = report["findings"].as_array().expect("findings");
    for (file, row, kind) in [
        ("notes.jsonl", 3, "bad_json"),
        ("notes.jsonl", 5, "duplicate_id"),
        ("notes.jsonl", 6, "empty_text"),
        ("notes.jsonl", 7, "missing_image"),
        ("notes.jsonl", 8, "truncated_image"),
        ("notes.jsonl", 9, "undecodable_image"),
        ("interactions.csv", 2, "dangling_id"),
        ("interactions.csv", 3, "bad_time"),
        ("pairs.csv", 3, "dangling_id"),
    ] {
        let matches = |finding: &Value| {
            let path = finding["file"].as_str().unwrap_or_default();
            path.ends_with(file) && finding["row"] == row && finding["kind"] == kind
        };
        let finding = findings.iter().find(|finding| matches(finding));
        let finding = finding.unwrap_or_else(|| panic!("no {kind} in {file}:{row}: {report:#}"));
        assert!(
            finding["mend"]
                .as_str()
                .is_some_and(|mend| !mend.is_empty()),
            "{finding}"
        );
    }
    let people = home.mlrm("data check data");
    people.failed_with(1, &[]);
    people.shows(&["data/notes.jsonl:3: bad_json"]);

    let clean = home.mlrm("data check clean --json").done().json();
    assert_eq!((&clean["notes"], &clean["pairs"]), (&74.into(), &1.into()));
    let left_out = home.read("clean/left_out.jsonl");
    assert_eq!(
        left_out.lines().count() as u64,
        report["fixed"]["left_out"].as_u64().unwrap_or(0)
    );
    home.refused(words, &["clean"]);

    let oversized = home.mlrm("data check clean --json --max-pixels 1000");
    oversized.failed_with(1, &[]);
    assert_eq!(oversized.json()["findings"][0]["kind"], "oversized_image");
}

#[test]
fn movielens_files_become_notes() {
    let home = Home::with_notes();
    home.write(
        "ml/movies.dat",
        "1::Made Up (1999)::Comedy|Drama\n2::Invented, The (2001)::War\n",
    );
    home.write(
        "ml/ratings.dat",
        "1::1::5::978300760\n1::2::3::978300761\n2::1::4::978300762\n",
    );
    for film in ["1", "2"] {
        let picture = fs::read(home.path("data/images/n00001.png")).expect("a picture");
        home.write(&format!("posters/{film}.png"), picture);
    }
    home.write("plots.dat", "1::Nothing of it is true.\n");
    let words = "data movielens ml --posters posters --plots plots.dat";
    let counts = home.mlrm(format!("{words} --out notes --json"));
    let counts = counts.done().json();
    assert_eq!(
        (&counts["notes"], &counts["posters"], &counts["plots"]),
        (&2.into(), &2.into(), &1.into())
    );
    home.mlrm("data check notes").done();
    home.refused("data movielens nowhere --out x", &["nowhere", "movies.dat"]);
}

/// Ten rows of each preset, drawn for the purpose: item `i` is seen by users together with `i + 1`.
fn sample(home: &Home, name: &str) {
    let picture = fs::read(home.path("data/images/n00001.png")).expect("a picture");
    let put = |file: String| home.write(&format!("{name}/{file}"), &picture);
    let views = |line: &dyn Fn(usize, usize, usize) -> String| -> String {
        (0..40).map(|n| line(n / 2, (n + n / 2) % 10, n)).collect()
    };
    let items = |line: &dyn Fn(usize) -> String| -> String { (0..10).map(line).collect() };
    let write = |file: &str, text: String| home.write(&format!("{name}/{file}"), text);
    match name {
        "movielens-100k" => {
            let flags = "|0|1|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0";
            write(
                "u.item",
                items(&|i| format!("{i}|Made Up {i}, The (1999)|||{flags}\n")),
            );
            write(
                "u.data",
                views(&|u, i, n| format!("{u}\t{i}\t4\t{}\n", 978_300_000 + n)),
            );
        }
        "movielens-1m" => {
            write(
                "movies.dat",
                items(&|i| format!("{i}::Made Up {i}, The (1999)::War|Drama\n")),
            );
            write(
                "ratings.dat",
                views(&|u, i, n| format!("{u}::{i}::4::{}\n", 978_300_000 + n)),
            );
        }
        "movielens-csv" => {
            let films = items(&|i| format!("{i},\"Made Up {i}, The (1999)\",War|Drama\n"));
            write("movies.csv", format!("movieId,title,genres\n{films}"));
            let log = views(&|u, i, n| format!("{u},{i},4.0,{}\n", 978_300_000 + n));
            write(
                "ratings.csv",
                format!("userId,movieId,rating,timestamp\n{log}"),
            );
        }
        "microlens" => {
            write(
                "M-10_titles.csv",
                items(&|i| format!("{i},Clip, number {i}\n")),
            );
            let log = views(&|u, i, n| format!("{u},{i},{}\n", 1_583_000_000_000_usize + n * 1000));
            write("M-10_pairs.csv", format!("user,item,timestamp\n{log}"));
        }
        "amazon-reviews-2023" => {
            let item = |i| {
                format!(
                    "{{\"parent_asin\": \"B{i}\", \"title\": \"Thing {i} &amp; Co\", \"description\": [\"Soft.\"], \"features\": [], \"categories\": [\"Home\"], \"main_category\": \"Home\", \"details\": {{\"Brand\": \"X\"}}, \"price\": null, \"images\": [{{\"hi_res\": null, \"large\": \"http://x/{i}.jpg\"}}]}}\n"
                )
            };
            write("meta_Home.jsonl", items(&item));
            write(
                "Home.jsonl",
                views(&|u, i, n| {
                    format!(
                        "{{\"rating\": 5.0, \"user_id\": \"U{u}\", \"parent_asin\": \"B{i}\", \"timestamp\": {}}}\n",
                        1_583_000_000_000_usize + n * 1000
                    )
                }),
            );
        }
        "hm" => {
            let rows = items(&|i| {
                format!("010877501{i},Top {i},Black,\"Soft, warm\",Vest,Jersey,Basics,Upper body\n")
            });
            write(
                "articles.csv",
                format!(
                    "article_id,prod_name,colour_group_name,detail_desc,product_type_name,department_name,section_name,product_group_name\n{rows}"
                ),
            );
            let log =
                views(&|u, i, n| format!("2020-09-{:02},c{u},010877501{i},0.05,2\n", 1 + n % 28));
            write(
                "transactions_train.csv",
                format!("t_dat,customer_id,article_id,price,sales_channel_id\n{log}"),
            );
        }
        _ => {
            let rows = items(&|i| {
                format!("p{i};Thing {i};\"<p>Soft &amp; warm</p>\";a,b;home;p{i}.png\n")
            });
            write(
                "products.csv",
                format!("id;title;description;tags;category;image\n{rows}"),
            );
            let log = views(&|u, i, n| format!("u{u};p{i};{}\n", 1_583_000_000 + n));
            write("views.csv", format!("user_id;product_id;timestamp\n{log}"));
        }
    }
    for i in 0..10 {
        match name {
            "microlens" => put(format!("covers/{i}.png")),
            "amazon-reviews-2023" => {}
            "hm" => put(format!("images/010/010877501{i}.jpg")),
            "shop" => put(format!("images/p{i}.png")),
            _ => put(format!("posters/{i}.png")),
        }
    }
}

#[test]
fn every_preset_is_imported_checked_trained_and_evaluated() {
    let home = Home::with_notes();
    for name in [
        "movielens-100k",
        "movielens-1m",
        "movielens-csv",
        "microlens",
        "amazon-reviews-2023",
        "hm",
        "shop",
    ] {
        sample(&home, name);
        let out = format!("in-{name}");
        let counts = home.mlrm(format!(
            "data import {name} --from {name} --out {out} --json"
        ));
        let counts = counts.done().json();
        let pictures: u64 = if name == "amazon-reviews-2023" { 0 } else { 10 };
        assert_eq!(
            (
                &counts["notes"],
                &counts["pictures"],
                &counts["interactions"]
            ),
            (&10.into(), &Value::from(pictures), &40.into()),
            "{name}: {counts}"
        );
        assert_eq!(counts["dropped"], serde_json::json!({}), "{name}");
        home.mlrm(format!("data check {out}")).done();
        let run = format!("run-{name}");
        let variant = match pictures {
            0 => "model.variant=text",
            _ => "model.variant=notellm2",
        };
        let sets = format!(
            "{variant} data.root={out} train.max_steps=5 train.batch_pairs=2 \
            train.eval_every_steps=0 train.save_every_steps=0 train.saliency_every_steps=0 \
            data.pairs.min_users=1 data.pairs.test_fraction=0.4 eval.baselines=[]"
        );
        home.mlrm(training("folder.toml", &run, sets)).done();
        let table = home.mlrm(format!("eval {run} --json")).done().json();
        assert_eq!(table["pool"], 10, "{name}: {table}");
    }
}

#[test]
fn batches_are_those_of_the_run() {
    let home = Home::with_config();
    let fed = "data batches tiny.toml --out fed.safetensors";
    home.mlrm(fed).done();
    let bytes = fs::read(home.path("fed.safetensors")).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |name: &str| -> Vec<i64> {
        let tensor = file.tensor(name).expect("a tensor");
        let numbers = tensor.data().chunks_exact(8);
        numbers
            .map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")))
            .collect()
    };
    let pairs = numbers("train_pairs");
    let pairs: Vec<&[i64]> = pairs.chunks_exact(2).collect();
    let pictures = file
        .tensor("pixel_values")
        .expect("pictures")
        .shape()
        .to_vec();
    assert_eq!(pictures[1..], [3, 32, 32]);
    for step in 1..=6 {
        let rows = numbers(&format!("step.{step}.rows"));
        assert_eq!(rows.len(), 16);
        for place in 0..8 {
            assert!(pairs.contains(&[rows[place], rows[place + 8]].as_slice()));
        }
        // Notes of one row have one picture, and others another.
        let shown = numbers(&format!("step.{step}.pictures"));
        for (one, row) in rows.iter().enumerate() {
            for (other, other_row) in rows.iter().enumerate() {
                assert_eq!(row == other_row, shown[one] == shown[other]);
            }
        }
        let ids = file.tensor(&format!("step.{step}.input_ids")).expect("ids");
        assert_eq!(ids.shape()[0], 16);
    }
    assert!(file.tensor("step.7.rows").is_err());
    home.mlrm(format!("{fed} --steps 2")).done();
    let short = fs::read(home.path("fed.safetensors")).expect("a file");
    let short = safetensors::SafeTensors::deserialize(&short).expect("safetensors");
    assert!(short.tensor("step.3.rows").is_err());
    let (one, two) = (file.tensor("step.2.rows"), short.tensor("step.2.rows"));
    assert_eq!(one.expect("a tensor").data(), two.expect("a tensor").data());
    let none = format!("{fed} --set train.max_steps=0");
    home.refused(&none, &["takes no step", "--steps N"]);
}

#[test]
fn photographs_are_other_pictures_of_the_same_notes() {
    let home = Home::empty();
    home.mlrm(SYNTH).done();
    let drawn = SYNTH.replace(" data ", " photographs ");
    home.mlrm(format!("{drawn} --style photographs")).done();
    for same in ["notes.jsonl", "interactions.csv"] {
        let file = |folder: &str| home.read(format!("{folder}/{same}"));
        assert_eq!(file("data"), file("photographs"));
    }
    let picture =
        |folder: &str| fs::read(home.path(folder).join("images/n00000.png")).expect("a picture");
    assert_ne!(picture("data"), picture("photographs"));
    home.refused(&drawn, &["made with other settings", "photographs"]);
    let ran = home.mlrm(format!("{drawn} --style paintings"));
    ran.failed_with(2, &["paintings", "`drawn` or `photographs`"]);
}
