//! Products of tiles in the tile registers (AMX) that Intel's server processors have since Sapphire Rapids.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};

use super::{Run, SIDE};

/// Linux wants to be asked before a process uses tiles: their registers are 8 KiB of state a thread.
pub(super) fn allowed() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let leaves = __cpuid(0).eax;
    if leaves < 7 || __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) != AMX_BF16 | AMX_TILE {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call asks for permission and touches no memory of ours.
        unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_REQ_XCOMP_PERM,
                XFEATURE_XTILEDATA,
            ) == 0
        }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Makes eight tile registers of 16 rows of 64 bytes on this thread.
///
/// # Safety
/// [`allowed`] is true.
pub(super) unsafe fn begin() {
    #[repr(C, align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        config.0[16 + 2 * tile] = 64;
        config.0[48 + tile] = SIDE as u8;
    }
    // SAFETY: the configuration is 64 bytes, as the instruction reads.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
}

/// Gives the tile registers back, so that the system need not save them.
///
/// # Safety
/// As [`begin`].
pub(super) unsafe fn end() {
    // SAFETY: no memory is touched.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// The products of the runs, written or added to 32 rows of 32 values that stand `stride` apart.
///
/// # Safety
/// Between [`begin`] and [`end`]; the panels hold as many tiles as a run has steps, at least one; `out` may be written, and
/// read with `add`.
#[inline]
pub(super) unsafe fn multiply(runs: &[Option<Run>; 2], out: *mut f32, stride: usize, add: bool) {
    let stride = stride * size_of::<f32>();
    let (upper, lower) = (out, out.wrapping_byte_add(SIDE * stride));
    // SAFETY: the caller vouches for the addresses; the assembly names every register that it changes.
    unsafe {
        if add {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}]",
                "tileloadd tmm1, [{upper} + {stride} + 64]",
                "tileloadd tmm2, [{lower} + {stride}]",
                "tileloadd tmm3, [{lower} + {stride} + 64]",
                upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
        for run in runs.iter().flatten() {
            let (left, right, next) = (run.left, run.right, run.next);
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {row}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {row}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{n0}]", "prefetcht1 [{n0} + 64]",
                "prefetcht1 [{n0} + 128]", "prefetcht1 [{n0} + 192]",
                "prefetcht1 [{n1}]", "prefetcht1 [{n1} + 64]",
                "prefetcht1 [{n1} + 128]", "prefetcht1 [{n1} + 192]",
                "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024",
                "add {n0}, 256", "add {n1}, 256",
                "dec {steps}",
                "jnz 2b",
                a0 = inout(reg) left[0] => _, a1 = inout(reg) left[1] => _,
                b0 = inout(reg) right[0] => _, b1 = inout(reg) right[1] => _,
                n0 = inout(reg) next[0] => _, n1 = inout(reg) next[1] => _,
                steps = inout(reg) run.steps => _, row = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        asm!(
            "tilestored [{upper} + {stride}], tmm0",
            "tilestored [{upper} + {stride} + 64], tmm1",
            "tilestored [{lower} + {stride}], tmm2",
            "tilestored [{lower} + {stride} + 64], tmm3",
            upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
            options(nostack),
        );
    }
}
