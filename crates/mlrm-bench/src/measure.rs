//! What a device can do at best: its matrix-product rate and its copy bandwidth. Other speeds are
//! judged against these two.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use mlrm_model::ops;
use serde::Serialize;

use mlrm_train::TrainError;
use mlrm_train::device::Format;

/// The median of several timed samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// FLOP/s or bytes/s of the median sample.
    pub per_second: f64,
    /// (fastest − slowest) / median.
    pub spread: f64,
    /// Samples.
    pub repeats: usize,
}

/// A sample lasts at least this long, so that launching and waiting weigh little.
const SAMPLE_SECONDS: f64 = 0.02;
/// Nor are there more products than this in a sample.
const MOST_PRODUCTS: usize = 64;
/// Sides of square matrices that [`matmul_size`] chooses from.
const SIZES: [usize; 5] = [512, 1024, 2048, 4096, 8192];
/// What one product of the chosen size should take at least.
const PRODUCT_SECONDS: f64 = 0.005;

/// FLOP/s of the product of two square matrices `[size, size]`, 2·size³ operations each.
///
/// A sample is a chain of products that depend on each other, so that none can be left out; the end
/// of the chain is read back and has to be finite. The first product is not timed: kernels are
/// compiled and chosen there.
///
/// # Errors
/// A device without arithmetic in `dtype`, that fails, or whose products are not finite.
pub fn matmul_rate(
    device: &Device,
    dtype: Format,
    size: usize,
    repeats: usize,
) -> Result<Measured, TrainError> {
    let (start, factor) = operands(device, dtype, size)?;
    let chain = |products: usize| {
        let mut value = start.clone();
        for _ in 0..products {
            value = ops::linear(value, factor.clone(), None);
        }
        value
    };
    let once = timed(device, 1, || chain(1)).and_then(|_| timed(device, 1, || chain(1)))?;
    let products = (SAMPLE_SECONDS / once).ceil() as usize;
    let products = products.clamp(1, MOST_PRODUCTS);
    let work = 2.0 * (size as f64).powi(3) * products as f64;
    let mut rates = Vec::with_capacity(repeats);
    for _ in 0..repeats.max(1) {
        rates.push(work / timed(device, 1, || chain(products))?);
    }
    require_finite(chain(products), "a matrix product")?;
    Ok(summary(rates))
}

/// A side at which one product keeps this device busy for some milliseconds.
///
/// # Errors
/// A device without arithmetic in `dtype`, or that fails.
pub fn matmul_size(device: &Device, dtype: Format) -> Result<usize, TrainError> {
    let (start, factor) = operands(device, dtype, SIZES[0])?;
    let product = || start.clone().matmul(factor.clone());
    let seconds = timed(device, 1, product).and_then(|_| timed(device, 4, product))?;
    let scale = (PRODUCT_SECONDS / seconds).cbrt();
    let enough = |size: &usize| *size as f64 >= SIZES[0] as f64 * scale;
    Ok(SIZES
        .into_iter()
        .find(enough)
        .unwrap_or(SIZES[SIZES.len() - 1]))
}

/// Bytes/s, read and written together, of one element-wise pass over `bytes` of f32 in the device's
/// memory. `bytes` ought to be far larger than its caches.
///
/// # Errors
/// A device that fails, or whose copies are not finite.
pub fn copy_bandwidth(
    device: &Device,
    bytes: usize,
    repeats: usize,
) -> Result<Measured, TrainError> {
    let device = device.clone().without_autodiff();
    let count = (bytes / size_of::<f32>()).max(1);
    let mut value = Tensor::<1>::ones([count], (&device, Format::F32));
    let mut rates = Vec::with_capacity(repeats);
    for repeat in 0..=repeats.max(1) {
        // The old tensor stays alive, so the pass cannot be done in place, and each pass is waited
        // for, so that two cannot become one.
        let old = value.clone();
        let begin = Instant::now();
        value = value.neg();
        wait(&device)?;
        let seconds = begin.elapsed().as_secs_f64();
        drop(old);
        if repeat > 0 {
            rates.push(2.0 * (count * size_of::<f32>()) as f64 / seconds);
        }
    }
    require_finite(value.reshape([1, count]), "a copy")?;
    Ok(summary(rates))
}

/// A matrix and a factor that leaves its values' size about as it is, whatever their number: products
/// in any format stay finite.
fn operands(
    device: &Device,
    dtype: Format,
    size: usize,
) -> Result<(Tensor<2>, Tensor<2>), TrainError> {
    let device = device.clone().without_autodiff();
    if !device.supports_dtype(dtype) {
        return Err(TrainError::Refused(format!(
            "the device has no arithmetic in {dtype:?}"
        )));
    }
    let random = |deviation: f64| {
        let normal = Distribution::Normal(0.0, deviation);
        Tensor::<2>::random([size, size], normal, (&device, Format::F32)).cast(dtype)
    };
    Ok((random(1.0), random(1.0 / (size as f64).sqrt())))
}

/// Seconds of one of `count` calls of `work`, the device's own work included.
fn timed<T>(device: &Device, count: usize, work: impl Fn() -> T) -> Result<f64, TrainError> {
    wait(device)?;
    let begin = Instant::now();
    for _ in 0..count {
        work();
    }
    wait(device)?;
    Ok(begin.elapsed().as_secs_f64() / count as f64)
}

fn wait(device: &Device) -> Result<(), TrainError> {
    device
        .sync()
        .map_err(|e| TrainError::device("the device failed while it was measured", e))
}

fn require_finite(value: Tensor<2>, what: &str) -> Result<(), TrainError> {
    let sum = value.cast(Format::F32).abs().mean();
    let sum = sum
        .try_into_scalar::<f32>()
        .map_err(|e| TrainError::device("the device failed while it was measured", e))?;
    if sum.is_finite() && sum > 0.0 {
        Ok(())
    } else {
        Err(TrainError::Device {
            what: format!("{what} on this device gives {sum}"),
            reason: "its figures mean nothing".into(),
        })
    }
}

/// Of rates: the median, and how far apart the fastest and the slowest are.
fn summary(mut rates: Vec<f64>) -> Measured {
    rates.sort_by(f64::total_cmp);
    let middle = rates.len() / 2;
    let median = if rates.len() % 2 == 1 {
        rates[middle]
    } else {
        (rates[middle - 1] + rates[middle]) / 2.0
    };
    Measured {
        per_second: median,
        spread: (rates[rates.len() - 1] - rates[0]) / median,
        repeats: rates.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_median_and_its_spread() {
        let measured = summary(vec![4.0, 1.0, 2.0]);
        assert_eq!(measured.per_second, 2.0);
        assert_eq!(measured.spread, 1.5);
        assert_eq!(summary(vec![1.0, 3.0]).per_second, 2.0);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_processor_has_a_rate_and_a_bandwidth() {
        let device = Device::flex();
        let rate = matmul_rate(&device, Format::F32, 128, 3).unwrap();
        assert!(
            rate.per_second > 0.0 && rate.per_second.is_finite(),
            "{rate:?}"
        );
        assert_eq!(rate.repeats, 3);
        let copied = copy_bandwidth(&device, 1 << 22, 3).unwrap();
        assert!(
            copied.per_second > 0.0 && copied.per_second.is_finite(),
            "{copied:?}"
        );
        assert!(SIZES.contains(&matmul_size(&device, Format::F32).unwrap()));
    }

    #[cfg(feature = "flex")]
    #[test]
    fn values_that_are_not_finite_are_no_measurement() {
        let device = Device::flex();
        let broken = Tensor::<2>::full([2, 2], f32::NAN, &device);
        assert!(require_finite(broken, "a product").is_err());
    }
}
