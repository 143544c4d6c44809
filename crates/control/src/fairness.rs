//! How far affinity bends the balance of a pool: who was picked of late, beside who would have been by the weights alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::sources::{Heavy, WINDOW};

/// A pick counts half after this long.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Fewer picks say nothing of shares.
const PICKS_MIN: f64 = 20.0;
/// Requests of a window from which on an address may be told of.
const REQUESTS_MIN: u64 = 100;
/// Reports of workers are added up for as long: their windows end at different times.
const REPORTS_HOLD: Duration = Duration::from_millis(WINDOW.as_millis() as u64 + 1000);
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

/// Watches the picks of one pool, look by look.
#[derive(Debug, Default)]
pub struct Watch {
    trails: BTreeMap<u32, Trail>,
    looked: Option<Duration>,
    reports: Vec<(Duration, Heavy)>,
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

    /// Takes in what one worker counted in its last window. Gives the address and its share when it is to be told that
    /// one carries `alarm` percent or more of the pool, which is at most once in ten minutes.
    pub fn handle_sources(
        &mut self,
        heavy: Heavy,
        alarm: u32,
        now: Duration,
    ) -> Option<(IpAddr, f64)> {
        self.reports.push((now, heavy));
        let (source, share, total) = self.heaviest(now)?;
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

    /// The address that most requests came from, its part of them, and how many there were.
    fn heaviest(&mut self, now: Duration) -> Option<(IpAddr, f64, u64)> {
        self.reports
            .retain(|(at, _)| now.saturating_sub(*at) < REPORTS_HOLD);
        let mut counts: BTreeMap<IpAddr, u64> = BTreeMap::new();
        let mut total = 0_u64;
        for (_, heavy) in &self.reports {
            total += u64::from(heavy.total);
            *counts.entry(heavy.source).or_default() += u64::from(heavy.count);
        }
        let (source, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        Some((source, rounded(count as f64 / total as f64), total))
    }

    fn source(&mut self, now: Duration) -> Option<HeavySource> {
        let heaviest = self.heaviest(now);
        self.alarm &= heaviest.is_some();
        heaviest.map(|(source, share, _)| HeavySource {
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
        let heavy = |count, total| Heavy {
            source: "192.0.2.1".parse().unwrap(),
            count,
            total,
        };
        let mut watch = Watch::default();
        assert_eq!(
            watch.handle_sources(heavy(50, 60), 25, at(10)),
            None,
            "too few"
        );
        let told = watch.handle_sources(heavy(10, 100), 25, at(11)).unwrap();
        assert_eq!(told.1, 0.375);
        assert_eq!(
            watch.handle_sources(heavy(60, 100), 25, at(12)),
            None,
            "told a moment ago"
        );
        let shown = watch.source(at(12)).unwrap();
        assert!(shown.alarm);
        // What workers said is over with their windows.
        assert_eq!(watch.handle_sources(heavy(22, 100), 25, at(30)), None);
        assert!(watch.source(at(30)).unwrap().alarm, "not calm yet");
        watch.handle_sources(heavy(10, 100), 25, at(50));
        assert!(!watch.source(at(50)).unwrap().alarm);
        assert_eq!(watch.source(at(70)), None);
        assert!(watch.handle_sources(heavy(90, 100), 25, at(700)).is_some());
    }
}
