//! The publisher as a state machine: it alone creates and retires live state, and holds every server's verdict.
//!
//! Configs, events and commands go in with `now`; worlds and actions come out. It reads no file, sends no probe and
//! asks no clock: the shell around it does what the actions say, and calls back when [`Publisher::poll_timeout`] is due.

mod affinity;
mod capacity;
mod carried;
mod changes;
mod drain;
mod drill;
mod fairness;
mod handover;
mod health;
mod learnt;
mod let_go;
mod limits;
mod outlier;
mod own_word;
mod pauses;
mod pools;
mod predecessor;
mod subsets;
mod view;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use balance::learnt::Tally;
use balance::{Quantile, State};
use config::{AgentCheck, HealthCheck, Secret, Snapshot};

use crate::capacity::Outlook;
use crate::handover::{Obeyed, Word};
use crate::live::{Endpoint, ListenerState, Member, RouteState};
use crate::message::{Answer, Event, Reply};
use crate::metrics::{PauseCause, PerWorker};
use crate::world::World;

pub use capacity::worst;
pub use changes::Changes;
use drain::{EndedDrain, Leaving, PendingDrain};
use drill::Drill;
pub use health::word as verdict_word;
use let_go::Parting;
use pools::{Place, PoolEntry};
use predecessor::Predecessor;

/// Views of one pool are built at most this often.
const VIEW_EVERY: Duration = Duration::from_millis(10);
/// And between two there is this many times as long as one takes, so that a pool of thousands whose servers all change
/// leaves most of the thread to the others.
const VIEW_PAUSE: u32 = 8;
/// A probe that could not be sent is sent again after this long.
const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// A name is asked again at the earliest after this long, whatever its TTL says.
const RESOLVE_MIN: Duration = Duration::from_secs(1);
/// And after a failed look-up.
const RESOLVE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Listeners, and routes, that no config has any more whose counts are kept.
const GONE_MAX: usize = 10_000;
/// The largest weight of a server.
const WEIGHT_MAX: u32 = 1000;
/// Servers that one name may stand for.
const ADDRESSES_MAX: usize = 256;

/// What the shell is to do.
pub enum Action {
    /// Send a probe, and report [`Event::Probed`] with the same numbers.
    Probe(Probe),
    /// Ask a server's agent, and report [`Event::AgentSaid`] with the same numbers.
    AskAgent(AgentProbe),
    /// Look a name up, and report [`Event::Resolved`].
    Resolve(Arc<str>),
    /// Tell the workers to cut what still runs on this member.
    Cut(u32),
    /// Tell the workers to end every connection to this member at once, as its crash would, if its drill still has it out
    /// when they hear of it.
    Sever(Arc<Member>),
    /// Tell the workers to close idle connections to this member: it takes no new traffic.
    CloseIdle(u32),
    /// Write a log line.
    Log(Notice),
    /// Answer a command.
    Reply(Reply, Answer),
    /// Tell the process before this one, and report [`Event::Obeyed`] with the same number.
    Forward(Word),
    /// Tell the process after this one what came of its word.
    Obeyed(Obeyed),
}

/// One probe to be sent.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The member that it is about.
    pub member: u32,
    /// Its number, to be reported back.
    pub number: u64,
    /// Where it goes.
    pub endpoint: Endpoint,
    /// The host name of the server's configured address, if it has one.
    pub host: Option<Arc<str>>,
    /// What it does.
    pub check: Arc<HealthCheck>,
}

/// One agent check to be made.
#[derive(Debug, Clone)]
pub struct AgentProbe {
    /// The member that it is about.
    pub member: u32,
    /// Its number, to be reported back.
    pub number: u64,
    /// Where the server is; the agent has a port of its own.
    pub endpoint: Endpoint,
    /// How it is asked.
    pub check: Arc<AgentCheck>,
}

/// Something for the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A server's verdict changed.
    Health {
        /// Pool name.
        pool: Arc<str>,
        /// Server name.
        server: Arc<str>,
        /// The verdict before.
        from: &'static str,
        /// The verdict now.
        to: &'static str,
        /// Why, in words.
        cause: Arc<str>,
    },
    /// A server said something else of itself than before.
    Says {
        /// Pool name.
        pool: Arc<str>,
        /// Server name.
        server: Arc<str>,
        /// What it says now, as an agent would write it.
        says: Arc<str>,
        /// Its state since then, the operator's word counted in.
        state: State,
    },
    /// A pool fell back on servers that it would rather not use, or no longer does.
    Panic {
        /// Pool name; of a subset with its labels.
        pool: Arc<str>,
        /// Whether it does now.
        on: bool,
    },
    /// A name's addresses changed.
    Resolved {
        /// The name.
        name: Arc<str>,
        /// Its addresses now.
        addresses: Vec<IpAddr>,
    },
    /// A look-up failed; the last answer is kept.
    NotResolved {
        /// The name.
        name: Arc<str>,
        /// What went wrong.
        error: String,
    },
    /// A drain's deadline came: what still ran on the server was cut.
    Cut {
        /// Pool name.
        pool: Arc<str>,
        /// Server name.
        server: Arc<str>,
        /// Requests and connections.
        count: u64,
    },
    /// A listener accepts nothing, or accepts again.
    Paused {
        /// Its name.
        listener: Arc<str>,
        /// Why.
        cause: PauseCause,
        /// `None`: it begins now; else how long it lasted, pauses within a moment taken for one.
        lasted: Option<Duration>,
    },
    /// Of a drill.
    Drill {
        /// Pool name.
        pool: Arc<str>,
        /// Server name.
        server: Arc<str>,
        /// What it has come to.
        what: String,
    },
    /// Without its biggest server or zone a pool would be past its `capacity_alarm`, or no longer would.
    Capacity {
        /// Pool name.
        pool: Arc<str>,
        /// Whether it would.
        on: bool,
        /// How it stands.
        outlook: Option<Arc<Outlook>>,
    },
    /// One address carries more of a pool than its `source_alarm`.
    HeavySource {
        /// Pool name.
        pool: Arc<str>,
        /// The address, or its network.
        source: IpAddr,
        /// Its part of the pool's requests.
        percent: f64,
    },
    /// An operator had bindings of clients forgotten.
    Forgotten {
        /// Pool name.
        pool: Arc<str>,
        /// Which, in words.
        what: String,
        /// How many there were.
        count: u64,
    },
    /// An operator changed a server.
    Operator {
        /// Pool name.
        pool: Arc<str>,
        /// Server name.
        server: Arc<str>,
        /// What was done.
        what: String,
    },
}

struct NameEntry {
    addresses: Vec<IpAddr>,
    due: Duration,
    asked: bool,
}

/// See the module's own words.
pub struct Publisher {
    workers: usize,
    generation: u64,
    next_member: u32,
    next_group: u32,
    next_probe: u64,
    random: u64,
    /// What the randomness of this process began with.
    seed: u64,
    snapshot: Option<Arc<Snapshot>>,
    /// Signs what clients carry.
    secret: Option<Secret>,
    pools: BTreeMap<Arc<str>, PoolEntry>,
    /// Where each member is.
    places: BTreeMap<u32, Place>,
    listeners: BTreeMap<Arc<str>, Arc<ListenerState>>,
    routes: BTreeMap<(Arc<str>, Arc<str>), Arc<RouteState>>,
    names: BTreeMap<Arc<str>, NameEntry>,
    /// Addresses of names that the next config will bring.
    ahead: BTreeMap<Arc<str>, NameEntry>,
    /// Probes to come, by time and member.
    schedule: BTreeSet<(Duration, u32)>,
    /// Agent checks to come, by time and member.
    agents: BTreeSet<(Duration, u32)>,
    /// Pools whose view is out of date, and when it may be built.
    dirty: BTreeMap<Arc<str>, Duration>,
    drains: Vec<PendingDrain>,
    ended_drains: Vec<EndedDrain>,
    predecessor: Predecessor,
    parting: Vec<Parting>,
    drills: Vec<Drill>,
    /// When pools' loads were looked at last.
    measured: Option<Duration>,
    /// Members that the config has let go of, by pool: they drain as soon as there is a view without them.
    leaving: BTreeMap<Arc<str>, Vec<Leaving>>,
    /// What another process knew of servers that are still to come.
    given: handover::Given,
    words_version: u64,
    /// What became of what pools have learnt, by the pool.
    tallies: BTreeMap<Arc<str>, Arc<Tally>>,
    /// When the traffic of a pool's servers is to be looked at next; `None` while no pool wants that.
    sweep_at: Option<Duration>,
    /// When servers whose limit follows latency are to be looked at next; `None` while there are none.
    look_at: Option<Duration>,
    /// Listeners that accept nothing for a while.
    pauses: pauses::Pauses,
    actions: VecDeque<Action>,
}

impl Publisher {
    /// A publisher with nothing to publish yet. `seed` spreads probes; `workers` sizes the metric cells.
    #[must_use]
    pub fn new(workers: usize, seed: u64) -> Self {
        Self {
            workers,
            generation: 0,
            next_member: 1,
            next_group: 1,
            next_probe: 1,
            random: seed,
            seed,
            snapshot: None,
            secret: None,
            pools: BTreeMap::new(),
            places: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            names: BTreeMap::new(),
            ahead: BTreeMap::new(),
            schedule: BTreeSet::new(),
            agents: BTreeSet::new(),
            dirty: BTreeMap::new(),
            drains: Vec::new(),
            ended_drains: Vec::new(),
            predecessor: Predecessor::default(),
            parting: Vec::new(),
            drills: Vec::new(),
            measured: None,
            leaving: BTreeMap::new(),
            given: handover::Given::default(),
            words_version: 0,
            tallies: BTreeMap::new(),
            sweep_at: None,
            look_at: None,
            pauses: pauses::Pauses::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes up a config: what did not change is not touched. Cannot fail: whatever can has been done before.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, now: Duration) -> (Arc<World>, Changes) {
        let before = self.snapshot.take();
        let mut changes = changes::compare(before.as_deref(), &snapshot);
        self.given.retain(&snapshot);
        self.words_version += 1;
        self.secret.clone_from(&snapshot.secret);
        self.count_connections(before.as_deref(), &snapshot, &mut changes);
        self.take_names(&snapshot, now);
        self.take_pools(&snapshot, now, &mut changes);
        self.plan_sweep();
        self.plan_look(now);
        let (listeners, routes) = self.take_listeners(&snapshot);
        let entries = snapshot.pools.iter();
        let entries = entries.filter_map(|pool| self.pools.get(&pool.name));
        let (pools, subsets) = entries
            .map(|entry| (entry.state.clone(), entry.subset_states()))
            .unzip();
        self.generation += 1;
        self.snapshot = Some(snapshot.clone());
        let world = Arc::new(World {
            generation: self.generation,
            snapshot,
            pools,
            subsets,
            listeners,
            routes,
        });
        (world, changes)
    }

    fn count_connections(
        &self,
        before: Option<&Snapshot>,
        after: &Snapshot,
        changes: &mut Changes,
    ) {
        for listener in before.into_iter().flat_map(|before| &before.listeners) {
            let state = self.listeners.get(&listener.name);
            let open = state.map_or(0, |state| state.connections.load(Relaxed).into());
            changes.connections += open;
            if changes::is_let_go(listener, after) {
                changes.connections_affected += open;
            }
        }
    }

    /// Takes in what happened. The views that it changes are built by the next [`Publisher::handle_timeout`], one for
    /// all that has happened by then.
    pub fn handle_event(&mut self, event: Event, now: Duration) {
        match event {
            Event::Refused { member } => self.handle_refused(member, now),
            Event::Passed { member } => self.handle_passed(member, now),
            Event::Speaks { member } => self.handle_speaks(member, now),
            Event::Failing {
                member,
                streak,
                last,
            } => self.handle_failing(member, streak, last, now),
            Event::Probed {
                member,
                probe,
                outcome,
            } => self.handle_probed(member, probe, outcome, now),
            Event::Says {
                member,
                probe,
                state,
            } => self.handle_says(member, probe, state, now),
            Event::AgentSaid {
                member,
                number,
                answer,
            } => self.handle_agent(member, number, answer, now),
            Event::NotProbed { member, probe } => self.handle_not_probed(member, probe, now),
            Event::Resolved { name, answer } => self.handle_resolved(name, answer, now),
            Event::Sources {
                pool,
                teller,
                counted,
            } => self.handle_sources(&pool, teller, *counted, now),
            Event::Paused { listener, cause } => self.pauses.handle(&listener, cause, now),
            Event::Obeyed(obeyed) => self.handle_obeyed(&obeyed, now),
            Event::PredecessorSilent => self.handle_predecessor_silent(),
            Event::PredecessorEnded { in_order } => self.handle_predecessor_ended(in_order, now),
        }
    }

    /// Changes a server's state or weight at run time. The answer goes out as an action.
    pub fn handle_set(
        &mut self,
        pool: &str,
        server: &str,
        state: Option<State>,
        weight: Option<u32>,
        reply: Reply,
        now: Duration,
    ) {
        let known = match weight {
            Some(weight) if weight > WEIGHT_MAX => Err("a weight is 0 to 1000".to_owned()),
            _ => self.named(pool, server),
        };
        let (pool, members) = match known {
            Ok(known) => known,
            Err(why) => {
                self.actions
                    .push_back(Action::Reply(reply, Answer::NotFound(why)));
                return;
            }
        };
        let word = Word {
            state: state.map(|state| state.to_string()),
            weight,
            ..Word::default()
        };
        let number = self.forward(&pool, &members, word);
        self.set(&pool, &members, state, weight, now);
        self.predecessor
            .answer(number, (vec![reply], Answer::Done), &mut self.actions, now);
    }

    /// When [`Publisher::handle_timeout`] wants to be called, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let probe = self.schedule.first().map(|(at, _)| *at);
        let agent = self.agents.first().map(|(at, _)| *at);
        let view = self.dirty.values().min().copied();
        let name = self
            .names
            .values()
            .filter(|name| !name.asked)
            .map(|name| name.due)
            .min();
        let drain = self.drains.iter().map(|drain| drain.look_at).min();
        let parting = self.parting.iter().map(|parting| parting.at).min();
        let pause = self.pauses.poll_timeout();
        let drill = self.drills.iter().map(|drill| drill.look_at).min();
        let (sweep, look) = (self.sweep_at, self.look_at);
        let learnt = self.next_learnt();
        [
            probe, agent, view, name, drain, parting, drill, sweep, look, pause, learnt,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.send_due_probes(now);
        self.ask_due_agents(now);
        self.ask_due_names(now);
        self.look_at_parting(now);
        self.look_at_drains(now);
        self.look_at_drills(now);
        self.sweep_due_pools(now);
        self.look_at_limits(now);
        self.sweep_learnt(now);
        self.build_due_views(now);
        let pauses = self.pauses.handle_timeout(now);
        self.actions.extend(pauses.into_iter().map(Action::Log));
    }

    /// What the shell is to do next. To be asked until it is empty.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn take_listeners(
        &mut self,
        snapshot: &Snapshot,
    ) -> (Vec<Arc<ListenerState>>, Vec<Vec<Arc<RouteState>>>) {
        let mut listeners = Vec::new();
        let mut routes = Vec::new();
        for listener in &snapshot.listeners {
            let state = self
                .listeners
                .entry(listener.name.clone())
                .or_insert_with(|| {
                    Arc::new(ListenerState {
                        name: listener.name.clone(),
                        stats: PerWorker::new(self.workers),
                        connections: 0.into(),
                        paused: Default::default(),
                    })
                });
            listeners.push(state.clone());
            let mut of_listener = Vec::new();
            if let config::Protocol::Http(http) = &listener.protocol {
                for route in &http.routes {
                    let key = (listener.name.clone(), route.name.clone());
                    let state = self.routes.entry(key).or_insert_with(|| {
                        Arc::new(RouteState {
                            listener: listener.name.clone(),
                            name: route.name.clone(),
                            stats: PerWorker::new(self.workers),
                            rotation: 0.into(),
                            head_times: Quantile::new(),
                        })
                    });
                    of_listener.push(state.clone());
                }
            }
            routes.push(of_listener);
        }
        // What a config has let go of is kept, since it may come back; but not without end.
        if self.listeners.len() > listeners.len() + GONE_MAX {
            self.listeners
                .retain(|_, state| listeners.iter().any(|kept| Arc::ptr_eq(kept, state)));
        }
        if self.routes.len() > routes.iter().map(Vec::len).sum::<usize>() + GONE_MAX {
            let kept: BTreeSet<_> = routes.iter().flatten().map(Arc::as_ptr).collect();
            self.routes
                .retain(|_, state| kept.contains(&Arc::as_ptr(state)));
        }
        (listeners, routes)
    }

    /// The members that an operator means, and their pool's name; or why there are none.
    fn named(&self, pool: &str, server: &str) -> Result<(Arc<str>, Vec<u32>), String> {
        let entry = self
            .pools
            .get(pool)
            .ok_or_else(|| format!("no pool `{pool}`"))?;
        let named = entry.slots.iter().filter(|slot| slot.answers_to(server));
        let members: Vec<u32> = named.map(|slot| slot.member.id).collect();
        if members.is_empty() {
            return Err(format!("no server `{server}` in pool `{pool}`"));
        }
        Ok((entry.state.name.clone(), members))
    }

    fn set(
        &mut self,
        pool: &Arc<str>,
        members: &[u32],
        state: Option<State>,
        weight: Option<u32>,
        now: Duration,
    ) {
        if state.is_some_and(|state| state != State::Drain) {
            // A new word ends a drain that waits; its receipt says what was so far, and is made before new picks are.
            self.end_drains(members, now);
            self.keep_from_parting(members);
        }
        if state == Some(State::Ready) {
            self.end_drills(members, now);
        }
        let slots = self.pools.get_mut(pool).map(|entry| &mut entry.slots);
        for slot in slots
            .into_iter()
            .flatten()
            .filter(|slot| members.contains(&slot.member.id))
        {
            if let Some(state) = state {
                slot.take_operator(state);
                slot.member.set_cut(false);
                if state == State::Ready {
                    slot.forgive(now);
                } else {
                    self.actions.push_back(Action::CloseIdle(slot.member.id));
                }
                self.actions.push_back(Action::Log(Notice::Operator {
                    pool: pool.clone(),
                    server: slot.member.name.clone(),
                    what: format!("state {state}"),
                }));
            }
            if let Some(weight) = weight {
                slot.weight_word = Some(weight);
                self.actions.push_back(Action::Log(Notice::Operator {
                    pool: pool.clone(),
                    server: slot.member.name.clone(),
                    what: format!("weight {weight}"),
                }));
            }
        }
        self.words_version += 1;
        // An operator sees what the answer says: at once, whenever the last view was built.
        self.dirty.insert(pool.clone(), now);
        self.build_due_views(now);
    }

    fn mark_dirty(&mut self, pool: &Arc<str>, now: Duration) {
        let at = self
            .pools
            .get(pool)
            .map_or(now, |entry| entry.built.saturating_add(entry.pause()));
        let at = at.max(now);
        let due = self.dirty.entry(pool.clone()).or_insert(at);
        *due = at.min(*due);
    }

    fn next_random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
