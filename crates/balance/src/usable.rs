//! Which servers of a pool may serve, from their health and their operator's word.

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

impl Standing {
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
}
