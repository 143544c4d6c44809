//! What the new process of an upgrade knows of servers besides their probes: what traffic showed, what was counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;
use testkit::{Load, Origin, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, connect, metric, picks, server, site, start, wait_all, wait_health, web,
};
use crate::upgrade::upgrade;

/// A server that answers 503 to all but its probes while `ill` is set.
fn moody(ill: &Arc<AtomicBool>) -> Origin {
    let ill = ill.clone();
    Origin::http(move |request| {
        if request.target != "/health" && ill.load(Relaxed) {
            reply(503, "no")
        } else {
            reply(200, "yes")
        }
    })
    .expect("an origin")
}

fn requests(origin: &Origin) -> usize {
    let seen = origin.seen();
    seen.iter().filter(|it| it.target != "/health").count()
}

#[test]
fn who_was_ejected_a_moment_ago_gets_nothing_from_the_next_process() {
    let ill = Arc::new(AtomicBool::new(true));
    let well = Arc::new(AtomicBool::new(false));
    let origins = [moody(&ill), moody(&well), moody(&well)];
    let addresses = origins.each_ref().map(Origin::address);
    let settings = "outlier_detection: { ejection_time: 60s }";
    let mut evenkeel = start(&site(&addresses, settings));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel))
        .clients(8)
        .check(|_| Ok(()))
        .start();
    wait_health(&evenkeel, addresses[0], "ejected");
    load.wait_ok(200, SOON).expect("traffic");
    let before = requests(&origins[0]);
    let name = addresses[0].to_string();
    let left = |text: &str| -> u64 {
        let words = text.split("back in ").nth(1);
        let seconds = words.and_then(|it| it.split(' ').next()?.parse().ok());
        seconds.unwrap_or_else(|| panic!("{text}"))
    };
    let cause = |evenkeel: &_| server(evenkeel, "site", &name)["cause"].to_string();
    let was = left(&cause(&evenkeel));
    let mut newest = Vec::new();
    for _ in 0..2 {
        let mark = evenkeel.mark();
        newest.push(upgrade(&mut evenkeel, &[]));
        wait_health(&evenkeel, addresses[0], "ejected");
        load.wait_ok(500, SOON).expect("traffic");
        evenkeel
            .wait_log_after(mark, "the process before this one has drained", SOON)
            .expect("a line");
    }
    let cause = cause(&evenkeel);
    assert!(cause.contains("in a row, last: 503"), "{cause}");
    assert!((1..=was).contains(&left(&cause)), "{was} s before, {cause}");
    load.stop();
    assert_eq!(requests(&origins[0]), before, "it was sent traffic");
    // The word of an operator brings it back, as ever.
    ill.store(false, Relaxed);
    let enabled = crate::life_support::ask(&evenkeel, &["server", "enable", "site", &name]);
    assert_eq!(enabled.code, Some(0), "{}", enabled.stderr);
    wait_health(&evenkeel, addresses[0], "healthy");
}

#[test]
fn the_picks_of_the_api_go_on() {
    let well = Arc::new(AtomicBool::new(false));
    let origins = [moody(&well), moody(&well)];
    let addresses = origins.each_ref().map(Origin::address);
    let mut evenkeel = start(&site(&addresses, "balance: round_robin"));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(4).start();
    load.wait_ok(200, SOON).expect("traffic");
    let before = addresses.map(|address| picks(&evenkeel, address));
    let mark = evenkeel.mark();
    let _newest = upgrade(&mut evenkeel, &[]);
    for (address, before) in addresses.iter().zip(before) {
        let now = picks(&evenkeel, *address);
        assert!(now >= before, "{address}: {now} after {before}");
    }
    load.wait_ok(200, SOON).expect("traffic");
    let report = load.stop();
    report.assert_none_failed();
    evenkeel
        .wait_log_after(mark, "the process before this one has drained", SOON)
        .expect("a line");
    // Every request of either process is counted once, at the API as in the metrics.
    wait_until("all are counted", SOON, || {
        let all: u64 = addresses
            .map(|address| picks(&evenkeel, address))
            .iter()
            .sum();
        all as f64 == report.ok as f64 && metric(&evenkeel, "evenkeel_picks_total{") == all as f64
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", addresses.map(|it| picks(&evenkeel, it))));
}

#[test]
fn no_total_of_the_api_begins_anew() {
    let well = Arc::new(AtomicBool::new(false));
    let origin = moody(&well);
    let mut gone = moody(&well);
    let config = site(&[origin.address()], "").replace(
        "web: {",
        "lost: { bind: '127.0.0.1:0', pool: lost }\n  web: {",
    );
    let lost = format!(
        "  lost: {{ servers: ['{}'], health_check: off }}\n",
        gone.address()
    );
    gone.stop();
    let mut evenkeel = start(&(config + &lost));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    for listener in ["web", "lost", "lost"] {
        let address = evenkeel.address(listener).expect("an address");
        connect(address).get("/").expect("an answer");
    }
    let numbers = |evenkeel: &testkit::Evenkeel| {
        let of = |path: &str, keys: &[&str]| {
            let text = admin_get(evenkeel, path);
            let all: Vec<Value> = serde_json::from_str(&text).expect(&text);
            let one = |it: &Value| keys.iter().map(|key| it[key].clone()).collect::<Vec<_>>();
            all.iter().flat_map(one).collect::<Vec<_>>()
        };
        [
            of("/api/v1/listeners", &["name", "accepted"]),
            of("/api/v1/routes", &["listener", "requests"]),
            of("/api/v1/pools", &["name", "failed", "retried"]),
        ]
        .concat()
    };
    // Accepted, requested, failed, and tried again, each twice.
    wait_until("all are counted", SOON, || {
        numbers(&evenkeel).iter().filter(|it| **it == 2).count() == 4
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", numbers(&evenkeel)));
    let before = numbers(&evenkeel);
    let _newest = upgrade(&mut evenkeel, &[]);
    assert_eq!(numbers(&evenkeel), before);
}
