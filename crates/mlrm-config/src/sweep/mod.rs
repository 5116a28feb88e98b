//! A sweep: one base config, axes of settings, seeds; their product is the runs.

mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Table;

use crate::RunConfig;
use crate::error::{ConfigError, Finding};
use crate::load::LoadedConfig;
use read::Reader;

/// A sweep as its TOML file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// The config that every run starts from.
    pub base: PathBuf,
    /// The folder of all runs.
    pub dir: PathBuf,
    /// A run of every combination for each of these.
    pub seeds: Vec<u64>,
    /// Overrides of all runs, as in `--set`.
    pub set: Vec<String>,
    /// The metric that tells the best row, and that curves show.
    pub metric: Option<String>,
    /// The columns of the table.
    pub metrics: Vec<String>,
    /// The row that others are compared with; the best one where none is named.
    pub reference: Option<String>,
    /// What is varied, the first slowest.
    pub axes: Vec<Axis>,
}

/// One thing that is varied.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// The key, or the name of the axis of named groups.
    pub name: String,
    /// Its points, in order.
    pub points: Vec<Point>,
}

/// A point of an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// How rows and folders name it: `micl`, `batch_pairs=64`.
    pub label: String,
    /// Its overrides.
    pub set: Vec<String>,
    /// Its place on a numeric axis.
    pub number: Option<f64>,
}

/// A run of a sweep.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The points it is at, joined: the row of the table.
    pub row: String,
    /// Index of the point on every axis.
    pub points: Vec<usize>,
    /// Its seed.
    pub seed: u64,
    /// All overrides, `run.dir` and `run.seed` among them.
    pub overrides: Vec<String>,
    /// Its checked config.
    pub loaded: LoadedConfig,
}

impl Cell {
    /// The run folder.
    pub fn dir(&self) -> &Path {
        &self.loaded.config.run.dir
    }

    /// How the cell is spoken of.
    pub fn name(&self) -> String {
        format!("{} seed {}", self.row, self.seed)
    }
}

/// What of a sweep the command line replaces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SweepOverrides {
    /// Overrides of all runs, over those of the file.
    pub set: Vec<String>,
    /// Another config to start from, relative to the current folder.
    pub base: Option<PathBuf>,
    /// Another folder.
    pub dir: Option<PathBuf>,
    /// Other seeds.
    pub seeds: Option<Vec<u64>>,
}

impl Sweep {
    /// Reads a sweep; `base` is relative to the file's folder.
    ///
    /// # Errors
    /// A file that cannot be read, or everything that is wrong in it.
    pub fn load(path: &Path, overrides: &SweepOverrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut reader = Reader {
            path,
            findings: Vec::new(),
        };
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                reader.find("", error.to_string().trim_end(), "correct the TOML");
                return Err(ConfigError::Invalid(reader.findings));
            }
        };
        let mut sweep = reader.sweep(&table);
        sweep.set.extend(overrides.set.iter().cloned());
        if let Some(base) = &overrides.base {
            sweep.base.clone_from(base);
        }
        if let Some(dir) = &overrides.dir {
            sweep.dir.clone_from(dir);
        }
        if let Some(seeds) = &overrides.seeds {
            sweep.seeds.clone_from(seeds);
        }
        sweep.check(&mut reader);
        match reader.findings.is_empty() {
            true => Ok(sweep),
            false => Err(ConfigError::Invalid(reader.findings)),
        }
    }

    /// What the file says that contradicts itself.
    fn check(&self, reader: &mut Reader<'_>) {
        let mut seen = BTreeSet::new();
        for seed in self.seeds.iter().filter(|seed| !seen.insert(**seed)) {
            let message = format!("the seed {seed} stands there twice: two runs in one folder");
            reader.find("seeds", &message, "name each seed once");
        }
        let fixed = self.set.iter().map(|set| ("`set` or `--set`", set));
        let varied = self.axes.iter().flat_map(|axis| {
            let keys: BTreeMap<&str, &String> = axis
                .points
                .iter()
                .flat_map(|point| &point.set)
                .map(|set| (key_of(set), set))
                .collect();
            keys.into_values().map(|set| (axis.name.as_str(), set))
        });
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (owner, set) in fixed.chain(varied) {
            let key = key_of(set);
            if key == "run.dir" || key == "run.seed" {
                let message = format!("{owner} sets `{key}`, which the sweep gives every run");
                reader.find("set", &message, "use `dir` and `seeds`");
            } else if let Some(other_owner) =
                owners.insert(key, owner).filter(|other| *other != owner)
            {
                let message = format!("`{key}` is set by {other_owner} and by {owner}");
                reader.find("axes", &message, "let one of them set it");
            }
        }
        let mut folders = BTreeMap::new();
        for points in self.combinations() {
            let row = self.row(&points);
            if let Some(other) = folders.insert(folder_name(&row), row.clone()) {
                let message = format!("`{other}` and `{row}` would be two cells with one folder");
                reader.find("axes", &message, "give them other names");
            }
        }
        let rows: Vec<&String> = folders.values().collect();
        if let Some(reference) = &self.reference
            && !rows.contains(&reference)
        {
            let rows: Vec<String> = rows.iter().map(|row| format!("`{row}`")).collect();
            let message = format!("there is no row `{reference}`");
            reader.find(
                "reference",
                &message,
                &format!("rows are {}", rows.join(", ")),
            );
        }
    }

    /// Indices of points, one an axis, the last axis fastest.
    fn combinations(&self) -> Vec<Vec<usize>> {
        self.axes.iter().fold(vec![Vec::new()], |before, axis| {
            let with = |start: Vec<usize>| {
                (0..axis.points.len()).map(move |point| {
                    let mut all = start.clone();
                    all.push(point);
                    all
                })
            };
            before.into_iter().flat_map(with).collect()
        })
    }

    fn row(&self, points: &[usize]) -> String {
        let labels = self.axes.iter().zip(points);
        let labels = labels.map(|(axis, &point)| axis.points[point].label.as_str());
        let row = labels.collect::<Vec<_>>().join(", ");
        if row.is_empty() { "base".into() } else { row }
    }

    /// All runs, each with its checked config.
    ///
    /// # Errors
    /// Everything that is wrong with any of their configs, each once.
    pub fn cells(&self) -> Result<Vec<Cell>, ConfigError> {
        let mut cells = Vec::new();
        let mut findings: Vec<Finding> = Vec::new();
        let mut said = BTreeSet::new();
        for points in self.combinations() {
            let row = self.row(&points);
            for &seed in &self.seeds {
                let mut overrides = self.set.clone();
                for (axis, &point) in self.axes.iter().zip(&points) {
                    overrides.extend(axis.points[point].set.iter().cloned());
                }
                let dir = self
                    .dir
                    .join(folder_name(&row))
                    .join(format!("seed-{seed}"));
                overrides.push(format!("run.dir={}", dir.display()));
                overrides.push(format!("run.seed={seed}"));
                match RunConfig::load_with_places(&self.base, &overrides) {
                    Ok(loaded) => cells.push(Cell {
                        row: row.clone(),
                        points: points.clone(),
                        seed,
                        overrides,
                        loaded,
                    }),
                    Err(ConfigError::Invalid(found)) => {
                        // What is wrong with all of them is said once.
                        for mut finding in found {
                            if said.insert((finding.key.clone(), finding.message.clone())) {
                                finding.message = format!("{row}: {}", finding.message);
                                findings.push(finding);
                            }
                        }
                    }
                    Err(unreadable) => return Err(unreadable),
                }
            }
        }
        match findings.is_empty() {
            true => Ok(cells),
            false => Err(ConfigError::Invalid(findings)),
        }
    }
}

fn key_of(set: &str) -> &str {
    set.split_once('=').map_or(set, |(key, _)| key).trim()
}

/// A row as the name of a folder.
fn folder_name(row: &str) -> String {
    let plain = |letter: char| match letter {
        letter if letter.is_alphanumeric() || "._=+-,".contains(letter) => letter,
        _ => '_',
    };
    row.replace(", ", ",").chars().map(plain).collect()
}
