//! Which client addresses carry most of a pool's traffic: one worker's count, in a few words of memory.
//!
//! Misra and Gries, "Finding Repeated Elements", 1982: with eight counters, whoever has more than a ninth of the
//! requests is among those counted. A count is short by at most what was struck off, which is known and no more than a
//! ninth of all; who adds up what workers have counted puts half of it back, so that a share is right within a sixteenth.

use std::net::IpAddr;
use std::time::Duration;

/// Addresses that are counted at once.
const COUNTERS: usize = 8;
/// Counts are told and begin anew after this long.
pub const WINDOW: Duration = Duration::from_secs(10);

/// What one worker counts.
#[derive(Debug, Default)]
pub struct Sources {
    counts: [u32; COUNTERS],
    sources: [Option<IpAddr>; COUNTERS],
    struck: u32,
    total: u32,
    began: Duration,
}

/// What one worker has counted in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Addresses that may have had more than a few of the requests, with how many at least; networks where IPv6
    /// addresses count by a prefix.
    pub sources: Vec<(IpAddr, u32)>,
    /// By how much each count may be short; one of an address that is not among them, too.
    pub struck: u32,
    /// All requests in the window.
    pub total: u32,
    /// How long the window was: it ends with the first request after [`WINDOW`].
    pub lasted: Duration,
}

impl Sources {
    /// Nothing is counted yet; the first window begins now.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            began: now,
            ..Self::default()
        }
    }

    /// Counts a request. When a window is over: what was counted in it.
    pub fn count(&mut self, source: IpAddr, now: Duration) -> Option<Box<Counted>> {
        self.add(source);
        let lasted = now.saturating_sub(self.began);
        if lasted < WINDOW {
            return None;
        }
        let counters = self.sources.iter().zip(self.counts);
        let known = counters.filter(|(_, count)| *count > 0);
        let counted = Counted {
            sources: known
                .filter_map(|(source, count)| Some(((*source)?, count)))
                .collect(),
            struck: self.struck,
            total: self.total,
            lasted,
        };
        *self = Self::new(now);
        Some(Box::new(counted))
    }

    fn add(&mut self, source: IpAddr) {
        self.total = self.total.saturating_add(1);
        let mut free = None;
        let counters = self.sources.iter_mut().zip(&mut self.counts);
        for (known, count) in counters {
            if *known == Some(source) && *count > 0 {
                *count = count.saturating_add(1);
                return;
            }
            if *count == 0 {
                free = Some((known, count));
            }
        }
        match free {
            Some((known, count)) => (*known, *count) = (Some(source), 1),
            None => {
                self.struck = self.struck.saturating_add(1);
                for count in &mut self.counts {
                    *count -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    /// One address in so many requests out of a hundred, the rest spread over so many others.
    fn check(percent: u32, others: u32) {
        let mut sources = Sources::default();
        for turn in 0..10_000_u32 {
            let mixed = turn.wrapping_mul(2_654_435_761) >> 8;
            let heavy = mixed % 100 < percent;
            let source = if heavy { 1 } else { 2 + mixed / 100 % others };
            assert_eq!(sources.count(address(source), Duration::from_secs(1)), None);
        }
        let counted = sources.count(address(0), WINDOW * 2).unwrap();
        assert_eq!((counted.total, counted.lasted), (10_001, WINDOW * 2));
        assert!(counted.struck <= counted.total / 9);
        let (source, least) = *counted.sources.iter().max_by_key(|(_, it)| *it).unwrap();
        assert_eq!(source, address(1));
        let share = f64::from(least + counted.struck / 2) / f64::from(counted.total) * 100.0;
        let expected = f64::from(percent);
        assert!(
            (share - expected).abs() < 7.0,
            "{share} of {expected}, {others}"
        );
        // The next window knows nothing of this one.
        assert_eq!(sources.total, 0);
    }

    #[test]
    fn who_has_more_than_a_ninth_is_found() {
        for percent in [13, 20, 25, 40, 60, 90] {
            for others in [8, 100, 50_000] {
                check(percent, others);
            }
        }
    }

    #[test]
    fn one_alone_has_it_all() {
        let mut sources = Sources::default();
        for _ in 0..99 {
            sources.add(address(7));
        }
        let counted = sources.count(address(7), WINDOW).unwrap();
        assert_eq!(counted.sources, [(address(7), 100)]);
        assert_eq!((counted.struck, counted.total), (0, 100));
    }
}
