//! WebSocket by programs of others: clients and servers of Python's websockets, and of ws from npm.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::{Process, Signal, TempDir, missing, run, script};

use crate::life_support::{SOON, list, start, web};
use crate::tls_support::Authority;

/// Longer than a client takes to send and get some megabytes, beside a CPU hog.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// The ends of the names of their scripts.
const PYTHON: &str = "py";
pub(crate) const NODE: &str = "js";

fn missing_any() -> bool {
    missing("websockets") || missing("ws")
}

pub(crate) fn server(of: &str, name: &str) -> Server {
    let mut command = script(&format!("ws_server.{of}")).expect("a script");
    command.arg(name);
    let mut process = Process::spawn(name, command).expect("a server of WebSocket");
    process.wait_log("ready", SOON).expect("it is ready");
    let line = process.wait_log("listening address=", SOON);
    let line = line.expect("an address");
    let address = line.rsplit('=').next().expect("an address");
    Server {
        address: address.parse().expect("an address"),
        process,
    }
}

fn config(servers: &[&Server], listener: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(|it| it.address).collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', upgrades: [websocket], {listener} pool: site }}
pools:
  site: {{ servers: {}, health_check: off, balance: round_robin }}
",
        list(&addresses)
    )
}

/// Who served the connections of a client that found everything as it should be.
fn talk(of: &str, url: &str, more: &[&str]) -> Vec<String> {
    let mut command = script(&format!("ws_client.{of}")).expect("a script");
    command.arg(url).args(more);
    let finished = run(command, LIMIT).expect("the client ends");
    assert_eq!(
        finished.code,
        Some(0),
        "{}{}",
        finished.text(),
        finished.stderr
    );
    let text = finished.text();
    let served = text.lines().filter_map(|line| line.strip_prefix("served "));
    served.map(str::to_owned).collect()
}

#[test]
fn messages_of_every_size_pass_both_ways_and_closes_are_told() {
    if missing_any() {
        return;
    }
    let (mut a, mut b) = (server(PYTHON, "a"), server(NODE, "b"));
    let evenkeel = start(&config(&[&a, &b], ""));
    let url = format!("ws://{}/chat?room=1", web(&evenkeel));
    for client in [PYTHON, NODE] {
        let marks = [a.process.mark(), b.process.mark()];
        let mut served = talk(client, &url, &["--connections", "4"]);
        served.sort();
        assert_eq!(served, ["a", "a", "b", "b"], "{client}");
        for (server, mark) in [&mut a, &mut b].into_iter().zip(marks) {
            for line in ["opened /chat?room=1", "closed 4000 done"] {
                let said = server.process.wait_log_after(mark, line, SOON);
                said.expect("the target, and the close");
            }
        }
    }
}

#[test]
fn the_same_through_tls() {
    if missing_any() {
        return;
    }
    let authority = Authority::new("the authority");
    let dir = TempDir::new("ws").expect("a folder");
    authority.issue(&["localhost"]).write(&dir, "server");
    let ca = dir.write("ca.pem", &authority.pem).expect("written");
    let path = dir.path().display();
    let tls = format!(
        "tls: {{ certificates: [{{ cert: '{path}/server.pem', key: '{path}/server.key' }}] }},"
    );
    let (a, b) = (server(PYTHON, "a"), server(NODE, "b"));
    let ca = ca.display().to_string();
    for (client, server, name) in [(PYTHON, &b, "b"), (NODE, &a, "a"), (NODE, &b, "b")] {
        let evenkeel = start(&config(&[server], &tls));
        let url = format!("wss://{}/chat", web(&evenkeel));
        assert_eq!(talk(client, &url, &["--ca", &ca]), [name]);
    }
}

#[test]
fn a_drain_leaves_a_conversation_its_time_and_the_close_is_the_servers() {
    if missing_any() {
        return;
    }
    for of in [PYTHON, NODE] {
        let mut a = server(of, "a");
        let mut evenkeel = start(&config(&[&a], ""));
        let url = format!("ws://{}/chat", web(&evenkeel));
        let mut command = script(&format!("ws_client.{of}")).expect("a script");
        command.args([&url, "--until-told"]);
        let mut client = Process::spawn("client", command).expect("a client");
        client.wait_log("served a", SOON).expect("it speaks");
        let mark = client.mark();
        evenkeel.signal(Signal::TERM).expect("a signal");
        evenkeel.wait_log("stopping", SOON).expect("it drains");
        // It goes on, both ways.
        client.wait_log_after(mark, "echo", SOON).expect("an echo");
        // A server that goes away says so by SIGHUP here: 1001.
        a.process.signal(Signal::HUP).expect("a signal");
        let told = client.wait_log("told 1001 leaving", SOON);
        told.expect("the client is told why");
        let ended = evenkeel.wait_exit(SOON).expect("it ends");
        assert!(ended.success(), "{ended}");
    }
}
