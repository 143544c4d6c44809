//! Servers that die, hang, answer badly, or are judged badly.

use super::stage::{CLIENTS, FIRST_BYTE, SOON, Trial, addresses, nginxes};
use super::{Outcome, Scenario, Stage};
use crate::{Load, Origin, Signal, reply};
use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill",
        fault: "`kill -9` and restart of each server in turn",
        promise: "nothing is lost: what a dead server had not answered goes to another",
        programs: &["nginx"],
        own_network: false,
        run: kill,
    },
    Scenario {
        name: "kill-post",
        fault: "the same under POST with a body",
        promise: "never sent twice: one that a server took and did not answer is a 502 with its reason, at most one for each client and kill",
        programs: &["nginx"],
        own_network: false,
        run: kill_post,
    },
    Scenario {
        name: "hang",
        fault: "SIGSTOP and SIGCONT of each server in turn",
        promise: "those that wait for the hung server get a 504 after `first_byte` (1 s), at most one for each client and hang; nobody else notices",
        programs: &["nginx"],
        own_network: false,
        run: hang,
    },
    Scenario {
        name: "reset",
        fault: "one server in three resets the connection before 2 % of its answers and in the middle of 2 %",
        promise: "before the first byte: tried elsewhere, nothing lost; after it: cut where the server cut it, since what has begun cannot be taken back",
        programs: &["nginx"],
        own_network: false,
        run: reset,
    },
    Scenario {
        name: "trickle",
        fault: "one server in three sends its answers a byte at a time (64 bytes in 0.6 s)",
        promise: "nothing is lost, nothing is cut",
        programs: &["nginx"],
        own_network: false,
        run: trickle,
    },
    Scenario {
        name: "all-checks-fail",
        fault: "a shared dependency makes the health checks of all servers fail at once, and recovers",
        promise: "a pool is never emptied by its checks: nothing is lost",
        programs: &["nginx"],
        own_network: false,
        run: all_checks_fail,
    },
];

fn kill(stage: &Stage) -> Result<Outcome> {
    let mut servers = nginxes(["a", "b", "c"])?;
    let site = stage.start_site(&addresses(&servers), "")?;
    let trial = Trial::start(&site)?;
    let turns = stage.pick(3, 12);
    for turn in 0..turns {
        let server = &mut servers[turn % 3];
        trial.traffic(stage)?;
        server.kill();
        site.wait_usable(server.address(), false)?;
        trial.traffic(stage)?;
        server.restart()?;
        site.wait_usable(server.address(), true)?;
    }
    trial.traffic(stage)?;
    let outcome = trial.end(&site, format!("{turns} kills and restarts"))?;
    Ok(outcome.kept(CLIENTS))
}

fn kill_post(stage: &Stage) -> Result<Outcome> {
    let mut servers = nginxes(["a", "b", "c"])?;
    let site = stage.start_site(&addresses(&servers), "")?;
    let plan = Load::to(site.web()?)
        .clients(CLIENTS)
        .request("POST", "/")
        .body("a body");
    let trial = Trial::with(plan, &["server_closed", "server_reset"]);
    let turns = stage.pick(3, 12);
    for turn in 0..turns {
        let server = &mut servers[turn % 3];
        trial.traffic(stage)?;
        server.kill();
        site.wait_usable(server.address(), false)?;
        server.restart()?;
        site.wait_usable(server.address(), true)?;
    }
    trial.traffic(stage)?;
    let mut outcome = trial.end(&site, format!("{turns} kills and restarts"))?;
    at_most_one_each(&mut outcome, turns);
    Ok(outcome.kept(CLIENTS))
}

fn at_most_one_each(outcome: &mut Outcome, turns: usize) {
    let (told, most) = (outcome.told, CLIENTS * turns);
    outcome.promise(told <= most as u64, || {
        format!("{told} were told of the fault, more than {most}")
    });
}

fn hang(stage: &Stage) -> Result<Outcome> {
    let mut servers = nginxes(["a", "b", "c"])?;
    let site = stage.start_site(&addresses(&servers), "timeouts: { first_byte: 1s },")?;
    let plan = Load::to(site.web()?).clients(CLIENTS);
    let trial = Trial::with(plan, &["first_byte_timeout"]);
    let turns = stage.pick(1, 6);
    for turn in 0..turns {
        let server = &mut servers[turn % 3];
        trial.traffic(stage)?;
        server.process().signal(Signal::STOP)?;
        site.wait_usable(server.address(), false)?;
        // For those that wait for it to be told.
        std::thread::sleep(FIRST_BYTE + FIRST_BYTE / 2);
        trial.traffic(stage)?;
        server.process().signal(Signal::CONT)?;
        site.wait_usable(server.address(), true)?;
    }
    trial.traffic(stage)?;
    let mut outcome = trial.end(&site, format!("{turns} hangs"))?;
    at_most_one_each(&mut outcome, turns);
    Ok(outcome.kept(CLIENTS).within(Duration::from_secs(4)))
}

/// Of 100 requests, 2 end in a reset before an answer and 2 in the middle of one; gives the
/// server and how many of the latter there were.
fn resetting() -> Result<(Origin, Arc<AtomicU64>)> {
    let (turn, begun) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&begun);
    let server = Origin::start(move |conn| {
        while let Some(request) = conn.read_request()? {
            let turn = match request.target.as_str() {
                "/health" => 1,
                _ => turn.fetch_add(1, Ordering::Relaxed),
            };
            match turn % 50 {
                0 => return conn.reset(),
                25 => {
                    conn.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nand then")?;
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Long enough for the first part to be on its way to the client.
                    std::thread::sleep(Duration::from_millis(50));
                    return conn.reset();
                }
                _ => conn.write(reply(200, "whole"))?,
            }
        }
        Ok(())
    })?;
    Ok((server, begun))
}

fn reset(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b"])?;
    let (bad, begun) = resetting()?;
    let servers: Vec<SocketAddr> = addresses(&servers)
        .into_iter()
        .chain([bad.address()])
        .collect();
    let site = stage.start_site(&servers, "")?;
    let trial = Trial::start(&site)?.admit_cut();
    trial.load.wait_ok(stage.pick(3000, 60_000), SOON * 2)?;
    let mut outcome = trial.end(&site, "")?;
    let begun = begun.load(Ordering::Relaxed);
    outcome.steps = format!("{begun} answers cut by their server");
    let cut = outcome.cut;
    outcome.promise(cut <= begun, || {
        format!("{cut} were cut, but only {begun} by the server")
    });
    Ok(outcome)
}

fn trickle(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b"])?;
    let slow = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            let answer = reply(200, [b'.'; 64]);
            let (head, body) = answer.split_at(answer.len() - 64);
            conn.write(head)?;
            for byte in body.chunks(1) {
                if request.target != "/health" {
                    std::thread::sleep(Duration::from_millis(10));
                }
                conn.write(byte)?;
            }
        }
        Ok(())
    })?;
    let servers: Vec<SocketAddr> = addresses(&servers)
        .into_iter()
        .chain([slow.address()])
        .collect();
    let site = stage.start_site(&servers, "")?;
    let trial = Trial::start(&site)?;
    trial.load.wait_ok(stage.pick(2000, 40_000), SOON * 2)?;
    let outcome = trial.end(&site, format!("{} slow answers", slow.requests()))?;
    Ok(outcome.kept(CLIENTS).within(Duration::from_secs(5)))
}

fn all_checks_fail(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b", "c"])?;
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let dependency = Origin::http(move |_| match is_down.load(Ordering::Relaxed) {
        true => reply(503, "down"),
        false => reply(200, "up"),
    })?;
    let check = format!(
        "health_check: {{ path: /deep, port: {}, interval: 200ms, timeout: 1s, unhealthy_threshold: 2 }},",
        dependency.address().port()
    );
    let servers = addresses(&servers);
    let site = stage.start_site(&servers, &check)?;
    let trial = Trial::start(&site)?;
    let turns = stage.pick(1, 5);
    for _ in 0..turns {
        trial.traffic(stage)?;
        down.store(true, Ordering::Relaxed);
        site.wait_metric("evenkeel_pool_panic", |value| value > 0.0)?;
        trial.traffic(stage)?;
        down.store(false, Ordering::Relaxed);
        site.wait_metric("evenkeel_pool_panic", |value| value < 1.0)?;
    }
    trial.traffic(stage)?;
    let outcome = trial.end(&site, format!("{turns} times all unhealthy"))?;
    Ok(outcome.kept(CLIENTS))
}
