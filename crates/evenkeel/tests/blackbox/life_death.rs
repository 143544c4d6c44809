//! Servers that die and hang under load.

use std::time::Duration;

use anyhow::ensure;
use testkit::{Load, Signal, missing, wait_until};

use crate::life_support::{SOON, nginxes, picks, server, site, start, wait_all, wait_health, web};

#[test]
fn a_killed_server_costs_no_request_and_its_traffic_returns() {
    if missing("nginx") {
        return;
    }
    let mut servers = nginxes(["a", "b", "c"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let mut evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");

    let load = Load::to(web(&evenkeel)).clients(16).start();
    load.wait_ok(1000, SOON).expect("traffic");
    let mark = evenkeel.mark();
    servers[1].kill();
    let line = evenkeel.wait_log_after(mark, "server is unhealthy", SOON);
    let line = line.expect("it is out");
    assert!(line.contains("connection refused"), "{line}");
    load.wait_ok(1000, SOON).expect("traffic goes on");

    let before = picks(&evenkeel, addresses[1]);
    servers[1].restart().expect("nginx starts again");
    wait_health(&evenkeel, addresses[1], "healthy");
    wait_until("its traffic returns", SOON, || {
        picks(&evenkeel, addresses[1]) > before + 100
    })
    .expect("its traffic returns");
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 16, "a client's connection was closed");
}

#[test]
fn many_clients_and_two_deaths_one_after_the_other() {
    if missing("nginx") {
        return;
    }
    let mut servers = nginxes(["a", "b", "c"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(48).start();
    for turn in [0, 1] {
        load.wait_ok(1000, SOON).expect("traffic");
        servers[turn].kill();
        wait_health(&evenkeel, addresses[turn], "unhealthy");
    }
    load.wait_ok(1000, SOON).expect("one is enough");
    load.stop().assert_none_failed();
}

#[test]
fn a_server_that_hangs_costs_only_those_that_wait_for_it() {
    if missing("nginx") {
        return;
    }
    let mut servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let settings = "timeouts: { first_byte: 2s }, health_check: { path: /health, interval: 200ms, timeout: 300ms, unhealthy_threshold: 2 }";
    let mut evenkeel = start(&site(&addresses, settings));
    wait_all(&evenkeel, &addresses, "healthy");

    let may_wait = Load::to(web(&evenkeel)).clients(8).check(|answer| {
        let reason = answer.header("x-evenkeel-reason");
        let waited = answer.status == 504 && reason == Some("first_byte_timeout");
        ensure!(answer.status == 200 || waited, "{answer}");
        Ok(())
    });
    let load = may_wait.start();
    load.wait_ok(200, SOON).expect("traffic");
    let mark = evenkeel.mark();
    servers[0].process().signal(Signal::STOP).expect("stopped");
    let line = evenkeel.wait_log_after(mark, "server is unhealthy", SOON);
    let line = line.expect("it is out");
    assert!(line.contains("timeout after 300 ms"), "{line}");

    let strict = Load::to(web(&evenkeel)).clients(8).start();
    strict.wait_ok(500, SOON).expect("the other serves");
    strict.stop().assert_none_failed();
    servers[0]
        .process()
        .signal(Signal::CONT)
        .expect("continued");
    wait_health(&evenkeel, addresses[0], "healthy");
    let before = picks(&evenkeel, addresses[0]);
    wait_until("its traffic returns", SOON, || {
        picks(&evenkeel, addresses[0]) > before + 50
    })
    .expect("its traffic returns");
    let report = load.stop();
    report.assert_none_failed();
    assert!(report.percentile(1.0) < Duration::from_secs(4), "{report}");
    assert_eq!(report.connects, 8, "a 504 does not end the connection");
}

#[test]
fn all_dead_is_a_502_and_the_first_to_return_serves() {
    if missing("nginx") {
        return;
    }
    let mut servers = nginxes(["a", "b"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    servers.iter_mut().for_each(testkit::Nginx::kill);
    let mut client = crate::life_support::connect(web(&evenkeel));
    let answer = client.get("/").expect("an answer");
    assert_eq!(answer.status, 502, "{answer}");
    assert_eq!(answer.header("x-evenkeel-reason"), Some("connect_refused"));
    wait_all(&evenkeel, &addresses, "unhealthy");
    servers[1].restart().expect("nginx starts again");
    let answer = client.get("/").expect("an answer");
    assert_eq!(
        answer.text(),
        "b\n",
        "tried although its probes have not passed yet"
    );
    wait_health(&evenkeel, addresses[1], "healthy");
    let state = server(&evenkeel, "site", &addresses[1].to_string());
    assert_eq!(state.get("cause"), Some(&"passes its probes".into()));
}

#[test]
fn what_may_not_be_sent_twice_is_lost_at_the_moment_of_death_at_most() {
    if missing("nginx") {
        return;
    }
    let mut servers = nginxes(["a", "b", "c"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let posts = |strict: bool| {
        let plan = Load::to(web(&evenkeel))
            .clients(8)
            .request("POST", "/")
            .body("a body");
        plan.check(move |answer| {
            let reason = answer.header("x-evenkeel-reason");
            let lost = !strict && matches!(reason, Some("server_closed" | "server_reset"));
            ensure!(answer.status == 200 || lost, "{answer}");
            Ok(())
        })
        .start()
    };
    let load = posts(false);
    load.wait_ok(500, SOON).expect("traffic");
    servers[1].kill();
    wait_health(&evenkeel, addresses[1], "unhealthy");
    let after = posts(true);
    after.wait_ok(500, SOON).expect("traffic goes on");
    after.stop().assert_none_failed();
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 8);
}

#[test]
fn servers_that_die_and_return_again_and_again() {
    if missing("nginx") {
        return;
    }
    let mut servers = nginxes(["a", "b", "c"]);
    let addresses = servers.each_ref().map(|it| it.address());
    let evenkeel = start(&format!("workers: 4\n{}", site(&addresses, "")));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(12).start();
    for turn in 0..6 {
        let (server, address) = (turn % 3, addresses[turn % 3]);
        load.wait_ok(100, SOON).expect("traffic");
        servers[server].kill();
        wait_health(&evenkeel, address, "unhealthy");
        servers[server].restart().expect("nginx starts again");
        wait_health(&evenkeel, address, "healthy");
    }
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, 12);
}
