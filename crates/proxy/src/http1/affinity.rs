//! What binds a request's client to a server: read from the request, kept over the tries, told to the client.

use std::cell::RefCell;

use config::{Affinity, AffinityKind, Arm, Destination, LearntBy, Pool};
use control::affinity::{Bond, End, Share, Tie, cookie, request_key, source_key};
use control::live::Member;
use control::pick::LocalPool;
use control::reason::Reason;
use rules::Request;
use rules::forward;
use wire::http1::{Known, RequestHead};

use super::exchange::Cx;
use super::log::Log;
use super::respond::Learns;
use crate::worker::{LocalWorld, Worker};
use crate::{net, source};

/// What binds a request to a server of its pool. `share`: its user's place in the split that led here.
pub(super) fn bond(
    worker: &Worker,
    affinity: &Affinity,
    pool: &RefCell<LocalPool>,
    request: &Request<'_>,
    share: Option<Share>,
) -> Bond {
    source::count(worker, affinity, pool, request.source);
    match &affinity.kind {
        AffinityKind::Cookie(cookie) => {
            let mut pool = pool.borrow_mut();
            pool.refresh();
            let Some(bound) = &pool.view.bound else {
                return Bond::default();
            };
            let mut bond = cookie::bond(cookie, bound, request, || worker.wall());
            if share.is_some() && bond.share != share {
                bond.share = share;
                bond.renew = true;
            }
            bond
        }
        AffinityKind::Header(name) => {
            let Some(value) = request.header(name) else {
                return Bond::default();
            };
            let mut pool = pool.borrow_mut();
            pool.refresh();
            let bound = pool.view.bound.as_ref();
            let server = bound.and_then(|bound| bound.of_text(value));
            Bond::to(server.map_or(Tie::Lost, |server| Tie::Server(server.member.id)))
        }
        AffinityKind::Source { ipv6_prefix } => {
            Bond::to(Tie::Key(source_key(request.source, *ipv6_prefix)))
        }
        AffinityKind::Learnt(_) => {
            let mut pool = pool.borrow_mut();
            pool.refresh();
            let learnt = pool.view.learnt.as_ref();
            learnt.map_or_else(Bond::default, |learnt| learnt.bond(request, net::now()))
        }
        AffinityKind::Hash(key) => Bond::to(request_key(key, request).map_or(Tie::Free, Tie::Key)),
    }
}

/// What is learnt from answers, where the pool learns.
pub(super) fn learns<'a>(cx: &'a Cx<'_>) -> Option<Learns<'a>> {
    let bond = cx.plan.bond.as_ref()?;
    cx.config.learning()?;
    Some(Learns {
        pool: cx.pool,
        bond,
    })
}

/// The cookie that is between the client and us alone, if the request has it.
pub(super) fn hidden_cookie<'c>(config: &'c Pool, bond: Option<&Bond>) -> Option<&'c [u8]> {
    let brought = bond.is_some_and(|bond| bond.foreign || bond.tie != Tie::Free);
    match &config.affinity.as_ref().filter(|_| brought)?.kind {
        AffinityKind::Cookie(cookie) if cookie.indirect => Some(cookie.name.as_bytes()),
        _ => None,
    }
}

/// Where a user of a split goes whose arms remember it, with its place; `None` where nothing is remembered.
pub(super) fn arm(
    worker: &Worker,
    world: &LocalWorld,
    arms: &[Arm],
    request: &Request<'_>,
) -> Option<(Destination, Option<Share>)> {
    let pools = &world.world.snapshot.pools;
    let mut kinds = arms.iter().filter_map(|arm| kind_of(arm, pools));
    let share = match kinds.next()? {
        AffinityKind::Cookie(_) => share_by_cookie(worker, world, arms, request),
        AffinityKind::Header(name) => {
            let named = request.header(name)?;
            let at = arms.iter().position(|arm| knows(world, arm, named))?;
            return Some((arms.get(at)?.to, None));
        }
        AffinityKind::Source { ipv6_prefix } => {
            Share::of_key(source_key(request.source, *ipv6_prefix))
        }
        AffinityKind::Learnt(learning) => {
            let key = match &learning.by {
                // A session that is known stays in its arm; a new one goes by the weights.
                LearntBy::AppCookie { .. } => {
                    let has = |arm: &&Arm| arm.weight > 0 && has_learnt(world, arm, request);
                    return Some((arms.iter().find(has)?.to, None));
                }
                LearntBy::Header(name) => request.header(name).map(balance::hash_key)?,
                LearntBy::Source { ipv6_prefix } => source_key(request.source, *ipv6_prefix),
            };
            Share::of_key(key)
        }
        AffinityKind::Hash(key) => Share::of_key(request_key(key, request)?),
    };
    let arm = arms.get(share.arm(arms, pools)?)?;
    Some((arm.to, Some(share)))
}

/// The place that a cookie tells; else one within the arm whose server it names; else a new one.
fn share_by_cookie(
    worker: &Worker,
    world: &LocalWorld,
    arms: &[Arm],
    request: &Request<'_>,
) -> Share {
    let pools = &world.world.snapshot.pools;
    let mut known = None;
    for (at, arm) in arms.iter().enumerate() {
        let Some(AffinityKind::Cookie(cookie)) = kind_of(arm, pools) else {
            continue;
        };
        for value in cookie::values(cookie, request) {
            if let Some(share) = value.share {
                return share;
            }
            if known.is_none() && knows(world, arm, value.text) {
                known = Some(at);
            }
        }
    }
    let random = || (worker.random() >> 32) as u32;
    match known {
        Some(at) => Share::within(at, arms, pools, random),
        None => Share(random()),
    }
}

fn kind_of<'p>(arm: &Arm, pools: &'p [Pool]) -> Option<&'p AffinityKind> {
    Some(&pools.get(arm.to.pool)?.affinity.as_ref()?.kind)
}

/// Whether an arm has learnt where this request belongs.
fn has_learnt(world: &LocalWorld, arm: &Arm, request: &Request<'_>) -> bool {
    let Some(pool) = world.pool(arm.to) else {
        return false;
    };
    let pool = pool.borrow();
    let learnt = pool.view.learnt.as_ref();
    learnt.is_some_and(|learnt| learnt.bond(request, net::now()).tie != Tie::Free)
}

/// Whether a server of an arm is meant.
fn knows(world: &LocalWorld, arm: &Arm, text: &[u8]) -> bool {
    let Some(pool) = world.pool(arm.to).filter(|_| arm.weight > 0) else {
        return false;
    };
    let pool = pool.borrow();
    let bound = pool.view.bound.as_ref();
    bound.is_some_and(|bound| bound.of_text(text).is_some())
}

/// Whether the client has come over TLS, as far as a trusted proxy tells.
pub(super) fn is_secure(own: bool, trusted: bool, head: &RequestHead, bytes: &[u8]) -> bool {
    let told = || forward::values(head, bytes, Known::XForwardedProto).next();
    own || trusted && told().is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
}

/// This member answers: notes what has come of the request's bond, and writes the fields by which the client is bound from
/// now on; none if there is nothing to tell.
pub(super) fn settle(cx: &Cx<'_>, fields: &mut Vec<u8>, member: &Member, log: &mut Log) {
    fields.clear();
    let (Some(bond), Some(affinity)) = (&cx.plan.bond, &cx.config.affinity) else {
        return;
    };
    let end = bond.end(Some(member.id));
    log.affinity = Some((affinity.kind.name(), end));
    let worker = &cx.conn.worker;
    if end == End::Kept {
        member.stats.of(worker.number).affinity_picks.increment();
    }
    let AffinityKind::Cookie(cookie) = &affinity.kind else {
        return;
    };
    let renews = bond.renew && end == End::Kept;
    if !renews && !end.binds() {
        return;
    }
    let pool = cx.pool.borrow();
    let bound = pool.view.bound.as_ref();
    let Some(server) = bound.and_then(|bound| bound.of_member(member.id)) else {
        return;
    };
    fields.extend_from_slice(b"Set-Cookie: ");
    let secure = cx.plan.secure;
    cookie::write(fields, cookie, &server.text, bond.share, secure, || {
        worker.wall()
    });
    fields.extend_from_slice(b"\r\n");
    if cookie.no_cache {
        fields.extend_from_slice(b"Cache-Control: private\r\n");
    }
}

/// No server could be had, for this reason.
pub(super) fn note_unserved(cx: &Cx<'_>, reason: Reason, log: &mut Log) {
    if let (Some(bond), Some(affinity)) = (&cx.plan.bond, &cx.config.affinity)
        && reason == Reason::AffinityServerUnavailable
    {
        log.affinity = Some((affinity.kind.name(), bond.end(None)));
    }
}
