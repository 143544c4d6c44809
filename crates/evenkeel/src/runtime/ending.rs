//! The order of a shutdown, as a state machine: it is told the time and what is still open, and says what is due.

use std::time::Duration;

use config::Shutdown;

/// How often [`Ending::poll`] wants to be asked.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After the listeners were told to close: what the kernel had queued is accepted meanwhile.
const SETTLE: Duration = Duration::from_millis(100);
/// After idle connections were told to close, they are waited for this long, so that their ends are clean.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// After everything was cut, clients are waited for this long, so that they hear of it.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Answers say `Connection: close` from now on, and the listening sockets close.
    CloseListeners,
    /// Connections that wait for a next request are closed.
    CloseIdle,
    /// What is still served is cut, and told so.
    Cut,
    /// The process ends.
    Stop,
}

/// A shutdown that is under way.
#[derive(Debug)]
pub(super) struct Ending {
    config: Shutdown,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Accepting goes on, so that who looks at `/health` can go elsewhere.
    Delay { until: Duration },
    /// An idle connection has one more request.
    Idle { closed: Duration },
    /// Only what is being served is waited for.
    Rest {
        closed: Duration,
        idle_closed: Duration,
    },
    /// The time is over.
    Cut { since: Duration },
}

impl Ending {
    pub(super) fn new(config: Shutdown, now: Duration) -> Self {
        let until = now.saturating_add(config.delay);
        Self {
            config,
            stage: Stage::Delay { until },
        }
    }

    /// What is due now, if anything. `active`: requests and TCP connections that are being served; `open`: connections
    /// of clients, idle ones included.
    pub(super) fn poll(&mut self, now: Duration, active: u64, open: u64) -> Option<Step> {
        let (step, stage) = match self.stage {
            Stage::Delay { until } if now >= until => {
                (Step::CloseListeners, Stage::Idle { closed: now })
            }
            Stage::Delay { .. } => return None,
            Stage::Idle { closed } => {
                let quiet = active == 0 && open == 0 && now >= closed.saturating_add(SETTLE);
                if quiet {
                    (Step::Stop, self.stage)
                } else if self.is_over(closed, now) {
                    (Step::Cut, Stage::Cut { since: now })
                } else if now >= closed.saturating_add(self.config.idle_wait) {
                    let idle_closed = now;
                    (
                        Step::CloseIdle,
                        Stage::Rest {
                            closed,
                            idle_closed,
                        },
                    )
                } else {
                    return None;
                }
            }
            Stage::Rest {
                closed,
                idle_closed,
            } => {
                let clean = open == 0 || now >= idle_closed.saturating_add(CLOSE_WAIT);
                let quiet = active == 0 && clean && now >= closed.saturating_add(SETTLE);
                if quiet {
                    (Step::Stop, self.stage)
                } else if self.is_over(closed, now) {
                    (Step::Cut, Stage::Cut { since: now })
                } else {
                    return None;
                }
            }
            Stage::Cut { since } => {
                let heard = active == 0 && open == 0;
                if !heard && now < since.saturating_add(CUT_WAIT) {
                    return None;
                }
                (Step::Stop, self.stage)
            }
        };
        self.stage = stage;
        Some(step)
    }

    fn is_over(&self, closed: Duration, now: Duration) -> bool {
        now >= closed.saturating_add(self.config.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: milliseconds, active, open, and what is due then.
    #[track_caller]
    fn check(delay: u64, idle_wait: u64, timeout: u64, steps: &[(u64, u64, u64, Option<Step>)]) {
        let millis = Duration::from_millis;
        let config = Shutdown {
            delay: millis(delay),
            idle_wait: millis(idle_wait),
            timeout: millis(timeout),
        };
        let mut ending = Ending::new(config, Duration::ZERO);
        for (at, active, open, expected) in steps {
            assert_eq!(
                ending.poll(millis(*at), *active, *open),
                *expected,
                "{at} ms"
            );
        }
    }

    #[test]
    fn an_idle_process_ends_when_the_kernels_queue_is_empty() {
        check(
            0,
            5000,
            30_000,
            &[
                (0, 0, 0, Some(Step::CloseListeners)),
                (20, 0, 0, None),
                (100, 0, 0, Some(Step::Stop)),
            ],
        );
    }

    #[test]
    fn accepting_goes_on_during_the_delay() {
        check(
            1000,
            0,
            30_000,
            &[
                (0, 0, 0, None),
                (999, 3, 3, None),
                (1000, 3, 3, Some(Step::CloseListeners)),
                (1020, 3, 3, Some(Step::CloseIdle)),
                (1040, 3, 3, None),
                (2000, 0, 0, Some(Step::Stop)),
            ],
        );
    }

    #[test]
    fn idle_connections_have_one_more_request_until_idle_wait() {
        check(
            0,
            5000,
            30_000,
            &[
                (0, 1, 2, Some(Step::CloseListeners)),
                (4999, 0, 1, None),
                (5000, 0, 1, Some(Step::CloseIdle)),
                (5020, 0, 1, None),
                (5040, 0, 0, Some(Step::Stop)),
            ],
        );
    }

    #[test]
    fn what_is_left_at_the_timeout_is_cut() {
        check(
            0,
            5000,
            6000,
            &[
                (0, 1, 1, Some(Step::CloseListeners)),
                (5000, 1, 1, Some(Step::CloseIdle)),
                (5999, 1, 1, None),
                (6000, 1, 1, Some(Step::Cut)),
                (6020, 0, 1, None),
                (6040, 0, 0, Some(Step::Stop)),
            ],
        );
    }

    #[test]
    fn who_does_not_hear_of_the_cut_is_not_waited_for_without_end() {
        check(
            0,
            5000,
            1000,
            &[
                (0, 1, 1, Some(Step::CloseListeners)),
                (1000, 1, 1, Some(Step::Cut)),
                (1999, 1, 1, None),
                (2000, 1, 1, Some(Step::Stop)),
            ],
        );
    }

    #[test]
    fn a_connection_that_does_not_close_is_not_waited_for_without_end() {
        check(
            0,
            0,
            30_000,
            &[
                (0, 0, 1, Some(Step::CloseListeners)),
                (20, 0, 1, Some(Step::CloseIdle)),
                (2019, 0, 1, None),
                (2020, 0, 1, Some(Step::Stop)),
            ],
        );
    }
}
