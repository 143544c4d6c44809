//! Which servers of a pool may serve, from their health and their operator's word.

use std::fmt;

use crate::health::Verdict;
use crate::server::State;
use crate::share::Share;

/// How one server of a pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What its probes and real traffic say.
    pub verdict: Verdict,
    /// Whether it answered last time, if only with a bad answer; see
    /// [`Health::answers`](crate::health::Health::answers).
    pub answers: bool,
    /// Its operator's word.
    pub state: State,
    /// Its weight.
    pub weight: u32,
    /// Whether real traffic has it out for a while.
    pub ejected: bool,
    /// Which part of its weight it has for now: all factors multiplied. Does not change who may serve, only how much.
    pub share: Share,
}

/// Which servers may serve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usable {
    /// Their positions in what was given, in order; empty only if operators or weights of 0 leave
    /// none.
    pub indices: Vec<usize>,
    /// Whether no server is fit, and these are used because traffic has to go somewhere.
    pub panic: bool,
}

/// What a server is, in one word, for tables and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Not probed yet.
    Unknown,
    /// In service.
    Healthy,
    /// In service, with less than its weight.
    Degraded,
    /// Out for a while, by what its traffic shows.
    Ejected,
    /// Out, by its probes or by a refused connection, until they succeed.
    Unhealthy,
}

impl Condition {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Standing {
    /// One word for it; `degraded`: traffic gives it less than its weight.
    pub fn condition(&self, degraded: bool) -> Condition {
        match self.verdict {
            Verdict::Unhealthy => Condition::Unhealthy,
            _ if self.ejected => Condition::Ejected,
            Verdict::Unknown => Condition::Unknown,
            Verdict::Healthy if degraded => Condition::Degraded,
            Verdict::Healthy => Condition::Healthy,
        }
    }

    /// Whether its operator lets it serve.
    pub fn is_open(&self) -> bool {
        self.state == State::Ready && self.weight > 0
    }

    /// Whether it is healthy and real traffic has nothing to say against it.
    pub fn is_fit(&self) -> bool {
        self.verdict == Verdict::Healthy && !self.ejected
    }

    /// Whether it is judged bad, by probes or by traffic.
    pub fn is_bad(&self) -> bool {
        self.verdict == Verdict::Unhealthy || self.ejected
    }
}

/// Chooses who may serve: the fit; if there is none, those not yet known. If there is none of these either (panic),
/// those that at least answer; if none does, all that are left. A server that is draining, disabled or of weight 0 is
/// never among them.
///
/// With a `panic_threshold` above 0, in percent of the open servers, it is panic too when fewer are not judged bad:
/// then the fit serve together with those that answer, however they are judged.
pub fn usable(standings: &[Standing], panic_threshold: u32) -> Usable {
    let select = |fits: fn(&Standing) -> bool, panic| {
        let indices: Vec<usize> = standings
            .iter()
            .enumerate()
            .filter(|(_, it)| it.is_open() && fits(it))
            .map(|(index, _)| index)
            .collect();
        (!indices.is_empty()).then_some(Usable { indices, panic })
    };
    let count = |counts: fn(&Standing) -> bool| {
        standings
            .iter()
            .filter(|it| it.is_open() && counts(it))
            .count() as u64
    };
    if panic_threshold > 0
        && count(|it| !it.is_bad()) * 100 < count(|_| true) * u64::from(panic_threshold)
        && count(|it| it.is_bad() && it.answers) > 0
    {
        return select(|it| it.is_fit() || it.is_bad() && it.answers, true).unwrap_or_default();
    }
    select(Standing::is_fit, false)
        .or_else(|| select(|it| it.verdict == Verdict::Unknown && !it.ejected, false))
        .or_else(|| select(|it| it.answers, true))
        .or_else(|| select(|_| true, true))
        .unwrap_or_default()
}

/// Whether the server at `index` may be ejected: another is left that serves, and no more than `ejected_max` percent
/// of the open servers are out by their traffic; one of several may be, whatever the share.
pub fn may_eject(standings: &[Standing], index: usize, ejected_max: u32) -> bool {
    let open = standings.iter().filter(|it| it.is_open()).count() as u64;
    let ejected = standings
        .iter()
        .filter(|it| it.is_open() && it.ejected)
        .count() as u64;
    let allowed = match ejected_max {
        0 => 0,
        percent => (open * u64::from(percent) / 100).max(1),
    };
    let others = || {
        standings
            .iter()
            .enumerate()
            .filter(|(other, it)| *other != index && it.is_open() && !it.ejected)
            .map(|(_, it)| it.verdict)
    };
    let serving = |verdict| others().any(|it| it == verdict);
    let fit = standings.get(index).is_some_and(Standing::is_fit);
    // An unknown server does not serve beside a healthy one: it cannot take that one's place, as nobody knows it yet.
    let another = serving(Verdict::Healthy) || !fit && serving(Verdict::Unknown);
    another && ejected < allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `h`ealthy, `u`nknown, `a`nswers badly, `x` does not answer, `d`raining, `o`ff, `0` weight 0; ejected and
    /// `e` answers, `r` does not.
    fn standings(servers: &str) -> Vec<Standing> {
        servers
            .chars()
            .map(|letter| Standing {
                verdict: match letter {
                    'u' => Verdict::Unknown,
                    'a' | 'x' => Verdict::Unhealthy,
                    _ => Verdict::Healthy,
                },
                answers: matches!(letter, 'h' | 'a' | 'd' | 'o' | '0' | 'e'),
                state: match letter {
                    'd' => State::Drain,
                    'o' => State::Disabled,
                    _ => State::Ready,
                },
                weight: u32::from(letter != '0'),
                ejected: matches!(letter, 'e' | 'r'),
                share: Share::FULL,
            })
            .collect()
    }

    fn check_at(servers: &str, panic_threshold: u32, expected: &[usize], panic: bool) {
        let usable = usable(&standings(servers), panic_threshold);
        assert_eq!(
            (usable.indices.as_slice(), usable.panic),
            (expected, panic),
            "{servers} at {panic_threshold} %"
        );
    }

    fn check(servers: &str, expected: &[usize], panic: bool) {
        check_at(servers, 0, expected, panic);
    }

    #[test]
    fn the_best_class_that_has_a_server_serves() {
        check("", &[], false);
        check("huax", &[0], false);
        check("xhuh", &[1, 3], false);
        check("uaxu", &[0, 3], false);
        check("xaxa", &[1, 3], true);
        check("xx", &[0, 1], true);
        check("do0", &[], false);
        check("dx", &[1], true);
        check("0ua", &[1], false);
    }

    #[test]
    fn an_ejected_server_serves_only_for_want_of_better_ones() {
        check("he", &[0], false);
        check("ue", &[0], false);
        check("ea", &[0, 1], true);
        check("er", &[0], true);
        check("rx", &[0, 1], true);
    }

    #[test]
    fn below_the_threshold_those_that_answer_serve_too() {
        check_at("hhaa", 50, &[0, 1], false);
        check_at("haaa", 50, &[0, 1, 2, 3], true);
        check_at("haex", 50, &[0, 1, 2], true);
        check_at("hxxr", 50, &[0], false);
        check_at("huuu", 50, &[0], false);
        check_at("uaaa", 50, &[1, 2, 3], true);
        check_at("hdda", 60, &[0, 3], true);
        check_at("aaaa", 1, &[0, 1, 2, 3], true);
        check_at("xxxx", 100, &[0, 1, 2, 3], true);
    }

    #[test]
    fn at_most_a_share_is_ejected_and_never_the_last() {
        for (servers, index, ejected_max, expected) in [
            ("h", 0, 50, false),
            ("hh", 0, 50, true),
            ("he", 0, 50, false),
            ("hx", 0, 50, false),
            ("ha", 0, 100, false),
            ("hu", 0, 100, false),
            ("uu", 0, 100, true),
            ("hd", 0, 100, false),
            ("h0", 0, 100, false),
            ("hhh", 1, 10, true),
            ("hhe", 1, 50, false),
            ("hhe", 1, 100, true),
            ("hhee", 1, 50, false),
            ("hhhe", 1, 50, true),
            ("hh", 0, 0, false),
            ("xh", 0, 50, true),
        ] {
            let found = may_eject(&standings(servers), index, ejected_max);
            assert_eq!(found, expected, "{servers}, {index} at {ejected_max} %");
        }
    }
}
