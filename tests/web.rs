//! Web servers for tests. [`listen`] answers requests by a function; [`Web`] gives the files below a folder, by ranges, with what
//! goes wrong on networks. To S3 clients it is a store whose buckets are the folders below it.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a client asks for.
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By names in lower case.
    headers: BTreeMap<String, String>,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = || {
            let mut line = String::new();
            let bytes = reader.read_line(&mut line).ok()?;
            (bytes > 0).then(|| line.trim_end().to_owned())
        };
        let first = line()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Some(Self {
            method,
            target,
            headers,
        })
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The part that is asked for of so many bytes.
    pub fn span(&self, bytes: usize) -> Option<Range<usize>> {
        let (start, end) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let end = end
            .parse()
            .map_or(bytes, |last: usize| (last + 1).min(bytes));
        Some(start.parse().ok()?..end)
    }
}

/// Answers requests on a port of its own, for as long as the test runs. A connection ends when `answer` gives nothing.
pub fn listen(
    answer: impl Fn(&Request, &mut TcpStream) -> Option<()> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                // A client that is gone is the test's business.
                let mut reader = BufReader::new(stream.try_clone().ok()?);
                while let Some(request) = Request::read(&mut reader) {
                    answer(&request, &mut stream)?;
                }
                Some(())
            });
        }
    });
    address
}

/// Sends an answer, after which the connection ends; `headers` have their line ends.
pub fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> Option<()> {
    send_part(stream, status, headers, body, usize::MAX)
}

/// As [`send`], and of the body at most `limit` bytes.
pub fn send_part(
    stream: &mut TcpStream,
    status: &str,
    headers: &str,
    body: &[u8],
    limit: usize,
) -> Option<()> {
    let bytes = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body[..bytes.min(limit)]).ok()
}

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
    address: SocketAddr,
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
        let inner = Arc::new(Inner {
            root: root.to_path_buf(),
            plan: Box::new(plan),
            requests: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let server = Arc::clone(&inner);
        let address = listen(move |request, stream| server.answer_to(request, stream));
        Self { address, inner }
    }

    /// A server to which nothing happens.
    pub fn calm(root: &Path) -> Self {
        Self::serve(root, |_, _| Mishap::None)
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// What was asked for since the last call.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.asked.lock().expect("no panic"))
    }
}

impl Inner {
    fn answer_to(&self, request: &Request, stream: &mut TcpStream) -> Option<()> {
        let Request { method, target, .. } = request;
        let range = request.header("range").unwrap_or_default();
        let asked = format!("{method} {target} {range}");
        self.asked.lock().expect("no panic").push(asked);
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mishap = (self.plan)(number, target);
        let answer = match mishap {
            Mishap::Drop => return None,
            Mishap::Busy => error(503, "Service Unavailable", "SlowDown"),
            Mishap::Refused => error(403, "Forbidden", "InvalidAccessKeyId"),
            _ => self.found(request),
        };
        let body: &[u8] = if method == "HEAD" { b"" } else { &answer.body };
        stream.write_all(answer.head.as_bytes()).ok()?;
        match mishap {
            Mishap::Cut | Mishap::Stall(_) => {
                stream.write_all(&body[..body.len() / 2]).ok()?;
                if let Mishap::Stall(seconds) = mishap {
                    std::thread::sleep(Duration::from_secs(seconds));
                }
                None
            }
            _ => stream.write_all(body).ok(),
        }
    }

    fn found(&self, request: &Request) -> Answer {
        let target = request.target.as_str();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decoded(path.trim_start_matches('/'));
        if query.contains("list-type=2") {
            return self.list(path.trim_end_matches('/'), query);
        }
        let path = self.root.join(path);
        let (Ok(metadata), Ok(content)) = (fs::metadata(&path), fs::read(&path)) else {
            return error(404, "Not Found", "NoSuchKey");
        };
        let tag = tag_of(&metadata);
        let bytes = content.len();
        match request.span(bytes) {
            Some(span) => {
                let more = format!(
                    "Content-Range: bytes {}-{}/{bytes}\r\nETag: {tag}\r\n",
                    span.start,
                    span.end - 1
                );
                Answer::new(206, "Partial Content", &more, content[span].to_vec())
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
        let root = self.root.join(bucket);
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
