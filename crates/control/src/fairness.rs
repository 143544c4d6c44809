//! How far affinity bends the balance of a pool: who was picked of late, beside who would have been by the weights alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::sources::{Counted, WINDOW};

/// A pick counts half after this long.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Fewer picks say nothing of shares.
const PICKS_MIN: f64 = 20.0;
/// Requests of a window from which on an address may be told of.
const REQUESTS_MIN: f64 = 100.0;
/// What a worker has counted is not added to what others count later than this.
const REPORT_HOLD: Duration = Duration::from_secs(2 * WINDOW.as_secs() + 1);
/// What was found is shown for as long: the next verdict is due in two windows.
const VERDICT_HOLD: Duration = Duration::from_secs(3 * WINDOW.as_secs());
/// An alarm is over when the share is below this part of what set it off.
const CALM: f64 = 0.8;
/// The same pool's alarm is logged again at the earliest after this long.
const LOG_EVERY: Duration = Duration::from_secs(600);

/// How a pool's clients lie, where something binds them; over the last minute or so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fairness {
    /// The part of the picks that affinity decided, 0 to 1.
    pub by_affinity: f64,
    /// The part of the picks that are on another server than by the weights in force alone, 0 to 1: half of the sum of
    /// what servers got too much and too little (the total variation distance).
    pub bend: f64,
    /// The server that got most beyond its part; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<Most>,
    /// The address that most requests came from, where clients are bound by theirs and one stood out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<HeavySource>,
}

/// A server that got more than its part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Most {
    /// Its name.
    pub server: Arc<str>,
    /// Its part of the picks, 0 to 1.
    pub share: f64,
    /// Its part by the weights in force.
    pub due: f64,
}

/// An address that many requests came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeavySource {
    /// The address, or its network where IPv6 addresses count by a prefix.
    pub source: IpAddr,
    /// Its part of the pool's requests, 0 to 1, right within a sixteenth.
    pub share: f64,
    /// Whether that is past `source_alarm`.
    pub alarm: bool,
}

/// What one look sees of a server.
#[derive(Debug, Clone)]
pub struct Picked {
    /// The member.
    pub id: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Picks since it is there.
    pub picks: u64,
    /// Those of them that affinity decided.
    pub by_affinity: u64,
    /// Its part of the picks by the weights in force, 0 to 1.
    pub due: f64,
}

/// What was seen of one server.
#[derive(Debug, Clone, Copy, Default)]
struct Trail {
    picks: u64,
    by_affinity: u64,
    /// Picks of late, older ones counting less and less.
    recent: f64,
    /// Those of them that affinity decided.
    recent_by_affinity: f64,
    /// How many would have been due.
    expected: f64,
}

/// Who counts addresses: a worker, for a pool or a [group](crate::live::PoolState::group) of its servers.
pub type Teller = (usize, u32);

/// Watches the picks of one pool, look by look.
#[derive(Debug, Default)]
pub struct Watch {
    trails: BTreeMap<u32, Trail>,
    looked: Option<Duration>,
    /// What each worker has counted in its last window, by who it is, until a verdict is made of it.
    reports: BTreeMap<Teller, (Duration, Counted)>,
    /// The heaviest address of the last verdict, its share, and when that was.
    heavy: Option<(IpAddr, f64, Duration)>,
    alarm: bool,
    logged: Option<Duration>,
}

impl Watch {
    /// Takes a look; `None` while there is too little to say anything.
    pub fn look(&mut self, servers: &[Picked], now: Duration) -> Option<Fairness> {
        let passed = now.saturating_sub(self.looked.unwrap_or(now));
        let fades = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let first = self.looked.replace(now).is_none();
        let mut before = std::mem::take(&mut self.trails);
        let mut new = 0.0;
        for it in servers {
            // One that was not there before is seen from now on.
            let mut trail = before.remove(&it.id).unwrap_or(Trail {
                picks: if first { it.picks } else { 0 },
                by_affinity: if first { it.by_affinity } else { 0 },
                ..Trail::default()
            });
            let picks = it.picks.saturating_sub(trail.picks) as f64;
            new += picks;
            let by_affinity = it.by_affinity.saturating_sub(trail.by_affinity) as f64;
            trail.recent = trail.recent * fades + picks;
            trail.recent_by_affinity = trail.recent_by_affinity * fades + by_affinity;
            trail.expected *= fades;
            (trail.picks, trail.by_affinity) = (it.picks, it.by_affinity);
            self.trails.insert(it.id, trail);
        }
        for it in servers {
            if let Some(trail) = self.trails.get_mut(&it.id) {
                trail.expected += new * it.due;
            }
        }
        self.judge(servers, now)
    }

    fn judge(&mut self, servers: &[Picked], now: Duration) -> Option<Fairness> {
        let sum = |of: fn(&Trail) -> f64| self.trails.values().map(of).sum::<f64>();
        let all = sum(|trail| trail.recent);
        let by_affinity = sum(|trail| trail.recent_by_affinity);
        let source = self.source(now);
        if all < PICKS_MIN {
            return None;
        }
        let beyond = |trail: &Trail| trail.recent - trail.expected;
        let apart: f64 = self.trails.values().map(|trail| beyond(trail).abs()).sum();
        let trails = servers.iter();
        let trails = trails.filter_map(|it| Some((it, self.trails.get(&it.id)?)));
        let most = trails.max_by(|(_, a), (_, b)| beyond(a).total_cmp(&beyond(b)));
        Some(Fairness {
            by_affinity: rounded((by_affinity / all).min(1.0)),
            bend: rounded((apart / 2.0 / all).min(1.0)),
            most: most
                .filter(|(_, trail)| beyond(trail) >= 1.0)
                .map(|(it, trail)| Most {
                    server: it.name.clone(),
                    share: rounded(trail.recent / all),
                    due: rounded(trail.expected / all),
                }),
            source,
        })
    }

    /// Takes in what one worker has counted in its last window. A verdict is due once all of so many `tellers` have
    /// told, or one tells again: so it is of one window of each who has any traffic. Gives the address and its share when
    /// it is to be told that one carries `alarm` percent or more of the pool, which is at most once in ten minutes.
    pub fn handle_sources(
        &mut self,
        teller: Teller,
        counted: Counted,
        tellers: usize,
        alarm: u32,
        now: Duration,
    ) -> Option<(IpAddr, f64)> {
        let again = self.reports.contains_key(&teller);
        let before = again.then(|| self.weigh(alarm, now)).flatten();
        self.reports.insert(teller, (now, counted));
        let whole = self.reports.len() >= tellers;
        before.or_else(|| whole.then(|| self.weigh(alarm, now)).flatten())
    }

    /// Makes a verdict of what was counted.
    fn weigh(&mut self, alarm: u32, now: Duration) -> Option<(IpAddr, f64)> {
        let mut reports = std::mem::take(&mut self.reports);
        reports.retain(|_, (at, _)| now.saturating_sub(*at) < REPORT_HOLD);
        let mut counts: BTreeMap<IpAddr, f64> = BTreeMap::new();
        let (mut total, mut struck) = (0.0, 0.0);
        for (_, counted) in reports.values() {
            // A window that took long is of few requests a second.
            let part = WINDOW.as_secs_f64() / counted.lasted.max(WINDOW).as_secs_f64();
            total += f64::from(counted.total) * part;
            struck += f64::from(counted.struck) * part;
            for (source, count) in &counted.sources {
                *counts.entry(*source).or_default() += f64::from(*count) * part;
            }
        }
        let heaviest = counts.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let heavy = heaviest.map(|(source, count)| {
            let share = ((count + struck / 2.0) / total).min(1.0);
            (source, rounded(share))
        });
        self.heavy = heavy.map(|(source, share)| (source, share, now));
        let (source, share) = heavy?;
        let level = f64::from(alarm) / 100.0;
        let level = if self.alarm { level * CALM } else { level };
        self.alarm = share >= level && total >= REQUESTS_MIN;
        let told = self
            .logged
            .is_some_and(|at| now < at.saturating_add(LOG_EVERY));
        if !self.alarm || told {
            return None;
        }
        self.logged = Some(now);
        Some((source, share))
    }

    fn source(&mut self, now: Duration) -> Option<HeavySource> {
        let holds = |at: Duration| now.saturating_sub(at) < VERDICT_HOLD;
        self.heavy = self.heavy.filter(|(.., at)| holds(*at));
        self.alarm &= self.heavy.is_some();
        self.heavy.map(|(source, share, _)| HeavySource {
            source,
            share,
            alarm: self.alarm,
        })
    }
}

fn rounded(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(picks: &[(u64, u64)], due: &[f64]) -> Vec<Picked> {
        let servers = picks.iter().zip(due).zip(1..);
        servers
            .map(|(((picks, by_affinity), due), id)| Picked {
                id,
                name: format!("s{id}").into(),
                picks: *picks,
                by_affinity: *by_affinity,
                due: *due,
            })
            .collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn shares_of_late_are_held_against_the_weights() {
        let thirds = [1.0 / 3.0; 3];
        let mut watch = Watch::default();
        // What was before the first look is not of late.
        assert_eq!(
            watch.look(&picked(&[(900, 900), (0, 0), (0, 0)], &thirds), at(10)),
            None
        );
        let even = picked(&[(1000, 960), (100, 0), (100, 0)], &thirds);
        let fairness = watch.look(&even, at(11)).unwrap();
        assert_eq!((fairness.by_affinity, fairness.bend), (0.2, 0.0));
        assert_eq!(fairness.most, None);
        // All goes to the first now: of the 300 after the 300, 200 are elsewhere than they would be.
        let bent = picked(&[(1300, 1260), (100, 0), (100, 0)], &thirds);
        let fairness = watch.look(&bent, at(11)).unwrap();
        assert_eq!((fairness.by_affinity, fairness.bend), (0.6, 0.3333));
        let most = fairness.most.unwrap();
        assert_eq!(
            (&*most.server, most.share, most.due),
            ("s1", 0.6667, 0.3333)
        );
        // It is forgotten by and by.
        let later = watch.look(&bent, at(100)).unwrap();
        assert_eq!(later.bend, 0.3333);
        assert_eq!(watch.look(&bent, at(400)), None);
    }

    #[test]
    fn weights_that_change_are_held_against_the_picks_of_their_time() {
        let mut watch = Watch::default();
        watch.look(&picked(&[(0, 0), (0, 0)], &[0.5, 0.5]), at(1));
        watch.look(&picked(&[(100, 0), (100, 0)], &[0.5, 0.5]), at(2));
        let fairness = watch.look(&picked(&[(300, 0), (100, 0)], &[1.0, 0.0]), at(3));
        assert_eq!(fairness.unwrap().bend, 0.0);
    }

    const HEAVY: &str = "192.0.2.1";

    /// A window in which one address had so many of so many requests.
    fn counted(count: u32, total: u32) -> Counted {
        Counted {
            sources: vec![(HEAVY.parse().unwrap(), count)],
            struck: 0,
            total,
            lasted: WINDOW,
        }
    }

    #[test]
    fn a_server_that_is_gone_counts_no_more() {
        let mut watch = Watch::default();
        watch.look(&picked(&[(0, 0), (0, 0)], &[0.5, 0.5]), at(1));
        let both = picked(&[(100, 0), (100, 100)], &[0.5, 0.5]);
        assert_eq!(watch.look(&both, at(1)).unwrap().by_affinity, 0.5);
        let one = picked(&[(100, 0)], &[1.0]);
        assert_eq!(watch.look(&one, at(1)).unwrap().by_affinity, 0.0);
    }

    #[test]
    fn an_address_that_carries_much_is_told_of_once() {
        let mut watch = Watch::default();
        let mut tell = |count, total, seconds| {
            let told = watch.handle_sources((0, 0), counted(count, total), 1, 25, at(seconds));
            (told.map(|(_, share)| share), watch.source(at(seconds)))
        };
        let shown = |share, alarm| {
            let source = HEAVY.parse().unwrap();
            Some(HeavySource {
                source,
                share,
                alarm,
            })
        };
        assert_eq!(tell(50, 60, 10), (None, shown(0.8333, false)), "too few");
        assert_eq!(tell(60, 160, 20), (Some(0.375), shown(0.375, true)));
        assert_eq!(tell(60, 100, 30), (None, shown(0.6, true)), "told before");
        assert_eq!(tell(22, 100, 40), (None, shown(0.22, true)), "not calm yet");
        assert_eq!(tell(10, 100, 50), (None, shown(0.1, false)));
        assert_eq!(tell(90, 100, 700).0, Some(0.9));
        assert_eq!(watch.source(at(729)), shown(0.9, true));
        assert_eq!(watch.source(at(730)), None);
        assert!(!watch.alarm);
    }

    #[test]
    fn a_verdict_is_of_one_window_of_each_worker() {
        let mut watch = Watch::default();
        let mut tell = |worker, counted, seconds| {
            watch.handle_sources((worker, 0), counted, 4, 25, at(seconds));
            watch.source(at(seconds)).map(|it| (it.share, it.alarm))
        };
        // One that has little to do, all of it from one address, is no verdict on the pool.
        assert_eq!(tell(0, counted(100, 100), 1), None);
        assert_eq!(tell(1, counted(0, 9900), 2), None);
        // It tells again: what went before is whole.
        assert_eq!(tell(1, counted(0, 9900), 12), Some((0.01, false)));
        assert_eq!(tell(0, counted(100, 100), 13), Some((0.01, false)));
        assert_eq!(tell(2, counted(0, 900), 14), Some((0.01, false)));
        // As soon as all have told, it is due.
        assert_eq!(tell(3, counted(9900, 9900), 15), Some((0.4808, true)));
        // Its hundred took it ten windows: it has ten in each.
        let slow = Counted {
            lasted: WINDOW * 10,
            ..counted(100, 100)
        };
        assert_eq!(tell(0, slow, 20), Some((0.4808, true)));
        assert_eq!(tell(1, counted(0, 90), 21), Some((0.4808, true)));
        assert_eq!(tell(1, counted(0, 90), 31), Some((0.1, false)));
        // What somebody counted long ago says nothing of now.
        assert_eq!(tell(1, counted(50, 100), 131), None);
        assert_eq!(tell(1, counted(50, 100), 141), Some((0.5, true)));
    }

    #[test]
    fn shares_are_right_within_a_sixteenth_however_many_workers_count() {
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(number));
        // Parts of two heavy addresses in percent; all others come from so many.
        for (heavy, others) in [
            ([50, 50], 1),
            ([30, 28], 1000),
            ([15, 14], 12),
            ([40, 0], 9),
        ] {
            for workers in [1_u32, 2, 7] {
                let mut watch = Watch::default();
                let mut sources: Vec<_> = (0..workers)
                    .map(|_| crate::sources::Sources::new(at(0)))
                    .collect();
                for turn in 0..20_000_u32 {
                    let mixed = turn.wrapping_mul(2_654_435_761) >> 8;
                    let percent = mixed % 100;
                    let source = match percent {
                        _ if percent < heavy[0] => 1,
                        _ if percent < heavy[0] + heavy[1] => 2,
                        _ => 3 + mixed / 100 % others,
                    };
                    let worker = (mixed / 7 % workers) as usize;
                    assert_eq!(sources[worker].count(address(source), at(1)), None);
                }
                for (worker, sources) in sources.iter_mut().enumerate() {
                    let counted = sources.count(address(2), at(10)).unwrap();
                    watch.handle_sources((worker, 0), *counted, workers as usize, 25, at(10));
                }
                let found = watch.source(at(10)).unwrap();
                let expected = f64::from(heavy[0]) / 100.0;
                assert!(
                    (found.share - expected).abs() < 1.0 / 16.0,
                    "{found:?} of {heavy:?}, {others}, {workers}"
                );
            }
        }
    }
}
