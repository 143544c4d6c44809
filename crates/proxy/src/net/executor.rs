//! Tasks and the loop that runs them.

#![expect(
    clippy::indexing_slicing,
    reason = "a slot that was popped from the free list exists"
)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::inbox::{self, Remote};
use super::reactor;
use super::timer;
use super::waker::TaskId;

/// Tasks run between two looks at the kernel, at most: so that a storm of wakes cannot starve sockets.
const BATCH_MAX: usize = 512;
/// Tasks run between two looks at the clock.
const TURNS_OF_A_CLOCK: usize = 16;
/// Tasks that may wait behind others in one batch.
const BEHIND_MAX: u32 = 64;
/// No worker number: this thread runs no executor.
const NO_WORKER: u32 = u32::MAX;

type BoxedTask = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    generation: u16,
    queued: bool,
    live: bool,
    /// Taken out while the task runs, so that nothing is borrowed meanwhile.
    future: Option<BoxedTask>,
}

#[derive(Default)]
struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
}

thread_local! {
    static WORKER: Cell<u32> = const { Cell::new(NO_WORKER) };
    static STOP: Cell<bool> = const { Cell::new(false) };
    /// Tasks that run again after the next look at the kernel.
    static YIELDED: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// Tasks of this batch that went behind others.
    static BEHIND: Cell<u32> = const { Cell::new(0) };
    static PANICS: Cell<u64> = const { Cell::new(0) };
    /// Emptied by [`run`] itself, so that no access has to see whether it is still there.
    static TASKS: ManuallyDrop<RefCell<Tasks>> = const {
        ManuallyDrop::new(RefCell::new(Tasks {
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
        }))
    };
}

fn with_tasks<T>(f: impl FnOnce(&mut Tasks) -> T) -> T {
    TASKS.with(|tasks| f(&mut tasks.borrow_mut()))
}

/// Turns this thread into a worker: calls `start` with the handle for other threads, then runs tasks until
/// [`stop`]. However that ends, its inbox is closed and its tasks are dropped, so that their guards undo what they
/// counted.
///
/// # Errors
/// When the kernel refuses an epoll descriptor or an eventfd, or something panics that is no task.
pub(crate) fn run(start: impl FnOnce(Remote)) -> io::Result<()> {
    let waker = reactor::open()?;
    let (number, remote) = inbox::open(waker)?;
    WORKER.set(u32::from(number));
    STOP.set(false);
    PANICS.set(0);
    timer::advance();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        start(remote.clone());
        turn(&remote)
    }));
    inbox::close(&remote);
    drop_tasks();
    reactor::close();
    WORKER.set(NO_WORKER);
    ended.unwrap_or_else(|panic| Err(io::Error::other(panic_text(&*panic))))
}

fn turn(remote: &Remote) -> io::Result<()> {
    while !STOP.get() {
        let idle = run_batch();
        if STOP.get() {
            break;
        }
        let timeout = if idle && YIELDED.with_borrow(Vec::is_empty) {
            timer::until_next()
        } else {
            Some(std::time::Duration::ZERO)
        };
        let signalled = reactor::wait(timeout)?;
        wake_yielded();
        timer::advance();
        if signalled {
            inbox::drain(remote);
        }
    }
    Ok(())
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("no message"))
}

/// Ends the loop of this thread after the present turn; its tasks are dropped.
pub(crate) fn stop() {
    STOP.set(true);
}

/// Tasks of this thread that ended in a panic since it started.
pub(crate) fn panics() -> u64 {
    PANICS.get()
}

/// Starts a task on this thread.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    spawn_boxed(Box::pin(future));
}

fn spawn_boxed(future: BoxedTask) {
    with_tasks(|tasks| {
        let slot = if let Some(slot) = tasks.free.pop() {
            let entry = &mut tasks.slots[slot as usize];
            entry.future = Some(future);
            entry.live = true;
            entry.queued = true;
            slot
        } else {
            tasks.slots.push(Slot {
                generation: 0,
                queued: true,
                live: true,
                future: Some(future),
            });
            u32::try_from(tasks.slots.len() - 1)
                .expect("descriptors run out long before 2^32 tasks")
        };
        tasks.ready.push_back(slot);
    });
}

/// Lets every other task run that is ready, those included whose sockets have become so meanwhile.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        YIELDED.with_borrow_mut(|wakers| wakers.push(cx.waker().clone()));
        Poll::Pending
    })
    .await
}

/// Has the task of `cx` run again, after every other one that is ready and after the next look at the kernel.
pub(crate) fn wake_after_others(cx: &Context<'_>) {
    YIELDED.with_borrow_mut(|wakers| wakers.push(cx.waker().clone()));
}

fn wake_yielded() {
    // One at a time: waking borrows nothing here, and a task may yield again only when it runs.
    while let Some(waker) = YIELDED.with_borrow_mut(Vec::pop) {
        waker.wake();
    }
}

/// Puts the task that is running behind those that are ready, if there are any; true when it is to be polled again. No
/// more than [`BEHIND_MAX`] tasks between two looks at the kernel: each of them holds buffers meanwhile.
pub(crate) fn goes_behind(cx: &Context<'_>) -> bool {
    let behind = BEHIND.get();
    if behind >= BEHIND_MAX || with_tasks(|tasks| tasks.ready.is_empty()) {
        return false;
    }
    BEHIND.set(behind + 1);
    cx.waker().wake_by_ref();
    true
}

/// Lets the tasks that are ready run first; see [`goes_behind`].
pub(crate) async fn after_ready() {
    let mut asked = false;
    std::future::poll_fn(move |cx| {
        if asked || !goes_behind(cx) {
            return Poll::Ready(());
        }
        asked = true;
        Poll::Pending
    })
    .await
}

/// Queues a task of this thread; false when the task belongs to another thread.
pub(super) fn wake_local(id: TaskId) -> bool {
    if WORKER.get() != u32::from(id.worker) {
        return false;
    }
    with_tasks(|tasks| {
        if let Some(slot) = tasks.slots.get_mut(id.slot as usize)
            && slot.live
            && slot.generation == id.generation
            && !slot.queued
        {
            slot.queued = true;
            tasks.ready.push_back(id.slot);
        }
    });
    true
}

/// Runs what is ready; true when nothing is left to run.
fn run_batch() -> bool {
    BEHIND.set(0);
    let worker = WORKER.get() as u16;
    for turn in 1..=BATCH_MAX {
        if turn % TURNS_OF_A_CLOCK == 0 {
            timer::read_clock();
        }
        let Some((slot, generation, mut future)) = next_ready() else {
            return true;
        };
        let waker = TaskId {
            worker,
            slot,
            generation,
        }
        .waker();
        let mut cx = Context::from_waker(&waker);
        // A panic ends its own connection and no other; its guards have run when it arrives here.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        match polled {
            Ok(Poll::Pending) => with_tasks(|tasks| {
                if let Some(entry) = tasks.slots.get_mut(slot as usize) {
                    entry.future = Some(future);
                }
            }),
            Ok(Poll::Ready(())) => retire(slot, future),
            Err(_) => {
                PANICS.set(PANICS.get() + 1);
                retire(slot, future);
            }
        }
    }
    with_tasks(|tasks| tasks.ready.is_empty())
}

fn next_ready() -> Option<(u32, u16, BoxedTask)> {
    with_tasks(|tasks| {
        while let Some(slot) = tasks.ready.pop_front() {
            let Some(entry) = tasks.slots.get_mut(slot as usize) else {
                continue;
            };
            entry.queued = false;
            if let Some(future) = entry.future.take() {
                return Some((slot, entry.generation, future));
            }
        }
        None
    })
}

fn retire(slot: u32, future: BoxedTask) {
    // Dropping may close sockets and wake others: nothing is borrowed here.
    drop_caught(future);
    with_tasks(|tasks| {
        if let Some(entry) = tasks.slots.get_mut(slot as usize) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.live = false;
            entry.queued = false;
        }
        tasks.free.push(slot);
    });
}

fn drop_caught(future: BoxedTask) {
    if catch_unwind(AssertUnwindSafe(|| drop(future))).is_err() {
        PANICS.set(PANICS.get() + 1);
    }
}

fn drop_tasks() {
    YIELDED.with_borrow_mut(Vec::clear);
    loop {
        let futures: Vec<BoxedTask> = with_tasks(|tasks| {
            tasks.ready.clear();
            tasks
                .slots
                .iter_mut()
                .filter_map(|slot| slot.future.take())
                .collect()
        });
        if futures.is_empty() {
            break;
        }
        futures.into_iter().for_each(drop_caught);
    }
    with_tasks(|tasks| *tasks = Tasks::default());
}
