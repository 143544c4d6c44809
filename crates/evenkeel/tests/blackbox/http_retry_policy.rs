//! What `retries` and `hedge` ask for beyond the default: slow tries, statuses, methods, waits, tries side by side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{Evenkeel, Origin, Port, Raw, reply, wait_until};

use crate::http_setup::{Outcome, client, ensure_ok, ensure_refused, noise, proxy_with};
use crate::life_support::{connect, metric, site, start, web};

const SOON: Duration = Duration::from_secs(15);

fn good() -> anyhow::Result<Origin> {
    Origin::http(|request| reply(200, &request.body))
}

/// Reads requests and never answers; sees when its connections end.
fn hanging() -> anyhow::Result<Origin> {
    Origin::start(|conn| {
        while conn.read_request()?.is_some() {}
        Ok(())
    })
}

fn request(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
}

/// In turn, and whatever the servers do: none is ejected for it.
fn turns(servers: &[SocketAddr], pool: &[&str]) -> anyhow::Result<Evenkeel> {
    proxy_with(
        servers,
        &[],
        &[&["balance: round_robin", "outlier_detection: off"], pool].concat(),
    )
}

/// Both servers are asked first at least once by so many requests in turn.
const TWICE: u32 = 4;

#[test]
fn a_slow_try_is_given_up_for_another_server() -> Outcome {
    let (slow, good) = (hanging()?, good()?);
    let servers = [slow.address(), good.address()];
    let evenkeel = turns(&servers, &["retries: { per_try_timeout: 100ms }"])?;
    let mut client = client(&evenkeel)?;
    for _ in 0..TWICE {
        let response = client.exchange(request("PUT"))?;
        ensure_ok(&response)?;
        assert_eq!(response.text(), "abc");
    }
    ensure!(slow.requests() >= 1, "the slow server was never tried");
    wait_until("its connections are closed", SOON, || slow.open() == 0)?;
    // A POST is not given up: its server may be at work on it.
    let times = "timeouts: { first_byte: 500ms }";
    let posts = turns(&servers, &["retries: { per_try_timeout: 100ms }", times])?;
    let (slow_before, good_before) = (slow.requests(), good.requests());
    let mut client = crate::http_setup::client(&posts)?;
    let mut late = 0;
    for _ in 0..TWICE {
        let response = client.exchange(request("POST"))?;
        if response.status != 200 {
            ensure_refused(&response, 504, "first_byte_timeout")?;
            late += 1;
        }
    }
    // On a busy machine the good one may be late as well; each was asked in its turn and no more.
    let each = u64::from(TWICE / 2);
    wait_until("both have read what they were sent", SOON, || {
        slow.requests() >= slow_before + each && good.requests() >= good_before + each
    })?;
    assert_eq!(slow.requests(), slow_before + each);
    assert_eq!(good.requests(), good_before + each);
    ensure!(late >= each, "{late} late");
    Ok(())
}

#[test]
fn a_slow_try_goes_on_where_no_other_server_may_be_asked() -> Outcome {
    let slow = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(400));
        reply(200, "late")
    })?;
    let evenkeel = turns(&[slow.address()], &["retries: { per_try_timeout: 100ms }"])?;
    let response = client(&evenkeel)?.get("/")?;
    ensure_ok(&response)?;
    assert_eq!(response.text(), "late");
    assert_eq!(slow.requests(), 1);
    Ok(())
}

/// Answers 503 with `Retry-After`, and a body of this size.
fn busy(size: usize) -> anyhow::Result<Origin> {
    Origin::http(move |_| {
        let mut answer = reply(503, noise(size));
        let at = answer
            .windows(2)
            .position(|two| two == b"\r\n")
            .unwrap_or(0);
        answer.splice(at..at, b"\r\nRetry-After: 7".iter().copied());
        answer
    })
}

#[test]
fn a_status_is_retried_where_asked_for_and_passes_where_it_cannot_be() -> Outcome {
    let on = "retries: { on: [502, 503, 504] }";
    for size in [0, 100, 500_000] {
        let (bad, good) = (busy(size)?, good()?);
        let evenkeel = turns(&[bad.address(), good.address()], &[on])?;
        let mut client = client(&evenkeel)?;
        for _ in 0..3 * TWICE {
            ensure_ok(&client.exchange(request("PUT"))?).with_context(|| format!("{size}"))?;
        }
        let (asked, connections) = (bad.requests(), bad.connections());
        assert_eq!(asked, u64::from(3 * TWICE / 2));
        if size <= 100 {
            assert_eq!(
                connections, 1,
                "a small answer leaves its connection in use"
            );
        }
        for _ in 0..TWICE {
            let response = client.exchange(request("POST"))?;
            ensure!(matches!(response.status, 200 | 503), "{response}");
            ensure!(response.header("x-evenkeel-reason").is_none(), "{response}");
        }
        assert_eq!(bad.requests(), asked + u64::from(TWICE / 2));
        let both = busy(size)?;
        let evenkeel = turns(&[bad.address(), both.address()], &[on])?;
        let before = bad.requests() + both.requests();
        let response = crate::http_setup::client(&evenkeel)?.get("/")?;
        assert_eq!(response.status, 503);
        assert_eq!(response.header("retry-after"), Some("7"));
        assert_eq!(response.body, noise(size));
        assert_eq!(bad.requests() + both.requests(), before + 2, "each once");
    }
    Ok(())
}

#[test]
fn without_a_word_of_it_a_503_is_an_answer_like_others() -> Outcome {
    let (bad, good) = (busy(3)?, good()?);
    let evenkeel = turns(&[bad.address(), good.address()], &[])?;
    let mut client = client(&evenkeel)?;
    let statuses: Vec<u16> = (0..TWICE)
        .map(|_| client.get("/").map(|response| response.status))
        .collect::<Result<_, _>>()?;
    assert_eq!(statuses.iter().filter(|it| **it == 503).count(), 2);
    Ok(())
}

/// What the first server said of when to come back is told, though the last one said nothing.
#[test]
fn retry_after_outlives_the_try_that_brought_it() -> Outcome {
    let bad = busy(0)?;
    let closing = Origin::start(|conn| conn.read_request().map(drop))?;
    let servers = [bad.address(), closing.address()];
    let evenkeel = turns(&servers, &["retries: { on: 503 }"])?;
    let mut client = client(&evenkeel)?;
    let mut told = 0;
    for _ in 0..TWICE {
        let response = client.get("/")?;
        if response.status == 502 {
            ensure_refused(&response, 502, "server_closed")?;
            assert_eq!(response.header("retry-after"), Some("7"));
            told += 1;
        } else {
            assert_eq!(response.status, 503, "{response}");
        }
    }
    assert_eq!(told, TWICE / 2);
    Ok(())
}

#[test]
fn a_post_is_repeated_only_where_it_is_named() -> Outcome {
    let closing = || Origin::start(|conn| conn.read_request().map(drop));
    let (bad, good) = (closing()?, good()?);
    let servers = [bad.address(), good.address()];
    let evenkeel = turns(&servers, &["retries: { methods: [POST] }"])?;
    let mut client = client(&evenkeel)?;
    for _ in 0..TWICE {
        let response = client.exchange(request("POST"))?;
        ensure_ok(&response)?;
        assert_eq!(response.text(), "abc");
    }
    let mut failed = 0;
    for _ in 0..TWICE {
        let response = client.exchange(request("PATCH"))?;
        if response.status != 200 {
            ensure_refused(&response, 502, "server_closed")?;
            failed += 1;
        }
    }
    assert_eq!(failed, TWICE / 2);
    Ok(())
}

#[test]
fn waits_between_tries_are_bounded() -> Outcome {
    let closing = || Origin::start(|conn| conn.read_request().map(drop));
    let (a, b, c) = (closing()?, closing()?, closing()?);
    let servers = [a.address(), b.address(), c.address()];
    let backoff = "retries: { backoff: { base: 20ms, max: 30ms } }";
    let evenkeel = turns(&servers, &[backoff])?;
    let mut client = client(&evenkeel)?;
    let started = Instant::now();
    for _ in 0..5 {
        ensure_refused(&client.get("/")?, 502, "server_closed")?;
    }
    assert_eq!(a.requests() + b.requests() + c.requests(), 15);
    ensure!(started.elapsed() < SOON, "{:?}", started.elapsed());
    Ok(())
}

#[test]
fn a_hedge_answers_for_a_slow_server_and_the_slow_one_is_let_go() -> Outcome {
    let (slow, good) = (hanging()?, good()?);
    let servers = [slow.address(), good.address()];
    let settings =
        "health_check: off, outlier_detection: off, balance: round_robin, hedge: { after: 50ms }";
    let evenkeel = start(&site(&servers, settings));
    let mut client = connect(web(&evenkeel));
    let started = Instant::now();
    for method in ["GET", "PUT", "PUT", "GET"] {
        let response = client.exchange(request(method))?;
        ensure_ok(&response)?;
        assert_eq!(response.text(), "abc");
    }
    ensure!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let asked = slow.requests();
    ensure!(asked >= 1, "the slow server was never tried");
    wait_until("its connections are closed", SOON, || slow.open() == 0)?;
    let count = |name: &str| metric(&evenkeel, name) as u64;
    let hedges = count("evenkeel_retries_total{pool=\"site\",cause=\"hedge\"");
    assert_eq!(hedges, asked);
    assert_eq!(count("evenkeel_active_connections{pool=\"site\""), 0);
    assert_eq!(count("evenkeel_requests_total{listener=\"web\""), 4);
    assert_eq!(count("evenkeel_picks_total{pool=\"site\""), 4 + asked);
    assert_eq!(count("evenkeel_server_requests_total{pool=\"site\""), 4);
    Ok(())
}

#[test]
fn a_post_has_no_hedge_and_a_fast_answer_none() -> Outcome {
    let slow = || {
        Origin::http(|request| {
            if request.target == "/" {
                std::thread::sleep(Duration::from_millis(150));
            }
            reply(200, &request.body)
        })
    };
    let (a, b) = (slow()?, slow()?);
    let evenkeel = turns(&[a.address(), b.address()], &["hedge: 50ms"])?;
    let mut client = client(&evenkeel)?;
    for _ in 0..2 {
        ensure_ok(&client.exchange(request("POST"))?)?;
    }
    assert_eq!(a.requests() + b.requests(), 2);
    for _ in 0..20 {
        ensure_ok(&client.get("/fast")?)?;
    }
    // A machine under load may make a fast answer slow, though not most of them.
    ensure!(a.requests() + b.requests() < 32, "{a:?} {b:?}");
    Ok(())
}

/// What counts as slow is measured: nothing at first, then whatever takes far longer than most.
#[test]
fn a_hedge_after_a_percentile_waits_until_enough_was_seen() -> Outcome {
    let stuck = Arc::new(AtomicBool::new(true));
    let is_stuck = Arc::clone(&stuck);
    let one = Origin::http(move |_| {
        wait_until("it goes on", SOON, || !is_stuck.load(Relaxed)).ok();
        reply(200, "one")
    })?;
    let other = Origin::http(|_| reply(200, "other"))?;
    let servers = [one.address(), other.address()];
    let settings = "health_check: off, outlier_detection: off, balance: round_robin, hedge: { after: p95, at_least: 50ms }";
    let evenkeel = start(&site(&servers, settings));
    let hedges = || {
        metric(
            &evenkeel,
            "evenkeel_retries_total{pool=\"site\",cause=\"hedge\"",
        )
    };
    let mut waiting: Vec<Raw> = (0..2).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut waiting {
        client.send(request("GET"))?;
    }
    wait_until("one of them is stuck", SOON, || one.requests() == 1)?;
    // Many times the least that a hedge would wait.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(hedges(), 0.0);
    stuck.store(false, Relaxed);
    for client in &mut waiting {
        ensure_ok(&client.response()?)?;
    }
    let mut client = connect(web(&evenkeel));
    for _ in 0..200 {
        ensure_ok(&client.exchange(request("GET"))?)?;
    }
    stuck.store(true, Relaxed);
    let before = hedges();
    for _ in 0..TWICE {
        let response = client.exchange(request("GET"))?;
        assert_eq!(response.text(), "other");
    }
    ensure!(
        hedges() >= before + 2.0,
        "{before} hedges, then {}",
        hedges()
    );
    // Nothing of it is for long: the answers of the other are what is measured now.
    stuck.store(false, Relaxed);
    Ok(())
}

/// The first server has it piece by piece; the race begins once it has all of it.
#[test]
fn a_body_that_comes_in_pieces_is_hedged_once_it_is_there() -> Outcome {
    let (slow, good) = (hanging()?, good()?);
    let servers = [slow.address(), good.address()];
    let evenkeel = turns(&servers, &["hedge: 50ms"])?;
    let mut client = client(&evenkeel)?;
    for (framing, pieces) in [
        ("Content-Length: 6", ["abc", "d", "ef"]),
        (
            "Transfer-Encoding: chunked",
            ["3\r\nabc\r\n", "3\r\nde", "f\r\n0\r\n\r\n"],
        ),
    ] {
        for _ in 0..TWICE {
            let before = slow.requests() + good.requests();
            client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"))?;
            wait_until("a server has the head", SOON, || {
                slow.requests() + good.requests() > before
            })?;
            for piece in pieces {
                client.send(piece)?;
            }
            let response = client.response()?;
            ensure_ok(&response)?;
            assert_eq!(response.text(), "abcdef");
        }
    }
    ensure!(slow.requests() >= 2, "the slow server was never tried");
    assert!(slow.seen().iter().all(|it| it.body == b"abcdef"));
    wait_until("its connections are closed", SOON, || slow.open() == 0)
}

/// Both are slow, the first one less so: it wins though the other one was asked as well.
#[test]
fn the_first_response_wins_whoever_gives_it() -> Outcome {
    let slow = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(300));
        reply(200, "first")
    })?;
    let hangs = hanging()?;
    let evenkeel = turns(&[slow.address(), hangs.address()], &["hedge: 50ms"])?;
    let mut client = client(&evenkeel)?;
    for _ in 0..TWICE {
        let response = client.get("/")?;
        ensure_ok(&response)?;
        assert_eq!(response.text(), "first");
    }
    wait_until("the other one is let go", SOON, || hangs.open() == 0)?;
    ensure!(hangs.requests() >= 1, "the other one was never asked");
    Ok(())
}

#[test]
fn a_hedge_that_fails_does_not_fail_the_request() -> Outcome {
    let slow = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(300));
        reply(200, "slow")
    })?;
    for (bad, retries) in [
        (Origin::start(|conn| conn.read_request().map(drop))?, "2"),
        (
            Origin::http(|_| b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_vec())?,
            "2",
        ),
        (busy(10)?, "{ on: 503 }"),
        // Though it is not one to retry: the slow one may do better.
        (busy(10)?, "2"),
        (Origin::http(|_| reply(500, "broken"))?, "2"),
    ] {
        let pool = ["hedge: 50ms", &format!("retries: {retries}")];
        let evenkeel = turns(&[slow.address(), bad.address()], &pool)?;
        let mut client = client(&evenkeel)?;
        // The first request goes to the first server.
        let response = client.get("/")?;
        ensure_ok(&response)?;
        assert_eq!(response.text(), "slow");
        ensure!(bad.requests() >= 1, "no hedge was made");
    }
    Ok(())
}

/// Where nobody does better, the client gets what a server has said.
#[test]
fn hedged_tries_that_all_fail_come_to_an_answer_of_theirs() -> Outcome {
    let slow = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(200));
        reply(500, "slow")
    })?;
    let bad = Origin::http(|_| reply(503, "busy"))?;
    let evenkeel = turns(&[slow.address(), bad.address()], &["hedge: 50ms"])?;
    let response = client(&evenkeel)?.get("/")?;
    assert_eq!((response.status, response.text().as_str()), (500, "slow"));
    assert_eq!((slow.requests(), bad.requests()), (1, 1));
    Ok(())
}

#[test]
fn a_hedged_request_is_given_up_by_servers_that_all_hang() -> Outcome {
    let (a, b, good) = (hanging()?, hanging()?, good()?);
    let servers = [a.address(), b.address(), good.address()];
    let pool = ["hedge: 50ms", "retries: { per_try_timeout: 200ms }"];
    let evenkeel = turns(&servers, &pool)?;
    let mut client = client(&evenkeel)?;
    let started = Instant::now();
    for _ in 0..6 {
        ensure_ok(&client.get("/")?)?;
    }
    ensure!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let left = || a.open() + b.open() == 0;
    wait_until("those that hang are let go", SOON, left)
}

/// One is given up for being slow while another one has the request: that is asked no second time.
#[test]
fn no_server_has_a_hedged_request_twice() -> Outcome {
    let (a, b) = (hanging()?, hanging()?);
    let pool = [
        "hedge: 50ms",
        "retries: { per_try_timeout: 150ms }",
        "timeouts: { first_byte: 600ms }",
    ];
    let evenkeel = turns(&[a.address(), b.address()], &pool)?;
    let response = client(&evenkeel)?.get("/")?;
    ensure_refused(&response, 504, "first_byte_timeout")?;
    assert_eq!((a.requests(), b.requests()), (1, 1));
    Ok(())
}

/// Every server fails: what they get is bounded by what came and the budget, and the answer says so.
#[test]
fn retries_stay_within_the_budget() -> Outcome {
    const REQUESTS: u64 = 250;
    let closing = || Origin::start(|conn| conn.read_request().map(drop));
    let (a, b, c) = (closing()?, closing()?, closing()?);
    let servers = [a.address(), b.address(), c.address()];
    let evenkeel = turns(&servers, &["retries: { attempts: 2, budget: 20% }"])?;
    let mut client = client(&evenkeel)?;
    let started = Instant::now();
    let mut refused = 0;
    for _ in 0..REQUESTS {
        let response = client.get("/")?;
        match response.header("x-evenkeel-reason") {
            Some("retry_budget") => refused += 1,
            _ => ensure_refused(&response, 502, "server_closed")?,
        }
    }
    let tries = a.requests() + b.requests() + c.requests();
    // 100 at once, and 10 for each further second, which are more here than a fifth of the requests.
    let budget = 100 + 10 * (started.elapsed().as_secs() + 1);
    ensure!(tries <= REQUESTS + budget, "{tries} tries, budget {budget}");
    ensure!(tries >= REQUESTS + 90, "{tries} tries");
    ensure!(
        refused > 50 || started.elapsed() > SOON,
        "{refused} refused"
    );
    Ok(())
}

#[test]
fn a_route_overrides_its_pool() -> Outcome {
    let (bad, good) = (busy(3)?, good()?);
    let config = format!(
        r#"
admin: off
workers: 1
listeners:
  web:
    bind: "127.0.0.1:0"
    routes:
      - {{ match: {{ path: /off }}, retries: off, pool: site }}
      - {{ match: {{ path: /none }}, retries: {{ on: [] }}, pool: site }}
      - {{ match: {{ path: /number }}, retries: 1, pool: site }}
      - {{ pool: site }}
pools:
  site:
    servers: ["{}", "{}"]
    balance: round_robin
    health_check: off
    outlier_detection: off
    retries: {{ on: 503 }}
"#,
        bad.address(),
        good.address()
    );
    let evenkeel = Evenkeel::start(crate::command::BINARY, &config)?;
    let mut client = client(&evenkeel)?;
    for (path, failures) in [("/off", 2), ("/none", 2), ("/number", 0), ("/", 0)] {
        let mut failed = 0;
        for _ in 0..TWICE {
            failed += u32::from(client.get(path)?.status == 503);
        }
        assert_eq!(failed, failures, "{path}");
    }
    Ok(())
}

#[test]
fn the_access_log_says_which_tries_failed_and_why() -> Outcome {
    let (slow, bad, good) = (hanging()?, busy(0)?, good()?);
    let dir = testkit::TempDir::new("tries")?;
    let log = dir.path().join("access.log");
    let servers = [slow.address(), bad.address(), good.address()];
    let settings = "health_check: off, outlier_detection: off, balance: round_robin, retries: { per_try_timeout: 100ms, on: 503 }";
    let config = format!(
        "access_log: {{ to: '{}' }}\n{}",
        log.display(),
        site(&servers, settings)
    );
    let evenkeel = start(&config);
    let mut client = connect(web(&evenkeel));
    for _ in 0..3 {
        ensure_ok(&client.get("/")?)?;
    }
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("three lines", SOON, || read().lines().count() == 3)?;
    let lines: Vec<serde_json::Value> = read()
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let mut causes = Vec::new();
    for line in &lines {
        let failed = line["failed"].as_array().cloned().unwrap_or_default();
        assert_eq!(line["tries"], failed.len() + 1, "{line}");
        assert_eq!(line["server"], good.address().to_string(), "{line}");
        causes.extend(failed.into_iter().map(|try_| {
            let server = try_["server"].as_str().unwrap_or_default().to_owned();
            (
                server,
                try_["cause"].as_str().unwrap_or_default().to_owned(),
            )
        }));
    }
    causes.sort();
    causes.dedup();
    let mut expected = vec![
        (slow.address().to_string(), "per_try_timeout".to_owned()),
        (bad.address().to_string(), "status".to_owned()),
    ];
    expected.sort();
    assert_eq!(causes, expected);
    Ok(())
}

/// Servers that refuse every connection.
fn refusing<const N: usize>() -> anyhow::Result<Vec<Port>> {
    (0..N).map(|_| Port::reserve()).collect()
}

/// A pool of these servers behind HTTP or TCP, with lines in the log for each request.
fn counted(protocol: &str, servers: &[SocketAddr], settings: &str) -> Evenkeel {
    let config = site(
        servers,
        &format!("health_check: off, outlier_detection: off, {settings}"),
    );
    let config = config.replace(
        "pool: site }",
        &format!("protocol: {protocol}, pool: site }}"),
    );
    start(&format!(
        "access_log: {{ to: stdout }}\nworkers: 1\n{config}"
    ))
}

fn retries(evenkeel: &Evenkeel) -> f64 {
    metric(evenkeel, "evenkeel_retries_total{")
}

#[test]
fn a_further_try_counts_only_where_a_server_is_left_for_it() -> Outcome {
    let ports = refusing::<2>()?;
    let servers: Vec<_> = ports.iter().map(Port::address).collect();
    for protocol in ["http", "tcp"] {
        for count in [1, 2] {
            let mut evenkeel = counted(protocol, &servers[..count], "");
            // The reset of a TCP connection may come before it stands.
            let client = Raw::connect(web(&evenkeel));
            client.and_then(|mut it| it.exchange(request("GET"))).ok();
            let line = evenkeel.wait_log("\"tries\":", SOON)?;
            ensure!(line.contains(&format!("\"tries\":{count}")), "{line}");
            assert_eq!(retries(&evenkeel), (count - 1) as f64, "{protocol} {count}");
        }
    }
    Ok(())
}

#[test]
fn a_further_try_of_what_was_sent_counts_only_where_a_server_is_left_for_it() -> Outcome {
    let closes = || {
        Origin::start(|conn| {
            conn.read_request()?;
            Ok(())
        })
    };
    let (a, b) = (closes()?, closes()?);
    let alone = counted("http", &[a.address()], "");
    let both = counted("http", &[a.address(), b.address()], "");
    for _ in 0..3 {
        let answer = connect(web(&alone)).get("/")?;
        ensure_refused(&answer, 502, "server_closed")?;
        let answer = connect(web(&both)).get("/")?;
        ensure_refused(&answer, 502, "server_closed")?;
    }
    assert_eq!(retries(&alone), 0.0);
    assert_eq!(retries(&both), 3.0);
    Ok(())
}

#[test]
fn a_retry_for_which_no_server_is_left_takes_nothing_of_the_budget() -> Outcome {
    let closes = Origin::start(|conn| {
        conn.read_request()?;
        Ok(())
    })?;
    // Ten a second are allowed whatever the share is: a hundred in the window.
    let settings = "retries: { budget: 0% }, limits: { max_retries: 1 }";
    let evenkeel = counted("http", &[closes.address()], settings);
    for _ in 0..150 {
        let answer = connect(web(&evenkeel)).get("/")?;
        ensure_refused(&answer, 502, "server_closed")?;
    }
    assert_eq!(retries(&evenkeel), 0.0);
    Ok(())
}

#[test]
fn a_further_try_that_waits_for_its_place_counts_once_it_has_it() -> Outcome {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let busy = Origin::http(move |_| {
        wait.lock().expect("a lock").recv_timeout(SOON).ok();
        reply(200, "well")
    })?;
    let dead = refusing::<1>()?;
    let servers = [busy.address(), dead[0].address()];
    let config = site(&servers, "health_check: off")
        .replace(
            &format!("'{}'", servers[0]),
            &format!(
                "{{ address: '{}', max_connections: 1, labels: {{ is: busy }} }}",
                servers[0]
            ),
        )
        .replace(
            "pool: site }",
            "routes: [{ match: { path: /busy }, pool: { name: site, labels: { is: busy } } }, { pool: site }] }",
        );
    let evenkeel = start(&format!("workers: 1\n{config}"));
    let mut first = connect(web(&evenkeel));
    first.send("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n")?;
    wait_until("it is held", SOON, || busy.requests() == 1)?;
    let mut second = connect(web(&evenkeel));
    second.send(request("GET"))?;
    let waiting = || metric(&evenkeel, "evenkeel_queue_length{") == 1.0;
    wait_until("the second waits", SOON, waiting)?;
    assert_eq!(retries(&evenkeel), 0.0, "it was refused, and waits");
    go.send(())?;
    go.send(())?;
    ensure_ok(&first.response()?)?;
    ensure_ok(&second.response()?)?;
    assert_eq!(retries(&evenkeel), 1.0);
    Ok(())
}
