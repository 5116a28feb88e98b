//! The guide: every page is reachable, links and anchors lead somewhere, and the keys, configs and
//! overrides that pages speak of exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlrm_config::{RunConfig, explain, reference_markdown};
use toml::{Table, Value};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src")
}

/// Page name → text, the summary included.
fn pages() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(docs()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|ext| ext == "md"));
    pages
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The lines of a page outside code blocks.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The code blocks of a page that are marked as `language`.
fn code_blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        // Blocks in lists are indented.
        if line.trim_start() == format!("```{language}") {
            let body = lines.by_ref().take_while(|line| line.trim_start() != "```");
            blocks.push(body.map(|line| format!("{line}\n")).collect());
        }
    }
    blocks
}

/// The targets of the Markdown links of a page.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// What mdBook and GitHub make of a heading: `## 5. Pairs from logs` → `5-pairs-from-logs`.
fn anchors(text: &str) -> Vec<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Everything between single backticks outside code blocks.
fn code_spans(text: &str) -> Vec<String> {
    let prose = prose(text);
    let spans = prose.split('`').skip(1).step_by(2);
    spans.map(str::to_owned).collect()
}

#[test]
fn the_reference_is_current() {
    let path = docs().join("configuration.md");
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        on_disk == reference_markdown(),
        "{} is old: run `cargo run --release --example reference`",
        path.display()
    );
}

#[test]
fn every_page_is_in_the_summary_and_links_lead_somewhere() {
    let pages = pages();
    let listed = links(&pages["SUMMARY.md"]);
    for name in pages.keys().filter(|name| *name != "SUMMARY.md") {
        assert!(listed.contains(name), "{name} is not in SUMMARY.md");
    }
    for (name, text) in &pages {
        for link in links(text) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { name } else { file };
            assert!(
                pages.contains_key(target) || docs().join(target).exists(),
                "{name} links to {link}, which is not there"
            );
            if !anchor.is_empty() {
                let anchors = anchors(&pages[target]);
                assert!(
                    anchors.iter().any(|a| a == anchor),
                    "{name} links to {link}; {target} has {anchors:?}"
                );
            }
        }
    }
}

#[test]
fn keys_that_pages_speak_of_exist() {
    let sections: Vec<String> = explain("")
        .unwrap()
        .keys
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    let mut checked = 0;
    for (name, text) in pages() {
        for span in code_spans(&text) {
            let key = span.split([' ', '=']).next().unwrap_or_default();
            let names_section = key
                .split_once('.')
                .is_some_and(|(section, _)| sections.iter().any(|s| s == section));
            let is_file = [".json", ".lock", ".toml", ".rs", ".safetensors"]
                .iter()
                .any(|e| key.ends_with(e));
            let is_path = key.contains(|c: char| !c.is_ascii_lowercase() && !"._2".contains(c));
            let is_key = names_section && !is_file && !is_path;
            if is_key {
                checked += 1;
                explain(key).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        for rest in text.split("--set ").skip(1) {
            let Some((key, _)) = rest.split_once('=') else {
                continue;
            };
            // `--set section.key=value` and the like show the form.
            if key.contains('.') && key != "section.key" && !key.contains('\n') {
                checked += 1;
                explain(key).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
    assert!(checked > 20, "{checked} keys found in the guide");
}

#[test]
fn configs_in_pages_load() {
    let mut checked = [0, 0];
    for (name, text) in pages() {
        for block in code_blocks(&text, "toml") {
            // What says where the model comes from is a config as it is printed; other blocks are
            // sections, which their pages put into one.
            let whole = block.contains("[model");
            let config = match whole {
                true => block.clone(),
                false => over_the_demo(&block),
            };
            checked[usize::from(whole)] += 1;
            if let Err(error) = RunConfig::from_toml_str(&config) {
                panic!("{name}: {error}\n{block}");
            }
        }
    }
    assert!(
        checked.into_iter().all(|count| count >= 3),
        "{checked:?} configs in the guide"
    );
}

/// `configs/demo.toml` with the keys of a block in the place of its own.
fn over_the_demo(block: &str) -> String {
    let demo = docs().join("../../configs/demo.toml");
    let mut config: Table = std::fs::read_to_string(demo).unwrap().parse().unwrap();
    lay_over(&mut config, block.parse().unwrap());
    config.to_string()
}

fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
