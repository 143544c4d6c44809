//! How each automatic certificate stands, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;

/// How a certificate stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is none yet; clients that ask for its name are refused.
    #[default]
    Missing,
    /// It is there.
    Valid,
    /// It is there, and out of date.
    Expired,
}

impl State {
    /// Its text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Valid => "valid",
            Self::Expired => "expired",
        }
    }
}

/// One automatic certificate. Times are wall times since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// The name that it is for.
    pub domain: Arc<str>,
    /// The host of the authority that gives it.
    pub authority: Arc<str>,
    /// The file that keeps it.
    pub file: Arc<str>,
    /// How it stands.
    pub state: State,
    /// After which it is out of date; `None` while there is none.
    pub not_after: Option<Duration>,
    /// When it is asked for next, unless another instance does.
    pub next_order: Option<Duration>,
    /// Whether this instance is asking for it now.
    pub is_ordering: bool,
    /// Attempts that failed since the last one that did not.
    pub failures: u32,
    /// What the authority said, or why it could not be asked, when that failed last.
    pub problem: Option<Arc<str>>,
}

/// Attempts of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    issued: u64,
    failed: u64,
}

/// Labels of a count: name and authority.
type Names = (Arc<str>, Arc<str>);

#[derive(Debug, Default, Clone)]
struct Kept {
    /// By file.
    statuses: BTreeMap<Arc<str>, Status>,
    /// Never forgotten: no total falls.
    counts: BTreeMap<Names, Count>,
}

/// Every automatic certificate of the config. Written rarely, beside traffic.
#[derive(Debug, Default)]
pub struct Board(ArcSwap<Kept>);

impl Board {
    /// Shows how a certificate stands now.
    pub fn show(&self, status: Status) {
        self.change(|kept| {
            let names = (status.domain.clone(), status.authority.clone());
            kept.counts.entry(names).or_default();
            kept.statuses.insert(status.file.clone(), status.clone());
        });
    }

    /// Counts an attempt.
    pub fn count(&self, domain: &Arc<str>, authority: &Arc<str>, is_issued: bool) {
        self.change(|kept| {
            let names = (domain.clone(), authority.clone());
            let count = kept.counts.entry(names).or_default();
            count.issued += u64::from(is_issued);
            count.failed += u64::from(!is_issued);
        });
    }

    /// Forgets those whose file is not among these.
    pub fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        self.change(|kept| kept.statuses.retain(|file, _| is_wanted(file)));
    }

    /// All of them, by file.
    #[must_use]
    pub fn all(&self) -> Vec<Status> {
        self.0.load().statuses.values().cloned().collect()
    }

    /// Attempts by name and authority: how many gave a certificate, and how many failed.
    #[must_use]
    pub fn counts(&self) -> Vec<(Names, u64, u64)> {
        let kept = self.0.load();
        let counts = kept.counts.iter();
        let count = |(names, count): (&Names, &Count)| (names.clone(), count.issued, count.failed);
        counts.map(count).collect()
    }

    fn change(&self, change: impl Fn(&mut Kept)) {
        self.0.rcu(|kept| {
            let mut kept = (**kept).clone();
            change(&mut kept);
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_stay_when_a_name_goes() {
        let board = Board::default();
        let (domain, authority): (Arc<str>, Arc<str>) = ("a.example".into(), "ca.example".into());
        board.show(Status {
            domain: domain.clone(),
            authority: authority.clone(),
            file: "s/a.pem".into(),
            ..Status::default()
        });
        board.count(&domain, &authority, false);
        board.count(&domain, &authority, true);
        assert_eq!(board.all().len(), 1);
        board.retain(|_| false);
        assert!(board.all().is_empty());
        assert_eq!(board.counts(), [((domain, authority), 1, 1)]);
    }
}
