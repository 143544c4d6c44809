//! What servers say of themselves, and who wins.

use super::*;

const AGENTS: &str = "servers: [{ name: a, address: '10.0.0.1:80', weight: 8, max_connections: 50 }, { name: b, address: '10.0.0.2:80' }], agent_check: { port: 9999, interval: 2s }";
const MARKS: &str = "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }], health_check: { path: /health, drain_status: 429 }";

/// Lets the agent of `a` say a line at its next check.
fn say(scene: &mut Scene, line: &str) {
    scene.lines.insert("a".to_owned(), Ok(line.to_owned()));
    scene.pass(2300);
}

fn state(scene: &Scene) -> State {
    scene.member("a").cell.state()
}

fn standing(scene: &Scene) -> crate::live::Standing {
    scene.view().standings[0].clone()
}

/// The answer to the next probe of `a` says this.
fn mark(scene: &mut Scene, says: State) {
    scene.fate("a", None);
    let before = scene.probes.len();
    let a = scene.member("a").id;
    scene.pass(11_000);
    let mut probes = scene.probes[before..].iter();
    let probe = probes.rfind(|(_, it)| it.member == a).unwrap().1.number;
    scene.event(Event::Says {
        member: a,
        probe,
        state: says,
    });
    scene.event(Event::Probed {
        member: a,
        probe,
        outcome: Outcome::Success,
    });
    scene.fate("a", Outcome::Success);
    scene.pass(20);
}

#[test]
fn an_agent_has_its_server_drained_and_brings_it_back() {
    let mut scene = Scene::running(&site(AGENTS));
    scene.log.clear();
    say(&mut scene, "drain");
    assert_eq!(
        (state(&scene), scene.usable()),
        (State::Drain, vec!["b".to_owned()])
    );
    assert_eq!(scene.log, ["a says drain: drain"]);
    assert_eq!(&*standing(&scene).says, "drain");
    // Only what is said changes.
    say(&mut scene, "up");
    assert_eq!(state(&scene), State::Drain);
    say(&mut scene, "maint");
    assert_eq!(state(&scene), State::Disabled);
    say(&mut scene, "ready");
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn down_is_out_until_the_agent_says_up_and_the_cause_is_its_own() {
    let mut scene = Scene::running(&site(AGENTS));
    say(&mut scene, "down #disk full");
    assert_eq!(scene.usable(), ["b"]);
    assert_eq!(&*standing(&scene).cause, "its agent says down: disk full");
    say(&mut scene, "ready 100%");
    assert_eq!(scene.usable(), ["b"]);
    // An agent that ends says nothing, and takes nothing back.
    scene.lines.insert("a".to_owned(), Err("refused".into()));
    scene.pass(10_000);
    assert_eq!(scene.usable(), ["b"]);
    say(&mut scene, "up");
    assert_eq!(scene.usable(), ["a", "b"]);
    assert_eq!(&*standing(&scene).cause, "passes its probes");
}

#[test]
fn a_percentage_is_of_the_files_weight_and_an_operators_weight_wins() {
    let mut scene = Scene::running(&site(AGENTS));
    let share = |scene: &Scene| {
        let view = scene.view();
        let candidate = &view.view.candidates()[0];
        (candidate.weight, candidate.share.factor())
    };
    say(&mut scene, "50%");
    assert_eq!(share(&scene), (8, 0.5));
    say(&mut scene, "200%");
    assert_eq!(share(&scene), (16, 1.0));
    say(&mut scene, "25%");
    scene.set("a", None, 5);
    assert_eq!(share(&scene), (5, 1.0));
    say(&mut scene, "0%");
    assert_eq!(
        (state(&scene), scene.usable()),
        (State::Drain, vec!["b".to_owned()])
    );
    say(&mut scene, "100%");
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn maxconn_bounds_within_what_the_file_allows() {
    let mut scene = Scene::running(&site(AGENTS));
    let max = |scene: &Scene| scene.member("a").connections_max();
    assert_eq!(max(&scene), Some(50));
    say(&mut scene, "maxconn:30");
    assert_eq!(max(&scene), Some(30));
    scene.reload(&site(&AGENTS.replace("weight: 8", "weight: 9")));
    assert_eq!(max(&scene), Some(30), "a reload loses nothing of it");
    say(&mut scene, "maxconn:300");
    assert_eq!(max(&scene), Some(50));
}

#[test]
fn the_operator_wins() {
    // What the operator says, what the server says, and what is in force.
    let table = [
        (None, "ready", State::Ready),
        (None, "drain", State::Drain),
        (None, "maint", State::Disabled),
        (Some(State::Drain), "ready", State::Drain),
        (Some(State::Drain), "maint", State::Drain),
        (Some(State::Disabled), "ready", State::Disabled),
        (Some(State::Disabled), "drain", State::Disabled),
    ];
    for (operator, says, expected) in table {
        let mut scene = Scene::running(&site(AGENTS));
        if let Some(operator) = operator {
            scene.set("a", operator, None);
        }
        say(&mut scene, says);
        assert_eq!(state(&scene), expected, "{operator:?}, {says}");
        // And in the other order.
        let mut scene = Scene::running(&site(AGENTS));
        say(&mut scene, says);
        if let Some(operator) = operator {
            scene.set("a", operator, None);
        }
        assert_eq!(state(&scene), expected, "{says}, {operator:?}");
    }
}

#[test]
fn enable_puts_aside_what_the_server_says_until_it_says_something_else() {
    let mut scene = Scene::running(&site(AGENTS));
    say(&mut scene, "drain");
    scene.set("a", State::Ready, None);
    assert_eq!(state(&scene), State::Ready);
    say(&mut scene, "drain");
    assert_eq!(state(&scene), State::Ready, "it says what it said");
    assert_eq!(standing(&scene).operator, Some(State::Ready));
    say(&mut scene, "maint");
    assert_eq!(state(&scene), State::Disabled);
    say(&mut scene, "drain");
    assert_eq!(state(&scene), State::Drain);
}

#[test]
fn a_mark_in_the_answer_to_a_probe_drains_without_failing() {
    let mut scene = Scene::running(&site(MARKS));
    mark(&mut scene, State::Drain);
    assert_eq!(scene.usable(), ["b"]);
    assert_eq!(standing(&scene).verdict, balance::health::Verdict::Healthy);
    mark(&mut scene, State::Ready);
    assert_eq!(scene.usable(), ["a", "b"]);
    // One of a probe that is not out any more is ignored.
    scene.event(Event::Says {
        member: scene.member("a").id,
        probe: 1,
        state: State::Drain,
    });
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn a_reload_keeps_words_and_forgets_those_that_nobody_can_take_back() {
    let mut scene = Scene::running(&site(AGENTS));
    say(&mut scene, "drain");
    scene.reload(&site(&AGENTS.replace("interval: 2s", "interval: 1s")));
    assert_eq!(state(&scene), State::Drain);
    scene.reload(&site(
        &AGENTS.replace(", agent_check: { port: 9999, interval: 2s }", ""),
    ));
    assert_eq!(scene.usable(), ["a", "b"]);
    let asked = scene.agents_asked;
    scene.pass(20_000);
    assert_eq!(scene.agents_asked, asked);

    let mut scene = Scene::running(&site(MARKS));
    mark(&mut scene, State::Drain);
    scene.reload(&site(&MARKS.replace(", drain_status: 429", "")));
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn both_voices_count_and_the_stricter_is_in_force() {
    let both = AGENTS.replace(
        "agent_check",
        "health_check: { path: /, drain_header: x-drain }, agent_check",
    );
    let mut scene = Scene::running(&site(&both));
    mark(&mut scene, State::Drain);
    say(&mut scene, "ready");
    assert_eq!(state(&scene), State::Drain);
    mark(&mut scene, State::Ready);
    assert_eq!(state(&scene), State::Ready);
}
