//! Who is bound to which server, by what servers answered; and whether a request may go past its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control::live::Member;

use super::shadow::Shadow;
use super::{GRACE, Judge, Rule, Tried, TryEnd};
use crate::exchange::Request;
use crate::scenario::AffinityPlan;

/// What has become of a client, now that a server answers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled {
    pub(crate) client: usize,
    /// The member that answers.
    pub(crate) by: u32,
    /// The server that it is bound to from now on, if the pool has it.
    pub(crate) now_at: Option<usize>,
}

/// What is known of clients.
#[derive(Debug)]
pub(super) struct Bonds {
    plan: AffinityPlan,
    /// By client.
    homes: BTreeMap<usize, usize>,
    /// Whose request this is.
    clients: BTreeMap<usize, usize>,
    /// Requests that have waited for their server in vain, or may not.
    gave_up: BTreeSet<usize>,
    /// Requests that wait for any server, since their own could not serve them when they came.
    left: BTreeSet<usize>,
    /// Requests whose servers could not serve them at one of their picks.
    released: BTreeSet<usize>,
}

impl Bonds {
    pub(super) fn new(plan: AffinityPlan) -> Self {
        Self {
            plan,
            homes: BTreeMap::new(),
            clients: BTreeMap::new(),
            gave_up: BTreeSet::new(),
            left: BTreeSet::new(),
            released: BTreeSet::new(),
        }
    }

    pub(super) fn handle_request(&mut self, id: usize, client: usize) {
        self.clients.insert(id, client);
    }

    pub(super) fn handle_give_up(&mut self, id: usize) {
        self.gave_up.insert(id);
        self.released.insert(id);
    }

    /// A request begins to wait for any server: as that of its own stands now, it may.
    pub(super) fn handle_leaves(&mut self, shadow: &mut Shadow, now: Duration, id: usize) {
        let Some(home) = self.home(id) else {
            return;
        };
        let may_go = match self.plan.required {
            true => shadow.lets_go(home, self.plan.moves, now, GRACE),
            false => shadow.keeps(home, self.plan.moves, now, GRACE) != Some(true),
        };
        if may_go {
            self.left.insert(id);
            self.released.insert(id);
        }
    }

    /// The server that a request is bound to.
    pub(super) fn home(&self, id: usize) -> Option<usize> {
        self.homes.get(self.clients.get(&id)?).copied()
    }

    pub(super) fn is_required(&self) -> bool {
        self.plan.required
    }

    /// A request gets a slot of `server`, after it has been to some: whether it may, past the one that it is bound to.
    pub(super) fn judge_pick(
        &mut self,
        shadow: &mut Shadow,
        now: Duration,
        id: usize,
        server: usize,
        (past, been): (&[Tried], &[u32]),
    ) -> Result<(), (Rule, String)> {
        let Some(home) = self.home(id) else {
            return Ok(());
        };
        let keeps = shadow.keeps(home, self.plan.moves, now, GRACE);
        if home == server {
            return match keeps {
                Some(false) => Err((Rule::Open, format!("s{home} may not keep its clients"))),
                _ => Ok(()),
            };
        }
        let refused = past
            .iter()
            .any(|it| it.end == TryEnd::Refused && shadow.server_of(it.member) == Some(home));
        if keeps != Some(true) || refused {
            self.released.insert(id);
        }
        let tried = been.iter().any(|it| shadow.server_of(*it) == Some(home));
        if self.left.contains(&id) {
            return Ok(());
        }
        if self.plan.required && !shadow.lets_go(home, self.plan.moves, now, GRACE) {
            let what = format!("request {id} of s{home} goes to s{server}");
            return Err((Rule::Required, what));
        }
        if keeps == Some(true) && !tried && !self.gave_up.contains(&id) {
            let what = format!("request {id} of s{home}, which may serve it, goes to s{server}");
            return Err((Rule::Bound, what));
        }
        Ok(())
    }

    /// Whether a request may be answered that its server cannot serve.
    pub(super) fn may_refuse(
        &self,
        shadow: &mut Shadow,
        now: Duration,
        id: usize,
        past: &[Tried],
    ) -> bool {
        let Some(home) = self.home(id) else {
            return false;
        };
        let tried = past
            .iter()
            .any(|it| shadow.server_of(it.member) == Some(home));
        let keeps = shadow.keeps(home, self.plan.moves, now, GRACE);
        self.plan.required && (tried || self.gave_up.contains(&id) || keeps != Some(true))
    }

    /// A server answers: whom it binds.
    pub(super) fn settle(
        &mut self,
        id: usize,
        by: usize,
        settled: Settled,
    ) -> Result<(), (Rule, String)> {
        let client = settled.client;
        let home = self.homes.get(&client).copied();
        let Some(now_at) = settled.now_at else {
            // Its server is gone; if it comes back, its clients are with it again.
            return Ok(());
        };
        let released = self.released.contains(&id);
        self.homes.insert(client, now_at);
        match home {
            None if now_at != by => Err((
                Rule::Moved,
                format!("client {client} was served by s{by}, and is bound to s{now_at}"),
            )),
            Some(home) if now_at != home && now_at != by => Err((
                Rule::Moved,
                format!("client {client} of s{home}, served by s{by}, is bound to s{now_at}"),
            )),
            Some(home) if now_at != home && !released => Err((
                Rule::Moved,
                format!("client {client} moves from s{home} to s{by}, and s{home} was there"),
            )),
            _ => Ok(()),
        }
    }

    /// The request is over.
    pub(super) fn forget(&mut self, id: usize) {
        self.clients.remove(&id);
        self.gave_up.remove(&id);
        self.left.remove(&id);
        self.released.remove(&id);
    }
}

impl Judge {
    /// A request of this client comes.
    pub(crate) fn handle_client(&mut self, id: usize, client: usize) {
        if let Some(bonds) = &mut self.bonds {
            bonds.handle_request(id, client);
        }
    }

    /// A request waits no longer for its server.
    pub(crate) fn handle_give_up(&mut self, id: usize) {
        if let Some(bonds) = &mut self.bonds {
            bonds.handle_give_up(id);
        }
    }

    /// A server answers a request whose client something binds.
    pub(crate) fn handle_settled(&mut self, now: Duration, id: usize, settled: Settled) {
        let by = self.shadow.server_of(settled.by);
        let Some((bonds, by)) = self.bonds.as_mut().zip(by) else {
            return;
        };
        if let Err((rule, what)) = bonds.settle(id, by, settled) {
            self.object(now, rule, what);
        }
    }

    /// Whether a pick is of the server that its request is bound to.
    pub(super) fn judge_bound(
        &mut self,
        now: Duration,
        id: usize,
        request: &Request,
        member: &Member,
    ) -> bool {
        let server = self.shadow.server_of(member.id);
        let Some((bonds, server)) = self.bonds.as_mut().zip(server) else {
            return false;
        };
        let home = bonds.home(id);
        let running = request.running.iter().map(|it| it.member().id);
        let been: Vec<u32> = request
            .past
            .iter()
            .map(|it| it.member)
            .chain(running)
            .collect();
        let (shadow, past) = (&mut self.shadow, &request.past);
        let judged = bonds.judge_pick(shadow, now, id, server, (past, &been));
        if home == Some(server) {
            self.shadow.note_bound_pick(member.id, now);
        }
        if let Err((rule, what)) = judged {
            self.object(now, rule, what);
        }
        home == Some(server)
    }

    pub(super) fn forget(&mut self, id: usize) {
        if let Some(bonds) = &mut self.bonds {
            bonds.forget(id);
        }
    }
}
