//! What products of f32 matrices round their factors to, on the CPU.

use std::sync::atomic::{AtomicBool, Ordering};

use mlrm_config::MatmulPrecision;

/// One switch for the process, as PyTorch has it: the kernels' backward passes run wherever the autodiff graph runs them.
static BF16: AtomicBool = AtomicBool::new(false);

/// Chooses the precision of all products from now on.
pub fn set_matmul_precision(precision: MatmulPrecision) {
    BF16.store(precision == MatmulPrecision::Bf16, Ordering::Relaxed);
}

/// The precision that was chosen.
pub fn matmul_precision() -> MatmulPrecision {
    match BF16.load(Ordering::Relaxed) {
        true => MatmulPrecision::Bf16,
        false => MatmulPrecision::F32,
    }
}

/// Whether this processor multiplies bf16 matrices faster than f32 ones, so that [`MatmulPrecision::Bf16`] has an effect.
pub fn has_bf16_products() -> bool {
    bf16_products().is_some()
}

/// The instructions by which it does: `AMX` or `AVX512-BF16`.
pub fn bf16_products() -> Option<&'static str> {
    #[cfg(feature = "flex")]
    return super::flex::bf16_products();
    #[cfg(not(feature = "flex"))]
    None
}
