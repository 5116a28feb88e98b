//! Arithmetic on slices that compiles to the widest vector instructions of the machine.
//!
//! The functions are inlined into [`vectorised`] work. No step depends on the width of the
//! instructions, so that every machine computes the same bits.

/// Partial sums kept side by side; a multiple of every machine's vector width.
const LANES: usize = 16;

/// Runs `work` compiled for the vector instructions that this machine has.
///
/// A closure that is not `#[inline(always)]`, or calls one that is not, may stay compiled for the oldest machine.
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        if wide {
            // SAFETY: the machine has these instructions.
            return unsafe { with_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has these instructions.
            return unsafe { with_avx2(work) };
        }
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Σ f(a), in lanes.
#[inline(always)]
pub(super) fn sum_1(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, &a) in lanes.iter_mut().zip(chunk) {
            *lane += f(a);
        }
    }
    for (lane, &a) in lanes.iter_mut().zip(rest) {
        *lane += f(a);
    }
    fold(lanes)
}

/// Σ f(a, b), in lanes.
#[inline(always)]
pub(super) fn sum_2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f(a, b);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += f(a, b);
    }
    fold(lanes)
}

/// Σ f(a, b, c), in lanes.
#[inline(always)]
pub(super) fn sum_3(a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for (lane, ((&a, &b), &c)) in lanes.iter_mut().zip(a.iter().zip(b).zip(c)) {
            *lane += f(a, b, c);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    for (lane, ((&a, &b), &c)) in lanes.iter_mut().zip(rest) {
        *lane += f(a, b, c);
    }
    fold(lanes)
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest value; −∞ for none.
#[inline(always)]
pub(super) fn maximum(a: &[f32]) -> f32 {
    let (chunks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |lane: &mut f32, a: f32| *lane = if a > *lane { a } else { *lane };
    for chunk in chunks {
        for (lane, &a) in lanes.iter_mut().zip(chunk) {
            larger(lane, a);
        }
    }
    for (lane, &a) in lanes.iter_mut().zip(rest) {
        larger(lane, a);
    }
    let mut largest = lanes[0];
    for lane in lanes {
        larger(&mut largest, lane);
    }
    largest
}

/// eˣ within 2 units in the last place; what would overflow or underflow stays at the limit.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r by its Taylor series, whose remainder at order 7 is
/// below half a unit.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it rounds to an integer, which stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Comparisons that are false for NaN keep it.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function within 4e-7: a rational approximation, fitted to the smallest largest
/// relative error on |x| ≤ 3.92, past which the result is ±1 in f32.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    const LIMIT: f32 = 3.92;
    let x = if x < -LIMIT { -LIMIT } else { x };
    let x = if x > LIMIT { LIMIT } else { x };
    let square = x * x;
    let polynomial = |coefficients: [f32; 6]| {
        let mut value = coefficients[5];
        for coefficient in coefficients[..5].iter().rev() {
            value = value * square + coefficient;
        }
        value
    };
    let numerator = polynomial([
        std::f32::consts::FRAC_2_SQRT_PI,
        1.904_029_8e-1,
        5.274_826e-2,
        3.765_466e-3,
        2.848_791_3e-4,
        2.050_112_3e-6,
    ]);
    let denominator = polynomial([
        1.0,
        5.020_73e-1,
        1.141_076_7e-1,
        1.496_891_6e-2,
        1.162_498_4e-3,
        3.809_178_4e-5,
    ]);
    x * numerator / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Maclaurin series, in f64.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        for step in -86_990..87_990 {
            let x = step as f32 * 1e-3;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 2.4e-7, "exp({x}): {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_error_function_follows_its_series() {
        for step in -5_000..5_000 {
            let x = step as f32 * 1e-3;
            let error = (f64::from(erf(x)) - erf_series(f64::from(x))).abs();
            assert!(error < 4e-7, "erf({x}): {error:e}");
        }
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_the_maximum_take_every_element_of_odd_lengths() {
        for length in [0_usize, 1, 15, 16, 17, 50] {
            let a: Vec<f32> = (0..length).map(|n| n as f32 - 7.0).collect();
            let naive: f32 = a.iter().sum();
            assert_eq!(sum_1(&a, |a| a), naive);
            assert_eq!(sum_2(&a, &a, |a, b| a - 0.5 * b), naive * 0.5);
            assert_eq!(sum_3(&a, &a, &a, |a, b, c| a + b - c), naive);
            let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&a), largest);
        }
    }
}
