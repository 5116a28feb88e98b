//! The order of ids, the same wherever it breaks a tie: among partners of equal score (method §5)
//! and among notes of equal similarity (method §6).

/// The rank of every id, from 0: ids that are all decimal integers compare by value, others by code
/// point. (Rust compares texts by UTF-8 bytes, which is the order of code points.)
///
/// A decimal integer has digits and at most a minus sign before them: `+7` and `7.0` are none.
/// Different spellings of one number (`7`, `007`) are different ids and compare by code point.
pub fn id_ranks<T: AsRef<str>>(ids: &[T]) -> Vec<u32> {
    let text = |index: u32| ids[index as usize].as_ref();
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    let values: Option<Vec<i128>> = ids.iter().map(|id| integer(id.as_ref())).collect();
    match values {
        Some(values) => order.sort_by_key(|&index| (values[index as usize], text(index))),
        None => order.sort_by_key(|&index| text(index)),
    }
    let mut ranks = vec![0; ids.len()];
    for (rank, index) in (0..).zip(order) {
        ranks[index as usize] = rank;
    }
    ranks
}

/// The value of an id that is a decimal integer.
fn integer(id: &str) -> Option<i128> {
    let digits = id.strip_prefix('-').unwrap_or(id);
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => id.parse().ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_numbers_only_when_all_are() {
        assert_eq!(id_ranks(&["10", "9", "-1", "09"]), [3, 2, 0, 1]);
        assert_eq!(id_ranks(&["10", "9", "x"]), [0, 1, 2]);
        // Neither a sign of its own nor a blank makes a number.
        assert_eq!(id_ranks(&["10", "9", "+7"]), [1, 2, 0]);
        assert_eq!(id_ranks(&["10", "9", ""]), [1, 2, 0]);
        assert_eq!(id_ranks(&["10", "9", "-"]), [1, 2, 0]);
        // UTF-16 order would put the second first.
        assert_eq!(id_ranks(&["\u{ffff}", "\u{10000}"]), [0, 1]);
        assert_eq!(id_ranks::<&str>(&[]), [0; 0]);
    }
}
