//! Servers that fail, and what of it a client sees: mostly nothing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{Origin, Port, reply, wait_until};

use crate::http_setup::{
    Outcome, chunks, client, ensure_ok, ensure_refused, freeze, noise, proxy, proxy_with, thaw,
};

const SOON: Duration = Duration::from_secs(5);

/// Reads a request and closes without a word.
fn closing() -> anyhow::Result<Origin> {
    Origin::start(|conn| conn.read_request().map(drop))
}

fn good() -> anyhow::Result<Origin> {
    Origin::http(|request| reply(200, &request.body))
}

fn post(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
}

#[test]
fn a_close_before_any_byte_is_retried_for_what_may_be_repeated() -> Outcome {
    let (bad, good) = (closing()?, good()?);
    let evenkeel = proxy_with(
        &[bad.address(), good.address()],
        &[],
        &["balance: round_robin", "outlier_detection: off"],
    )?;
    let mut client = client(&evenkeel)?;
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        for _ in 0..2 {
            let before = (bad.requests(), good.requests());
            ensure_ok(&client.exchange(post(method))?).context(method)?;
            assert_eq!(good.requests(), before.1 + 1, "{method}");
        }
    }
    ensure!(
        bad.requests() >= 4,
        "{} tries met the bad server",
        bad.requests()
    );
    for method in ["POST", "PATCH", "LOCK"] {
        let before = (bad.requests(), good.requests());
        let (mut ok, mut failed) = (0, 0);
        for _ in 0..4 {
            let response = client.exchange(post(method))?;
            match response.status {
                200 => ok += 1,
                _ => {
                    ensure_refused(&response, 502, "server_closed").context(method)?;
                    failed += 1;
                }
            }
        }
        assert_eq!((ok, failed), (2, 2), "{method}");
        assert_eq!(
            (bad.requests(), good.requests()),
            (before.0 + 2, before.1 + 2),
            "{method}: never twice"
        );
    }
    Ok(())
}

#[test]
fn a_refused_connect_sends_every_method_elsewhere() -> Outcome {
    let (refusing, good) = (Port::reserve()?, good()?);
    let evenkeel = proxy_with(
        &[refusing.address(), good.address()],
        &[],
        &["balance: round_robin", "retries: { attempts: 0 }"],
    )?;
    let mut client = client(&evenkeel)?;
    for method in ["POST", "GET", "PATCH", "PUT"] {
        for _ in 0..3 {
            ensure_ok(&client.exchange(post(method))?).context(method)?;
        }
    }
    let alone = proxy(&[refusing.address()])?;
    let response = crate::http_setup::client(&alone)?.exchange(post("POST"))?;
    ensure!(matches!(response.status, 502 | 503), "{response}");
    Ok(())
}

#[test]
fn a_server_that_closes_after_each_answer_loses_nothing() -> Outcome {
    let origin = Origin::start(|conn| {
        let request = conn.read_request()?.context("a request")?;
        conn.write(reply(200, &request.body))?;
        conn.close()
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let (mut one, mut two) = (client(&evenkeel)?, client(&evenkeel)?);
    for n in 0..100 {
        ensure_ok(&one.get("/")?).with_context(|| format!("{n}"))?;
        ensure_ok(&two.get("/")?).with_context(|| format!("{n}"))?;
    }
    // What may not be repeated is not sent over a connection whose end has been seen.
    for n in 0..50 {
        wait_until("its close has come", SOON, || origin.open() == 0)?;
        ensure_ok(&one.exchange(post("POST"))?).with_context(|| format!("POST {n}"))?;
    }
    Ok(())
}

#[test]
fn a_body_within_the_bound_is_sent_again() -> Outcome {
    let bad = Origin::start(|conn| {
        let Some(mut request) = conn.read_head()? else {
            return Ok(());
        };
        conn.read_body(&mut request)
    })?;
    let good = good()?;
    let evenkeel = proxy_with(
        &[bad.address(), good.address()],
        &[],
        &["balance: round_robin", "outlier_detection: off"],
    )?;
    let mut client = client(&evenkeel)?;
    for size in [10, 16_000, 17_000, 40_000, 64 * 1024] {
        let body = noise(size);
        let framings = [
            (format!("Content-Length: {size}"), body.clone()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                chunks(&body, 5_000, "X-End: 1\r\n"),
            ),
        ];
        for (field, bytes) in framings {
            if bytes.len() > 64 * 1024 {
                continue;
            }
            for _ in 0..2 {
                client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"))?;
                client.send(&bytes)?;
                let response = client.response()?;
                ensure_ok(&response).with_context(|| format!("{field} {size}"))?;
                ensure!(response.body == body, "{field} {size}: the body changed");
            }
        }
    }
    ensure!(
        bad.requests() >= 8,
        "{} tries met the bad server",
        bad.requests()
    );
    Ok(())
}

#[test]
fn a_body_beyond_the_bound_is_not_sent_again() -> Outcome {
    let bad = Origin::start(|conn| conn.read_request().map(drop))?;
    let evenkeel = proxy(&[bad.address()])?;
    let mut client = client(&evenkeel)?;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")?;
    client.send(noise(100_000))?;
    ensure_refused(&client.response()?, 502, "server_closed")?;
    assert_eq!(bad.requests(), 1);
    Ok(())
}

/// The server goes while a piece of the body arrives: the next server gets that piece too.
#[test]
fn a_piece_that_was_on_its_way_is_not_lost_by_a_retry() -> Outcome {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let bad = Origin::start(move |conn| {
        if conn.read_head()?.is_some() {
            wait.lock().expect("a lock").recv().ok();
        }
        conn.reset()
    })?;
    let good = good()?;
    let servers = [bad.address(), good.address()];
    let mut evenkeel = proxy_with(&servers, &[], &["balance: round_robin"])?;
    let mut client = client(&evenkeel)?;
    // By the second request at the latest it is the bad server's turn.
    for _ in 0..2 {
        let before = bad.requests() + good.requests();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nfirst half")?;
        wait_until("a server has the head", SOON, || {
            bad.requests() + good.requests() > before
        })?;
        if bad.open() > 0 {
            // Both happen before Evenkeel looks.
            freeze(&mut evenkeel)?;
            go.send(())?;
            wait_until("the server has gone", SOON, || bad.open() == 0)?;
        }
        client.send("other half")?;
        thaw(&mut evenkeel)?;
        let response = client.response()?;
        ensure_ok(&response)?;
        assert_eq!(response.text(), "first halfother half");
    }
    ensure!(bad.requests() > 0, "the bad server was never tried");
    Ok(())
}

#[test]
fn retries_can_be_turned_off() -> Outcome {
    let (bad, good) = (closing()?, good()?);
    let evenkeel = proxy_with(
        &[bad.address(), good.address()],
        &[],
        &["balance: round_robin", "retries: off"],
    )?;
    let mut client = client(&evenkeel)?;
    let mut failed = 0;
    for _ in 0..6 {
        let response = client.get("/")?;
        if response.status != 200 {
            ensure_refused(&response, 502, "server_closed")?;
            failed += 1;
        }
    }
    assert_eq!(failed, 3);
    Ok(())
}

/// A listening socket whose queue is full, so that connects to it hang, with what fills it.
pub(crate) fn full() -> anyhow::Result<(SocketAddr, TcpListener, Vec<std::thread::JoinHandle<()>>)>
{
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listen(&held, 0)?;
    let listener = TcpListener::from(held);
    let address = listener.local_addr()?;
    let fillers = (0..4).map(|_| {
        std::thread::spawn(move || {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(8));
            if stream.is_ok() {
                std::thread::sleep(Duration::from_secs(8));
            }
        })
    });
    let fillers = fillers.collect();
    wait_until("the queue is full", SOON, || {
        TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err()
    })?;
    Ok((address, listener, fillers))
}

#[test]
fn a_connect_that_hangs_is_tried_elsewhere_in_time() -> Outcome {
    let (address, _listener, _fillers) = full()?;
    let good = good()?;
    let pool = ["balance: round_robin", "timeouts: { connect: 200ms }"];
    let evenkeel = proxy_with(&[address, good.address()], &[], &pool)?;
    let started = Instant::now();
    let mut client = client(&evenkeel)?;
    for _ in 0..2 {
        ensure_ok(&client.exchange(post("POST"))?)?;
    }
    ensure!(
        started.elapsed() > Duration::from_millis(190),
        "no connect hung"
    );
    let alone = proxy_with(&[address], &[], &["timeouts: { connect: 200ms }"])?;
    let response = crate::http_setup::client(&alone)?.get("/")?;
    ensure_refused(&response, 504, "connect_timeout")
}

#[test]
fn a_server_that_is_too_slow_is_a_504() -> Outcome {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            match request.target.as_str() {
                "/fast" => conn.write(reply(200, ""))?,
                "/silent" => conn.hang(SOON),
                "/head" => {
                    conn.write("HTTP/1.1 200 OK\r\nContent-Le")?;
                    conn.hang(SOON);
                }
                _ => {
                    conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
                    conn.hang(SOON);
                }
            }
        }
        Ok(())
    })?;
    let times = "timeouts: { first_byte: 1s, idle: 300ms }";
    let evenkeel = proxy_with(&[origin.address()], &[], &[times])?;
    for method in ["GET", "POST"] {
        let mut client = client(&evenkeel)?;
        ensure_ok(&client.exchange(format!(
            "{method} /fast HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ))?)?;
        let silent = client.exchange(format!(
            "{method} /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ))?;
        ensure_refused(&silent, 504, "first_byte_timeout")?;
    }
    ensure_refused(&client(&evenkeel)?.get("/head")?, 504, "response_timeout")?;
    ensure!(
        client(&evenkeel)?.get("/body").is_err(),
        "a stopped body is no answer"
    );
    let whole = proxy_with(&[origin.address()], &[], &["timeouts: { request: 300ms }"])?;
    let started = Instant::now();
    let response = client(&whole)?.get("/silent")?;
    assert_eq!(response.status, 504, "{response}");
    ensure!(
        client(&whole)?.get("/body").is_err(),
        "a stopped body is no answer"
    );
    ensure!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

#[test]
fn without_a_server_that_may_serve_it_says_so() -> Outcome {
    let origin = good()?;
    let config = format!(
        r#"
admin: off
listeners:
  web: {{ bind: "127.0.0.1:0", pool: site }}
pools:
  site: {{ servers: [{{ address: "{}", weight: 0 }}], health_check: off }}
"#,
        origin.address()
    );
    let evenkeel = testkit::Evenkeel::start(crate::command::BINARY, &config)?;
    let mut client = client(&evenkeel)?;
    let response = client.get("/")?;
    ensure_refused(&response, 503, "no_usable_server")?;
    assert_eq!(response.header("retry-after"), Some("1"));
    ensure!(!response.text().contains("site"), "{response}");
    // The connection goes on.
    ensure_refused(&client.get("/")?, 503, "no_usable_server")
}
