//! Clients that are bound: the product keeps them, and the judge objects where it would not.

use std::time::Duration;

use balance::State;
use control::affinity::End;
use control::pick::LocalPool;
use control::reason::Reason;
use evenkeel_sim::decisions::Claim;
use evenkeel_sim::{
    AffinityPlan, Binds, Condition, Decisions, Product, Rule, Scenario, Step, run, run_with,
};

fn story(learnt: bool, required: bool) -> Scenario {
    let mut story = Scenario::quiet(3)
        .at(5_000, Step::State(0, State::Disabled))
        .at(8_000, Step::State(0, State::Ready))
        .at(10_000, Step::Becomes(1, Condition::DOWN))
        .at(13_000, Step::Becomes(1, Condition::WELL))
        .at(15_000, Step::Reload(vec![(0, 1), (1, 1)]))
        .at(16_000, Step::Reload(vec![(0, 1), (1, 1), (2, 1)]))
        .at(17_000, Step::Drain(2, Duration::from_secs(1)));
    story.affinity = Some(AffinityPlan {
        learnt,
        required,
        moves: false,
        wait: Some(Duration::from_secs(1)),
        clients: 12,
    });
    story
}

#[test]
fn clients_stay_and_move_when_their_server_goes() {
    for learnt in [false, true] {
        let report = run(&story(learnt, false));
        assert!(report.violations.is_empty(), "{report}");
        assert!(report.kept > report.requests / 2, "{report}");
        // Of three servers each went once, with about a third of twelve clients.
        assert!((3..=36).contains(&report.moved), "{report}");
        let report = run(&story(learnt, true));
        assert!(report.violations.is_empty(), "{report}");
        let refused = report.failed.get("affinity_server_unavailable");
        assert!(refused.is_some(), "{report}");
    }
}

/// The story is well by the product's decisions, and breaks the rule by these.
fn check(story: &Scenario, decisions: &mut dyn Decisions, rule: Rule) {
    let report = run(story);
    assert!(report.violations.is_empty(), "{report}");
    let report = run_with(story, decisions);
    assert!(report.breaks(rule), "{rule} was not noticed: {report}");
}

/// Every tenth request goes where the algorithm has it, whatever binds it.
struct Strays(u64);

impl Decisions for Strays {
    fn pick_any(
        &mut self,
        pool: &mut LocalPool,
        binds: Option<Binds<'_>>,
        key: Option<u64>,
        tried: &mut Vec<u32>,
        now: Duration,
    ) -> Result<Claim, Reason> {
        self.0 += 1;
        let binds = binds.filter(|_| !self.0.is_multiple_of(10));
        Product.pick_any(pool, binds, key, tried, now)
    }
}

#[test]
fn a_client_that_is_sent_elsewhere() {
    for learnt in [false, true] {
        check(&story(learnt, false), &mut Strays(0), Rule::Bound);
        check(&story(learnt, true), &mut Strays(0), Rule::Required);
    }
}

/// A try that failed at its server is taken for the end of the bond.
struct Rebinds;

impl Decisions for Rebinds {
    fn settle(&mut self, end: &mut End) {
        if *end == End::Strayed {
            *end = End::Moved;
        }
    }
}

#[test]
fn a_binding_that_moves_for_nothing() {
    let lossy = Condition {
        resets: 0.3,
        ..Condition::WELL
    };
    let mut story = story(false, false);
    story.steps.clear();
    check(
        &story.at(3_000, Step::Becomes(0, lossy)),
        &mut Rebinds,
        Rule::Moved,
    );
}
