//! Against a small server on loopback.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::web::{self, listen};

/// A PNG of 6 kB: its first bytes, then anything.
fn picture() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend((0..6000_u32).map(|n| n as u8));
    bytes
}

/// What was asked: path and range.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

fn serve(
    answer: impl Fn(&str, usize, Option<u64>, &mut TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let address = listen(move |request, stream| {
        let (path, range) = (&request.target, request.header("range"));
        let mut log = log.lock().unwrap();
        let times = log.iter().filter(|(earlier, _)| earlier == path).count();
        log.push((path.clone(), range.map(str::to_owned)));
        drop(log);
        let from = range.and_then(|range| {
            let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
            from.parse().ok()
        });
        answer(path, times, from, stream);
        None
    });
    (address, asked)
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    // A client that is gone is the test's business.
    let _gone = web::send(stream, status, headers, body).is_none();
}

const PNG: &str = "Content-Type: image/png\r\n";

fn answer(path: &str, times: usize, from: Option<u64>, stream: &mut TcpStream) {
    let whole = picture();
    match path {
        "/missing" => send(stream, "404 Not Found", "", b""),
        "/page" => send(stream, "200 OK", "Content-Type: text/html\r\n", b"<p>"),
        "/lies" => send(stream, "200 OK", PNG, b"<p>no picture"),
        "/large" => send(stream, "200 OK", PNG, &vec![0; 20_000]),
        "/loop" => send(stream, "302 Found", "Location: /loop\r\n", b""),
        "/file" => send(stream, "302 Found", "Location: file:///etc/passwd\r\n", b""),
        "/moved" => send(stream, "301 Moved", "Location: /good\r\n", b""),
        "/busy" if times == 0 => send(stream, "429 Too Many", "Retry-After: 1\r\n", b""),
        "/cut" => match from {
            None => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{PNG}ETag: \"one\"\r\nContent-Length: {}\r\n\r\n",
                    whole.len()
                );
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&whole[..1000]));
            }
            Some(from) => {
                let range = format!(
                    "{PNG}Content-Range: bytes {from}-{}/{}\r\n",
                    whole.len() - 1,
                    whole.len()
                );
                send(
                    stream,
                    "206 Partial Content",
                    &range,
                    &whole[from as usize..],
                );
            }
        },
        "/slow" => std::thread::sleep(Duration::from_secs(3)),
        _ => send(stream, "200 OK", PNG, &whole),
    }
}

fn notes(folder: &Path, urls: &[String]) {
    let lines = urls.iter().enumerate();
    let lines = lines.map(|(id, url)| format!("{{\"id\":\"n{id}\",\"title\":\"t\",\"topics\":[],\"content\":\"\",\"image_url\":\"{url}\"}}\n"));
    fs::write(folder.join("notes.jsonl"), lines.collect::<String>()).unwrap();
}

fn quick(reach: Reach) -> FetchOptions {
    FetchOptions {
        picture_bytes: 10_000,
        retries: 1,
        timeout: Duration::from_millis(500),
        backoff: Duration::from_millis(10),
        reach,
        ..FetchOptions::default()
    }
}

#[test]
fn pictures_are_fetched_or_the_reason_is_said() {
    let (address, asked) = serve(answer);
    let home = tempfile::tempdir().unwrap();
    let paths = [
        "good", "missing", "page", "lies", "large", "loop", "file", "moved", "busy", "cut", "slow",
    ];
    let urls: Vec<String> = paths
        .iter()
        .map(|path| format!("http://{address}/{path}"))
        .collect();
    notes(home.path(), &urls);
    let started = Instant::now();
    let summary = fetch(home.path(), &quick(Reach::All), &|_, _| {}).unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "Retry-After is kept"
    );
    assert_eq!(summary.fetched, 4, "{summary:?}");
    let failed: HashMap<&str, &str> = summary
        .failed
        .iter()
        .map(|(url, reason)| (url.rsplit('/').next().unwrap(), reason.as_str()))
        .collect();
    for (path, reason) in [
        ("missing", "404"),
        ("page", "`text/html`"),
        ("lies", "the bytes are no"),
        ("large", "larger than 10000 bytes"),
        ("loop", "more than 5 redirects"),
        ("file", "`file:` addresses"),
        ("slow", ""),
    ] {
        assert!(failed[path].contains(reason), "{path}: {}", failed[path]);
    }
    let set = NoteSet::read(&home.path().join("notes.jsonl")).unwrap();
    for id in ["n0", "n7", "n8", "n9"] {
        let key = set.get(id).unwrap().image.clone().unwrap();
        assert_eq!(fs::read(home.path().join(key)).unwrap(), picture(), "{id}");
    }
    assert_eq!(
        set.rows()
            .iter()
            .filter(|note| note.image.is_some())
            .count(),
        4
    );
    let times = |wanted: &str| {
        asked
            .lock()
            .unwrap()
            .iter()
            .filter(|(path, _)| path == wanted)
            .count()
    };
    assert_eq!(
        (times("/missing"), times("/cut"), times("/slow")),
        (1, 2, 2)
    );
    let ranges: Vec<_> = asked
        .lock()
        .unwrap()
        .iter()
        .filter(|(path, _)| path == "/cut")
        .map(|(_, range)| range.clone())
        .collect();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=1000-"));

    let left = fs::read_dir(home.path().join("images")).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("partial")).count(), 0);

    // Finished pictures are not asked for again, even by notes that forgot them.
    notes(home.path(), &urls[..1]);
    let again = fetch(home.path(), &quick(Reach::All), &|_, _| {}).unwrap();
    assert_eq!((again.there_already, again.fetched), (1, 0));
    assert_eq!(times("/good"), 2, "once itself, once by redirect");
}

#[test]
fn private_addresses_are_refused_also_after_a_redirect() {
    let (inner, asked) = serve(answer);
    let to = format!("Location: http://{inner}/secret\r\n");
    let (outer, _) = serve(move |_, _, _, stream| send(stream, "302 Found", &to, b""));
    let home = tempfile::tempdir().unwrap();
    for (reach, url) in [
        (Reach::Only(outer), format!("http://{outer}/x")),
        (Reach::Public, format!("http://{inner}/secret")),
        (
            Reach::Public,
            format!("http://localhost:{}/secret", inner.port()),
        ),
        (Reach::All, "file:///etc/passwd".to_owned()),
        (Reach::All, format!("http://user:word@{inner}/secret")),
        (Reach::All, "nonsense".to_owned()),
    ] {
        notes(home.path(), std::slice::from_ref(&url));
        let summary = fetch(home.path(), &quick(reach), &|_, _| {}).unwrap();
        assert_eq!((summary.fetched, summary.failed.len()), (0, 1), "{url}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn all_pictures_together_have_a_limit() {
    let (address, _) = serve(answer);
    let home = tempfile::tempdir().unwrap();
    let urls: Vec<String> = (0..4)
        .map(|n| format!("http://{address}/good{n}"))
        .collect();
    notes(home.path(), &urls);
    let options = FetchOptions {
        total_bytes: 13_000,
        parallel: 1,
        ..quick(Reach::All)
    };
    let summary = fetch(home.path(), &options, &|_, _| {}).unwrap();
    assert_eq!(
        (summary.fetched, summary.failed.len()),
        (2, 2),
        "{summary:?}"
    );
}

/// A server whose picture changes between two calls, and that cuts the first answer.
fn changing(marks: bool) -> (SocketAddr, Asked) {
    serve(move |_, times, from, stream| {
        let mut whole = picture();
        whole[2000] ^= u8::from(times > 0);
        let mark = match (marks, times) {
            (false, _) => "",
            (true, 0) => "ETag: \"old\"\r\n",
            (true, _) => "ETag: \"new\"\r\n",
        };
        if times == 0 {
            let head = format!(
                "HTTP/1.1 200 OK\r\n{PNG}{mark}Content-Length: {}\r\n\r\n",
                whole.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&whole[..1000]));
            return;
        }
        // `If-Range` names a picture that is no more: the whole of the new one.
        assert!(marks || from.is_none(), "nothing tells that it is the same");
        send(stream, "200 OK", &format!("{PNG}{mark}"), &whole);
    })
}

#[test]
fn a_part_is_gone_on_with_only_where_the_picture_is_the_same() {
    for marks in [true, false] {
        let (address, asked) = changing(marks);
        let home = tempfile::tempdir().unwrap();
        notes(home.path(), &[format!("http://{address}/picture")]);
        let options = FetchOptions {
            retries: 0,
            ..quick(Reach::All)
        };
        let first = fetch(home.path(), &options, &|_, _| {}).unwrap();
        assert_eq!((first.fetched, first.failed.len()), (0, 1));
        assert_eq!(fetch(home.path(), &options, &|_, _| {}).unwrap().fetched, 1);
        let mut expected = picture();
        expected[2000] ^= 1;
        assert_eq!(
            fs::read(home.path().join("images/n0.png")).unwrap(),
            expected
        );
        let range = asked.lock().unwrap()[1].1.clone();
        assert_eq!(range.as_deref(), marks.then_some("bytes=1000-"));
    }
}

#[test]
fn another_address_of_a_note_is_another_picture() {
    let (address, asked) = serve(|path, _, _, stream| {
        let mut whole = picture();
        *whole.last_mut().unwrap() = path.len() as u8;
        send(stream, "200 OK", PNG, &whole);
    });
    let home = tempfile::tempdir().unwrap();
    let options = quick(Reach::All);
    let last_byte = |path: &str| {
        notes(home.path(), &[format!("http://{address}{path}")]);
        fetch(home.path(), &options, &|_, _| {}).unwrap();
        *fs::read(home.path().join("images/n0.png"))
            .unwrap()
            .last()
            .unwrap()
    };
    assert_eq!(last_byte("/a"), 2);
    assert_eq!(last_byte("/bbb"), 4);
    // Back again: the file is the other one's by now.
    assert_eq!(last_byte("/a"), 2);
    assert_eq!(asked.lock().unwrap().len(), 3);
}
