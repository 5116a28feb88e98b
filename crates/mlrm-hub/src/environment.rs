//! What the environment says of the Hub, under the names that Hugging Face's libraries read.

use std::path::{Path, PathBuf};

use crate::HubError;

/// Where the Hub and its cache are, and as whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` below `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or the token file that `hf auth login` writes.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: nothing is asked, the cache has to do.
    pub offline: bool,
}

impl Environment {
    /// The environment of this process.
    ///
    /// # Errors
    ///
    /// When `HF_ENDPOINT` is no address, or no folder for the cache can be told.
    pub fn read() -> Result<Self, HubError> {
        Self::of(&|name| std::env::var_os(name)?.into_string().ok())
    }

    /// The environment that `variable` tells. An empty variable is one that is not set.
    pub(crate) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let home = variable("HOME")
            .or_else(|| variable("USERPROFILE"))
            .map(PathBuf::from);
        let path = |text: String| match (text.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        };
        let hf_home = variable("HF_HOME").map(path).or_else(|| {
            let caches = variable("XDG_CACHE_HOME").map(path);
            let caches = caches.or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache = first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map(path);
        let cache = cache.or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
            let file = variable("HF_TOKEN_PATH").map(path);
            let file = file.or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            read_token(&file)
        });
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(HubError::Environment(format!(
                "HF_ENDPOINT = {endpoint}: it has to begin with https:// or http://"
            )));
        }
        let yes = |value: String| {
            matches!(
                value.trim().to_ascii_uppercase().as_str(),
                "1" | "ON" | "YES" | "TRUE"
            )
        };
        Ok(Self {
            endpoint,
            cache: cache.ok_or_else(|| {
                HubError::Environment(
                    "no folder for downloads: neither HF_HUB_CACHE, HF_HOME nor HOME is set".into(),
                )
            })?,
            token: token.map(|token| token.trim().to_owned()),
            offline: first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).is_some_and(yes),
        })
    }
}

/// The token that `hf auth login` left, if there is one.
fn read_token(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, HubError> {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Environment::of(&|name| found(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_places_are_those_of_huggingface_hub() {
        for (variables, cache) in [
            (&[("HOME", "/u")] as &[_], "/u/.cache/huggingface/hub"),
            (
                &[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/u"), ("HF_HOME", "~/h")], "/u/h/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
            (
                &[("HOME", "/u"), ("HF_HOME", "")],
                "/u/.cache/huggingface/hub",
            ),
        ] {
            assert_eq!(
                environment(variables).expect("valid").cache,
                Path::new(cache)
            );
        }
        assert!(environment(&[]).is_err());
    }

    #[test]
    fn the_token_is_that_of_the_variable_or_of_the_file() {
        let home = tempfile::tempdir().expect("a folder");
        let text = home.path().to_str().expect("UTF-8");
        let base = ("HF_HOME", text);
        assert_eq!(environment(&[base]).expect("valid").token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").expect("a file");
        let token = |variables: &[_]| environment(variables).expect("valid").token;
        assert_eq!(token(&[base]).as_deref(), Some("hf_file"));
        assert_eq!(
            token(&[base, ("HF_TOKEN", " hf_env ")]).as_deref(),
            Some("hf_env")
        );
    }

    #[test]
    fn endpoint_and_offline_are_read() {
        let base = ("HOME", "/u");
        let found = environment(&[base]).expect("valid");
        assert_eq!(
            (found.endpoint.as_str(), found.offline),
            ("https://huggingface.co", false)
        );
        let found = environment(&[
            base,
            ("HF_ENDPOINT", "http://x:1/"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        let found = found.expect("valid");
        assert_eq!(
            (found.endpoint.as_str(), found.offline),
            ("http://x:1", true)
        );
        assert!(
            !environment(&[base, ("HF_HUB_OFFLINE", "0")])
                .expect("valid")
                .offline
        );
        assert!(environment(&[base, ("HF_ENDPOINT", "x")]).is_err());
    }
}
