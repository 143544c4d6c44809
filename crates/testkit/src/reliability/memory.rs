//! Memory over many requests and many servers that come and go.

use super::stage::{SOON, Trial, nginxes};
use super::{Outcome, Scenario, Stage};
use crate::Load;
use anyhow::Result;
use std::net::SocketAddr;
use std::ops::Range;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "memory",
    fault: "a million requests while 10,000 servers are added and 10,000 removed by reloads",
    promise: "nothing is lost; after a tenth of it resident memory grows by 8 MiB at most",
    programs: &["nginx"],
    own_network: false,
    run: memory,
}];

const GROWTH_MIB_MAX: f64 = 8.0;
const CLIENTS: usize = 32;
/// Servers at a time, and how many of them each reload replaces.
const SERVERS: usize = 500;
const REPLACED: usize = 250;

/// Names of one nginx: each is a server of its own to everybody but it.
fn named(names: Range<usize>, address: SocketAddr) -> String {
    let server = |name| format!("{{ name: s{name}, address: '{address}' }}");
    let servers: Vec<_> = names.map(server).collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site:
    timeouts: {{ keep_alive: 100ms }}
    health_check: {{ tcp: {{ interval: 20s }} }}
    servers: [{}]
",
        servers.join(", ")
    )
}

fn memory(stage: &Stage) -> Result<Outcome> {
    let servers = nginxes(["a"])?;
    let address = servers[0].address();
    let site = stage.start(&named(0..SERVERS, address))?;
    let usable =
        |count: usize| site.wait_metric("evenkeel_server_usable", move |now| now >= count as f64);
    usable(SERVERS)?;
    let trial = Trial::with(Load::to(site.web()?).clients(CLIENTS), &[]);
    let turns = stage.pick(6, 40);
    let requests = stage.pick(20_000, 1_000_000) / turns as u64;
    let (mut before, mut middle) = (0.0, 0.0);
    for turn in 1..=turns {
        trial.load.wait_ok(requests, SOON * 4)?;
        let first = turn * REPLACED;
        site.evenkeel
            .write_config(&named(first..first + SERVERS, address))?;
        site.ask(&["reload"])?;
        usable(SERVERS)?;
        if turn == turns.div_ceil(10) {
            before = site.resident_mib()?;
        }
        if turn == turns.div_ceil(2) {
            middle = site.resident_mib()?;
        }
    }
    trial.load.wait_ok(requests, SOON * 4)?;
    let after = site.resident_mib()?;
    let moved = turns * REPLACED;
    let steps = format!(
        "{moved} added, {moved} removed; {before:.1} → {middle:.1} → {after:.1} MiB, after a tenth, the half and all of it"
    );
    let mut outcome = trial.end(&site, steps)?;
    outcome.promise(after - before <= GROWTH_MIB_MAX, || {
        format!("resident memory grew from {before:.1} to {after:.1} MiB")
    });
    Ok(outcome.kept(CLIENTS))
}
