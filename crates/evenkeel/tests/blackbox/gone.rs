//! Clients that leave while something else is waited for give up their place at once, and nobody is charged with it; who
//! has only said all it had to say still gets its answer.
//!
//! Each is frozen out until its first request is there whole, so that nobody ever had to wait for it.

use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{Evenkeel, Origin, Raw, reply, wait_until};

use crate::http_retries::full;
use crate::http_setup::{Outcome, ensure_ok, ensure_refused, freeze, noise, thaw};
use crate::life_support::{SOON, list, metric, start, web};

/// Longer than any test waits for what it waits for.
const LONG: Duration = Duration::from_secs(60);
/// Longer than a request goes on before its client is watched.
const WATCHED: Duration = Duration::from_millis(600);

const GET: &str = "GET /held HTTP/1.1\r\nHost: x\r\n\r\n";

/// Answers all but `/held`, which it only reads.
fn origin() -> anyhow::Result<Origin> {
    Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            match request.target.as_str() {
                "/held" => conn.hang(LONG),
                "/late" => {
                    std::thread::sleep(WATCHED);
                    conn.write(reply(200, "late"))?;
                }
                "/busy" => conn.write(reply(503, "busy"))?,
                _ => conn.write(reply(200, "well"))?,
            }
        }
        Ok(())
    })
}

/// One worker; each server takes one request or connection at a time.
fn running(protocol: &str, servers: &[&Origin], settings: &str) -> Evenkeel {
    let servers: Vec<_> = servers.iter().map(|it| it.address()).collect();
    let list = list(&servers)
        .replace("['", "[{ max_connections: 1, address: '")
        .replace(", '", " }, { max_connections: 1, address: '")
        .replace(']', " }]");
    start(&config(protocol, &list, settings))
}

fn config(protocol: &str, servers: &str, settings: &str) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 1
access_log: {{ to: stdout }}
listeners:
  web: {{ bind: '127.0.0.1:0', protocol: {protocol}, pool: site }}
pools:
  site: {{ servers: {servers}, health_check: off, {settings} }}
"
    )
}

/// A client whose first bytes are there before they are looked for.
fn at_once(evenkeel: &mut Evenkeel, bytes: impl AsRef<[u8]>) -> anyhow::Result<Raw> {
    freeze(evenkeel)?;
    let mut client = Raw::connect(web(evenkeel))?;
    client.send(bytes)?;
    thaw(evenkeel)?;
    Ok(client)
}

fn active(evenkeel: &Evenkeel) -> f64 {
    metric(evenkeel, "evenkeel_active_connections{")
}

fn wait_active(evenkeel: &Evenkeel, count: usize) -> Outcome {
    wait_until(&format!("{count} are active"), SOON, || {
        active(evenkeel) == count as f64
    })
}

/// Waits until so many have left and hold nothing, and fails if a server is charged with it.
fn wait_gone(evenkeel: &Evenkeel, count: usize) -> Outcome {
    let left = "evenkeel_errors_total{reason=\"client_closed\"}";
    wait_until("the client's end is noticed", SOON, || {
        metric(evenkeel, left) == count as f64
    })?;
    wait_active(evenkeel, 0)?;
    ensure_not_charged(evenkeel)
}

fn ensure_not_charged(evenkeel: &Evenkeel) -> Outcome {
    let charged = metric(evenkeel, "evenkeel_server_failed_total");
    ensure!(charged == 0.0, "{charged} failures");
    Ok(())
}

#[test]
fn who_resets_before_the_answer_leaves_its_place_to_others() -> Outcome {
    let hedged = "hedge: { after: 50ms }, retries: { budget: 100% }";
    let posted = "POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    for (servers, settings, request) in [
        (1, "", GET),
        (1, "", posted),
        (1, "timeouts: { request: 1m, first_byte: 50s }", GET),
        (1, "retries: { per_try_timeout: 40s }", GET),
        (2, hedged, GET),
    ] {
        let origins = [origin()?, origin()?];
        let servers: Vec<_> = origins.iter().take(servers).collect();
        let mut evenkeel = running("http", &servers, settings);
        let client = at_once(&mut evenkeel, request)?;
        wait_active(&evenkeel, servers.len())?;
        client.reset()?;
        wait_gone(&evenkeel, 1).with_context(|| format!("{settings} {request}"))?;
        evenkeel.wait_log("\"status\":499", SOON)?;
        ensure_ok(&Raw::connect(web(&evenkeel))?.get("/next")?)?;
    }
    Ok(())
}

#[test]
fn who_waits_for_a_place_gets_that_of_one_who_resets() -> Outcome {
    let origin = origin()?;
    let mut evenkeel = running("http", &[&origin], "limits: { queue_wait: 1m }");
    let first = at_once(&mut evenkeel, GET)?;
    wait_active(&evenkeel, 1)?;
    let mut second = at_once(&mut evenkeel, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let third = at_once(&mut evenkeel, GET)?;
    let waiting = |count: f64| metric(&evenkeel, "evenkeel_queue_length{") == count;
    wait_until("two wait", SOON, || waiting(2.0))?;
    third.reset()?;
    wait_until("one has left", SOON, || waiting(1.0))?;
    first.reset()?;
    ensure_ok(&second.response()?)?;
    wait_gone(&evenkeel, 2)
}

#[test]
fn who_resets_between_two_tries_is_not_waited_for() -> Outcome {
    let servers = [origin()?, origin()?];
    let settings = "outlier_detection: off, limits: { max_requests: 1 },
         retries: { on: [503], budget: 100%, backoff: { base: 1h, max: 1h } }";
    let mut evenkeel = running("http", &servers.each_ref(), settings);
    let client = at_once(&mut evenkeel, "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")?;
    wait_until("one has answered", SOON, || {
        servers.iter().any(|it| it.requests() > 0)
    })?;
    client.reset()?;
    evenkeel.wait_log("\"reason\":\"client_closed\"", SOON)?;
    wait_active(&evenkeel, 0)?;
    // What bounds the pool is given back, too.
    ensure_ok(&Raw::connect(web(&evenkeel))?.get("/next")?)
}

/// A client that resets while a connection to its server hangs.
fn resets_at_the_connect(protocol: &str) -> Outcome {
    let (address, _listener, _fillers) = full()?;
    let servers = format!("['{address}']");
    let settings = "timeouts: { connect: 50s }";
    let mut evenkeel = start(&config(protocol, &servers, settings));
    let client = at_once(&mut evenkeel, GET)?;
    wait_active(&evenkeel, 1)?;
    client.reset()?;
    wait_gone(&evenkeel, 1)
}

#[test]
fn who_resets_while_its_server_is_connected_is_not_waited_for() -> Outcome {
    resets_at_the_connect("http")
}

#[test]
fn who_resets_over_tcp_while_its_server_is_connected_is_not_waited_for() -> Outcome {
    resets_at_the_connect("tcp")
}

/// Sends until nothing more is taken.
fn fill(client: &Raw) -> Outcome {
    let mut stream = client.stream();
    stream.set_write_timeout(Some(WATCHED))?;
    loop {
        match stream.write(&[b'x'; 64 << 10]) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A client that resets while its server reads nothing of what it sends.
fn resets_amid_an_upload(protocol: &str) -> anyhow::Result<Evenkeel> {
    let deaf = Origin::start(|conn| {
        conn.hang(LONG);
        Ok(())
    })?;
    let mut evenkeel = running(protocol, &[&deaf], "");
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    let client = at_once(&mut evenkeel, head)?;
    fill(&client)?;
    wait_active(&evenkeel, 1)?;
    client.reset()?;
    wait_active(&evenkeel, 0)?;
    Ok(evenkeel)
}

#[test]
fn who_resets_while_its_server_reads_nothing_is_not_waited_for() -> Outcome {
    wait_gone(&resets_amid_an_upload("http")?, 1)
}

#[test]
fn who_resets_over_tcp_while_its_server_reads_nothing_is_not_waited_for() -> Outcome {
    let mut evenkeel = resets_amid_an_upload("tcp")?;
    ensure_not_charged(&evenkeel)?;
    evenkeel.wait_log("\"reason\":\"client_closed\"", SOON)?;
    Ok(())
}

#[test]
fn who_leaves_amid_an_answer_ends_it_for_its_server_too() -> Outcome {
    let large = reply(200, noise(64 << 20));
    for resets in [true, false] {
        let (large, ends) = (large.clone(), Arc::new(AtomicU32::new(0)));
        let seen = ends.clone();
        let origin = Origin::start(move |conn| {
            conn.read_request()?;
            if conn.write(&large).is_err() {
                seen.fetch_add(1, SeqCst);
            }
            Ok(())
        })?;
        let evenkeel = running("http", &[&origin], "");
        let mut client = Raw::connect(web(&evenkeel))?;
        client.send(GET)?;
        client.read_exactly(1000)?;
        if resets {
            client.reset()?;
        } else {
            drop(client);
        }
        wait_until("the server is told", SOON, || ends.load(SeqCst) == 1)?;
        wait_gone(&evenkeel, 1)?;
    }
    Ok(())
}

#[test]
fn who_has_ended_its_half_still_gets_a_late_answer() -> Outcome {
    let hedged = "hedge: { after: 100s }";
    for (settings, end) in [("", ""), (hedged, ""), ("", "Connection: close\r\n")] {
        let origin = origin()?;
        let mut evenkeel = running("http", &[&origin], settings);
        freeze(&mut evenkeel)?;
        let mut client = Raw::connect(web(&evenkeel))?;
        client.send(format!("GET /late HTTP/1.1\r\nHost: x\r\n{end}\r\n"))?;
        client.half_close()?;
        thaw(&mut evenkeel)?;
        let answer = client.response().context(settings)?;
        ensure!(answer.text() == "late", "{answer}");
        client.expect_close()?;
    }
    Ok(())
}

#[test]
fn a_deadline_stays_what_it_was_before_the_client_was_watched() -> Outcome {
    for (settings, reason) in [
        ("timeouts: { first_byte: 1s }", "first_byte_timeout"),
        ("timeouts: { request: 1s }", "first_byte_timeout"),
        (
            "timeouts: { first_byte: 1s }, hedge: { after: 100s }",
            "first_byte_timeout",
        ),
    ] {
        let origin = origin()?;
        let mut evenkeel = running("http", &[&origin], settings);
        let began = Instant::now();
        let mut client = at_once(&mut evenkeel, GET)?;
        ensure_refused(&client.response()?, 504, reason).context(settings)?;
        ensure!(began.elapsed() >= Duration::from_secs(1), "{settings}");
    }
    Ok(())
}
