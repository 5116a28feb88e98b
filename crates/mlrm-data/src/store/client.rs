//! One bucket, or one web server.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Object;
use super::address::Address;
use super::fault::Fault;
use super::http::{COUNTS, Connector, Patience};
use crate::error::Result;

/// Requests that are under way at the same time, of all threads of this process.
pub(super) const IN_FLIGHT: usize = 32;
/// Redirects that web servers may answer with.
const REDIRECTS: u32 = 5;

/// How often, and with which waits, a request is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries {
    pub patience: Patience,
    /// Further tries after the first.
    pub further: usize,
    /// The wait before the second; later ones grow twofold, with jitter.
    pub first_wait: Duration,
}

impl Tries {
    pub const USUAL: Self = Self {
        patience: Patience::USUAL,
        further: 7,
        first_wait: Duration::from_millis(200),
    };

    fn config(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: self.first_wait,
                max_backoff: Duration::from_secs(15),
                base: 2.0,
            },
            max_retries: self.further,
            retry_timeout: Duration::from_secs(180),
        }
    }
}

/// A bucket or a web server, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub address: Address,
    store: Arc<dyn ObjectStore>,
    permits: Arc<Semaphore>,
}

impl Client {
    /// The client of an address's bucket: one for each bucket and process, so that connections are kept.
    pub fn of(path: &Path) -> Result<Self> {
        static KNOWN: Mutex<Option<HashMap<(String, String), Client>>> = Mutex::new(None);
        let address = Address::of(path)?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        let bucket = (address.scheme.clone(), address.bucket.clone());
        if let Some(client) = known.get(&bucket) {
            return Ok(Self {
                address,
                ..client.clone()
            });
        }
        let client = Self::new(address, &Tries::USUAL)?;
        known.insert(bucket, client.clone());
        Ok(client)
    }

    /// A client of its own.
    pub fn new(address: Address, tries: &Tries) -> Result<Self> {
        let built = build(&address, tries);
        let store =
            built.map_err(|error| Fault::of(&error, &address, &address.key).of_place(&address))?;
        Ok(Self {
            address,
            store,
            permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        })
    }

    /// What is at a key.
    pub fn look(&self, key: &str) -> Result<Object, Fault> {
        let client = self.clone();
        let asked = key.to_owned();
        runtime()?.block_on(async move {
            let options = GetOptions {
                head: true,
                ..GetOptions::default()
            };
            let found = client.store.get_opts(&client.key(&asked)?, options).await;
            let found = found.map_err(|error| client.fault(&error, &asked))?;
            Ok(object(&asked, &found.meta))
        })
    }

    /// All objects below a prefix, in the order of their keys.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>, Fault> {
        let below = match prefix {
            "" => None,
            prefix => Some(self.key(prefix)?),
        };
        let listed = runtime()?.block_on(async {
            let objects = self.store.list(below.as_ref());
            objects
                .map_ok(|meta| object(meta.location.as_ref(), &meta))
                .try_collect::<Vec<_>>()
                .await
        });
        let mut listed = listed.map_err(|error| self.fault(&error, prefix))?;
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    /// The bytes of a range of an object.
    pub fn read(&self, object: &Object, range: Range<u64>) -> Result<Vec<u8>, Fault> {
        runtime()?.block_on(self.get(object, range))
    }

    /// As [`Self::read`] of several at once: `each` hears the place of a part in the list, and its bytes, as they come.
    pub fn read_all(
        &self,
        wanted: &[(&Object, Range<u64>)],
        mut each: impl FnMut(usize, Result<Vec<u8>, Fault>),
    ) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(fault) => return (0..wanted.len()).for_each(|at| each(at, Err(fault.clone()))),
        };
        runtime.block_on(async {
            let mut asked = JoinSet::new();
            for (at, (object, range)) in wanted.iter().enumerate() {
                let (client, object) = (self.clone(), (*object).clone());
                let range = range.clone();
                asked.spawn(async move { (at, client.get(&object, range).await) });
            }
            while let Some(done) = asked.join_next().await {
                match done {
                    Ok((at, bytes)) => each(at, bytes),
                    // An error of this program goes on here, where it is seen.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
        });
    }

    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Vec<u8>, Fault> {
        let wanted = range.end - range.start;
        if wanted == 0 {
            return Ok(Vec::new());
        }
        // Nobody closes it.
        let _permit = self.permits.acquire().await;
        let whole = range == (0..object.bytes);
        let options = GetOptions {
            range: (!whole).then(|| range.into()),
            ..GetOptions::default()
        };
        let fault = |error| self.fault(&error, &object.key);
        let found = self.store.get_opts(&self.key(&object.key)?, options).await;
        let found = found.map_err(fault)?;
        let changed = mark_of(&found.meta) != object.mark || found.meta.size != object.bytes;
        let bytes = found.bytes().await.map_err(fault)?;
        if changed || bytes.len() as u64 != wanted {
            let place = self.address.with_key(&object.key);
            return Err(Fault::new(
                format!("`{}` has changed since it was looked up", place.display()),
                "start again when nobody writes there",
            ));
        }
        Ok(Vec::from(bytes))
    }

    fn key(&self, key: &str) -> Result<Key, Fault> {
        // Addresses of web servers are written as they are sent.
        let parsed = match self.address.is_web() {
            true => Key::from_url_path(key),
            false => Key::parse(key),
        };
        parsed.map_err(|error| {
            Fault::new(
                format!(
                    "`{}` is no key: {error}",
                    self.address.with_key(key).display()
                ),
                "write it without empty parts and without `..`",
            )
        })
    }

    fn fault(&self, error: &Error, key: &str) -> Fault {
        Fault::of(error, &self.address, key)
    }
}

fn build(address: &Address, tries: &Tries) -> object_store::Result<Arc<dyn ObjectStore>> {
    let (bucket, retry) = (address.bucket.as_str(), tries.config());
    let connector = |redirects| Connector::new(tries.patience, redirects);
    Ok(match address.scheme.as_str() {
        "s3" => Arc::new(
            AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_http_connector(connector(0))
                .build()?,
        ),
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_http_connector(connector(0))
                .build()?,
        ),
        "az" => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_retry(retry)
                .with_http_connector(connector(0))
                .build()?,
        ),
        scheme => Arc::new(
            HttpBuilder::new()
                .with_url(format!("{scheme}://{bucket}"))
                .with_retry(retry)
                // Whoever writes http:// means it.
                .with_client_options(ClientOptions::new().with_allow_http(true))
                .with_http_connector(connector(REDIRECTS))
                .build()?,
        ),
    })
}

fn object(key: &str, meta: &ObjectMeta) -> Object {
    Object {
        key: key.to_owned(),
        bytes: meta.size,
        mark: mark_of(meta),
    }
}

/// Lists and answers quote the tag differently.
fn mark_of(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(tag) => tag.trim_start_matches("W/").trim_matches('"').to_owned(),
        None => meta.last_modified.timestamp().to_string(),
    }
}

/// The threads that ask and wait.
fn runtime() -> Result<&'static Runtime, Fault> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let start = || {
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .max_blocking_threads(IN_FLIGHT)
            .thread_name("mlrm-store");
        builder.enable_time().build().ok()
    };
    let runtime = RUNTIME.get_or_init(start).as_ref();
    runtime.ok_or_else(|| Fault::new("no threads can be started", "free some of the system's"))
}

/// What this process has fetched from stores, and what had to be asked again; `None` where it asked for nothing.
pub fn told() -> Option<String> {
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let (answers, failures) = (count(&COUNTS.answers), count(&COUNTS.failures));
    if answers + failures == 0 {
        return None;
    }
    let megabytes = count(&COUNTS.bytes) as f64 / 1e6;
    let again = match failures {
        0 => String::new(),
        1 => "; 1 request failed and was repeated".to_owned(),
        _ => format!("; {failures} requests failed and were repeated"),
    };
    let damaged = match count(&super::cache::DAMAGED) {
        0 => String::new(),
        damaged => format!("; {damaged} damaged entries of the cache were fetched again"),
    };
    Some(format!(
        "object storage: {answers} answers of {megabytes:.1} MB{again}{damaged}"
    ))
}
