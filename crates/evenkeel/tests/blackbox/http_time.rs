//! `timeouts.request`: it holds whoever is slow, and charges a server with nothing that its client took.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::ensure;
use testkit::{Evenkeel, Origin, Raw, reply, wait_until};

use crate::http_setup::{Outcome, ensure_refused, noise};
use crate::life_support::{SOON, metric, site, start, web};

/// Failures in a row that take a server out.
const ROW: usize = 3;

/// What servers are charged with.
const FAILED: &str = "evenkeel_server_failed_total";

/// A server in front of which a request has a second, with a large `/big`, and a `/hang` that nobody answers.
fn origin() -> anyhow::Result<Origin> {
    let big = reply(200, noise(8 << 20));
    Origin::start(move |conn| {
        while let Some(request) = conn.read_request()? {
            match request.target.as_str() {
                "/hang" => conn.hang(SOON),
                "/big" => conn.write(&big)?,
                _ => conn.write(reply(200, "well"))?,
            }
        }
        Ok(())
    })
}

fn running(servers: &[Origin; 2]) -> Evenkeel {
    let settings = format!(
        "health_check: off, timeouts: {{ request: 1s }}, retries: {{ attempts: 0 }},
         outlier_detection: {{ consecutive_gateway_errors: {ROW} }}"
    );
    let config = site(&servers.each_ref().map(Origin::address), &settings);
    start(&format!("access_log: {{ to: stderr }}\n{config}"))
}

fn count(evenkeel: &Evenkeel, reason: &str) -> f64 {
    metric(
        evenkeel,
        &format!("evenkeel_errors_total{{reason=\"{reason}\"}}"),
    )
}

/// Waits until so many requests have ended for this reason, and none holds the server any more.
fn wait_ended(evenkeel: &Evenkeel, reason: &str, times: usize) -> Outcome {
    wait_until(&format!("{times} ended by {reason}"), SOON, || {
        count(evenkeel, reason) >= times as f64
            && metric(evenkeel, "evenkeel_active_connections") == 0.0
    })
}

/// Fails if a server was charged with a failure.
fn ensure_not_charged(evenkeel: &Evenkeel) -> Outcome {
    let failed = metric(evenkeel, FAILED);
    ensure!(failed == 0.0, "{failed} failures");
    let log = evenkeel.log();
    ensure!(!log.contains("server is ejected"), "{log}");
    Ok(())
}

/// A client whose kernel takes little of what it does not read.
fn narrow(evenkeel: &Evenkeel) -> anyhow::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&web(evenkeel).into())?;
    socket.set_read_timeout(Some(SOON))?;
    Ok(socket.into())
}

#[test]
fn a_client_that_sends_slowly_is_told_so_and_its_server_stays() -> Outcome {
    let servers = [origin()?, origin()?];
    let evenkeel = running(&servers);
    let mut clients = Vec::new();
    for _ in 0..2 * ROW {
        let mut client = Raw::connect(web(&evenkeel))?;
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome")?;
        clients.push(client);
    }
    for mut client in clients {
        ensure_refused(&client.response()?, 408, "request_timeout")?;
        client.expect_close()?;
    }
    wait_ended(&evenkeel, "request_timeout", 2 * ROW)?;
    ensure_not_charged(&evenkeel)
}

#[test]
fn a_client_that_reads_nothing_holds_its_server_no_longer_than_that() -> Outcome {
    let servers = [origin()?, origin()?];
    let evenkeel = running(&servers);
    let mut clients = Vec::new();
    for _ in 0..2 * ROW {
        let mut client = narrow(&evenkeel)?;
        client.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")?;
        clients.push(client);
    }
    wait_ended(&evenkeel, "request_timeout", 2 * ROW)?;
    ensure_not_charged(&evenkeel)
}

#[test]
fn a_client_that_reads_little_by_little_is_not_its_servers_fault() -> Outcome {
    let servers = [origin()?, origin()?];
    let evenkeel = running(&servers);
    let clients: Vec<_> = (0..2 * ROW)
        .map(|_| {
            let mut client = narrow(&evenkeel)?;
            client.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")?;
            Ok(std::thread::spawn(move || {
                let (mut piece, mut all) = ([0; 16 << 10], 0);
                while let Ok(count) = client.read(&mut piece) {
                    if count == 0 {
                        break;
                    }
                    all += count;
                    std::thread::sleep(Duration::from_millis(10));
                }
                all
            }))
        })
        .collect::<anyhow::Result<_>>()?;
    for client in clients {
        let all = client.join().expect("it reads on");
        ensure!(all < 8 << 20, "the time was not kept");
    }
    wait_ended(&evenkeel, "request_timeout", 2 * ROW)?;
    ensure_not_charged(&evenkeel)
}

#[test]
fn a_server_that_takes_all_of_the_time_is_charged_with_it() -> Outcome {
    let servers = [origin()?, origin()?];
    let mut evenkeel = running(&servers);
    for _ in 0..2 * ROW {
        let answer = Raw::connect(web(&evenkeel))?.get("/hang")?;
        ensure_refused(&answer, 504, "first_byte_timeout")?;
    }
    evenkeel.wait_log("server is ejected", SOON)?;
    ensure!(metric(&evenkeel, FAILED) >= ROW as f64);
    Ok(())
}
