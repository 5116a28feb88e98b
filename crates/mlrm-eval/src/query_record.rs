//! What every query got, kept beside a table's means.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::metrics::{Metric, all_notes, per_query};
use crate::rank::Ranks;
use crate::task::Task;

/// Metric → one value a query.
pub type QueryMetrics = IndexMap<String, Vec<f64>>;

/// The metrics of a run and its baselines query by query, so that runs on the same queries can be
/// compared in pairs. A run keeps it as `queries.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// Ids of the queries, in the order of the values.
    pub queries: Vec<String>,
    /// Model → metric → one value a query; the run's own model first.
    pub models: IndexMap<String, QueryMetrics>,
}

impl QueryRecord {
    /// The queries of a task, without values.
    pub fn of(task: &Task) -> Self {
        let id = |row: u32| task.ids()[row as usize].clone();
        Self {
            queries: task.queries().iter().map(|query| id(query.row)).collect(),
            models: IndexMap::new(),
        }
    }

    /// Adds the values of a ranking of that task.
    ///
    /// # Errors
    /// If a cut-off is 0.
    pub fn add(&mut self, name: &str, ranks: &Ranks, cutoffs: &[usize]) -> Result<(), Error> {
        let all = all_notes();
        let columns = Metric::all(cutoffs)?
            .into_iter()
            .map(|metric| Ok((metric.name(), per_query(ranks, &all, metric)?)))
            .collect::<Result<_, Error>>()?;
        self.models.insert(name.to_owned(), columns);
        Ok(())
    }
}
