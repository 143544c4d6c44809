//! What would become of a request that something binds: as [`LocalPool::pick_bound`] decides, without claiming a slot.
//!
//! [`LocalPool::pick_bound`]: crate::pick::LocalPool::pick_bound

use std::sync::Arc;
use std::time::Duration;

use balance::{Local, OnDrain, Why};
use config::{Affinity, Pool, Strength};

use super::{Against, WouldPick, would_pick};
use crate::affinity::{Bond, BoundServer, Tie, Turned, Verdict, turned, without};
use crate::gate::Lease;
use crate::live::{Member, PoolState};
use crate::reason::Reason;

/// What a bound request to a pool would get.
#[derive(Debug)]
pub struct WouldBind {
    /// The server that it is bound to, if the pool has it.
    pub owner: Option<BoundServer>,
    /// What becomes of it.
    pub course: Course,
    /// Whether the server that it would get has its key while its owner is not to be had, whatever `balance` would draw.
    pub by_key: bool,
    /// The server that it would get, and the words for all of them.
    pub pick: WouldPick,
}

/// What becomes of a request as what binds it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is bound to nothing, or to what there is not: any server will do.
    Any,
    /// Its server takes it.
    Stays,
    /// Its server is full, or the pool: it waits for it alone, for so long.
    Waits(Reason, Duration),
    /// Its server is full, or the pool, and it may not wait for it: another one takes it.
    Overflows(Reason),
    /// Its server cannot serve: another one takes it.
    Moves,
    /// Its server cannot serve, and no other may.
    Refused,
}

/// Says what would become of it; `priority`: the request's, should it have to wait. Claims nothing, counts nothing and
/// leaves every turn as it was.
#[must_use]
pub fn would_bind(
    state: &PoolState,
    local: &Local,
    (pool, affinity): (&Pool, &Affinity),
    bond: &Bond,
    key: Option<u64>,
    priority: u8,
    now: Duration,
) -> WouldBind {
    let mut pick = would_pick(state, local, key, now);
    let bound = pick.view.bound.as_ref();
    let owner = bound.and_then(|bound| match bond.tie {
        Tie::Free | Tie::Lost => None,
        Tie::Server(id) => bound.of_member(id),
        Tie::Key(key) => bound.owners(key).next(),
    });
    let owner = owner.cloned();
    let course = match (&owner, bond.tie) {
        (Some(owner), _) => course(state, pool, affinity, owner, priority),
        (None, Tie::Lost) if affinity.strength == Strength::Required => Course::Refused,
        // The config has let go of it.
        (None, Tie::Server(_)) => Course::Moves,
        (None, _) => Course::Any,
    };
    let mut by_key = false;
    match course {
        Course::Any => {}
        Course::Stays => {
            pick.member = owner.as_ref().map(|owner| owner.member.clone());
            pick.full = false;
        }
        Course::Moves | Course::Overflows(_) => {
            if let Some(stand_in) = stand_in(&pick, bond, owner.as_ref()) {
                pick.candidates = by_place(&pick, &stand_in);
                pick.member = Some(stand_in);
                pick.full = false;
                by_key = true;
            }
        }
        Course::Waits(..) | Course::Refused => {
            pick.member = None;
            pick.full = false;
        }
    }
    WouldBind {
        owner,
        course,
        by_key,
        pick,
    }
}

/// What becomes of it at its server.
fn course(
    state: &PoolState,
    pool: &Pool,
    affinity: &Affinity,
    owner: &BoundServer,
    priority: u8,
) -> Course {
    let away = |verdict| match verdict {
        Verdict::Keep => Course::Stays,
        Verdict::Move => Course::Moves,
        Verdict::Refuse => Course::Refused,
    };
    let verdict = owner.judge(affinity.strength, affinity.on_drain);
    if verdict != Verdict::Keep {
        return away(verdict);
    }
    match Lease::would_refuse(&owner.member, affinity.on_drain) {
        None => Course::Stays,
        Some(refused) => match turned(refused, affinity) {
            Turned::Away(verdict) => away(verdict),
            Turned::Full(reason) => match pool.queue.zip(affinity.queue_wait) {
                Some((queue, wait)) if state.gate.would_enter(priority, queue.max).is_some() => {
                    Course::Waits(reason, wait.min(queue.wait))
                }
                _ if without(affinity.strength) == Verdict::Refuse => Course::Refused,
                _ => Course::Overflows(reason),
            },
        },
    }
}

/// Who takes over a key from its owner.
fn stand_in(pick: &WouldPick, bond: &Bond, owner: Option<&BoundServer>) -> Option<Arc<Member>> {
    let Tie::Key(key) = bond.tie else {
        return None;
    };
    let mut owners = pick
        .view
        .bound
        .as_ref()?
        .owners(key)
        .take(crate::pick::WALK_MAX);
    let next = owners.find(|next| {
        let member = &next.member;
        let own = owner.is_some_and(|owner| owner.member.id == member.id);
        next.used && !own && Lease::would_refuse(member, OnDrain::Move).is_none()
    })?;
    Some(next.member.clone())
}

/// A word for each candidate, where the key's place decides and not `balance`.
fn by_place(pick: &WouldPick, stand_in: &Member) -> Vec<Against> {
    let members = pick.view.members.iter();
    let against = members.map(|member| {
        if member.id == stand_in.id {
            return Against::Algorithm(Why::Picked);
        }
        let refused = Lease::would_refuse(member, OnDrain::Move);
        refused.map_or(Against::Algorithm(Why::KeyElsewhere), Against::Refused)
    });
    against.collect()
}
