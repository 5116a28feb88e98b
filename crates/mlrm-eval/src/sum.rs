//! Sums that do not depend on their order.

/// The sum of finite numbers, rounded once (Shewchuk 1997, as in Python's `math.fsum`).
///
/// Means over queries are thus the same whatever the order in which queries were ranked.
pub fn exact_sum(values: impl IntoIterator<Item = f64>) -> f64 {
    // Non-overlapping, in increasing magnitude; their exact sum is that of all values so far.
    let mut partials: Vec<f64> = Vec::new();
    for mut value in values {
        let mut kept = 0;
        for at in 0..partials.len() {
            let mut partial = partials[at];
            if value.abs() < partial.abs() {
                std::mem::swap(&mut value, &mut partial);
            }
            let high = value + partial;
            let low = partial - (high - value);
            if low != 0.0 {
                partials[kept] = low;
                kept += 1;
            }
            value = high;
        }
        partials.truncate(kept);
        partials.push(value);
    }
    round_once(&partials)
}

/// Adds non-overlapping partials from the top; stops at the first that leaves a remainder and
/// rounds half to even across the partials below it.
fn round_once(partials: &[f64]) -> f64 {
    let mut rest = partials.iter().rev().copied();
    let Some(mut high) = rest.next() else {
        return 0.0;
    };
    let mut low = 0.0;
    for partial in rest.by_ref() {
        let before = high;
        high = before + partial;
        low = partial - (high - before);
        if low != 0.0 {
            break;
        }
    }
    if let Some(next) = rest.next()
        && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
    {
        let doubled = low * 2.0;
        let candidate = high + doubled;
        if doubled == candidate - high {
            high = candidate;
        }
    }
    high
}

/// The mean of finite numbers by [`exact_sum`]; none of nothing.
pub(crate) fn exact_mean(values: &[f64]) -> Option<f64> {
    match values.len() {
        0 => None,
        count => Some(exact_sum(values.iter().copied()) / count as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_once() {
        assert_eq!(exact_sum([]), 0.0);
        assert_eq!(exact_sum([0.1; 10]), 1.0);
        assert_eq!(exact_sum([1e16, 1.0, -1e16]), 1.0);
        assert_eq!(exact_sum([1e16, 1.0, 1e-16]), 10_000_000_000_000_002.0);
        assert_eq!(exact_sum([1e100, 1.0, -1e100, 1e-100]), 1.0);
    }

    proptest! {
        #[test]
        fn equals_integer_arithmetic_in_any_order(
            values in prop::collection::vec(any::<i32>().prop_map(i64::from), 0..60),
            shift in 0u32..20,
        ) {
            // Multiples of 2^-shift whose exact sum fits an f64.
            let scale = f64::from(1u32 << shift);
            let exact = values.iter().sum::<i64>() as f64 / scale;
            let forward = exact_sum(values.iter().map(|&v| v as f64 / scale));
            let backward = exact_sum(values.iter().rev().map(|&v| v as f64 / scale));
            prop_assert_eq!(forward, exact);
            prop_assert_eq!(backward, exact);
        }
    }
}
