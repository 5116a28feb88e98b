//! `hf:owner/name` in place of a folder, against a small Hub on loopback.
#![cfg(feature = "hub")]

mod support;
#[path = "../../../tests/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use support::{Home, Ran, TINY, Words, files_below, set, without_tokenizer};
use web::{Request, listen, send, send_part};

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

/// What was asked: the path, and the headers that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    path: String,
    range: Option<String>,
    token: Option<String>,
}

/// How the server behaves.
#[derive(Default)]
struct State {
    /// Repository → its files by path.
    repos: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The commit that `main` is.
    head: String,
    /// The token that it wants.
    token: Option<String>,
    /// Ends the connection at this byte of weights, so many times.
    cut: (usize, usize),
    /// Knows no ranges.
    whole_only: bool,
    /// Leaves so many bytes of weights out, and says so in the header.
    short: usize,
    /// Sends weights with another last byte.
    damaged: bool,
    /// Everything that was asked.
    asked: Vec<Asked>,
}

/// A Hub of its own, which ends with the test's process.
struct Server {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            head: FIRST.into(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let address = listen(move |request, stream| {
            // The connection ends, whether the client was still there or not.
            let _gone = answer(request, stream, &shared).is_none();
            None
        });
        let endpoint = format!("http://{address}");
        Self { endpoint, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Publishes every file below a folder, and what nobody needs beside them.
    fn publish(&self, repo: &str, folder: &Path) {
        let mut files = BTreeMap::new();
        for path in files_below(folder) {
            let below = path.strip_prefix(folder).expect("below");
            let name = below.to_str().expect("UTF-8").to_owned();
            files.insert(name, fs::read(&path).expect("a file"));
        }
        for idle in [
            "README.md",
            "pytorch_model.bin",
            "tf_model.h5",
            "onnx/model.onnx",
            "onnx/config.json",
        ] {
            files.insert(idle.into(), b"not needed".to_vec());
        }
        self.state().repos.insert(repo.into(), files);
    }

    /// What was asked since the last look, as paths.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    /// Runs the binary with this Hub and a cache in `home`.
    #[track_caller]
    fn run(&self, home: &Home, arguments: impl Words) -> Ran {
        self.run_with(home, arguments, &[])
    }

    /// The same with these variables.
    #[track_caller]
    fn run_with(&self, home: &Home, arguments: impl Words, variables: &[(&str, &str)]) -> Ran {
        let mut command = home.command(arguments);
        for name in [
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HOME", home.path("hf"));
        home.ran(command.envs(variables.iter().copied()))
    }
}

fn answer(request: &Request, stream: &mut TcpStream, state: &Mutex<State>) -> Option<()> {
    let path = &request.target;
    let token = request.header("authorization").map(str::to_owned);
    let mut state = state.lock().expect("no panic");
    state.asked.push(Asked {
        path: path.clone(),
        range: request.header("range").map(str::to_owned),
        token: token.clone(),
    });
    let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && token != wanted {
        let body = b"Invalid username or password.";
        return send(stream, "401 Unauthorized", "", body);
    }
    let Some(body) = found(&state, path) else {
        return send(stream, "404 Not Found", "", b"Repository not found");
    };
    let weights = path.ends_with(".safetensors");
    let mut body = body[..body.len() - if weights { state.short } else { 0 }].to_vec();
    if weights && state.damaged {
        *body.last_mut().expect("weights") ^= 1;
    }
    let span = request.span(body.len()).filter(|_| !state.whole_only);
    let mut limit = usize::MAX;
    if weights && state.cut.1 > 0 {
        let start = span.as_ref().map_or(0, |span| span.start);
        limit = state.cut.0.saturating_sub(start);
        state.cut.1 -= 1;
    }
    drop(state);
    match span {
        Some(span) => {
            let (start, last, bytes) = (span.start, span.end - 1, body.len());
            let range = format!("Content-Range: bytes {start}-{last}/{bytes}\r\n");
            send_part(stream, "206 Partial Content", &range, &body[span], limit)
        }
        None => send_part(stream, "200 OK", "", &body, limit),
    }
}

/// What is at a path: the list of a repository, or a file.
fn found(state: &State, path: &str) -> Option<Vec<u8>> {
    let commit = |revision: &str| match revision {
        "main" => Some(state.head.clone()),
        FIRST | SECOND => Some(revision.to_owned()),
        _ => None,
    };
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let (repo, revision) = rest.strip_suffix("?blobs=true")?.split_once("/revision/")?;
        let files = state.repos.get(repo)?;
        let sha = commit(revision)?;
        let sibling = |(path, bytes): (&String, &Vec<u8>)| {
            let (size, id) = (bytes.len(), hash(bytes));
            match path.ends_with(".safetensors") {
                true => serde_json::json!({"rfilename": path, "size": size, "blobId": id,
                    "lfs": {"sha256": sha256(bytes), "size": size, "pointerSize": 134}}),
                false => serde_json::json!({"rfilename": path, "size": size, "blobId": id}),
            }
        };
        let siblings: Vec<_> = files.iter().map(sibling).collect();
        let list = serde_json::json!({"id": repo, "sha": sha, "siblings": siblings});
        return Some(list.to_string().into_bytes());
    }
    let (repo, rest) = path.strip_prefix('/')?.split_once("/resolve/")?;
    let (revision, file) = rest.split_once('/')?;
    commit(revision)?;
    state.repos.get(repo)?.get(file).cloned()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A name of a content; a small one will do here.
fn hash(bytes: &[u8]) -> String {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{fnv:016x}")
}

/// A home with a run, whose language model, adapters aside, is published as `acme/llm` and whose whole
/// model as `acme/whole`.
fn published() -> (Home, Server) {
    let home = Home::trained();
    let server = Server::start();
    server.publish("acme/llm", &home.path("run/model/llm"));
    server.publish("acme/whole", &home.path("run/model"));
    (home, server)
}

/// The one file of the cache's blobs whose download is unfinished.
fn unfinished(home: &Home) -> Vec<u64> {
    let blobs = fs::read_dir(home.path("hf/hub/models--acme--llm/blobs")).expect("blobs");
    let blobs = blobs.map(|entry| entry.expect("an entry"));
    let parts = blobs.filter(|entry| entry.file_name().to_string_lossy().ends_with(".incomplete"));
    parts
        .map(|entry| entry.metadata().expect("its size").len())
        .collect()
}

#[test]
fn needed_files_are_fetched_once_into_the_cache_of_huggingface_hub() {
    let (home, server) = published();
    let inspect = "inspect hf:acme/llm --load --json";
    let own = server.run(&home, "inspect run/model/llm --json").json();
    assert!(
        server.asked().is_empty(),
        "a folder of this machine asks nobody"
    );
    let first = server.run(&home, inspect);
    first.done();
    assert!(
        first.err.contains("hf:acme/llm: weights to download: ") && first.err.contains("in 1 file"),
        "{first:?}"
    );
    assert_eq!(
        first.json()["parts"][0]["parameters"],
        own["parts"][0]["parameters"]
    );
    let asked = server.asked();
    let mut files: Vec<&str> = asked
        .iter()
        .filter_map(|asked| asked.path.rsplit_once('/'))
        .map(|(_, file)| file)
        .collect();
    assert_eq!(files.remove(0), "main?blobs=true");
    assert_eq!(files.last(), Some(&"model.safetensors"), "weights last");
    files.sort_unstable();
    assert_eq!(
        files,
        [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert!(
        asked[1..].iter().all(|asked| asked.path.contains(FIRST)),
        "{asked:?}"
    );
    // The layout that Python's library reads.
    let repo = home.path("hf/hub/models--acme--llm");
    assert_eq!(
        fs::read_to_string(repo.join("refs/main")).expect("a ref"),
        FIRST
    );
    let weights = repo.join("snapshots").join(FIRST).join("model.safetensors");
    let blob = fs::canonicalize(&weights).expect("a link to a blob");
    assert_eq!(
        blob.parent().and_then(Path::file_name),
        Some("blobs".as_ref())
    );
    assert_eq!(
        fs::read(&weights).expect("weights"),
        fs::read(home.path("run/model/llm/model.safetensors")).expect("weights")
    );
    assert!(!repo.join("refs").join(FIRST).exists());
    // Again: the list alone. Offline: nothing. By its commit: the same files.
    server.run(&home, inspect).done();
    assert_eq!(server.asked().len(), 1);
    let offline = [("HF_HUB_OFFLINE", "1")];
    let again = server.run_with(&home, inspect, &offline);
    assert_eq!(again.done().json()["parts"], first.json()["parts"]);
    let pinned = format!("hf:acme/llm@{FIRST}");
    server
        .run_with(&home, format!("inspect {pinned}"), &offline)
        .done();
    assert!(server.asked().is_empty());
}

#[test]
fn a_model_folder_is_embedded_with_and_exported() {
    let (home, server) = published();
    let embed = |model: &str, out: &str| {
        let words = format!("embed {model} --notes data/notes.jsonl --out {out}");
        server.run(&home, words).done();
        fs::read(home.path(out)).expect("embeddings")
    };
    assert_eq!(embed("hf:acme/whole", "a.npy"), embed("run/model", "b.npy"));
    server
        .run(&home, "export hf:acme/whole@main --out out")
        .done();
    assert!(home.path("out/mlrm.toml").is_file());
    let of_weights = server.asked();
    let onnx = of_weights
        .iter()
        .filter(|asked| asked.path.contains("onnx"));
    assert_eq!(onnx.count(), 0);
}

#[test]
fn what_is_not_there_or_not_allowed_is_said() {
    let (home, server) = published();
    let inspect =
        |name: &str, variables: &[_]| server.run_with(&home, format!("inspect {name}"), variables);
    inspect("hf:acme/none", &[])
        .failed_with(1, &["hf:acme/none", "HTTP 404", "check the name acme/none"]);
    inspect("hf:acme/llm@v9", &[]).failed_with(1, &["HTTP 404", "the revision v9"]);
    inspect("hf:llm", &[]).failed_with(1, &["`hf:llm` is not a name on the Hub", "hf:owner/name"]);
    server.state().token = Some("secret".into());
    inspect("hf:acme/llm", &[]).failed_with(1, &["HTTP 401", "acme/llm", "gated", "HF_TOKEN"]);
    let wrong = inspect("hf:acme/llm", &[("HF_TOKEN", "other")]);
    wrong.failed_with(1, &["HTTP 401", "the token is not valid"]);
    assert!(!wrong.err.contains("other"), "{wrong:?}");
    inspect("hf:acme/llm", &[("HF_TOKEN", "secret")]).done();
    // The one that `hf auth login` writes.
    fs::write(home.path("hf/token"), "secret\n").expect("a file");
    server.asked();
    inspect("hf:acme/llm", &[]).done();
    assert_eq!(server.asked()[0].token.as_deref(), Some("Bearer secret"));
}

#[test]
fn weights_in_another_format_alone_are_refused_before_a_download() {
    let (home, server) = published();
    server
        .state()
        .repos
        .get_mut("acme/llm")
        .expect("it")
        .remove("model.safetensors");
    server.asked();
    let ran = server.run(&home, "inspect hf:acme/llm");
    ran.failed_with(1, &["no model.safetensors", "pytorch_model.bin"]);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_connection_that_breaks_goes_on_where_it_was() {
    let (home, server) = published();
    // Once: the command does not even fail.
    server.state().cut = (1000, 1);
    server.run(&home, "inspect hf:acme/llm --load").done();
    let ranges: Vec<String> = server
        .asked()
        .into_iter()
        .filter_map(|asked| asked.range)
        .collect();
    assert_eq!(ranges, ["bytes=1000-"]);
    // For good: the next command goes on.
    fs::remove_dir_all(home.path("hf")).expect("the cache");
    server.state().cut = (1234, usize::MAX);
    let ran = server.run(&home, "inspect hf:acme/llm --load");
    ran.failed_with(
        1,
        &[
            "model.safetensors",
            "broke off at 1234 of",
            "run the command again",
        ],
    );
    assert_eq!(unfinished(&home), [1234]);
    server.state().cut = (0, 0);
    server.asked();
    server.run(&home, "inspect hf:acme/llm --load").done();
    let ranges: Vec<String> = server
        .asked()
        .into_iter()
        .filter_map(|asked| asked.range)
        .collect();
    assert_eq!(ranges, ["bytes=1234-"]);
    // A server that knows no ranges sends the whole again, which is not put behind the part.
    fs::remove_dir_all(home.path("hf")).expect("the cache");
    server.state().cut = (1234, 1);
    server.state().whole_only = true;
    server.run(&home, "inspect hf:acme/llm --load").done();
    let weights = home.path(format!(
        "hf/hub/models--acme--llm/snapshots/{FIRST}/model.safetensors"
    ));
    let own = fs::read(home.path("run/model/llm/model.safetensors")).expect("weights");
    assert_eq!(fs::read(weights).expect("weights"), own);
    assert!(unfinished(&home).is_empty());
}

#[test]
fn a_file_of_another_length_is_never_taken() {
    let (home, server) = published();
    server.state().short = 10;
    let ran = server.run(&home, "inspect hf:acme/llm --load");
    ran.failed_with(
        1,
        &[
            "hf:acme/llm",
            "model.safetensors should have",
            "bytes, but the server sends",
        ],
    );
    let weights = home.path(format!(
        "hf/hub/models--acme--llm/snapshots/{FIRST}/model.safetensors"
    ));
    assert!(!weights.exists() && unfinished(&home).is_empty());
    server.state().short = 0;
    server.run(&home, "inspect hf:acme/llm --load").done();
    // One that is in the cache already, cut by somebody else.
    let blob = fs::canonicalize(&weights).expect("a blob");
    let bytes = fs::read(&blob).expect("weights");
    fs::write(&blob, &bytes[..bytes.len() / 2]).expect("written");
    server.run(&home, "inspect hf:acme/llm --load").done();
    assert_eq!(fs::read(&weights).expect("weights"), bytes);
}

#[test]
fn a_file_of_other_content_is_never_taken() {
    let (home, server) = published();
    server.state().damaged = true;
    let load = "inspect hf:acme/llm --load";
    let weights = fs::read(home.path("run/model/llm/model.safetensors")).expect("weights");
    let listed = sha256(&weights);
    let ran = server.run(&home, load);
    ran.failed_with(
        1,
        &[
            "hf:acme/llm: model.safetensors has the hash",
            &listed,
            "nothing was kept",
        ],
    );
    let cached = home.path(format!(
        "hf/hub/models--acme--llm/snapshots/{FIRST}/model.safetensors"
    ));
    assert!(!cached.exists() && unfinished(&home).is_empty());
    // A part that was damaged on this machine, and what came behind it.
    server.state().damaged = false;
    server.state().cut = (1234, usize::MAX);
    server
        .run(&home, load)
        .failed_with(1, &["broke off at 1234"]);
    let blobs = home.path("hf/hub/models--acme--llm/blobs");
    let part = blobs.join(format!("{listed}.incomplete"));
    let mut bytes = fs::read(&part).expect("a part");
    bytes[1000] ^= 1;
    fs::write(&part, bytes).expect("a file");
    server.state().cut = (0, 0);
    server.run(&home, load).failed_with(1, &["has the hash"]);
    server.run(&home, load).done();
    assert_eq!(fs::read(&cached).expect("weights"), weights);
}

#[test]
fn inspect_asks_for_the_headers_of_weights_alone() {
    let (home, server) = published();
    let show = |model: &str| server.run(&home, format!("inspect {model} --json"));
    let shown = |model: &str| {
        let mut parts = show(model).done().json()["parts"].clone();
        for part in parts.as_array_mut().expect("parts") {
            part.as_object_mut().expect("a part").remove("path");
        }
        parts
    };
    let (llm, whole) = (shown("run/model/llm"), shown("run/model"));
    server.asked();
    assert_eq!(shown("hf:acme/llm"), llm);
    let ranges: Vec<Option<String>> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.path.ends_with(".safetensors"))
        .map(|asked| asked.range)
        .collect();
    let bytes = fs::read(home.path("run/model/llm/model.safetensors")).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("a length"));
    let last = format!("bytes=8-{}", 8 + header - 1);
    assert_eq!(ranges, [Some("bytes=0-7".to_owned()), Some(last)]);
    let snapshot = home.path(format!("hf/hub/models--acme--llm/snapshots/{FIRST}"));
    assert!(snapshot.join("config.json").is_file());
    assert!(!snapshot.join("model.safetensors").exists());
    let path = show("hf:acme/llm").done().json()["parts"][0]["path"].clone();
    assert_eq!(path.as_str(), Some(format!("hf:acme/llm@{FIRST}").as_str()));
    // All parts of a model folder, and of a server that knows no ranges.
    assert_eq!(shown("hf:acme/whole"), whole);
    server.state().whole_only = true;
    assert_eq!(shown("hf:acme/whole"), whole);
    server.state().whole_only = false;
    // What is wrong is told of the name, and of no folder that is gone by then.
    let config = home.read("run/model/llm/config.json");
    let other = config.replace("\"hidden_size\": ", "\"surprise\": 3, \"hidden_size\": ");
    assert_ne!(config, other);
    let mut state = server.state();
    let files = state.repos.get_mut("acme/llm").expect("it");
    files.insert("config.json".into(), other.into_bytes());
    state.head = SECOND.into();
    drop(state);
    let ran = show("hf:acme/llm");
    let named = format!("hf:acme/llm@{SECOND}/config.json");
    ran.failed_with(1, &[&named, "`surprise` = 3", "--accept-keys"]);
}

#[test]
fn every_place_of_a_model_takes_a_name() {
    let (home, server) = published();
    let bench = "bench load hf:acme/whole --runs 1 --warmup 0 --json";
    server.run(&home, bench).done();
    let data = set("data.source=folder data.root=data eval.baselines=[]");
    let eval = format!("eval hf:acme/whole --json{data}");
    server.run(&home, eval).done();
    let embed = "embed hf:acme/whole --notes data/notes.jsonl --out x.parquet";
    server.run(&home, embed).done();
}

#[test]
fn without_the_hub_the_cache_has_to_do() {
    let (home, server) = published();
    let inspect = "inspect hf:acme/llm --load";
    let offline = [("HF_HUB_OFFLINE", "1")];
    server.run_with(&home, inspect, &offline).failed_with(
        1,
        &["HF_HUB_OFFLINE is set", "hf/hub", "without HF_HUB_OFFLINE"],
    );
    let nobody = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    server
        .run_with(&home, inspect, &nobody)
        .failed_with(1, &["cannot be reached", "HF_ENDPOINT"]);
    assert!(server.asked().is_empty());
    server.run(&home, inspect).done();
    let ran = server.run_with(&home, inspect, &nobody);
    ran.done()
        .tells(&[&format!("taking commit {FIRST} from the cache")]);
    fs::remove_file(home.path(format!(
        "hf/hub/models--acme--llm/snapshots/{FIRST}/model.safetensors"
    )))
    .expect("a link");
    server
        .run_with(&home, inspect, &offline)
        .failed_with(1, &["lacks model.safetensors"]);
}

#[test]
fn a_run_records_the_commit_and_goes_on_with_it() {
    let (home, server) = published();
    let config = without_tokenizer(TINY).replace("dir = \"run\"", "dir = \"begun\"");
    let config = config.replace("[model.llm]\n", "[model.llm]\npath = \"hf:acme/llm\"\n");
    home.write("hub.toml", &config);
    let train = |more: &str| {
        let words = format!("train hub.toml --set eval.baselines=[\"zero_shot\"] {more}");
        server.run(&home, words)
    };
    train("--set train.max_steps=2").done();
    let written = home.read("begun/config.toml");
    assert!(
        written.contains(&format!("path = \"hf:acme/llm@{FIRST}\"")),
        "{written}"
    );
    // The branch moves on; the run does not.
    server.state().head = SECOND.into();
    server.asked();
    train("--set train.max_steps=4 --resume").done();
    let asked = server.asked();
    assert!(
        asked.iter().all(|asked| asked.path.contains(FIRST)),
        "{asked:?}"
    );
    assert!(home.read("begun/config.toml").contains(FIRST));
    // Another revision than the run's is another model.
    let other = format!("model.llm.path=hf:acme/llm@{SECOND}");
    train(&format!("--set train.max_steps=6 --set {other} --resume"))
        .failed_with(1, &["other settings of the model", SECOND]);
    // The rest of the table does not need what the run began with.
    fs::remove_dir_all(home.path("hf")).expect("the cache");
    let offline = [("HF_HUB_OFFLINE", "1")];
    let ran = server.run_with(&home, "eval begun --json", &offline);
    assert!(
        ran.done().json()["left_out"]["zero_shot"]
            .as_str()
            .expect("a reason")
            .contains("HF_HUB_OFFLINE")
    );
}

#[test]
fn a_tokenizer_alone_brings_no_weights() {
    let (home, server) = published();
    let config = without_tokenizer(TINY).replace("dir = \"run\"", "dir = \"other\"");
    home.write(
        "hub.toml",
        config + "\n[tokenizer]\npath = \"hf:acme/llm\"\n",
    );
    let words = "train hub.toml --set train.max_steps=1 --set eval.baselines=[]";
    server.run(&home, words).done();
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(
        !asked.iter().any(|asked| asked.path.contains("safetensors")),
        "{asked:?}"
    );
}

#[test]
fn what_a_variant_does_not_read_is_not_asked_for() {
    let (home, server) = published();
    home.write("hub.toml", TINY);
    let words = "train hub.toml --overwrite --set run.dir=blind --set train.max_steps=1 --set eval.baselines=[] \
        --set model.vision.path=hf:acme/nowhere --set model.variant=";
    server.run(&home, format!("{words}text")).done();
    // Without visual tokens there is no connector either, on the Hub or here.
    let words_of = |key: &str, path: &str| {
        words.replace(
            "model.vision.path=hf:acme/nowhere",
            &format!("{key}={path}"),
        )
    };
    for (key, variant) in [
        ("model.connector.path", "latefusion"),
        ("model.vision.path", "text"),
    ] {
        for path in ["hf:acme/nowhere", "nowhere"] {
            let words = words_of(key, path);
            server.run(&home, format!("{words}{variant}")).done();
        }
    }
    assert_eq!(server.asked().len(), 0);
    let sees = server.run(&home, format!("{words}latefusion"));
    sees.failed_with(1, &["model.vision.path", "hf:acme/nowhere"]);
}

#[test]
fn a_config_with_a_malformed_name_is_refused_with_its_line() {
    let home = Home::with_config();
    home.write(
        "bad.toml",
        "[model.llm]\npath = \"hf:gpt2\"\n[model.vision]\npath = \"hf:a/b@../x\"\n",
    );
    let words = [
        "bad.toml:2:1",
        "`hf:gpt2` is not a name on the Hub",
        "bad.toml:4:1",
        "2 errors",
    ];
    home.refused("train bad.toml", &words);
}

#[test]
fn paths_that_are_not_there_are_named_by_their_keys_at_once() {
    let home = Home::with_config();
    for (key, holds) in [
        ("model.path", "mlrm.toml"),
        ("model.checkpoint", "config.json"),
        ("model.llm.path", "config.json"),
        ("model.connector.path", "config.json"),
        ("model.llm.lora.path", "adapter_config.json"),
    ] {
        let named = format!("{key} = \"nowhere\": it is not there");
        home.refused(
            format!("train tiny.toml --set {key}=nowhere"),
            &[&named, holds, "hf:owner/name"],
        );
    }
    let both = "train tiny.toml --set model.llm.path=a --set model.vision.path=b";
    home.refused(
        both,
        &["model.llm.path = \"a\"", "model.vision.path = \"b\""],
    );
}
