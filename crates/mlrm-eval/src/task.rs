//! What is asked of a ranking: queries, their relevant notes, and the pool they are looked for in.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::Error;
use crate::order::{IdOrder, rows_by_id};

/// A query note and the notes that should rank high for it, as rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The query note.
    pub row: u32,
    /// Notes relevant to it.
    pub relevant: Vec<u32>,
}

/// Which notes are relevant to which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relevance {
    /// Queries; a note may stand in several entries, whose relevant notes then add up.
    pub queries: Vec<Query>,
    /// Pairs left out because one of their ids has no embedding.
    pub unknown_pairs: usize,
}

impl Relevance {
    /// Reads (query id, relevant id) pairs; ids that are not among `ids` are left out and counted.
    pub fn from_pairs<'a>(
        ids: &[String],
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let rows = rows_by_id(ids);
        let mut relevant: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut unknown_pairs = 0;
        for (query, target) in pairs {
            match (rows.get(query), rows.get(target)) {
                (Some(&query), Some(&target)) => relevant.entry(query).or_default().push(target),
                _ => unknown_pairs += 1,
            }
        }
        let queries = relevant.into_iter();
        Self {
            queries: queries
                .map(|(row, relevant)| Query { row, relevant })
                .collect(),
            unknown_pairs,
        }
    }
}

/// A retrieval task: what every row of a results table is measured on.
///
/// For a query the candidates are all notes of the pool except the query itself, ordered by score,
/// descending; equal scores by id, ascending ([`IdOrder`]). Queries without a relevant candidate
/// are not part of the task.
#[derive(Debug, Clone)]
pub struct Task {
    ids: Vec<String>,
    order: IdOrder,
    /// Rows of the pool, ascending.
    pool: Vec<u32>,
    in_pool: Vec<bool>,
    /// Ascending by row; relevant rows ascending, unique, in the pool, never the query.
    queries: Vec<Query>,
}

impl Task {
    /// Every query ranks all notes of `ids` but itself (method §6).
    ///
    /// # Errors
    /// If `relevance` speaks of rows that `ids` does not have.
    pub fn all_pairs(ids: &[String], relevance: &Relevance) -> Result<Self, Error> {
        Self::new(ids, relevance, vec![true; ids.len()])
    }

    /// The query, target and pool selection of the authors' evaluation script.
    ///
    /// A pair is taken if both its notes are among `ids` and neither was used before, as query or
    /// as target: each note is used at most once, the first pair wins, and the order of `pairs`
    /// (file order) matters. The pool is every note that is not the query of *any* taken pair:
    /// targets and unused notes are candidates, other queries are not. A pair of a note with itself
    /// makes the script fail; it is skipped here and uses nothing up.
    ///
    /// # Errors
    /// If there are too many ids.
    pub fn released_protocol<'a>(
        ids: &[String],
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        let rows = rows_by_id(ids);
        let mut used = HashSet::new();
        let mut in_pool = vec![true; ids.len()];
        let mut relevance = Relevance::default();
        for (query, target) in pairs {
            let (Some(&query), Some(&target)) = (rows.get(query), rows.get(target)) else {
                relevance.unknown_pairs += 1;
                continue;
            };
            if query == target || used.contains(&query) || used.contains(&target) {
                continue;
            }
            used.extend([query, target]);
            in_pool[query as usize] = false;
            relevance.queries.push(Query {
                row: query,
                relevant: vec![target],
            });
        }
        Self::new(ids, &relevance, in_pool)
    }

    /// Queries, relevant notes and pool as given; rows outside the pool are never candidates.
    ///
    /// # Errors
    /// If `in_pool` has not one entry for each id, or `relevance` speaks of rows that `ids` does
    /// not have.
    pub fn new(ids: &[String], relevance: &Relevance, in_pool: Vec<bool>) -> Result<Self, Error> {
        let notes = ids.len();
        if u32::try_from(notes).is_err() {
            return Err(Error::TooManyNotes { notes });
        }
        if in_pool.len() != notes {
            return Err(Error::Mismatch {
                what: "notes and pool",
                problem: format!("{notes} notes against {} pool entries", in_pool.len()),
            });
        }
        let mut relevant: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for query in &relevance.queries {
            for row in query.relevant.iter().copied().chain([query.row]) {
                if row as usize >= notes {
                    let row = row as usize;
                    return Err(Error::NoSuchRow { row, notes });
                }
            }
            let candidates = query.relevant.iter().copied();
            relevant
                .entry(query.row)
                .or_default()
                .extend(candidates.filter(|&row| row != query.row && in_pool[row as usize]));
        }
        let queries = relevant
            .into_iter()
            .filter(|(_, relevant)| !relevant.is_empty())
            .map(|(row, relevant)| Query {
                row,
                relevant: relevant.into_iter().collect(),
            })
            .collect();
        Ok(Self {
            ids: ids.to_vec(),
            order: IdOrder::new(ids),
            pool: (0u32..)
                .zip(&in_pool)
                .filter_map(|(row, &member)| member.then_some(row))
                .collect(),
            in_pool,
            queries,
        })
    }

    /// The same task for at most `most` of its queries, drawn by a hash of their ids: the same ones
    /// whenever they are asked for, and most of them also when there are more notes. The pool stays.
    pub fn sampled(mut self, most: usize) -> Self {
        if most < self.queries.len() {
            let hash = |query: &Query| {
                let id = &self.ids[query.row as usize];
                (mixed_hash(id), query.row)
            };
            let mut hashes: Vec<_> = self.queries.iter().map(hash).collect();
            hashes.sort_unstable();
            let drawn: HashSet<u32> = hashes[..most].iter().map(|&(_, row)| row).collect();
            self.queries.retain(|query| drawn.contains(&query.row));
        }
        self
    }

    /// Ids of all notes in row order, pool or not.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// The order that breaks ties.
    pub fn order(&self) -> &IdOrder {
        &self.order
    }

    /// Rows of the pool, ascending.
    pub fn pool(&self) -> &[u32] {
        &self.pool
    }

    /// Evaluated queries, ascending by row.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// Number of candidates of a query: the pool without the query itself.
    pub fn candidates(&self, query: u32) -> usize {
        self.pool.len() - usize::from(self.in_pool[query as usize])
    }

    /// Whether a note is ranked for any query.
    pub fn in_pool(&self, row: u32) -> bool {
        self.in_pool[row as usize]
    }
}

/// FNV-1a, mixed by the finaliser of SplitMix64: fixed for all time, unlike the standard library's hashes.
fn mixed_hash(id: &str) -> u64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|id| id.to_string()).collect()
    }

    fn query(row: u32, relevant: &[u32]) -> Query {
        Query {
            row,
            relevant: relevant.to_vec(),
        }
    }

    #[test]
    fn relevance_leaves_out_unknown_ids_the_query_itself_and_empty_queries() {
        let pairs = [
            ("1", "2"),
            ("1", "2"),
            ("1", "1"),
            ("0", "0"),
            ("1", "x"),
            ("y", "1"),
            ("1", "0"),
        ];
        let relevance = Relevance::from_pairs(&ids(3), pairs);
        assert_eq!(relevance.unknown_pairs, 2);
        let task = Task::all_pairs(&ids(3), &relevance).unwrap();
        assert_eq!(task.queries(), [query(1, &[0, 2])]);
        assert_eq!(task.candidates(1), 2);
    }

    #[test]
    fn released_protocol_uses_each_note_once_and_keeps_queries_out_of_the_pool() {
        // 1→0 is skipped (0 is used), 3→3 uses nothing up, 4→x lacks an embedding, 1→3 is taken.
        let pairs = [
            ("0", "2"),
            ("1", "0"),
            ("3", "3"),
            ("4", "x"),
            ("1", "3"),
            ("4", "2"),
        ];
        let task = Task::released_protocol(&ids(6), pairs).unwrap();
        assert_eq!(task.queries(), [query(0, &[2]), query(1, &[3])]);
        assert_eq!(task.pool(), [2, 3, 4, 5]);
        assert_eq!(task.candidates(0), 4);
    }

    #[test]
    fn a_sample_of_queries_is_the_same_each_time_and_keeps_the_pool() {
        let ids = ids(1000);
        let queries = (0..500).map(|row| query(row * 2, &[row])).skip(1).collect();
        let relevance = Relevance {
            queries,
            unknown_pairs: 0,
        };
        let whole = Task::all_pairs(&ids, &relevance).unwrap();
        let sample = |most| whole.clone().sampled(most);
        assert_eq!(sample(499).queries(), whole.queries());
        assert_eq!(sample(10_000).queries(), whole.queries());
        let (few, more) = (sample(50), sample(200));
        assert_eq!((few.queries().len(), few.pool().len()), (50, 1000));
        assert!(
            few.queries()
                .iter()
                .all(|query| more.queries().contains(query))
        );
        assert!(few.queries().is_sorted_by_key(|query| query.row));
        // Drawn from all over: by chance some 25 are of the first half.
        let first = few.queries().iter().filter(|query| query.row < 500).count();
        assert!((10..40).contains(&first), "{first}");
    }

    #[test]
    fn rows_must_exist() {
        let relevance = Relevance {
            queries: vec![query(0, &[9])],
            unknown_pairs: 0,
        };
        let error = Task::all_pairs(&ids(3), &relevance).unwrap_err();
        assert_eq!(error.to_string(), "row 9 does not exist: there are 3 notes");
        assert!(Task::new(&ids(3), &Relevance::default(), vec![true; 2]).is_err());
    }
}
