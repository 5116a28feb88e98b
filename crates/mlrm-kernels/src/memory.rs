//! Memory of the process between operations.

/// Keeps freed memory for the next operation instead of giving it back to the system, whose fresh pages cost a training step
/// on the CPU a tenth of its time. To be called once, at the start; other systems than Linux with glibc keep their ways.
pub fn keep_freed_memory() {
    #[cfg(all(feature = "flex", target_os = "linux", target_env = "gnu"))]
    {
        /// What the heap grows by at least; what is not touched takes no memory.
        const GROWTH_BYTES: libc::c_int = 64 << 20;
        // SAFETY: the calls change how the allocator asks the system for memory, and nothing that it has given out.
        unsafe {
            // Large buffers from the heap too, and never back.
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            libc::mallopt(libc::M_TOP_PAD, GROWTH_BYTES);
            // One heap for all threads: what a worker thread freed serves the next layer whoever computes it.
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
