//! One picture over HTTP.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use ureq::{Agent, AgentBuilder, Response};

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
    AgentBuilder::new()
        .redirects(0)
        .resolver(options.reach)
        .timeout_connect(options.timeout)
        .timeout_read(options.timeout)
        .timeout_write(options.timeout)
        .user_agent(concat!("mlrm/", env!("CARGO_PKG_VERSION")))
        .build()
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

/// Fetches `url` into the file `partial`, going on from what is there.
pub(super) fn fetch(
    agent: &Agent,
    options: &FetchOptions,
    budget: &Budget,
    url: &url::Url,
    partial: &Path,
) -> Try {
    let started = Instant::now();
    let mut url = url.clone();
    for _ in 0..=options.redirects {
        if let Some(reason) = refuse(&url) {
            return Try::Never(reason);
        }
        let have = fs::metadata(partial).map_or(0, |metadata| metadata.len());
        let mut request = agent
            .request_url("GET", &url)
            .set("Accept-Encoding", "identity")
            .set("Accept", "image/*");
        if have > 0 {
            request = request.set("Range", &format!("bytes={have}-"));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(ureq::Error::Status(416, _)) => {
                let _ = fs::remove_file(partial);
                return Try::Later("the server has no such range".into(), None);
            }
            Err(ureq::Error::Status(code, response)) => return refused(code, &response),
            Err(ureq::Error::Transport(error)) => {
                let reason = error.to_string();
                return match reason.contains(REFUSED) {
                    true => Try::Never(reason),
                    false => Try::Later(reason, None),
                };
            }
        };
        match response.status() {
            200 | 206 => return receive(response, options, budget, have, partial, started),
            301 | 302 | 303 | 307 | 308 => match response.header("Location").map(|to| url.join(to))
            {
                Some(Ok(to)) => url = to,
                _ => return Try::Never("the server redirects to nowhere".into()),
            },
            code => return Try::Never(format!("the server answers {code}")),
        }
    }
    Try::Never(format!("more than {} redirects", options.redirects))
}

fn refused(code: u16, response: &Response) -> Try {
    let reason = format!("the server answers {code} {}", response.status_text());
    match code {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            Try::Later(reason, response.header("Retry-After").and_then(wait))
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

fn receive(
    response: Response,
    options: &FetchOptions,
    budget: &Budget,
    have: u64,
    partial: &Path,
    started: Instant,
) -> Try {
    let kind = response.content_type().to_owned();
    if !kind.starts_with("image/") {
        return Try::Never(format!("the server sends `{kind}`, no picture"));
    }
    let goes_on = format!("bytes {have}-");
    let from = match response.status() == 206
        && response
            .header("Content-Range")
            .is_some_and(|range| range.starts_with(&goes_on))
    {
        true => have,
        false if response.status() == 206 => {
            let _ = fs::remove_file(partial);
            return Try::Later(
                "the server sends another part than was asked for".into(),
                None,
            );
        }
        false => 0,
    };
    let length: Option<u64> = response
        .header("Content-Length")
        .and_then(|length| length.parse().ok());
    let too_large = || {
        let _ = fs::remove_file(partial);
        Try::Never(format!("it is larger than {} bytes", options.picture_bytes))
    };
    if length.is_some_and(|length| from.saturating_add(length) > options.picture_bytes) {
        return too_large();
    }
    let file = match from {
        0 => File::create(partial),
        _ => OpenOptions::new().append(true).open(partial),
    };
    let mut file = match file {
        Ok(file) => file,
        Err(error) => return Try::Never(format!("cannot write the file: {error}")),
    };
    let mut reader = response.into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = from;
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Try::Later(format!("the connection broke off: {error}"), None),
        };
        bytes += read as u64;
        if bytes > options.picture_bytes {
            return too_large();
        }
        if !budget.take(read as u64) {
            return Try::Never("the limit of all pictures together is reached".into());
        }
        if let Err(error) = file.write_all(&buffer[..read]) {
            return Try::Never(format!("cannot write the file: {error}"));
        }
        if started.elapsed() > options.timeout * 4 {
            return Try::Later("the server is too slow".into(), None);
        }
    }
    if length.is_some_and(|length| from + length > bytes) {
        return Try::Later("the connection broke off".into(), None);
    }
    match ending(partial) {
        Some(ending) => Try::Done(ending),
        None => {
            let _ = fs::remove_file(partial);
            Try::Never("the bytes are no JPEG, PNG, WebP, GIF or BMP".into())
        }
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
