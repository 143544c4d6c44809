//! The wait of requests while every server is full, and who was woken when.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use balance::queue::Ended;
use control::gate::{Lease, Ticket};
use control::live::{Member, PoolView};
use control::reason::Reason;

use crate::agenda::Happening;
use crate::decisions::Claim;
use crate::engine::Engine;
use crate::exchange::Outcome;
use crate::scenario::QueuePlan;

/// Requests woken since they were last asked for, with the moment of each.
#[derive(Debug, Default)]
pub(crate) struct Woken(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    /// Grows with everything that bears on who came first.
    moment: u64,
    woken: Vec<(usize, u64)>,
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) waker: Waker,
    pub(crate) since: Duration,
    /// For the server alone that the request is bound to.
    bound: bool,
}

struct Task {
    request: usize,
    list: Arc<Mutex<List>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.moment += 1;
        let at = list.moment;
        list.woken.push((self.request, at));
    }
}

impl Woken {
    /// A later moment than all before.
    pub(crate) fn moment(&self) -> u64 {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.moment += 1;
        list.moment
    }

    /// The task of a request.
    pub(crate) fn waker(&self, request: usize) -> Waker {
        let list = self.0.clone();
        Waker::from(Arc::new(Task { request, list }))
    }

    /// Those woken, in order.
    pub(crate) fn take(&self) -> Vec<(usize, u64)> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut list.woken)
    }

    /// Whether nobody was.
    pub(crate) fn is_empty(&self) -> bool {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.woken.is_empty()
    }
}

/// Those that may serve.
struct Members(Arc<PoolView>);

impl Deref for Members {
    type Target = [Arc<Member>];

    fn deref(&self) -> &Self::Target {
        &self.0.members
    }
}

impl Engine<'_> {
    /// Every server is full: the request waits, if there is room.
    pub(crate) fn enter(&mut self, id: usize) {
        if let Some(queue) = self.scenario.queue {
            self.enter_for(id, queue, queue.wait, None);
        }
    }

    /// The server is full that the request is bound to: it waits for that alone, so long in all.
    pub(crate) fn enter_bound(&mut self, id: usize, owner: &Arc<Member>, wait: Duration) {
        if let Some(queue) = self.scenario.queue {
            self.enter_for(id, queue, wait, Some(owner));
        }
    }

    fn enter_for(
        &mut self,
        id: usize,
        queue: QueuePlan,
        wait: Duration,
        owner: Option<&Arc<Member>>,
    ) {
        let (now, moment) = (self.now, self.woken.moment());
        let request = &mut self.requests[id];
        request.number += 1;
        let number = request.number;
        let priority = self.decisions.waits_as(request.priority);
        let only = owner.map(|owner| owner.id);
        self.judge
            .handle_enter(now, id, request, moment, (only, wait));
        let wait = self.decisions.waits_for(wait);
        let state = self.workers[request.worker].pools[request.part]
            .state
            .clone();
        let view = || Members(state.view());
        let (gate, tried) = (&state.gate, &request.tried);
        let affinity = self.clients.as_ref().map(|it| &it.affinity);
        let ticket = match owner.zip(affinity) {
            Some((owner, by)) => gate.enter_bound(priority, owner, by.on_drain, queue.max),
            None => gate.enter(priority, tried, state.group, queue.max, view),
        };
        let Some(ticket) = ticket else {
            self.judge.handle_queue_full(now, id);
            if owner.is_some() {
                self.give_up_owner(id);
                return self.pick_again(id);
            }
            return self.finish(id, Outcome::Failed(Reason::QueueFull));
        };
        request.waiting = Some(Waiting {
            ticket,
            waker: self.woken.waker(id),
            since: now,
            bound: owner.is_some(),
        });
        let left = wait.saturating_sub(request.waited);
        self.entered.push((id, moment));
        self.note(|| format!("request {id} waits"));
        let over = Happening::QueueOver {
            request: id as u32,
            number,
        };
        self.at(now + left, over);
    }

    /// A request has waited as long as it may.
    pub(crate) fn handle_queue_over(&mut self, id: usize, number: u32) {
        let request = &mut self.requests[id];
        let Some(waiting) = request.waiting.take_if(|_| request.number == number) else {
            return;
        };
        request.waited += self.now.saturating_sub(waiting.since);
        let bound = waiting.bound;
        drop(waiting);
        self.judge.handle_timeout(self.now, id);
        if bound {
            self.give_up_owner(id);
            return self.pick_again(id);
        }
        self.finish(id, Outcome::Failed(Reason::QueueTimeout));
    }

    /// Hears of all whose wait has ended, and lets them go on.
    pub(crate) fn settle_queue(&mut self) {
        while !self.woken.is_empty() || !self.entered.is_empty() {
            let mut heard = self.woken.take();
            heard.append(&mut self.entered);
            let (mut ended, mut waited_for_one) = (Vec::new(), Vec::new());
            for (id, woken) in heard {
                let request = &mut self.requests[id];
                let Some(waiting) = &request.waiting else {
                    continue;
                };
                let cx = &mut Context::from_waker(&waiting.waker);
                let Poll::Ready(end) = waiting.ticket.poll(cx) else {
                    continue;
                };
                request.waited += self.now.saturating_sub(waiting.since);
                let bound = waiting.bound;
                request.waiting = None;
                ended.push((id, woken, end));
                waited_for_one.push(bound);
            }
            self.judge_ended(&ended);
            for ((id, _, end), bound) in ended.into_iter().zip(waited_for_one) {
                match end {
                    Ended::Granted(lease) => self.begin(id, Claim::Lease(lease), false),
                    Ended::Displaced if bound => {
                        self.give_up_owner(id);
                        self.pick_again(id);
                    }
                    // It has changed.
                    Ended::Unservable if bound => self.pick_again(id),
                    Ended::Displaced => self.finish(id, Outcome::Failed(Reason::QueueFull)),
                    Ended::Unservable => {
                        let reason = self.requests[id].tries.over(Reason::NoUsableServer);
                        self.finish(id, Outcome::Failed(reason));
                    }
                }
            }
            self.take_actions();
        }
        self.judge.handle_calm(self.now);
    }

    fn judge_ended(&mut self, ended: &[(usize, u64, Ended<Lease>)]) {
        let now = self.now;
        let ends: Vec<_> = ended.iter().map(|(id, at, end)| (*id, *at, end)).collect();
        self.judge.handle_wait_ends(now, &ends);
        for (id, _, end) in ended {
            if let Ended::Granted(lease) = end {
                let request = &self.requests[*id];
                self.judge
                    .handle_pick(now, *id, request, &lease.member, true);
            }
        }
    }
}
