//! A web server for tests: the files below a folder, by ranges, with what goes wrong on networks. To S3 clients it is a store
//! whose buckets are the folders below it.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It is answered.
    None,
    /// 503.
    Busy,
    /// 403, as S3 refuses a wrong key.
    Refused,
    /// Half of the answer, and the connection ends.
    Cut,
    /// No answer, and the connection ends.
    Drop,
    /// Half of the answer, and silence for so many seconds.
    Stall(u64),
}

type Plan = dyn Fn(usize, &str) -> Mishap + Send + Sync;

/// A server on a port of its own, for as long as the test runs.
#[derive(Clone)]
pub struct Web {
    port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    plan: Box<Plan>,
    requests: AtomicUsize,
    /// Method, path and range of every request.
    asked: Mutex<Vec<String>>,
}

impl Web {
    /// Serves the files below `root`. `plan` hears the number of each request and its path.
    pub fn serve(
        root: &Path,
        plan: impl Fn(usize, &str) -> Mishap + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let inner = Arc::new(Inner {
            root: root.to_path_buf(),
            plan: Box::new(plan),
            requests: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let web = Self { port, inner };
        let server = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.talk(stream));
            }
        });
        web
    }

    /// A server to which nothing happens.
    pub fn calm(root: &Path) -> Self {
        Self::serve(root, |_, _| Mishap::None)
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// What was asked for since the last call.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.asked.lock().expect("no panic"))
    }

    fn talk(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            let mut words = lines.first()?.split(' ');
            let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
            let range = lines.iter().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("range").then(|| value.to_owned())
            });
            let asked = format!("{method} {target} {}", range.as_deref().unwrap_or_default());
            self.inner.asked.lock().expect("no panic").push(asked);
            let number = self.inner.requests.fetch_add(1, Ordering::Relaxed);
            let mishap = (self.inner.plan)(number, &target);
            let answer = match mishap {
                Mishap::Drop => return None,
                Mishap::Busy => error(503, "Service Unavailable", "SlowDown"),
                Mishap::Refused => error(403, "Forbidden", "InvalidAccessKeyId"),
                _ => self.answer(&target, range.as_deref()),
            };
            let body: &[u8] = if method == "HEAD" { b"" } else { &answer.body };
            stream.write_all(answer.head.as_bytes()).ok()?;
            match mishap {
                Mishap::Cut | Mishap::Stall(_) => {
                    stream.write_all(&body[..body.len() / 2]).ok()?;
                    if let Mishap::Stall(seconds) = mishap {
                        std::thread::sleep(Duration::from_secs(seconds));
                    }
                    return None;
                }
                _ => stream.write_all(body).ok()?,
            }
        }
    }

    fn answer(&self, target: &str, range: Option<&str>) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decoded(path.trim_start_matches('/'));
        if query.contains("list-type=2") {
            return self.list(path.trim_end_matches('/'), query);
        }
        let path = self.inner.root.join(path);
        let (Ok(metadata), Ok(content)) = (fs::metadata(&path), fs::read(&path)) else {
            return error(404, "Not Found", "NoSuchKey");
        };
        let tag = tag_of(&metadata);
        let bytes = content.len();
        let span = range.and_then(|range| {
            let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
            let start: usize = start.parse().ok()?;
            let end = end.parse().map_or(bytes, |end: usize| (end + 1).min(bytes));
            Some((start, end))
        });
        match span {
            Some((start, end)) => {
                let more = format!(
                    "Content-Range: bytes {start}-{}/{bytes}\r\nETag: {tag}\r\n",
                    end - 1
                );
                Answer::new(206, "Partial Content", &more, content[start..end].to_vec())
            }
            None => Answer::new(200, "OK", &format!("ETag: {tag}\r\n"), content),
        }
    }

    /// The answer of S3 to `ListObjectsV2`, a page of at most 100 objects.
    fn list(&self, bucket: &str, query: &str) -> Answer {
        const PAGE: usize = 100;
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| decoded(value))
        };
        let root = self.inner.root.join(bucket);
        if !root.is_dir() {
            return error(404, "Not Found", "NoSuchBucket");
        }
        let prefix = value("prefix").unwrap_or_default();
        let after = value("continuation-token").unwrap_or_default();
        let mut keys = Vec::new();
        keys_below(&root, "", &mut keys);
        keys.retain(|key| key.starts_with(&prefix) && *key > after);
        keys.sort();
        let mut page = String::new();
        for key in keys.iter().take(PAGE) {
            let metadata = fs::metadata(root.join(key)).expect("a file");
            let tag = tag_of(&metadata).replace('"', "&quot;");
            page += &format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>{tag}</ETag><Size>{}</Size></Contents>",
                metadata.len()
            );
        }
        let more = match keys.get(PAGE - 1).filter(|_| keys.len() > PAGE) {
            Some(last) => format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            ),
            None => "<IsTruncated>false</IsTruncated>".to_owned(),
        };
        let body =
            format!("<?xml version=\"1.0\"?><ListBucketResult>{more}{page}</ListBucketResult>");
        Answer::new(200, "OK", "", body.into_bytes())
    }
}

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(code: u16, words: &str, headers: &str, body: Vec<u8>) -> Self {
        let bytes = body.len();
        // `object_store` wants to know how old S3's objects are.
        let fixed = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
        let head =
            format!("HTTP/1.1 {code} {words}\r\nContent-Length: {bytes}\r\n{fixed}{headers}\r\n");
        Self { head, body }
    }
}

fn error(code: u16, words: &str, name: &str) -> Answer {
    let body = format!("<Error><Code>{name}</Code><AWSAccessKeyId>LEAKED</AWSAccessKeyId></Error>");
    Answer::new(code, words, "", body.into_bytes())
}

/// Size and time, as a server has it.
fn tag_of(metadata: &fs::Metadata) -> String {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    format!(
        "\"{:x}-{:x}\"",
        metadata.len(),
        since.map_or(0, |since| since.as_nanos())
    )
}

fn keys_below(folder: &Path, prefix: &str, keys: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => keys_below(&entry.path(), &format!("{key}/"), keys),
            false => keys.push(key),
        }
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        rest = more;
        let code = more
            .get(..2)
            .and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
