//! What the other side has taken of what was written, as far as the kernel knows.
//!
//! A socket becomes writable only when a good part of its buffer is free, which for who reads slowly may take minutes: long
//! before, the kernel knows that bytes were acknowledged.

#![expect(
    unsafe_code,
    reason = "rustix has no name for this question to the kernel"
)]

use std::os::fd::AsFd;

/// How far the other side has come with what was written, on a scale of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Grows as bytes are acknowledged.
    pub(crate) bytes: u64,
    /// Where that can say no more of the one who asks: what comes behind is for others.
    pub(crate) end: u64,
}

impl Taken {
    /// That of a connection that is gone.
    pub(crate) const NOTHING: Self = Self { bytes: 0, end: 0 };

    /// Whether it has grown until `later`, which takes its place.
    pub(crate) fn has_grown(&mut self, later: Self) -> bool {
        let before = std::mem::replace(&mut self.bytes, later.bytes);
        before < self.end && before < later.bytes
    }
}

/// Bytes that were written and not acknowledged yet; 0 where the kernel does not say.
#[cfg(target_os = "linux")]
pub(super) fn unacknowledged(socket: impl AsFd) -> u64 {
    use std::ffi::c_int;

    use rustix::ioctl::{Getter, ioctl};

    /// SIOCOUTQ of tcp(7) and unix(7); other than on most machines it is refused.
    const OUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: this question is answered by an int, and changes nothing.
    let count = unsafe { ioctl(socket, Getter::<OUTQ, c_int>::new()) };
    count.map_or(0, |count| u64::try_from(count).unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn unacknowledged(_: impl AsFd) -> u64 {
    0
}
