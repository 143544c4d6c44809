//! The judge objects: each test breaks one rule on purpose, and names what has to be noticed.

use std::sync::Arc;
use std::time::Duration;

use balance::health::{Cause, Outcome};
use balance::outlier::{Failure, Streak};
use balance::{RetryBudget, SlowStart, State};
use control::live::{Member, PoolView};
use control::message::Event;
use control::pick::LocalPool;
use control::reason::Reason;
use control::tries::Allowance;
use evenkeel_sim::decisions::{Claim, Unanswered};
use evenkeel_sim::{
    Condition, Decisions, Life, OutlierPlan, Product, QueuePlan, Rule, Scenario, Step, run,
    run_with, trace,
};

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
    fn pick(
        &mut self,
        pool: &mut LocalPool,
        _: Option<u64>,
        tried: &mut Vec<u32>,
        _: Duration,
    ) -> Result<Claim, Reason> {
        self.0 += 1;
        pool.refresh();
        let all = &pool.view.standings;
        let member = all[self.0 % all.len()].member.clone();
        if tried.contains(&member.id) {
            return Err(Reason::NoUsableServer);
        }
        Ok(Claim::Forced(member))
    }
}

/// The first server of the whole pool, whichever part of it is wanted.
struct Strays(Option<Arc<Member>>);

impl Decisions for Strays {
    fn pick(
        &mut self,
        pool: &mut LocalPool,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Claim, Reason> {
        pool.refresh();
        let known = || pool.view.members.first().cloned();
        match self.0.get_or_insert(known().ok_or(Reason::NoUsableServer)?) {
            member if pool.state.labels.is_some() => Ok(Claim::Forced(member.clone())),
            _ => pool.pick(key, tried, now).map(Claim::Lease),
        }
    }
}

#[test]
fn picks_of_a_server_of_another_part() {
    let mut story = Scenario::quiet(4);
    story.parts = 2;
    for (server, plan) in story.servers.iter_mut().enumerate() {
        plan.part = Some(1 + server % 2);
    }
    check(&story, &mut Strays(None), Rule::Fit);
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
            fn pick(
                &mut self,
                pool: &mut LocalPool,
                key: Option<u64>,
                tried: &mut Vec<u32>,
                now: Duration,
            ) -> Result<Claim, Reason> {
                let picked = Product.pick(pool, key, tried, now)?;
                if &*picked.member().name == "s0" {
                    self.0 = Some(picked.member().clone());
                }
                Ok(self.0.clone().map_or(picked, Claim::Forced))
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
struct Swaps(fn(&LocalPool, Arc<Member>, u64) -> Arc<Member>, u64);

impl Decisions for Swaps {
    fn pick(
        &mut self,
        pool: &mut LocalPool,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Claim, Reason> {
        self.1 += 1;
        let picked = Product.pick(pool, key, tried, now)?;
        let swapped = (self.0)(pool, picked.member().clone(), self.1);
        Ok(Claim::Forced(swapped))
    }
}

#[test]
fn a_server_that_never_has_its_turn() {
    for balance in ["round_robin", "power_of_two", "least_connections", "random"] {
        let mut story = Scenario::quiet(4);
        story.balance = balance;
        let never = |pool: &LocalPool, picked: Arc<Member>, _| match &*picked.name {
            "s0" => pool.view.members[1].clone(),
            _ => picked,
        };
        check(&story, &mut Swaps(never, 0), Rule::Starved);
    }
}

#[test]
fn shares_that_are_a_little_off() {
    let skews = |pool: &LocalPool, picked, count: u64| match count % 50 {
        0 => pool.view.members[0].clone(),
        _ => picked,
    };
    check(&Scenario::quiet(3), &mut Swaps(skews, 0), Rule::Shares);
}

/// Another rule for a request that got no answer.
struct Retries(fn(Unanswered<'_>) -> Result<(), Reason>);

impl Decisions for Retries {
    fn may_retry(&mut self, it: Unanswered<'_>) -> Result<(), Reason> {
        (self.0)(it)
    }
}

#[test]
fn retries_past_the_budget() {
    let spends = |it: Unanswered<'_>| match it.allowance.spend() {
        false => Err(it.reason),
        true => Ok(()),
    };
    check(&storm(), &mut Retries(spends), Rule::Amplified);
}

#[test]
fn a_retry_that_is_not_made_and_is_counted() {
    struct Keeps;
    impl Decisions for Keeps {
        fn withdraw(&mut self, _: &Allowance, _: &RetryBudget) {}
    }
    // Nobody else is there to be tried.
    let resets = Condition {
        resets: 1.0,
        ..Condition::WELL
    };
    let mut story = Scenario::quiet(1).at(5_000, Step::Becomes(0, resets));
    story.rate = 100.0;
    check(&story, &mut Keeps, Rule::Lost);
}

#[test]
fn retries_without_end() {
    let insists = |it: Unanswered<'_>| match it.idempotent {
        true => Ok(()),
        false => Err(it.reason),
    };
    let mut story = storm();
    story.attempts = 0;
    check(&story, &mut Retries(insists), Rule::Amplified);
}

#[test]
fn a_request_that_must_not_be_sent_twice_and_is() {
    let careless = |it: Unanswered<'_>| {
        Product.may_retry(Unanswered {
            idempotent: true,
            ..it
        })
    };
    let mut story = storm();
    story.idempotent = 0.5;
    check(&story, &mut Retries(careless), Rule::SentTwice);
}

#[test]
fn a_request_that_is_given_up_too_early() {
    let gives_up = |it: Unanswered<'_>| Err(it.reason);
    check(&storm(), &mut Retries(gives_up), Rule::Lost);
    let stingy = |_: Unanswered<'_>| Err(Reason::RetryBudget);
    check(&storm(), &mut Retries(stingy), Rule::Lost);
}

#[test]
fn a_refused_connection_that_is_not_tried_elsewhere() {
    struct OneServer;
    impl Decisions for OneServer {
        fn pick(
            &mut self,
            pool: &mut LocalPool,
            key: Option<u64>,
            tried: &mut Vec<u32>,
            now: Duration,
        ) -> Result<Claim, Reason> {
            if tried.is_empty() {
                return Product.pick(pool, key, tried, now);
            }
            Err(Reason::NoUsableServer)
        }
    }
    // Between probes, so that traffic is the first to meet the closed port.
    let mut story = crash();
    story.rate = 200.0;
    story.check = None;
    check(&story, &mut OneServer, Rule::Lost);
}

/// One server answers all requests with 503, and every probe well.
fn sour() -> Scenario {
    let sour = Condition {
        errors: 1.0,
        spares_probes: true,
        ..Condition::WELL
    };
    let mut story = Scenario::quiet(4).at(5_000, Step::Becomes(0, sour));
    story.outlier = Some(OutlierPlan::QUICK);
    story.rate = 100.0;
    story
}

fn failing(event: Event) -> Event {
    match event {
        Event::Probed { member, .. } => Event::Failing {
            member,
            streak: Streak::GatewayErrors,
            last: Failure::Status(503),
        },
        other => other,
    }
}

#[test]
fn an_ejection_for_nothing() {
    /// What is heard is another thing than what the judge hears.
    struct Slanders(u32);
    impl Decisions for Slanders {
        fn hear(&mut self, event: Event) -> Option<Event> {
            self.0 += 1;
            Some(if self.0 > 20 { failing(event) } else { event })
        }
    }
    check(&sour(), &mut Slanders(0), Rule::Ejected);
}

#[test]
fn a_server_that_fails_and_is_not_ejected() {
    let deaf = |event| (!matches!(event, Event::Failing { .. })).then_some(event);
    let mut story = sour();
    story.outlier = Some(OutlierPlan {
        success_rate: false,
        ..OutlierPlan::QUICK
    });
    check(&story, &mut Hears(deaf), Rule::Current);
}

/// The judge sees another view than the one that is published.
struct Shows<F>(F);

impl<F: FnMut(&mut PoolView)> Decisions for Shows<F> {
    fn show(&mut self, view: Arc<PoolView>) -> Arc<PoolView> {
        let candidates = view.view.candidates().to_vec();
        let mut other = PoolView {
            view: balance::View::build(&balance::Algorithm::RoundRobin, candidates),
            members: view.members.clone(),
            standings: view.standings.clone(),
            panic: view.panic,
            divided: view.divided,
            bound: None,
            learnt: view.learnt.clone(),
        };
        (self.0)(&mut other);
        Arc::new(other)
    }
}

#[test]
fn more_are_out_than_may_be() {
    let all = |view: &mut PoolView| {
        let out = view.standings.iter().find_map(|it| it.back_at);
        for standing in &mut view.standings {
            standing.back_at = out;
        }
    };
    check(&sour(), &mut Shows(all), Rule::Ejected);
}

#[test]
fn an_ejection_that_never_ends() {
    let mut kept = None;
    let never = move |view: &mut PoolView| {
        let first = &mut view.standings[0];
        kept = kept.or(first.back_at);
        first.back_at = kept;
    };
    let mut story = sour();
    story.outlier = Some(OutlierPlan {
        degrade: false,
        ..OutlierPlan::QUICK
    });
    story = story.at(8_000, Step::Becomes(0, Condition::WELL));
    check(&story, &mut Shows(never), Rule::Ejected);
}

#[test]
fn a_share_that_nothing_accounts_for() {
    let half = |view: &mut PoolView| {
        if let Some(last) = view.standings.last_mut() {
            last.share = balance::Share::new(0.5);
        }
    };
    let mut story = sour().at(18_000, Step::Weight(1, 2));
    story.length = Duration::from_secs(25);
    check(&story, &mut Shows(half), Rule::Unjust);
}

#[test]
fn a_slow_start_at_full_speed() {
    let whole = |view: &mut PoolView| {
        for standing in &mut view.standings {
            standing.note = "".into();
        }
    };
    let mut story = Scenario::quiet(3)
        .at(5_000, Step::State(0, State::Disabled))
        .at(7_000, Step::State(0, State::Ready));
    story.slow_start = Some(SlowStart {
        duration: Duration::from_secs(5),
        aggression: 1.0,
        floor: 0.1,
    });
    check(&story, &mut Shows(whole), Rule::Shares);
}

#[test]
fn traffic_that_goes_past_its_zone_or_priority() {
    let even = |view: &mut PoolView| {
        let count = view.standings.len() as f64;
        for standing in &mut view.standings {
            standing.traffic = 1.0 / count;
        }
    };
    let mut zones = Scenario::quiet(4);
    zones.own_zone = true;
    let mut priorities = Scenario::quiet(4);
    for at in 0..4 {
        zones.servers[at].zone = Some(at as u32 % 2);
        priorities.servers[at].priority = at as u32 % 2;
    }
    let lost = |story: Scenario| story.at(8_000, Step::Becomes(0, Condition::DOWN));
    check(&lost(zones), &mut Shows(even), Rule::Current);
    check(&lost(priorities), &mut Shows(even), Rule::Current);
}

/// Two slots for more than they can do, so that requests wait.
fn crowd() -> Scenario {
    let mut story = Scenario::quiet(2);
    for plan in &mut story.servers {
        plan.connections_max = Some(1);
        plan.latency = Duration::from_millis(45);
    }
    story.queue = Some(QueuePlan {
        max: 10,
        wait: Duration::from_millis(400),
    });
    story.priorities = true;
    story
}

#[test]
fn a_server_with_more_requests_than_it_may_have() {
    struct Forces;
    impl Decisions for Forces {
        fn pick(
            &mut self,
            pool: &mut LocalPool,
            _: Option<u64>,
            _: &mut Vec<u32>,
            _: Duration,
        ) -> Result<Claim, Reason> {
            pool.refresh();
            Ok(Claim::Forced(pool.view.members[0].clone()))
        }
    }
    check(&crowd(), &mut Forces, Rule::Limit);
}

#[test]
fn a_newcomer_before_those_who_wait() {
    struct Barges;
    impl Decisions for Barges {
        fn pick(
            &mut self,
            pool: &mut LocalPool,
            key: Option<u64>,
            tried: &mut Vec<u32>,
            now: Duration,
        ) -> Result<Claim, Reason> {
            let waiting = pool.state.gate.waiting() > 0;
            match Product.pick(pool, key, tried, now) {
                Err(_) if waiting => Ok(Claim::Forced(pool.view.members[0].clone())),
                picked => picked,
            }
        }
    }
    check(&crowd(), &mut Barges, Rule::Order);
}

#[test]
fn a_queue_out_of_order() {
    struct Turns;
    impl Decisions for Turns {
        fn waits_as(&mut self, priority: u8) -> u8 {
            9 - priority
        }
    }
    check(&crowd(), &mut Turns, Rule::Order);
}

#[test]
fn a_wait_past_its_deadline() {
    struct Patient;
    impl Decisions for Patient {
        fn waits_for(&mut self, wait: Duration) -> Duration {
            wait * 2
        }
    }
    check(&crowd(), &mut Patient, Rule::Waits);
}

#[test]
fn a_slot_that_is_given_back_to_nobody() {
    struct Forgets;
    impl Decisions for Forgets {
        fn give_back(&mut self, claim: Claim) {
            claim.member().cell.release();
            std::mem::forget(claim);
        }
    }
    check(&crowd(), &mut Forgets, Rule::Idle);
}

#[test]
fn a_slot_that_is_not_given_back() {
    struct Leaks(u32);
    impl Decisions for Leaks {
        fn give_back(&mut self, claim: Claim) {
            self.0 += 1;
            if self.0 == 100 {
                std::mem::forget(claim);
            }
        }
    }
    check(&crowd(), &mut Leaks(0), Rule::Leaked);
}

/// Servers that are slow now and then, and a further try beside each slow one.
fn hedged() -> Scenario {
    let mut story = Scenario::quiet(3);
    for plan in &mut story.servers {
        plan.latency = Duration::from_millis(40);
    }
    story.hedge = Some((Duration::from_millis(10), 1));
    story.rate = 100.0;
    story
}

#[test]
fn hedging_past_the_budget() {
    struct Lavish;
    impl Decisions for Lavish {
        fn beside(
            &mut self,
            _: bool,
            _: &RetryBudget,
            _: Duration,
            pick: &mut dyn FnMut() -> Option<Claim>,
        ) -> Option<Claim> {
            pick()
        }
    }
    check(&hedged(), &mut Lavish, Rule::Amplified);
}

/// Failures in a row eject, and nothing else.
const ROW_ONLY: OutlierPlan = OutlierPlan {
    success_rate: false,
    latency: false,
    degrade: false,
    ..OutlierPlan::QUICK
};

/// Charges a server that was outrun by another rule.
struct Outruns(fn(bool) -> bool);

impl Decisions for Outruns {
    fn charges_outrun(&mut self, silent: bool) -> bool {
        (self.0)(silent)
    }
}

#[test]
fn a_server_that_is_only_slower_than_others_is_charged() {
    // It answers others meanwhile: what that does to whom is a matter of chance.
    let mut stories = (0..600).map(Scenario::from_seed);
    let found = stories.find(|story| {
        let broken = || run_with(story, &mut Outruns(|_| true));
        story.hedge.is_some() && broken().breaks(Rule::Unjust)
    });
    let story = found.expect("one of them shows it");
    check(&story, &mut Outruns(|_| true), Rule::Unjust);
}

#[test]
fn a_hung_server_that_hides_behind_hedging() {
    let hung = Condition {
        life: Life::Frozen,
        ..Condition::WELL
    };
    let mut story = hedged().at(5_000, Step::Becomes(0, hung));
    story.outlier = Some(ROW_ONLY);
    check(&story, &mut Outruns(|_| false), Rule::Current);
}

#[test]
fn a_slow_try_that_is_not_given_up() {
    struct Stays;
    impl Decisions for Stays {
        fn beside(
            &mut self,
            _: bool,
            _: &RetryBudget,
            _: Duration,
            _: &mut dyn FnMut() -> Option<Claim>,
        ) -> Option<Claim> {
            None
        }
    }
    let mut story = Scenario::quiet(3);
    story.per_try = Some(Duration::from_millis(50));
    let slow = Condition {
        slow: 40.0,
        ..Condition::WELL
    };
    check(
        &story.at(5_000, Step::Becomes(0, slow)),
        &mut Stays,
        Rule::Lost,
    );
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
