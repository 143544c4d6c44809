//! What binds a request, and which arm of a split it belongs to: read from the request as its pool's view has it, alike for
//! traffic and for `explain`.

use std::time::Duration;

use config::{AffinityKind, Arm, Destination, LearntBy, Pool};
use rules::Request;

use super::{Bond, Share, Tie, cookie, request_key, source_key};
use crate::learnt::LearntView;
use crate::live::PoolView;

/// What binds a request to a server of the pool that has this view. `share`: its user's place in the split that led here.
/// `wall`: asked only where cookies end. `learnt`: asked only where the pool learns.
#[must_use]
pub fn bond(
    kind: &AffinityKind,
    view: &PoolView,
    request: &Request<'_>,
    share: Option<Share>,
    wall: impl FnOnce() -> Duration,
    learnt: impl FnOnce(&LearntView) -> Bond,
) -> Bond {
    match kind {
        AffinityKind::Cookie(cookie) => {
            let Some(bound) = &view.bound else {
                return Bond::default();
            };
            let mut bond = cookie::bond(cookie, bound, request, wall);
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
            let bound = view.bound.as_ref();
            let server = bound.and_then(|bound| bound.of_text(value));
            Bond::to(server.map_or(Tie::Lost, |server| Tie::Server(server.member.id)))
        }
        AffinityKind::Source { ipv6_prefix } => {
            Bond::to(Tie::Key(source_key(request.source, *ipv6_prefix)))
        }
        AffinityKind::Learnt(_) => {
            let view = view.learnt.as_ref();
            view.map_or_else(Bond::default, |view| learnt(view))
        }
        AffinityKind::Hash(key) => Bond::to(request_key(key, request).map_or(Tie::Free, Tie::Key)),
    }
}

/// The arm of a user of a split whose arms remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Where it leads.
    pub to: Destination,
    /// The user's place, if it goes by that.
    pub share: Option<Share>,
    /// Whether the request told; else the place was drawn.
    pub known: bool,
}

/// What an arm is asked of its pool's view.
pub type Asks<'a> = &'a dyn Fn(&PoolView) -> bool;

/// Where a user of a split goes whose arms remember it; `None` where nothing is remembered. `ask`: has an arm's view
/// looked at. `learnt`: as for [`bond`].
pub fn arm(
    arms: &[Arm],
    pools: &[Pool],
    request: &Request<'_>,
    random: impl FnMut() -> u32,
    ask: impl Fn(&Arm, Asks<'_>) -> bool,
    learnt: impl Fn(&LearntView) -> Bond,
) -> Option<Placed> {
    let mut kinds = arms.iter().filter_map(|arm| kind_of(arm, pools));
    let told = |to| Placed {
        to,
        share: None,
        known: true,
    };
    let knows = |arm: &&Arm, text: &[u8]| {
        let meant = |view: &PoolView| {
            let bound = view.bound.as_ref();
            bound.is_some_and(|bound| bound.of_text(text).is_some())
        };
        arm.weight > 0 && ask(arm, &meant)
    };
    let (share, known) = match kinds.next()? {
        AffinityKind::Cookie(_) => place_by_cookie(arms, pools, request, random, knows),
        AffinityKind::Header(name) => {
            let named = request.header(name)?;
            return Some(told(arms.iter().find(|arm| knows(arm, named))?.to));
        }
        AffinityKind::Source { ipv6_prefix } => (
            Share::of_key(source_key(request.source, *ipv6_prefix)),
            true,
        ),
        AffinityKind::Learnt(learning) => {
            let key = match &learning.by {
                // A session that is known stays in its arm; a new one goes by the weights.
                LearntBy::AppCookie { .. } => {
                    let is_known = |view: &PoolView| {
                        let view = view.learnt.as_ref();
                        view.is_some_and(|view| learnt(view).tie != Tie::Free)
                    };
                    let has = |arm: &&Arm| arm.weight > 0 && ask(arm, &is_known);
                    return Some(told(arms.iter().find(has)?.to));
                }
                LearntBy::Header(name) => request.header(name).map(balance::hash_key)?,
                LearntBy::Source { ipv6_prefix } => source_key(request.source, *ipv6_prefix),
            };
            (Share::of_key(key), true)
        }
        AffinityKind::Hash(key) => (Share::of_key(request_key(key, request)?), true),
    };
    let arm = arms.get(share.arm(arms, pools)?)?;
    Some(Placed {
        to: arm.to,
        share: Some(share),
        known,
    })
}

/// The place that a cookie tells; else one within the arm whose server it names; else a new one, which the request did not
/// tell.
fn place_by_cookie(
    arms: &[Arm],
    pools: &[Pool],
    request: &Request<'_>,
    mut random: impl FnMut() -> u32,
    knows: impl Fn(&&Arm, &[u8]) -> bool,
) -> (Share, bool) {
    let mut known = None;
    for (at, arm) in arms.iter().enumerate() {
        let Some(AffinityKind::Cookie(cookie)) = kind_of(arm, pools) else {
            continue;
        };
        for value in cookie::values(cookie, request) {
            if let Some(share) = value.share {
                return (share, true);
            }
            if known.is_none() && knows(&arm, value.text) {
                known = Some(at);
            }
        }
    }
    match known {
        Some(at) => (Share::within(at, arms, pools, random), true),
        None => (Share(random()), false),
    }
}

fn kind_of<'p>(arm: &Arm, pools: &'p [Pool]) -> Option<&'p AffinityKind> {
    Some(&pools.get(arm.to.pool)?.affinity.as_ref()?.kind)
}
