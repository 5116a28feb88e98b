//! Exact sums of 1 / N, rounded once.
//!
//! The score `inverse_activity` adds 1 / N_u over users. Added as floats, the sum would depend on
//! the order of the users, and ties and bounds with it. Here it does not: the sum is kept in fixed
//! point with 96 binary digits after the point, each term rounded down, so the true sum lies in
//! [kept, kept + terms · 2⁻⁹⁶). Nearly always both ends round to the same double, which then is the
//! true sum's. Otherwise the sum is done again as a fraction of big integers.

use num_bigint::BigUint;

/// Binary digits after the point. 1 / N ≤ 1/2 (a user of a pair saw two notes) and fewer than 2³²
/// users keep every sum below 2³¹ · 2⁹⁶, far inside 128 bits.
const FRACTION_BITS: u32 = 96;

/// 1 / `activity` in fixed point, rounded down; `activity` ≥ 1.
pub(super) fn fixed_inverse(activity: u32) -> u128 {
    (1u128 << FRACTION_BITS) / u128::from(activity.max(1))
}

/// The double nearest to the true sum of `terms` inverses whose [`fixed_inverse`]s add up to
/// `fixed`, or `None` where the fixed point cannot tell.
pub(super) fn round_fixed(fixed: u128, terms: u32) -> Option<f64> {
    // Casting rounds to nearest, ties to even; multiplying by a power of two is exact.
    let low = fixed as f64;
    let high = (fixed + u128::from(terms)) as f64;
    (low == high).then(|| low * power_of_two(-i64::from(FRACTION_BITS)))
}

/// The double nearest to the sum of the inverses of `activities`, ties to even.
pub(super) fn exact_sum(activities: impl IntoIterator<Item = u32>) -> f64 {
    let mut numerator = BigUint::ZERO;
    let mut denominator = BigUint::from(1u32);
    let mut sorted: Vec<u32> = activities.into_iter().collect();
    sorted.sort_unstable();
    for run in sorted.chunk_by(|a, b| a == b) {
        let activity = run[0].max(1);
        numerator = numerator * activity + &denominator * run.len();
        denominator *= activity;
    }
    round_fraction(&numerator, &denominator)
}

/// The double nearest to a positive fraction of the normal range, ties to even.
fn round_fraction(numerator: &BigUint, denominator: &BigUint) -> f64 {
    // Scaled so that the quotient has at least 64 digits: its last digit may then stand for all
    // that the division leaves over, and one rounding of the quotient is the fraction's.
    let shift = 65 + denominator.bits() as i64 - numerator.bits() as i64;
    let scaled = if shift >= 0 {
        numerator << shift as u64
    } else {
        numerator.clone()
    };
    let scaled_denominator = if shift < 0 {
        denominator << (-shift) as u64
    } else {
        denominator.clone()
    };
    let quotient = &scaled / &scaled_denominator;
    let inexact = &quotient * &scaled_denominator != scaled;
    // 65 or 66 digits: fits, and is of the normal range after scaling back.
    let quotient = u128::try_from(quotient).unwrap_or(u128::MAX) | u128::from(inexact);
    quotient as f64 * power_of_two(-shift)
}

/// 2 to the power of an exponent of the normal range, exactly (`powi` does not promise that).
fn power_of_two(exponent: i64) -> f64 {
    const BIAS: i64 = 1023;
    const MANTISSA_BITS: u32 = 52;
    f64::from_bits(((BIAS + exponent.clamp(1 - BIAS, BIAS)) as u64) << MANTISSA_BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fast(activities: &[u32]) -> Option<f64> {
        let fixed = activities
            .iter()
            .map(|&activity| fixed_inverse(activity))
            .sum();
        round_fixed(fixed, activities.len() as u32)
    }

    #[test]
    fn both_ways_agree() {
        let count = std::cell::Cell::new(0);
        proptest!(ProptestConfig::with_cases(2000), |(
            activities in prop::collection::vec(prop_oneof![2u32..50, 2u32..100_000, any::<u32>()], 1..60)
        )| {
            if let Some(fast) = fast(&activities) {
                count.set(count.get() + 1);
                let exact = exact_sum(activities.iter().copied());
                prop_assert_eq!(fast.to_bits(), exact.to_bits());
            }
        });
        // The exact way is for the rare case only.
        assert!(count.get() > 1900, "{}", count.get());
    }

    #[test]
    fn known_sums() {
        // Python: float(sum(Fraction(1, n) for n in ...)).
        assert_eq!(exact_sum([3, 3, 3]), 1.0);
        assert_eq!(exact_sum([10; 10]), 1.0);
        assert_eq!(exact_sum([2, 3, 7]), 0.976_190_476_190_476_2);
        assert_eq!(exact_sum((1..=100).rev()), 5.187_377_517_639_621);
        assert_eq!(exact_sum([49]), 1.0 / 49.0);
        assert_eq!(exact_sum([]), 0.0);
    }

    #[test]
    fn fractions_round_like_division_and_ties_go_to_even() {
        proptest!(|(numerator in 1u64..1 << 53, denominator in 1u64..1 << 53)| {
            let rounded = round_fraction(&numerator.into(), &denominator.into());
            prop_assert_eq!(rounded, numerator as f64 / denominator as f64);
        });
        let one = BigUint::from(1u32);
        for (numerator, wanted) in [
            ((1u64 << 53) + 1, 9_007_199_254_740_992.0),
            ((1 << 53) + 3, 9_007_199_254_740_996.0),
        ] {
            assert_eq!(round_fraction(&numerator.into(), &one), wanted);
        }
        // A hair above the tie.
        let big = (BigUint::from((1u64 << 53) + 1) << 200u32) + 1u32;
        assert_eq!(
            round_fraction(&big, &(one << 200u32)),
            9_007_199_254_740_994.0
        );
    }

    #[test]
    fn the_fixed_point_admits_when_it_cannot_tell() {
        // 2²¹ + 2⁻³² lies exactly between two doubles, and terms were rounded down.
        let fixed = (1u128 << (FRACTION_BITS + 21)) + (1 << (FRACTION_BITS - 32));
        assert_eq!(round_fixed(fixed, 5), None);
        assert_eq!(round_fixed(fixed - 4, 5), None);
        assert_eq!(round_fixed(fixed - 5, 5), Some(2_097_152.0));
    }
}
