//! Requests of `object_store` through the HTTP client that is here already, on threads that may wait.

use std::fmt::Display;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use ureq::Agent;
use ureq::http::{Method, Request, Response};

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until a connection is there.
    pub connect: Duration,
    /// Until a server says anything, and between two parts of what it says.
    pub silence: Duration,
}

impl Patience {
    pub const USUAL: Self = Self {
        connect: Duration::from_secs(10),
        silence: Duration::from_secs(20),
    };
}

/// What was asked for in this process.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answers with content.
    pub answers: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Requests that failed in a way that may pass: no connection, silence, cut answers, 408, 429 and 5xx.
    pub failures: AtomicU64,
}

/// The counts of this process.
pub(super) static COUNTS: Counts = Counts {
    answers: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
    failures: AtomicU64::new(0),
};

/// Makes clients for `object_store`.
#[derive(Debug)]
pub(super) struct Connector {
    patience: Patience,
    /// Redirects that are followed. A signature is that of one host.
    redirects: u32,
}

impl Connector {
    pub fn new(patience: Patience, redirects: u32) -> Self {
        Self {
            patience,
            redirects,
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(self.redirects)
            .max_redirects_will_error(false)
            .timeout_connect(Some(self.patience.connect))
            .timeout_recv_response(Some(self.patience.silence))
            .timeout_per_read(Some(self.patience.silence))
            .timeout_per_write(Some(self.patience.silence))
            .max_idle_connections_per_host(super::client::IN_FLIGHT)
            .max_idle_connections(2 * super::client::IN_FLIGHT)
            .accept_encoding("identity")
            .user_agent(concat!("mlrm/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(HttpClient::new(Service {
            agent: config.into(),
            plain: allowed.as_deref() == Some("true"),
        }))
    }
}

#[derive(Debug, Clone)]
struct Service {
    agent: Agent,
    /// Whether `http://` is allowed.
    plain: bool,
}

impl HttpService for Service {
    // As the macro of the trait writes it.
    fn call<'service, 'answer>(
        &'service self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'answer>>
    where
        'service: 'answer,
        Self: 'answer,
    {
        let service = self.clone();
        Box::pin(async move {
            let asked = tokio::task::spawn_blocking(move || service.ask(request)).await;
            asked.unwrap_or_else(|error| Err(failed(HttpErrorKind::Unknown, error)))
        })
    }
}

impl Service {
    /// Asks, and waits for the whole answer.
    fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        if !self.plain && parts.uri.scheme_str() == Some("http") {
            return Err(failed(HttpErrorKind::Unknown, PLAIN_HTTP));
        }
        // A cloud tells its machines their credentials there; elsewhere nobody answers.
        let elsewhere = parts
            .uri
            .host()
            .is_some_and(|host| host.starts_with("169.254."));
        let head = parts.method == Method::HEAD;
        let bare = matches!(parts.method, Method::GET | Method::HEAD);
        let body = body
            .as_bytes()
            .map(|bytes| bytes.to_vec())
            .unwrap_or_default();
        let answer = match bare && body.is_empty() {
            true => self.agent.run(Request::from_parts(parts, ())),
            false => self.agent.run(Request::from_parts(parts, body)),
        };
        let answer = answer.and_then(|answer| whole(answer, head));
        let answer = answer.map_err(|error| match kind_of(&error) {
            _ if elsewhere => failed(HttpErrorKind::Unknown, NO_CREDENTIALS),
            kind => failed(kind, error),
        });
        match &answer {
            Ok(answer) if answer.status().is_success() => {
                COUNTS.answers.fetch_add(1, Ordering::Relaxed);
                let bytes = answer.body().len() as u64;
                COUNTS.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Ok(answer) => {
                let passing = matches!(answer.status().as_u16(), 408 | 429 | 500..);
                COUNTS
                    .failures
                    .fetch_add(u64::from(passing), Ordering::Relaxed);
            }
            Err(error) => {
                let passing = error.kind() != HttpErrorKind::Unknown;
                COUNTS
                    .failures
                    .fetch_add(u64::from(passing), Ordering::Relaxed);
            }
        }
        answer.map(|answer| answer.map(Into::into))
    }
}

/// Why an address of a store is not asked.
pub(super) const PLAIN_HTTP: &str = "the endpoint is http://, which is not encrypted";
/// Why a request was not signed.
pub(super) const NO_CREDENTIALS: &str = "there are no credentials";

/// The answer with all of its content.
fn whole(answer: Response<ureq::Body>, head: bool) -> Result<Response<Vec<u8>>, ureq::Error> {
    let (parts, mut body) = answer.into_parts();
    let content = match head {
        true => Vec::new(),
        false => body.with_config().limit(u64::MAX).read_to_vec()?,
    };
    let promised = parts.headers.get("content-length");
    let promised = promised.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if !head && promised.is_some_and(|promised| promised != content.len() as u64) {
        return Err(ureq::Error::Io(ErrorKind::UnexpectedEof.into()));
    }
    Ok(Response::from_parts(parts, content))
}

/// Whether it may go better another time.
fn kind_of(error: &ureq::Error) -> HttpErrorKind {
    match error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            HttpErrorKind::Connect
        }
        ureq::Error::Io(_) | ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}

fn failed(kind: HttpErrorKind, error: impl Display) -> HttpError {
    HttpError::new(kind, std::io::Error::other(error.to_string()))
}
