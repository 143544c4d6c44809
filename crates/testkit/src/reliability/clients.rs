//! Clients that mean ill, or are too many.

use super::stage::{CLIENTS, SOON, Trial, addresses, config, nginxes};
use super::{Outcome, Scenario, Stage};
use crate::{Evenkeel, Nginx, Process, Raw, TempDir, wait_until};
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

const SLOW_PROMISE: &str =
    "honest clients beside them lose nothing; 99 of 100 are answered within 1 s";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slow-header",
        fault: "slowloris: `slowhttptest -H`, heads that never end",
        promise: SLOW_PROMISE,
        programs: &["nginx", "slowhttptest"],
        own_network: false,
        run: |stage| slow(stage, &["-H"]),
    },
    Scenario {
        name: "slow-body",
        fault: "`slowhttptest -B`, bodies that never end",
        promise: SLOW_PROMISE,
        programs: &["nginx", "slowhttptest"],
        own_network: false,
        run: |stage| slow(stage, &["-B"]),
    },
    Scenario {
        name: "slow-read",
        fault: "`slowhttptest -X`, 1 MiB answers read 32 bytes a second",
        promise: SLOW_PROMISE,
        programs: &["nginx", "slowhttptest"],
        own_network: false,
        run: |stage| {
            slow(
                stage,
                &["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32"],
            )
        },
    },
    Scenario {
        name: "connections",
        fault: "more clients than the descriptors allow connect and say nothing, and leave",
        promise: "accepting pauses at the default limit and resumes; those that are connected lose nothing",
        programs: &["nginx"],
        own_network: false,
        run: |stage| crowd(stage, "", &[]),
    },
    Scenario {
        name: "descriptors",
        fault: "the same, with `limits.connections` set beyond what the descriptors allow",
        promise: "nothing dies and accepting resumes; a request that finds no descriptor for its server is a 502 or 503 with its reason",
        programs: &["nginx"],
        own_network: false,
        run: |stage| {
            let reasons = &[
                "connect_refused",
                "no_usable_server",
                "server_limit",
                "retry_budget",
            ];
            crowd(stage, "limits: { connections: 100000 },", reasons)
        },
    },
];

fn slow(stage: &Stage, mode: &[&str]) -> Result<Outcome> {
    // nginx reads the whole body before it connects to where this goes.
    let sink = "location = /sink { proxy_pass http://127.0.0.1:9; }";
    let servers = [Nginx::start("a", sink)?, Nginx::start("b", sink)?];
    let site = stage.start_site(&addresses(&servers), "")?;
    let trial = Trial::start(&site)?;
    let count = stage.pick("200", "1000");
    let path = match mode.first() {
        Some(&"-X") => "1m",
        Some(&"-B") => "sink",
        _ => "",
    };
    let url = format!("http://{}/{path}", site.web()?);
    let program = crate::program("slowhttptest").context("slowhttptest is not installed")?;
    let mut command = Command::new(program);
    command
        .args(mode)
        .args(["-c", count, "-r", count, "-i", "1", "-x", "24", "-p", "3"]);
    command.args(["-l", stage.pick("3", "15"), "-u", &url]);
    let dir = TempDir::new("slow")?;
    command.current_dir(dir.path());
    let mut attack = Process::spawn("slowhttptest", command)?;
    let open = site.metric("evenkeel_listener_connections")?;
    let most: f64 = count.parse()?;
    let mut met = open;
    let ended = wait_until("slowhttptest ends", SOON * 3, || {
        met = met.max(site.metric("evenkeel_listener_connections").unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(50));
        !matches!(attack.exit_status(), Ok(None))
    });
    ended?;
    trial.traffic(stage)?;
    let mut outcome = trial.end(&site, format!("{met} connections at once at most"))?;
    let p99 = outcome.p99;
    outcome.promise(p99 < Duration::from_secs(1), || format!("p99 was {p99:?}"));
    outcome.promise(met > most / 2.0, || {
        format!("the attack did not come to pass: {}", attack.log())
    });
    Ok(outcome.kept(CLIENTS))
}

/// Descriptors that the balancer has.
const DESCRIPTORS: u32 = 600;

/// The shell lowers the hard limit, which the process cannot raise again.
fn limited(stage: &Stage, servers: &[Nginx], listener: &str) -> Result<(TempDir, Evenkeel)> {
    let dir = TempDir::new("limit")?;
    let binary = stage.binary.display();
    let script = format!("#!/bin/sh\nulimit -n {DESCRIPTORS} || exit 9\nexec '{binary}' \"$@\"\n");
    let script = dir.write("limited", script)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode)?;
    let evenkeel = Evenkeel::start(&script, &config(&addresses(servers), listener, ""))?;
    Ok((dir, evenkeel))
}

fn crowd(stage: &Stage, listener: &str, reasons: &'static [&'static str]) -> Result<Outcome> {
    let servers = nginxes(["a", "b"])?;
    let (_dir, evenkeel) = limited(stage, &servers, listener)?;
    let site = stage.adopt(evenkeel);
    site.wait_healthy(servers.len())?;
    let web = site.web()?;
    let trial = Trial::with(crate::Load::to(web).clients(CLIENTS), reasons);
    let turns = stage.pick(2, 8);
    for _ in 0..turns {
        trial.traffic(stage)?;
        let crowd = connect_all(web, DESCRIPTORS as usize + 200)?;
        trial.traffic(stage)?;
        drop(crowd);
        wait_until("a newcomer is served", SOON, || {
            Raw::connect(web)
                .and_then(|mut newcomer| newcomer.get("/"))
                .is_ok_and(|answer| answer.status == 200)
        })?;
    }
    trial.traffic(stage)?;
    let paused = site.metric("evenkeel_listener_paused_total")?;
    let mut outcome = trial.end(&site, format!("{turns} crowds, {paused} pauses"))?;
    outcome.promise(paused > 0.0, || "accepting never paused".to_owned());
    Ok(outcome)
}

/// Connections that say nothing; the kernel completes those that nobody accepts.
fn connect_all(web: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| Ok(TcpStream::connect_timeout(&web, SOON)?))
        .collect()
}
