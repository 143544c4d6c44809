//! What the new process of an upgrade knows of servers besides their probes: what traffic showed, what was counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Evenkeel, Finished, Foreign, Load, Origin, Raw, reply, wait_until};

use crate::affinity::{Browser, config, origins};
use crate::command::evenkeel_in;
use crate::life_support::{
    SOON, admin_get, connect, list, metric, picks, server, site, start, wait_all, wait_health, web,
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
    let mut gone = [moody(&well), moody(&well)];
    let config = site(&[origin.address()], "").replace(
        "web: {",
        "lost: { bind: '127.0.0.1:0', pool: lost }\n  web: {",
    );
    let lost = format!(
        "  lost: {{ servers: {}, health_check: off }}\n",
        list(&gone.each_ref().map(Origin::address))
    );
    gone.iter_mut().for_each(Origin::stop);
    let mut evenkeel = start(&(config + &lost));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    for listener in ["web", "lost", "lost"] {
        let address = evenkeel.address(listener).expect("an address");
        connect(address).get("/").expect("an answer");
    }
    let numbers = |evenkeel: &Evenkeel| {
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
    // Accepted, requested and failed, each twice; the first one, at least, had another server to be tried at.
    wait_until("all are counted", SOON, || {
        let numbers = numbers(&evenkeel);
        let retried = numbers.last().and_then(Value::as_u64).unwrap_or_default();
        numbers.iter().filter(|it| **it == 2).count() >= 3 && retried >= 1
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", numbers(&evenkeel)));
    let before = numbers(&evenkeel);
    let _newest = upgrade(&mut evenkeel, &[]);
    assert_eq!(numbers(&evenkeel), before);
}

/// The command, in the background, once the server drains.
pub(crate) fn drain(evenkeel: &Evenkeel, name: &str, timeout: &str) -> JoinHandle<Finished> {
    let url = evenkeel.admin_url().expect("an address");
    let folder = evenkeel.dir().path().to_owned();
    let (server_name, timeout) = (name.to_owned(), timeout.to_owned());
    let command = std::thread::spawn(move || {
        let what = ["server", "drain", "site", &server_name, "--json"];
        let how = ["--timeout", &timeout, "--admin", &url];
        evenkeel_in(&folder, &[&what[..], &how].concat())
    });
    wait_until("it drains", SOON, || {
        server(evenkeel, "site", name)["state"] == "drain"
    })
    .expect("it drains");
    command
}

/// What it printed; it fails if anything was cut.
pub(crate) fn receipt(command: JoinHandle<Finished>) -> Value {
    let finished = command.join().expect("a thread");
    let (text, errors) = (finished.text(), finished.stderr);
    let receipt: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
    let is_cut = receipt["cut"].as_array().is_none_or(|cut| !cut.is_empty());
    assert_eq!(finished.code, Some(i32::from(is_cut)), "{text}{errors}");
    receipt
}

#[test]
fn a_drain_goes_on_to_its_deadline_and_its_command_waits_for_it() {
    let [a, b] = origins(["a", "b"]);
    let servers = [("a", a.address(), ""), ("b", b.address(), "")];
    let mut evenkeel = start(&config("affinity: { cookie: S }", &servers));
    let mut browser = Browser::new(web(&evenkeel));
    let home = browser.server("/");
    let jar = browser.jar.clone();
    let command = drain(&evenkeel, &home, "6s");
    assert_eq!(browser.server("/"), home, "its clients stay until it ends");
    let mark = evenkeel.mark();
    let _next = upgrade(&mut evenkeel, &[]);
    browser.reconnect();
    assert_eq!(browser.server("/"), home, "and in the next process");
    // Somebody comes again and again: it ends in the last quarter of its time, when nobody is let in any more.
    let (mut asked, mut serving) = (Instant::now(), home.clone());
    wait_until("the drain ends", SOON, || {
        if asked.elapsed() > Duration::from_millis(300) {
            asked = Instant::now();
            serving = browser.server("/");
        }
        serving != home
    })
    .expect("an end");
    let receipt = receipt(command);
    let number = |key: &str| receipt[key].as_u64().unwrap_or_default();
    assert_eq!(number("new_picks"), 0, "{receipt}");
    assert!(number("affinity_picks") > 2, "{receipt}");
    assert!((4500..12_000).contains(&number("took_ms")), "{receipt}");
    // That it is over is known to the one after that.
    evenkeel
        .wait_log_after(mark, "the process before this one has drained", SOON)
        .expect("a line");
    let _last = upgrade(&mut evenkeel, &[]);
    let mut late = Browser::new(web(&evenkeel));
    late.jar = jar;
    assert_ne!(late.server("/"), home);
}

/// A server that holds three requests; a drain of it is under way, and an upgrade has come.
struct Held {
    evenkeel: Evenkeel,
    _next: Foreign,
    slow: Origin,
    _other: Origin,
    /// Each word lets one of them be answered.
    go: Sender<()>,
    clients: Vec<Raw>,
    command: JoinHandle<Finished>,
}

impl Held {
    fn set(timeout: &str) -> Self {
        Self::upgraded_to(timeout, |all| site(all, "balance: round_robin"))
    }

    /// The new process finds another config than the old one had.
    fn upgraded_to(timeout: &str, next: impl Fn(&[SocketAddr]) -> String) -> Self {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let slow = Origin::http(move |request| {
            if request.target == "/slow" {
                let wait = wait.lock().expect("one at a time");
                wait.recv_timeout(SOON).ok();
            }
            reply(200, "here")
        });
        let (slow, other) = (slow.expect("an origin"), moody(&Arc::default()));
        let addresses = [slow.address(), other.address()];
        let mut evenkeel = start(&site(&addresses, "balance: round_robin"));
        wait_all(&evenkeel, &addresses, "healthy");
        let mut clients: Vec<_> = (0..6).map(|_| connect(web(&evenkeel))).collect();
        for client in &mut clients {
            client
                .send("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                .expect("sent");
        }
        wait_until("they are there", SOON, || {
            let seen = slow.seen();
            seen.iter().filter(|it| it.target == "/slow").count() == 3
        })
        .expect("they are there");
        let command = drain(&evenkeel, &addresses[0].to_string(), timeout);
        // One of them ends before the upgrade.
        go.send(()).expect("sent");
        let name = addresses[0].to_string();
        wait_until("it has ended", SOON, || {
            server(&evenkeel, "site", &name)["active"] == 2
        })
        .expect("it has ended");
        evenkeel.write_config(&next(&addresses)).expect("written");
        let next = upgrade(&mut evenkeel, &[]);
        Self {
            evenkeel,
            _next: next,
            slow,
            _other: other,
            go,
            clients,
            command,
        }
    }

    fn name(&self) -> String {
        self.slow.address().to_string()
    }

    /// What the command printed. The server dies as soon as that is known: nothing may be lost by it.
    fn receipt(self) -> Value {
        let Self {
            command,
            mut slow,
            clients,
            ..
        } = self;
        let receipt = receipt(command);
        slow.stop();
        for mut client in clients {
            assert_eq!(client.response().expect("an answer").status, 200);
        }
        receipt
    }
}

#[test]
fn a_drain_ends_when_the_old_process_holds_nothing_either_and_the_receipt_is_of_both() {
    let held = Held::set("60s");
    let name = held.name();
    // The new process knows of it, and has nothing of its own.
    wait_until("the old one is counted", SOON, || {
        server(&held.evenkeel, "site", &name)["active"] == 2
    })
    .expect("the old one is counted");
    assert!(!held.command.is_finished(), "the old process holds two");
    held.go.send(()).expect("sent");
    wait_until("one has ended", SOON, || {
        server(&held.evenkeel, "site", &name)["active"] == 1
    })
    .expect("one has ended");
    assert!(!held.command.is_finished(), "the old process holds one");
    held.go.send(()).expect("sent");
    let receipt = held.receipt();
    let whole = serde_json::json!({
        "new_picks": 0, "affinity_picks": 0, "finished": 3, "cut": [], "took_ms": receipt["took_ms"]
    });
    assert_eq!(receipt, whole);
}

#[test]
fn a_drain_of_a_server_that_the_new_config_drops_has_its_receipt() {
    let held = Held::upgraded_to("60s", |all| site(&all[1..], "balance: round_robin"));
    let shown = || admin_get(&held.evenkeel, "/api/v1/pools/site/servers");
    assert!(!shown().contains(&held.name()), "{}", shown());
    assert!(!held.command.is_finished(), "the old process holds two");
    for _ in 0..2 {
        held.go.send(()).expect("sent");
    }
    assert_eq!(held.receipt()["finished"], 3);
}

#[test]
fn what_the_old_process_holds_of_a_drain_is_cut_at_its_deadline_and_told() {
    let held = Held::set("6s");
    let receipt = receipt(held.command);
    assert_eq!(
        (&receipt["finished"], &receipt["cut"][0]["count"]),
        (&1.into(), &2.into()),
        "{receipt}"
    );
}

#[test]
fn another_command_ends_a_drain_of_both_processes() {
    let mut held = Held::set("60s");
    let enable = ["server", "enable", "site", &held.name()];
    let enabled = crate::life_support::ask(&held.evenkeel, &enable);
    assert_eq!(enabled.code, Some(0), "{}", enabled.stderr);
    let finished = held.command.join().expect("a thread");
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    let receipt: Value = serde_json::from_str(&finished.text()).expect("a receipt");
    assert_eq!(
        (&receipt["finished"], &receipt["left"]),
        (&1.into(), &2.into()),
        "{receipt}"
    );
    for _ in 0..2 {
        held.go.send(()).expect("sent");
    }
    for client in &mut held.clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
}

/// Nobody knows what became of what it held.
#[test]
fn the_receipt_says_that_an_old_process_was_killed() {
    let mut held = Held::set("60s");
    held.evenkeel.kill();
    let receipt = receipt(held.command);
    assert_eq!(
        (&receipt["partial"], &receipt["finished"]),
        (&true.into(), &0.into()),
        "{receipt}"
    );
    let gone = "the process before this one is gone before it has drained";
    held.evenkeel.wait_log(gone, SOON).expect("a line");
}

#[test]
fn the_api_sends_who_waits_for_a_drain_to_the_new_process() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            wait.lock().expect("one at a time").recv_timeout(SOON).ok();
        }
        reply(200, "here")
    });
    let slow = slow.expect("an origin");
    let mut evenkeel = start(&site(&[slow.address()], ""));
    wait_all(&evenkeel, &[slow.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    client
        .send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    wait_until("it is there", SOON, || {
        slow.seen().iter().any(|it| it.target == "/slow")
    })
    .expect("it is there");
    let url = evenkeel.admin_url().expect("an address");
    let admin = url.trim_start_matches("http://").to_owned();
    let ask = |path: &str| {
        let mut asking = connect(admin.parse().expect("an address"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
        );
        asking.send(&head).expect("sent");
        asking
    };
    let path = format!("/api/v1/pools/site/servers/{}/drain", slow.address());
    let mut asking = ask(&path);
    wait_until("it drains", SOON, || {
        server(&evenkeel, "site", &slow.address().to_string())["state"] == "drain"
    })
    .expect("it drains");
    let _next = upgrade(&mut evenkeel, &[]);
    let answer = asking.response().expect("an answer");
    let wait = format!("{path}/wait");
    assert_eq!(
        (
            answer.status,
            answer.header("location"),
            answer.header("connection")
        ),
        (307, Some(&*wait), Some("close")),
        "{answer}"
    );
    let mut asking = ask(&wait);
    go.send(()).expect("sent");
    let answer = asking.response().expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
    let receipt: Value = serde_json::from_str(&answer.text()).expect("a receipt");
    assert_eq!(receipt["finished"], 1, "{receipt}");
    assert_eq!(client.response().expect("an answer").status, 200);
}
