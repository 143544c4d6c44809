//! From a head to a plan: target, host, route, filters, pool, and the head that the server gets.
//!
//! Nothing here waits.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use config::{Destination, HttpListener, Pool, Retries, Route, Target};
use control::affinity::{Bond, Share};
use control::decide;
use control::reason::Reason;
use rules::forward::{self, Hop, IdFrom};
use rules::{NoTrace, Request, Walk, host, path};
use wire::http1::{Body, Field, Known, Method, RequestHead, Span, Version};

use super::encode::{self, RequestParts};
use super::log::Log;
use super::{Block, Conn, affinity};
use crate::worker::LocalWorld;

/// What is to be done with a request.
pub(super) struct Plan<'w> {
    pub(super) to: Destination,
    pub(super) config: &'w Pool,
    pub(super) route: &'w Route,
    /// The route's own policy, or the pool's.
    pub(super) retries: &'w Retries,
    /// What hashing algorithms hash.
    pub(super) key: Option<u64>,
    /// What binds its client to a server; `None` where nothing does.
    pub(super) bond: Option<Bond>,
    /// Whether the client came over TLS; only known where there is a bond.
    pub(super) secure: bool,
    /// Whether the server was asked to upgrade.
    pub(super) upgrade: bool,
    /// Whether the server was asked to close, which it may do without saying so.
    pub(super) closes: bool,
    /// Whether the client's credentials are those of a connection, not of a request: nobody else may use the server's.
    pub(super) private: bool,
}

/// A request that no server gets.
pub(super) enum Refused<'w> {
    Reason(Reason, String),
    /// A filter answers.
    Filter(rules::Answer<'w>),
    /// An authority asks whose the host is.
    Challenge(Arc<[u8]>),
}

impl<T: std::fmt::Display> From<(Reason, T)> for Refused<'_> {
    fn from((reason, detail): (Reason, T)) -> Self {
        Self::Reason(reason, detail.to_string())
    }
}

/// Judges, routes and filters the request in `block`, and writes the server's head.
pub(super) fn plan<'w>(
    conn: &Conn,
    world: &'w LocalWorld,
    listener: usize,
    http: &'w HttpListener,
    block: &mut Block,
    log: &mut Log,
) -> Result<Plan<'w>, Refused<'w>> {
    let Block {
        client_in,
        request: head,
        request_out,
        edits,
        path,
        host,
        wants_json,
        request_id,
        call,
        ..
    } = block;
    let bytes = client_in.filled();
    edits.clear();
    *wants_json = head.present.contains(Known::Accept) && prefers_json(head, bytes);
    call.read(head, bytes);
    let client = Client::of(conn, world, listener, head, bytes);
    log.source = Some(client.source);
    let forwarding = forward::Plan::new(&http.forwarded, client.trusted, head, bytes);
    name_request(conn, forwarding.request_id, bytes, request_id);
    if world.world.snapshot.access_log.is_some() {
        take_texts(conn, head, bytes, log);
        log.texts().request_id = String::from_utf8_lossy(request_id).into_owned();
    }
    if head.method == Method::Connect {
        return Err((Reason::MethodRefused, "CONNECT is not served").into());
    }
    let aim = Aim::of(head, bytes, path, host)
        .map_err(|detail| Refused::Reason(Reason::BadRequest, detail))?;
    answer_challenge(conn, aim.target.path)?;
    let request = Request {
        method: head.method_text.of(bytes),
        host: aim.host,
        path: aim.target.path,
        query: aim.target.query,
        head,
        bytes,
        source: client.source,
        tls: conn.tls.as_ref().map(|about| &about.facts),
        https: conn.tls.is_some() || (client.trusted && forward::tells_https(head, bytes)),
    };
    let route = find_route(conn, world, listener, http, &request, log)?;
    match Walk::new(&route.filters).step(&request, edits) {
        rules::Outcome::Continue => {}
        rules::Outcome::Respond(answer) => return Err(Refused::Filter(answer)),
        rules::Outcome::Refuse(why) => return Err(Refused::from((Reason::BadRequest, why))),
        rules::Outcome::Ask(question) => match question {},
    }
    judge_length(http, head)?;
    let internal = || Refused::from((Reason::Internal, ""));
    let (to, share) = destination(conn, world, route, &request, log).ok_or_else(internal)?;
    let config = world.world.snapshot.pools.get(to.pool);
    let config = config.ok_or_else(internal)?;
    let key = decide::hash_key(&config.balance, &request);
    let own_tls = conn.tls.is_some();
    let bound = config.affinity.as_ref().zip(world.pool(to));
    let bond = bound.map(|(by, pool)| affinity::bond(&conn.worker, by, pool, &request, share));
    let hidden_cookie = affinity::hidden_cookie(config, bond.as_ref());
    let secure = bond.is_some() && affinity::is_secure(own_tls, client.trusted, head, bytes);
    let upgrade = upgrade_of(head.upgrade, bytes, http);
    let hop = Hop {
        peer: client.peer,
        secure: own_tls,
        version: version_of(conn, head),
        authority: aim.authority,
        request_id,
    };
    let parts = RequestParts {
        path: aim.target.path,
        query: aim.target.query,
        authority: aim.absolute,
        plan: &forwarding,
        hop: &hop,
        upgrade,
        trailers: trailers_line(config, head, bytes),
        edits,
        hidden_cookie,
    };
    encode::request(request_out, head, bytes, &parts);
    Ok(Plan {
        to,
        config,
        route,
        retries: route.retries_of(to.pool, config),
        key,
        bond,
        secure,
        upgrade: upgrade.is_some(),
        closes: encode::is_nameless(head, aim.absolute, edits),
        private: is_private(head, bytes),
    })
}

/// Whether its credentials are taken for everything that follows on a connection (RFC 4559 §6, MS-NTHT).
fn is_private(head: &RequestHead, bytes: &[u8]) -> bool {
    let is_of_connection = |field: &Field| {
        let scheme = field.value.of(bytes).split(|&byte| byte == b' ').next();
        field.known == Known::Authorization
            && scheme.is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case(b"NTLM") || scheme.eq_ignore_ascii_case(b"Negotiate")
            })
    };
    head.present.contains(Known::Authorization) && head.fields.iter().any(is_of_connection)
}

/// What an authority is answered that asks whether a name is ours.
fn answer_challenge<'w>(conn: &Conn, path: &[u8]) -> Result<(), Refused<'w>> {
    let challenges = &conn.worker.hub.challenges;
    if challenges.is_pending()
        && let Some(answer) = challenges.http(path)
    {
        return Err(Refused::Challenge(answer));
    }
    Ok(())
}

/// Whether a body that says its length may come.
fn judge_length(http: &HttpListener, head: &RequestHead) -> Result<(), Refused<'static>> {
    match (http.limits.body_bytes, head.body) {
        (Some(max), Body::Length(length)) if length > max => Err((Reason::BodyTooLarge, "").into()),
        _ => Ok(()),
    }
}

/// What the client spoke, as `Via` names it.
fn version_of(conn: &Conn, head: &RequestHead) -> &'static str {
    match head.version {
        _ if conn.stream.is_carried() => "2.0",
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
    }
}

/// Who asks.
struct Client {
    /// The other end of the connection; a Unix socket's is this machine.
    peer: IpAddr,
    /// Whether the peer is one of the listener's trusted proxies.
    trusted: bool,
    /// The client, as trusted proxies tell it.
    source: IpAddr,
}

impl Client {
    fn of(
        conn: &Conn,
        world: &LocalWorld,
        listener: usize,
        head: &RequestHead,
        bytes: &[u8],
    ) -> Self {
        let config = world.world.snapshot.listeners.get(listener);
        let proxies = config
            .map(|config| &*config.trusted_proxies)
            .unwrap_or_default();
        let peer = conn.peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| {
            peer.ip().to_canonical()
        });
        let trusted = !proxies.is_empty() && forward::is_trusted(peer, proxies);
        let source = if trusted {
            forward::source(
                peer,
                proxies,
                forward::values(head, bytes, Known::XForwardedFor),
            )
        } else {
            peer
        };
        Self {
            peer,
            trusted,
            source,
        }
    }
}

/// What is asked for.
struct Aim<'b> {
    target: path::Target<'b>,
    /// Host and port as written; may be empty.
    authority: &'b [u8],
    /// The same, if the target was a whole URI: it replaces `Host`.
    absolute: Option<&'b [u8]>,
    /// The host in the spelling that is matched.
    host: &'b [u8],
}

impl<'b> Aim<'b> {
    fn of(
        head: &RequestHead,
        bytes: &'b [u8],
        path_scratch: &'b mut Vec<u8>,
        host_scratch: &'b mut Vec<u8>,
    ) -> Result<Self, String> {
        let target = path::normalise(head.method, head.target.of(bytes), path_scratch)
            .map_err(|error| error.to_string())?;
        let absolute = match target.form {
            path::Form::Absolute { authority, .. } => Some(authority),
            _ => None,
        };
        let authority = absolute.unwrap_or_else(|| head.host.unwrap_or_default().of(bytes));
        let host = if authority.is_empty() {
            &[]
        } else {
            host::normalise(authority, host_scratch)
                .map_err(|error| error.to_string())?
                .host
        };
        Ok(Self {
            target,
            authority,
            absolute,
            host,
        })
    }
}

/// The route that takes a request which is in the right place, and may have it.
fn find_route<'w>(
    conn: &Conn,
    world: &LocalWorld,
    listener: usize,
    http: &'w HttpListener,
    request: &Request<'_>,
    log: &mut Log,
) -> Result<&'w Route, Refused<'w>> {
    if let Some(about) = &conn.tls
        && about.is_misdirected(request.host)
    {
        return Err((Reason::Misdirected, "").into());
    }
    let found = http
        .table
        .find(request, &mut conn.worker.scratch.borrow_mut(), &mut NoTrace);
    let index = found.ok_or_else(|| Refused::from((Reason::NoRoute, "")))?;
    log.route = world
        .world
        .routes
        .get(listener)
        .and_then(|routes| routes.get(index))
        .cloned();
    let route = http.routes.get(index);
    let route = route.ok_or_else(|| Refused::from((Reason::Internal, "")))?;
    if route.requires_client_cert && request.tls.is_none_or(|tls| tls.client.is_none()) {
        return Err((Reason::ClientCertificate, "").into());
    }
    Ok(route)
}

/// Where a route leads; the arms of a split take turns by weight over the whole process, unless they remember the user,
/// whose place is given too.
fn destination(
    conn: &Conn,
    world: &LocalWorld,
    route: &Route,
    request: &Request<'_>,
    log: &Log,
) -> Option<(Destination, Option<Share>)> {
    match &route.target {
        Target::Pool(to) => Some((*to, None)),
        Target::Split(arms) => {
            if let Some(remembered) = affinity::arm(&conn.worker, world, arms, request) {
                return Some(remembered);
            }
            let total = arms.iter().map(|arm| u64::from(arm.weight)).sum();
            let turn = log.route.as_ref()?.rotation.fetch_add(1, Relaxed);
            Some((decide::arm_at(arms, decide::spread(turn, total))?, None))
        }
        Target::Answer => None,
    }
}

impl Plan<'_> {
    /// Whether a request with this method may be sent again once a server took a byte of it.
    pub(super) fn repeats(&self, method: Method) -> bool {
        match method {
            Method::Post => self.retries.repeats_post,
            Method::Patch => self.retries.repeats_patch,
            method => method.is_idempotent(),
        }
    }
}

/// The protocol to upgrade to: the first that the client offers, if the listener lets it pass.
fn upgrade_of<'b>(upgrade: Option<Span>, bytes: &'b [u8], http: &HttpListener) -> Option<&'b [u8]> {
    let offered = upgrade?.of(bytes);
    let first = offered
        .split(|byte| *byte == b',')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    http.upgrades
        .iter()
        .any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(first))
        .then_some(first)
}

/// What tells a server that trailers are welcome, if it speaks HTTP/2. Where it may choose HTTP/1.1, that needs the field to
/// be named as one of the connection (RFC 9110 §10.1.4).
fn trailers_line(config: &config::Pool, head: &RequestHead, bytes: &[u8]) -> &'static [u8] {
    match &config.http2 {
        Some(http2) if welcomes_trailers(head, bytes) => match http2.auto {
            true => b"TE: trailers\r\nConnection: TE\r\n",
            false => b"TE: trailers\r\n",
        },
        _ => b"",
    }
}

/// Whether `TE` says that trailers are welcome, as gRPC does. It is for one connection, and only HTTP/2 has a use for it.
fn welcomes_trailers(head: &RequestHead, bytes: &[u8]) -> bool {
    head.present.contains(Known::Te)
        && forward::values(head, bytes, Known::Te)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// What the request is called here, in logs and for the server: nothing, as it came, or 32 hexadecimal digits.
fn name_request(conn: &Conn, from: IdFrom, bytes: &[u8], id: &mut Vec<u8>) {
    id.clear();
    match from {
        IdFrom::Nowhere => {}
        IdFrom::Incoming(span) => id.extend_from_slice(span.of(bytes)),
        IdFrom::New => {
            for number in [conn.worker.random(), conn.worker.random()] {
                id.extend_from_slice(&hex_digits((number >> 32) as u32));
                id.extend_from_slice(&hex_digits(number as u32));
            }
        }
    }
}

/// Eight hexadecimal digits, the highest first: each in a byte of one word.
fn hex_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut word = u64::from(number);
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where the digit is a letter: no byte carries into the next.
    let letters = (word + 6 * ONES) >> 4 & ONES;
    let from_digit = u64::from(b'a' - b'0' - 10);
    (word + u64::from(b'0') * ONES + from_digit * letters).to_be_bytes()
}

/// Copies what a log line shows of a request.
pub(super) fn take_texts(conn: &Conn, head: &RequestHead, bytes: &[u8], log: &mut Log) {
    let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
    let agent = head
        .fields
        .iter()
        .find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"user-agent"));
    let texts = log.texts();
    texts.method = text(head.method_text);
    texts.target = text(head.target);
    texts.host = head.host.map(text).unwrap_or_default();
    texts.version = match head.version {
        _ if conn.stream.is_carried() => "HTTP/2",
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    };
    texts.user_agent = agent.map(|agent| text(agent.value)).unwrap_or_default();
}

/// Whether `Accept` names JSON, and no text type before it.
fn prefers_json(head: &RequestHead, bytes: &[u8]) -> bool {
    forward::values(head, bytes, Known::Accept)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|range| {
            range
                .split(|byte| *byte == b';')
                .next()
                .unwrap_or_default()
                .trim_ascii()
        })
        .find_map(|range| match range {
            b"application/json" | b"application/problem+json" => Some(true),
            b"text/plain" | b"text/html" | b"text/*" => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

/// The whole request may take this long.
pub(super) fn request_timeout(route: &Route, pool: &config::Pool) -> Option<Duration> {
    route.request_timeout.unwrap_or(pool.timeouts.request)
}

#[cfg(test)]
mod tests {
    use super::hex_digits;

    #[test]
    fn hexadecimal_digits() {
        let spread = (0..=u32::from(u16::MAX)).map(|low| low | low.rotate_right(16));
        for number in spread.chain([u32::MAX, 0x0123_4567, 0x89ab_cdef]) {
            let expected = format!("{number:08x}");
            assert_eq!(hex_digits(number), expected.as_bytes(), "{expected}");
        }
    }
}
