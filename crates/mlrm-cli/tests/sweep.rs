//! `mlrm sweep`: killed and gone on with, in parallel and in shards it gives the table of an undisturbed
//! one; what fails is listed; what is wrong is said before anything runs.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Home, set};

/// Twelve runs: two variants, two rates, three seeds.
const SWEEP: &str = r#"
base = "tiny.toml"
dir = "runs"
seeds = [1, 2, 3]
set = ["train.max_steps=3", "train.save_every_steps=1", "train.saliency_every_steps=0", "eval.popularity_prior=1", "eval.baselines=[\"bm25\", \"random\", \"cosine\"]"]
reference = "text, learning_rate=0.001"

[[axes]]
name = "variant"
groups = [
    { name = "text", set = ["model.variant=text"] },
    { name = "all", set = ["model.variant=notellm2"] },
]

[[axes]]
key = "train.learning_rate"
values = [1e-3, 0.01]
"#;

fn home(sweep: &str) -> Home {
    let home = Home::with_config();
    home.write("sweep.toml", sweep);
    home
}

fn table(home: &Home, form: &str) -> String {
    let words = format!("sweep sweep.toml --table --format {form}");
    home.mlrm(&words).done().out.clone()
}

/// The table of twelve runs that nothing disturbed.
fn undisturbed() -> (Home, String) {
    let home = home(SWEEP);
    let ran = home.mlrm("sweep sweep.toml");
    ran.done();
    ran.shows(&["12 of 12 done, 0 failed"]);
    let json = table(&home, "json");
    (home, json)
}

/// Runs that are whole.
fn whole(home: &Home) -> usize {
    let rows = fs::read_dir(home.path("runs"))
        .into_iter()
        .flatten()
        .flatten();
    let seeds = rows.flat_map(|row| fs::read_dir(row.path()).into_iter().flatten().flatten());
    seeds
        .filter(|run| run.path().join("eval.json").is_file())
        .count()
}

fn start(home: &Home, more: &str) -> Child {
    home.command(format!("sweep sweep.toml {more}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

#[test]
fn a_sweep_killed_three_times_gives_the_table_of_an_undisturbed_one() {
    let (undisturbed, wanted) = undisturbed();
    check_table(&undisturbed, &wanted);
    let killed = home(SWEEP);
    for kill in 1..=3 {
        let mut sweep = start(&killed, "--jobs 2");
        let limit = Instant::now() + Duration::from_secs(300);
        while whole(&killed) < 2 * kill && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        // In the midst of the next runs.
        std::thread::sleep(Duration::from_millis(150 * kill as u64));
        sweep.kill().expect("it runs");
        sweep.wait().expect("it ends");
        assert!(whole(&killed) >= 2 * kill, "the sweep does nothing");
    }
    let partial: Value = serde_json::from_str(&table(&killed, "json")).expect("JSON");
    let absent = partial["absent"].as_array().expect("a list").len();
    assert!(
        absent > 0 && absent < 12,
        "killed at the end, or never: {absent}"
    );
    killed.mlrm("sweep sweep.toml --jobs 2").done();
    assert_eq!(table(&killed, "json"), wanted);

    let sharded = home(SWEEP);
    for shard in ["1/3", "0/3", "2/3"] {
        sharded
            .mlrm(format!("sweep sweep.toml --shard {shard}"))
            .done();
    }
    for form in ["json", "markdown", "csv"] {
        assert_eq!(table(&sharded, form), table(&undisturbed, form));
    }
    // Everything is there: nothing runs again.
    let again = sharded.mlrm("sweep sweep.toml --check");
    again.done().shows(&["12 runs, 12 of them done"]);
}

/// What the table of the twelve runs holds, in its forms.
fn check_table(home: &Home, json: &str) {
    let table: Value = serde_json::from_str(json).expect("JSON");
    let rows = table["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "text, learning_rate=0.001",
            "text, learning_rate=0.01",
            "all, learning_rate=0.001",
            "all, learning_rate=0.01",
            "bm25"
        ]
    );
    let folders = ["text,learning_rate=0.001", "text,learning_rate=0.01"];
    for (row, folder) in rows.iter().zip(folders) {
        assert_eq!(row["seeds"], serde_json::json!([1, 2, 3]));
        let recall = row["measures"].as_array().expect("measures").iter();
        let recall = recall
            .clone()
            .find(|measure| measure["metric"] == "recall@10")
            .expect("a recall");
        let ends =
            ["low", "mean", "high"].map(|end| recall["value"][end].as_f64().expect("a number"));
        assert!(ends.is_sorted() && ends[0] < ends[2], "{ends:?}");
        assert_eq!(
            recall["difference"].is_null(),
            folder == folders[0],
            "{row}"
        );
        // The mean over seeds of what each run itself says.
        let runs = [1, 2, 3].map(|seed| {
            let eval = home.json(&format!("runs/{folder}/seed-{seed}/eval.json"));
            eval["slices"]["all"]["recall@10"]
                .as_f64()
                .expect("a number")
        });
        assert!(
            (runs.iter().sum::<f64>() / 3.0 - ends[1]).abs() < 1e-12,
            "{runs:?} {ends:?}"
        );
    }
    check_baseline(home, rows);
    let text = home.read("runs/table.md");
    assert!(
        text.contains("| **") && text.contains("95 % interval"),
        "{text}"
    );
    let curve = home.read("runs/curve-train.learning_rate.svg");
    assert!(curve.matches("<polygon").count() == 2, "{curve}");
    let report = home.mlrm("report runs");
    report.done();
    let page = home.read("runs/report.html");
    assert!(page.contains("<polygon") && page.contains("all, learning_rate=0.01"));
}

/// A baseline of each run has a table of its own, beside that of the models.
fn check_baseline(home: &Home, models: &[Value]) {
    let of = home.mlrm("sweep sweep.toml --table --baseline cosine --format json");
    let of = of.done().json();
    let recall = |row: &Value| row["measures"][0]["value"]["mean"].as_f64();
    let rows = of["rows"].as_array().expect("rows");
    assert_eq!(
        (rows.len(), &of["baseline"]),
        (models.len(), &"cosine".into())
    );
    for (row, model) in rows.iter().zip(models) {
        assert_eq!(row["name"], model["name"]);
        // BM25 is the same beside either.
        assert_eq!(recall(row) == recall(model), row["name"] == "bm25", "{row}");
    }
    let eval = home.json("runs/text,learning_rate=0.001/seed-1/eval.json");
    assert!(eval["baselines"]["cosine"]["all"].is_object(), "{eval}");
    assert!(
        home.read("runs/table-cosine.md")
            .starts_with("Of `cosine` in each run")
    );
    let none = home.mlrm("sweep sweep.toml --table --baseline int8");
    let says = [
        "no run has the baseline `int8`",
        "measured text, bm25, cosine alone",
    ];
    none.failed_with(1, &says);
    assert!(!home.path("runs/table-int8.md").exists());
    let elsewhere = "sweep sweep.toml --dir empty --table --baseline ../x";
    std::fs::create_dir(home.path("empty")).expect("a folder");
    home.mlrm(elsewhere).done().shows(&["No run is done yet"]);
    assert!(!home.path("empty/table-../x.md").exists() && !home.path("x.md").exists());
}

#[test]
fn a_run_that_fails_is_listed_and_stops_no_other() {
    let sweep = r#"
base = "tiny.toml"
dir = "runs"
set = ["eval.baselines=[]", "train.saliency_every_steps=0"]
[[axes]]
key = "train.learning_rate"
values = [1e30, 0.001]
"#;
    let home = home(sweep);
    let ran = home.mlrm("sweep sweep.toml");
    ran.failed_with(
        1,
        &[
            "failed: learning_rate=",
            "the run has diverged",
            "1 runs failed",
        ],
    );
    ran.shows(&["learning_rate=0.001 seed 1: ended"]);
    ran.shows(&["Not in the table: "]);
    let states = home.mlrm("sweep sweep.toml --check");
    states.done().shows(&["failed: the run has diverged"]);
    states.shows(&["learning_rate=0.001 seed 1: done"]);
    // The dashboard's view of all runs, as a picture.
    home.mlrm("watch runs --svg runs.svg").done();
    let picture = home.read("runs.svg");
    // Each word is a text of its own.
    let words = picture
        .split("</text>")
        .filter_map(|text| text.rsplit('>').next());
    let shown = words.collect::<Vec<_>>().join(" ");
    for words in [
        "2 runs 1 done 1 failed",
        "learning_rate=0.001 seed 1 ✓ completed",
        "the run has diverged",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // Other settings in the same folders are not taken for these.
    let other = "sweep sweep.toml --table --set train.batch_pairs=4";
    home.refused(
        other,
        &["hold runs of other settings", "train.batch_pairs", "--dir"],
    );
}

#[test]
fn what_is_wrong_is_said_at_once_and_before_anything_runs() {
    let home =
        home("base = \"tiny.toml\"\nseed = [1]\nseeds = []\n[[axes]]\nkey = \"x\"\nvalues = []\n");
    home.refused(
        "sweep sweep.toml",
        &[
            "`dir`: is missing",
            "did you mean `seeds`",
            "`seeds`: is no list",
            "the axis is empty",
        ],
    );
    let configs = r#"
base = "tiny.toml"
dir = "runs"
[[axes]]
key = "train.batch_pairs"
values = [0, "many", 8]
"#;
    home.write("sweep.toml", configs);
    home.refused(
        "sweep sweep.toml",
        &["batch_pairs=0: ", "batch_pairs=many: "],
    );
    // Each is a config, but neither can begin.
    home.mlrm(support::SYNTH).done();
    let plans = "base = \"tiny.toml\"\ndir = \"runs\"\n[[axes]]\nname = \"v\"\ngroups = [\n\
                 { name = \"big\", set = [\"train.batch_pairs=5000\"] },\n\
                 { name = \"too\", set = [\"train.batch_pairs=5000\", \"train.max_steps=3\"] },\n\
                 { name = \"none\", set = [\"model.llm.path=nowhere\"] },\n{ name = \"fine\" }]\n";
    home.write("sweep.toml", plans);
    home.refused(
        "sweep sweep.toml",
        &[
            "3 rows of the sweep cannot begin",
            "big; too: ",
            "5000",
            "none: ",
            "nowhere",
        ],
    );
}

/// The commands in the head of each shipped sweep that scale it down.
#[test]
fn the_papers_sweeps_plan() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let home = Home::empty();
    fs::create_dir_all(home.path("configs/paper")).expect("a folder");
    let copy = |name: &str| {
        let text = fs::read_to_string(configs.join(name)).expect("a config");
        home.write(&format!("configs/{name}"), &text);
        text
    };
    copy("demo.toml");
    copy("notellm2-paper.toml");
    copy("photographs.toml");
    copy("movielens-posters.toml");
    copy("movielens-pretrained.toml");
    let mut names: Vec<String> = fs::read_dir(configs.join("paper"))
        .expect("sweeps")
        .map(|entry| {
            format!(
                "paper/{}",
                entry.expect("an entry").file_name().to_string_lossy()
            )
        })
        .collect();
    names.sort();
    assert_eq!(names.len(), 13, "{names:?}");
    for name in names {
        let text = copy(&name);
        let small = text
            .lines()
            .filter_map(|line| line.strip_prefix("#     mlrm "));
        let small = small
            .filter(|line| line.contains("runs/small"))
            .collect::<Vec<_>>();
        let [small] = small[..] else {
            panic!("{name}: no command that scales it down")
        };
        // Real films are the user's, and cannot be planned here.
        if !small.contains("data.root=PATH") {
            // Two hundred notes plan as six hundred do.
            let fewer = set("data.synth.notes=200 data.synth.users=500");
            let ran = home.mlrm(format!("{small} --check{fewer}"));
            ran.done().shows(&["all can begin"]);
            assert!(!ran.err.contains("warning"), "{ran:?}");
        }
        // As it is meant, its configs are right, too; its models are the user's.
        let table = home.mlrm(format!("sweep configs/{name} --table"));
        table.done().shows(&["No run is done yet"]);
    }
}
