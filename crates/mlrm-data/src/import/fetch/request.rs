//! One picture over HTTP.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use ureq::http::{Response, StatusCode};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::guard::REFUSED;
use super::{Budget, FetchOptions};

/// How a try ended.
pub(super) enum Try {
    /// The whole picture is in the partial file; the ending that its bytes ask for.
    Done(&'static str),
    /// It may work later, after this time if the server names one.
    Later(String, Option<Duration>),
    /// It will not work.
    Never(String),
}

/// A client that follows no redirects by itself and connects to allowed addresses only.
pub(super) fn agent(options: &FetchOptions) -> Agent {
    let timeout = Some(options.timeout);
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // A proxy would look names up by itself, whatever their addresses.
        .proxy(None)
        .timeout_connect(timeout)
        .timeout_recv_response(timeout)
        .timeout_per_read(timeout)
        .timeout_per_write(timeout)
        .accept_encoding("identity")
        .accept("image/*")
        .user_agent(concat!("mlrm/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), options.reach)
}

/// What a partial file is a part of, kept beside it: only then it is gone on with.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    /// The address that the note names.
    url: String,
    /// The server's mark of this very picture.
    validator: String,
}

impl Origin {
    fn path(partial: &Path) -> PathBuf {
        partial.with_added_extension("from")
    }

    /// That of the partial file, where it is of `url`; else nothing is left of both.
    fn read(partial: &Path, url: &url::Url) -> Option<Self> {
        let text = fs::read(Self::path(partial)).ok();
        let origin: Option<Self> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let origin = origin.filter(|origin| origin.url == url.as_str() && partial.is_file());
        if origin.is_none() {
            Self::forget(partial);
        }
        origin
    }

    /// Notes what a picture that begins now is, where the server marks it.
    fn write(partial: &Path, url: &url::Url, response: &Response<Body>) -> io::Result<()> {
        // A weak mark does not promise the same bytes.
        let strong = |tag: &&str| !tag.starts_with("W/");
        let tag = header(response, "etag").filter(strong);
        let Some(validator) = tag.or_else(|| header(response, "last-modified")) else {
            return Ok(());
        };
        let origin = Self {
            url: url.to_string(),
            validator: validator.to_owned(),
        };
        fs::write(Self::path(partial), serde_json::to_vec(&origin)?)
    }

    /// Removes the partial file and what is known of it. What cannot be removed is written over.
    fn forget(partial: &Path) {
        let _ = fs::remove_file(partial);
        let _ = fs::remove_file(Self::path(partial));
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Why an address is none that is asked, whatever its host.
pub(super) fn refuse(url: &url::Url) -> Option<String> {
    match url.scheme() {
        "http" | "https" if url.host_str().is_none() => Some("the address names no host".into()),
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
            Some("the address holds a password".into())
        }
        "http" | "https" => None,
        scheme => Some(format!("`{scheme}:` addresses are not fetched")),
    }
}

/// Fetches `url` into the file `partial`, going on from what is there of it.
pub(super) fn fetch(
    agent: &Agent,
    options: &FetchOptions,
    budget: &Budget,
    url: &url::Url,
    partial: &Path,
) -> Try {
    let started = Instant::now();
    let mut at = url.clone();
    let origin = Origin::read(partial, url);
    for _ in 0..=options.redirects {
        if let Some(reason) = refuse(&at) {
            return Try::Never(reason);
        }
        let have = fs::metadata(partial).map_or(0, |metadata| metadata.len());
        let mut request = agent.get(at.as_str());
        if let Some(origin) = origin.as_ref().filter(|_| have > 0) {
            request = request
                .header("Range", format!("bytes={have}-"))
                .header("If-Range", &origin.validator);
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => {
                let reason = error.to_string();
                return match reason.contains(REFUSED) {
                    true => Try::Never(reason),
                    false => Try::Later(reason, None),
                };
            }
        };
        match response.status().as_u16() {
            200 | 206 => {
                return Receiver {
                    options,
                    budget,
                    url,
                    partial,
                    started,
                }
                .receive(response, have);
            }
            301 | 302 | 303 | 307 | 308 => {
                match header(&response, "location").map(|to| at.join(to)) {
                    Some(Ok(to)) => at = to,
                    _ => return Try::Never("the server redirects to nowhere".into()),
                }
            }
            416 => {
                Origin::forget(partial);
                return Try::Later("the server has no such range".into(), None);
            }
            _ => return refused(&response),
        }
    }
    Try::Never(format!("more than {} redirects", options.redirects))
}

fn refused(response: &Response<Body>) -> Try {
    let code = response.status();
    let words = code.canonical_reason().unwrap_or_default();
    let reason = format!("the server answers {} {words}", code.as_u16());
    match code.as_u16() {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            Try::Later(reason, header(response, "retry-after").and_then(wait))
        }
        _ => Try::Never(reason),
    }
}

/// `Retry-After`: seconds, or a date.
fn wait(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?
        .as_secs() as i64;
    let seconds = date.timestamp().as_second().saturating_sub(now);
    Some(Duration::from_secs(seconds.max(0) as u64))
}

/// Takes what a server sends of one picture.
struct Receiver<'a> {
    options: &'a FetchOptions,
    budget: &'a Budget,
    url: &'a url::Url,
    partial: &'a Path,
    started: Instant,
}

impl Receiver<'_> {
    /// Writes the body behind the first `have` bytes where the answer goes on there, else anew.
    fn receive(&self, response: Response<Body>, have: u64) -> Try {
        let partial = self.partial;
        let kind = header(&response, "content-type").unwrap_or("text/plain");
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.starts_with("image/") {
            return Try::Never(format!("the server sends `{kind}`, no picture"));
        }
        let goes_on = format!("bytes {have}-");
        let ranges = header(&response, "content-range");
        let from = match response.status() == StatusCode::PARTIAL_CONTENT {
            true if ranges.is_some_and(|range| range.starts_with(&goes_on)) => have,
            true => {
                Origin::forget(partial);
                let reason = "the server sends another part than was asked for";
                return Try::Later(reason.into(), None);
            }
            false => 0,
        };
        let length = header(&response, "content-length");
        let length: Option<u64> = length.and_then(|length| length.parse().ok());
        let whole = length.map(|length| from.saturating_add(length));
        if whole.is_some_and(|whole| whole > self.options.picture_bytes) {
            return self.too_large();
        }
        let file = match from {
            0 => {
                Origin::forget(partial);
                Origin::write(partial, self.url, &response).and_then(|()| File::create(partial))
            }
            _ => OpenOptions::new().append(true).open(partial),
        };
        match file {
            Ok(file) => self.write(response.into_body(), file, from, whole),
            Err(error) => Try::Never(format!("cannot write the file: {error}")),
        }
    }

    fn write(&self, body: Body, mut file: File, from: u64, whole: Option<u64>) -> Try {
        let mut reader = body.into_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = from;
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Try::Later(format!("the connection broke off: {error}"), None);
                }
            };
            bytes += read as u64;
            if bytes > self.options.picture_bytes {
                return self.too_large();
            }
            if !self.budget.take(read as u64) {
                return Try::Never("the limit of all pictures together is reached".into());
            }
            if let Err(error) = file.write_all(&buffer[..read]) {
                return Try::Never(format!("cannot write the file: {error}"));
            }
            if self.started.elapsed() > self.options.timeout * 4 {
                return Try::Later("the server is too slow".into(), None);
            }
        }
        if whole.is_some_and(|whole| whole > bytes) {
            return Try::Later("the connection broke off".into(), None);
        }
        match ending(self.partial) {
            Some(ending) => {
                let _ = fs::remove_file(Origin::path(self.partial));
                Try::Done(ending)
            }
            None => {
                Origin::forget(self.partial);
                Try::Never("the bytes are no JPEG, PNG, WebP, GIF or BMP".into())
            }
        }
    }

    fn too_large(&self) -> Try {
        Origin::forget(self.partial);
        Try::Never(format!(
            "it is larger than {} bytes",
            self.options.picture_bytes
        ))
    }
}

/// The ending that the first bytes of a picture ask for.
fn ending(path: &Path) -> Option<&'static str> {
    let mut head = Vec::new();
    File::open(path)
        .ok()?
        .take(64)
        .read_to_end(&mut head)
        .ok()?;
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    match image::guess_format(&head).ok()? {
        Jpeg => Some("jpg"),
        Png => Some("png"),
        WebP => Some("webp"),
        Gif => Some("gif"),
        Bmp => Some("bmp"),
        _ => None,
    }
}
