//! Which client addresses carry most of a pool's traffic: one worker's count, in a few words of memory.
//!
//! Misra and Gries, "Finding Repeated Elements", 1982: with eight counters, whoever has more than a ninth of the
//! requests is among those counted. A count is short by what was struck off, which is known; half of it is put back, so
//! that a share is right within a sixteenth.

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

/// The address that one worker saw most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heavy {
    /// The address, or the network where IPv6 addresses count by a prefix.
    pub source: IpAddr,
    /// Its requests in the window, about.
    pub count: u32,
    /// All requests in the window.
    pub total: u32,
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

    /// Counts a request. When a window is over: who had most of it, if anybody is known to have had more than a few.
    pub fn count(&mut self, source: IpAddr, now: Duration) -> Option<Heavy> {
        self.add(source);
        if now.saturating_sub(self.began) < WINDOW {
            return None;
        }
        let heaviest = self.heaviest();
        *self = Self::new(now);
        heaviest
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

    fn heaviest(&self) -> Option<Heavy> {
        let counters = self.sources.iter().zip(&self.counts);
        let (source, count) = counters.max_by_key(|(_, count)| **count)?;
        (*count > 0).then_some(Heavy {
            source: (*source)?,
            count: count.saturating_add(self.struck / 2).min(self.total),
            total: self.total,
        })
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
        let heavy = sources.count(address(0), WINDOW * 2).unwrap();
        assert_eq!((heavy.source, heavy.total), (address(1), 10_001));
        let share = f64::from(heavy.count) / f64::from(heavy.total) * 100.0;
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
        let heavy = sources.count(address(7), WINDOW).unwrap();
        assert_eq!(
            (heavy.source, heavy.count, heavy.total),
            (address(7), 100, 100)
        );
    }
}
