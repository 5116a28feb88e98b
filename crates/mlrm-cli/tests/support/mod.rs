//! The real `mlrm` binary in a folder of its own, with a run small enough to train in a second.

// Every test file uses a part of this.
#![allow(dead_code, unused_imports)]

#[path = "../../../../tests/skipped.rs"]
mod skipped;

pub use skipped::skipped;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test: the one that `MLRM_TEST_BINARY` names, such as a release build with GPU
/// backends, or the one that these tests were built with.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("MLRM_TEST_BINARY").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_mlrm").into())
}

/// A whole NoteLLM-2 (every part is there) of 70 thousand parameters on 80 drawn notes.
pub const TINY: &str = r#"
[run]
dir = "run"
seed = 1

[data]
source = "synth"
root = "data"

[data.synth]
notes = 80
users = 200
events_per_user = 12
image_pixels = 32

[data.pairs]
weight = "cosine"
min_users = 2
test_fraction = 0.25
validation_fraction = 0.2
test_targets = "all"

[prompt]
content_chars = 40
topics = 3

[tokenizer]
train_vocab_size = 300

[model]
variant = "notellm2"

[model.llm]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 64

[model.vision]
hidden_size = 24
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 48
image_size = 32
patch_size = 16

[model.connector]
queries = 2
layers = 1
hidden_size = 32
num_attention_heads = 2
intermediate_size = 64
query_init_std = 0.02

[model.head]
dim = 16

[train]
batch_pairs = 8
max_steps = 6
learning_rate = 1e-3
eval_every_steps = 3
save_every_steps = 3
saliency_every_steps = 3
saliency_notes = 4
"#;

/// A config whose tokenizer is the one beside `model.llm.path`.
pub fn without_tokenizer(config: &str) -> String {
    let section = "[tokenizer]\ntrain_vocab_size = 300\n";
    assert!(config.contains(section));
    config.replace(section, "")
}

/// The code blocks of a language in a page of the guide, without their indentation.
pub fn printed(page: &str, language: &str) -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src");
    let text = fs::read_to_string(guide.join(page)).expect("a page");
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    let body = |block: &str| block.split("```").next().unwrap_or_default().to_owned();
    blocks
        .map(|block| {
            body(block)
                .lines()
                .map(|line| format!("{}\n", line.trim()))
                .collect()
        })
        .collect()
}

/// The Python that `MLRM_PYTHON` names, or `python3`, where it has these packages; otherwise `None`, with a
/// notice that `test` did not run for want of `tool`.
pub fn python_with(test: &str, tool: &str, packages: &str) -> Option<String> {
    let python = std::env::var("MLRM_PYTHON").unwrap_or_else(|_| "python3".into());
    let imports = format!("import {packages}");
    let found = Command::new(&python).args(["-c", &imports]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let why = format!(
        "`{python}` lacks one of {packages}; set MLRM_PYTHON to a Python that has them all"
    );
    skipped(test, tool, &why);
    None
}

/// The golden cases of the repository.
pub fn golden_cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cases")
}

/// The folders of language models and vision encoders in golden cases.
pub fn golden_parts() -> Vec<PathBuf> {
    let cases = fs::read_dir(golden_cases()).expect("golden cases");
    let cases = cases.map(|case| case.expect("an entry").path());
    let parts = cases.flat_map(|case| ["llm", "vision"].map(|part| case.join(part)));
    let mut parts: Vec<PathBuf> = parts
        .filter(|part| part.join("model.safetensors").is_file())
        .collect();
    parts.sort();
    assert!(parts.len() >= 17, "{parts:?}");
    parts
}

/// Every file below a folder, links followed.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Every safetensors file (weights and moments) in these folders of `root`, by its place below it.
pub fn weights_below(root: &Path, folders: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = folders
        .iter()
        .flat_map(|name| files_below(&root.join(name)));
    let weights = files.filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("a file");
        (path.strip_prefix(root).expect("below").to_owned(), bytes)
    };
    weights.map(read).collect()
}

/// A folder in which the binary runs, removed with the test.
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// An empty folder.
    pub fn empty() -> Self {
        Self {
            folder: TempDir::new().expect("a temporary folder"),
        }
    }

    /// With the config [`TINY`] in `tiny.toml`.
    pub fn with_config() -> Self {
        let home = Self::empty();
        home.write("tiny.toml", TINY);
        home
    }

    /// With the drawn notes in `data/`, as a user's own files, and a config `folder.toml` that
    /// reads them.
    pub fn with_notes() -> Self {
        let home = Self::with_config();
        home.mlrm(SYNTH).done();
        fs::remove_file(home.path("data/synth.json")).expect("the mark of a drawn set");
        let (head, rest) = TINY.split_once("[data.synth]").expect("a section");
        let (_, tail) = rest.split_once("[data.pairs]").expect("a section");
        let folder = format!("{head}[data.pairs]{tail}").replace("\"synth\"", "\"folder\"");
        home.write("folder.toml", &folder);
        home
    }

    /// With a run of two steps in `run/`, its data in `data/`.
    pub fn trained() -> Self {
        let home = Self::with_config();
        home.train("run", "train.max_steps=2 eval.baselines=[]")
            .done();
        home
    }

    /// Trains `tiny.toml` into the folder `run` with these overrides.
    #[track_caller]
    pub fn train(&self, run: &str, overrides: impl Words) -> Ran {
        self.mlrm(training("tiny.toml", run, overrides))
    }

    /// Embeds the notes of `data/` by a model, and gives the file.
    #[track_caller]
    pub fn embed(&self, model: &str, out: &str) -> Vec<u8> {
        let words = format!("embed {model} --notes data/notes.jsonl --out {out}");
        self.mlrm(words).done();
        fs::read(self.path(out)).expect("embeddings")
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// A file's text.
    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A JSON file.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).expect("JSON")
    }

    /// Changes one line of a text file, counted from 1.
    pub fn edit_line(&self, name: &str, row: usize, edit: impl FnOnce(&str) -> String) {
        let text = self.read(name);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[row - 1] = edit(&lines[row - 1]);
        self.write(name, lines.join("\n") + "\n");
    }

    /// Every file and link in the folder, with the time of its last change.
    pub fn files(&self) -> BTreeMap<PathBuf, std::time::SystemTime> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let entry = entry.expect("an entry");
                // A running process may take it away between the list and the look.
                let kind = match entry.metadata() {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    kind => kind.expect("its kind"),
                };
                if kind.is_dir() {
                    folders.push(entry.path());
                }
                let time = kind.modified().expect("its time");
                if !kind.is_dir() {
                    found.insert(entry.path(), time);
                } else if fs::read_dir(entry.path())
                    .expect("a folder")
                    .next()
                    .is_none()
                {
                    found.insert(entry.path(), std::time::SystemTime::UNIX_EPOCH);
                }
            }
        }
        found
    }

    /// The binary, ready to run here.
    pub fn command(&self, arguments: impl Words) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments.words())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("XDG_CACHE_HOME", self.path(".cache"))
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn mlrm(&self, arguments: impl Words) -> Ran {
        self.ran(&mut self.command(arguments))
    }

    /// Runs `command`, which is the binary's.
    pub fn ran(&self, command: &mut Command) -> Ran {
        let output = command.output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        let ran = Ran {
            words: words.join(" "),
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        assert!(!ran.err.contains("panicked at"), "{ran:?}");
        ran
    }

    /// Runs a command that must fail for a reason of the user's making: exit code 1, every one of
    /// `words` in the message, and not a file made or changed.
    #[track_caller]
    pub fn refused(&self, arguments: impl Words, words: &[&str]) -> Ran {
        let before = self.files();
        let ran = self.mlrm(arguments);
        ran.failed_with(1, words);
        assert_eq!(self.files(), before, "{ran:?}");
        ran
    }
}

/// The words of a command line: as typed, with white space between them, or one by one.
pub trait Words {
    /// Each word of its own.
    fn words(&self) -> Vec<&str>;
}

impl Words for str {
    fn words(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl Words for String {
    fn words(&self) -> Vec<&str> {
        self.as_str().words()
    }
}

impl<const N: usize> Words for [&str; N] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl Words for Vec<&str> {
    fn words(&self) -> Vec<&str> {
        self.clone()
    }
}

impl<T: Words + ?Sized> Words for &T {
    fn words(&self) -> Vec<&str> {
        (**self).words()
    }
}

/// `--set` before each override.
pub fn set(overrides: impl Words) -> String {
    let each = overrides.words().into_iter();
    each.map(|set| format!(" --set {set}")).collect()
}

/// The command that trains a config into the folder `run` with these overrides.
pub fn training(config: &str, run: &str, overrides: impl Words) -> String {
    format!("train {config} --set run.dir={run}{}", set(overrides))
}

/// Four steps, a checkpoint after two and at the end.
pub const FOUR: &str = "train.max_steps=4 train.save_every_steps=2 train.eval_every_steps=0 \
                        data.pairs.validation_fraction=0 eval.baselines=[]";

/// Goes on with the run in `run`.
#[track_caller]
pub fn resume(home: &Home, run: &str, more: &str) -> Ran {
    home.mlrm(format!("train {run}/config.toml --resume {more}"))
}

/// Takes a run back to its checkpoint of `step`, as if it had been killed there.
#[cfg(unix)]
pub fn take_back(home: &Home, run: &str, step: usize) {
    let link = home.path(format!("{run}/last"));
    fs::remove_file(&link).expect("a link");
    std::os::unix::fs::symlink(format!("checkpoints/step-{step}"), link).expect("a link");
}

/// Trains in the background and waits for a step.
pub fn train_until(home: &Home, run: &str, sets: impl Words, step: usize) -> Child {
    let mut child = home
        .command(training("tiny.toml", run, sets))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let log = home.path(run).join("events.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    let taken = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.matches("{\"event\":\"train_step\",").count()
    };
    while taken() < step {
        assert!(Instant::now() < deadline, "no step {step} within a minute");
        assert!(
            child.try_wait().expect("a state").is_none(),
            "it ended before step {step}"
        );
        std::thread::sleep(Duration::from_millis(3));
    }
    child
}

/// Sends a signal, such as `-INT`.
#[cfg(unix)]
pub fn signal(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let status = Command::new("kill").args([signal, &id]).status();
    assert!(status.expect("kill runs").success());
}

/// The command that draws the notes of [`TINY`] into `data/`.
pub const SYNTH: &str = "data synth data --notes 80 --users 200 --events-per-user 12 \
                         --image-pixels 32";

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    pub words: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// That it ended well.
    #[track_caller]
    pub fn done(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// That it failed with this code and a message that has all these words.
    #[track_caller]
    pub fn failed_with(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.tells(words)
    }

    /// That its standard error has all these words.
    #[track_caller]
    pub fn tells(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.err.contains(word), "no `{word}` in {self:?}");
        }
        self
    }

    /// That its standard output has all these words.
    #[track_caller]
    pub fn shows(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.out.contains(word), "no `{word}` in {self:?}");
        }
        self
    }

    /// Its standard output, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The events of a run, every line parsed.
#[track_caller]
pub fn events(home: &Home, run: &str) -> Vec<Value> {
    let text = home.read(format!("{run}/events.jsonl"));
    assert!(text.ends_with('\n'), "a torn last line");
    let parse = |line: &str| {
        assert!(line.starts_with("{\"event\":\""), "{line}");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    text.lines().map(parse).collect()
}

/// The events of one name.
pub fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["event"] == name)
        .collect()
}

/// The last event, which is the run's end for this reason.
#[track_caller]
pub fn end<'a>(events: &'a [Value], reason: &str) -> &'a Value {
    let end = events.last().expect("events");
    assert!(
        end["event"] == "run_ended" && end["reason"] == reason,
        "{end}"
    );
    end
}

/// What is warned of in these words.
pub fn warned<'a>(events: &'a [Value], words: &str) -> Vec<&'a str> {
    named(events, "warning")
        .iter()
        .map(|warning| warning["message"].as_str().expect("a message"))
        .filter(|message| message.contains(words))
        .collect()
}

/// Step → its losses, gradient norm and temperature, spelt as in the log. Numbers in the log
/// round-trip exactly, so equal text is equal bits. A step that a killed run logged and its
/// successor repeated must be the same both times.
#[track_caller]
pub fn losses(events: &[Value]) -> BTreeMap<u64, String> {
    const NUMBERS: [&str; 5] = [
        "loss",
        "loss_multimodal",
        "loss_visual",
        "gradient_norm",
        "temperature_logit",
    ];
    let mut steps = BTreeMap::new();
    for event in named(events, "train_step") {
        let step = event["step"].as_u64().expect("a step");
        let text = NUMBERS.map(|name| event[name].to_string()).join(" ");
        if let Some(earlier) = steps.insert(step, text.clone()) {
            assert_eq!(earlier, text, "step {step} was repeated with other numbers");
        }
    }
    steps
}
