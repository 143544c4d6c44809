//! Affinities that get in each other's way: cookies that overwrite one another, and splits that forget who is in which
//! arm. What is wrong with one pool's alone is for [`affinity`](super::affinity).

use std::collections::{BTreeMap, BTreeSet};

use rules::{HostPattern, Scratch};

use super::PoolNames;
use super::affinity::cookie_of;
use crate::diagnostic::{Kind, Report};
use crate::snapshot::{
    AffinityKind, Arm, Destination, HashKey, InsertedCookie, LearntBy, Listener, Pool, Protocol,
    Server, Target,
};

/// Pairs of routes that are compared at most for one cookie, so that thousands of pools take no longer than a moment.
const PAIRS_MAX: u32 = 200_000;

/// What makes a browser take two cookies for one.
type Key<'a> = (&'a str, &'a str, Option<&'a str>);

/// A route that leads to a pool with a cookie.
#[derive(Clone, Copy)]
struct Use<'a> {
    to: Destination,
    listener: usize,
    route: usize,
    /// None: any.
    hosts: &'a [HostPattern],
}

pub(super) fn check_together(
    listeners: &[Listener],
    pools: &[Pool],
    names: &PoolNames,
    report: &mut Report,
) {
    let mut uses: BTreeMap<Key<'_>, Vec<Use<'_>>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (at, listener) in listeners.iter().enumerate() {
        let Protocol::Http(http) = &listener.protocol else {
            continue;
        };
        let routes = http.routes.iter().zip(http.table.matches());
        for (number, (route, matching)) in routes.enumerate() {
            if let Target::Split(arms) = &route.target {
                check_split(arms, &route.name, &listener.name, pools, names, report);
            }
            for to in route.target.destinations() {
                let Some(cookie) = pools.get(to.pool).and_then(cookie_of) else {
                    continue;
                };
                // With a domain it is for all hosts there.
                let hosts = match cookie.domain {
                    None => &*matching.host,
                    Some(_) => &[],
                };
                let is_split = matches!(route.target, Target::Split(_));
                if hosts.is_empty() && !is_split && !known.insert((at, to.pool, to.subset)) {
                    continue;
                }
                uses.entry(key_of(cookie)).or_default().push(Use {
                    to,
                    listener: at,
                    route: number,
                    hosts,
                });
            }
        }
    }
    let mut check = Check {
        listeners,
        pools,
        met: BTreeSet::new(),
        scratch: Scratch::new(),
    };
    for uses in uses.values() {
        for (one, other) in check.clashes(uses) {
            let message = check.message(&one, &other);
            report.warn_once(Kind::Conflict, names.span(other.to.pool), message);
        }
    }
}

fn key_of(cookie: &InsertedCookie) -> Key<'_> {
    (&cookie.name, &cookie.path, cookie.domain.as_deref())
}

struct Check<'a> {
    listeners: &'a [Listener],
    pools: &'a [Pool],
    /// Places that meet: each two are looked at, and told of, once, wherever they do.
    met: BTreeSet<[(usize, Option<u32>); 2]>,
    scratch: Scratch,
}

impl Check<'_> {
    /// Uses of one cookie where a client of both loses its server at each change.
    fn clashes<'u>(&mut self, uses: &[Use<'u>]) -> Vec<(Use<'u>, Use<'u>)> {
        let mut found = Vec::new();
        // Within one listener first: that is what is told, if it is so in several.
        for across in [false, true] {
            // Most hosts are names: these are looked up, the first use of each.
            let mut by_host: BTreeMap<(Option<usize>, &str), Use<'u>> = BTreeMap::new();
            let mut wide: Vec<Use<'u>> = Vec::new();
            let mut pairs = 0;
            for (at, this) in uses.iter().enumerate() {
                let listener = (!across).then_some(this.listener);
                let names = this.hosts.iter().filter_map(HostPattern::as_exact);
                let alike = names.map(|host| *by_host.entry((listener, host)).or_insert(*this));
                let alike: Vec<Use<'u>> = alike.collect();
                let is_wide = alike.is_empty() || alike.len() < this.hosts.len();
                let before = if is_wide {
                    uses.get(..at)
                } else {
                    Some(&*wide)
                };
                for other in before.into_iter().flatten().chain(&alike) {
                    pairs += 1;
                    if pairs > PAIRS_MAX {
                        break;
                    }
                    if (other.listener != this.listener) == across && self.clash(other, this) {
                        found.push((*other, *this));
                    }
                }
                if is_wide {
                    wide.push(*this);
                }
            }
        }
        found
    }

    fn clash(&mut self, one: &Use<'_>, other: &Use<'_>) -> bool {
        // The arms of a split share theirs on purpose.
        if one.to == other.to || (one.listener, one.route) == (other.listener, other.route) {
            return false;
        }
        let mut pair = [one.to, other.to].map(|to| (to.pool, to.subset));
        pair.sort_unstable();
        !self.met.contains(&pair)
            && meet(one.hosts, other.hosts, &mut self.scratch)
            && self.met.insert(pair)
            && !self.is_part(one.to, other.to)
    }

    /// Whether both are of one pool, and all servers of one are among those of the other: who is bound to one of them stays there on both ways.
    fn is_part(&self, one: Destination, other: Destination) -> bool {
        if one.pool != other.pool {
            return false;
        }
        let servers = self
            .pools
            .get(one.pool)
            .map_or(&[][..], |pool| &*pool.servers);
        let has = |to: Destination, server: &Server| {
            let labels = to.labels(self.pools);
            labels.is_none_or(|labels| labels.are_among(&server.labels))
        };
        let within = |narrow, wide| {
            let mut narrow = servers.iter().filter(|server| has(narrow, server));
            narrow.all(|server| has(wide, server))
        };
        within(one, other) || within(other, one)
    }

    fn message(&self, one: &Use<'_>, other: &Use<'_>) -> String {
        let shown = |it: &Use<'_>| format!("`{}`", it.to.shown(self.pools));
        let (first, second) = (shown(one), shown(other));
        let name = |it: &Use<'_>| self.listeners.get(it.listener).map_or("?", |it| &*it.name);
        let (listener, further) = (name(one), name(other));
        let cookie = self.pools.get(other.to.pool).and_then(cookie_of);
        let cookie = cookie.map_or("?", |cookie| &*cookie.name);
        let (of, ports) = if one.listener == other.listener {
            let of = format!("{first} and {second} of the listener `{listener}`");
            (of, "")
        } else {
            let of = format!("{first} of the listener `{listener}` and {second} of `{further}`");
            (of, ", and browsers do not tell ports apart")
        };
        let (what, help) = if one.to.pool == other.to.pool {
            (
                format!("the parts {of} share the cookie `{cookie}` of their pool"),
                "make them two pools with cookies of their own",
            )
        } else {
            (
                format!("the pools {of} use the same cookie `{cookie}`"),
                "give one another name or path",
            )
        };
        format!("{what}{ports}: a client of both loses its server at each change; {help}")
    }
}

fn meet(one: &[HostPattern], other: &[HostPattern], scratch: &mut Scratch) -> bool {
    let mut any = |host: &HostPattern| other.iter().any(|it| host.may_meet(it, scratch));
    one.is_empty() || other.is_empty() || one.iter().any(&mut any)
}

/// One kind decides for all arms: where they have several, or one has none, users change arms.
fn check_split(
    arms: &[Arm],
    route: &str,
    listener: &str,
    pools: &[Pool],
    names: &PoolNames,
    report: &mut Report,
) {
    let kind_of = |arm: &Arm| Some(&pools.get(arm.to.pool)?.affinity.as_ref()?.kind);
    let decides = arms.iter().find(|arm| kind_of(arm).is_some());
    let Some(first) = decides.and_then(kind_of).map(way) else {
        return;
    };
    // An arm that nobody comes to binds nobody.
    let arms = arms
        .iter()
        .filter(|arm| arm.weight > 0 || Some(*arm) == decides);
    let arms: Vec<(Destination, Option<&AffinityKind>)> =
        arms.map(|arm| (arm.to, kind_of(arm))).collect();
    let kinds = || arms.iter().filter_map(|(_, kind)| *kind);
    // A key tells the arm, whether that arm's own pool goes by it or not.
    let by_key = |kind: &AffinityKind| match kind {
        AffinityKind::Source { .. } | AffinityKind::Hash(_) => true,
        AffinityKind::Learnt(learning) => !matches!(learning.by, LearntBy::AppCookie { .. }),
        AffinityKind::Cookie(_) | AffinityKind::Header(_) => false,
    };
    let complete = kinds().count() == arms.len() || kinds().all(by_key);
    if complete && kinds().all(|kind| way(kind) == first) {
        return;
    }
    let shown = arms.iter().map(|(to, kind)| {
        let kind = kind.map_or_else(|| "nothing".to_owned(), way);
        format!("`{}` by {kind}", to.shown(pools))
    });
    let shown: Vec<String> = shown.collect();
    let message = format!(
        "the arms of the split of the route `{route}` of the listener `{listener}` bind their clients by different things, {}: it remembers them by {first} alone, and who is not known by that changes arms; give all of these pools the same kind of `affinity`",
        shown.join(", ")
    );
    let mut odd = arms
        .iter()
        .filter(|(_, kind)| kind.map(way).as_ref() != Some(&first));
    if let Some((to, _)) = odd.next() {
        report.warn_once(Kind::Conflict, names.span(to.pool), message);
    }
}

/// By what users of a split are told apart, in words: arms whose words are alike go together.
fn way(kind: &AffinityKind) -> String {
    match kind {
        // Each arm's cookie is looked at by its own name.
        AffinityKind::Cookie(_) => "cookie".to_owned(),
        AffinityKind::Learnt(learning) => match &learning.by {
            LearntBy::AppCookie { .. } => "app_cookie".to_owned(),
            by => by.to_string(),
        },
        AffinityKind::Header(name) => format!("header {name}"),
        AffinityKind::Source { ipv6_prefix } => format!("source, IPv6 by /{ipv6_prefix}"),
        AffinityKind::Hash(key) => match key {
            HashKey::Source => "hash of source".to_owned(),
            HashKey::Header(name) => format!("hash of header {name}"),
            HashKey::Cookie(name) => format!("hash of cookie {name}"),
            HashKey::Query(name) => format!("hash of query {name}"),
            HashKey::Path => "hash of path".to_owned(),
        },
    }
}
