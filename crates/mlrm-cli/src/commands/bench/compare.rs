//! Ratios to an earlier measurement.

use std::path::{Path, PathBuf};

use miette::miette;
use serde::Serialize;
use serde_json::{Map, Value};

use super::not_a_measurement;

/// Fields that are no figures: what was measured, and how often.
const CIRCUMSTANCES: [&str; 5] = ["what", "device", "dtype", "shape", "runs"];

const SPREAD: &str = "spread";

/// An earlier run's JSON.
pub(super) struct Earlier {
    path: PathBuf,
    fields: Map<String, Value>,
}

/// This run beside an earlier one.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// The earlier run's file.
    pub(super) file: PathBuf,
    /// Figure → this run's over the earlier one's.
    pub(super) ratios: Map<String, Value>,
    /// Circumstances in which the two differ: `shape.pairs: 8, was 16`.
    pub(super) differs: Vec<String>,
}

impl Earlier {
    /// Reads a measurement of the same kind.
    pub(super) fn read(path: &Path, what: &str) -> miette::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| miette!("cannot read {}: {error}", path.display()))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|error| not_a_measurement(path, &format!("not JSON ({error})")))?;
        let Value::Object(fields) = json else {
            return Err(not_a_measurement(path, "not a JSON object"));
        };
        match fields.get("what").and_then(Value::as_str) {
            Some(found) if found == what => Ok(Self {
                path: path.to_owned(),
                fields,
            }),
            Some(found) => Err(miette!(
                "{} is of `mlrm bench {found}`, this is `mlrm bench {what}`: their figures cannot be \
                 compared",
                path.display()
            )),
            None => Err(not_a_measurement(path, "it has no `what`")),
        }
    }

    /// `now` beside this.
    pub(super) fn compare(&self, now: &Value) -> Comparison {
        let (mut ratios, mut differs) = (Map::new(), Vec::new());
        let before = Value::Object(self.fields.clone());
        for (key, value) in leaves(now) {
            let earlier = lookup(&before, &key);
            if is_circumstance(&key) {
                if earlier != Some(&value) {
                    let was = earlier.map_or("absent".into(), Value::to_string);
                    differs.push(format!("{key}: {value}, was {was}"));
                }
            } else if key == SPREAD {
                // Noise over noise.
                continue;
            } else if let Some(ratio) = ratio(&value, earlier) {
                ratios.insert(key, ratio.into());
            }
        }
        Comparison {
            file: self.path.clone(),
            ratios,
            differs,
        }
    }
}

fn is_circumstance(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or(key);
    CIRCUMSTANCES.contains(&first)
}

/// `None` where either is no number, or the earlier one is 0.
fn ratio(now: &Value, earlier: Option<&Value>) -> Option<f64> {
    let ratio = now.as_f64()? / earlier?.as_f64()?;
    ratio.is_finite().then_some(ratio)
}

/// Every field that holds no other fields, by its dotted path.
fn leaves(json: &Value) -> Vec<(String, Value)> {
    let Value::Object(fields) = json else {
        return Vec::new();
    };
    let below = |(key, value): (&String, &Value)| match value {
        Value::Object(_) => leaves(value)
            .into_iter()
            .map(|(rest, value)| (format!("{key}.{rest}"), value))
            .collect(),
        _ => vec![(key.clone(), value.clone())],
    };
    fields.iter().flat_map(below).collect()
}

fn lookup<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(json, |json, name| json.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_divided_and_circumstances_compared() {
        let Value::Object(fields) = json!({
            "what": "train", "dtype": "f32", "shape": {"pairs": 16}, "runs": 5,
            "notes_per_second": 8.0, "seconds_by_phase": {"vision": 0.5, "forward": 2.0},
            "peak_device_bytes": null, "mfu": 0.0, "spread": 0.1,
        }) else {
            panic!("an object");
        };
        let earlier = Earlier {
            path: "before.json".into(),
            fields,
        };
        let comparison = earlier.compare(&json!({
            "what": "train", "dtype": "bf16", "shape": {"pairs": 16, "notes": 32}, "runs": 5,
            "notes_per_second": 10.0, "seconds_by_phase": {"vision": 0.25, "connector": 0.1},
            "peak_device_bytes": 4, "mfu": 0.5, "spread": 0.2,
        }));
        assert_eq!(
            Value::Object(comparison.ratios),
            json!({"notes_per_second": 1.25, "seconds_by_phase.vision": 0.5})
        );
        assert_eq!(
            comparison.differs,
            [r#"dtype: "bf16", was "f32""#, "shape.notes: 32, was absent"]
        );
    }
}
