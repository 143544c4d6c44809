//! What operators do in a day: reloads, upgrades, deploys, the end.

use super::stage::{CLIENTS, SOON, Trial, addresses, config, nginxes};
use super::{Outcome, Scenario, Stage};
use crate::{Foreign, Load, Signal};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reload",
        fault: "reloads in a row, by SIGHUP and by `evenkeel reload`, each with servers that come and go or another algorithm",
        promise: "nothing is lost, no connection of a client is closed",
        programs: &["nginx"],
        own_network: false,
        run: reload,
    },
    Scenario {
        name: "upgrade",
        fault: "upgrades in place in a row, by SIGUSR2 and by `evenkeel upgrade`",
        promise: "nothing is lost; a client is told `Connection: close` with an answer and connects anew",
        programs: &["nginx"],
        own_network: false,
        run: upgrade,
    },
    Scenario {
        name: "deploy",
        fault: "rolling deploy: each server in turn drained, stopped, started and enabled",
        promise: "nothing is lost, nothing is tried twice, no connection of a client is closed; each drain's receipt says 0 new picks and nothing cut",
        programs: &["nginx"],
        own_network: false,
        run: deploy,
    },
    Scenario {
        name: "terminate",
        fault: "SIGTERM of the balancer under load",
        promise: "what was accepted is answered; each client is told `Connection: close`; exit 0",
        programs: &["nginx"],
        own_network: false,
        run: terminate,
    },
];

fn reload(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b", "c"])?;
    let all = addresses(&servers);
    let mut site = stage.start_site(&all, "")?;
    let trial = Trial::start(&site)?;
    let turns = stage.pick(10, 100);
    for turn in 0..turns {
        trial.load.wait_ok(stage.pick(50, 1000), SOON)?;
        site.evenkeel.write_config(&changed(turn, &all))?;
        if turn.is_multiple_of(2) {
            site.ask(&["reload"])?;
        } else {
            let mark = site.evenkeel.mark();
            site.evenkeel.signal(Signal::HUP)?;
            site.evenkeel.wait_log_after(mark, "reloaded: ", SOON)?;
        }
    }
    trial.traffic(stage)?;
    let outcome = trial.end(&site, format!("{turns} reloads"))?;
    Ok(outcome.kept(CLIENTS))
}

/// Never the same twice in a row: two of the three servers stay, the algorithm changes.
fn changed(turn: usize, all: &[SocketAddr]) -> String {
    let gone = turn % (all.len() + 1);
    let left = all.iter().enumerate().filter(|(at, _)| *at != gone);
    let left: Vec<SocketAddr> = left.map(|(_, address)| *address).collect();
    let balance = [
        "round_robin",
        "least_connections",
        "random",
        "peak_ewma",
        "maglev",
    ];
    let balance = balance[turn % balance.len()];
    config(&left, "", &format!("balance: {balance},"))
}

fn upgrade(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b"])?;
    let mut site = stage.start_site(&addresses(&servers), "")?;
    let trial = Trial::start(&site)?;
    let turns = stage.pick(3, 10);
    let mut newest: Vec<Foreign> = Vec::new();
    for turn in 0..turns {
        trial.traffic(stage)?;
        let mark = site.evenkeel.mark();
        match newest.last() {
            _ if turn % 2 == 0 => drop(site.ask(&["upgrade"])?),
            Some(newest) => newest.signal(Signal::USR2)?,
            None => site.evenkeel.signal(Signal::USR2)?,
        }
        let line = site
            .evenkeel
            .wait_log_after(mark, "this one drains", SOON)?;
        newest.push(Foreign::new(successor(&line)?)?);
        let drained = "the process before this one has drained";
        site.evenkeel.wait_log_after(mark, drained, SOON)?;
    }
    trial.traffic(stage)?;
    trial.end(&site, format!("{turns} upgrades"))
}

/// The process that a log line names.
fn successor(line: &str) -> Result<u32> {
    let rest = line.split_once("\"pid\":").map(|(_, rest)| rest);
    let digits = rest.and_then(|rest| rest.split([',', '}']).next());
    let pid = digits.and_then(|digits| digits.trim().parse().ok());
    pid.with_context(|| format!("no process in {line}"))
}

fn deploy(stage: &Stage) -> Result<Outcome> {
    let mut servers = nginxes(["a", "b", "c"])?;
    let site = stage.start_site(&addresses(&servers), "")?;
    let mut trial = Trial::start(&site)?;
    let turns = stage.pick(3, 15);
    for turn in 0..turns {
        let server = &mut servers[turn % 3];
        let name = server.address().to_string();
        trial.traffic(stage)?;
        let drained = site
            .ask(&["server", "drain", "site", &name, "--json"])?
            .text();
        let receipt: String = drained.split_whitespace().collect();
        let clean = receipt.contains("\"new_picks\":0,") && receipt.contains("\"cut\":[]");
        trial.promise(clean, || format!("a drain's receipt: {drained}"));
        server.process().signal(Signal::TERM)?;
        server.process().wait_exit(SOON)?;
        server.restart()?;
        site.ask(&["server", "enable", "site", &name])?;
        site.wait_usable(server.address(), true)?;
    }
    trial.traffic(stage)?;
    let mut outcome = trial.end(&site, format!("{turns} servers replaced"))?;
    let retried = outcome.retried;
    outcome.promise(retried == 0, || {
        format!("{retried} requests met a stopped server")
    });
    Ok(outcome.kept(CLIENTS))
}

fn terminate(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a", "b"])?;
    let turns = stage.pick(1, 5);
    let mut total: Option<Outcome> = None;
    for _ in 0..turns {
        let mut site = stage.start_site(&addresses(&servers), "")?;
        let plan = Load::to(site.web()?).clients(CLIENTS * 4).end_at_close();
        let trial = Trial::with(plan, &[]);
        trial.traffic(stage)?;
        let retried = site.metric("evenkeel_retries_total")? as u64;
        site.evenkeel.signal(Signal::TERM)?;
        let status = site.evenkeel.wait_exit(SOON)?;
        ensure!(status.code() == Some(0), "{status}{}", site.evenkeel.log());
        site.evenkeel.wait_log("stopped: 0 requests cut", SOON)?;
        trial.load.wait_clients_ended(Duration::from_secs(5))?;
        let outcome = trial.end_with(retried, format!("{turns} times"));
        match &mut total {
            None => total = Some(outcome),
            Some(total) => total.add(outcome),
        }
    }
    total.context("no turn")
}
