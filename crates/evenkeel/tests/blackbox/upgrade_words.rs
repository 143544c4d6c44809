//! What is said of servers to the new process of an upgrade holds for the old one, too, while that drains.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use testkit::{Evenkeel, Foreign, Origin, Raw, Signal, missing, reply, wait_until};

use crate::life_support::{SOON, ask, connect, list, metric, reload, server, start, wait_all, web};
use crate::upgrade::{own_binary, put, upgrade};
use crate::upgrade_carried::{drain, receipt};

/// A server that says its name; whoever asks for `/slow` waits until the gate is gone.
fn origin(name: &'static str) -> (Origin, Sender<()>) {
    let (gate, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::http(move |request| {
        if request.target == "/slow" {
            wait.lock().expect("one at a time").recv_timeout(SOON).ok();
        }
        reply(200, name)
    });
    (origin.expect("an origin"), gate)
}

/// An upgrade whose old process holds two requests at each server and six connections that wait for a next one.
struct Stage {
    evenkeel: Evenkeel,
    origins: Vec<Origin>,
    gates: Vec<Sender<()>>,
    slow: Vec<Raw>,
    idle: Vec<Raw>,
    _next: Foreign,
}

fn config(servers: &[SocketAddr]) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
shutdown: {{ idle_wait: 40s, timeout: 60s }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site: {{ balance: round_robin, servers: {} }}
",
        list(servers)
    )
}

impl Stage {
    fn set() -> Self {
        Self::upgraded_to(config)
    }

    /// The new process finds another config than the old one had.
    fn upgraded_to(next: impl Fn(&[SocketAddr]) -> String) -> Self {
        let (origins, gates): (Vec<_>, Vec<_>) = ["a", "b", "c"].map(origin).into_iter().unzip();
        let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
        let mut evenkeel = start(&config(&addresses));
        wait_all(&evenkeel, &addresses, "healthy");
        let clients = || (0..6).map(|_| connect(web(&evenkeel))).collect();
        let (mut slow, mut idle): (Vec<Raw>, Vec<Raw>) = (clients(), clients());
        for client in &mut slow {
            let request = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
            client.send(request).expect("sent");
        }
        wait_until("they are there", SOON, || {
            let count = |it: &Origin| it.seen().iter().filter(|it| it.target == "/slow").count();
            origins.iter().all(|origin| count(origin) == 2)
        })
        .expect("they are there");
        for client in &mut idle {
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
        evenkeel.write_config(&next(&addresses)).expect("written");
        let next = upgrade(&mut evenkeel, &[]);
        Self {
            evenkeel,
            origins,
            gates,
            slow,
            idle,
            _next: next,
        }
    }

    fn first(&self) -> String {
        self.origins[0].address().to_string()
    }

    /// Lets `/slow` be answered.
    fn answer(&mut self) {
        self.gates.clear();
        for client in &mut self.slow {
            assert_eq!(client.response().expect("an answer").status, 200);
        }
    }

    /// Who answers the next request of each connection that the old process holds.
    fn served(&mut self) -> Vec<String> {
        let next = |client: &mut Raw| {
            let answer = client.get("/").expect("an answer");
            assert_eq!(answer.status, 200, "{answer}");
            answer.text()
        };
        self.idle.iter_mut().map(next).collect()
    }

    /// The old process sends nothing to the first server, though that would answer.
    fn assert_spared(&mut self) {
        let served = self.served();
        assert!(!served.contains(&"a".to_owned()), "{served:?}");
    }
}

#[test]
fn a_drain_waits_for_what_the_old_process_holds() {
    let mut stage = Stage::set();
    let command = drain(&stage.evenkeel, &stage.first(), "50s");
    wait_until("both have heard of it", SOON, || {
        stage.evenkeel.log().matches("operator: drain").count() == 2
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", stage.evenkeel.log()));
    assert!(!command.is_finished());
    let shown = server(&stage.evenkeel, "site", &stage.first());
    assert_eq!(shown["active"], 2, "{shown}");
    let held = metric(&stage.evenkeel, "evenkeel_active_connections{");
    assert!(held > 5.0, "{held}");
    stage.answer();
    let receipt = receipt(command);
    assert_eq!(
        (&receipt["new_picks"], &receipt["finished"]),
        (&0.into(), &2.into()),
        "{receipt}"
    );
    stage.assert_spared();
}

#[test]
fn what_the_old_process_holds_is_cut_at_the_deadline_and_told() {
    let stage = Stage::set();
    let command = drain(&stage.evenkeel, &stage.first(), "1s");
    let receipt = receipt(command);
    assert_eq!(receipt["cut"][0]["count"], 2, "{receipt}");
    assert_eq!(receipt["finished"], 0, "{receipt}");
}

fn say(stage: &Stage, what: &[&str]) {
    let args = [&["server"], what].concat();
    let finished = ask(&stage.evenkeel, &args);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn the_old_process_obeys_disable_and_enable() {
    let mut stage = Stage::set();
    let first = stage.first();
    say(&stage, &["disable", "site", &first]);
    let rest = stage.idle.split_off(3);
    stage.assert_spared();
    say(&stage, &["enable", "site", &first]);
    stage.idle = rest;
    let served = stage.served();
    assert!(served.contains(&"a".to_owned()), "{served:?}");
    stage.answer();
}

#[test]
fn the_old_process_obeys_a_weight() {
    let mut stage = Stage::set();
    let first = stage.first();
    say(&stage, &["weight", "site", &first, "0"]);
    stage.assert_spared();
    stage.answer();
}

#[test]
fn the_old_process_lets_go_of_what_a_reload_removes() {
    let mut stage = Stage::set();
    let left: Vec<_> = stage.origins.iter().skip(1).map(Origin::address).collect();
    reload(&stage.evenkeel, &config(&left));
    stage.assert_spared();
    stage.answer();
}

#[test]
fn the_old_process_lets_go_of_what_the_config_of_the_upgrade_drops() {
    let mut stage = Stage::upgraded_to(|all| {
        let config = config(&all[1..]);
        config.replace("site: {", "site: { drain: { timeout: 2s },")
    });
    stage.assert_spared();
    wait_until("they are cut", SOON, || {
        let log = stage.evenkeel.log();
        log.matches("\"reason\":\"draining\"").count() == 2
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", stage.evenkeel.log()));
    stage.gates.clear();
    let mut answers: Vec<_> = stage
        .slow
        .iter_mut()
        .map(|client| client.response().expect("an answer").status)
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, [200, 200, 200, 200, 503, 503]);
}

/// It knows no others, and what its clients still ask is to be answered.
#[test]
fn the_old_process_keeps_its_servers_where_the_config_of_the_upgrade_drops_all() {
    let (other, _gate) = origin("d");
    let mut stage = Stage::upgraded_to(|_| config(&[other.address()]));
    let served = stage.served();
    assert!(!served.contains(&"d".to_owned()), "{served:?}");
    stage.answer();
    let mut new = connect(web(&stage.evenkeel));
    assert_eq!(new.get("/").expect("an answer").text(), "d");
}

/// Nothing waits for a process that is gone.
#[test]
fn a_drain_ends_with_the_old_process() {
    let mut stage = Stage::set();
    let command = drain(&stage.evenkeel, &stage.first(), "50s");
    stage.evenkeel.kill();
    let receipt = receipt(command);
    assert_eq!(receipt["cut"].as_array().map(Vec::len), Some(0));
    let held = metric(&stage.evenkeel, "evenkeel_active_connections{");
    assert!(held < 1.0, "{held}");
}

/// Takes what is known, and then neither serves nor ends.
const HALF_WAY: &str = r#"#!/usr/bin/env python3
import json, os, socket, struct, time

old = socket.socket(fileno=0)

def read(count):
    data = b""
    while len(data) < count:
        data += old.recv(count - len(data)) or os._exit(1)
    return data

def hear():
    return json.loads(read(struct.unpack(">I", read(4))[0]))

hello = hear()
left = sum(it["count"] for it in hello["sockets"]) + bool(hello["admin"])
while left > 0:
    for _, _, sockets in old.recvmsg(1, socket.CMSG_SPACE(64 * 4))[1]:
        left -= len(sockets) // 4
prepared = json.dumps({"stage": "prepared"}).encode()
old.sendall(struct.pack(">I", len(prepared)) + prepared)
hear()
with open("TOLD.new", "w") as told:
    told.write(str(os.getpid()))
os.rename("TOLD.new", "TOLD")
time.sleep(60)
"#;

#[test]
fn what_the_new_process_would_not_hear_of_is_refused() {
    if missing("python3") {
        return;
    }
    let (origin, _gate) = origin("a");
    let dir = testkit::TempDir::new("half-way").expect("a folder");
    let binary = own_binary(dir.path());
    let config = config(&[origin.address()]);
    let evenkeel = Evenkeel::start(&binary, &config).expect("evenkeel starts");
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let told = dir.path().join("told");
    put(
        &binary,
        &HALF_WAY.replace("TOLD", &told.display().to_string()),
    );
    let name = origin.address().to_string();
    let weigh = || ask(&evenkeel, &["server", "weight", "site", &name, "7"]);
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| ask(&evenkeel, &["upgrade"]));
        wait_until("it is told", SOON, || told.exists()).expect("it is told");
        let refused = weigh();
        assert_ne!(refused.code, Some(0), "{}", refused.text());
        let why = "an upgrade is under way";
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        let pid = std::fs::read_to_string(&told).expect("a pid");
        let process = Foreign::new(pid.parse().expect("a pid")).expect("it runs");
        process.signal(Signal::KILL).expect("a signal");
        assert_eq!(upgrade.join().expect("a thread").code, Some(1));
    });
    assert_eq!(weigh().code, Some(0));
}
