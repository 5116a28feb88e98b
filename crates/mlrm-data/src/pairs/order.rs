//! The order of note ids.

/// The rank of every id: ids that are all whole numbers compare as numbers, others by code point.
/// (Rust compares texts by UTF-8 bytes, which is the order of code points.) Different spellings of
/// one number (`7`, `007`) are different ids and compare by code point.
pub fn id_ranks<T: AsRef<str> + Sync>(ids: &[T]) -> Vec<u32> {
    let numbers: Option<Vec<i128>> = ids.iter().map(|id| id.as_ref().parse().ok()).collect();
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    let text = |index: u32| ids[index as usize].as_ref();
    match numbers {
        Some(numbers) => order.sort_by(|&a, &b| {
            let by_number = numbers[a as usize].cmp(&numbers[b as usize]);
            by_number.then_with(|| text(a).cmp(text(b)))
        }),
        None => order.sort_by(|&a, &b| text(a).cmp(text(b))),
    }
    let mut ranks = vec![0; ids.len()];
    for (rank, index) in order.into_iter().enumerate() {
        ranks[index as usize] = rank as u32;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_numbers_only_when_all_are() {
        assert_eq!(id_ranks(&["10", "9", "-1", "09"]), [3, 2, 0, 1]);
        assert_eq!(id_ranks(&["10", "9", "x"]), [0, 1, 2]);
        // UTF-16 order would put the second first.
        assert_eq!(id_ranks(&["\u{ffff}", "\u{10000}"]), [0, 1]);
        assert_eq!(id_ranks::<&str>(&[]), [0; 0]);
    }
}
