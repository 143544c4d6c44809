//! From as written to as resolved: defaults, names, bounds, and what values mean together.
//!
//! What a single value may be has been judged by its reader; a key that is `None` was either not
//! written or is already reported, so its default stands in and nothing is said twice.

mod acme;
mod adaptive;
mod affinity;
mod circle;
mod destination;
mod files;
mod http;
mod http2;
mod listener;
mod outlier;
mod passthrough;
mod place;
mod pool;
mod probe;
mod retries;
mod room;
mod route;
mod said;
mod secured;
mod tls;
mod together;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::address::{AddressError, conflict, parse_admin};
use crate::defaults;
use crate::diagnostic::{Kind, Report, Span};
use crate::labels::Labels;
use crate::raw::{
    ProtocolWord, RawAccessLog, RawAdmin, RawConfig, RawListener, RawPool, RawShutdown,
};
use crate::read::At;
use crate::snapshot::{AccessLog, Admin, Bind, LogFormat, LogTarget, Shutdown, Snapshot};
use crate::units::Time;
use crate::values::{Named, Off, Text};
use crate::{Source, values};

/// Makes the snapshot; worth something only if nothing was reported as an error.
pub(crate) fn compile(
    raw: RawConfig,
    source: &dyn Source,
    report: &mut Report,
) -> Option<Snapshot> {
    let raw_pools = raw.pools.map(|pools| pools.value).unwrap_or_default();
    let mut names = PoolNames::new(&raw_pools);
    let zone = raw.zone.map(|zone| {
        values::check_name(&zone.value.0, zone.span, report);
        Arc::from(zone.value.0)
    });
    let mut keys = tls::Keys::new(source, has_plain_http(raw.listeners.as_ref()));
    let mut pools = pool::compile_pools(raw_pools, zone.as_ref(), source, &mut keys, report);
    let mut routes = route::named_lists(raw.routes);
    let raw_listeners = raw
        .listeners
        .map(|listeners| listeners.value)
        .unwrap_or_default();
    if raw_listeners.items.is_empty() && raw_listeners.failed.is_empty() && !report.has_errors() {
        report.error(
            Kind::Empty,
            Span::START,
            "there is no listener: nothing would be balanced",
        );
    }
    let mut binds = Vec::new();
    let known = listener::Known {
        lists: &mut routes,
        pools: &pools,
        names: &mut names,
        keys: &mut keys,
    };
    let listeners = listener::compile_listeners(raw_listeners, known, &mut binds, report);
    routes.check_unused(&pools, &mut names, report);
    let admin = compile_admin(raw.admin, &mut binds, source, report);
    check_binds(&binds, report);
    files::check_sockets(&binds, source, report);
    circle::warn_circles(&listeners, &pools, &binds, report);
    let secret = affinity::compile_secret(raw.secret_file, source, report);
    for (pool, subsets) in pools.iter_mut().zip(std::mem::take(&mut names.subsets)) {
        pool.subsets = subsets;
    }
    affinity::check_affinities(&listeners, &pools, &names, secret.is_some(), report);
    together::check_together(&listeners, &pools, &names, report);
    names.warn_unused(report);
    Some(Snapshot {
        workers: raw.workers.map(|workers| workers.value.u16()),
        admin,
        shutdown: compile_shutdown(raw.shutdown),
        buffer_bytes_max: raw
            .limits
            .and_then(|limits| limits.value.buffer_bytes)
            .map(|bytes| bytes.value.on().map(|bytes| bytes.0)),
        access_log: raw
            .access_log
            .and_then(|log| compile_access_log(log, source, report)),
        secret,
        state_file: raw
            .state_file
            .and_then(|file| compile_state_file(file, source, report)),
        listeners,
        pools,
        files: report.files.paths(),
    })
}

/// Whether HTTP is spoken without TLS at some address.
fn has_plain_http(listeners: Option<&At<Named<RawListener>>>) -> bool {
    let mut all = listeners.iter().flat_map(|all| &all.value.items);
    all.any(
        |(
            _,
            At {
                value: listener, ..
            },
        )| {
            let protocol = listener.protocol.as_ref();
            let binds = listener.bind.iter().flat_map(|bind| &bind.value.0.items);
            protocol.is_none_or(|protocol| protocol.value == ProtocolWord::Http)
                && listener.tls.is_none()
                && binds.into_iter().any(|bind| bind.value.tls.is_none())
        },
    )
}

/// Pools by name, and which of them something leads to.
pub(crate) struct PoolNames {
    /// `None`: it is there, but could not be read.
    index: BTreeMap<String, Option<usize>>,
    /// By index: where its name is, and whether it is used.
    used: Vec<(String, Span, bool)>,
    /// By index: what routes choose of it.
    subsets: Vec<Vec<Labels>>,
}

impl PoolNames {
    fn new(pools: &Named<RawPool>) -> Self {
        let index = pools
            .items
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (name.clone(), Some(at)));
        let failed = pools.failed.iter().map(|name| (name.clone(), None));
        let used = pools
            .items
            .iter()
            .map(|(name, pool)| (name.clone(), pool.key, false));
        Self {
            index: index.chain(failed).collect(),
            used: used.collect(),
            subsets: vec![Vec::new(); pools.items.len()],
        }
    }

    /// The index of the pool that is meant, which is used from now on.
    pub(crate) fn find(&mut self, name: &str, span: Span, report: &mut Report) -> Option<usize> {
        match self.index.get(name) {
            Some(found) => {
                let slot = found.and_then(|at| self.used.get_mut(at));
                if let Some((_, _, used)) = slot {
                    *used = true;
                }
                *found
            }
            None => {
                let message = format!("there is no pool `{name}`");
                let known: Vec<&str> = self.index.keys().map(String::as_str).collect();
                report.not_among(Kind::UnknownName, span, message, name, known);
                None
            }
        }
    }

    /// Where the name of the pool with this index is written.
    pub(crate) fn span(&self, pool: usize) -> Span {
        self.used
            .get(pool)
            .map_or(Span::START, |(_, span, _)| *span)
    }

    /// The index of a subset of the pool with this index; the same labels are the same subset.
    fn subset(&mut self, pool: usize, labels: Labels) -> Option<usize> {
        let subsets = self.subsets.get_mut(pool)?;
        let known = subsets.iter().position(|known| *known == labels);
        Some(known.unwrap_or_else(|| {
            subsets.push(labels);
            subsets.len() - 1
        }))
    }

    /// Only where nothing is wrong: what could not be read might lead to a pool.
    fn warn_unused(&self, report: &mut Report) {
        if report.has_errors() {
            return;
        }
        for (name, span, used) in &self.used {
            if !used {
                report.warn(
                    Kind::Unused,
                    *span,
                    format!("nothing leads to the pool `{name}`"),
                );
            }
        }
    }
}

fn compile_state_file(
    file: At<Off<Text>>,
    source: &dyn Source,
    report: &mut Report,
) -> Option<String> {
    let path = file.value.on()?.0;
    if path.is_empty() || path.ends_with('/') {
        let message = "`state_file` is the path of a file, such as /var/lib/evenkeel/state.json";
        report.error(Kind::Value, file.span, message);
        return None;
    }
    files::check_written(&path, "the state file", file.span, source, report);
    Some(path)
}

/// A bind and where it is written, with whose it is.
pub(crate) struct PlacedBind {
    pub(crate) bind: Bind,
    pub(crate) span: Span,
    pub(crate) owner: String,
}

/// Only binds of one port, or of one path, can conflict: they are grouped before they are compared.
fn check_binds(binds: &[PlacedBind], report: &mut Report) {
    let mut groups: BTreeMap<(u16, &str), Vec<&PlacedBind>> = BTreeMap::new();
    for placed in binds {
        let key = match &placed.bind {
            Bind::Tcp { address, .. } => (address.port(), ""),
            Bind::Unix(path) => (0, path.as_str()),
        };
        groups.entry(key).or_default().push(placed);
    }
    for group in groups.values() {
        for (at, later) in group.iter().enumerate() {
            let taken = group
                .iter()
                .take(at)
                .find(|earlier| conflict(&earlier.bind, &later.bind));
            if let Some(earlier) = taken {
                let message = format!(
                    "this bind and that of {} at {} would take each other's traffic",
                    earlier.owner,
                    report.files.place(earlier.span),
                );
                report.error(Kind::Conflict, later.span, message);
            }
        }
    }
}

pub(crate) fn address_error(error: AddressError, span: Span, report: &mut Report) {
    match error.help {
        Some(help) => report.error_help(Kind::Address, span, error.message, help),
        None => report.error(Kind::Address, span, error.message),
    }
}

fn compile_admin(
    raw: Option<At<Off<RawAdmin>>>,
    binds: &mut Vec<PlacedBind>,
    source: &dyn Source,
    report: &mut Report,
) -> Option<Admin> {
    let default = Admin {
        bind: defaults::ADMIN,
        written: false,
        token_file: None,
    };
    let Some(raw) = raw else { return Some(default) };
    let raw = raw.value.on()?;
    let token_file = raw.token_file.map(|file| {
        files::check_read(&file.value.0, "the token file", file.span, source, report);
        file.value.0
    });
    let Some(bind) = raw.bind else {
        return Some(Admin {
            token_file,
            ..default
        });
    };
    let address = match parse_admin(&bind.value.0) {
        Ok(address) => address,
        Err(error) => {
            address_error(error, bind.span, report);
            return Some(default);
        }
    };
    if !address.ip().to_canonical().is_loopback() && token_file.is_none() {
        let message = "away from loopback the admin listener needs a `token_file`";
        report.error(Kind::Missing, bind.span, message);
    }
    let dual_stack = bind.value.0.starts_with(':');
    let owner = "the admin listener".to_owned();
    binds.push(PlacedBind {
        bind: Bind::Tcp {
            address,
            dual_stack,
            listener: None,
        },
        span: bind.span,
        owner,
    });
    Some(Admin {
        bind: address,
        written: true,
        token_file,
    })
}

fn compile_shutdown(raw: Option<At<RawShutdown>>) -> Shutdown {
    let raw = raw.map_or_else(RawShutdown::absent, |raw| raw.value);
    let time = |time: Option<At<Time>>, default| time.map_or(default, |time| time.value.0);
    Shutdown {
        delay: time(raw.delay, defaults::SHUTDOWN_DELAY),
        idle_wait: time(raw.idle_wait, defaults::SHUTDOWN_IDLE_WAIT),
        timeout: time(raw.timeout, defaults::SHUTDOWN_TIMEOUT),
    }
}

fn compile_access_log(
    log: At<Off<RawAccessLog>>,
    source: &dyn Source,
    report: &mut Report,
) -> Option<AccessLog> {
    let RawAccessLog(raw) = log.value.on()?;
    let span = raw.to.as_ref().map_or(log.span, |to| to.span);
    let to = match raw.to.map(|to| to.value) {
        None => LogTarget::Stdout,
        Some(Text(to)) => match to.as_str() {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            _ => LogTarget::File(to),
        },
    };
    let common = raw.format.is_some_and(|format| format.value.0 == "common");
    let log = AccessLog {
        to,
        format: if common {
            LogFormat::Common
        } else {
            LogFormat::Json
        },
    };
    files::check_log(&log, span, source, report);
    Some(log)
}

/// The value of a key, or its default.
pub(crate) fn value_or<T>(key: Option<At<T>>, default: T) -> T {
    key.map_or(default, |key| key.value)
}

/// A section, or an empty one.
macro_rules! section_or_absent {
    ($key:expr, $section:ty) => {
        $key.map_or_else(|| <$section>::absent(), |key| key.value)
    };
}
pub(crate) use section_or_absent;

/// A time that `off` makes endless.
pub(crate) fn wait_or_off(
    key: Option<At<Off<crate::units::Wait>>>,
    default: Option<std::time::Duration>,
) -> Option<std::time::Duration> {
    key.map_or(default, |key| key.value.on().map(|wait| wait.0))
}

/// Names that a later check needs are unique: reports the second of two.
pub(crate) fn check_unique(
    seen: &mut BTreeMap<String, Span>,
    name: &str,
    span: Span,
    what: &str,
    report: &mut Report,
) -> bool {
    values::check_name(name, span, report);
    if let Some(&first) = seen.get(name) {
        report.twice(span, first, &format!("the {what} `{name}`"));
        return false;
    }
    seen.insert(name.to_owned(), span);
    true
}
