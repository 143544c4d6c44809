//! The servers of a pool that may serve, made ready for picking.
//!
//! Who may serve is decided by [`usable`](crate::usable); the view takes the caller's word for it,
//! and only skips what an operator has drained or disabled since.

use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::hash::mix;
use crate::latency::stamp;
use crate::local::Local;
use crate::maglev::Maglev;
use crate::ring::Ring;
use crate::rotation::{Rotation, Turns};
use crate::sequence::Sequence;
use crate::server::Server;
use crate::share::Share;
use crate::spread::Spread;
use crate::tally::Tally;
use crate::tree::{Key, Tree};

/// Up to this many servers a pick looks at each.
const SCAN_MAX: usize = 64;
/// How often a draw or a turn that fell on a server not to be had is repeated.
const REPEATS_MAX: usize = 8;
/// How many places of a ring or table are walked before any server will do.
const WALK_MAX: usize = 4096;
/// Fractions of a turn in `Server::due`.
const DUE_UNIT: u64 = 1 << 12;

/// A server that may serve.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its shared cell.
    pub server: Arc<Server>,
    /// The caller's number for it, which stays the same while views come and go.
    pub id: u32,
    /// [`hash_key`](crate::hash_key) of its name: places it on rings and in tables, alike on every
    /// node.
    pub hash_name: u64,
    /// Its weight; with 0 it is no candidate.
    pub weight: u32,
    /// Which part of the weight it has for now. The weights of hashing algorithms move with it: a candidate gives up
    /// some of its own keys, and no others change hands.
    pub share: Share,
}

impl Candidate {
    /// What its traffic is in proportion to: its weight in the units of [`Share`]; above 0 with a weight above 0.
    pub fn units(&self) -> u32 {
        self.weight.saturating_mul(self.share.units())
    }
}

/// An immutable list of candidates, with what their algorithm needs worked out beforehand.
///
/// Built off the request path whenever the candidates or their weights change, and shared by all
/// workers. [`View::pick`] takes no lock and allocates nothing, except when a [`Local`] first
/// meets a view of more than 64 servers.
#[derive(Debug)]
pub struct View {
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) plan: Plan,
    spread: Spread,
    /// The sum of the weights, in units.
    total: u64,
    /// Tells a worker's scratch for this view from that for others.
    fingerprint: u64,
}

/// An algorithm with its tables.
#[derive(Debug)]
pub(crate) enum Plan {
    Turns(Sequence),
    Least(Measure),
    Ring(Ring, Option<f64>),
    Random,
    Two(Measure),
    Maglev(Maglev),
}

/// What makes one server better than another; per weight in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Connections,
    Latency,
    LatencyTimesConnections,
    PeakTimesConnections,
}

/// A pick, and the server that it was drawn against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) other: Option<usize>,
}

/// What one pick is made from.
pub(crate) struct Request<'a> {
    pub(crate) key: Option<u64>,
    pub(crate) tried: &'a [u32],
    /// A [`stamp`] of the time.
    pub(crate) now: u32,
}

impl View {
    /// Works out what `algorithm` needs. Candidates of weight 0 are dropped; the others keep their
    /// order.
    ///
    /// See [`View::build_time`] for how long it takes.
    pub fn build(algorithm: &Algorithm, candidates: Vec<Candidate>) -> Self {
        let mut candidates = candidates;
        candidates.retain(|candidate| candidate.weight > 0);
        let weights: Vec<u32> = candidates.iter().map(Candidate::units).collect();
        let plan = match algorithm {
            Algorithm::RoundRobin => Plan::Turns(Sequence::new(&weights)),
            Algorithm::LeastConnections => Plan::Least(Measure::Connections),
            Algorithm::LeastResponseTime {
                times_connections: false,
            } => Plan::Least(Measure::Latency),
            Algorithm::LeastResponseTime {
                times_connections: true,
            } => Plan::Least(Measure::LatencyTimesConnections),
            Algorithm::IpHash => Plan::Ring(Ring::new(&candidates), None),
            Algorithm::ConsistentHash { bounded_load } => Plan::Ring(
                Ring::new(&candidates),
                bounded_load.map(|bound| bound.max(1.0)),
            ),
            Algorithm::Random => Plan::Random,
            Algorithm::PowerOfTwo => Plan::Two(Measure::Connections),
            Algorithm::Maglev => Plan::Maglev(Maglev::new(&candidates)),
            Algorithm::PeakEwma => Plan::Two(Measure::PeakTimesConnections),
        };
        Self {
            plan,
            spread: Spread::new(&weights),
            total: weights.iter().map(|weight| u64::from(*weight)).sum(),
            fingerprint: candidates.iter().fold(0, |hash, candidate| {
                mix(
                    hash,
                    u64::from(candidate.id) << 32 | u64::from(candidate.units()),
                )
            }),
            candidates,
        }
    }

    /// About how long [`View::build`] takes, for who decides how often to build: on a core of 2025,
    /// in a release build, right to a factor of three. A ring has at most a million places
    /// however many servers there are, and so has a Maglev table.
    pub fn build_time(algorithm: &Algorithm, servers: usize) -> Duration {
        let servers = u32::try_from(servers).unwrap_or(u32::MAX);
        match algorithm {
            Algorithm::IpHash | Algorithm::ConsistentHash { .. } => {
                (Duration::from_micros(15).saturating_mul(servers)).min(Duration::from_millis(30))
            }
            Algorithm::Maglev if servers > 655 => Duration::from_millis(60),
            Algorithm::Maglev => Duration::from_millis(3),
            _ => Duration::from_nanos(100).saturating_mul(servers),
        }
    }

    /// Brings turns forward that were put off under a smaller share than now: a server picked once at a hundredth of its
    /// weight waits for hundreds of turns among equals, though it may have all of it by then. To be called before a new
    /// view is used, with the rotation that its picks are made with.
    pub fn settle_turns(&self, rotation: &Rotation) {
        let now = rotation.turns().saturating_mul(DUE_UNIT);
        for candidate in &self.candidates {
            let latest = now.saturating_add(self.pause(candidate.units()));
            candidate.server.limit_due(latest);
        }
    }

    /// From one turn of a server to its next one, among equals.
    fn pause(&self, units: u32) -> u64 {
        self.total.saturating_mul(DUE_UNIT) / u64::from(units.max(1))
    }

    /// How many candidates there are.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there is none, so that no pick can succeed.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// In the order given to [`View::build`], without those of weight 0.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Chooses a server: the index of its candidate, `None` if none is left.
    ///
    /// `tried` are the ids of servers that this request has been to, which are skipped, as are
    /// servers no longer ready. `key` is what the hashing algorithms hash, and is ignored by the
    /// others. The caller then takes a slot by [`Server::acquire`]; if it is refused, it adds the
    /// server to `tried` and picks again.
    pub fn pick(
        &self,
        rotation: &Rotation,
        local: &mut Local,
        key: Option<u64>,
        tried: &[u32],
        now: Duration,
    ) -> Option<usize> {
        let request = Request {
            key,
            tried,
            now: stamp(now),
        };
        let mut turns = if tried.is_empty() {
            Turns::Taken(rotation)
        } else {
            Turns::Further(rotation)
        };
        let choice = self.choose(&mut turns, local, &request)?;
        if matches!(self.plan, Plan::Least(_) | Plan::Two(_)) {
            self.note(
                choice.index,
                &mut Turns::Taken(rotation),
                local,
                request.now,
            );
        }
        Some(choice.index)
    }

    /// Chooses without a trace in what is shared.
    pub(crate) fn choose(
        &self,
        turns: &mut Turns<'_>,
        local: &mut Local,
        request: &Request<'_>,
    ) -> Option<Choice> {
        let index = match &self.plan {
            Plan::Turns(sequence) => self.choose_in_turn(sequence, turns, request),
            Plan::Least(measure) if self.len() <= SCAN_MAX => self.scan(*measure, request),
            Plan::Least(measure) => self.choose_by_tree(*measure, local, request),
            Plan::Ring(ring, bound) => {
                let key = request.key.unwrap_or_else(|| local.random());
                let bound = bound.map(|bound| self.fair_share(local) * bound);
                self.walk(ring.walk(key), bound, request)
            }
            Plan::Random => self.draw(None, local, request),
            Plan::Two(measure) => return self.choose_of_two(*measure, local, request),
            Plan::Maglev(table) => {
                let key = request.key.unwrap_or_else(|| local.random());
                self.walk(table.walk(key), None, request)
            }
        };
        index.map(|index| Choice { index, other: None })
    }

    fn choose_in_turn(
        &self,
        sequence: &Sequence,
        turns: &mut Turns<'_>,
        request: &Request<'_>,
    ) -> Option<usize> {
        let mut index = 0;
        for _ in 0..REPEATS_MAX {
            index = sequence.at(turns.next())?;
            if self.is_open(index, request) {
                return Some(index);
            }
        }
        self.open_from(index, None, request)
    }

    /// The least of all, read now.
    fn scan(&self, measure: Measure, request: &Request<'_>) -> Option<usize> {
        let mut best = None;
        let mut least = Key::CLOSED;
        for index in 0..self.len() {
            let key = self.key(measure, index, request.now);
            if key < least && !self.is_tried(index, request) {
                least = key;
                best = Some(index);
            }
        }
        best
    }

    fn choose_by_tree(
        &self,
        measure: Measure,
        local: &mut Local,
        request: &Request<'_>,
    ) -> Option<usize> {
        let key = |index: usize| self.key(measure, index, request.now);
        local
            .tree(self.fingerprint, || Tree::new(self.len(), key))
            .pick(key, |index| self.is_tried(index, request))
    }

    /// Two at random, and the better of them.
    fn choose_of_two(
        &self,
        measure: Measure,
        local: &mut Local,
        request: &Request<'_>,
    ) -> Option<Choice> {
        let first = self.draw(None, local, request)?;
        let Some(second) = self.draw(Some(first), local, request) else {
            return Some(Choice {
                index: first,
                other: None,
            });
        };
        let (a, b) = (
            self.key(measure, first, request.now),
            self.key(measure, second, request.now),
        );
        let (index, other) = if b < a {
            (second, first)
        } else {
            (first, second)
        };
        Some(Choice {
            index,
            other: Some(other),
        })
    }

    /// A server at random in proportion to the weights, other than `without`.
    fn draw(
        &self,
        without: Option<usize>,
        local: &mut Local,
        request: &Request<'_>,
    ) -> Option<usize> {
        let slots = self.spread.total() - without.map_or(0, |index| self.spread.slots(index).1);
        if slots == 0 {
            return None;
        }
        for _ in 0..REPEATS_MAX {
            let slot = local.below(slots);
            let index = match without {
                None => self.spread.at(slot),
                Some(without) => self.spread.at_without(slot, without),
            };
            if self.is_open(index, request) {
                return Some(index);
            }
        }
        let from = local.below(self.len() as u64) as usize;
        self.open_from(from, without, request)
    }

    /// The first server along `owners` that is open and, if there is a bound on the requests in
    /// use per weight, has room below it; if none has room, the first that is open.
    fn walk(
        &self,
        owners: impl Iterator<Item = usize>,
        bound: Option<f64>,
        request: &Request<'_>,
    ) -> Option<usize> {
        let mut first = None;
        let mut last = 0;
        for index in owners.take(WALK_MAX) {
            last = index;
            if Some(index) == first || !self.is_open(index, request) {
                continue;
            }
            if bound.is_none_or(|bound| self.has_room(index, bound)) {
                return Some(index);
            }
            first = first.or(Some(index));
        }
        first.or_else(|| self.open_from(last, None, request))
    }

    fn has_room(&self, index: usize, bound: f64) -> bool {
        let candidate = &self.candidates[index];
        let room = (bound * f64::from(candidate.units())).ceil();
        f64::from(candidate.server.in_use()) < room
    }

    /// The requests in use per unit of weight if all were shared out fairly, the one to come included.
    fn fair_share(&self, local: &mut Local) -> f64 {
        let count = |index: usize| self.candidates[index].server.in_use();
        let sum: u64 = if self.len() <= SCAN_MAX {
            (0..self.len()).map(|index| u64::from(count(index))).sum()
        } else {
            local
                .tally(self.fingerprint, || Tally::new(self.len(), count))
                .step(count)
        };
        (sum + 1) as f64 / self.total.max(1) as f64
    }

    /// The first server from `from` on, other than `without`, that this request may take.
    fn open_from(
        &self,
        from: usize,
        without: Option<usize>,
        request: &Request<'_>,
    ) -> Option<usize> {
        (from..self.len())
            .chain(0..from)
            .find(|index| Some(*index) != without && self.is_open(*index, request))
    }

    fn is_open(&self, index: usize, request: &Request<'_>) -> bool {
        self.candidates[index].server.ready_in_use().is_some() && !self.is_tried(index, request)
    }

    fn is_tried(&self, index: usize, request: &Request<'_>) -> bool {
        request.tried.contains(&self.candidates[index].id)
    }

    /// A server's key as it is now; closed if its operator lets none in.
    fn key(&self, measure: Measure, index: usize, now: u32) -> Key {
        let server = &*self.candidates[index].server;
        match server.ready_in_use() {
            None => Key::CLOSED,
            Some(in_use) => Key {
                load: measure.load(server, in_use, self.candidates[index].units(), now),
                due: server.due(),
            },
        }
    }

    /// Notes a pick among equals: when its turn comes again, and in the worker's tree what the
    /// server's key will be once it holds the request.
    fn note(&self, index: usize, turns: &mut Turns<'_>, local: &mut Local, now: u32) {
        let candidate = &self.candidates[index];
        let (server, units) = (&candidate.server, candidate.units());
        let due = turns.next().saturating_mul(DUE_UNIT);
        let due = due.saturating_add(self.pause(units));
        server.set_due(due);
        if let Plan::Least(measure) = self.plan
            && self.len() > SCAN_MAX
        {
            let load = measure.load(server, server.in_use().saturating_add(1), units, now);
            local
                .tree(self.fingerprint, || {
                    Tree::new(self.len(), |index| self.key(measure, index, now))
                })
                .set(index, Key { load, due });
        }
    }
}

impl Measure {
    fn load(self, server: &Server, in_use: u32, weight: u32, now: u32) -> f64 {
        let weight = f64::from(weight);
        let average = match self {
            Self::Connections => return f64::from(in_use) / weight,
            Self::Latency | Self::LatencyTimesConnections => server.average_at(now),
            Self::PeakTimesConnections => server.peak_at(now),
        };
        match average {
            // One request at a time, until there is a figure to go by.
            None if in_use == 0 => 0.0,
            None => f64::MAX,
            Some(average) if self == Self::Latency => average / weight,
            Some(average) => average * (f64::from(in_use) + 1.0) / weight,
        }
    }
}
