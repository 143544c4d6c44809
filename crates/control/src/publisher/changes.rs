//! What a reload changed, in numbers that an operator can check.
//!
//! Things that have a name are compared by name, routes without one by what they say: a route that only moved down
//! because another came before it did not change.

use std::collections::BTreeMap;

use config::{HttpListener, Listener, Pool, Protocol, Route, Server, Snapshot, Target};
use rules::RouteTable;

/// Routes without a name that are looked for by content among as many; beyond, they are compared by position.
const SEARCHED_MAX: usize = 2000;

/// What a config changed against the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Listeners that are new.
    pub listeners_added: usize,
    /// Listeners that are gone.
    pub listeners_removed: usize,
    /// Listeners whose addresses changed.
    pub listeners_moved: usize,
    /// Listeners whose settings changed, addresses and routes aside.
    pub listeners_changed: usize,
    /// Routes that are new.
    pub routes_added: usize,
    /// Routes that are gone.
    pub routes_removed: usize,
    /// Routes that match or do something else.
    pub routes_changed: usize,
    /// Routes that stayed as they are, and were put before or behind others.
    pub routes_moved: usize,
    /// Pools that are new.
    pub pools_added: usize,
    /// Pools that are gone.
    pub pools_removed: usize,
    /// Pools whose settings or servers changed.
    pub pools_changed: usize,
    /// Servers that are new, resolved addresses counted one by one.
    pub servers_added: usize,
    /// Servers that are gone.
    pub servers_removed: usize,
    /// Servers whose settings changed.
    pub servers_changed: usize,
    /// Connections of clients that were open.
    pub connections: u64,
    /// Those that are told to leave, because their listener is gone or speaks something else.
    pub connections_affected: u64,
    /// Requests and connections on removed servers, which end by themselves or at their pool's `drain.timeout`.
    pub draining: u64,
    /// Keys at the top of the config whose values are not those in force: they take effect at the next start. Whoever
    /// runs the process says which.
    pub next_start: Vec<&'static str>,
}

impl Changes {
    /// Whether the config says what the one before said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(count, ..)| *count == 0)
    }

    /// What changed, without whom it concerns: "2 routes changed, 1 server added".
    #[must_use]
    pub fn summary(&self) -> String {
        let changed = self.parts().into_iter().filter(|(count, ..)| *count > 0);
        let parts: Vec<String> = changed
            .map(|(count, what, how)| format!("{count} {what}{} {how}", plural(count as u64)))
            .collect();
        if parts.is_empty() {
            return "no listener, route, pool or server changed".to_owned();
        }
        parts.join(", ")
    }

    fn parts(&self) -> [(usize, &'static str, &'static str); 14] {
        [
            (self.listeners_added, "listener", "added"),
            (self.listeners_removed, "listener", "removed"),
            (self.listeners_moved, "listener", "moved"),
            (self.listeners_changed, "listener", "changed"),
            (self.routes_added, "route", "added"),
            (self.routes_removed, "route", "removed"),
            (self.routes_changed, "route", "changed"),
            (self.routes_moved, "route", "moved"),
            (self.pools_added, "pool", "added"),
            (self.pools_removed, "pool", "removed"),
            (self.pools_changed, "pool", "changed"),
            (self.servers_added, "server", "added"),
            (self.servers_removed, "server", "removed"),
            (self.servers_changed, "server", "changed"),
        ]
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}; {} of {} connection{} affected",
            self.summary(),
            grouped(self.connections_affected),
            grouped(self.connections),
            plural(self.connections)
        )?;
        if self.draining > 0 {
            let draining = grouped(self.draining);
            write!(f, "; {draining} in use on removed servers")?;
        }
        for key in &self.next_start {
            write!(f, "; `{key}` changed: that takes effect at the next start")?;
        }
        Ok(())
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// 41207 as `41,207`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub(super) fn compare(before: Option<&Snapshot>, after: &Snapshot) -> Changes {
    let mut changes = Changes::default();
    let (empty_listeners, empty_pools) = (Vec::new(), Vec::new());
    let (old_listeners, old_pools) = before.map_or((&empty_listeners, &empty_pools), |before| {
        (&before.listeners, &before.pools)
    });
    let mut old: BTreeMap<&str, &Listener> = old_listeners
        .iter()
        .map(|listener| (&*listener.name, listener))
        .collect();
    for listener in &after.listeners {
        let old = old.remove(&*listener.name);
        match old {
            None => changes.listeners_added += 1,
            Some(old) => {
                changes.listeners_moved += usize::from(old.binds != listener.binds);
                let same = settings(old, old_pools) == settings(listener, &after.pools);
                changes.listeners_changed += usize::from(!same);
            }
        }
        let old = old.map_or_else(Vec::new, |old| routes(old, old_pools));
        compare_routes(&old, &routes(listener, &after.pools), &mut changes);
    }
    changes.listeners_removed = old.len();
    changes.routes_removed += old
        .values()
        .map(|listener| routes(listener, old_pools).len())
        .sum::<usize>();

    let mut old: BTreeMap<&str, &Pool> = old_pools.iter().map(|pool| (&*pool.name, pool)).collect();
    for pool in &after.pools {
        match old.remove(&*pool.name) {
            None => changes.pools_added += 1,
            Some(before) => compare_pools(before, pool, &mut changes),
        }
    }
    changes.pools_removed = old.len();
    changes
}

/// Whether what speaks on a listener's open connections is no longer there.
pub(super) fn is_let_go(before: &Listener, after: &Snapshot) -> bool {
    let same = |now: &&Listener| {
        now.name == before.name
            && matches!(now.protocol, Protocol::Http(_))
                == matches!(before.protocol, Protocol::Http(_))
    };
    !after.listeners.iter().any(|now| same(&now))
}

/// A listener without its addresses and routes; where a TCP one leads, by name.
fn settings(listener: &Listener, pools: &[Pool]) -> (Listener, Option<Vec<Leads>>) {
    let mut listener = listener.clone();
    listener.binds.clear();
    let leads = match &mut listener.protocol {
        Protocol::Http(http) => {
            **http = HttpListener {
                table: RouteTable::default(),
                routes: Vec::new(),
                ..(**http).clone()
            };
            None
        }
        Protocol::Tcp(tcp) => {
            let routes = tcp.routes.iter_mut().map(|route| &mut route.target);
            let targets = routes.chain([&mut tcp.target]);
            let taken = targets.map(|target| std::mem::replace(target, Target::Answer));
            Some(taken.map(|target| leads(&target, pools)).collect())
        }
    };
    (listener, leads)
}

/// Pools, and parts of them, by name with their weights: indices mean something else in another snapshot.
type Leads = Vec<(String, Option<u32>)>;

fn leads(target: &Target, pools: &[Pool]) -> Leads {
    match target {
        Target::Pool(to) => vec![(to.shown(pools), None)],
        Target::Split(arms) => arms
            .iter()
            .map(|arm| (arm.to.shown(pools), Some(arm.weight)))
            .collect(),
        Target::Answer => Vec::new(),
    }
}

/// One route with all that makes it what it is.
struct Whole<'a> {
    /// `None` for one whose name is its position.
    name: Option<&'a str>,
    matches: Option<&'a rules::Match>,
    /// Without name and target.
    content: Route,
    leads: Leads,
}

impl Whole<'_> {
    fn says_the_same(&self, other: &Self) -> bool {
        self.matches == other.matches && self.content == other.content && self.leads == other.leads
    }
}

fn routes<'a>(listener: &'a Listener, pools: &[Pool]) -> Vec<Whole<'a>> {
    let Protocol::Http(http) = &listener.protocol else {
        return Vec::new();
    };
    let whole = |(at, route): (usize, &'a Route)| Whole {
        name: (*route.name != *(at + 1).to_string()).then_some(&*route.name),
        matches: http.table.matches().get(at),
        content: Route {
            name: "".into(),
            target: Target::Answer,
            ..route.clone()
        },
        leads: leads(&route.target, pools),
    };
    http.routes.iter().enumerate().map(whole).collect()
}

fn compare_routes(before: &[Whole<'_>], after: &[Whole<'_>], changes: &mut Changes) {
    let same = |(a, b): &(&Whole<'_>, &Whole<'_>)| a.name == b.name && a.says_the_same(b);
    let head = before.iter().zip(after).take_while(same).count();
    let (before, after) = (&before[head..], &after[head..]);
    let tail = before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take_while(same)
        .count();
    let (before, after) = (&before[..before.len() - tail], &after[..after.len() - tail]);

    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nameless: Vec<usize> = Vec::new();
    for (at, route) in before.iter().enumerate() {
        match route.name {
            Some(name) => drop(names.insert(name, at)),
            None => nameless.push(at),
        }
    }
    // Where each route that stayed was before, in the order of now.
    let mut stayed = Vec::new();
    let mut new = 0;
    let search = nameless.len() <= SEARCHED_MAX;
    for route in after {
        let found = match route.name {
            Some(name) => names.remove(name),
            None => nameless
                .iter()
                .position(|at| search && before[*at].says_the_same(route))
                .map(|at| nameless.remove(at)),
        };
        match found {
            Some(at) if before[at].says_the_same(route) => stayed.push(at),
            Some(_) => changes.routes_changed += 1,
            None if route.name.is_none() => new += 1,
            None => changes.routes_added += 1,
        }
    }
    // A route without a name that nobody recognises is another in the place of one that is gone.
    let changed = new.min(nameless.len());
    changes.routes_changed += changed;
    changes.routes_added += new - changed;
    changes.routes_removed += nameless.len() - changed + names.len();
    changes.routes_moved += stayed.len() - longest_rise(&stayed);
}

/// The length of the longest rising subsequence, by patience sorting.
fn longest_rise(numbers: &[usize]) -> usize {
    let mut tops: Vec<usize> = Vec::new();
    for number in numbers {
        let at = tops.partition_point(|top| top < number);
        match tops.get_mut(at) {
            Some(top) => *top = *number,
            None => tops.push(*number),
        }
    }
    tops.len()
}

/// Where a server is written is not what it is.
fn without_place(server: &Server) -> Server {
    Server {
        place: "".into(),
        ..server.clone()
    }
}

fn compare_pools(before: &Pool, after: &Pool, changes: &mut Changes) {
    let content = |pool: &Pool| Pool {
        servers: pool.servers.iter().map(without_place).collect(),
        // The routes that choose them are compared.
        subsets: Vec::new(),
        ..pool.clone()
    };
    let (before, after) = (content(before), content(after));
    if before == after {
        return;
    }
    changes.pools_changed += 1;
    let old: BTreeMap<&str, &Server> = before
        .servers
        .iter()
        .map(|server| (&*server.name, server))
        .collect();
    let changed = after.servers.iter().filter(|server| {
        // One at another address counts as another server.
        old.get(&*server.name)
            .is_some_and(|old| old != server && old.address == server.address)
    });
    changes.servers_changed += changed.count();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_rises_counted() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (41_207, "41,207")] {
            assert_eq!(grouped(number), text);
        }
        for (numbers, longest) in [(&[][..], 0), (&[0, 1, 2][..], 3), (&[2, 0, 1][..], 2)] {
            assert_eq!(longest_rise(numbers), longest, "{numbers:?}");
        }
    }
}
