//! `evenkeel explain`: which listener, route, filters, pool and server a request would get, and for each that it would
//! not get, why not.
//!
//! It asks the same tables as traffic does. Offline it knows a config and no more; with `--live` a running instance
//! answers, by its health, weights, ejections and load.

mod bind;
mod format;
pub(crate) mod live;
mod pick;
mod request;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use config::{
    Arm, Destination, HttpListener, Listener, ListenerTls, Protocol, Route, Snapshot, Target,
};
use control::affinity::{Asks, Placed};
use control::decide;
use control::learnt::LearntView;
use control::reason::Reason;
use control::world::World;
use rules::{Collect, Edits, Filter, On, Outcome, Scratch, Walk, forward};
use serde::{Deserialize, Serialize};
use wire::http1::{Decoded, Known as Field, Method, RequestHead, decode_request};

use crate::cli::ExplainArgs;
use crate::source::Origin;
use crate::{describe, diagnose, exit};
use pick::{Asking, PoolPick};
use request::Asked;

/// What would become of one request.
#[derive(Debug, Serialize, Deserialize)]
struct Explained {
    request: String,
    /// The client, as trusted proxies tell it.
    source: IpAddr,
    listener: String,
    binds: Vec<String>,
    /// How the listener was chosen, when its port does not say it.
    note: Option<String>,
    /// Set when no route is looked for, or none is found.
    refused: Option<Refused>,
    /// In matching order, up to the one that matched.
    rejected: Vec<Rejected>,
    route: Option<String>,
    filters: Vec<Effect>,
    /// Set when a filter answers.
    answer: Option<Answered>,
    /// Which arm of a split the request's user has, where the arms remember their users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arm: Option<String>,
    /// One with a share of 100, the arms of a split, or none.
    pools: Vec<Share>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    status: u16,
    reason: Cow<'static, str>,
    why: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rejected {
    route: String,
    key: Cow<'static, str>,
    why: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Effect {
    filter: Cow<'static, str>,
    effect: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answered {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Share {
    /// Percent of the route's requests.
    share: f64,
    #[serde(flatten)]
    pick: PoolPick,
}

/// Why a request does not come to a pool or a filter's answer.
enum Ends {
    Refused(Refused),
    /// There would be no connection for it to come by.
    NoConnection(String),
}

impl From<Refused> for Ends {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What is known beyond the config.
#[derive(Debug, Clone, Copy)]
enum Known<'a> {
    /// Nothing.
    Config,
    /// What runs: where its listeners really listen, and the time since its start.
    Live {
        addresses: &'a [(Arc<str>, String)],
        now: Duration,
    },
}

/// Runs the command.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    if args.live {
        return live::run(args);
    }
    Ok(run_offline(args))
}

fn run_offline(args: &ExplainArgs) -> ExitCode {
    let asked = Asked::parse(&args.request, &args.headers).and_then(|mut asked| {
        let cert = args.client_cert.as_deref();
        asked.client_cert = cert.map(request::read_cert).transpose()?;
        Ok(asked)
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return exit::wrong(error),
    };
    let origin = match Origin::find(args.config.as_deref()) {
        Ok(origin) => origin,
        Err(error) => return exit::wrong(error),
    };
    let snapshot = match diagnose::show(origin.load(), false) {
        Ok(snapshot) => Arc::new(snapshot),
        Err(counts) => return exit::wrong(counts),
    };
    let world = pick::world(snapshot, pick::resolve_by_system);
    match explain(&world, &asked, args.from, Known::Config) {
        Ok(explained) if args.remote.json => match serde_json::to_string_pretty(&explained) {
            Ok(json) => {
                exit::print(&format!("{json}\n"));
                exit::WELL
            }
            Err(error) => exit::refused(error),
        },
        Ok(explained) => {
            exit::print(&format::text(&explained));
            exit::WELL
        }
        Err(error) => exit::wrong(error),
    }
}

fn explain(
    world: &World,
    asked: &Asked,
    peer: IpAddr,
    known: Known<'_>,
) -> Result<Explained, String> {
    let snapshot = &*world.snapshot;
    let (listener, http, note) = choose_listener(snapshot, asked, known)?;
    let mut explained = Explained {
        request: asked.shown.clone(),
        source: peer.to_canonical(),
        listener: listener.name.to_string(),
        binds: known.binds(listener),
        note,
        refused: None,
        rejected: Vec::new(),
        route: None,
        filters: Vec::new(),
        answer: None,
        arm: None,
        pools: Vec::new(),
    };
    match walk(world, (listener, http), asked, peer, known, &mut explained) {
        Ok(()) => {}
        Err(Ends::Refused(refused)) => explained.refused = Some(refused),
        Err(Ends::NoConnection(why)) => return Err(why),
    }
    Ok(explained)
}

/// The HTTP listener on the request's port, else the only or the first one.
fn choose_listener<'a>(
    snapshot: &'a Snapshot,
    asked: &Asked,
    known: Known<'_>,
) -> Result<(&'a Listener, &'a HttpListener, Option<String>), String> {
    let listens = |listener: &Listener| {
        asked
            .port
            .is_some_and(|port| known.listens_on(listener, port))
    };
    let mut http = snapshot
        .listeners
        .iter()
        .filter_map(|listener| match &listener.protocol {
            Protocol::Http(http) => Some((listener, &**http)),
            Protocol::Tcp(_) => None,
        });
    if let Some((listener, http)) = http.clone().find(|(listener, _)| listens(listener)) {
        return Ok((listener, http, None));
    }
    if let Some(tcp) = snapshot.listeners.iter().find(|listener| listens(listener)) {
        let name = &tcp.name;
        return Err(format!(
            "the listener `{name}` on this port takes TCP, which has no routes"
        ));
    }
    let count = http.clone().count();
    let (listener, http) = http.next().ok_or("the config has no HTTP listener")?;
    let note = match (asked.port, count) {
        (_, 1) => None,
        (None, _) => Some("the first HTTP listener; name a port to choose".to_owned()),
        (Some(port), _) => Some(format!(
            "no HTTP listener is on port {port}: this is the first"
        )),
    };
    Ok((listener, http, note))
}

impl<'a> Known<'a> {
    /// On the publisher's clock.
    fn now(self) -> Duration {
        match self {
            Self::Config => Duration::ZERO,
            Self::Live { now, .. } => now,
        }
    }

    /// Where a listener is: as it was really bound, where that is known.
    fn binds(self, listener: &Listener) -> Vec<String> {
        let real = self.addresses(listener);
        if real.is_empty() {
            return listener.binds.iter().map(describe::bind).collect();
        }
        real.into_iter().map(str::to_owned).collect()
    }

    /// The TLS at the address that the request comes to; of several, the first.
    fn tls<'l>(self, listener: &'l Listener, asked: &Asked) -> Option<&'l ListenerTls> {
        let of = |bind: &config::Bind| match bind {
            config::Bind::Tcp { address, .. } => Some(address.port()) == asked.port,
            config::Bind::Unix(_) => false,
        };
        let mut binds = listener.binds.iter().zip(&listener.tls);
        let named = binds.clone().find(|(bind, _)| of(bind));
        match named {
            Some((_, tls)) => tls.as_deref(),
            None => binds.find_map(|(_, tls)| tls.as_deref()),
        }
    }

    fn addresses(self, listener: &Listener) -> Vec<&'a str> {
        let Self::Live { addresses, .. } = self else {
            return Vec::new();
        };
        let of_it = addresses.iter().filter(|(name, _)| *name == listener.name);
        of_it.map(|(_, address)| address.as_str()).collect()
    }

    fn listens_on(self, listener: &Listener, port: u16) -> bool {
        let configured = listener.binds.iter().any(|bind| match bind {
            config::Bind::Tcp { address, .. } => address.port() == port,
            config::Bind::Unix(_) => false,
        });
        let real = self.addresses(listener).into_iter();
        let mut ports = real.filter_map(|address| address.parse::<SocketAddr>().ok());
        configured || ports.any(|address| address.port() == port)
    }
}

/// The way of the request, step by step.
fn walk(
    world: &World,
    (listener, http): (&Listener, &HttpListener),
    asked: &Asked,
    peer: IpAddr,
    known: Known<'_>,
    explained: &mut Explained,
) -> Result<(), Ends> {
    let bytes = asked.encode();
    let mut head = RequestHead::default();
    decode(&bytes, http, &mut head)?;
    if head.method == Method::Connect {
        return Err(refuse(Reason::MethodRefused, Reason::MethodRefused.meaning()).into());
    }
    let bad = |error: &dyn std::fmt::Display| refuse(Reason::BadRequest, &error.to_string());
    let (mut path_scratch, mut host_scratch) = (Vec::new(), Vec::new());
    let target = rules::path::normalise(head.method, head.target.of(&bytes), &mut path_scratch)
        .map_err(|error| bad(&error))?;
    let authority = head.host.map(|host| host.of(&bytes)).unwrap_or_default();
    let host = rules::host::normalise(authority, &mut host_scratch)
        .map_err(|error| bad(&error))?
        .host;
    let told = forward::values(&head, &bytes, Field::XForwardedFor);
    let tls = asked.tls(host, known.tls(listener, asked));
    let tls = tls.map_err(Ends::NoConnection)?;
    let request = rules::Request {
        method: head.method_text.of(&bytes),
        host,
        path: target.path,
        query: target.query,
        head: &head,
        bytes: &bytes,
        source: forward::source(peer, &listener.trusted_proxies, told),
        tls: tls.as_ref(),
        https: tls.is_some()
            || (forward::is_trusted(peer, &listener.trusted_proxies)
                && forward::tells_https(&head, &bytes)),
    };
    explained.source = request.source;

    let mut trace = Collect::default();
    let found = http.table.find(&request, &mut Scratch::new(), &mut trace);
    let name = |route: usize| {
        http.routes
            .get(route)
            .map_or_else(String::new, |route| route.name.to_string())
    };
    let rejected = trace.0.into_iter().map(|rejection| Rejected {
        route: name(rejection.route),
        key: rejection.key.as_str().into(),
        why: rejection.why,
    });
    explained.rejected = rejected.collect();
    let Some(route) = found.and_then(|found| http.routes.get(found)) else {
        return Err(refuse(Reason::NoRoute, Reason::NoRoute.meaning()).into());
    };
    explained.route = Some(route.name.to_string());
    if route.requires_client_cert && tls.as_ref().is_none_or(|tls| tls.client.is_none()) {
        let reason = Reason::ClientCertificate;
        return Err(refuse(reason, reason.meaning()).into());
    }

    let mut edits = Edits::new();
    explained.answer = filter(&route.filters, &request, &mut edits, &mut explained.filters);
    if explained.answer.is_none() {
        let placed = arm(world, route, &request, known);
        explained.arm = placed.map(|placed| arm_text(world, placed));
        let asking = Asking {
            route,
            priority: route.priority.unwrap_or(http.priority),
            request: &request,
            known,
        };
        explained.pools = shares(world, placed, asking);
    }
    Ok(())
}

fn decode(bytes: &[u8], http: &HttpListener, head: &mut RequestHead) -> Result<(), Refused> {
    let limits = decide::head_limits(http);
    match decode_request(bytes, &limits, head) {
        Ok(Decoded::Complete(())) => Ok(()),
        Ok(Decoded::Incomplete) => Err(refuse(Reason::BadRequest, "the head has no end")),
        Err(error) => Err(refuse(decide::reason_of(error.kind()), &error.to_string())),
    }
}

fn refuse(reason: Reason, why: &str) -> Refused {
    Refused {
        status: reason.status(),
        reason: reason.name().into(),
        why: why.to_owned(),
    }
}

/// Applies filters one by one, and notes what each did; the answer, if one answers.
fn filter(
    filters: &[Filter],
    request: &rules::Request<'_>,
    edits: &mut Edits,
    effects: &mut Vec<Effect>,
) -> Option<Answered> {
    for filter in filters {
        let path_before = text(edits.path().unwrap_or(request.path));
        let before = (fields(edits, On::Request), fields(edits, On::Response));
        let outcome = Walk::new(std::slice::from_ref(filter)).step(request, edits);
        let path = text(edits.path().unwrap_or(request.path));
        let mut did = Vec::new();
        if path != path_before {
            did.push(format!("path {path_before} -> {path}"));
        }
        did.extend(edited(&before.0, &fields(edits, On::Request), "request"));
        did.extend(edited(&before.1, &fields(edits, On::Response), "response"));
        if did.is_empty() {
            did.push("changes nothing here".to_owned());
        }
        effects.push(Effect {
            filter: filter_name(filter).into(),
            effect: did.join("; "),
        });
        if let Outcome::Refuse(why) = outcome {
            return Some(Answered {
                status: 400,
                headers: Vec::new(),
                body: why.to_owned(),
            });
        }
        if let Outcome::Respond(answer) = outcome {
            let headers = fields(edits, On::Response)
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            return Some(Answered {
                status: answer.status,
                headers: headers.collect(),
                body: text(answer.body),
            });
        }
    }
    None
}

fn filter_name(filter: &Filter) -> &'static str {
    match filter {
        Filter::GrpcWeb => "grpc_web",
        Filter::StripPrefix(_) => "strip_prefix",
        Filter::SetHeader(_) => "set_header",
        Filter::RemoveHeader(_) => "remove_header",
        Filter::Redirect(_) => "redirect",
        Filter::HttpsRedirect(_) => "https_redirect",
        Filter::Hsts(_) => "hsts",
        Filter::Respond(_) => "respond",
    }
}

type Fields = Vec<(String, Option<String>)>;

fn fields(edits: &Edits, on: On) -> Fields {
    let fields = edits.fields(on);
    fields
        .map(|edit| (text(edit.name), edit.value.map(text)))
        .collect()
}

/// What is in `after` and was not in `before`, in words.
fn edited(before: &Fields, after: &Fields, side: &str) -> Vec<String> {
    let new = after.iter().filter(|edit| !before.contains(edit));
    new.map(|(name, value)| match value {
        Some(value) => format!("{side} {name}: {value}"),
        None => format!("{side} {name} removed"),
    })
    .collect()
}

/// The pools of a target with their shares, and the server that each would pick.
fn shares(world: &World, placed: Option<Placed>, asking: Asking<'_>) -> Vec<Share> {
    let share = |to: Destination, share: f64| {
        let place = placed.filter(|placed| placed.known && placed.to == to);
        let place = place.and_then(|placed| placed.share);
        pick::pick(world, to, asking, place).map(|pick| Share { share, pick })
    };
    match &asking.route.target {
        Target::Answer => Vec::new(),
        Target::Pool(to) => share(*to, 100.0).into_iter().collect(),
        Target::Split(arms) => {
            let total: f64 = arms.iter().map(|arm| f64::from(arm.weight)).sum();
            arms.iter()
                .filter_map(|arm| share(arm.to, percent(arm.weight, total)))
                .collect()
        }
    }
}

/// The arm of the request's user, where the arms of a split remember theirs.
fn arm(
    world: &World,
    route: &Route,
    request: &rules::Request<'_>,
    known: Known<'_>,
) -> Option<Placed> {
    let Target::Split(arms) = &route.target else {
        return None;
    };
    let now = known.now();
    let ask = |arm: &Arm, asks: Asks<'_>| {
        let state = world.destination(arm.to);
        state.is_some_and(|state| asks(&state.view()))
    };
    // The same each time, so that two runs of the command agree.
    let mut draws = 0_u32;
    let random = || {
        draws = draws.wrapping_add(0x9e37_79b9);
        draws
    };
    let learnt = |view: &LearntView| view.peek_bond(request, now);
    control::affinity::arm(arms, &world.snapshot.pools, request, random, ask, learnt)
}

fn arm_text(world: &World, placed: Placed) -> String {
    if !placed.known {
        return "none yet: a place is drawn by the weights, and kept in the cookie".to_owned();
    }
    let to = placed.to.shown(&world.snapshot.pools);
    format!("{to}: it is remembered, whatever the shares are")
}

/// To a tenth.
fn percent(weight: u32, total: f64) -> f64 {
    (f64::from(weight) * 1000.0 / total.max(1.0)).round() / 10.0
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
