//! Which servers of a pool may serve, from their health and their operator's word.

use crate::health::Verdict;
use crate::server::State;

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

/// Chooses who may serve: the healthy; if there is none, those not yet known. If there is none of
/// these either (panic), those that at least answer their probes; if none does, all that are left.
/// A server that is draining, disabled or of weight 0 is never among them.
pub fn usable(standings: &[Standing]) -> Usable {
    let select = |fits: fn(&Standing) -> bool, panic| {
        let indices: Vec<usize> = standings
            .iter()
            .enumerate()
            .filter(|(_, it)| it.state == State::Ready && it.weight > 0 && fits(it))
            .map(|(index, _)| index)
            .collect();
        (!indices.is_empty()).then_some(Usable { indices, panic })
    };
    select(|it| it.verdict == Verdict::Healthy, false)
        .or_else(|| select(|it| it.verdict == Verdict::Unknown, false))
        .or_else(|| select(|it| it.answers, true))
        .or_else(|| select(|_| true, true))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `h`ealthy, `u`nknown, `a`nswers badly, `x` does not answer, `d`raining, `o`ff, `0` weight 0.
    fn check(servers: &str, expected: &[usize], panic: bool) {
        let standings: Vec<_> = servers
            .chars()
            .map(|letter| Standing {
                verdict: match letter {
                    'u' => Verdict::Unknown,
                    'a' | 'x' => Verdict::Unhealthy,
                    _ => Verdict::Healthy,
                },
                answers: matches!(letter, 'h' | 'a' | 'd' | 'o' | '0'),
                state: match letter {
                    'd' => State::Drain,
                    'o' => State::Disabled,
                    _ => State::Ready,
                },
                weight: u32::from(letter != '0'),
            })
            .collect();
        let usable = usable(&standings);
        assert_eq!(
            (usable.indices.as_slice(), usable.panic),
            (expected, panic),
            "{servers}"
        );
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
}
