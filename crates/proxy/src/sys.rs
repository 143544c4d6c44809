//! What no safe crate offers.

#![expect(unsafe_code, reason = "calls into the allocator, which is C")]

/// Gives the kernel back what this thread has had free for a second. The allocator does so of itself only when it is
/// asked for memory again, which an idle process never does: what a burst took would stay.
pub(crate) fn give_back_memory() {
    // SAFETY: it takes no pointer, and may be called by any thread at any time, also where another allocator serves.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
