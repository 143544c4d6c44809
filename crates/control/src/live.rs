//! Live state by identity: what outlives a config.
//!
//! Only the publisher creates and retires these; workers and the admin room read them and add to their counters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use balance::Quantile;
use balance::budget::RetryBudget;
use balance::outlier::Streak;
use config::Labels;

mod limit;

pub use limit::{Limit, LimitedBy};

use crate::affinity::Bound;
use crate::capacity::Outlook;
use crate::fairness::Fairness;
use crate::gate::Gate;
use crate::learnt::{LearntView, NO_TAG};
use crate::metrics::{
    Classes, ListenerCells, PauseCause, PerWorker, PoolCells, RouteCells, ServerCells,
};

/// A resolved address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket path.
    Unix(Arc<str>),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One server of one pool at one resolved address: what its counters and its operator's words belong to.
#[derive(Debug)]
pub struct Member {
    /// Small and never used twice in a process, so that worker-local tables may be keyed by it.
    pub id: u32,
    /// Its pool's name.
    pub pool: Arc<str>,
    /// Its name, unique in its pool; for one of several addresses of a DNS name, `name@address`.
    pub name: Arc<str>,
    /// Where it is.
    pub endpoint: Endpoint,
    /// The host name of its configured address, if it has one.
    host: ArcSwapOption<Arc<str>>,
    /// State bits, requests in use and moving averages.
    pub cell: Arc<balance::Server>,
    /// Totals.
    pub stats: PerWorker<ServerCells>,
    /// See [`Member::sockets`].
    pub(crate) sockets: AtomicU32,
    /// See [`Member::sockets_max`].
    sockets_max: AtomicU32,
    /// See [`Member::streams_max`].
    streams_max: AtomicU32,
    /// Its pool's queue.
    pub gate: Arc<Gate>,
    /// The bound of its requests in use; see [`Limit`].
    limit: AtomicU32,
    /// What that bound comes from, as the index into [`LimitedBy::ALL`].
    limited_by: AtomicU8,
    /// Whether it has few requests at once until one succeeds, and none has.
    half_open: AtomicBool,
    /// What its name is known by in its pool's table of what was learnt.
    tag: AtomicU32,
    /// See [`Member::part`].
    part: AtomicU32,
    /// The subsets whose views have it, by [`PoolState::group`]; `None` for none. Read only for those who wait.
    groups: ArcSwapOption<Vec<u32>>,
    /// Set by a worker whose connection was refused, until the publisher has seen it: one message is enough.
    refused: AtomicBool,
    /// Failures in a row, those of the gateway kind in the low half, all from 500 on in the high one: 0 in the common
    /// case, so that a success is one load.
    streaks: AtomicU32,
    /// How many of each the publisher wants to hear of, in the same halves; 0 is never.
    streaks_max: AtomicU32,
    /// Set by a worker that saw so many, until the publisher has heard.
    streak_told: AtomicBool,
    /// Set when a drain's deadline has come: what still runs on it is cut.
    cut: AtomicBool,
    /// Why no connection to it is kept: [`RETIRED`], [`CLOSED`], [`CRASHED`]; 0 in the common case.
    marks: AtomicU8,
    /// What it has chosen to speak: see [`Self::chose_http2`]; 0: nothing yet.
    chosen: AtomicU8,
    /// Requests that it wants at once on one connection over HTTP/2.
    streams: AtomicU32,
    /// Set by a worker that found either changed, until the publisher has seen it.
    spoken_told: AtomicBool,
}

/// A server that may choose has chosen HTTP/1.1.
const CHOSE_HTTP1: u8 = 1;
/// It has chosen HTTP/2.
const CHOSE_HTTP2: u8 = 2;

/// The config has let go of it.
const RETIRED: u8 = 1;
/// It takes no new traffic: its operator's word, or its own.
const CLOSED: u8 = 2;
/// A drill has it out, as a crash would.
const CRASHED: u8 = 4;
/// Its drain has ended: it keeps no bound client any more.
const DRAINED: u8 = 8;

impl Member {
    /// A member that was never picked.
    #[must_use]
    pub fn new(
        id: u32,
        pool: Arc<str>,
        name: Arc<str>,
        endpoint: Endpoint,
        gate: Arc<Gate>,
        workers: usize,
    ) -> Self {
        Self {
            id,
            pool,
            name,
            endpoint,
            host: ArcSwapOption::empty(),
            cell: Arc::new(balance::Server::new()),
            stats: PerWorker::new(workers),
            sockets: AtomicU32::new(0),
            sockets_max: AtomicU32::new(u32::MAX),
            streams_max: AtomicU32::new(u32::MAX),
            gate,
            limit: AtomicU32::new(0),
            limited_by: AtomicU8::new(0),
            half_open: AtomicBool::new(false),
            tag: AtomicU32::new(NO_TAG),
            part: AtomicU32::new(0),
            groups: ArcSwapOption::empty(),
            refused: AtomicBool::new(false),
            streaks: AtomicU32::new(0),
            streaks_max: AtomicU32::new(0),
            streak_told: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            marks: AtomicU8::new(0),
            chosen: AtomicU8::new(0),
            streams: AtomicU32::new(u32::MAX),
            spoken_told: AtomicBool::new(false),
        }
    }

    /// The host name of its configured address, if it has one: what its certificate bears.
    #[must_use]
    pub fn host(&self) -> Option<Arc<Arc<str>>> {
        self.host.load_full()
    }

    pub(crate) fn set_host(&self, host: Option<Arc<str>>) {
        if self.host().as_deref() != host.as_ref() {
            self.host.store(host.map(Arc::new));
        }
    }

    /// Whether it chose HTTP/2, and not HTTP/1.1, when it was connected to last, where it may choose. `None`: it never was.
    #[must_use]
    pub fn chose_http2(&self) -> Option<bool> {
        match self.chosen.load(Ordering::Relaxed) {
            CHOSE_HTTP1 => Some(false),
            CHOSE_HTTP2 => Some(true),
            _ => None,
        }
    }

    /// Notes what it has chosen on a new connection; true: the publisher is to be told.
    #[must_use]
    pub fn note_chosen(&self, http2: bool) -> bool {
        let chosen = if http2 { CHOSE_HTTP2 } else { CHOSE_HTTP1 };
        if self.chosen.load(Ordering::Relaxed) == chosen {
            return false;
        }
        self.chosen.store(chosen, Ordering::Relaxed);
        !self.spoken_told.swap(true, Ordering::AcqRel)
    }

    /// Requests that it wants at once on one connection over HTTP/2, as it said last; `u32::MAX` if it did not.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Notes how many requests it wants at once on one connection; true: the publisher is to be told. One relaxed load in
    /// the common case.
    #[must_use]
    pub fn note_streams(&self, streams: u32) -> bool {
        if self.streams() == streams {
            return false;
        }
        self.streams.store(streams, Ordering::Relaxed);
        !self.spoken_told.swap(true, Ordering::AcqRel)
    }

    /// From now on a change is told again; to be called before it is looked at.
    pub(crate) fn forget_spoken_told(&self) {
        self.spoken_told.swap(false, Ordering::AcqRel);
    }

    /// Sockets open to it, idle ones included, and those about to be.
    #[must_use]
    pub fn sockets(&self) -> u32 {
        self.sockets.load(Ordering::Acquire)
    }

    /// How many of these there may be, by the config in force: who came before a reload holds to it, too.
    #[must_use]
    pub fn sockets_max(&self) -> u32 {
        self.sockets_max.load(Ordering::Relaxed)
    }

    /// Requests at once on one of these over HTTP/2, if it wants no fewer; by the config in force.
    #[must_use]
    pub fn streams_max(&self) -> u32 {
        self.streams_max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_sockets_max(&self, sockets: u32, streams: u32) {
        self.sockets_max.store(sockets, Ordering::Relaxed);
        self.streams_max.store(streams, Ordering::Relaxed);
    }

    /// Requests that it had ever, and those that failed as a gateway error does.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let classes = 0..Classes::LABELS.len();
        let requests = self
            .stats
            .sum(|cells| classes.clone().map(|class| cells.classes.get(class)).sum());
        (requests, self.stats.sum(|cells| cells.failed.get()))
    }

    /// What bounds its requests in use.
    #[must_use]
    pub fn limit(&self) -> Limit {
        Limit(self.limit.load(Ordering::Relaxed))
    }

    /// Requests in use at once; `None` is no bound.
    #[must_use]
    pub fn connections_max(&self) -> Option<u32> {
        self.limit().own()
    }

    /// What that bound comes from, at this moment; `None` if there is none.
    #[must_use]
    pub fn limited_by(&self) -> Option<LimitedBy> {
        let index = usize::from(self.limited_by.load(Ordering::Relaxed));
        let by = LimitedBy::ALL.get(index).copied();
        by.filter(|_| self.connections_max().is_some())
    }

    /// Bounds its requests in use, with what the bound comes from; `in_pool`: its pool has a bound of its own.
    pub(crate) fn set_limit(&self, limit: Option<(u32, LimitedBy)>, in_pool: bool) {
        let own = limit.map_or(0, |(max, _)| max.min(Limit::IN_POOL - 1));
        let by = limit.map_or(LimitedBy::Sockets, |(_, by)| by);
        let in_pool = if in_pool { Limit::IN_POOL } else { 0 };
        self.limited_by.store(by as u8, Ordering::Relaxed);
        self.limit.store(own | in_pool, Ordering::Relaxed);
    }

    /// Whether it is to show that it has recovered: whoever sees a request succeed tells the publisher.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.half_open.load(Ordering::Relaxed)
    }

    /// What its name is known by in its pool's table of what was learnt; none has `u32::MAX`.
    #[must_use]
    pub fn tag(&self) -> u32 {
        self.tag.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tag(&self, tag: u32) {
        self.tag.store(tag, Ordering::Relaxed);
    }

    /// Notes that a request has succeeded: true once while it is half open.
    pub fn note_passed(&self) -> bool {
        self.is_half_open() && self.half_open.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_half_open(&self, half_open: bool) {
        self.half_open.store(half_open, Ordering::Relaxed);
    }

    /// Whether requests that wait for a server of this [`PoolState::group`] may be given it.
    #[must_use]
    pub fn serves(&self, group: u32) -> bool {
        if group == 0 {
            return self.part() != 0;
        }
        let groups = self.groups.load();
        groups
            .as_ref()
            .is_some_and(|groups| groups.contains(&group))
    }

    /// What its traffic is in proportion to, among the servers of its pool; 0: its pool does not pick it.
    pub(crate) fn part(&self) -> u32 {
        self.part.load(Ordering::Relaxed)
    }

    pub(crate) fn set_part(&self, part: u32) {
        self.part.store(part, Ordering::Relaxed);
    }

    /// Says which subsets' views have it.
    pub(crate) fn set_groups(&self, groups: Vec<u32>) {
        let same = match &*self.groups.load() {
            Some(known) => **known == groups,
            None => groups.is_empty(),
        };
        if !same {
            let groups = (!groups.is_empty()).then(|| Arc::new(groups));
            self.groups.store(groups);
        }
    }

    /// Notes that a connection was refused; true when nobody had noted it yet, so that the publisher must be told.
    pub fn note_refused(&self) -> bool {
        !self.refused.load(Ordering::Relaxed) && !self.refused.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn forget_refused(&self) {
        self.refused.store(false, Ordering::Relaxed);
    }

    /// Answers that it has given, whatever they said. Adds up what each worker has counted: not for every request.
    #[must_use]
    pub fn answers(&self) -> u64 {
        let of = |classes: &Classes| (1..6).map(|class| classes.get(class)).sum();
        self.stats.sum(|cells| of(&cells.classes))
    }

    /// Notes an answer that is no failure: what came in a row has ended. One relaxed load, as a rule. True if it is the
    /// first of a server that is half open.
    pub fn note_success(&self) -> bool {
        if self.streaks.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.streaks.store(0, Ordering::Relaxed);
        // Its streak was one short of an ejection.
        self.note_passed()
    }

    /// Notes a failure of the `gateway` kind, or another status from 500 on. Gives the streak that is now as long as
    /// the publisher wants to hear of, if nobody has told it.
    pub fn note_failure(&self, gateway: bool) -> Option<Streak> {
        let (gateway_max, server_max) = halves(self.streaks_max.load(Ordering::Relaxed));
        if !gateway && server_max == 0 {
            self.note_success();
            return None;
        }
        let grown = |word| {
            let (gateways, servers) = halves(word);
            word_of(
                if gateway {
                    gateways.saturating_add(1)
                } else {
                    0
                },
                servers.saturating_add(1),
            )
        };
        let before = self
            .streaks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Some(grown(word))
            });
        let (gateways, servers) = halves(grown(before.unwrap_or_else(|word| word)));
        // Every so many: an ejection that was not possible may be by now.
        let due = |count: u16, max: u16| max != 0 && count != 0 && count.is_multiple_of(max);
        let streak = if due(gateways, gateway_max) {
            Streak::GatewayErrors
        } else if due(servers, server_max) {
            Streak::ServerErrors
        } else {
            return None;
        };
        (!self.streak_told.swap(true, Ordering::Relaxed)).then_some(streak)
    }

    /// Says how many failures in a row the publisher wants to hear of.
    pub(crate) fn set_streaks_max(&self, gateway: Option<u32>, server: Option<u32>) {
        let half = |max: Option<u32>| u16::try_from(max.unwrap_or(0)).unwrap_or(u16::MAX);
        let word = word_of(half(gateway), half(server));
        self.streaks_max.store(word, Ordering::Relaxed);
    }

    /// Makes the next failure the last of a row, for a server that is to show that it has recovered.
    pub(crate) fn set_on_trial(&self) {
        let (gateway, server) = halves(self.streaks_max.load(Ordering::Relaxed));
        let word = word_of(gateway.saturating_sub(1), server.saturating_sub(1));
        self.streaks.store(word, Ordering::Relaxed);
    }

    pub(crate) fn forget_streaks(&self) {
        self.streaks.store(0, Ordering::Relaxed);
        self.streak_told.store(false, Ordering::Relaxed);
    }

    /// Failures in a row up to now: those of the gateway kind, and all from 500 on.
    pub(crate) fn streaks(&self) -> (u16, u16) {
        halves(self.streaks.load(Ordering::Relaxed))
    }

    /// Goes on from what another process has counted.
    pub(crate) fn set_streaks(&self, gateway: u16, server: u16) {
        self.streaks
            .store(word_of(gateway, server), Ordering::Relaxed);
    }

    pub(crate) fn forget_told(&self) {
        self.streak_told.store(false, Ordering::Relaxed);
    }

    /// Whether what runs on it is to be cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Whether a connection that is not in use is kept for the next request. One relaxed load.
    #[must_use]
    pub fn keeps_idle(&self) -> bool {
        self.marks.load(Ordering::Relaxed) == 0
    }

    /// Whether the config has let go of it.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.has(RETIRED)
    }

    pub(crate) fn set_retired(&self, retired: bool) {
        self.mark(RETIRED, retired);
    }

    /// Whether a drill has it out: connections to it are refused, and those that there were are reset.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.has(CRASHED)
    }

    pub(crate) fn set_crashed(&self, crashed: bool) {
        self.mark(CRASHED, crashed);
    }

    /// Whether its drain has ended, so that clients that are bound to it move.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.has(DRAINED)
    }

    pub(crate) fn set_drained(&self, drained: bool) {
        self.mark(DRAINED, drained);
    }

    /// Sets the state in force; the requests in use at that very moment.
    pub(crate) fn set_state(&self, state: balance::State) -> u32 {
        let in_use = self.cell.set_state(state);
        self.mark(CLOSED, state != balance::State::Ready);
        if state != balance::State::Drain {
            self.set_drained(false);
        }
        in_use
    }

    fn has(&self, mark: u8) -> bool {
        self.marks.load(Ordering::Relaxed) & mark != 0
    }

    fn mark(&self, mark: u8, on: bool) {
        if on {
            self.marks.fetch_or(mark, Ordering::Relaxed);
        } else {
            self.marks.fetch_and(!mark, Ordering::Relaxed);
        }
    }
}

/// A word of two counts: low and high half.
fn halves(word: u32) -> (u16, u16) {
    ((word & 0xffff) as u16, (word >> 16) as u16)
}

fn word_of(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// What is known of one server at the moment a view was built: for tables, metrics, logs and `explain`.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The server.
    pub member: Arc<Member>,
    /// What it is marked with.
    pub labels: Arc<Labels>,
    /// Its weight in force.
    pub weight: u32,
    /// The verdict of its probes.
    pub verdict: balance::health::Verdict,
    /// Whether it may be picked, or could be if it were needed.
    pub usable: bool,
    /// Its part of the pool's picks by weight, 0 to 1; 0 if none falls on it.
    pub traffic: f64,
    /// Why it gets more or less traffic than its weight says: "backup, not needed", "slow start at 35 %"; empty if
    /// nothing of that kind is the case.
    pub note: Arc<str>,
    /// The word for it in tables, logs and the API.
    pub condition: balance::Condition,
    /// Which part of its weight it gets for now.
    pub share: balance::Share,
    /// When an ejection ends, on the publisher's clock.
    pub back_at: Option<Duration>,
    /// When a drill that has it out ends, on the publisher's clock.
    pub drilled_until: Option<Duration>,
    /// Its operator's word; `None` if there was none.
    pub operator: Option<balance::State>,
    /// What it says of itself, as an agent would write it; empty if it says nothing.
    pub says: Arc<str>,
    /// Why it is as it is, in words: "503 where 200-299 was expected", "no probe has ended yet".
    pub cause: Arc<str>,
}

impl Standing {
    /// Why it is as it is, and when an ejection or a drill ends; `now` on the publisher's clock.
    #[must_use]
    pub fn cause_at(&self, now: Duration) -> Arc<str> {
        let left = |until: Duration| until.saturating_sub(now).as_secs_f64().ceil();
        match (self.drilled_until, self.back_at) {
            (Some(until), _) => format!("{}, for {} s more", self.cause, left(until)).into(),
            (None, Some(until)) if self.condition == balance::Condition::Ejected => {
                format!("{}; back in {} s", self.cause, left(until)).into()
            }
            _ => self.cause.clone(),
        }
    }
}

/// Who of a pool may serve, and the tables of its algorithm. Immutable; swapped alone.
#[derive(Debug)]
pub struct PoolView {
    /// The algorithm over the usable servers; a candidate's `id` is its member's.
    pub view: balance::View,
    /// The members of the candidates, in the same order.
    pub members: Vec<Arc<Member>>,
    /// Every server of the pool, or of the subset, in the config's order.
    pub standings: Vec<Standing>,
    /// Whether the usable ones are only used for want of better ones.
    pub panic: bool,
    /// Whether requests may wait for some of its servers while others are free: routes choose parts of the pool, or
    /// clients are bound.
    pub divided: bool,
    /// Who keeps clients that are bound; `None`: nothing binds them.
    pub bound: Option<Bound>,
    /// What the pool has learnt of its clients, where it does.
    pub learnt: Option<Arc<LearntView>>,
}

/// The live half of a pool, or of a subset of one.
#[derive(Debug)]
pub struct PoolState {
    /// The pool's name.
    pub name: Arc<str>,
    /// The labels that its servers have; `None`: all of the pool's are meant.
    pub labels: Option<Arc<Labels>>,
    /// What those who wait for any of its servers are known by: 0 for the whole pool, else never used twice in a
    /// process.
    pub group: u32,
    /// Rotation position and pick sequence, shared by all workers.
    pub rotation: balance::Rotation,
    /// Bounds retries to a share of live requests; the pool's, in each of its subsets.
    pub budget: Arc<RetryBudget>,
    /// Requests that wait while all servers are full; the pool's.
    pub gate: Arc<Gate>,
    /// Totals; the pool's.
    pub stats: Arc<PerWorker<PoolCells>>,
    /// How long its servers take until their response heads; the pool's. Only kept where hedging asks for it.
    pub head_times: Arc<Quantile>,
    view: ArcSwap<PoolView>,
    version: AtomicU64,
    outlook: ArcSwapOption<Outlook>,
    fairness: ArcSwapOption<Fairness>,
}

impl PoolState {
    pub(crate) fn new(
        name: Arc<str>,
        budget: Arc<RetryBudget>,
        gate: Arc<Gate>,
        stats: Arc<PerWorker<PoolCells>>,
    ) -> Self {
        let view = PoolView {
            view: balance::View::build(&balance::Algorithm::RoundRobin, Vec::new()),
            members: Vec::new(),
            standings: Vec::new(),
            panic: false,
            divided: false,
            bound: None,
            learnt: None,
        };
        Self {
            name,
            labels: None,
            group: 0,
            rotation: balance::Rotation::default(),
            budget,
            gate,
            stats,
            head_times: Arc::default(),
            view: ArcSwap::from_pointee(view),
            version: AtomicU64::new(0),
            outlook: ArcSwapOption::empty(),
            fairness: ArcSwapOption::empty(),
        }
    }

    /// A part of this pool: counters, budget and queue are the pool's, the view and its rotation are its own.
    pub(crate) fn subset(&self, labels: Arc<Labels>, group: u32) -> Self {
        let (budget, gate) = (self.budget.clone(), self.gate.clone());
        Self {
            labels: Some(labels),
            group,
            head_times: self.head_times.clone(),
            ..Self::new(self.name.clone(), budget, gate, self.stats.clone())
        }
    }

    /// As people read it: `web`, `web (version=v2)`.
    #[must_use]
    pub fn shown(&self) -> Arc<str> {
        match &self.labels {
            Some(labels) => format!("{} ({labels})", self.name).into(),
            None => self.name.clone(),
        }
    }

    /// Grows by one with each view: a worker compares it with the one it holds.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The view now. For those beside traffic, and for a worker whose version is behind.
    #[must_use]
    pub fn view(&self) -> Arc<PoolView> {
        self.view.load_full()
    }

    /// What it carries, and whether the rest would bear it; `None` until it was first looked at. For those beside traffic.
    #[must_use]
    pub fn outlook(&self) -> Option<Arc<Outlook>> {
        self.outlook.load_full()
    }

    pub(crate) fn set_outlook(&self, outlook: Outlook) {
        self.outlook.store(Some(Arc::new(outlook)));
    }

    /// How far affinity bends the balance; `None` where nothing binds clients, or few came of late. For those beside
    /// traffic.
    #[must_use]
    pub fn fairness(&self) -> Option<Arc<Fairness>> {
        self.fairness.load_full()
    }

    pub(crate) fn set_fairness(&self, fairness: Option<Fairness>) {
        self.fairness.store(fairness.map(Arc::new));
    }

    /// Swaps the view, and gives the one before.
    pub(crate) fn set_view(&self, view: PoolView) -> Arc<PoolView> {
        // Servers are shared with subsets, whose turns are others.
        if self.labels.is_none() {
            view.view.settle_turns(&self.rotation);
        }
        let before = self.view.swap(Arc::new(view));
        self.version.fetch_add(1, Ordering::Release);
        before
    }
}

/// The live half of a listener.
#[derive(Debug)]
pub struct ListenerState {
    /// Its name.
    pub name: Arc<str>,
    /// Totals.
    pub stats: PerWorker<ListenerCells>,
    /// Connections open now, in all workers.
    pub connections: AtomicU32,
    /// Accept loops that pause now, by why, in the order of [`PauseCause::ALL`].
    pub paused: [AtomicU32; PauseCause::ALL.len()],
}

/// The live half of a route.
#[derive(Debug)]
pub struct RouteState {
    /// Its listener's name.
    pub listener: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Totals.
    pub stats: PerWorker<RouteCells>,
    /// Position in the rotation over the arms of a split.
    pub rotation: AtomicU64,
    /// How long servers take until their response heads. Only kept where the route's own hedging asks for it.
    pub head_times: Quantile,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(gateway: Option<u32>, server: Option<u32>) -> Member {
        let endpoint = Endpoint::Unix("/x".into());
        let member = Member::new(1, "p".into(), "s".into(), endpoint, Arc::default(), 1);
        member.set_streaks_max(gateway, server);
        member
    }

    /// `g`ateway error, `5`00, `s`uccess; `G` and `S`: as `g` and `5`, and the streak is told.
    fn check(member: &Member, story: &str) {
        for (at, letter) in story.chars().enumerate() {
            let told = match letter {
                's' => {
                    member.note_success();
                    continue;
                }
                letter => member.note_failure(letter.eq_ignore_ascii_case(&'g')),
            };
            let expected = match letter {
                'G' => Some(Streak::GatewayErrors),
                'S' => Some(Streak::ServerErrors),
                _ => None,
            };
            assert_eq!(told, expected, "{story} at {at}");
            if told.is_some() {
                member.forget_told();
            }
        }
    }

    #[test]
    fn so_many_in_a_row_are_told() {
        check(&member(Some(3), None), "ggsggGggG");
        check(&member(Some(3), None), "gg5ggG");
        check(&member(Some(5), Some(3)), "55SggSggS");
        check(&member(None, None), "gggggg555555");
        check(&member(Some(1), None), "GGsG");
    }

    #[test]
    fn it_is_told_once_until_heard() {
        let member = member(Some(2), None);
        let told = (0..6).filter_map(|_| member.note_failure(true)).count();
        assert_eq!(told, 1);
    }

    #[test]
    fn on_trial_the_next_failure_counts() {
        let member = member(Some(5), None);
        member.set_on_trial();
        check(&member, "G");
        member.set_on_trial();
        check(&member, "sggggG");
    }
}
