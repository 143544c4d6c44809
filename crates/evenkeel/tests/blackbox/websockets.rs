//! WebSocket by programs of others: a client and servers of Python's websockets.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::{Evenkeel, Process, TempDir, missing, run, script};

use crate::life_support::{SOON, list, start, web};
use crate::tls_support::Authority;

/// Longer than a client takes to send and get some megabytes, beside a CPU hog.
const LIMIT: Duration = Duration::from_secs(90);

struct Server {
    process: Process,
    address: SocketAddr,
}

fn server(name: &str) -> Server {
    let mut command = script("ws_server.py").expect("Python");
    command.arg(name);
    let mut process = Process::spawn(name, command).expect("a server of websockets");
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
fn talk(url: &str, more: &[&str]) -> Vec<String> {
    let mut command = script("ws_client.py").expect("Python");
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
    if missing("websockets") {
        return;
    }
    let (mut a, mut b) = (server("a"), server("b"));
    let evenkeel = start(&config(&[&a, &b], ""));
    let url = format!("ws://{}/chat?room=1", web(&evenkeel));
    let mut served = talk(&url, &["--connections", "4"]);
    served.sort();
    assert_eq!(served, ["a", "a", "b", "b"]);
    for server in [&mut a, &mut b] {
        server
            .process
            .wait_log("opened /chat?room=1", SOON)
            .expect("the target");
        server
            .process
            .wait_log("closed 4000 done", SOON)
            .expect("the close");
    }
}

#[test]
fn the_same_through_tls() {
    if missing("websockets") {
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
    let a = server("a");
    let evenkeel: Evenkeel = start(&config(&[&a], &tls));
    let url = format!("wss://{}/chat", web(&evenkeel));
    let ca = ca.display().to_string();
    assert_eq!(talk(&url, &["--ca", &ca]), ["a"]);
}
