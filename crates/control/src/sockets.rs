//! Sockets to servers, counted from before they are opened until they are closed, so that their bounds hold at every
//! moment: that of a server, and that of its pool.
//!
//! Opening and closing them, and making room for another one, is `proxy`'s.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::live::Member;

/// Looks at all counts of a pool, for one that fits together.
const LOOKS_MAX: u32 = 16;

/// Whose sockets are as many as they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The server's.
    Server,
    /// Those of all servers of its pool together.
    Pool,
}

/// One socket to a server, open or about to be; no longer counted once dropped, which is to be after its close.
#[derive(Debug)]
pub struct SocketLease {
    member: Arc<Member>,
}

impl SocketLease {
    /// One more, if neither the server has `max` nor its pool as many as it may have. A count is never above its bound,
    /// not for a moment; only lowering a bound leaves more than it allows.
    ///
    /// # Errors
    /// Which of the two is reached.
    pub fn take(member: &Arc<Member>, max: u32) -> Result<Self, Full> {
        // Looked at first, so that no socket of the pool is claimed in vain but in a race.
        if member.sockets() >= max {
            return Err(Full::Server);
        }
        // The pool's is claimed first and given back last: at every moment it is at least the sum of its servers'.
        let gate = &member.gate;
        match gate.max() {
            Some(max) => claim(&gate.sockets, max).map_err(|()| Full::Pool)?,
            None => _ = gate.sockets.fetch_add(1, AcqRel),
        }
        if claim(&member.sockets, max).is_err() {
            gate.sockets.fetch_sub(1, AcqRel);
            return Err(Full::Server);
        }
        Ok(Self {
            member: member.clone(),
        })
    }

    /// The server.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for SocketLease {
    fn drop(&mut self) {
        self.member.sockets.fetch_sub(1, AcqRel);
        self.member.gate.sockets.fetch_sub(1, AcqRel);
    }
}

fn claim(count: &AtomicU32, max: u32) -> Result<(), ()> {
    let more = |now: u32| (now < max).then(|| now + 1);
    count
        .fetch_update(AcqRel, Acquire, more)
        .map(drop)
        .map_err(drop)
}

/// How many are open to each of these servers of one pool. Their sum is no more than were open to the pool at one
/// moment, where one look after another finds such a moment: a socket that moves from one server to another is not
/// counted at both.
#[must_use]
pub fn counts<'a>(members: impl Iterator<Item = &'a Arc<Member>> + Clone) -> Vec<u32> {
    let mut counts = Vec::new();
    for _ in 0..LOOKS_MAX {
        counts.clear();
        counts.extend(members.clone().map(|member| member.sockets()));
        let sum = counts.iter().copied().fold(0, u32::saturating_add);
        let pool = members.clone().next().map(|member| member.gate.sockets());
        if pool.is_none_or(|pool| sum <= pool) {
            break;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use crate::live::Endpoint;
    use std::cell::{Cell, RefCell};
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::SeqCst;

    fn members(count: u32, max: Option<u32>) -> Vec<Arc<Member>> {
        let gate = Arc::new(Gate::default());
        gate.set_max(max);
        let member = |id: u32| {
            let endpoint = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 1)));
            let name = id.to_string().into();
            Arc::new(Member::new(id, "p".into(), name, endpoint, gate.clone(), 1))
        };
        (0..count).map(member).collect()
    }

    #[test]
    fn each_bound_is_said_and_what_was_refused_counts_nowhere() {
        let both = members(2, Some(3));
        let first = SocketLease::take(&both[0], 2).expect("room");
        let second = SocketLease::take(&both[0], 2).expect("room");
        assert_eq!(SocketLease::take(&both[0], 2).err(), Some(Full::Server));
        let third = SocketLease::take(&both[1], 2).expect("room");
        assert_eq!(SocketLease::take(&both[1], 2).err(), Some(Full::Pool));
        assert_eq!(counts(both.iter()), [2, 1]);
        assert_eq!(both[0].gate.sockets(), 3);
        drop((first, second, third));
        assert_eq!(counts(both.iter()), [0, 0]);
        assert_eq!(both[0].gate.sockets(), 0);
        assert_eq!(SocketLease::take(&both[0], 0).err(), Some(Full::Server));
    }

    /// A bound that a reload sets holds for what was opened before.
    #[test]
    fn what_was_open_before_there_was_a_bound_counts() {
        let both = members(2, None);
        let _open: Vec<_> = (0..4).map(|_| SocketLease::take(&both[0], 9)).collect();
        both[0].gate.set_max(Some(4));
        assert_eq!(SocketLease::take(&both[1], 9).err(), Some(Full::Pool));
    }

    #[test]
    fn a_socket_that_moves_during_a_look_is_not_seen_twice() {
        let both = members(2, Some(1));
        let open = RefCell::new(SocketLease::take(&both[0], 1).ok());
        let moved = Cell::new(false);
        let move_on = |member: &&Arc<Member>| {
            if member.id == 1 && !moved.replace(true) {
                open.replace(None);
                open.replace(SocketLease::take(member, 1).ok());
            }
        };
        assert_eq!(counts(both.iter().inspect(move_on)), [0, 1]);
    }

    /// Never above a bound for a moment, whoever looks while threads open and close.
    #[test]
    fn no_look_ever_sees_more_than_a_bound() {
        const POOL_MAX: u32 = 3;
        const SERVER_MAX: u32 = 2;
        const ROUNDS: usize = 50_000;
        let all = members(4, Some(POOL_MAX));
        let ended = AtomicBool::new(false);
        let look = || {
            let (pool, counts) = (all[0].gate.sockets(), counts(all.iter()));
            let within = pool <= POOL_MAX
                && counts.iter().all(|count| *count <= SERVER_MAX)
                && counts.iter().sum::<u32>() <= POOL_MAX;
            (!within).then_some((pool, counts))
        };
        let change = |first: usize| {
            for turn in first..first + ROUNDS {
                let each = (0..4).map(|at| SocketLease::take(&all[(at + turn) % 4], SERVER_MAX));
                drop(each.collect::<Vec<_>>());
            }
        };
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let looks = std::iter::repeat_with(look).take_while(|_| !ended.load(SeqCst));
                looks.flatten().next()
            });
            let changing = [0, 1, 2].map(|first| scope.spawn(move || change(first)));
            for thread in changing {
                thread.join().expect("it ends");
            }
            ended.store(true, SeqCst);
            assert_eq!(looking.join().expect("it ends"), None);
        });
        assert_eq!(counts(all.iter()), [0; 4]);
        assert_eq!(all[0].gate.sockets(), 0);
    }
}
