//! Limits that follow latency: found by the product, kept to by every pick, and judged.

use std::time::Duration;

use control::live::Member;
use control::pick::LocalPool;
use control::reason::Reason;
use evenkeel_sim::decisions::Claim;
use evenkeel_sim::{
    AdaptivePlan, Condition, Decisions, QueuePlan, Rule, Scenario, Step, run, run_with,
};

const MIN: u32 = 2;
const MAX: u32 = 40;

/// Two servers that become ten times as slow for a while, under more load than they bear then.
fn story() -> Scenario {
    let slow = Condition {
        slow: 10.0,
        ..Condition::WELL
    };
    let mut story = Scenario::quiet(2);
    story.rate = 200.0;
    story.length = Duration::from_secs(40);
    for server in 0..2 {
        story.servers[server].latency = Duration::from_millis(20);
        story = story
            .at(10_000, Step::Becomes(server, slow))
            .at(15_000, Step::Becomes(server, Condition::WELL));
    }
    story.adaptive = Some(AdaptivePlan {
        min: MIN,
        max: MAX,
        measure_every: Duration::from_secs(2),
    });
    story.queue = Some(QueuePlan {
        max: 50,
        wait: Duration::from_secs(1),
    });
    story
}

#[test]
fn a_limit_falls_while_servers_are_slow_and_recovers() {
    let report = run(&story());
    assert!(report.violations.is_empty(), "{report}");
    let (lowest, last) = report.limits.expect("servers are limited by latency");
    // The load needs two at once of each when all are well, and twenty while they are slow.
    assert!(lowest < 6, "{lowest}, {last}: {report}");
    assert!(last > lowest && last > 2, "{lowest}, {last}: {report}");
}

/// The story is well by the product's decisions, and breaks the rule by these.
fn check(decisions: &mut dyn Decisions, rule: Rule) {
    let report = run(&story());
    assert!(report.violations.is_empty(), "{report}");
    let report = run_with(&story(), decisions);
    assert!(report.breaks(rule), "{rule} was not noticed: {report}");
}

#[test]
fn a_pick_past_the_limit() {
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
    check(&mut Forces, Rule::Limit);
}

#[test]
fn a_limit_out_of_its_bounds() {
    struct Says(u32);
    impl Decisions for Says {
        fn limit(&mut self, _: &Member) -> Option<u32> {
            Some(self.0)
        }
    }
    check(&mut Says(MIN - 1), Rule::Adaptive);
    check(&mut Says(MAX + 1), Rule::Adaptive);
}
