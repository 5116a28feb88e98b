//! What is done with a trained model and with settings: every command but `train`, `data`, `verify`.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Home, printed, set};

/// The array of an `.npy` file: bytes after the header.
fn npy_rows(home: &Home, name: &str) -> Vec<f32> {
    let bytes = fs::read(home.path(name)).expect(name);
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let length = u16::from_le_bytes([bytes[8], bytes[9]]);
    let header = String::from_utf8_lossy(&bytes[10..10 + usize::from(length)]);
    assert!(header.contains("'<f4'"), "{header}");
    let data = bytes[10 + usize::from(length)..].as_chunks::<4>().0;
    data.iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

#[test]
fn eval_repeats_what_training_measured() {
    let home = Home::with_config();
    home.train("run", "train.max_steps=2").done();
    let written = home.json("run/eval.json");
    let ran = home.mlrm("eval run --json --out eval.json");
    assert_eq!(ran.done().json(), written);
    assert_eq!(home.json("eval.json"), written);
    let table = home.mlrm("eval run --set eval.k=[5] --set eval.baselines=[\"bm25\"]");
    table.done().shows(&["bm25"]);
    home.mlrm("eval run --markdown").done().shows(&["| --"]);
    let other = home
        .mlrm("eval run --json --split validation")
        .done()
        .json();
    assert_ne!(other["queries"], written["queries"]);

    // A bare model folder says nothing of data: that comes from --set.
    let data = "data.root=data run.seed=1 data.pairs.weight=cosine data.pairs.min_users=2 \
        data.pairs.test_fraction=0.25 data.pairs.validation_fraction=0.2 \
        data.pairs.test_targets=all";
    let bare = home.mlrm(format!("eval run/model --json {}", set(data)));
    assert_eq!(bare.done().json(), written);
}

#[test]
fn cosine_is_the_model_without_popularity() {
    let home = Home::with_config();
    let asked = "eval.popularity_prior=1 eval.baselines=[\"cosine\"]";
    home.train("run", format!("train.max_steps=4 {asked}"))
        .done();
    let both = home.json("run/eval.json");
    let cosine = home.mlrm("eval run --json --set eval.popularity_prior=0");
    let cosine = cosine.done().json();
    assert_eq!(both["baselines"]["cosine"], cosine["slices"]);
    assert_ne!(both["slices"], cosine["slices"]);
    // A model that ranks so itself needs no second row.
    assert!(cosine["baselines"].get("cosine").is_none(), "{cosine}");
    let reason = cosine["left_out"]["cosine"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("`eval.popularity_prior` is 0")),
        "{cosine}"
    );
}

#[test]
fn zero_shot_is_the_model_before_training() {
    let home = Home::with_config();
    let baselines = "eval.baselines=[\"zero_shot\",\"text_only\"]";
    home.train("run", format!("train.max_steps=4 {baselines}"))
        .done();
    let written = home.json("run/eval.json");
    assert!(
        written["baselines"]["zero_shot"]["all"].is_object(),
        "{written}"
    );
    assert_ne!(written["baselines"]["zero_shot"], written["slices"]);
    // The start is built again, from the seed or from the folder that the run began with.
    let words = "eval run --json";
    assert_eq!(home.mlrm(words).done().json(), written);
    home.train(
        "more",
        format!("model.path=run/model train.max_steps=2 {baselines}"),
    )
    .done();
    let more = home.json("more/eval.json");
    assert_eq!(more["baselines"]["zero_shot"], written["slices"]);
    assert_eq!(home.mlrm("eval more --json").done().json(), more);

    // Where it cannot be had, the table says so and has everything else.
    std::fs::rename(home.path("run"), home.path("gone")).expect("a folder");
    let left = home.mlrm("eval more");
    left.done()
        .shows(&["not measured: zero_shot: the model before training"]);
    left.shows(&["run/model"]);
    let left = home.mlrm("eval more --json").done().json();
    assert_eq!(left["slices"], more["slices"]);
    assert!(left["baselines"].get("zero_shot").is_none(), "{left}");
    let reason = left["left_out"]["zero_shot"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("run/model")),
        "{left}"
    );
    let bare = "eval gone/model --set data.root=data";
    let more = format!("--set data.pairs.test_fraction=0.25 --set {baselines}");
    let bare = home.mlrm(format!("{bare} {more}"));
    bare.done().shows(&["name its run folder"]);
}

#[test]
fn a_baseline_that_does_not_apply_is_named() {
    let home = Home::with_config();
    let sets = "model.variant=text train.max_steps=2 eval.baselines=[\"image_only\"]";
    let ran = home.train("run", sets);
    let line = "not measured: image_only: the variant `text` reads one modality";
    ran.done().shows(&[line]);
    let table = home.mlrm("eval run --markdown");
    table.done().shows(&["Not measured: image_only:"]);
}

#[test]
fn embeddings_in_every_format_name_the_same_neighbours() {
    let home = Home::trained();
    let embed = "embed run --notes data/notes.jsonl --out";
    let mut answers = Vec::new();
    for file in ["all.parquet", "all.npy", "all.safetensors"] {
        let ran = home.mlrm(format!("{embed} {file}"));
        ran.done().shows(&["80 embeddings of 16 values"]);
        let words = format!("similar {file} --id n00003 --id n00077 -k 5 --json");
        answers.push(home.mlrm(&words).done().json());
        home.refused(format!("similar {file} --id nobody"), &[file, "nobody"]);
    }
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:#?}"
    );
    let neighbours = answers[0][0]["neighbours"].as_array().expect("neighbours");
    assert_eq!(neighbours.len(), 5);
    assert!(
        neighbours
            .iter()
            .all(|neighbour| neighbour["id"] != "n00003")
    );
    let scores: Vec<f64> = neighbours
        .iter()
        .filter_map(|n| n["score"].as_f64())
        .collect();
    assert!(
        scores.is_sorted_by(|left, right| left >= right),
        "{scores:?}"
    );

    // As a naive search over the rows finds them.
    let (rows, ids) = (npy_rows(&home, "all.npy"), home.read("all.ids.txt"));
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!((rows.len(), ids.len()), (80 * 16, 80));
    let rows: Vec<&[f32]> = rows.chunks(16).collect();
    let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let cosine = |left: &[f32], right: &[f32]| {
        let product: f32 = left.iter().zip(right).map(|(x, y)| x * y).sum();
        product / (norm(left) * norm(right))
    };
    let others = (0..80).filter(|&row| row != 3);
    let best =
        others.max_by(|&a, &b| cosine(rows[3], rows[a]).total_cmp(&cosine(rows[3], rows[b])));
    assert_eq!(neighbours[0]["id"], ids[best.expect("a neighbour")]);

    let titled = home.mlrm("similar all.npy --id n00003 --notes data/notes.jsonl");
    let title = home.read("data/notes.jsonl");
    let note: Value = serde_json::from_str(title.lines().nth(3).expect("a row")).expect("a note");
    assert!(
        titled
            .done()
            .out
            .contains(note["title"].as_str().expect("a title")),
        "{titled:?}"
    );

    home.mlrm(format!("{embed} two.npy --visual")).done();
    assert_eq!(npy_rows(&home, "two.npy"), npy_rows(&home, "all.npy"));
    assert_ne!(
        npy_rows(&home, "two.visual.npy"),
        npy_rows(&home, "all.npy")
    );
    home.mlrm("similar two.npy --id n00003 --visual").done();
}

#[test]
fn shards_concatenate_to_the_whole() {
    let home = Home::trained();
    let embed = |out: &str, more: &str| {
        home.mlrm(format!(
            "embed run --notes data/notes.jsonl --out {out} {more}"
        ))
        .done();
        let ids = home.read(out.replace(".npy", ".ids.txt"));
        (npy_rows(&home, out), ids)
    };
    let whole = embed("whole.npy", "--batch-notes 20");
    for size in ["20", "7"] {
        let mut rows = Vec::new();
        let mut ids = String::new();
        for shard in ["0/2", "1/2"] {
            let part = embed("part.npy", &format!("--batch-notes {size} --shard {shard}"));
            rows.extend(part.0);
            ids += &part.1;
        }
        assert_eq!(ids, whole.1);
        let differences = rows
            .iter()
            .zip(&whole.0)
            .map(|(part, whole)| (part - whole).abs());
        let worst = differences.fold(0.0, f32::max);
        // The same batches give the same bits; others differ in padding, hence in rounding.
        let limit = if size == "20" { 0.0 } else { 1e-5 };
        assert!(
            rows.len() == whole.0.len() && worst <= limit,
            "{size} a batch: {worst}"
        );
    }
}

#[test]
fn saliency_shares_sum_to_one() {
    let home = Home::trained();
    let mut seen = Vec::new();
    for formula in ["abs-then-sum", "sum-then-abs", "scores-sum-then-abs"] {
        let words = format!("saliency run --json --notes 16 --formula {formula}");
        let report = home.mlrm(&words).done().json();
        assert_eq!(
            (&report["variant"], &report["notes"]),
            (&"notellm2".into(), &16.into())
        );
        let layers = report["shares"].as_array().expect("layers");
        assert_eq!(layers.len(), 2);
        for layer in layers {
            let shares: Vec<f64> = layer
                .as_array()
                .expect("shares")
                .iter()
                .filter_map(Value::as_f64)
                .collect();
            assert_eq!(shares.len(), 3, "{layer}");
            assert!(
                shares.iter().all(|share| (0.0..=1.0).contains(share)),
                "{layer}"
            );
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{layer}");
        }
        assert!(
            !seen.contains(&report["layers"]),
            "{formula} is another formula"
        );
        seen.push(report["layers"].clone());
    }
    home.mlrm("saliency run --notes 8")
        .done()
        .shows(&["visual"]);
}

#[test]
fn reports_and_pictures_of_a_run_stand_alone() {
    let home = Home::trained();
    home.mlrm("report run").done();
    let html = home.read("run/report.html");
    assert!(html.starts_with("<!") && html.trim_end().ends_with("</html>"));
    for loads in [
        "src=\"http",
        "href=\"http",
        "url(http",
        "@import",
        "<link",
        "src=\"/",
    ] {
        assert!(!html.contains(loads), "the report loads something: {loads}");
    }
    let markdown = home.mlrm("report run --format markdown --out -");
    markdown.done().shows(&["| "]);
    for view in [
        "overview",
        "attention",
        "retrieval",
        "fusion",
        "log",
        "config",
    ] {
        home.mlrm(format!("watch run --svg frame.svg --view {view}"))
            .done();
        let svg = home.read("frame.svg");
        assert!(
            svg.contains("<svg") && svg.trim_end().ends_with("</svg>"),
            "{view}"
        );
    }
    home.refused("watch run", &["needs a terminal", "help: `mlrm report RUN"]);
    home.refused(
        "watch nowhere",
        &["no run nowhere", "help: name the folder"],
    );
    home.refused("report nowhere", &["nowhere"]);
}

#[test]
fn settings_are_explained_and_checked() {
    let home = Home::with_config();
    let words = "config explain train.batch_pairs --config tiny.toml";
    let out = home.mlrm(words).done().out.clone();
    for word in [
        "type",
        "default",
        "meaning",
        "source",
        "value    8",
        "tiny.toml:",
    ] {
        assert!(out.contains(word), "no {word} in {out}");
    }
    let section = home.mlrm("config explain model.fusion");
    section.done().shows(&["initial_weight"]);
    let unknown = home.mlrm("config explain train.batch_pair");
    unknown.failed_with(
        2,
        &["train.batch_pair", "did you mean `train.batch_pairs`?"],
    );

    home.mlrm("config check tiny.toml")
        .done()
        .shows(&["nothing is wrong"]);
    let resolved = home
        .mlrm("config check tiny.toml --resolved")
        .done()
        .out
        .clone();
    home.write("resolved.toml", &resolved);
    let again = home.mlrm("config check resolved.toml --resolved");
    assert_eq!(again.done().out, resolved);

    let schema = home.mlrm("config schema").done().json();
    let rule = &schema["properties"]["train"]["properties"]["batch_pairs"];
    assert_eq!(
        (&rule["type"], &rule["minimum"]),
        (&"integer".into(), &2.into())
    );
}

#[test]
fn shells_complete_every_command() {
    let home = Home::empty();
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef mlrm"),
        ("fish", "complete -c mlrm"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = home.mlrm(format!("completions {shell}"));
        let script = &script.done().out;
        assert!(script.contains(word), "{shell}");
        for name in ["saliency", "movielens", "no-dashboard", "shard-size"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    home.mlrm("completions tcsh")
        .failed_with(2, &["tcsh", "possible values"]);
}

#[test]
fn bash_completes_what_is_typed() {
    let home = Home::empty();
    home.write("completion.sh", &home.mlrm("completions bash").done().out);
    let script = "source ./completion.sh; COMP_WORDS=(mlrm insp); COMP_CWORD=1; \
                  _mlrm mlrm insp mlrm; echo ${COMPREPLY[@]}";
    let bash = std::process::Command::new("bash")
        .args(["-c", script])
        .current_dir(home.path(""))
        .output();
    let Ok(bash) = bash else {
        return support::skipped("bash_completes_what_is_typed", "bash", "there is no bash");
    };
    assert_eq!(
        String::from_utf8_lossy(&bash.stdout).trim(),
        "inspect",
        "{bash:?}"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let home = Home::empty();
    let page = home.mlrm("man");
    let page = &page.done().out;
    assert!(
        page.contains(".TH mlrm 1") && page.contains("mlrm\\-train(1)"),
        "{page}"
    );
    home.mlrm("man --out man1").done();
    for (name, words) in [
        ("mlrm.1", "mlrm"),
        ("mlrm-train.1", "\\-\\-resume"),
        ("mlrm-data-check.1", "\\-\\-fix"),
        ("mlrm-config-explain.1", "KEY"),
    ] {
        let page = home.read(format!("man1/{name}"));
        assert!(
            page.contains(".TH") && page.contains(words),
            "{name}: {page}"
        );
    }
    assert!(!home.path("man1/mlrm-help.1").exists());
    home.write("file", "");
    home.refused("man --out file", &["manual pages", "file"]);
}

#[test]
fn the_quick_start_works_on_a_folder_of_ones_own() {
    let home = Home::with_notes();
    fs::create_dir(home.path("shop")).expect("a folder");
    fs::rename(home.path("data"), home.path("shop/moved")).expect("moved");
    fs::create_dir(home.path("data")).expect("a folder");
    fs::rename(home.path("shop/moved"), home.path("data/shop")).expect("moved");
    assert!(
        home.read("data/shop/notes.jsonl")
            .contains("\"image\":\"images/")
    );
    home.mlrm("data check data/shop").done();
    // The page: copy the demo's config, and let this section name the folder.
    let section = &printed("quick-start.md", "toml")[0];
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let demo = fs::read_to_string(configs.join("demo.toml")).expect("the demo");
    let (head, rest) = demo.split_once("[data]\n").expect("a section");
    let (_, tail) = rest.split_once("[data.pairs]").expect("a section");
    home.write("my.toml", format!("{head}{section}\n[data.pairs]{tail}"));
    home.mlrm("data check --config my.toml").done();
    home.mlrm("data pairs --config my.toml --out pairs.csv")
        .done();
    let train = "train my.toml --set run.dir=runs/shop --set train.max_steps=1";
    home.mlrm(train).done().shows(&["bm25"]);
    let embed = "embed runs/shop --notes data/shop/notes.jsonl --out shop.parquet";
    home.mlrm(embed).done();
    // Keys that are paths below a folder of pictures: each command that is told finds them, and the check
    // says what to tell.
    let keys = home
        .read("data/shop/notes.jsonl")
        .replace("\"image\":\"images/", "\"image\":\"");
    home.write("data/shop/notes.jsonl", keys);
    let ran = home.mlrm("data check data/shop");
    ran.failed_with(1, &["--images images", "data.images = \"images\""]);
    home.mlrm("data check data/shop --images images").done();
    let images = "--set data.images=images --overwrite";
    home.mlrm(format!("{train} {images}")).done();
    home.mlrm(embed).done();
}
