//! Specs and presets on files written for the purpose.

use std::fs;
use std::path::{Path, PathBuf};

use super::movielens::{MovieLens, convert};
use super::*;
use crate::notes::NoteSet;

fn write(home: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn movielens(home: &Path) -> MovieLens {
    write(home, "posters/1.jpg", "one");
    write(home, "posters/3.png", "three");
    write(home, "posters/9.jpg", "no such film");
    let movies = b"1::Caf\xe9 (1995)::Animation|Comedy\r\n2::A::B (1996)::(no genres listed)\n3::C (2000)::Drama\n";
    write(home, "movies.dat", movies);
    write(
        home,
        "ratings.dat",
        "7::1::5::978300760\n7::3::1::978300761\n8::1::2::0\n",
    );
    MovieLens {
        folder: home.to_path_buf(),
        posters: Some(home.join("posters")),
        plots: Some(write(
            home,
            "plots.dat",
            "1::Two :: colons\n4::unknown film\n",
        )),
        ..MovieLens::default()
    }
}

#[test]
fn films_become_notes_and_ratings_views() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let summary = convert(&movielens(home.path()), &out).unwrap();
    assert_eq!(
        (summary.notes, summary.pictures, summary.with_content),
        (3, 2, 1)
    );
    assert_eq!((summary.users, summary.interactions), (2, 3));
    // Byte for byte what earlier versions wrote of this release.
    let notes = "{\"id\":\"1\",\"title\":\"Café (1995)\",\"topics\":[\"Animation\",\"Comedy\"],\"content\":\"Two :: colons\",\"image\":\"images/1.jpg\",\"category\":\"Animation\"}\n\
        {\"id\":\"2\",\"title\":\"A::B (1996)\",\"topics\":[],\"content\":\"\"}\n\
        {\"id\":\"3\",\"title\":\"C (2000)\",\"topics\":[\"Drama\"],\"content\":\"\",\"image\":\"images/3.png\",\"category\":\"Drama\"}\n";
    assert_eq!(fs::read_to_string(out.join("notes.jsonl")).unwrap(), notes);
    let log = "user_id,note_id,timestamp\n7,1,978300760\n7,3,978300761\n8,1,0\n";
    assert_eq!(
        fs::read_to_string(out.join("interactions.csv")).unwrap(),
        log
    );
    let readme = "# MovieLens in the note format\n\n\
        Made by `mlrm data movielens` from the official files of GroupLens (and posters and plots given\n\
        beside them). For research use; may not be redistributed without permission of the owners.\n";
    assert_eq!(fs::read_to_string(out.join("README.md")).unwrap(), readme);
    assert_eq!(fs::read(out.join("images/3.png")).unwrap(), b"three");
    assert_eq!(fs::read_dir(out.join("images")).unwrap().count(), 2);
    // Notes, views, pictures, a page, and what was imported.
    assert_eq!(fs::read_dir(&out).unwrap().count(), 5);
}

#[test]
fn every_release_of_movielens_is_read() {
    let utf8 = "1::Amélie (2001)::Comedy\n2::American President, The (1995)::Drama\n";
    let csv = "movieId,title,genres\n1,Amélie (2001),Comedy\n2,\"American President, The (1995)\",Drama\n";
    let flags =
        |comedy: u8, drama: u8| format!("0|0|0|0|0|{comedy}|0|0|{drama}|0|0|0|0|0|0|0|0|0|0");
    let item = format!(
        "1|Amélie (2001)|01-Jan-2001||http://x|{}\n2|American President, The (1995)|||http://x|{}\n",
        flags(1, 0),
        flags(0, 1)
    );
    let (item, _, _) = encoding_rs::WINDOWS_1252.encode(&item);
    let dat = "9::1::5::100\n9::2::4.5::200\n";
    for (movies, content, ratings, log) in [
        ("movies.dat", utf8.as_bytes(), "ratings.dat", dat.to_owned()),
        (
            "movies.csv",
            csv.as_bytes(),
            "ratings.csv",
            "userId,movieId,rating,timestamp\n9,1,5.0,100\n9,2,4.5,200\n".to_owned(),
        ),
        (
            "u.item",
            &item[..],
            "u.data",
            "9\t1\t5\t100\n9\t2\t4\t200\n".to_owned(),
        ),
    ] {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), movies, content);
        write(home.path(), ratings, log);
        let out = home.path().join("out");
        let source = MovieLens {
            folder: home.path().to_path_buf(),
            ..MovieLens::default()
        };
        convert(&source, &out).unwrap();
        let notes = NoteSet::read(&out.join("notes.jsonl")).unwrap();
        let titles: Vec<_> = notes
            .rows()
            .iter()
            .map(|note| note.title.as_str())
            .collect();
        assert_eq!(
            titles,
            ["Amélie (2001)", "American President, The (1995)"],
            "{movies}"
        );
        assert_eq!(notes.get("2").unwrap().topics, ["Drama"], "{movies}");
        let log = fs::read_to_string(out.join("interactions.csv")).unwrap();
        assert_eq!(
            log, "user_id,note_id,timestamp\n9,1,100\n9,2,200\n",
            "{movies}"
        );
    }
}

#[test]
fn wrong_lines_are_named_all_at_once_and_nothing_is_left_behind() {
    let home = tempfile::tempdir().unwrap();
    for (name, content, wanted) in [
        (
            "movies.dat",
            "1::A::x\n\n2,B,y\n3\n",
            vec!["movies.dat:3: ", "movies.dat:4: "],
        ),
        (
            "movies.dat",
            "1::A::x\n1::B::y\n",
            vec!["movies.dat:2: the id `1` occurs twice"],
        ),
        ("ratings.dat", "7::1::5\n", vec!["ratings.dat:1: "]),
        (
            "ratings.dat",
            "7::1::5::x\n::1::5::3\n",
            vec!["ratings.dat:1: ", "ratings.dat:2: `events.user` is empty"],
        ),
        (
            "ratings.dat",
            "7::1::5::1\n7::99::5::1\n",
            vec!["ratings.dat:2: no note has the id `99`"],
        ),
        ("plots.dat", "no plot\n", vec!["plots.dat:1: "]),
    ] {
        let source = movielens(home.path());
        write(home.path(), name, content);
        let out = home.path().join("out");
        let message = convert(&source, &out).unwrap_err().to_string();
        for wanted in wanted {
            assert!(message.contains(wanted), "{wanted} in {message}");
        }
        assert!(!out.exists());
    }
    let source = MovieLens {
        posters: Some(home.path().join("none")),
        ..movielens(home.path())
    };
    let message = convert(&source, &home.path().join("out"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("cannot list"), "{message}");
}

#[test]
fn no_bytes_make_the_import_panic() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    proptest::proptest!(|(bytes: Vec<u8>, text in "[:0-9|.\\{\\}\"a-z\n]{0,40}")| {
        for content in [&bytes, text.as_bytes()] {
            for name in ["movies.dat", "ratings.dat", "plots.dat"] {
                let source = movielens(home.path());
                write(home.path(), name, content);
                let _ = convert(&source, &out);
                let _ = fs::remove_dir_all(&out);
            }
        }
        let _ = Spec::parse(&text, "x");
    });
}

const SHOP: &str = r#"
[tables.items]
path = "items.tsv"

[tables.brands]
path = "brands.jsonl"

[tables.log]
path = "log.csv"
separator = ";"
columns = ["who", "what", "stars", "when"]
bad_rows = "drop"

[notes]
table = "items"
id = "{sku}"
title = { template = "{brands.name} {name}", strip_html = true }
topics = { columns = ["tags"], separator = "|" }
fields = { price = "price" }

[[notes.join]]
table = "brands"
key = "{id}"
with = "{brand}"

[[notes.filters]]
column = "price"
at_least = 1

[notes.image]
path = "{picture}"
url = "{address}"

[events]
table = "log"
user = "{who}"
note = "{what}"
time = "when"
time_unit = "ms"
rating = "stars"
min_rating = 3
"#;

fn shop(home: &Path) {
    write(
        home,
        "items.tsv",
        "sku\tname\tbrand\ttags\tprice\tpicture\taddress\n\
        a/1\tTom &amp; <b>Co</b>\t7\tx| y\t5\tp/q.png\t\nb\tPlain\t8\t\t2\t\thttp://x/y.png\nc\tCheap\t7\t\t0.5\t\t\nd\tLost\t7\t\t3\tp/none.png\t\n",
    );
    write(home, "brands.jsonl", "{\"id\": 7, \"name\": \"ACME\"}\n");
    write(
        home,
        "log.csv",
        "u;a/1;5;1600000000000\nu;b;1;1600000001000\nu;c;4;1600000002000\nbroken\nv;b;3;1600000003000\n",
    );
    write(home, "p/q.png", "picture");
}

#[test]
fn a_spec_joins_filters_strips_and_counts() {
    let home = tempfile::tempdir().unwrap();
    shop(home.path());
    let out = home.path().join("out");
    let summary = import(&Spec::parse(SHOP, "shop.toml").unwrap(), home.path(), &out).unwrap();
    let notes = NoteSet::read(&out.join("notes.jsonl")).unwrap();
    let first = notes.get("a/1").unwrap();
    assert_eq!(
        (first.title.as_str(), first.extra["price"].as_str()),
        ("ACME Tom & Co", Some("5"))
    );
    assert_eq!(first.topics, ["x", "y"]);
    assert_eq!(
        fs::read(out.join(first.image.as_ref().unwrap())).unwrap(),
        b"picture"
    );
    let second = notes.get("b").unwrap();
    assert_eq!(
        (second.title.as_str(), second.extra["image_url"].as_str()),
        ("Plain", Some("http://x/y.png"))
    );
    let log = fs::read_to_string(out.join("interactions.csv")).unwrap();
    assert_eq!(
        log,
        "user_id,note_id,timestamp\nu,a/1,1600000000\nv,b,1600000003\n"
    );
    let dropped: Vec<_> = summary
        .dropped
        .iter()
        .map(|(reason, count)| (reason.as_str(), *count))
        .collect();
    assert_eq!(
        dropped,
        [
            ("items: price is not at least 1", 1),
            ("log: stars is not at least 3", 1),
            ("log: the note was left out by a filter", 1),
            ("log: the row cannot be read", 1),
        ]
    );
    assert_eq!(
        (
            summary.pictures,
            summary.picture_urls,
            summary.missing_pictures
        ),
        (1, 1, 1)
    );
    let looked_for = home.path().join("p/none.png").display().to_string();
    let missing = summary
        .notices
        .iter()
        .find(|notice| notice.contains("not there: 1"));
    assert!(
        missing.is_some_and(|notice| notice.ends_with(&looked_for)),
        "{:?}",
        summary.notices
    );
}

#[test]
fn everything_wrong_with_a_spec_is_said_at_once() {
    let home = tempfile::tempdir().unwrap();
    shop(home.path());
    let out = home.path().join("out");
    let wrong = SHOP
        .replace("path = \"brands.jsonl\"", "path = \"none.jsonl\"")
        .replace("at_least = 1", "")
        .replace("table = \"log\"", "table = \"lag\"");
    let message = import(&Spec::parse(&wrong, "x").unwrap(), home.path(), &out)
        .unwrap_err()
        .to_string();
    for wanted in [
        "`tables.brands.path`",
        "`notes.filters[0]`",
        "`events.table`: there is no table `lag`",
    ] {
        assert!(message.contains(wanted), "{wanted} in {message}");
    }
    let wrong = SHOP
        .replace("{name}", "{nmae}")
        .replace("\"price\"\nat", "\"prize\"\nat");
    let message = import(&Spec::parse(&wrong, "x").unwrap(), home.path(), &out)
        .unwrap_err()
        .to_string();
    for wanted in [
        "`notes.title`",
        "`nmae`",
        "`notes.filters`",
        "`prize`",
        "picture, address",
    ] {
        assert!(message.contains(wanted), "{wanted} in {message}");
    }
    write(
        home.path(),
        "items.tsv",
        "sku\tname\tbrand\ttags\tprice\tpicture\taddress\nz\tn\t7\t\t5\t../../etc/passwd\t\n",
    );
    let message = import(&Spec::parse(SHOP, "x").unwrap(), home.path(), &out)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("items.tsv:2: ") && message.contains("outside"),
        "{message}"
    );
    for (from, to, wanted) in [
        ("sku}", "sku", "closing brace"),
        ("strip_html", "strip", "unknown field `strip`"),
        ("time_unit = \"ms\"", "time_unit = \"h\"", "time_unit"),
        ("topics = {", "topics = 1 #", "topics"),
    ] {
        let message = Spec::parse(&SHOP.replace(from, to), "my.toml")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("my.toml") && message.contains(wanted),
            "{message}"
        );
    }
    assert!(!out.exists());
}

#[test]
fn every_preset_is_a_spec() {
    for (name, text) in presets::all() {
        let spec = Spec::parse(text, name).unwrap();
        assert!(!spec.about.is_empty(), "{name}");
    }
    let message = presets::text("nothing", Path::new("."))
        .unwrap_err()
        .to_string();
    assert!(message.contains("movielens-csv"), "{message}");
}
