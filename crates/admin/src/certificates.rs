//! `/api/v1/certificates`: every certificate of a listener, from files and from authorities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control::acme::{Board, State, Status};
use control::record::rfc3339;
use control::world::{Hub, World};
use serde::Serialize;

/// One certificate. Times are RFC 3339.
#[derive(Debug, Serialize)]
pub(crate) struct Certificate {
    /// The names that it bears, or is wanted for.
    names: Vec<Arc<str>>,
    listeners: Vec<Arc<str>>,
    file: Arc<str>,
    /// Absent for one from a file of the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<Arc<str>>,
    /// `missing`, `valid` or `expired`; the clock of this machine decides.
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    /// When the authority is asked next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_order: Option<String>,
    /// This instance is asking for it now.
    ordering: bool,
    /// Attempts that failed since the last that did not.
    failures: u32,
    /// What the authority said, or why it could not be asked, when that failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Arc<str>>,
}

/// All of them: those of authorities by name, then those of files by path.
pub(crate) fn all(hub: &Hub) -> Vec<Certificate> {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    shown(&hub.world(), &hub.certificates, wall.unwrap_or_default())
}

fn shown(world: &World, board: &Board, wall: Duration) -> Vec<Certificate> {
    let statuses = board.all();
    let by_file: BTreeMap<&str, &Status> = statuses.iter().map(|it| (&*it.file, it)).collect();
    let mut automatic: BTreeMap<(Arc<str>, String), Certificate> = BTreeMap::new();
    let mut files: BTreeMap<Arc<str>, Certificate> = BTreeMap::new();
    for listener in &world.snapshot.listeners {
        for tls in listener.tls.iter().flatten() {
            for certificate in &tls.certificates {
                let names = certificate.names.iter().map(|name| name.as_str().into());
                let shown = files.entry(certificate.file.clone());
                let shown = shown.or_insert_with(|| {
                    from_file(
                        names.collect(),
                        &certificate.file,
                        certificate.not_after,
                        wall,
                    )
                });
                shown.is_for(&listener.name);
            }
            for (acme, domain) in tls
                .acme
                .iter()
                .flat_map(|it| it.domains.iter().map(move |domain| (it, domain)))
            {
                let file = acme.issuer.file(domain);
                let status = by_file.get(&*file).copied();
                let shown = automatic.entry((domain.clone(), file.clone()));
                let shown = shown.or_insert_with(|| {
                    automatic_one(domain, &acme.issuer.host, &file, status, wall)
                });
                shown.is_for(&listener.name);
            }
        }
    }
    automatic.into_values().chain(files.into_values()).collect()
}

impl Certificate {
    fn is_for(&mut self, listener: &Arc<str>) {
        if !self.listeners.contains(listener) {
            self.listeners.push(listener.clone());
        }
    }
}

fn from_file(
    names: Vec<Arc<str>>,
    file: &Arc<str>,
    not_after: Duration,
    wall: Duration,
) -> Certificate {
    Certificate {
        names,
        listeners: Vec::new(),
        file: file.clone(),
        authority: None,
        state: state(Some(not_after), wall),
        not_after: Some(seconds(not_after)),
        next_order: None,
        ordering: false,
        failures: 0,
        problem: None,
    }
}

fn automatic_one(
    domain: &Arc<str>,
    authority: &Arc<str>,
    file: &str,
    status: Option<&Status>,
    wall: Duration,
) -> Certificate {
    let not_after = status.and_then(|it| it.not_after);
    Certificate {
        names: vec![domain.clone()],
        listeners: Vec::new(),
        file: file.into(),
        authority: Some(authority.clone()),
        state: state(not_after, wall),
        not_after: not_after.map(seconds),
        next_order: status.and_then(|it| it.next_order).map(seconds),
        ordering: status.is_some_and(|it| it.is_ordering),
        failures: status.map_or(0, |it| it.failures),
        problem: status.and_then(|it| it.problem.clone()),
    }
}

fn state(not_after: Option<Duration>, wall: Duration) -> State {
    match not_after {
        None => State::Missing,
        Some(end) if end <= wall => State::Expired,
        Some(_) => State::Valid,
    }
}

fn seconds(wall: Duration) -> String {
    rfc3339(Duration::from_secs(wall.as_secs()))
}
