//! Requests to the Hub.

use std::time::Duration;

use mlrm_config::{HubName, is_commit};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::cache::repo;
use crate::{Environment, HubError};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest wait for the next bytes.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest list of files that is read, in bytes.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Its path in the repository.
    pub(crate) path: String,
    /// Its hash, which names its content in the cache.
    pub(crate) etag: String,
    /// Its length.
    pub(crate) bytes: u64,
}

/// What a revision of a repository is.
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) files: Vec<RemoteFile>,
}

/// The answer to `api/models/owner/name/revision/…?blobs=true`, as far as it is read.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Asks the Hub.
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(environment: &Environment) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The token is the Hub's alone; weights come from other hosts.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            // Lengths are those of the files.
            .accept_encoding("identity")
            .user_agent(concat!("mlrm/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            endpoint: environment.endpoint.clone(),
            token: environment.token.clone(),
        }
    }

    /// Whether a token is sent.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The address of a file.
    pub(crate) fn file_url(&self, name: &HubName, commit: &str, file: &str) -> String {
        format!(
            "{}/{}/resolve/{commit}/{}",
            self.endpoint,
            name.repo,
            escaped(file)
        )
    }

    /// Asks for an address, or for the bytes of it that `range` says (`5-`, `0-7`).
    pub(crate) fn get(
        &self,
        url: &str,
        range: Option<String>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("Range", format!("bytes={range}"));
        }
        request.call()
    }

    /// What the name stands for now.
    pub(crate) fn list(&self, name: &HubName) -> Result<Listing, HubError> {
        let url = format!("{}/api/{}?blobs=true", self.endpoint, repo(name).api_url());
        let unreachable = |error: ureq::Error| HubError::Unreachable {
            name: name.clone(),
            endpoint: self.endpoint.clone(),
            reason: error.to_string(),
        };
        let mut response = self.get(&url, None).map_err(unreachable)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(HubError::Status {
                name: name.clone(),
                file: None,
                status,
                url,
                token: self.has_token(),
            });
        }
        let body = response.body_mut().with_config().limit(MAX_LIST_BYTES);
        let text = body.read_to_string().map_err(unreachable)?;
        listing(&text).map_err(|reason| HubError::Answer {
            name: name.clone(),
            url,
            reason,
        })
    }
}

/// Reads a list of files. What it says becomes paths of the cache, so that it is not trusted.
fn listing(text: &str) -> Result<Listing, String> {
    let info: Info = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !is_commit(&info.sha) {
        return Err(format!("`sha` is no commit: {}", info.sha));
    }
    let mut files = Vec::new();
    for sibling in info.siblings {
        let path = sibling.rfilename;
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !path.split('/').all(plain) || path.contains(['\\', ':', '\0']) {
            return Err(format!("a file with the path {path:?}"));
        }
        let (etag, bytes) = match (sibling.lfs, sibling.blob_id, sibling.size) {
            (Some(lfs), _, _) => (lfs.sha256, lfs.size),
            (None, Some(id), Some(size)) => (id, size),
            _ => return Err(format!("it does not tell hash and size of {path}")),
        };
        if etag.len() < 8 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("the hash of {path} is {etag:?}"));
        }
        files.push(RemoteFile { path, etag, bytes });
    }
    Ok(Listing {
        commit: info.sha,
        files,
    })
}

/// A path as a URL spells it.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let spelt = |byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    path.bytes().map(spelt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn large_files_go_by_their_sha256() {
        let text = format!(
            r#"{{"sha": "{COMMIT}", "siblings": [
                {{"rfilename": "config.json", "size": 3, "blobId": "0123abcd"}},
                {{"rfilename": "model.safetensors", "size": 9, "blobId": "99999999",
                  "lfs": {{"sha256": "feedbeef", "size": 9, "pointerSize": 1}}}}]}}"#
        );
        let found = listing(&text).expect("a list");
        assert_eq!(found.commit, COMMIT);
        let etags: Vec<&str> = found.files.iter().map(|file| file.etag.as_str()).collect();
        assert_eq!(etags, ["0123abcd", "feedbeef"]);
    }

    #[test]
    fn what_would_lead_out_of_the_cache_is_refused() {
        let file = |path: &str, etag: &str| {
            format!(
                r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "{path}", "size": 1, "blobId": "{etag}"}}]}}"#
            )
        };
        assert!(listing(&file("a/b.json", "0123abcd")).is_ok());
        for (path, etag) in [
            ("../x", "0123abcd"),
            ("/x", "0123abcd"),
            ("a//b", "0123abcd"),
            ("x", "../../../x"),
            ("x", ""),
        ] {
            assert!(listing(&file(path, etag)).is_err(), "{path} {etag}");
        }
        assert!(listing(r#"{"sha": "../x", "siblings": []}"#).is_err());
        assert!(listing("<html>").is_err());
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(escaped("a b/ü#.json"), "a%20b/%C3%BC%23.json");
    }
}
