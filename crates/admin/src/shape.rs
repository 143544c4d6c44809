//! The objects of the API, their keys in the order in which they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balance::{Condition, State};
use config::{Bind, Destination, Labels, Protocol, Target};
use control::live::{ListenerState, Member, PoolState, PoolView, Standing};
use control::metrics::Counter;
use control::world::World;
use serde::Serialize;

use crate::Addresses;
use crate::carried::Totals;
use crate::metrics::{ACTIVE, total_before};

type LabelMap = BTreeMap<Arc<str>, Arc<str>>;

fn label_map(labels: &Labels) -> LabelMap {
    let pairs = labels.iter();
    pairs
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct Server {
    pool: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) address: String,
    pub(crate) state: String,
    pub(crate) health: &'static str,
    pub(crate) cause: Arc<str>,
    /// Its operator's word, if there was one.
    operator: Option<String>,
    /// What it says of itself, as an agent would write it; empty if it says nothing.
    says: Arc<str>,
    labels: LabelMap,
    pub(crate) weight: u32,
    /// What it gets by, for now: the weight, less what traffic takes off; 0 while it may not be picked.
    effective_weight: f64,
    pub(crate) active: u64,
    /// Requests that it may hold at once, and what that comes from.
    limit: Option<u32>,
    limited_by: Option<&'static str>,
    pub(crate) picks: u64,
    pub(crate) usable: bool,
    /// Its part of the pool's picks by weight, 0 to 1.
    traffic: f64,
    /// How long a drill has it out yet; absent while none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    drill_left_ms: Option<u64>,
    /// Why that is more or less than its weight says; empty if it is not.
    pub(crate) note: Arc<str>,
}

impl Server {
    /// `now`: since the start of the process, as the publisher counts. `before`: what the process before this one has
    /// counted.
    pub(crate) fn new(
        standing: &Standing,
        view: &PoolView,
        before: &Totals,
        now: Duration,
    ) -> Self {
        let Standing { member, .. } = standing;
        let labels = [("pool", &*member.pool), ("server", &*member.name)];
        let before = |family| total_before(before, family, &labels);
        Self {
            pool: member.pool.clone(),
            name: member.name.clone(),
            address: member.endpoint.to_string(),
            state: member.cell.state().to_string(),
            health: standing.condition.word(),
            cause: standing.cause_at(now),
            operator: standing.operator.map(|word| word.to_string()),
            says: standing.says.clone(),
            labels: label_map(&standing.labels),
            weight: standing.weight,
            effective_weight: effective_weight(standing),
            active: u64::from(member.cell.in_use()) + before(ACTIVE),
            limit: member.connections_max(),
            limited_by: member.limited_by().map(control::live::LimitedBy::name),
            picks: member.cell.picks() + before("evenkeel_picks_total"),
            usable: is_usable(standing, view),
            traffic: (standing.traffic * 1e4).round() / 1e4,
            drill_left_ms: standing.drilled_until.map(|until| {
                u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX)
            }),
            note: standing.note.clone(),
        }
    }
}

/// What a server's traffic is in proportion to; 0 while it may not be picked.
pub(crate) fn effective_weight(standing: &Standing) -> f64 {
    if standing.traffic > 0.0 && standing.member.cell.state() == State::Ready {
        f64::from(standing.weight) * standing.share.factor()
    } else {
        0.0
    }
}

/// Whether a server may be picked in its own right: not as one that a pool in panic falls back on.
pub(crate) fn is_usable(standing: &Standing, view: &PoolView) -> bool {
    let falls_back =
        view.panic && !matches!(standing.condition, Condition::Healthy | Condition::Degraded);
    // The operator's word is newer than the view, by a moment.
    standing.usable && !falls_back && standing.member.cell.state() == State::Ready
}

pub(crate) fn servers(view: &PoolView, before: &Totals, now: Duration) -> Vec<Server> {
    let standings = view.standings.iter();
    standings
        .map(|standing| Server::new(standing, view, before, now))
        .collect()
}

/// Whether a name means this member: its own, or that of the DNS name which it is one address of.
pub(crate) fn answers_to(member: &Member, name: &str) -> bool {
    let rest = member.name.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    pub(crate) name: Arc<str>,
    pub(crate) balance: &'static str,
    health_check: &'static str,
    pub(crate) servers: usize,
    pub(crate) usable: usize,
    /// Whether it falls back on servers that are not usable.
    pub(crate) panic: bool,
    active: u64,
    /// Requests that wait while all servers are full.
    pub(crate) waiting: usize,
    /// What routes choose of it by label.
    subsets: Vec<Subset>,
    /// Requests that no server served, and further tries, since the start, of processes upgraded in place as well.
    failed: u64,
    retried: u64,
    /// What it carries, and whether the rest would bear it; absent until it was first looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<control::capacity::Outlook>,
    /// How far affinity bends the balance; absent where nothing binds clients, or few came of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    fairness: Option<control::fairness::Fairness>,
}

/// A part of a pool, as its routes see it.
#[derive(Debug, Serialize)]
struct Subset {
    labels: LabelMap,
    servers: usize,
    usable: usize,
    panic: bool,
}

impl Pool {
    pub(crate) fn new(
        config: &config::Pool,
        state: &PoolState,
        subsets: &[Arc<PoolState>],
        before: &Totals,
    ) -> Self {
        let view = state.view();
        let standings = view.standings.iter();
        let before = |family| total_before(before, family, &[("pool", &config.name)]);
        Self {
            name: config.name.clone(),
            balance: config.balance.name,
            health_check: match config.health_check.as_ref().map(|check| &check.probe) {
                None => "off",
                Some(config::Probe::Tcp) => "tcp",
                Some(config::Probe::Http(_)) => "http",
                Some(config::Probe::Grpc(_)) => "grpc",
            },
            servers: view.standings.len(),
            usable: usable(&view),
            panic: view.panic,
            waiting: state.gate.waiting() + state.gate.aside(),
            subsets: subsets.iter().map(|subset| Subset::new(subset)).collect(),
            failed: state.stats.sum(|cells| cells.failed.get())
                + before("evenkeel_pool_failed_total"),
            retried: state
                .stats
                .sum(|cells| cells.retries.iter().map(Counter::get).sum())
                + before("evenkeel_retries_total"),
            capacity: state.outlook().map(|outlook| (*outlook).clone()),
            fairness: state.fairness().map(|fairness| (*fairness).clone()),
            active: standings
                .map(|standing| u64::from(standing.member.cell.in_use()))
                .sum::<u64>()
                + before(ACTIVE),
        }
    }
}

impl Subset {
    fn new(state: &PoolState) -> Self {
        let view = state.view();
        Self {
            labels: state.labels.as_deref().map(label_map).unwrap_or_default(),
            servers: view.standings.len(),
            usable: usable(&view),
            panic: view.panic,
        }
    }
}

/// How many servers of a pool may be picked in their own right.
pub(crate) fn usable(view: &PoolView) -> usize {
    let standings = view.standings.iter();
    standings
        .filter(|standing| is_usable(standing, view))
        .count()
}

/// Each pool's config with its live state, and that of its subsets.
pub(crate) fn pools(
    world: &World,
) -> impl Iterator<Item = (&config::Pool, &Arc<PoolState>, &[Arc<PoolState>])> {
    let live = world.pools.iter().zip(&world.subsets);
    let pools = world.snapshot.pools.iter().zip(live);
    pools.map(|(config, (state, subsets))| (config, state, &**subsets))
}

#[derive(Debug, Serialize)]
pub(crate) struct Listener {
    name: Arc<str>,
    protocol: &'static str,
    /// As configured.
    bind: Vec<String>,
    /// Where it really listens.
    addresses: Vec<String>,
    connections: u32,
    accepted: u64,
    routes: usize,
}

/// What a listener has accepted, in this process and in those before it.
fn accepted(live: &ListenerState, before: &Totals) -> u64 {
    live.stats.sum(|cells| cells.accepted.get())
        + total_before(
            before,
            "evenkeel_listener_accepted_total",
            &[("listener", &live.name)],
        )
}

pub(crate) fn listeners(world: &World, addresses: &Addresses, before: &Totals) -> Vec<Listener> {
    let real = addresses
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    let listeners = world.snapshot.listeners.iter().zip(&world.listeners);
    listeners
        .map(|(config, live)| {
            let (protocol, routes) = match &config.protocol {
                Protocol::Http(http) => ("http", http.routes.len()),
                Protocol::Tcp(tcp) => ("tcp", tcp.routes.len()),
            };
            let real = real.iter().filter(|(name, _)| *name == config.name);
            Listener {
                name: config.name.clone(),
                protocol,
                bind: config.binds.iter().map(bind).collect(),
                addresses: real.map(|(_, address)| address.clone()).collect(),
                connections: live.connections.load(std::sync::atomic::Ordering::Relaxed),
                accepted: accepted(live, before),
                routes,
            }
        })
        .collect()
}

fn bind(bind: &Bind) -> String {
    match bind {
        Bind::Tcp {
            address,
            dual_stack: true,
            ..
        } => format!(":{}", address.port()),
        Bind::Tcp { address, .. } => address.to_string(),
        Bind::Unix(path) => format!("unix:{path}"),
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Route {
    listener: Arc<str>,
    /// Absent for the one way of a TCP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Arc<str>>,
    #[serde(flatten)]
    target: To,
    /// Which servers of its one pool are meant, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<LabelMap>,
    requests: u64,
}

/// Where a route leads: one of these keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Pool(Arc<str>),
    Split(Vec<Arm>),
    /// A filter of the route answers.
    Answer(bool),
}

#[derive(Debug, Serialize)]
struct Arm {
    pool: Arc<str>,
    /// Which of its servers are meant, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<LabelMap>,
    weight: u32,
}

pub(crate) fn routes(world: &World, before: &Totals) -> Vec<Route> {
    let pools = &world.snapshot.pools;
    let name = |to: &Destination| -> Arc<str> {
        let pool = pools.get(to.pool);
        pool.map_or_else(|| "".into(), |pool| pool.name.clone())
    };
    let labels = |to: &Destination| to.labels(pools).map(label_map);
    let only = |target: &Target| match target {
        Target::Pool(it) => labels(it),
        _ => None,
    };
    let to = |target: &Target| match target {
        Target::Pool(it) => To::Pool(name(it)),
        Target::Split(arms) => To::Split(
            arms.iter()
                .map(|arm| Arm {
                    pool: name(&arm.to),
                    labels: labels(&arm.to),
                    weight: arm.weight,
                })
                .collect(),
        ),
        Target::Answer => To::Answer(true),
    };
    let mut routes = Vec::new();
    let live = world.listeners.iter().zip(&world.routes);
    for (config, (listener, states)) in world.snapshot.listeners.iter().zip(live) {
        match &config.protocol {
            Protocol::Http(http) => {
                for (route, state) in http.routes.iter().zip(states) {
                    routes.push(Route {
                        listener: config.name.clone(),
                        name: Some(route.name.clone()),
                        target: to(&route.target),
                        labels: only(&route.target),
                        requests: state
                            .stats
                            .sum(|cells| (0..6).map(|class| cells.classes.get(class)).sum())
                            + total_before(
                                before,
                                "evenkeel_requests_total",
                                &[("listener", &config.name), ("route", &route.name)],
                            ),
                    });
                }
            }
            // Connections are counted by listener, not by what their clients ask for.
            Protocol::Tcp(tcp) if !tcp.routes.is_empty() => {
                for route in &tcp.routes {
                    routes.push(Route {
                        listener: config.name.clone(),
                        name: Some(route.name.clone()),
                        target: to(&route.target),
                        labels: only(&route.target),
                        requests: accepted(listener, before),
                    });
                }
            }
            Protocol::Tcp(tcp) => routes.push(Route {
                listener: config.name.clone(),
                name: None,
                target: to(&tcp.target),
                labels: only(&tcp.target),
                requests: accepted(listener, before),
            }),
        }
    }
    routes
}
