//! Logs, notes and pairs as they come: forms, times, ids, ties, and what is said of them.

mod support;

use serde_json::Value;
use support::Home;

const HEAD: &str = "user_id,note_id,timestamp\n";

fn pairs(home: &Home, more: &str) -> support::Ran {
    home.mlrm(format!("data pairs log.csv --weight count {more}"))
}

fn check(home: &Home, more: &str) -> Value {
    let ran = home.mlrm(format!("data check . --json {more}"));
    assert!(ran.code.is_some_and(|code| code <= 1), "{ran:?}");
    ran.json()
}

#[test]
fn times_are_read_in_their_unit_and_it_is_said() {
    let home = Home::empty();
    for (times, said) in [
        (
            ["1696118400000", "1696118460000"],
            "times are milliseconds (by the size",
        ),
        (["1696118400.0", "1696118460.0"], "times are seconds"),
        (
            ["2023-10-01T02:00:00+02:00", "2023-10-01T00:01:00Z"],
            "with a zone (taken to UTC)",
        ),
        (
            ["2023-10-01", "2023-10-02"],
            "without a zone (taken as UTC), 2023-10-01 to 2023-10-02",
        ),
    ] {
        let [first, second] = times;
        home.write("log.csv", format!("{HEAD}u,a,{first}\nu,b,{second}\n"));
        let ran = pairs(&home, "");
        assert_eq!(ran.done().out, "query_id,target_id,weight\na,b,1\n");
        ran.tells(&[said]);
    }
    home.write(
        "notes.jsonl",
        "{\"id\":\"a\",\"title\":\"t\"}\n{\"id\":\"b\",\"title\":\"t\"}\n",
    );
    let found = check(&home, "--interactions log.csv");
    let notice = found["notices"][0]["message"].as_str().unwrap_or_default();
    assert!(notice.contains("taken as UTC"), "{found}");

    home.write(
        "log.csv",
        format!("{HEAD}u,a,1696118400000\nu,b,1696118460\n"),
    );
    let words = [
        "log.csv:3",
        "written as seconds, that of row 2 as milliseconds",
        "data.time_unit",
    ];
    home.refused("data pairs log.csv", &words);
    home.write("log.csv", format!("{HEAD}u,a,5\nu,b,6000\n"));
    let ran = pairs(&home, "--time-unit ms --window-days 1");
    assert_eq!(ran.done().out.lines().count(), 2, "{ran:?}");
    ran.tells(&["as `data.time_unit` says"]);
}

#[test]
fn ties_are_told_and_can_count() {
    let home = Home::empty();
    let events = (0..5).flat_map(|user| {
        "abc"
            .chars()
            .map(move |note| format!("u{user},{note},{user}00\n"))
    });
    home.write("log.csv", format!("{HEAD}{}", events.collect::<String>()));
    let ran = pairs(&home, "--min-users 2");
    assert_eq!(ran.done().out.lines().count(), 1);
    ran.tells(&["15 of 15 events are in no pair: 15 at the same time"]);
    let ran = pairs(&home, "--min-users 2 --ties both");
    assert_eq!(
        ran.done().out,
        "query_id,target_id,weight\na,b,5\na,c,5\nb,a,5\nb,c,5\nc,a,5\nc,b,5\n"
    );
    assert!(!ran.err.contains("few pairs"), "{ran:?}");
}

#[test]
fn notes_are_read_by_the_names_of_their_header() {
    let home = Home::empty();
    home.write(
        "notes.csv",
        "id;title;topics;price;image\n007;Red, shoe;a| b;1,5;\n8;\"x;y\";[\"c|d\"];;\n",
    );
    let found = check(&home, "--notes notes.csv");
    assert_eq!(
        (&found["notes"], &found["findings"]),
        (&2.into(), &Value::Array(vec![]))
    );
    home.mlrm("data check . --notes notes.csv --fix clean")
        .done();
    let notes = home.read("clean/notes.jsonl");
    let notes: Vec<Value> = notes
        .lines()
        .map(|line| serde_json::from_str(line).expect("a note"))
        .collect();
    assert_eq!(notes[0]["id"], "007");
    assert_eq!(notes[0]["topics"], serde_json::json!(["a", "b"]));
    assert_eq!(
        (&notes[0]["price"], &notes[0]["title"]),
        (&"1,5".into(), &"Red, shoe".into())
    );
    assert_eq!(notes[1]["topics"], serde_json::json!(["c|d"]));

    home.write(
        "notes.csv",
        "note_id,title,content,image,category\n1,t,c,,k\n",
    );
    let found = check(&home, "--notes notes.csv");
    let message = found["findings"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the file has note_id,title"), "{found}");
    // The authors' form, and that it is taken for it is said.
    home.write("notes.csv", "n1,t,c #tag[话题]#,,a@b@\n");
    let found = check(&home, "--notes notes.csv");
    assert_eq!(found["findings"], Value::Array(vec![]));
    let notice = found["notices"][0]["message"].as_str().unwrap_or_default();
    assert!(notice.contains("no header row"), "{found}");
    home.write(
        "notes.jsonl",
        "{\"id\":\"a\",\"title\":\"x\",\"title\":\"y\"}\n",
    );
    let found = check(&home, "");
    assert_eq!(
        found["findings"][0]["message"]
            .as_str()
            .map(|text| text.contains("`title` occurs twice")),
        Some(true)
    );
}

#[test]
fn an_id_that_finds_no_note_names_the_one_that_was_meant() {
    let home = Home::empty();
    home.write(
        "notes.jsonl",
        "{\"id\":7,\"title\":\"t\"}\n{\"id\":\"Ab\",\"title\":\"t\"}\n",
    );
    home.write(
        "log.csv",
        format!("{HEAD}u,007,1\nu,7.0,2\nu,aB,3\nu,x,4\n"),
    );
    let found = check(&home, "--interactions log.csv");
    let messages: Vec<&str> = found["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|finding| finding["message"].as_str())
        .collect();
    assert_eq!(messages.len(), 4);
    for (message, cause) in messages
        .iter()
        .zip(["leading zeros", "`.0`", "case", "`x`"])
    {
        assert!(message.contains(cause), "{message}");
    }
    assert!(!messages[3].contains("but"), "{messages:?}");
    let words = "data pairs log.csv --notes notes.jsonl";
    home.refused(words, &["`007` (but `7`, which differs in leading zeros)"]);
}

#[test]
fn outputs_are_no_inputs_and_have_a_known_form() {
    let home = Home::empty();
    home.write("log.csv", format!("{HEAD}u,a,1\nu,b,2\n"));
    let log = "data pairs log.csv --out";
    home.refused(format!("{log} ./log.csv"), &["a file that is read"]);
    home.refused(format!("{log} p.txt"), &["p.txt", ".csv or .parquet"]);
    home.refused(
        format!("{log} p.csv --lower 5 --upper 1"),
        &["`lower`", "`upper`"],
    );
    home.refused("data pairs gone.csv", &["gone.csv"]);
}

#[test]
fn logs_that_are_none_are_refused_with_what_they_hold() {
    let home = Home::empty();
    for (content, words) in [
        ("", ["the file is empty", "user_id"]),
        (
            "user_id,item_id,time\nu,a,1\n",
            ["the file has user_id,item_id,time", "mlrm data import"],
        ),
        (
            "User_ID,note_id,timestamp\nu,a,1\n",
            ["`user_id` for `User_ID`", "log.csv:1"],
        ),
        (
            "user_id,note_id,timestamp,timestamp\nu,a,1,2\n",
            ["two columns", "`timestamp`"],
        ),
        (
            "\u{feff}user_id\tnote_id\ttimestamp\nu\ta\n",
            ["log.csv:2", "2 fields"],
        ),
    ] {
        home.write("log.csv", content);
        home.refused("data pairs log.csv", &words);
    }
    home.write(
        "log.csv",
        "\"user_id\"; note_id ;timestamp\r\nu;a;1\r\nu;\"b\";2\r\n",
    );
    let ran = pairs(&home, "");
    assert!(ran.done().out.ends_with("a,b,1\n"), "{ran:?}");
    ran.tells(&["semicolons"]);
    home.write("log.csv", HEAD);
    let ran = pairs(&home, "");
    assert_eq!(ran.done().out.lines().count(), 1);
    ran.tells(&["there are no events in it"]);
}

#[test]
fn training_says_how_its_data_was_read() {
    let home = Home::with_notes();
    let log = home.read("data/interactions.csv").replace(',', ";");
    home.write("data/interactions.csv", log);
    let ran = home.mlrm("train folder.toml --set run.dir=said --set train.max_steps=1");
    assert!(
        ran.done().err.contains("semicolons") && ran.err.contains("times are seconds"),
        "{ran:?}"
    );
}
