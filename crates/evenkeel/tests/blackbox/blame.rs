//! Who is charged with what goes wrong: no server with what its clients do, each with what it does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::ensure;
use testkit::{Evenkeel, Nginx, Origin, Raw, missing, reply, wait_until};

use crate::http_setup::{Outcome, ensure_refused, noise};
use crate::life_support::{SOON, connect, list, metric, nginxes, site, start, wait_all, web};

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

#[test]
fn a_request_that_every_server_closes_on_is_not_their_fault() -> Outcome {
    if missing("nginx") {
        return Ok(());
    }
    // What people write against scanners.
    let more = "location /bad { return 444; }";
    let servers = ["a", "b", "c"].map(|name| Nginx::start(name, more).expect("nginx starts"));
    let addresses = servers.each_ref().map(Nginx::address);
    let evenkeel = start(&site(&addresses, "balance: round_robin"));
    wait_all(&evenkeel, &addresses, "healthy");
    for _ in 0..20 {
        let answer = Raw::connect(web(&evenkeel))?.get("/bad")?;
        ensure_refused(&answer, 502, "server_closed")?;
    }
    let answer = Raw::connect(web(&evenkeel))?.get("/")?;
    ensure!(answer.status == 200, "{answer}");
    ensure_not_charged(&evenkeel)
}

#[test]
fn a_server_that_alone_closes_on_requests_is_charged() -> Outcome {
    if missing("nginx") {
        return Ok(());
    }
    let [good] = nginxes(["good"]);
    let bad = Origin::start(|conn| {
        conn.read_head()?;
        conn.reset()
    })?;
    let config = site(
        &[good.address(), bad.address()],
        "health_check: off, balance: round_robin",
    );
    let mut evenkeel = start(&config);
    for _ in 0..20 {
        let answer = Raw::connect(web(&evenkeel))?.get("/")?;
        ensure!(answer.status == 200, "{answer}");
    }
    let line = evenkeel.wait_log("server is ejected", SOON)?;
    ensure!(line.contains(&bad.address().to_string()), "{line}");
    Ok(())
}

/// Answers `/whole` whole and anything else in part, and closes on the body, of which it has read nothing: a reset.
fn answers_early() -> anyhow::Result<Origin> {
    Origin::start(|conn| {
        let Some(request) = conn.read_head()? else {
            return Ok(());
        };
        ensure!(conn.comes_within(SOON)?, "the body is there");
        let length = if request.target == "/whole" { 5 } else { 50 };
        conn.write(format!(
            "HTTP/1.1 413 Too Large\r\nContent-Length: {length}\r\nConnection: close\r\n\r\nlarge"
        ))
    })
}

#[test]
fn a_server_that_closes_on_an_upload_that_it_has_not_read_stays() -> Outcome {
    let servers = [answers_early()?, answers_early()?];
    let evenkeel = running(&servers);
    let post = |target: &str| {
        let mut request =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 262144\r\n\r\n");
        request.push_str(&"x".repeat(256 << 10));
        let mut client = Raw::connect(web(&evenkeel))?;
        client.send(request)?;
        anyhow::Ok(client)
    };
    for _ in 0..2 * ROW {
        let answer = post("/whole")?.response()?;
        ensure!(
            (answer.status, &*answer.text()) == (413, "large"),
            "{answer}"
        );
    }
    for _ in 0..2 * ROW {
        // What is lost of it the server has thrown away itself.
        let cut = post("/part")?.response();
        ensure!(cut.is_err(), "{cut:?}");
    }
    wait_until("all have ended", SOON, || {
        let reset = count(&evenkeel, "server_reset");
        reset + count(&evenkeel, "server_closed") >= (2 * ROW) as f64
            && metric(&evenkeel, "evenkeel_active_connections") == 0.0
    })?;
    ensure_not_charged(&evenkeel)
}

/// Answers a line with a line, and resets who says anything else; with `silent` it resets everybody at once.
fn speaks_lines(silent: bool) -> anyhow::Result<Origin> {
    Origin::start(move |conn| {
        if silent || conn.read_exactly(4)? != b"PING" {
            return conn.reset();
        }
        conn.write("PONG")?;
        conn.read_to_end().map(drop)
    })
}

fn tcp(servers: &[Origin; 3]) -> Evenkeel {
    start(&format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', protocol: tcp, pool: site }}
pools:
  site: {{ servers: {}, balance: round_robin, health_check: off }}
",
        list(&servers.each_ref().map(Origin::address))
    ))
}

#[test]
fn what_a_client_of_tcp_says_ejects_nobody() -> Outcome {
    let servers = [
        speaks_lines(false)?,
        speaks_lines(false)?,
        speaks_lines(false)?,
    ];
    let evenkeel = tcp(&servers);
    for _ in 0..30 {
        let mut client = connect(web(&evenkeel));
        client.send([0; 4096])?;
        // Closed or reset, as the server has it.
        let _ = client.read_to_end();
    }
    ensure_not_charged(&evenkeel)?;
    let mut client = connect(web(&evenkeel));
    client.send("PING")?;
    ensure!(client.read_exactly(4)? == b"PONG");
    Ok(())
}

#[test]
fn a_server_of_tcp_that_resets_whoever_comes_is_charged() -> Outcome {
    let servers = [
        speaks_lines(true)?,
        speaks_lines(false)?,
        speaks_lines(false)?,
    ];
    let mut evenkeel = tcp(&servers);
    for _ in 0..30 {
        let mut client = connect(web(&evenkeel));
        client.half_close()?;
        let _ = client.read_to_end();
    }
    let line = evenkeel.wait_log("server is ejected", SOON)?;
    ensure!(line.contains(&servers[0].address().to_string()), "{line}");
    Ok(())
}

#[test]
fn a_hung_server_is_ejected_though_others_answer_for_it() -> Outcome {
    let hung = Origin::start(|conn| {
        conn.hang(SOON);
        Ok(())
    })?;
    let good = [origin()?, origin()?];
    let servers = [hung.address(), good[0].address(), good[1].address()];
    let config = site(
        &servers,
        "health_check: off, balance: round_robin, hedge: { after: 50ms }, retries: { budget: 100% }",
    );
    let mut evenkeel = start(&config);
    let mut client = Raw::connect(web(&evenkeel))?;
    for _ in 0..30 {
        let answer = client.get("/")?;
        ensure!(answer.status == 200, "{answer}");
    }
    let line = evenkeel.wait_log("server is ejected", SOON)?;
    ensure!(line.contains(&hung.address().to_string()), "{line}");
    Ok(())
}

#[test]
fn a_request_that_is_bound_is_not_hedged() -> Outcome {
    let slow = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(200));
        reply(200, "slow")
    })?;
    let fast = Origin::http(|_| reply(200, "fast"))?;
    let config = site(
        &[slow.address(), fast.address()],
        "health_check: off, affinity: { cookie: { value: name } },
         hedge: { after: 20ms }, retries: { budget: 100% }",
    );
    let evenkeel = start(&config);
    let mut client = Raw::connect(web(&evenkeel))?;
    let cookie = format!("SERVERID={}", slow.address());
    for _ in 0..5 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        let answer = client.exchange(request)?;
        ensure!(answer.text() == "slow", "{answer}");
    }
    Ok(())
}
