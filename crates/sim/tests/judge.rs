//! The judge objects: each test breaks one rule on purpose, and names what has to be noticed.

use std::sync::Arc;
use std::time::Duration;

use balance::health::{Cause, Outcome};
use balance::{Local, Refused, RetryBudget, State};
use control::live::Member;
use control::message::Event;
use control::reason::Reason;
use evenkeel_sim::decisions::{Pick, Unanswered, product_may_retry, product_pick};
use evenkeel_sim::{Condition, Decisions, Rule, Scenario, Step, run, run_with, trace};

/// The story is well by the product's decisions, and breaks the rule by these.
fn check(scenario: &Scenario, decisions: &mut dyn Decisions, rule: Rule) {
    let report = run(scenario);
    assert!(report.violations.is_empty(), "{report}");
    let report = run_with(scenario, decisions);
    assert!(report.breaks(rule), "{rule} was not noticed: {report}");
}

fn crash() -> Scenario {
    Scenario::quiet(3).at(5_000, Step::Becomes(0, Condition::DOWN))
}

fn storm() -> Scenario {
    let lossy = Condition {
        resets: 0.8,
        ..Condition::WELL
    };
    let mut story = Scenario::quiet(3);
    story.rate = 100.0;
    (0..3).fold(story, |story, server| {
        story.at(5_000, Step::Becomes(server, lossy))
    })
}

/// Any server, whoever may serve.
struct PicksAny(usize);

impl Decisions for PicksAny {
    fn pick(&mut self, pick: &Pick<'_>, _: &mut Local) -> Option<Arc<Member>> {
        self.0 += 1;
        let all = &pick.view.standings;
        let standing = all.get(self.0 % all.len())?;
        let tried = pick.tried.contains(&standing.member.id);
        (!tried).then(|| standing.member.clone())
    }

    fn acquire(&mut self, _: &Member) -> Result<(), Refused> {
        Ok(())
    }
}

#[test]
fn picks_of_a_drained_server() {
    let story = Scenario::quiet(3).at(5_000, Step::Drain(0, Duration::from_secs(2)));
    check(&story, &mut PicksAny(0), Rule::Open);
}

#[test]
fn picks_of_a_disabled_removed_or_weightless_server() {
    for step in [
        Step::State(0, State::Disabled),
        Step::Weight(0, 0),
        Step::Reload(vec![(1, 1), (2, 1)]),
    ] {
        struct Remembers(Option<Arc<Member>>);
        impl Decisions for Remembers {
            fn pick(&mut self, pick: &Pick<'_>, local: &mut Local) -> Option<Arc<Member>> {
                let picked = product_pick(pick, local)?;
                if &*picked.name == "s0" {
                    self.0 = Some(picked.clone());
                }
                self.0.clone().or(Some(picked))
            }
            fn acquire(&mut self, _: &Member) -> Result<(), Refused> {
                Ok(())
            }
        }
        let story = Scenario::quiet(3).at(5_000, step);
        check(&story, &mut Remembers(None), Rule::Open);
    }
}

#[test]
fn picks_of_a_server_that_is_down() {
    check(&crash(), &mut PicksAny(0), Rule::Fit);
}

/// What the publisher hears is not what happened.
struct Hears(fn(Event) -> Option<Event>);

impl Decisions for Hears {
    fn hear(&mut self, event: Event) -> Option<Event> {
        (self.0)(event)
    }
}

#[test]
fn a_publisher_that_is_deaf_to_refused_connections() {
    let deaf = |event| (!matches!(event, Event::Refused { .. })).then_some(event);
    check(&crash(), &mut Hears(deaf), Rule::Current);
}

#[test]
fn a_publisher_that_takes_failures_for_successes() {
    let hopes = |event| match event {
        Event::Probed { member, probe, .. } => Some(Event::Probed {
            member,
            probe,
            outcome: Outcome::Success,
        }),
        other => Some(other),
    };
    let sick = Condition {
        fails_probes: true,
        ..Condition::WELL
    };
    let story = Scenario::quiet(3).at(5_000, Step::Becomes(1, sick));
    check(&story, &mut Hears(hopes), Rule::Current);
}

#[test]
fn a_publisher_that_wavers() {
    struct Wavers(u32);
    impl Decisions for Wavers {
        fn hear(&mut self, event: Event) -> Option<Event> {
            let Event::Probed { member, probe, .. } = event else {
                return Some(event);
            };
            self.0 += 1;
            let outcome = match self.0 / 12 % 2 {
                0 => Outcome::Success,
                _ => Outcome::Failure(Cause::Closed),
            };
            Some(Event::Probed {
                member,
                probe,
                outcome,
            })
        }
    }
    check(&Scenario::quiet(3), &mut Wavers(0), Rule::Oscillates);
}

/// Another server than the product's choice, now and then.
struct Swaps(fn(&Pick<'_>, Arc<Member>, u64) -> Arc<Member>, u64);

impl Decisions for Swaps {
    fn pick(&mut self, pick: &Pick<'_>, local: &mut Local) -> Option<Arc<Member>> {
        self.1 += 1;
        let picked = product_pick(pick, local)?;
        Some((self.0)(pick, picked, self.1))
    }
}

#[test]
fn a_server_that_never_has_its_turn() {
    for balance in ["round_robin", "power_of_two", "least_connections", "random"] {
        let mut story = Scenario::quiet(4);
        story.balance = balance;
        let never = |pick: &Pick<'_>, picked: Arc<Member>, _| match &*picked.name {
            "s0" => pick.view.members[1].clone(),
            _ => picked,
        };
        check(&story, &mut Swaps(never, 0), Rule::Starved);
    }
}

#[test]
fn shares_that_are_a_little_off() {
    let skews = |pick: &Pick<'_>, picked, count: u64| match count % 50 {
        0 => pick.view.members[0].clone(),
        _ => picked,
    };
    check(&Scenario::quiet(3), &mut Swaps(skews, 0), Rule::Shares);
}

/// Another rule for a request that got no answer.
struct Retries(fn(Unanswered, &RetryBudget, Duration) -> Result<(), Reason>);

impl Decisions for Retries {
    fn may_retry(
        &mut self,
        unanswered: Unanswered,
        budget: &RetryBudget,
        now: Duration,
    ) -> Result<(), Reason> {
        (self.0)(unanswered, budget, now)
    }
}

#[test]
fn retries_past_the_budget() {
    let spends = |it: Unanswered, _: &RetryBudget, _| match it.attempts_left {
        0 => Err(it.reason),
        _ => Ok(()),
    };
    check(&storm(), &mut Retries(spends), Rule::Amplified);
}

#[test]
fn retries_without_end() {
    let insists = |it: Unanswered, _: &RetryBudget, _| match it.idempotent {
        true => Ok(()),
        false => Err(it.reason),
    };
    let mut story = storm();
    story.attempts = 0;
    check(&story, &mut Retries(insists), Rule::Amplified);
}

#[test]
fn a_request_that_must_not_be_sent_twice_and_is() {
    let careless = |it: Unanswered, budget: &RetryBudget, now| {
        let it = Unanswered {
            idempotent: true,
            ..it
        };
        product_may_retry(it, budget, now)
    };
    let mut story = storm();
    story.idempotent = 0.5;
    check(&story, &mut Retries(careless), Rule::SentTwice);
}

#[test]
fn a_request_that_is_given_up_too_early() {
    let gives_up = |it: Unanswered, _: &RetryBudget, _| Err(it.reason);
    check(&storm(), &mut Retries(gives_up), Rule::Lost);
    let stingy = |_: Unanswered, _: &RetryBudget, _| Err(Reason::RetryBudget);
    check(&storm(), &mut Retries(stingy), Rule::Lost);
}

#[test]
fn a_refused_connection_that_is_not_tried_elsewhere() {
    struct OneServer;
    impl Decisions for OneServer {
        fn pick(&mut self, pick: &Pick<'_>, local: &mut Local) -> Option<Arc<Member>> {
            pick.tried.is_empty().then(|| product_pick(pick, local))?
        }
    }
    // Between probes, so that traffic is the first to meet the closed port.
    let mut story = crash();
    story.rate = 200.0;
    story.check = None;
    check(&story, &mut OneServer, Rule::Lost);
}

#[test]
fn a_run_is_the_same_each_time_and_the_trace_changes_nothing() {
    for seed in [3, 8, 21] {
        let story = Scenario::from_seed(seed);
        let first = run(&story);
        assert_eq!(first, run(&story));
        let mut traced = trace(&story);
        assert!(!traced.trace.is_empty());
        traced.trace.clear();
        assert_eq!(first, traced);
        let other = run(&Scenario::from_seed(seed + 1));
        assert_ne!(first.digest, other.digest);
    }
}
