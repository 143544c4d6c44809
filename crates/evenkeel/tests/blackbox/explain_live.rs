//! `evenkeel explain --live`: what a running instance knows, and that asking changes nothing.

use std::sync::mpsc::channel;

use serde_json::Value;
use testkit::{Evenkeel, Finished, Origin, reply, wait_until};

use crate::command::evenkeel_with;
use crate::life_support::{
    SOON, ask, connect, metric, server, site, start, wait_all, wait_health, web,
};

fn explain(evenkeel: &Evenkeel, more: &[&str]) -> Finished {
    let request = format!("GET http://x:{}/", web(evenkeel).port());
    ask(evenkeel, &[&["explain", "--live", &request], more].concat())
}

#[track_caller]
fn says(evenkeel: &Evenkeel, parts: &[&str]) {
    let finished = explain(evenkeel, &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in parts {
        let text = finished.text();
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

fn here() -> Origin {
    Origin::http(|_| reply(200, "here")).expect("an origin")
}

#[test]
fn a_dead_server_is_not_chosen_and_the_answer_says_why() {
    let (mut dead, alive) = (here(), here());
    let (a, b) = (dead.address(), alive.address());
    let evenkeel = start(&site(&[a, b], "balance: round_robin"));
    wait_all(&evenkeel, &[a, b], "healthy");
    let listener = format!("listener  web on {}\n", web(&evenkeel));
    let counted = || {
        [
            "evenkeel_picks_total",
            "evenkeel_requests_total",
            "evenkeel_server_requests_total",
        ]
        .map(|family| metric(&evenkeel, family))
    };
    let before = counted();
    let sent = |origin: &Origin| origin.seen().iter().filter(|it| it.target == "/").count();
    // Whoever is asked for, it stays that server's turn.
    for _ in 0..3 {
        let server = format!("server    {a}  (its turn now; the next request gets the next one)\n");
        says(
            &evenkeel,
            &[&listener, &server, &format!("not {b}"), "not its turn"],
        );
    }
    assert_eq!((counted(), sent(&dead), sent(&alive)), (before, 0, 0));
    connect(web(&evenkeel)).get("/").expect("an answer");
    assert_eq!((sent(&dead), sent(&alive)), (1, 0));

    dead.stop();
    wait_health(&evenkeel, a, "unhealthy");
    let before = counted();
    let cause = server(&evenkeel, "site", &a.to_string())["cause"].clone();
    let cause = cause.as_str().expect("a cause");
    for _ in 0..3 {
        let not = format!("not {a}  unhealthy: {cause}\n");
        says(&evenkeel, &[&format!("server    {b}  (its turn now"), &not]);
    }
    assert_eq!((counted(), sent(&alive)), (before, 0));

    let finished = explain(&evenkeel, &["--json"]);
    let json: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    let of = |pointer: &str| json.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(of("/pools/0/server"), b.to_string());
    assert_eq!(of("/pools/0/servers/0/live/health"), "unhealthy");
    assert_eq!(of("/pools/0/servers/0/live/cause"), cause);
}

#[test]
fn words_of_the_operator_and_servers_that_are_full_are_told() {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "here")
    });
    let (slow, other) = (slow.expect("an origin"), here());
    let (a, b) = (slow.address(), other.address());
    let servers = format!("[{{ address: '{a}', max_connections: 1 }}, '{b}']");
    let config = site(&[a], "health_check: off").replace(&format!("['{a}']"), &servers);
    let evenkeel = start(&config);
    ask(&evenkeel, &["server", "disable", "site", &b.to_string()]);
    says(
        &evenkeel,
        &[&format!("server    {a}"), "disabled, by its operator"],
    );
    let mut client = connect(web(&evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || slow.requests() > 0).expect("it is there");
    says(
        &evenkeel,
        &[
            "server    none: waits up to 5s for its turn: every server is full, and 0 wait before it\n",
            "at its limit: 1 of 1 in use",
        ],
    );
    go.send(()).expect("sent");
    assert_eq!(client.response().expect("an answer").status, 200);
    ask(
        &evenkeel,
        &["server", "disable", "site", &a.to_string(), "--force"],
    );
    says(&evenkeel, &["server    none: 503 no_usable_server\n"]);
}

#[test]
fn a_pool_that_is_full_is_told_apart_from_its_servers() {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "here")
    });
    let (slow, other) = (slow.expect("an origin"), here());
    let settings = "health_check: off, balance: round_robin, limits: { max_connections: 1 }";
    let evenkeel = start(&site(&[slow.address(), other.address()], settings));
    let server = format!("server    {}", slow.address());
    says(&evenkeel, &[&server]);
    let mut client = connect(web(&evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || slow.requests() > 0).expect("it is there");
    says(
        &evenkeel,
        &[
            "server    none: waits up to 5s for its turn: the pool is full (1 of 1 in use), and 0 wait before it\n",
            "in a pool at its limit",
        ],
    );
    go.send(()).expect("sent");
    assert_eq!(client.response().expect("an answer").status, 200);
    wait_until("there is room again", SOON, || {
        explain(&evenkeel, &[]).text().contains("server    127")
    })
    .expect("there is room again");
}

#[test]
fn a_full_queue_is_told_as_traffic_meets_it() {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one at a time");
            wait.recv_timeout(SOON).ok();
        }
        reply(200, "here")
    });
    let slow = slow.expect("an origin");
    let settings = "health_check: off, limits: { max_connections: 1, queue: 1 }";
    let urgent = "web: { bind: '127.0.0.1:0', routes: [{ match: { path: /urgent }, priority: 9, pool: site }, { pool: site }] }";
    let config = site(&[slow.address()], settings);
    let evenkeel = start(&config.replace("web: { bind: '127.0.0.1:0', pool: site }", urgent));
    let ask_for = |target: &str| {
        let mut client = connect(web(&evenkeel));
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.send(request).expect("sent");
        client
    };
    let mut served = ask_for("/slow");
    wait_until("it is there", SOON, || slow.requests() > 0).expect("it is there");
    let mut waiting = ask_for("/waiting");
    wait_until("one waits", SOON, || {
        explain(&evenkeel, &[]).text().contains("1 wait")
    })
    .expect("one waits");
    let full = "server    none: 503 queue_full: the pool is full (1 of 1 in use), and 1 wait, as many as may\n";
    says(&evenkeel, &[full]);
    let reason = |client: &mut testkit::Raw| {
        let answer = client.response().expect("an answer");
        answer.header("x-evenkeel-reason").map(str::to_owned)
    };
    assert_eq!(reason(&mut ask_for("/")).as_deref(), Some("queue_full"));
    // One of a higher priority takes the place of the one that waits.
    let url = format!("GET http://x:{}/urgent", web(&evenkeel).port());
    let said = ask(&evenkeel, &["explain", "--live", &url]).text();
    assert!(said.contains("waits up to 5s for its turn"), "{said}");
    assert!(said.contains("and 0 wait before it"), "{said}");
    let mut urgent = ask_for("/urgent");
    assert_eq!(reason(&mut waiting).as_deref(), Some("queue_full"));
    go.send(()).expect("sent");
    assert_eq!(reason(&mut served), None);
    assert_eq!(reason(&mut urgent), None);
}

#[test]
fn what_is_wrong_is_exit_1_and_nobody_there_is_exit_3() {
    let origin = here();
    let evenkeel = start(&site(&[origin.address()], ""));
    for (request, part) in [("nonsense", "is no request"), ("GET /", "no host")] {
        let finished = ask(&evenkeel, &["explain", "--live", request]);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }
    let nobody = [
        "explain",
        "--live",
        "GET http://x/",
        "--admin",
        "http://127.0.0.1:1",
    ];
    let finished = evenkeel_with("", &nobody);
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    let both = ["explain", "--live", "GET http://x/", "-c", "x.yaml"];
    assert_eq!(evenkeel_with("", &both).code, Some(2));
}
