//! Certificates from files that come near their end while nobody reads them anew: each is told of once a day.
//!
//! Whoever read the config has said how its certificates stood then; what authorities give is renewed, and told of when that
//! fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use config::defaults::CERTIFICATE_WARNING;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was told of each certificate, by its file.
#[derive(Debug, Default)]
pub struct Expiry {
    told: BTreeMap<Arc<str>, Told>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    not_after: Duration,
    stage: Stage,
}

/// How near its end a certificate is; the later, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Good,
    /// So many whole days are left, counted from below.
    Near(std::cmp::Reverse<u64>),
    /// Over, since so many whole days.
    Over(u64),
}

/// A certificate that is near its end, or beyond it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// Where it is from.
    pub file: Arc<str>,
    /// How long it is good yet; `None`: it is not.
    pub left: Option<Duration>,
}

impl Expiry {
    /// Looks at the certificates of `snapshot`: which are to be told of now, and when to look again at the latest. Times are
    /// since the Unix epoch.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        wall: Duration,
    ) -> (Vec<Expiring>, Option<Duration>) {
        let listeners = snapshot.listeners.iter();
        let all = listeners.flat_map(|listener| listener.tls.iter().flatten());
        let all = all.flat_map(|tls| tls.certificates.iter());
        self.look_at(all.map(|it| (it.file.clone(), it.not_after)), wall)
    }

    fn look_at(
        &mut self,
        certificates: impl Iterator<Item = (Arc<str>, Duration)>,
        wall: Duration,
    ) -> (Vec<Expiring>, Option<Duration>) {
        let before = std::mem::take(&mut self.told);
        let mut expiring = Vec::new();
        for (file, not_after) in certificates {
            let mut stage = Stage::of(not_after, wall);
            if let Some(told) = before.get(&file).filter(|told| told.not_after == not_after) {
                if stage > told.stage && !self.told.contains_key(&file) {
                    expiring.push(Expiring {
                        file: file.clone(),
                        left: not_after.checked_sub(wall),
                    });
                }
                // A clock that was set back makes nothing be told twice.
                stage = stage.max(told.stage);
            }
            self.told.insert(file, Told { not_after, stage });
        }
        let next = self.told.values().map(Told::next).min();
        (expiring, next)
    }
}

impl Told {
    /// When there will be more to tell.
    fn next(&self) -> Duration {
        match self.stage {
            Stage::Good => self.not_after.saturating_sub(CERTIFICATE_WARNING),
            Stage::Near(std::cmp::Reverse(days)) => self.not_after.saturating_sub(after_days(days)),
            Stage::Over(days) => self
                .not_after
                .saturating_add(after_days(days.saturating_add(1))),
        }
    }
}

impl Stage {
    fn of(not_after: Duration, wall: Duration) -> Self {
        let days = |span: Duration| span.as_secs() / DAY.as_secs();
        match not_after.checked_sub(wall) {
            None => Self::Over(days(wall.saturating_sub(not_after))),
            Some(left) if left < CERTIFICATE_WARNING => Self::Near(std::cmp::Reverse(days(left))),
            Some(_) => Self::Good,
        }
    }
}

fn after_days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(DAY.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn look(expiry: &mut Expiry, all: &[(&str, Duration)], wall: Duration) -> Vec<Expiring> {
        let all = all
            .iter()
            .map(|(file, not_after)| ((*file).into(), *not_after));
        expiry.look_at(all, wall).0
    }

    #[test]
    fn each_is_told_of_once_a_day_from_two_weeks_before_its_end() {
        let mut expiry = Expiry::default();
        let end = DAY * 100;
        let mut wall = DAY * 80;
        let mut told = Vec::new();
        // By the moments that it asks for.
        while wall < DAY * 103 {
            let all = [(Arc::from("a.pem"), end), (Arc::from("b.pem"), DAY * 1000)];
            let (expiring, next) = expiry.look_at(all.into_iter(), wall);
            told.extend(expiring.into_iter().map(|it| {
                assert_eq!(&*it.file, "a.pem");
                it.left.map(|left| left.as_secs() / DAY.as_secs())
            }));
            wall = next.expect("there are certificates").max(wall) + SECOND;
        }
        let mut expected: Vec<_> = (0..14).rev().map(Some).collect();
        expected.extend([None; 3]);
        assert_eq!(told, expected);
    }

    #[test]
    fn what_the_config_said_is_not_repeated() {
        let mut expiry = Expiry::default();
        let end = DAY * 100;
        let near = end - DAY * 3 - SECOND;
        assert_eq!(look(&mut expiry, &[("a", end)], near), []);
        assert_eq!(look(&mut expiry, &[("a", end)], near), []);
        // Another listener's is the same one; a renewed one is another.
        let all = [("a", end), ("a", end)];
        assert_eq!(look(&mut expiry, &all, end - DAY * 2).len(), 1);
        assert_eq!(look(&mut expiry, &[("a", end + DAY)], end - DAY), []);
        // A clock that was set back.
        assert_eq!(look(&mut expiry, &[("a", end + DAY)], end - DAY * 9), []);
        assert_eq!(look(&mut expiry, &[("a", end + DAY)], end - DAY), []);
        let expiring = look(&mut expiry, &[("a", end + DAY)], end + DAY * 2);
        assert_eq!(expiring[0].left, None);
        assert_eq!(look(&mut expiry, &[], end), []);
    }
}
