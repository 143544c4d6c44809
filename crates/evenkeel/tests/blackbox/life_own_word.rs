//! Servers that say themselves how much traffic they want: by their health checks, and by HAProxy's agent check.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use testkit::{Evenkeel, Haproxy, Load, Origin, missing, reply, wait_until};

use crate::life_support::{SOON, ask, metric, picks, server, site, start, wait_all, web};

/// An agent that says what the test last wrote, to whoever connects.
fn agent(line: &Arc<Mutex<String>>) -> Origin {
    let line = line.clone();
    Origin::start(move |conn| {
        let said = line.lock().expect("whole").clone();
        conn.write(said)
    })
    .expect("an agent")
}

fn of(evenkeel: &Evenkeel, origin: &Origin, key: &str) -> Value {
    server(evenkeel, "site", &origin.address().to_string())[key].clone()
}

fn wait_state(evenkeel: &Evenkeel, origin: &Origin, state: &str) {
    wait_until(&format!("it is {state}"), SOON, || {
        of(evenkeel, origin, "state") == state
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

#[test]
fn a_server_drains_by_its_health_check_and_comes_back_and_nothing_is_lost() {
    let drains = Arc::new(AtomicBool::new(false));
    let says = drains.clone();
    let a = Origin::http(move |request| match &*request.target {
        "/health" if says.load(Relaxed) => reply(429, "let me go"),
        _ => reply(200, "a"),
    });
    let a = a.expect("an origin");
    let b = Origin::http(|_| reply(200, "b")).expect("an origin");
    let addresses = [a.address(), b.address()];
    let check = "health_check: { path: /health, interval: 100ms, drain_status: 429, drain_header: x-drain }";
    let evenkeel = start(&site(&addresses, check));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(8).start();
    for _ in 0..3 {
        drains.store(true, Relaxed);
        wait_state(&evenkeel, &a, "drain");
        assert_eq!(of(&evenkeel, &a, "health"), "healthy");
        let before = picks(&evenkeel, a.address());
        load.wait_ok(100, SOON).expect("the other serves");
        assert_eq!(picks(&evenkeel, a.address()), before);
        drains.store(false, Relaxed);
        wait_state(&evenkeel, &a, "ready");
        wait_until("it serves again", SOON, || {
            picks(&evenkeel, a.address()) > before + 10
        })
        .expect("it serves again");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 8);
}

#[test]
fn an_agent_says_it_and_the_operator_wins() {
    let line = Arc::new(Mutex::new("ready 100%\n".to_owned()));
    let agent = agent(&line);
    let say = |text: &str| *line.lock().expect("whole") = format!("{text}\n");
    let a = Origin::http(|_| reply(200, "a")).expect("an origin");
    let b = Origin::http(|_| reply(200, "b")).expect("an origin");
    let port = agent.address().port();
    let addresses = [a.address(), b.address()];
    let config = site(
        &addresses,
        &format!("agent_check: {{ port: {port}, interval: 50ms }}"),
    );
    let evenkeel = start(&config);
    wait_all(&evenkeel, &addresses, "healthy");
    wait_until("both are heard", SOON, || {
        [&a, &b]
            .iter()
            .all(|it| of(&evenkeel, it, "says") == "ready 100%")
    })
    .expect("both are heard");
    // Both servers are on one address, so that one agent speaks for both.
    say("drain, hello");
    wait_state(&evenkeel, &a, "drain");
    wait_state(&evenkeel, &b, "drain");
    // The view that shows it is a moment behind the state.
    wait_until("it is shown", SOON, || {
        of(&evenkeel, &a, "says") == "drain 100%"
    })
    .expect("shown");
    assert_eq!(of(&evenkeel, &a, "operator"), Value::Null);
    let name = a.address().to_string();
    assert_eq!(
        ask(&evenkeel, &["server", "enable", "site", &name]).code,
        Some(0)
    );
    assert_eq!(of(&evenkeel, &a, "state"), "ready");
    say("maint");
    wait_state(&evenkeel, &a, "disabled");
    assert_eq!(
        ask(&evenkeel, &["server", "drain", "site", &name]).code,
        Some(0)
    );
    say("ready down #disk full");
    wait_state(&evenkeel, &b, "ready");
    assert_eq!(of(&evenkeel, &a, "state"), "drain", "as its operator said");
    wait_until("it is down", SOON, || {
        of(&evenkeel, &b, "health") == "unhealthy"
    })
    .expect("down");
    assert_eq!(of(&evenkeel, &b, "cause"), "its agent says down: disk full");
    say("up");
    wait_until("it is healthy", SOON, || {
        of(&evenkeel, &b, "health") == "healthy"
    })
    .expect("up");
    assert!(metric(&evenkeel, "evenkeel_agent_unknown_words_total") >= 2.0);
    assert!(
        metric(
            &evenkeel,
            "evenkeel_agent_checks_total{pool=\"site\",result=\"answered\"}"
        ) > 4.0
    );
}

/// What HAProxy makes of a line, and what is made of it here.
#[test]
fn haproxy_takes_the_same_lines_alike() {
    if missing("haproxy") {
        return;
    }
    let line = Arc::new(Mutex::new("ready up 100%\n".to_owned()));
    let agent = agent(&line);
    let port = agent.address().port();
    let a = Origin::http(|_| reply(200, "a")).expect("an origin");
    let peer = Haproxy::start(&format!(
        "listen site\n  bind 127.0.0.1:{{port}}\n  mode http\n  stats enable\n  stats uri /stats\n  balance roundrobin\n  server a {} weight 8 check inter 100ms agent-check agent-port {port} agent-inter 50ms\n",
        a.address()
    ));
    let Ok(peer) = peer else {
        panic!("haproxy starts: {:?}", peer.err());
    };
    let config = site(
        &[a.address()],
        &format!("agent_check: {{ port: {port}, interval: 50ms }}"),
    )
    .replace(
        &format!("['{}']", a.address()),
        &format!("[{{ address: '{}', weight: 8 }}]", a.address()),
    );
    let evenkeel = start(&config);
    wait_all(&evenkeel, &[a.address()], "healthy");
    // Status and weight in HAProxy's statistics, and ours.
    for (text, theirs, state, health) in [
        ("drain", "DRAIN", "drain", "healthy"),
        ("READY", "UP 8", "ready", "healthy"),
        ("maint", "MAINT", "disabled", "healthy"),
        ("ready, up", "UP", "ready", "healthy"),
        ("0%", "UP 0", "drain", "healthy"),
        ("50%", "UP 4", "ready", "healthy"),
        ("stopped #bye", "DOWN", "ready", "unhealthy"),
        ("100% up", "UP 8", "ready", "healthy"),
        ("what is this", "UP 8", "ready", "healthy"),
    ] {
        *line.lock().expect("whole") = format!("{text}\n");
        wait_until(&format!("{text:?} is {theirs} there"), SOON, || {
            status_of(&peer).is_some_and(|status| status.starts_with(theirs))
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", status_of(&peer)));
        wait_until(
            &format!("{text:?} is {state} and {health} here"),
            SOON,
            || of(&evenkeel, &a, "state") == state && of(&evenkeel, &a, "health") == health,
        )
        .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    }
}

/// Status and weight that HAProxy's statistics have for server `a`.
fn status_of(peer: &Haproxy) -> Option<String> {
    let mut client = testkit::Raw::connect(peer.address()).ok()?;
    let csv = client.get("/stats;csv").ok()?.text();
    let row = csv.lines().find(|row| row.starts_with("site,a,"))?;
    let mut fields = row.split(',').skip(17);
    Some(format!("{} {}", fields.next()?, fields.next()?))
}
