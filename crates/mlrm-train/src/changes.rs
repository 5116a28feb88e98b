//! Which settings of a run may change when it goes on or is measured again, and which change what it
//! means.

use mlrm_config::RunConfig;
use serde_json::Value;

use crate::error::TrainError;

/// Settings that a checkpoint brings itself: another value would be read by nobody.
const BROUGHT: [&str; 3] = ["model", "prompt", "tokenizer"];

/// Settings that may change, and are only told of: they say how training goes on from here.
const TOLD: [&str; 14] = [
    "backend.reduce_dtype",
    "model.llm.tune",
    "model.llm.quantisation",
    "model.llm.lora.dropout",
    "train.merge_duplicates",
    "train.learning_rate",
    "train.connector_learning_rate",
    "train.head_learning_rate",
    "train.warmup_ratio",
    "train.schedule",
    "train.max_steps",
    "train.epochs",
    "train.eval_every_steps",
    "train.feature_cache_dtype",
];

/// Settings that change nothing of what is learnt. Where the data lies is not asked: what it holds is
/// compared by itself.
const FREE: [&str; 32] = [
    "run.dir",
    "backend.device",
    "backend.max_memory_bytes",
    "data.root",
    "data.notes",
    "data.interactions",
    "data.pairs_file",
    "data.images",
    "data.image_cache_max_bytes",
    "data.source",
    "data.synth",
    "data.loader_threads",
    "data.prefetch_batches",
    "model.allow_nan",
    "train.micro_batch_notes",
    "train.checkpoint_layers",
    "train.feature_cache",
    "train.feature_cache_max_bytes",
    "train.save_every_steps",
    "train.save_every_minutes",
    "train.keep_checkpoints",
    "train.saliency_every_steps",
    "train.saliency_notes",
    "train.saliency_max_ratio",
    "train.probe_every_steps",
    "train.probe_notes",
    "train.log_every_steps",
    "train.tensorboard",
    "eval.slices",
    "eval.baselines",
    "eval.batch_notes",
    "dashboard",
];

/// A setting, or a part of the data, that is not what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key: `run.seed`.
    pub key: String,
    /// `is 1 there and 2 here`.
    pub difference: String,
}

/// What differs between the settings that a run was begun with and those that it is to go on with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Of what a checkpoint brings itself.
    pub brought: Vec<Change>,
    /// Of what is learnt or measured.
    pub refused: Vec<Change>,
    /// Of how it goes on.
    pub told: Vec<Change>,
}

impl Changes {
    /// The differences between `earlier` and `now` for a run that goes on.
    ///
    /// # Errors
    /// Settings that cannot be compared.
    pub fn of_run(earlier: &RunConfig, now: &RunConfig) -> Result<Self, TrainError> {
        let mut changes = Self::default();
        // A start from a whole model folder leaves the sections of its parts unread.
        let start = &now.model.path;
        let unread = start.is_some() && *start == earlier.model.path;
        for change in differences(earlier, now)? {
            let key = change.key.as_str();
            if is_among(key, &TOLD) {
                changes.told.push(change);
            } else if is_among(key, &FREE) || (unread && is_among(key, &BROUGHT)) {
                continue;
            } else if is_among(key, &BROUGHT) {
                changes.brought.push(change);
            } else {
                changes.refused.push(change);
            }
        }
        Ok(changes)
    }

    /// The differences that make a finished run's test notes others than it held out.
    ///
    /// # Errors
    /// Settings that cannot be compared.
    pub fn of_split(earlier: &RunConfig, now: &RunConfig) -> Result<Self, TrainError> {
        let mut refused = differences(earlier, now)?;
        refused.retain(|change| {
            let key = change.key.as_str();
            is_among(key, &["run.seed", "data"]) && !is_among(key, &FREE)
        });
        Ok(Self {
            refused,
            ..Self::default()
        })
    }

    /// Takes what `accepted` names (a key, or a section of them) out of what is refused, and gives
    /// those keys.
    pub fn accept(&mut self, accepted: &[String]) -> Vec<String> {
        let named = |change: &Change| accepted.iter().any(|name| is_below(&change.key, name));
        let keys = self.refused.iter().filter(|change| named(change));
        let keys = keys.map(|change| change.key.clone()).collect();
        let (taken, refused) = self.refused.drain(..).partition(named);
        self.refused = refused;
        self.told.extend::<Vec<Change>>(taken);
        keys
    }
}

/// Refuses names that are no setting and no section of settings.
///
/// # Errors
/// Names the first of them.
pub fn check_names(accepted: &[String]) -> Result<(), TrainError> {
    let known = leaves(&RunConfig::default())?;
    for name in accepted {
        if !known.iter().any(|(key, _)| is_below(key, name)) {
            return Err(TrainError::Refused(format!(
                "--accept-change {name}: there is no such setting; name one that the message on the \
                 change names, such as run.seed or data.notes, or a section of them"
            )));
        }
    }
    Ok(())
}

/// `run.seed is 1 there and 2 here; …`.
pub fn listed(changes: &[Change]) -> String {
    let all = changes
        .iter()
        .map(|Change { key, difference }| format!("{key} {difference}"));
    all.collect::<Vec<_>>().join("; ")
}

/// `--accept-change run.seed --accept-change data.pairs.split`.
pub fn flags(changes: &[Change]) -> String {
    let all = changes
        .iter()
        .map(|change| format!("--accept-change {}", change.key));
    all.collect::<Vec<_>>().join(" ")
}

fn is_among(key: &str, names: &[&str]) -> bool {
    names.iter().any(|name| is_below(key, name))
}

/// Whether `key` is `name` or in the section `name`.
fn is_below(key: &str, name: &str) -> bool {
    let rest = key.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn differences(earlier: &RunConfig, now: &RunConfig) -> Result<Vec<Change>, TrainError> {
    let earlier = leaves(earlier)?;
    let now = leaves(now)?;
    let value = |all: &[(String, Value)], key: &str| {
        let found = all.iter().find(|(other, _)| other == key);
        found.map_or(Value::Null, |(_, value)| value.clone())
    };
    let mut keys: Vec<&String> = now.iter().map(|(key, _)| key).collect();
    keys.extend(earlier.iter().map(|(key, _)| key));
    let mut found: Vec<Change> = Vec::new();
    for key in keys {
        let (there, here) = (value(&earlier, key), value(&now, key));
        if there != here && !found.iter().any(|change| change.key == *key) {
            found.push(Change {
                key: key.clone(),
                difference: format!("is {} there and {} here", shown(&there), shown(&here)),
            });
        }
    }
    Ok(found)
}

/// Every setting with its dotted key.
fn leaves(config: &RunConfig) -> Result<Vec<(String, Value)>, TrainError> {
    fn walk(prefix: &str, value: Value, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let key = match prefix {
                        "" => name,
                        prefix => format!("{prefix}.{name}"),
                    };
                    walk(&key, value, found);
                }
            }
            value => found.push((prefix.to_owned(), value)),
        }
    }
    let value = serde_json::to_value(config)
        .map_err(|e| TrainError::Refused(format!("the settings cannot be compared: {e}")))?;
    let mut found = Vec::new();
    walk("", value, &mut found);
    Ok(found)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use mlrm_config::{ExifOrientation, OnImageProblem, Ties, TimeUnit};

    use super::*;

    fn keys(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn what_a_run_learns_is_refused_and_how_it_goes_on_is_told() {
        let earlier = RunConfig::default();
        let mut now = earlier.clone();
        now.run.seed = 2;
        now.run.dir = "elsewhere".into();
        now.data.root = "moved".into();
        now.data.pairs.test_fraction += 0.1;
        now.objective.multimodal_weight = 1.0;
        now.train.betas = [0.8, 0.9];
        now.train.batch_pairs = 17;
        now.train.max_steps = Some(7);
        now.train.log_every_steps = 3;
        now.model.head.dim = 7;
        let mut changes = Changes::of_run(&earlier, &now).unwrap();
        let refused = [
            "run.seed",
            "data.pairs.test_fraction",
            "objective.multimodal_weight",
            "train.batch_pairs",
            "train.betas",
        ];
        assert_eq!(keys(&changes.refused), refused);
        assert_eq!(keys(&changes.told), ["train.max_steps"]);
        assert_eq!(keys(&changes.brought), ["model.head.dim"]);
        let text = listed(&changes.refused[..1]);
        assert_eq!(text, "run.seed is 0 there and 2 here");

        let accepted = ["run.seed", "train"].map(str::to_owned);
        let taken = changes.accept(&accepted);
        assert_eq!(taken, ["run.seed", "train.batch_pairs", "train.betas"]);
        let left = ["data.pairs.test_fraction", "objective.multimodal_weight"];
        assert_eq!(keys(&changes.refused), left);

        let split = Changes::of_split(&earlier, &now).unwrap();
        assert_eq!(
            keys(&split.refused),
            ["run.seed", "data.pairs.test_fraction"]
        );
        assert!(Changes::of_run(&now, &now).unwrap() == Changes::default());
    }

    /// They decide which pixels, pairs and notes are learnt from.
    #[test]
    fn how_pictures_and_times_are_read_is_refused() {
        let earlier = RunConfig::default();
        let mut now = earlier.clone();
        now.data.time_unit = TimeUnit::S;
        now.data.on_missing_image = OnImageProblem::Text;
        now.data.on_bad_image = OnImageProblem::Drop;
        now.data.exif_orientation = ExifOrientation::Apply;
        now.data.max_image_bytes += 1;
        now.data.max_image_pixels += 1;
        now.data.pairs.ties = Ties::Both;
        let mut found = Changes::of_run(&earlier, &now).unwrap();
        assert!(found.told.is_empty() && found.brought.is_empty());
        found.refused.sort_by(|a, b| a.key.cmp(&b.key));
        let expected = [
            "data.exif_orientation",
            "data.max_image_bytes",
            "data.max_image_pixels",
            "data.on_bad_image",
            "data.on_missing_image",
            "data.pairs.ties",
            "data.time_unit",
        ];
        assert_eq!(keys(&found.refused), expected);
        assert_eq!(Changes::of_split(&earlier, &now).unwrap().refused.len(), 7);
    }

    #[test]
    fn an_accepted_name_must_be_a_setting() {
        let name = |name: &str| check_names(&[name.to_owned()]);
        name("run.seed").unwrap();
        name("data.pairs").unwrap();
        name("data.images").unwrap();
        let message = name("run.sead").unwrap_err().to_string();
        assert!(message.contains("--accept-change run.sead"), "{message}");
    }
}
