//! The same list for every query: the most seen notes first.

use crate::error::Error;
use crate::rank::{QueryRanks, Ranks};
use crate::task::Task;

/// Ranks by `users`, the number of users that saw each note in the training log, in row order; ties
/// by id, the query itself left out.
///
/// # Errors
/// If there is not one count for each note of the task.
pub fn rank_by_popularity(task: &Task, users: &[u64]) -> Result<Ranks, Error> {
    let notes = task.ids().len();
    if users.len() != notes {
        return Err(Error::Mismatch {
            what: "popularity and notes",
            problem: format!("{} counts against {notes} notes", users.len()),
        });
    }
    let mut ranked = task.pool().to_vec();
    ranked.sort_unstable_by_key(|&row| {
        let most_seen_first = std::cmp::Reverse(users[row as usize]);
        (most_seen_first, task.order().position(row))
    });
    // Rank of each note in the list that leaves no query out.
    let mut rank = vec![0u32; notes];
    for (place, &row) in (1..).zip(&ranked) {
        rank[row as usize] = place;
    }
    let queries = task.queries().iter().map(|query| {
        let own = rank[query.row as usize];
        let mut relevant: Vec<(u32, u32)> = query
            .relevant
            .iter()
            .map(|&row| {
                let with_query = rank[row as usize];
                let query_before = task.in_pool(query.row) && own < with_query;
                (row, with_query - u32::from(query_before))
            })
            .collect();
        relevant.sort_unstable_by_key(|&(_, rank)| rank);
        QueryRanks {
            row: query.row,
            candidates: task.candidates(query.row),
            relevant,
        }
    });
    Ok(Ranks {
        queries: queries.collect(),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank::rank_scores;
    use crate::task::{Query, Relevance};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_ranking_by_scores(
            (users, pool, queries) in (2usize..40).prop_flat_map(|notes| {
                let query = (0..notes as u32, prop::collection::vec(0..notes as u32, 1..6))
                    .prop_map(|(row, relevant)| Query { row, relevant });
                (
                    prop::collection::vec(0u64..5, notes),
                    prop::collection::vec(any::<bool>(), notes),
                    prop::collection::vec(query, 1..20),
                )
            }),
        ) {
            let ids: Vec<String> = (0..users.len()).map(|id| format!("n{id}")).collect();
            let relevance = Relevance { queries, unknown_pairs: 0 };
            let task = Task::new(&ids, &relevance, pool).unwrap();
            let found = rank_by_popularity(&task, &users).unwrap();
            prop_assert_eq!(found.queries.len(), task.queries().len());
            for (query, found) in task.queries().iter().zip(&found.queries) {
                let scored = rank_scores(&task, query, |row| users[row as usize] as f64);
                prop_assert_eq!(found, &scored);
            }
        }
    }

    #[test]
    fn needs_a_count_for_each_note() {
        let task = Task::all_pairs(&["a".to_owned()], &Relevance::default()).unwrap();
        assert!(rank_by_popularity(&task, &[]).is_err());
    }
}
