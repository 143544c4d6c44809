//! What binds a request to a server: what was read of it, which server that is, and why it goes there or not.
//!
//! Nothing that could stand for its client is shown: of cookies, headers and addresses that are hashed or learnt by, the
//! hash, as `evenkeel affinity list` has it.

use std::fmt::Write as _;
use std::time::Duration;

use balance::learnt::Key;
use balance::{OnDrain, State};
use config::{Affinity, AffinityKind, HashKey, LearntBy, Pool, Strength, show_duration};
use control::affinity::{self, Bond, Fit, Share, Tie, cookie, request_key, source_key};
use control::decide::{Course, WouldBind};
use control::learnt::{LearntView, network_of};
use control::live::{PoolView, Standing};
use control::reason::Reason;
use rules::Request;
use serde::{Deserialize, Serialize};

use super::Known;
use super::pick::ServerWhy;
use crate::source;

/// What binds a request, in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bind {
    /// `cookie`, `app_cookie`, `header`, `source`, `hash`.
    pub(super) kind: String,
    /// What is read of a request: `cookie SERVERID`.
    pub(super) by: String,
    /// What was found there.
    pub(super) read: String,
    /// The server that it is bound to.
    pub(super) server: Option<String>,
    /// What comes of it, as the access log says it: `kept`, `new`, `foreign`, `moved`, `refused`; or `waits`.
    pub(super) binding: String,
    /// Why it goes there, or not.
    pub(super) why: String,
    pub(super) strength: String,
    pub(super) on_drain: String,
}

/// What binds a request to a server of the pool with this view. Learns nothing, and nothing is used by it.
pub(super) fn bond(
    affinity: &Affinity,
    view: &PoolView,
    request: &Request<'_>,
    share: Option<Share>,
    now: Duration,
) -> Bond {
    let learnt = |view: &LearntView| view.peek_bond(request, now);
    affinity::bond(&affinity.kind, view, request, share, source::wall, learnt)
}

/// All of it in words.
pub(super) fn explain(
    (pool, affinity): (&Pool, &Affinity),
    bond: &Bond,
    would: &WouldBind,
    request: &Request<'_>,
    known: Known<'_>,
) -> Bind {
    let found = read(affinity, bond, would, request, known);
    let owner = would.owner.as_ref();
    let binding = match would.course {
        Course::Any if bond.tie == Tie::Lost || bond.foreign => "foreign",
        Course::Any => "new",
        Course::Stays => "kept",
        Course::Waits(..) => "waits",
        Course::Moves | Course::Overflows(_) => "moved",
        Course::Refused => "refused",
    };
    Bind {
        kind: affinity.kind.name().to_owned(),
        by: by(&affinity.kind),
        read: found.words,
        server: owner
            .map(|owner| owner.member.name.to_string())
            .or(found.gone),
        binding: binding.to_owned(),
        why: why(pool, affinity, bond, would, known),
        strength: match affinity.strength {
            Strength::Preferred => "preferred".to_owned(),
            Strength::Required => "required".to_owned(),
        },
        on_drain: match affinity.on_drain {
            OnDrain::Keep => "keep".to_owned(),
            OnDrain::Move => "move".to_owned(),
        },
    }
}

/// Who decides on the server.
#[derive(Clone, Copy)]
pub(super) enum Decider {
    /// `balance`.
    Balance,
    /// The bond: its server takes it.
    Bond,
    /// The bond: it waits for its server alone.
    Wait,
    /// Its key, whose owner is not to be had.
    Key,
    /// Nobody: only its server may take it, and cannot.
    Nobody,
}

impl Decider {
    pub(super) fn of(would: &WouldBind) -> Self {
        match would.course {
            Course::Stays => Self::Bond,
            Course::Waits(..) => Self::Wait,
            Course::Refused => Self::Nobody,
            Course::Moves | Course::Overflows(_) if would.by_key => Self::Key,
            Course::Any | Course::Moves | Course::Overflows(_) => Self::Balance,
        }
    }
}

/// Says of servers that would have been candidates why nobody asks for them.
pub(super) fn put_others_aside(servers: &mut [ServerWhy], bind: &Bind, decider: Decider) {
    let owner = bind.server.as_deref();
    for server in servers.iter_mut().filter(|it| it.candidate) {
        let is_owner = owner == Some(&*server.name);
        server.why = match (decider, owner) {
            (Decider::Balance | Decider::Key, _) => return,
            (Decider::Wait, _) if is_owner => "the request waits for it".to_owned(),
            (Decider::Bond | Decider::Wait, Some(owner)) => {
                format!("the request is bound to {owner}")
            }
            (Decider::Nobody, _) if is_owner => {
                "the request is bound to it, and it cannot take it".to_owned()
            }
            (Decider::Nobody | Decider::Bond | Decider::Wait, _) => {
                "no other may take the request (strength: required)".to_owned()
            }
        };
    }
}

/// How far the answer holds, and what happens while there is no server, as what binds the request has it. `note`: by the
/// pool's algorithm.
pub(super) fn told(
    bind: &Bind,
    decider: Decider,
    note: &'static str,
) -> (&'static str, Option<String>) {
    match decider {
        Decider::Bond => ("it is bound to it", None),
        Decider::Wait => (note, Some(bind.why.clone())),
        Decider::Key => ("the next of its hash, while its own cannot take it", None),
        Decider::Nobody => (note, Some("503 affinity_server_unavailable".to_owned())),
        Decider::Balance => (note, None),
    }
}

/// What is read of requests.
fn by(kind: &AffinityKind) -> String {
    match kind {
        AffinityKind::Cookie(cookie) => format!("cookie {}", cookie.name),
        AffinityKind::Header(name) => format!("header {name}"),
        AffinityKind::Source { .. } => "hash of the source".to_owned(),
        AffinityKind::Hash(key) => format!("hash of {}", of_request(key)),
        AffinityKind::Learnt(learning) => match &learning.by {
            LearntBy::AppCookie { name, .. } => format!("app_cookie {name}, learnt"),
            LearntBy::Header(name) => format!("header {name}, learnt"),
            LearntBy::Source { .. } => "source, learnt".to_owned(),
        },
    }
}

fn of_request(key: &HashKey) -> String {
    match key {
        HashKey::Source => "the source".to_owned(),
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Query(name) => format!("query {name}"),
        HashKey::Path => "the path".to_owned(),
    }
}

/// What was found in a request.
struct Found {
    words: String,
    /// The name of the server that it is bound to, though the pool has it no longer.
    gone: Option<String>,
}

impl From<String> for Found {
    fn from(words: String) -> Self {
        Self { words, gone: None }
    }
}

fn read(
    affinity: &Affinity,
    bond: &Bond,
    would: &WouldBind,
    request: &Request<'_>,
    known: Known<'_>,
) -> Found {
    let owner = would.owner.as_ref();
    let owner = owner.map_or("no server", |owner| &owner.member.name);
    let none = "the request has none".to_owned();
    match &affinity.kind {
        AffinityKind::Cookie(cookie) => read_cookie(cookie, &would.pick.view, request).into(),
        AffinityKind::Header(name) => match (request.header(name), bond.tie) {
            (None, _) => none,
            (_, Tie::Lost) => "names no server of this pool".to_owned(),
            _ => format!("names {owner}"),
        }
        .into(),
        AffinityKind::Source { ipv6_prefix } => {
            let network = network(request, *ipv6_prefix);
            let hash = source_key(request.source, *ipv6_prefix);
            format!("{network} has the hash {hash:016x}, which is {owner}'s").into()
        }
        AffinityKind::Hash(key) => match request_key(key, request) {
            None => none,
            Some(hash) => format!("it has the hash {hash:016x}, which is {owner}'s"),
        }
        .into(),
        AffinityKind::Learnt(learning) => {
            let Some(learnt) = &would.pick.view.learnt else {
                return none.into();
            };
            let prefix = affinity.kind.source_prefix();
            let what = match (&learning.by, prefix) {
                (LearntBy::Source { .. }, Some(prefix)) => {
                    format!("{} has ", network(request, prefix))
                }
                (LearntBy::AppCookie { .. }, _) if bond.key.is_none() && bond.foreign => {
                    String::new()
                }
                _ if bond.key.is_none() => return none.into(),
                _ => "it has ".to_owned(),
            };
            read_learnt(learnt, bond.key, &what, known)
        }
    }
}

fn network(request: &Request<'_>, ipv6_prefix: u8) -> String {
    match network_of(request.source, ipv6_prefix) {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("{address}/{ipv6_prefix}"),
    }
}

/// What the request's cookies of the name say, one after another up to the one that counts.
fn read_cookie(config: &config::InsertedCookie, view: &PoolView, request: &Request<'_>) -> String {
    let Some(bound) = &view.bound else {
        return String::new();
    };
    let now = config.max_age.map(|_| source::wall().as_secs());
    let mut said = Vec::new();
    for look in cookie::looks(config, bound, request, now) {
        let (words, place) = match &look {
            cookie::Look::Foreign => ("is none of ours: forged, or cut off".to_owned(), None),
            cookie::Look::Unknown(value) => (
                "names no server of this pool: forged, of another secret or pool, or its server is gone"
                    .to_owned(),
                value.share,
            ),
            cookie::Look::Old(value) => (
                format!(
                    "was given longer ago than {}",
                    show_duration(config.max_age.unwrap_or_default())
                ),
                value.share,
            ),
            cookie::Look::Names(value, server) => {
                (format!("names {}", server.member.name), value.share)
            }
        };
        let place = place.map_or("", |_| ", and its user's place in a split");
        said.push(format!("{words}{place}"));
        if matches!(look, cookie::Look::Names(..)) {
            break;
        }
    }
    match said.as_slice() {
        [] => "the request has none".to_owned(),
        [one] => one.clone(),
        several => {
            let numbered = several.iter().enumerate();
            let numbered = numbered.map(|(at, words)| format!("number {} {words}", at + 1));
            numbered.collect::<Vec<_>>().join("; ")
        }
    }
}

fn read_learnt(learnt: &LearntView, key: Option<Key>, what: &str, known: Known<'_>) -> Found {
    let Known::Live { now, .. } = known else {
        return "a config does not show what was learnt: ask with --live"
            .to_owned()
            .into();
    };
    let Some(key) = key else {
        return "it is not known here: forged, expired, forgotten, or of another node"
            .to_owned()
            .into();
    };
    let mut words = format!("{what}the key {:016x}, ", key.word());
    let Some(binding) = learnt.binding(key, now) else {
        words.push_str("which is not known here");
        return words.into();
    };
    let unused = show_duration(Duration::from_secs(binding.unused.as_secs()));
    let _ = write!(words, "learnt for {}, unused for {unused}", binding.server);
    Found {
        words,
        gone: Some(binding.server.to_string()),
    }
}

fn why(
    pool: &Pool,
    affinity: &Affinity,
    bond: &Bond,
    would: &WouldBind,
    known: Known<'_>,
) -> String {
    let strength = match affinity.strength {
        Strength::Preferred => "strength: preferred",
        Strength::Required => "strength: required",
    };
    let elsewhere = |why: &str| match (&affinity.kind, &would.pick.member) {
        (_, Some(member)) if would.by_key => {
            let name = &member.name;
            format!("{why}: {name}, the next of its hash, takes it meanwhile")
        }
        (AffinityKind::Source { .. } | AffinityKind::Hash(_), _) => {
            format!("{why}: `balance` decides meanwhile")
        }
        _ => format!("{why}: another takes it, and it is bound to that"),
    };
    let stands = would.owner.as_ref().and_then(|owner| {
        let mut standings = would.pick.view.standings.iter();
        let standing = standings.find(|it| it.member.id == owner.member.id)?;
        Some(Owner {
            standing,
            fit: match owner.fit {
                Fit::Drains if owner.member.is_drained() => Fit::Drained,
                fit => fit,
            },
            known,
        })
    });
    match (would.course, &stands) {
        (Course::Any, _) => unbound(affinity, bond),
        (Course::Stays, Some(owner)) => owner.keeps(would.pick.view.panic),
        (Course::Stays, None) => "it stays".to_owned(),
        (Course::Waits(reason, wait), _) => {
            let then = match affinity.strength {
                Strength::Preferred => "then another takes it",
                Strength::Required => "then 503 affinity_server_unavailable",
            };
            format!(
                "{}: waits up to {} for it alone, {then}",
                full(reason),
                show_duration(wait)
            )
        }
        (Course::Overflows(reason), _) => {
            let unwaited = match (pool.queue, affinity.queue_wait) {
                (Some(_), Some(_)) => "as many wait as may",
                _ => "it may not wait",
            };
            elsewhere(&format!("{}, and {unwaited}", full(reason)))
        }
        (Course::Moves, Some(owner)) => elsewhere(&owner.leaves(affinity)),
        (Course::Moves, None) => elsewhere("its server is no longer in the pool"),
        (Course::Refused, Some(owner)) => {
            format!(
                "{}: no other may take it ({strength})",
                owner.leaves(affinity)
            )
        }
        (Course::Refused, None) => format!("there is no such server ({strength})"),
    }
}

/// What comes of a request that is bound to no server.
fn unbound(affinity: &Affinity, bond: &Bond) -> String {
    match (&affinity.kind, bond) {
        (AffinityKind::Cookie(_), bond) if bond.foreign => {
            "it is ignored, and replaced: any server will do".to_owned()
        }
        (AffinityKind::Cookie(_), _) => {
            "any server will do, and the answer sets the cookie for it".to_owned()
        }
        (AffinityKind::Header(_), bond) if bond.tie == Tie::Lost => {
            "any server will do (strength: preferred)".to_owned()
        }
        (AffinityKind::Header(_) | AffinityKind::Hash(_) | AffinityKind::Source { .. }, _) => {
            "`balance` decides".to_owned()
        }
        (AffinityKind::Learnt(learning), _) => match &learning.by {
            LearntBy::AppCookie { .. } => {
                "any server will do; it is bound to the one that gives it a session".to_owned()
            }
            LearntBy::Header(_) | LearntBy::Source { .. } => {
                "any server will do, and it is bound to that".to_owned()
            }
        },
    }
}

fn full(reason: Reason) -> &'static str {
    match reason {
        Reason::PoolLimit => "the pool is full",
        _ => "its server is full",
    }
}

/// The server that a request is bound to, as it stands.
struct Owner<'a> {
    standing: &'a Standing,
    fit: Fit,
    known: Known<'a>,
}

impl Owner<'_> {
    /// Why its clients stay.
    fn keeps(&self, panic: bool) -> String {
        let standing = self.standing;
        let noted = |words: String| match &*standing.note {
            "" => words,
            note => format!("{words} ({note})"),
        };
        match self.fit {
            Fit::Drains => {
                "it drains, and its clients stay until that ends (on_drain: keep)".to_owned()
            }
            Fit::Closed => "it has weight 0, and its clients stay (on_drain: keep)".to_owned(),
            _ if standing.traffic == 0.0 => {
                noted("it stays, though nobody new goes there".to_owned())
            }
            _ if panic => "it stays: its server is used for want of better ones".to_owned(),
            _ => match self.known {
                Known::Config => noted("it stays".to_owned()),
                Known::Live { .. } => noted(format!(
                    "it stays: its server is {}",
                    standing.condition.word()
                )),
            },
        }
    }

    /// Why they leave.
    fn leaves(&self, affinity: &Affinity) -> String {
        let standing = self.standing;
        let by = match standing.operator {
            Some(State::Ready) | None => "",
            Some(_) => " by its operator",
        };
        match self.fit {
            Fit::Drained => "its server's drain is over".to_owned(),
            Fit::Drains => format!("its server drains{by} (on_drain: move)"),
            Fit::Closed => "its server has weight 0 (on_drain: move)".to_owned(),
            Fit::Disabled => format!("its server is disabled{by}"),
            // Full, and not waited for.
            Fit::Serves => match affinity.queue_wait {
                None => "its server is full, and it may not wait".to_owned(),
                Some(_) => "its server is full, and nobody may wait".to_owned(),
            },
            Fit::Unfit => {
                let cause = match self.known {
                    Known::Config => standing.cause.clone(),
                    Known::Live { now, .. } => standing.cause_at(now),
                };
                format!("its server is {}: {cause}", standing.condition.word())
            }
        }
    }
}
