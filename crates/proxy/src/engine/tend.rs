//! The workers' threads: begun, asked whether they are alive, stood in for while they are not, and replaced.
//!
//! All of this is on the control thread, which owns the listening sockets: while a worker is away another one polls
//! its sockets too, so that what the kernel has queued there is served.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use control::crew::stand_in;
use control::message::Message;

use super::{Engine, HERE, Here, with_here};
use crate::handover::Handed;
use crate::memory;
use crate::net::{self, Remote};
use crate::pulse::{self, Change, LOOK_EVERY, Pulse};
use crate::worker::Worker;

/// Something about a worker that its operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Its thread makes no turn. What it serves waits; who polls its sockets meanwhile, if anybody can.
    Stuck {
        /// Which worker.
        worker: usize,
        /// For how long.
        silent: Duration,
        /// Who accepts for it.
        stand_in: Option<usize>,
    },
    /// It works again.
    Back {
        /// Which worker.
        worker: usize,
        /// How long it was silent.
        silent: Duration,
    },
    /// It has been silent for longer than the process can bear: the process is to end at once.
    Lost {
        /// Which worker.
        worker: usize,
        /// For how long.
        silent: Duration,
    },
    /// Its thread has ended, and with it the connections that it served.
    Ended {
        /// Which worker.
        worker: usize,
        /// Why.
        error: String,
    },
    /// It has a new thread.
    Replaced {
        /// Which worker.
        worker: usize,
    },
    /// It could not be given a new thread; that is tried again.
    NotReplaced {
        /// Which worker.
        worker: usize,
        /// Why.
        error: String,
    },
}

/// One worker as the control thread sees it.
pub(super) struct Handle {
    pub(super) remote: Remote,
    /// `None` once it has ended and was looked at.
    pub(super) thread: Option<JoinHandle<io::Result<()>>>,
    ended: Arc<AtomicBool>,
    pulse: Pulse,
    /// The number of the last question, and of the last answer.
    asked: u64,
    answered: Arc<AtomicU64>,
    began: Duration,
}

impl Handle {
    /// Asks anew, if the last question was answered; gives whether it was.
    fn ask(&mut self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed) == self.asked;
        if answered {
            self.asked += 1;
            let (answer, number) = (self.answered.clone(), self.asked);
            self.remote
                .run(move || answer.store(number, Ordering::Relaxed));
        }
        answered
    }
}

impl Engine {
    /// Begins a worker's thread, and waits until it runs.
    pub(super) fn begin_worker(&self, number: usize, now: Duration) -> io::Result<Handle> {
        let connections_default = self.connections_default;
        let (hub, log, mailboxes) = (self.hub.clone(), self.log.clone(), self.mailboxes.clone());
        // A thread that takes the place of another must not draw the same numbers again.
        let seed = self.seed
            ^ (number as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)
            ^ u64::try_from(now.as_nanos()).unwrap_or_default();
        let end = self.ending;
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = ended.clone();
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                memory::begin(&hub);
                let start = |remote: Remote| {
                    let worker = Worker::new(number, hub.clone(), mailboxes, seed, log);
                    worker.draining.set(end.draining);
                    worker.closes_idle.set(end.closes_idle);
                    worker.cuts_all.set(end.cuts_all);
                    net::spawn(worker.clone().sweep());
                    HERE.set(Some(Here {
                        worker,
                        accepting: Default::default(),
                        standing_in: Default::default(),
                        connections_default,
                    }));
                    let _ = ready.send(remote);
                };
                let result = net::run(start);
                HERE.set(None);
                has_ended.store(true, Ordering::Release);
                if result.is_err() {
                    hub.send(Message::WorkerEnded);
                }
                result
            })?;
        let Ok(remote) = started.recv() else {
            let error = thread.join().ok().and_then(Result::err);
            return Err(error.unwrap_or_else(|| io::Error::other("a worker did not start")));
        };
        self.mailboxes.open(number, remote.clone());
        Ok(Handle {
            remote,
            thread: Some(thread),
            ended,
            pulse: Pulse::new(now),
            asked: 0,
            answered: Arc::default(),
            began: now,
        })
    }

    /// When [`Engine::tend`] has something to do again, at the latest.
    #[must_use]
    pub fn next_look(&self) -> Duration {
        self.looked.saturating_add(LOOK_EVERY)
    }

    /// Looks after the workers: who is stuck or has ended is stood in for, who has ended is replaced. To be called at
    /// [`Engine::next_look`], and at [`Message::WorkerEnded`]. Gives what is new.
    pub fn tend(&mut self, now: Duration) -> Vec<Notice> {
        let mut notices = Vec::new();
        for number in 0..self.workers.len() {
            self.bury(number, &mut notices);
        }
        if now >= self.next_look() {
            self.looked = now;
            self.secrets.rotate(now);
            for number in 0..self.workers.len() {
                self.look_at(number, now, &mut notices);
            }
        }
        for number in 0..self.workers.len() {
            self.replace(number, now, &mut notices);
        }
        self.find_stand_ins();
        for notice in &mut notices {
            if let Notice::Stuck {
                worker, stand_in, ..
            } = notice
            {
                *stand_in = self.absent.get(worker).copied().flatten();
            }
        }
        notices
    }

    /// Takes note of a thread that has ended.
    fn bury(&mut self, number: usize, notices: &mut Vec<Notice>) {
        let Some(handle) = self.workers.get_mut(number) else {
            return;
        };
        if !handle.ended.load(Ordering::Acquire) {
            return;
        }
        let Some(thread) = handle.thread.take() else {
            return;
        };
        let error = match thread.join() {
            Ok(Ok(())) => "it was told to".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked in its end".to_owned(),
        };
        let load = self.hub.crew.of(number);
        load.set_away(true);
        load.deaths.increment();
        self.absent.insert(number, None);
        self.step_back(number);
        let left = self.mailboxes.close(number);
        self.pass_on(number, left);
        notices.push(Notice::Ended {
            worker: number,
            error,
        });
    }

    fn look_at(&mut self, number: usize, now: Duration, notices: &mut Vec<Notice>) {
        let Some(handle) = self.workers.get_mut(number) else {
            return;
        };
        if handle.thread.is_none() {
            return;
        }
        let answered = handle.ask();
        match handle.pulse.look(answered, now) {
            None => {}
            Some(Change::Stuck(silent)) => {
                let load = self.hub.crew.of(number);
                load.set_away(true);
                load.stalls.increment();
                self.absent.insert(number, None);
                let left = self.mailboxes.take(number);
                self.pass_on(number, left);
                notices.push(Notice::Stuck {
                    worker: number,
                    silent,
                    stand_in: None,
                });
            }
            Some(Change::Back(silent)) => {
                self.return_of(number);
                notices.push(Notice::Back {
                    worker: number,
                    silent,
                });
            }
            Some(Change::Lost(silent)) => notices.push(Notice::Lost {
                worker: number,
                silent,
            }),
        }
    }

    fn replace(&mut self, number: usize, now: Duration, notices: &mut Vec<Notice>) {
        let Some(handle) = self.workers.get(number) else {
            return;
        };
        if handle.thread.is_some() || !pulse::may_replace(handle.began, now) {
            return;
        }
        let begun = self.begin_worker(number, now);
        let Some(handle) = self.workers.get_mut(number) else {
            return;
        };
        handle.began = now;
        match begun {
            Ok(begun) => *handle = begun,
            Err(error) => {
                notices.push(Notice::NotReplaced {
                    worker: number,
                    error: error.to_string(),
                });
                return;
            }
        }
        if let Some(world) = self.worlds.last() {
            let binds: Vec<_> = self.held.keys().cloned().collect();
            self.post(number, world.clone(), &binds, &[], &[]);
        }
        self.return_of(number);
        notices.push(Notice::Replaced { worker: number });
    }

    /// A worker has its sockets to itself again.
    fn return_of(&mut self, number: usize) {
        self.hub.crew.of(number).set_away(false);
        self.absent.remove(&number);
        // All: one may have stood in, been away itself, and come back.
        self.everywhere(move |here| here.step_back(number));
    }

    /// What `absent` was polling for others is nobody's again.
    fn step_back(&mut self, absent: usize) {
        for by in self.absent.values_mut() {
            if *by == Some(absent) {
                *by = None;
            }
        }
    }

    /// Sees to it that the sockets of each absent worker are polled by one that is there.
    fn find_stand_ins(&mut self) {
        let crew = &self.hub.crew;
        let mut adopted = Vec::new();
        for (absent, by) in &mut self.absent {
            if by.is_none_or(|by| crew.of(by).is_away()) {
                *by = stand_in(crew, *absent);
                adopted.extend(by.map(|by| (by, *absent)));
            }
        }
        for (by, absent) in adopted {
            self.adopt(by, absent);
        }
    }

    /// Has `by` poll the sockets of `absent`.
    pub(super) fn adopt(&self, by: usize, absent: usize) {
        let shares = self.shares_of(absent, self.held.keys());
        if let Some(handle) = self.workers.get(by) {
            handle
                .remote
                .run(move || with_here(|here| here.stand_in(absent, shares)));
        }
    }

    /// Gives connections that a worker was handed, and did not take up, to others.
    fn pass_on(&self, absent: usize, left: Vec<Handed>) {
        let crew = &self.hub.crew;
        for handed in left {
            crew.of(absent).release();
            if let Some(to) = stand_in(crew, absent) {
                crew.of(to).claim();
                // Refused only by one whose thread has just ended too.
                if self.mailboxes.give(to, handed).is_err() {
                    crew.of(to).release();
                }
            }
        }
    }
}
