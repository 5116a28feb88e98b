//! What a store says went wrong, for people: without secrets, and with the way to mend it.

use object_store::Error;

use super::address::Address;
use super::http::{NO_CREDENTIALS, PLAIN_HTTP};
use crate::error::{DataError, Problem, ProblemKind};

/// Why an object was not read.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// Whether the store says that it is not there.
    pub missing: bool,
    message: String,
    mend: String,
}

impl Fault {
    pub fn new(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            missing: false,
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// What `error` says of `key`.
    pub fn of(error: &Error, address: &Address, key: &str) -> Self {
        let place = address.with_key(key).display().to_string();
        let said = said(&chain(error));
        let bucket = said.contains("NoSuchBucket") || said.contains("ContainerNotFound");
        let missing = matches!(error, Error::NotFound { .. }) && !bucket;
        let message = match (bucket, missing) {
            (true, _) => format!("there is no bucket `{}` ({said})", address.bucket),
            (_, true) => format!("`{place}` is not there"),
            _ => format!("`{place}` cannot be read: {said}"),
        };
        Self {
            missing,
            message,
            mend: mend(error, address, &said, bucket, missing),
        }
    }

    /// As a problem of one picture.
    pub fn problem(self) -> Problem {
        let kind = match self.missing {
            true => ProblemKind::MissingImage,
            false => ProblemKind::UnreachableStore,
        };
        Problem::new(kind, self.message, self.mend)
    }

    /// As what keeps all of an address from being read.
    pub fn of_place(self, address: &Address) -> DataError {
        DataError::file(address.with_key(&address.key), self.message, self.mend)
    }
}

/// How to mend it.
fn mend(error: &Error, address: &Address, said: &str, bucket: bool, missing: bool) -> String {
    let names = match address.scheme.as_str() {
        "s3" => [
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_SKIP_SIGNATURE=true)",
            "AWS_REGION, and AWS_ENDPOINT_URL where the store is not Amazon's",
            "AWS_ALLOW_HTTP=true",
        ],
        "gs" => [
            "GOOGLE_SERVICE_ACCOUNT (a file), or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
            "GOOGLE_BASE_URL where the store is not Google's",
            "GOOGLE_ALLOW_HTTP=true",
        ],
        "az" => [
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_KEY)",
            "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ENDPOINT where the store is not Azure's",
            "AZURE_ALLOW_HTTP=true",
        ],
        _ => [
            "an address that needs no password",
            "the address",
            "the address",
        ],
    };
    let refused = matches!(
        error,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
    );
    if said.contains(PLAIN_HTTP) {
        return format!("set an endpoint of https://, or {}", names[2]);
    }
    if refused || said.contains(NO_CREDENTIALS) || said.contains("403") || said.contains("401") {
        return format!("check the credentials: {}", names[0]);
    }
    if missing {
        return "correct the key, or put the object there".into();
    }
    if bucket {
        return format!("correct the name of the bucket, or check {}", names[1]);
    }
    format!("check the network, and {}", names[1])
}

/// An error and its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        cause = error.source();
    }
    text
}

/// What matters of it. Answers may repeat what was sent, and addresses may be signed: of an answer only the code and the
/// message are shown, and of an address nothing behind `?`.
fn said(text: &str) -> String {
    let between = |start: &str, end: &str| {
        let (_, rest) = text.split_once(start)?;
        rest.split_once(end)
            .map(|(inner, _)| inner.trim().to_owned())
    };
    let status = between("status code: ", ":").or_else(|| between("status code: ", "\n"));
    let code = between("<Code>", "</Code>");
    let said = match (status, code) {
        (Some(status), Some(code)) => format!("the store answers {status}, {code}"),
        (Some(status), None) => format!("the store answers {status}"),
        _ => match [PLAIN_HTTP, NO_CREDENTIALS]
            .into_iter()
            .find(|known| text.contains(known))
        {
            Some(known) => known.to_owned(),
            None => text.to_owned(),
        },
    };
    let mut shown = String::new();
    for word in said.split_whitespace().take(60) {
        let word = match word.contains("://") {
            true => word.split('?').next().unwrap_or_default(),
            false => word,
        };
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.extend(word.chars().filter(|c| *c != '<' && *c != '>'));
    }
    match between("after ", " retries") {
        Some(tries) if !shown.contains(" retries") => {
            format!("{shown}, after {tries} further tries")
        }
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_without_secrets() {
        let text = "Generic S3 error: Error performing GET http://h/b/k?sig=SECRET in 1s, after 2 retries, \
                    max_retries: 2, retry_timeout: 180s  - Server returned non-2xx status code: 503 Service \
                    Unavailable: <?xml?><Error><Code>SlowDown</Code><StringToSign>SECRET</StringToSign></Error>";
        let told = said(text);
        assert_eq!(
            told,
            "the store answers 503 Service Unavailable, SlowDown, after 2 further tries"
        );
        let told = said(
            "Error performing GET https://h/c/k?sv=1&sig=SECRET in 3s - HTTP error: timeout: global",
        );
        assert_eq!(
            told,
            "Error performing GET https://h/c/k in 3s - HTTP error: timeout: global"
        );
    }
}
