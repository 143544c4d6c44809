//! Servers judged by their traffic: ejected, degraded, back in service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use testkit::{Evenkeel, Load, Origin, reply, wait_until};

use crate::life_support::{
    SOON, assert_metric, connect, metric, picks, reload, server, site, start, wait_all,
    wait_health, web,
};

/// What a server does with a request; probes (`/health`) it always answers well.
const WELL: u8 = 0;
/// 503 to each.
const UNAVAILABLE: u8 = 1;
/// It closes the connection by a reset.
const RESETS: u8 = 2;
/// It does not answer.
const HANGS: u8 = 3;
/// 503 to every third.
const SOMETIMES: u8 = 4;
/// It takes its time.
const SLOW: u8 = 5;
/// 503 to probes, and well for all others: what it checks for them is down, and it is not needed.
const SICK: u8 = 6;

/// What a slow answer takes.
const SLOW_TIME: Duration = Duration::from_millis(300);

/// A server whose ways can be changed.
struct Moody {
    origin: Origin,
    mood: Arc<AtomicU8>,
}

impl Moody {
    fn start() -> Self {
        let mood = Arc::new(AtomicU8::new(WELL));
        let (own, count) = (mood.clone(), AtomicU64::new(0));
        let origin = Origin::start(move |conn| {
            while let Some(request) = conn.read_request()? {
                let mood = match (own.load(Relaxed), request.target == "/health") {
                    (SICK, true) => UNAVAILABLE,
                    (_, true) => WELL,
                    (mood, false) => mood,
                };
                match mood {
                    SLOW => {
                        std::thread::sleep(SLOW_TIME);
                        conn.write(reply(200, "yes"))?;
                    }
                    UNAVAILABLE => conn.write(reply(503, "no"))?,
                    RESETS => return conn.reset(),
                    HANGS => conn.hang(SOON),
                    SOMETIMES if count.fetch_add(1, Relaxed).is_multiple_of(3) => {
                        conn.write(reply(503, "no"))?;
                    }
                    _ => conn.write(reply(200, "yes"))?,
                }
                if request.headers.has_token("connection", "close") {
                    break;
                }
            }
            Ok(())
        });
        Self {
            origin: origin.expect("it listens"),
            mood,
        }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    fn set(&self, mood: u8) {
        self.mood.store(mood, Relaxed);
    }
}

fn moody<const N: usize>() -> ([Moody; N], [SocketAddr; N]) {
    let servers: [Moody; N] = std::array::from_fn(|_| Moody::start());
    let addresses = servers.each_ref().map(Moody::address);
    (servers, addresses)
}

/// A load that takes failures as they come.
fn any(evenkeel: &Evenkeel) -> Load {
    Load::to(web(evenkeel)).clients(8).check(|_| Ok(())).start()
}

fn cause(evenkeel: &Evenkeel, address: SocketAddr) -> String {
    server(evenkeel, "site", &address.to_string())["cause"]
        .as_str()
        .expect("a cause")
        .to_owned()
}

fn effective_weight(evenkeel: &Evenkeel, address: SocketAddr) -> f64 {
    server(evenkeel, "site", &address.to_string())["effective_weight"]
        .as_f64()
        .expect("a weight")
}

const QUICK: &str = "retries: off, timeouts: { first_byte: 500ms }, outlier_detection: { interval: 1s, ejection_time: 2s }";

/// A server with this mood is ejected under load, with this cause, and comes back once it is well.
fn check_ejected(mood: u8, why: &str) {
    let (servers, addresses) = moody::<3>();
    let mut evenkeel = start(&site(&addresses, QUICK));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = any(&evenkeel);
    load.wait_ok(200, SOON).expect("traffic");
    let mark = evenkeel.mark();
    servers[1].set(mood);
    let line = evenkeel
        .wait_log_after(mark, "server is ejected", SOON)
        .expect("it is out");
    assert!(line.contains(why) && line.contains("back in 2 s"), "{line}");
    servers[1].set(WELL);
    wait_health(&evenkeel, addresses[1], "healthy");
    let before = picks(&evenkeel, addresses[1]);
    wait_until("its traffic returns", SOON, || {
        picks(&evenkeel, addresses[1]) > before + 50
    })
    .expect("its traffic returns");
    let total = metric(
        &evenkeel,
        "evenkeel_ejections_total{pool=\"site\",cause=\"gateway_errors\"}",
    );
    assert!(total >= 1.0, "{total}");
    load.stop();
}

#[test]
fn a_server_that_answers_503_is_ejected_and_returns() {
    check_ejected(UNAVAILABLE, "5 gateway errors in a row, last: 503");
}

#[test]
fn a_server_that_resets_is_ejected_and_returns() {
    check_ejected(RESETS, "5 gateway errors in a row, last: connection");
}

#[test]
fn a_server_that_hangs_is_ejected_and_returns() {
    check_ejected(HANGS, "5 gateway errors in a row, last: timeout");
}

#[test]
fn while_ejected_no_client_sees_the_server() {
    let (servers, addresses) = moody::<3>();
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    servers[0].set(UNAVAILABLE);
    let load = any(&evenkeel);
    wait_health(&evenkeel, addresses[0], "ejected");
    let why = cause(&evenkeel, addresses[0]);
    assert!(
        why.starts_with("5 gateway errors in a row, last: 503; back in "),
        "{why}"
    );
    load.stop();
    let strict = Load::to(web(&evenkeel)).clients(8).start();
    strict.wait_ok(500, SOON).expect("the others serve");
    strict.stop().assert_none_failed();
}

#[test]
fn a_server_that_sometimes_fails_gets_less_and_recovers() {
    let (servers, addresses) = moody::<3>();
    let settings = "balance: round_robin, outlier_detection: { interval: 1s, consecutive_gateway_errors: off, success_rate: off, latency: off }";
    let evenkeel = start(&site(&addresses, settings));
    wait_all(&evenkeel, &addresses, "healthy");
    servers[2].set(SOMETIMES);
    let load = any(&evenkeel);
    wait_until("it gets a third of its share or less", SOON, || {
        effective_weight(&evenkeel, addresses[2]) <= 0.33
    })
    .unwrap_or_else(|error| panic!("{error}: {}", cause(&evenkeel, addresses[2])));
    assert!(cause(&evenkeel, addresses[2]).contains("% of requests failed"));
    let counted = || addresses.map(|address| picks(&evenkeel, address));
    let before = counted();
    load.wait_ok(1000, SOON).expect("traffic");
    let after = counted();
    let more: Vec<_> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    assert!(more[2] * 2 < more[0] && more[2] > 0, "{more:?}");
    servers[2].set(WELL);
    wait_health(&evenkeel, addresses[2], "healthy");
    let full = effective_weight(&evenkeel, addresses[2]);
    assert!((full - 1.0).abs() < f64::EPSILON, "{full}");
    load.stop();
}

#[test]
fn a_slow_server_gets_less_and_is_never_ejected() {
    let (servers, addresses) = moody::<3>();
    let settings =
        "balance: round_robin, outlier_detection: { interval: 2s, latency: { min_requests: 10 } }";
    let evenkeel = start(&site(&addresses, settings));
    wait_all(&evenkeel, &addresses, "healthy");
    servers[1].set(SLOW);
    let load = Load::to(web(&evenkeel)).clients(16).start();
    wait_until("it gets half of its share or less", SOON, || {
        effective_weight(&evenkeel, addresses[1]) <= 0.5
    })
    .unwrap_or_else(|error| panic!("{error}: {}", cause(&evenkeel, addresses[1])));
    let why = cause(&evenkeel, addresses[1]);
    assert!(why.starts_with("answers in "), "{why}");
    assert_eq!(
        server(&evenkeel, "site", &addresses[1].to_string())["health"],
        "degraded"
    );
    load.stop().assert_none_failed();
}

#[test]
fn below_the_panic_threshold_those_that_fail_their_checks_serve_too() {
    let (servers, addresses) = moody::<4>();
    let settings = "panic_threshold: 50%";
    let mut evenkeel = start(&site(&addresses, settings));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(8).start();
    load.wait_ok(100, SOON).expect("traffic");
    let mark = evenkeel.mark();
    servers[1..].iter().for_each(|it| it.set(SICK));
    evenkeel
        .wait_log_after(mark, "those that still answer", SOON)
        .expect("the log says so");
    let panic = "evenkeel_pool_panic{pool=\"site\"}";
    assert_metric(&evenkeel, panic, 1.0);
    wait_all(&evenkeel, &addresses[1..], "unhealthy");
    let counted = || addresses.map(|address| picks(&evenkeel, address));
    let before = counted();
    wait_until("each of them serves", SOON, || {
        let now = counted();
        now.iter()
            .zip(before)
            .all(|(now, before)| *now > before + 20)
    })
    .expect("each of them serves");
    servers.iter().for_each(|it| it.set(WELL));
    wait_all(&evenkeel, &addresses, "healthy");
    wait_until("the panic ends", SOON, || metric(&evenkeel, panic) == 0.0).expect("the panic ends");
    load.stop().assert_none_failed();
}

#[test]
fn of_two_the_last_is_never_ejected_and_of_four_half_stay() {
    for count in [2, 4] {
        let (servers, all) = moody::<4>();
        let addresses = &all[..count];
        let evenkeel = start(&site(addresses, "outlier_detection: { success_rate: off }"));
        wait_all(&evenkeel, addresses, "healthy");
        servers.iter().for_each(|it| it.set(UNAVAILABLE));
        let load = any(&evenkeel);
        let ejected = || {
            let health = |it: &&SocketAddr| {
                server(&evenkeel, "site", &it.to_string())["health"] == "ejected"
            };
            addresses.iter().filter(health).count()
        };
        wait_until("half are ejected", SOON, || ejected() == count / 2).expect("half are ejected");
        load.wait_ok(500, SOON).expect("answers");
        load.stop();
        assert_eq!(ejected(), count / 2);
        // What the servers say reaches the client: the pool is not empty.
        let answer = connect(web(&evenkeel)).get("/").expect("an answer");
        assert_eq!(answer.header("x-evenkeel-reason"), None, "{answer}");
    }
}

#[test]
fn without_probes_a_dead_server_is_left_out_and_tried_again() {
    let (mut servers, addresses) = moody::<2>();
    let settings = "health_check: off, outlier_detection: { interval: 1s, ejection_time: 10s }";
    let evenkeel = start(&site(&addresses, settings));
    let load = Load::to(web(&evenkeel)).clients(4).start();
    load.wait_ok(100, SOON).expect("traffic");
    servers[0].origin.stop();
    wait_health(&evenkeel, addresses[0], "ejected");
    load.wait_ok(200, SOON).expect("the other serves");
    load.stop().assert_none_failed();
}

#[test]
fn an_operator_or_a_reload_ends_an_ejection() {
    let (servers, addresses) = moody::<2>();
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    servers[0].set(UNAVAILABLE);
    let load = any(&evenkeel);
    wait_health(&evenkeel, addresses[0], "ejected");
    load.stop();
    servers[0].set(WELL);
    reload(&evenkeel, &site(&addresses, "retries: off"));
    assert_eq!(
        server(&evenkeel, "site", &addresses[0].to_string())["health"],
        "ejected"
    );
    let name = addresses[0].to_string();
    let enabled = crate::life_support::ask(&evenkeel, &["server", "enable", "site", &name]);
    assert_eq!(enabled.code, Some(0), "{}", enabled.stderr);
    wait_health(&evenkeel, addresses[0], "healthy");

    servers[1].set(UNAVAILABLE);
    let load = any(&evenkeel);
    wait_health(&evenkeel, addresses[1], "ejected");
    load.stop();
    reload(&evenkeel, &site(&addresses, "outlier_detection: off"));
    wait_health(&evenkeel, addresses[1], "healthy");
}

/// What counts is off; that nobody is there is known all the same, before a probe comes.
#[test]
fn a_dead_server_is_left_out_at_once_though_traffic_is_not_judged() {
    for settings in [
        "outlier_detection: off, health_check: { tcp: { interval: 60s, healthy_threshold: 1 } }",
        "outlier_detection: off, health_check: off",
    ] {
        let (mut servers, addresses) = moody::<3>();
        let evenkeel = start(&site(&addresses, settings));
        wait_all(&evenkeel, &addresses, "healthy");
        // Failures are not counted.
        servers[1].set(UNAVAILABLE);
        let unjudged = any(&evenkeel);
        unjudged.wait_ok(100, SOON).expect("answers");
        unjudged.stop();
        servers[1].set(WELL);
        assert_eq!(
            server(&evenkeel, "site", &addresses[1].to_string())["health"],
            "healthy"
        );
        let load = Load::to(web(&evenkeel)).clients(4).start();
        servers[0].origin.stop();
        let name = addresses[0].to_string();
        wait_until("it is out", SOON, || {
            let health = server(&evenkeel, "site", &name)["health"].to_string();
            health.contains("unhealthy") || health.contains("ejected")
        })
        .expect("it is out");
        let cause = cause(&evenkeel, addresses[0]);
        assert!(cause.starts_with("connection refused"), "{cause}");
        load.wait_ok(200, SOON).expect("the others serve");
        load.stop().assert_none_failed();
    }
}
