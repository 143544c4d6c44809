//! What one process saw of a server, as a document and back: its traffic, its own words, its slow start.

use std::time::Duration;

use balance::outlier::{Cause, Failure, Kept, Lessened, Streak};
use balance::{Share, State};
use config::Pool;
use wire::agent_check::decode_agent_line;

use super::handover::{millis, parse_state};
use super::limits::Adapting;
use super::pools::Slot;
use crate::handover::{LiveEjection, LiveLessened, LiveSays, LiveServer, LiveTraffic};

/// By their words, beside statuses.
const FAILURES: [(&str, Failure); 6] = [
    ("refused", Failure::Refused),
    ("connect_timeout", Failure::ConnectTimeout),
    ("closed", Failure::Closed),
    ("reset", Failure::Reset),
    ("timeout", Failure::Timeout),
    ("malformed", Failure::Malformed),
];

impl Slot {
    /// Adds what is seen of the server now.
    pub(super) fn tell(&self, server: &mut LiveServer, now: Duration) {
        let (gateway_errors, server_errors) = self.member.streaks();
        server.traffic = Some(LiveTraffic {
            gateway_errors,
            server_errors,
            ..traffic(&self.outlier.kept(now))
        });
        server.says = Some(self.own.tell());
        server.warmth = Some(self.warmth.tell(now));
        server.latency_limit = self.adapting.as_ref().and_then(Adapting::tell);
    }

    /// Goes on from what another process saw of it so long `ago`, as far as its pool's config wants such things.
    pub(super) fn resume(&mut self, given: &LiveServer, pool: &Pool, now: Duration, ago: Duration) {
        if let Some(warmth) = &given.warmth {
            self.warmth.resume(warmth, now);
        }
        if let Some(says) = &given.says {
            self.resume_says(says, pool);
        }
        if let Some(traffic) = &given.traffic {
            let mut kept = kept(traffic);
            if let Some((_, left)) = &mut kept.ejection {
                *left = left.saturating_sub(ago);
            }
            self.outlier.resume(kept, now);
            self.member
                .set_streaks(traffic.gateway_errors, traffic.server_errors);
            self.take_outlier(pool.outlier_detection.as_ref(), now);
            self.member.set_half_open(self.outlier.is_half_open());
        }
        if let (Some(limit), Some(settings)) = (&given.latency_limit, &pool.adaptive_concurrency) {
            self.resume_adaptive(limit, settings, now);
        }
        self.apply_limit(pool);
    }

    fn resume_says(&mut self, says: &LiveSays, pool: &Pool) {
        let state = |word: &Option<String>| word.as_deref().and_then(parse_state);
        let agent = says.agent.as_ref().filter(|_| pool.agent_check.is_some());
        let line = agent.map(|line| decode_agent_line(line.as_bytes()));
        let put_aside = state(&says.put_aside).filter(|_| self.word == Some(State::Ready));
        self.own
            .resume(state(&says.check), line.unwrap_or_default(), put_aside);
        self.own.keep_check(pool.health_check.as_ref());
        self.settle();
        self.apply_limit(pool);
    }
}

fn traffic(kept: &Kept) -> LiveTraffic {
    LiveTraffic {
        ejected: kept
            .ejection
            .map(|(cause, left)| ejection(&cause, millis(left))),
        half_open: kept.half_open,
        ejections: kept.level,
        served_ms: millis(kept.served),
        share: (!kept.share.is_full()).then(|| kept.share.factor()),
        lessened: kept.lessened.map(|it| lessened(&it)),
        requests: kept.requests,
        failed: kept.failed,
        ..LiveTraffic::default()
    }
}

fn kept(traffic: &LiveTraffic) -> Kept {
    Kept {
        ejection: traffic
            .ejected
            .as_ref()
            .map(|ejected| (cause(ejected), Duration::from_millis(ejected.left_ms))),
        half_open: traffic.half_open,
        level: traffic.ejections,
        served: Duration::from_millis(traffic.served_ms),
        share: traffic.share.map_or(Share::FULL, Share::exact),
        lessened: traffic.lessened.as_ref().map(|it| match it.why.as_str() {
            "failing" => Lessened::Failing {
                failed: narrow(it.own),
                rest: narrow(it.rest),
            },
            "slow" => Lessened::Slow {
                latency: Duration::from_micros(it.own),
                rest: Duration::from_micros(it.rest),
            },
            _ => Lessened::Recovering,
        }),
        requests: traffic.requests,
        failed: traffic.failed,
    }
}

fn lessened(lessened: &Lessened) -> LiveLessened {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (why, own, rest) = match lessened {
        Lessened::Failing { failed, rest } => ("failing", (*failed).into(), (*rest).into()),
        Lessened::Slow { latency, rest } => ("slow", micros(*latency), micros(*rest)),
        _ => ("recovering", 0, 0),
    };
    LiveLessened {
        why: why.to_owned(),
        own,
        rest,
    }
}

fn ejection(cause: &Cause, left_ms: u64) -> LiveEjection {
    let label = Cause::LABELS.get(cause.label_index());
    let mut ejection = LiveEjection {
        cause: (*label.unwrap_or(&"other")).to_owned(),
        answers: cause.answers(),
        left_ms,
        ..LiveEjection::default()
    };
    match cause {
        Cause::Streak { count, last, .. } => {
            ejection.count = *count;
            ejection.last = failure_word(*last);
        }
        Cause::SuccessRate { failed, rest } => {
            ejection.failed = *failed;
            ejection.rest = *rest;
        }
        _ => {}
    }
    ejection
}

fn cause(ejected: &LiveEjection) -> Cause {
    let other = Cause::Other {
        answers: ejected.answers,
    };
    let streak = |streak| {
        failure(&ejected.last).map_or(other, |last| Cause::Streak {
            streak,
            count: ejected.count,
            last,
        })
    };
    match ejected.cause.as_str() {
        "refused" => Cause::Refused,
        "gateway_errors" => streak(Streak::GatewayErrors),
        "server_errors" => streak(Streak::ServerErrors),
        "success_rate" => Cause::SuccessRate {
            failed: ejected.failed,
            rest: ejected.rest,
        },
        _ => other,
    }
}

fn failure_word(failure: Failure) -> String {
    if let Failure::Status(status) = failure {
        return status.to_string();
    }
    let known = FAILURES.iter().find(|(_, known)| *known == failure);
    known.map_or("other", |(word, _)| word).to_owned()
}

fn failure(word: &str) -> Option<Failure> {
    let known = FAILURES.iter().find(|(known, _)| *known == word);
    let status = || word.parse().ok().map(Failure::Status);
    known.map(|(_, failure)| *failure).or_else(status)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_and_understood() {
        let streak = |streak, last| Cause::Streak {
            streak,
            count: 5,
            last,
        };
        let mut causes = vec![
            Cause::Refused,
            Cause::SuccessRate {
                failed: 80,
                rest: 2,
            },
            Cause::Other { answers: true },
            streak(Streak::ServerErrors, Failure::Status(500)),
        ];
        let failures = FAILURES.iter();
        causes.extend(failures.map(|(_, last)| streak(Streak::GatewayErrors, *last)));
        for told in causes {
            assert_eq!(cause(&ejection(&told, 7)), told);
        }
        let strange = LiveEjection {
            cause: "moon".to_owned(),
            answers: true,
            ..LiveEjection::default()
        };
        assert_eq!(cause(&strange), Cause::Other { answers: true });
    }

    #[test]
    fn what_lessens_a_server_is_told_and_understood() {
        for told in [
            Lessened::Recovering,
            Lessened::Failing {
                failed: 152,
                rest: 3,
            },
            Lessened::Slow {
                latency: Duration::from_millis(90),
                rest: Duration::from_micros(1500),
            },
        ] {
            let document = LiveTraffic {
                lessened: Some(lessened(&told)),
                share: Some(0.5),
                ..LiveTraffic::default()
            };
            let kept = kept(&document);
            assert_eq!((kept.lessened, kept.share), (Some(told), Share::new(0.5)));
            assert_eq!(traffic(&kept), document);
        }
    }
}
