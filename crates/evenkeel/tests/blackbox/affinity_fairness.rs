//! How far affinity bends the balance is shown, and an address that carries too much is told of.

use std::time::Duration;

use serde_json::Value;
use testkit::{Load, Origin, reply, wait_until};

use crate::life_support::{
    SOON, admin_get, admin_write, ask, connect, metric, picks, site, start, wait_all, web,
};

/// Clients are counted in windows of ten seconds.
const A_WINDOW: Duration = Duration::from_secs(40);

fn servers() -> [Origin; 2] {
    [(); 2].map(|()| Origin::http(|_| reply(200, "yes")).expect("an origin"))
}

#[test]
fn one_address_that_carries_a_pool_is_told_of() {
    let servers = servers();
    let addresses = servers.each_ref().map(Origin::address);
    let mut evenkeel = start(&site(&addresses, "affinity: { source: { mode: learn } }"));
    wait_all(&evenkeel, &addresses, "healthy");
    let mark = evenkeel.mark();
    let load = Load::to(web(&evenkeel)).clients(2).start();
    // All of it is on one server, where half is its part.
    wait_until("the balance is bent", SOON, || {
        metric(&evenkeel, "evenkeel_affinity_bend{") > 0.45
    })
    .expect("bent");
    assert!(metric(&evenkeel, "evenkeel_affinity_share{") > 0.9);
    let line = evenkeel
        .wait_log_after(mark, "one address carries", A_WINDOW)
        .expect("a warning");
    for part in ["127.0.0.1", "100 % of the pool", "trusted_proxies"] {
        assert!(line.contains(part), "{line}");
    }
    wait_until("it is shown", SOON, || {
        metric(&evenkeel, "evenkeel_affinity_source_alarm{") == 1.0
    })
    .expect("shown");
    load.stop().assert_none_failed();
    let status = ask(&evenkeel, &["status"]).text();
    for part in [
        "of picks by affinity, which bends the balance by 50 %",
        "has 100 % where 50 % is its part",
        "127.0.0.1 sends 100 %: ALARM",
    ] {
        assert!(status.contains(part), "{status}");
    }
}

#[test]
fn the_share_of_an_address_is_right_however_many_workers_count_it() {
    let servers = servers();
    let addresses = servers.each_ref().map(Origin::address);
    let config = site(&addresses, "affinity: source")
        .replace("pool: site }", "pool: site, trusted_proxies: [127.0.0.1] }");
    let evenkeel = start(&format!("workers: 4\n{config}"));
    wait_all(&evenkeel, &addresses, "healthy");
    let offices = ["192.0.2.1", "192.0.2.2"];
    // In turn, so that both have their connections on all workers.
    let loads: Vec<_> = (0..16)
        .map(|at| {
            Load::to(web(&evenkeel))
                .header("X-Forwarded-For", offices[at % 2])
                .pause(Duration::from_millis(10))
                .start()
        })
        .collect();
    let share = || metric(&evenkeel, "evenkeel_affinity_source_share{");
    wait_until("a window of all workers is over", A_WINDOW, || {
        share() > 0.0
    })
    .expect("a share");
    let found = share();
    assert!((0.42..0.58).contains(&found), "{found}");
    for load in loads {
        load.stop().assert_none_failed();
    }
}

#[test]
fn an_even_pool_is_told_to_be_even_and_nobody_is_counted_where_that_is_off() {
    let servers = servers();
    let addresses = servers.each_ref().map(Origin::address);
    // Clients without a cookie are new each time: round robin deals them out.
    let evenkeel = start(&site(
        &addresses,
        "balance: round_robin, affinity: { app_cookie: SID }",
    ));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(2).start();
    load.wait_ok(200, SOON).expect("traffic");
    let fairness = || {
        let pools: Value = serde_json::from_str(&admin_get(&evenkeel, "/api/v1/pools")).ok()?;
        pools.get(0)?.get("fairness").cloned()
    };
    wait_until("it is looked at", SOON, || fairness().is_some()).expect("fairness");
    let shown = fairness().expect("fairness");
    assert_eq!(shown["by_affinity"], 0.0, "{shown}");
    assert!(shown["bend"].as_f64().expect("a number") < 0.1, "{shown}");
    assert_eq!(shown.get("source"), None, "{shown}");
    load.stop().assert_none_failed();
}

#[test]
fn picks_of_clients_whose_server_drains_count_once() {
    let servers = servers();
    let addresses = servers.each_ref().map(Origin::address);
    let evenkeel = start(&site(&addresses, "affinity: { source: { mode: learn } }"));
    wait_all(&evenkeel, &addresses, "healthy");
    let answer = connect(web(&evenkeel)).exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.expect("an answer").status, 200);
    // Whose server that is, now that its client is known, is to drain until somebody says otherwise.
    let mut bound = addresses.iter().filter(|it| picks(&evenkeel, **it) > 0);
    let home = bound.next().expect("a server that was picked");
    let (path, body) = (
        format!("/api/v1/pools/site/servers/{home}"),
        r#"{"state":"drain"}"#,
    );
    assert_eq!(admin_write(&evenkeel, "PATCH", &path, body).status, 200);
    let load = Load::to(web(&evenkeel)).clients(2).start();
    wait_until("it is looked at", SOON, || {
        metric(&evenkeel, "evenkeel_affinity_share{") > 0.0
    })
    .expect("looked at");
    let share = metric(&evenkeel, "evenkeel_affinity_share{");
    load.stop().assert_none_failed();
    assert!(share > 0.9, "{share}");
}
