//! The server that a pool would pick, and what speaks against the others.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use balance::{Algorithm, Local, Refused, State};
use config::{
    Address, Destination, HashKey, HedgeAfter, Labels, Pool, Retries, Route, Snapshot,
    show_duration,
};
use control::affinity;
use control::decide::{self, Against, WouldPick};
use control::live::{LimitedBy, Member, PoolState, Standing};
use control::message::Event;
use control::publisher::{Action, Publisher};
use control::world::World;
use serde::{Deserialize, Serialize};
use wire::grpc::Code;

use super::Known;
use super::bind::{self, Bind, Decider};
use crate::source;

/// Draws are the same each time, so that two runs of the command agree.
const SEED: u64 = 1;
/// Names are looked up for this long in all.
const RESOLVE_MAX: Duration = Duration::from_secs(2);
/// What a name's addresses are kept for here: longer than the command runs.
const TTL: Duration = Duration::from_secs(3600);

/// What one pool would pick.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolPick {
    pub(super) pool: String,
    /// Which of its servers the route chooses, if not all: `version=v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<String>,
    pub(super) balance: Cow<'static, str>,
    /// What is hashed, and what it is here; only for algorithms that hash.
    pub(super) key: Option<String>,
    /// What binds the request to a server, where the pool has affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) affinity: Option<Bind>,
    pub(super) server: Option<String>,
    /// What happens while there is no server.
    #[serde(default)]
    pub(super) instead: Option<String>,
    /// How far the answer holds.
    pub(super) note: Cow<'static, str>,
    /// When another server would be tried.
    pub(super) retries: String,
    pub(super) servers: Vec<ServerWhy>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ServerWhy {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) weight: u32,
    pub(super) why: String,
    /// Whether the algorithm had a word on it.
    #[serde(skip)]
    pub(super) candidate: bool,
    /// Known of a running instance only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) live: Option<LiveServer>,
}

/// How a server stands at the moment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LiveServer {
    pub(super) state: String,
    pub(super) health: String,
    pub(super) cause: String,
    /// Requests in use.
    pub(super) active: u32,
    /// Its part of the pool's picks by weight, 0 to 1.
    pub(super) traffic: f64,
}

/// The world that a config makes, before any probe has ended.
pub(super) fn world(
    snapshot: Arc<Snapshot>,
    resolve: impl Fn(&str, Duration) -> Result<Vec<IpAddr>, String>,
) -> Arc<World> {
    let mut publisher = Publisher::new(1, SEED);
    let (world, _) = publisher.apply(snapshot, Duration::ZERO);
    let began = std::time::Instant::now();
    while let Some(action) = publisher.poll_action() {
        if let Action::Resolve(name) = action {
            let left = RESOLVE_MAX.saturating_sub(began.elapsed());
            let answer = resolve(&name, left).map(|addresses| (addresses, TTL));
            publisher.handle_event(Event::Resolved { name, answer }, Duration::ZERO);
        }
    }
    // Views that the answers made out of date are built a moment later.
    publisher.handle_timeout(Duration::from_secs(1));
    world
}

/// Asks the system.
pub(super) fn resolve_by_system(name: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
    match source::resolve(name, limit) {
        Some(found) => found.map_err(|error| error.to_string()),
        None => Err("no answer in time".to_owned()),
    }
}

/// A request that a route took.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) route: &'a Route,
    /// Where it would have to wait.
    pub(super) priority: u8,
    pub(super) request: &'a rules::Request<'a>,
    pub(super) known: Known<'a>,
}

/// What the pool would pick for this request; `share`: its user's place in the split that led here.
pub(super) fn pick(
    world: &World,
    to: Destination,
    Asking {
        route,
        priority,
        request,
        known,
    }: Asking<'_>,
    share: Option<affinity::Share>,
) -> Option<PoolPick> {
    let pool = world.snapshot.pools.get(to.pool)?;
    let state = world.destination(to)?;
    let whole = world.pools.get(to.pool)?;
    let hashed = is_hashing(&pool.balance.algorithm);
    let key = key(&pool.balance.key, request);
    let now = known.now();
    let hash = key.as_ref().map(|key| key.hash);
    let local = Local::new(SEED);
    let (would, bound) = match &pool.affinity {
        None => (decide::would_pick(state, &local, hash, now), None),
        Some(affinity) => {
            let by = (pool, affinity);
            let bond = bind::bond(affinity, &state.view(), request, share, now);
            let would = decide::would_bind(state, &local, by, &bond, hash, priority, now);
            let bind = bind::explain(by, &bond, &would, request, known);
            let decider = Decider::of(&would);
            (would.pick, Some((bind, decider)))
        }
    };
    let labels = to.labels(&world.snapshot.pools);
    let mut servers = servers(pool, state, &would, known);
    servers.extend(labels.iter().flat_map(|it| others(whole, it)));
    let member = would.member.as_ref();
    let note = note(&pool.balance.algorithm, known, would.view.panic);
    let (note, instead) = match &bound {
        None => (note, None),
        Some((bind, decider)) => {
            bind::put_others_aside(&mut servers, bind, *decider);
            bind::told(bind, *decider, note)
        }
    };
    Some(PoolPick {
        pool: pool.name.to_string(),
        labels: labels.map(ToString::to_string),
        balance: pool.balance.name.into(),
        key: hashed.then(|| key_text(&pool.balance.key, key.as_ref())),
        server: member.map(|member| member.name.to_string()),
        instead: member
            .is_none()
            .then(|| instead.unwrap_or_else(|| instead_of(pool, state, &would, priority))),
        note: note.into(),
        affinity: bound.map(|(bind, _)| bind),
        retries: retries(route.retries_of(to.pool, pool)),
        servers,
    })
}

/// What a request gets while no server is to be had.
fn instead_of(pool: &Pool, state: &PoolState, would: &WouldPick, priority: u8) -> String {
    if !would.full {
        return "503 no_usable_server".to_owned();
    }
    let is_pool = |said: &Against| *said == Against::Refused(Refused::PoolFull);
    let (reason, why) = match state.gate.max() {
        Some(max) if would.candidates.iter().any(is_pool) => (
            "pool_limit",
            format!("the pool is full ({} of {max} in use)", state.gate.in_use()),
        ),
        _ => ("server_limit", "every server is full".to_owned()),
    };
    let Some(queue) = pool.queue else {
        return format!("503 {reason}: {why}, and the pool has no queue");
    };
    match state.gate.would_enter(priority, queue.max) {
        None => format!(
            "503 queue_full: {why}, and {} wait, as many as may",
            state.gate.waiting()
        ),
        Some(before) => format!(
            "waits up to {} for its turn: {why}, and {before} wait before it",
            show_duration(queue.wait)
        ),
    }
}

fn servers(pool: &Pool, state: &PoolState, would: &WouldPick, known: Known<'_>) -> Vec<ServerWhy> {
    let view = &would.view;
    let server = |standing: &Standing| {
        let mut members = view.members.iter();
        let at = members.position(|member| member.id == standing.member.id);
        let said = at.and_then(|at| would.candidates.get(at)).copied();
        let live = match known {
            Known::Config => None,
            Known::Live { now, .. } => Some(LiveServer {
                state: standing.member.cell.state().to_string(),
                health: standing.condition.word().to_owned(),
                cause: standing.cause_at(now).to_string(),
                active: standing.member.cell.in_use(),
                traffic: standing.traffic,
            }),
        };
        ServerWhy {
            name: standing.member.name.to_string(),
            address: standing.member.endpoint.to_string(),
            weight: standing.weight,
            why: why(standing, said, live.as_ref()),
            candidate: said.is_some(),
            live,
        }
    };
    let mut all: Vec<ServerWhy> = view.standings.iter().map(server).collect();
    all.extend(unresolved(pool, state.labels.as_deref(), &view.standings));
    all
}

/// Why a server is picked or not. `said`: of a candidate.
fn why(standing: &Standing, said: Option<Against>, live: Option<&LiveServer>) -> String {
    let noted = |why: String| match &*standing.note {
        "" => why,
        note => format!("{why}; {note}"),
    };
    match said {
        Some(Against::Algorithm(why)) => noted(why.to_string()),
        Some(Against::Refused(Refused::Full)) => {
            let (in_use, max) = (
                standing.member.cell.in_use(),
                standing.member.connections_max(),
            );
            let max = max.map_or_else(|| "no bound".to_owned(), |max| max.to_string());
            let by = standing.member.limited_by();
            let by = by.map_or(String::new(), |by| by_what(by, &standing.member));
            noted(format!("at its limit: {in_use} of {max} in use{by}"))
        }
        Some(Against::Refused(refused)) => noted(refused.to_string()),
        None if standing.weight == 0 => "weight 0: takes no new traffic".to_owned(),
        None if standing.usable && !standing.note.is_empty() => standing.note.to_string(),
        None => match live {
            None => standing.cause.to_string(),
            Some(live) => match (standing.member.cell.state(), standing.operator) {
                (State::Ready, _) => format!("{}: {}", live.health, live.cause),
                (state, Some(word)) if word == state => format!("{state}, by its operator"),
                (state, _) => format!("{state}: it says {}", standing.says),
            },
        },
    }
}

/// What a limit comes from, where that is more than a number of the file.
fn by_what(by: LimitedBy, member: &Member) -> String {
    match by {
        LimitedBy::Sockets => {
            let (max, sockets) = (member.connections_max(), member.sockets_max());
            match max.and_then(|max| max.checked_div(sockets)) {
                Some(each) if each > 1 => {
                    format!(", as {sockets} connections of {each} requests allow")
                }
                _ => String::new(),
            }
        }
        LimitedBy::MaxConnections => String::new(),
        LimitedBy::Agent => ", as its agent says".to_owned(),
        LimitedBy::HalfOpen => ", until one succeeds".to_owned(),
        LimitedBy::Latency => ", as its latency allows".to_owned(),
    }
}

/// The servers whose names have no address.
fn unresolved(pool: &Pool, labels: Option<&Labels>, standings: &[Standing]) -> Vec<ServerWhy> {
    let stands = |name: &str| {
        standings.iter().any(|standing| {
            let member = &*standing.member.name;
            member == name
                || member
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('@'))
        })
    };
    let chosen = |of: &Labels| labels.is_none_or(|labels| labels.are_among(of));
    let servers = pool.servers.iter().filter(|it| chosen(&it.labels));
    let missing = servers.filter(|server| !stands(&server.name));
    missing
        .filter_map(|server| match &server.address {
            Address::Name(name, port) => Some(ServerWhy {
                name: server.name.to_string(),
                address: format!("{name}:{port}"),
                weight: server.weight,
                why: format!("`{name}` does not resolve now"),
                candidate: false,
                live: None,
            }),
            _ => None,
        })
        .collect()
}

/// The servers of a pool that a route does not choose.
fn others(pool: &PoolState, labels: &Labels) -> Vec<ServerWhy> {
    let view = pool.view();
    let others = view.standings.iter();
    let others = others.filter(|standing| !labels.are_among(&standing.labels));
    let why = |standing: &Standing| ServerWhy {
        name: standing.member.name.to_string(),
        address: standing.member.endpoint.to_string(),
        weight: standing.weight,
        live: None,
        candidate: false,
        why: if standing.labels.is_empty() {
            format!("the route wants {labels}: it has no labels")
        } else {
            format!("the route wants {labels}: it has {}", standing.labels)
        },
    };
    others.map(why).collect()
}

struct Key {
    hash: u64,
    shown: String,
}

/// What a hashing algorithm goes by; `None` when the request lacks it.
fn key(key: &HashKey, request: &rules::Request<'_>) -> Option<Key> {
    let of = |bytes: &[u8]| Key {
        hash: balance::hash_key(bytes),
        shown: String::from_utf8_lossy(bytes).into_owned(),
    };
    let mut scratch = Vec::new();
    match key {
        HashKey::Source => {
            let hash = decide::source_key(request.source);
            let shown = request.source.to_string();
            Some(Key { hash, shown })
        }
        HashKey::Header(name) => request.header(name).map(of),
        HashKey::Cookie(name) => request.cookie(name).map(|value| {
            let hash = balance::hash_key(value);
            // A session's cookie is as good as its password.
            let shown = format!("(hash {hash:016x})");
            Key { hash, shown }
        }),
        HashKey::Query(name) => request.query_value(name, &mut scratch).map(of),
        HashKey::Path => Some(of(request.path)),
    }
}

fn key_text(kind: &HashKey, key: Option<&Key>) -> String {
    let kind = match kind {
        HashKey::Source => "source".to_owned(),
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Query(name) => format!("query {name}"),
        HashKey::Path => "path".to_owned(),
    };
    match key {
        Some(key) => format!("{kind} = {}", key.shown),
        None => format!("{kind} is not there: drawn at random"),
    }
}

/// A policy in words.
fn retries(policy: &Retries) -> String {
    let mut words = vec![match policy.attempts {
        0 => "none once a byte was sent".to_owned(),
        1 => "1 further try".to_owned(),
        attempts => format!("{attempts} further tries"),
    }];
    if policy.attempts > 0 || policy.hedge.is_some() {
        words.push(format!("at most {}% of requests", policy.budget_percent));
    }
    if policy.attempts > 0 {
        if let Some(time) = policy.per_try_timeout {
            words.push(format!("after {} without an answer", show_duration(time)));
        }
        if !policy.statuses.is_empty() {
            let statuses = policy.statuses.iter().map(|(from, to)| match from == to {
                true => from.to_string(),
                false => format!("{from}-{to}"),
            });
            let statuses: Vec<_> = statuses.collect();
            words.push(format!("after {}", statuses.join(" ")));
        }
        if policy.codes != 0 {
            let codes = Code::ALL
                .iter()
                .filter(|code| policy.is_code_retried(**code));
            let codes: Vec<_> = codes.map(|code| code.name()).collect();
            words.push(format!("after {} of gRPC", codes.join(" ")));
        }
        if let Some(backoff) = policy.backoff {
            let (base, max) = (show_duration(backoff.base), show_duration(backoff.max));
            words.push(format!("waiting up to {base} and then {max}"));
        }
        for (method, repeats) in [
            ("POST", policy.repeats_post),
            ("PATCH", policy.repeats_patch),
        ] {
            if repeats {
                words.push(format!("{method} too"));
            }
        }
    }
    if let Some(hedge) = policy.hedge {
        let after = hedged_after(hedge.after);
        words.push(format!("hedged {} times after {after}", hedge.max).replace("1 times", "once"));
    }
    words.join(", ")
}

fn hedged_after(after: HedgeAfter) -> String {
    let measured = match after {
        HedgeAfter::Time(time) => return show_duration(time),
        HedgeAfter::Measured(measured) => measured,
    };
    let of = if measured.of_route { "route" } else { "pool" };
    let least = show_duration(measured.at_least);
    let most = measured.at_most.map_or_else(String::new, |most| {
        format!(" and at most {}", show_duration(most))
    });
    format!(
        "the {} of the {of}'s answers (at least {least}{most})",
        measured.percentile
    )
}

fn is_hashing(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::IpHash | Algorithm::ConsistentHash { .. } | Algorithm::Maglev
    )
}

fn note(algorithm: &Algorithm, known: Known<'_>, panic: bool) -> &'static str {
    let live = matches!(known, Known::Live { .. });
    if live && panic {
        return "no server is fit, or too few: those that still answer, or else all, are used";
    }
    match algorithm {
        Algorithm::RoundRobin if live => "its turn now; the next request gets the next one",
        Algorithm::RoundRobin => "the first request after a start; the next ones go on in turn",
        Algorithm::LeastConnections | Algorithm::LeastResponseTime { .. } if live => {
            "by the load of this moment"
        }
        Algorithm::LeastConnections | Algorithm::LeastResponseTime { .. } => {
            "with nothing in use yet; live load decides"
        }
        Algorithm::IpHash | Algorithm::ConsistentHash { .. } | Algorithm::Maglev => {
            "the same key gets the same server for as long as it serves"
        }
        _ => "one draw at random; another request may draw another",
    }
}
