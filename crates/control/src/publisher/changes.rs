//! What a reload changed, in numbers that an operator can check.

use std::collections::BTreeMap;

use config::{Listener, Protocol, Snapshot};

/// What a config changed against the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Listeners that are new.
    pub listeners_added: usize,
    /// Listeners that are gone.
    pub listeners_removed: usize,
    /// Listeners whose addresses changed.
    pub listeners_moved: usize,
    /// Routes that are new.
    pub routes_added: usize,
    /// Routes that are gone.
    pub routes_removed: usize,
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
}

impl Changes {
    /// Whether nothing of this list changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            (self.listeners_added, "listener", "added"),
            (self.listeners_removed, "listener", "removed"),
            (self.listeners_moved, "listener", "moved"),
            (self.routes_added, "route", "added"),
            (self.routes_removed, "route", "removed"),
            (self.pools_added, "pool", "added"),
            (self.pools_removed, "pool", "removed"),
            (self.pools_changed, "pool", "changed"),
            (self.servers_added, "server", "added"),
            (self.servers_removed, "server", "removed"),
        ];
        let mut first = true;
        for (count, what, how) in parts {
            if count > 0 {
                let plural = if count == 1 { "" } else { "s" };
                write!(
                    f,
                    "{}{count} {what}{plural} {how}",
                    if first { "" } else { ", " }
                )?;
                first = false;
            }
        }
        if first {
            f.write_str("no listener, route, pool or server was added or removed")?;
        }
        Ok(())
    }
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
        match old.remove(&*listener.name) {
            None => {
                changes.listeners_added += 1;
                changes.routes_added += route_names(listener).len();
            }
            Some(before) => {
                changes.listeners_moved += usize::from(before.binds != listener.binds);
                let (was, is) = (route_names(before), route_names(listener));
                changes.routes_added += is.iter().filter(|name| !was.contains(**name)).count();
                changes.routes_removed += was.iter().filter(|name| !is.contains(**name)).count();
            }
        }
    }
    changes.listeners_removed = old.len();
    changes.routes_removed += old
        .values()
        .map(|listener| route_names(listener).len())
        .sum::<usize>();

    let mut old: BTreeMap<&str, &config::Pool> =
        old_pools.iter().map(|pool| (&*pool.name, pool)).collect();
    for pool in &after.pools {
        match old.remove(&*pool.name) {
            None => changes.pools_added += 1,
            Some(before) => changes.pools_changed += usize::from(before != pool),
        }
    }
    changes.pools_removed = old.len();
    changes
}

fn route_names(listener: &Listener) -> std::collections::BTreeSet<&str> {
    match &listener.protocol {
        Protocol::Http(http) => http.routes.iter().map(|route| &*route.name).collect(),
        Protocol::Tcp(_) => std::collections::BTreeSet::new(),
    }
}
