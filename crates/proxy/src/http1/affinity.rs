//! What binds a request's client to a server: read from the request, kept over the tries, told to the client.

use std::cell::RefCell;

use config::{Affinity, AffinityKind, Arm, Destination, Pool};
use control::affinity::{Asks, Bond, End, Share, Tie, cookie};
use control::learnt::LearntView;
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
    let mut pool = pool.borrow_mut();
    pool.refresh();
    let learnt = |view: &LearntView| view.bond(request, net::now());
    let wall = || worker.wall();
    control::affinity::bond(&affinity.kind, &pool.view, request, share, wall, learnt)
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
    let random = || (worker.random() >> 32) as u32;
    let ask = |arm: &Arm, asks: Asks<'_>| {
        let pool = world.pool(arm.to);
        pool.is_some_and(|pool| asks(&pool.borrow().view))
    };
    let learnt = |view: &LearntView| view.bond(request, net::now());
    let placed = control::affinity::arm(arms, pools, request, random, ask, learnt)?;
    Some((placed.to, placed.share))
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
