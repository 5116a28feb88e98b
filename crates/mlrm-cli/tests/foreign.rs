//! Files that are not what their names say, or that other systems and programs have written: read, or refused
//! by what they are.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;

use support::{Home, golden_cases};
use tensors::{copy_folder, edit};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9\n";

fn pairs(home: &Home) -> support::Ran {
    home.mlrm("data pairs log.csv --weight count")
}

#[test]
fn the_separator_that_a_spreadsheet_names_is_read() {
    let home = Home::empty();
    for (separator, line_break) in [(";", "\r\n"), ("\t", "\n"), (",", "\r\n")] {
        let mut lines = vec![
            format!("sep={separator}"),
            ["user_id", "note_id", "timestamp"].join(separator),
            ["u", "a", "1"].join(separator),
            ["u", "b", "2"].join(separator),
        ];
        home.write("log.csv", lines.join(line_break) + line_break);
        assert_eq!(
            pairs(&home).done().out,
            "query_id,target_id,weight\na,b,1\n"
        );
        // Rows have the numbers of the file's lines.
        lines.push(["u", "", "3"].join(separator));
        home.write("log.csv", lines.join(line_break) + line_break);
        pairs(&home).failed_with(1, &["log.csv:5", "`note_id` is empty"]);
    }
}

#[test]
fn what_is_no_table_is_called_by_its_name() {
    let home = Home::empty();
    for (content, words) in [
        (POINTER, ["a pointer of Git LFS", "git lfs pull"]),
        (
            "<!DOCTYPE html><p>404",
            ["a web page", "fetch the file itself"],
        ),
    ] {
        home.write("log.csv", content);
        pairs(&home).failed_with(1, &words);
    }
    fs::remove_file(home.path("log.csv")).expect("a file");
    fs::create_dir(home.path("log.csv")).expect("a folder");
    pairs(&home).failed_with(1, &["log.csv", "this is a folder", "mlrm data import"]);
    let check = |content: &str| {
        home.write("notes.jsonl", content);
        home.mlrm("data check .")
    };
    let spread = check("{\n  \"id\": 1,\n  \"title\": \"a\"\n}\n");
    assert_eq!(spread.code, Some(1));
    assert!(
        spread.out.contains("goes on over several lines") && spread.out.contains("jq -c ."),
        "{spread:?}"
    );
    assert_eq!(spread.out.matches("notes.jsonl:").count(), 1, "{spread:?}");
    for word in ["NaN", "Infinity", "-Infinity"] {
        let line = format!("{{\"id\":1,\"title\":\"a\",\"price\":{word}}}\n");
        let found = check(&line);
        assert_eq!(found.code, Some(1));
        let words = [
            format!("`{word}` at column"),
            "is no JSON; write null".into(),
        ];
        assert!(
            words.iter().all(|words| found.out.contains(words)),
            "{found:?}"
        );
    }
    // Text that only looks so.
    let fine = check("{\"id\":1,\"title\":\"NaN\"}\n{\"id\":2,\"title\":\"{\"}\n");
    fine.done();
}

#[test]
fn what_is_no_picture_is_called_by_its_name() {
    let home = Home::empty();
    let kinds: [(&[u8], &str); 9] = [
        (b"", "but empty"),
        (b"II*\0aaaaaaaa", "but a TIFF"),
        (b"\0\0\0\x1cftypavif0000", "but an AVIF"),
        (b"\0\0\0\x18ftypheic0000", "but a HEIC"),
        (b"\n<!DOCTYPE html><p>404", "but a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "but an SVG"),
        (b"%PDF-1.7", "but a PDF"),
        (POINTER.as_bytes(), "but a Git LFS pointer"),
        (b"something else", "GIF or BMP;"),
    ];
    let mut notes = String::new();
    for (number, (content, _)) in kinds.iter().enumerate() {
        home.write(&format!("{number}.jpg"), content);
        notes += &format!("{{\"id\":{number},\"title\":\"t\",\"image\":\"{number}.jpg\"}}\n");
    }
    home.write("notes.jsonl", notes);
    let found = home.mlrm("data check .");
    for (number, (_, what)) in kinds.iter().enumerate() {
        let line = found
            .out
            .lines()
            .find(|line| line.contains(&format!("`{number}.jpg`")));
        let line = line.unwrap_or_else(|| panic!("{number}: {found:?}"));
        assert!(line.contains(what), "{what}: {line}");
    }
}

#[test]
fn a_picture_that_another_system_spells_otherwise_is_named() {
    let home = Home::empty();
    let fixture = golden_cases().join("../images/logo_palette.png");
    fs::create_dir(home.path("sub")).expect("a folder");
    for name in ["sub/b.png", "c.PNG", "d.png"] {
        fs::copy(&fixture, home.path(name)).expect("a picture");
    }
    let keys = [
        ("sub\\\\b.png", Some("sub/b.png")),
        ("c.png", Some("c.PNG")),
        ("D.PNG", Some("d.png")),
        ("d.png ", Some("d.png")),
        ("e.png", None),
    ];
    let note = |(id, (key, _)): (usize, &(&str, Option<&str>))| {
        format!("{{\"id\":{id},\"title\":\"t\",\"image\":\"{key}\"}}\n")
    };
    home.write(
        "notes.jsonl",
        keys.iter().enumerate().map(note).collect::<String>(),
    );
    let found = home.mlrm("data check .");
    for (row, (key, other)) in keys.iter().enumerate() {
        let line = found
            .out
            .lines()
            .find(|line| line.contains(&format!("notes.jsonl:{}:", row + 1)));
        let line = line.unwrap_or_else(|| panic!("{key}: {found:?}"));
        match other {
            Some(other) => assert!(line.contains(&format!("`{other}` is there")), "{line}"),
            None => assert!(!line.contains("is there"), "{line}"),
        }
    }
}

#[test]
fn models_that_were_not_fetched_or_are_in_other_formats_are_told() {
    let home = Home::empty();
    let source = golden_cases().join("../published/qwen2.5-0.5b");
    let fresh = |name: &str| {
        copy_folder(&source, &home.path(name));
        fs::remove_file(home.path(name).join("expected.safetensors")).expect("a file");
    };
    home.refused("inspect nowhere", &["nowhere", "there is no such folder"]);
    fresh("pointer");
    home.write("pointer/model.safetensors", POINTER);
    home.refused("inspect pointer", &["a pointer of Git LFS", "git lfs pull"]);
    // A byte order mark before the config changes nothing.
    fresh("marked");
    let config = home.read("marked/config.json");
    home.write("marked/config.json", format!("\u{feff}{config}"));
    home.mlrm("inspect marked").done();
    home.mlrm("export marked --out out").done();
    // Eight bits a number: what could not be loaded does not fit.
    fresh("eight");
    edit(&home.path("eight/model.safetensors"), |tensors| {
        let norm = tensors.get_mut("model.norm.weight").expect("a tensor");
        norm.dtype = safetensors::Dtype::F8_E4M3;
        norm.bytes.truncate(norm.bytes.len() / 4);
    });
    let ran = home.mlrm("inspect eight");
    assert_eq!(ran.code, Some(1));
    let words = "`model.norm.weight` is in F8_E4M3; F32, F64, F16 and BF16 are read";
    ran.shows(&[words]);
}

#[test]
fn tokenizers_of_other_libraries_are_told() {
    let home = Home::with_config();
    fs::create_dir(home.path("words")).expect("a folder");
    let train = "train plain.toml --set tokenizer.path=words";
    home.write("plain.toml", support::without_tokenizer(support::TINY));
    home.write("words/tokenizer.model", "x");
    home.mlrm(train)
        .failed_with(1, &["`tokenizer.model` beside it", "save_pretrained"]);
    home.write("words/tokenizer.json", POINTER);
    home.mlrm(train)
        .failed_with(1, &["a pointer of Git LFS", "git lfs pull"]);
}
