//! Wakers that are numbers: worker, generation and slot of a task in one machine word.
//!
//! Cloning and dropping one costs nothing, and two wakers of one task are equal word for word.

#![expect(
    unsafe_code,
    reason = "a RawWaker is made of a number; std has no safe way to that"
)]

use std::task::{RawWaker, RawWakerVTable, Waker};

use super::{executor, inbox};

/// Names a task: which worker, which slot, and which use of that slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TaskId {
    pub(super) worker: u16,
    pub(super) slot: u32,
    pub(super) generation: u16,
}

impl TaskId {
    pub(super) fn to_word(self) -> usize {
        (usize::from(self.worker) << 48) | (usize::from(self.generation) << 32) | self.slot as usize
    }

    pub(super) fn from_word(word: usize) -> Self {
        Self {
            worker: (word >> 48) as u16,
            generation: (word >> 32) as u16,
            slot: word as u32,
        }
    }

    pub(super) fn waker(self) -> Waker {
        let data = std::ptr::without_provenance(self.to_word());
        // SAFETY: the data is never dereferenced; it is a number that every function of the table copies or
        // decodes. `wake` works from any thread: it compares a thread-local number and else goes through a
        // lock-protected inbox. So the contract of RawWakerVTable (thread safety, ownership) holds trivially.
        unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| {});

fn clone(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    let id = TaskId::from_word(data.addr());
    if !executor::wake_local(id) {
        inbox::wake_remote(id);
    }
}

#[cfg(test)]
mod tests {
    use super::TaskId;

    #[test]
    fn word_round_trip() {
        for id in [
            TaskId {
                worker: 0,
                slot: 0,
                generation: 0,
            },
            TaskId {
                worker: 513,
                slot: u32::MAX,
                generation: u16::MAX,
            },
        ] {
            assert_eq!(TaskId::from_word(id.to_word()), id);
        }
    }
}
