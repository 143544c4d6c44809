//! Clients that are bound to servers: what each carries, what that binds its requests to, and the wait for one server.
//!
//! A client has one request at a time, as a browser with one connection; who finds all of them busy is a stranger.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use config::{Affinity, AffinityKind};
use control::affinity::{Bond, End, Tie};
use control::live::Member;
use control::reason::Reason;

use crate::decisions::Binds;
use crate::engine::Engine;
use crate::exchange::Outcome;
use crate::judge::Settled;
use crate::scenario::Scenario;

/// A client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Its cookie, if it has one.
    text: Option<Arc<[u8]>>,
    busy: bool,
}

/// What binds clients, and all that there were.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) affinity: Affinity,
    clients: Vec<Client>,
}

/// Of a client by its number.
fn address(client: usize) -> IpAddr {
    let [.., a, b, c] = (client as u64).to_be_bytes();
    Ipv4Addr::new(10, a, b, c).into()
}

impl Clients {
    pub(crate) fn new(affinity: Affinity, count: usize) -> Self {
        let clients = (0..count.max(1)).map(|_| Client::default()).collect();
        Self { affinity, clients }
    }

    /// One that has no request now, `from` on.
    pub(crate) fn take(&mut self, from: usize, known: usize) -> usize {
        let known = known.max(1);
        let mut places = (0..known).map(|step| (from + step) % known);
        let is_idle = |at: &usize| self.clients.get(*at).is_some_and(|it| !it.busy);
        let found = places.find(is_idle).unwrap_or(self.clients.len());
        if found == self.clients.len() {
            self.clients.push(Client::default());
        }
        self.clients[found].busy = true;
        found
    }
}

impl Engine<'_> {
    /// What binds a request of this client, as its worker sees it.
    pub(crate) fn read_bond(&mut self, client: usize, worker: usize) -> Option<Bond> {
        let clients = self.clients.as_ref()?;
        let pool = &mut self.workers.get_mut(worker)?.pools.first_mut()?;
        pool.refresh();
        let bond = match (&clients.affinity.kind, &pool.view.learnt) {
            (AffinityKind::Learnt(_), Some(learnt)) => {
                learnt.bond_of_source(address(client), self.now)
            }
            _ => {
                let text = clients.clients.get(client)?.text.as_ref();
                let server = text.zip(pool.view.bound.as_ref());
                let server = server.and_then(|(text, bound)| bound.of_text(text));
                let mut bond = Bond::to(server.map_or(Tie::Free, |it| Tie::Server(it.member.id)));
                bond.foreign = text.is_some() && server.is_none();
                bond
            }
        };
        Some(bond)
    }

    /// This member answers a request: whoever has sent it is bound as that has it.
    pub(crate) fn settle_bond(&mut self, id: usize, member: &Member) {
        let Some(clients) = &mut self.clients else {
            return;
        };
        let request = &self.requests[id];
        let (Some(bond), Some(client)) = (&request.bond, clients.clients.get_mut(request.client))
        else {
            return;
        };
        let pool = &self.workers[request.worker].pools[request.part];
        let mut end = bond.end(Some(member.id));
        self.decisions.settle(&mut end);
        let now_at = match &pool.view.learnt {
            Some(learnt) => {
                if end.binds() {
                    learnt.learn(bond, member, self.now);
                }
                let key = learnt.learnt().source_key(address(request.client));
                let binding = learnt.binding(key, self.now);
                binding.and_then(|it| Scenario::server_of(&it.server))
            }
            None => {
                let bound = pool.view.bound.as_ref();
                let server = bound.and_then(|bound| bound.of_member(member.id));
                if let Some(server) = server.filter(|_| end.binds()) {
                    client.text = Some(server.text.clone());
                }
                let text = client.text.as_ref().zip(bound);
                let server = text.and_then(|(text, bound)| bound.of_text(text));
                server.and_then(|it| Scenario::server_of(&it.member.name))
            }
        };
        let settled = Settled {
            client: request.client,
            by: member.id,
            now_at,
        };
        self.report_bond(end);
        self.judge.handle_settled(self.now, id, settled);
    }

    /// A request is over: its client has time for another.
    pub(crate) fn free_client(&mut self, id: usize) {
        if let Some(clients) = &mut self.clients
            && let Some(client) = clients.clients.get_mut(self.requests[id].client)
        {
            client.busy = false;
        }
    }

    /// Every server is full, or the one that a request is bound to: it waits, where that may be.
    pub(crate) fn queue_up(&mut self, id: usize) {
        let waits = |bond: &Option<Bond>| bond.as_ref().is_some_and(Bond::waits);
        while waits(&self.requests[id].bond) {
            if let Some((owner, wait)) = self.owner_to_wait_for(id) {
                return self.enter_bound(id, &owner, wait);
            }
            self.give_up_owner(id);
            match self.pick(id) {
                Err(Reason::ServerLimit) => {}
                picked => return self.take_up(id, picked),
            }
        }
        if self.scenario.queue.is_some() {
            return self.enter(id);
        }
        let reason = self.requests[id].tries.over(Reason::ServerLimit);
        self.finish(id, Outcome::Failed(reason));
    }

    fn owner_to_wait_for(&self, id: usize) -> Option<(Arc<Member>, Duration)> {
        let queue = self.scenario.queue?;
        let wait = self.clients.as_ref()?.affinity.queue_wait?;
        let request = &self.requests[id];
        let pool = &self.workers[request.worker].pools[request.part];
        let owner = pool.owner(request.bond.as_ref()?)?;
        Some((owner, wait.min(queue.wait)))
    }

    /// It has waited for its server in vain, or may not.
    pub(crate) fn give_up_owner(&mut self, id: usize) {
        if let Some(bond) = &self.requests[id].bond {
            bond.give_up();
        }
        self.judge.handle_give_up(id);
    }

    /// The wait for its server is over without a slot: it is picked for again.
    pub(crate) fn pick_again(&mut self, id: usize) {
        match self.pick(id) {
            Err(Reason::ServerLimit) => self.queue_up(id),
            picked => self.take_up(id, picked),
        }
    }

    /// Picks a server for a request, by what binds it if that is to be, and takes a slot.
    pub(crate) fn pick(&mut self, id: usize) -> Result<crate::decisions::Claim, Reason> {
        let request = &mut self.requests[id];
        let pool = &mut self.workers[request.worker].pools[request.part];
        let affinity = self.clients.as_ref().map(|it| &it.affinity);
        let binds = affinity.zip(request.bond.as_ref());
        let binds = binds.map(|(affinity, bond)| Binds { affinity, bond });
        let key = Some(request.key);
        self.decisions
            .pick_any(pool, binds, key, &mut request.tried, self.now)
    }

    fn report_bond(&mut self, end: End) {
        let report = &mut self.report;
        match end {
            End::Kept => report.kept += 1,
            End::Moved => report.moved += 1,
            _ => {}
        }
    }
}
