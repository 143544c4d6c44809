//! What comes before a final answer, or in its place: 1xx, upgrades.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::{Origin, reply};

use crate::http_setup::{Outcome, client, ensure_ok, ensure_refused, proxy, proxy_with};
use crate::life_support::SOON;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn a_client_that_expects_100_gets_it_from_the_server() -> Outcome {
    let origin = Origin::start(|conn| {
        while let Some(mut request) = conn.read_head()? {
            ensure!(
                request.header("expect") == Some("100-continue"),
                "Expect is lost"
            );
            conn.write(CONTINUE)?;
            conn.read_body(&mut request)?;
            conn.write(reply(200, &request.body))?;
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    for _ in 0..3 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        )?;
        assert_eq!(
            client
                .read_exactly(CONTINUE.len())?
                .escape_ascii()
                .to_string(),
            CONTINUE.escape_ascii().to_string()
        );
        let response = client.exchange("hello")?;
        assert_eq!(response.text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
    Ok(())
}

#[test]
fn a_server_may_refuse_what_was_expected() -> Outcome {
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        conn.write("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    let response = client.exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    )?;
    assert_eq!((response.status, response.text().as_str()), (417, "no"));
    // The body may or may not come now: the connection cannot be used on, and says so.
    ensure!(response.closes(), "{response}");
    client.expect_close()
}

#[test]
fn early_hints_pass_up_to_sixteen() -> Outcome {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            let count: usize = request.target.trim_start_matches('/').parse()?;
            for n in 0..count {
                conn.write(format!(
                    "HTTP/1.1 103 Early Hints\r\nLink: </{n}.css>\r\n\r\n"
                ))?;
            }
            conn.write(reply(200, "done"))?;
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for count in [1, 16] {
        let response = client(&evenkeel)?.get(&format!("/{count}"))?;
        ensure_ok(&response)?;
        assert_eq!(response.interim.len(), count);
        let last = response.interim.last().context("hints")?;
        let link = format!("</{}.css>", count - 1);
        assert_eq!(
            (last.status, last.headers.get("link")),
            (103, Some(link.as_str()))
        );
    }
    let old = client(&evenkeel)?.exchange("GET /3 HTTP/1.0\r\nHost: a\r\n\r\n")?;
    assert_eq!(
        (old.status, old.interim.len()),
        (200, 0),
        "HTTP/1.0 knows no 1xx"
    );
    for count in [17, 400] {
        let response = client(&evenkeel)?.get(&format!("/{count}"))?;
        ensure_refused(&response, 502, "bad_response")?;
    }
    Ok(())
}

#[test]
fn a_101_that_nobody_asked_for_is_a_bad_response() -> Outcome {
    let origin = Origin::start(|conn| {
        conn.read_request()?;
        conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw")
    })?;
    let evenkeel = proxy_with(&[origin.address()], &["upgrades: [websocket]"], &[])?;
    for fields in [
        "",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: other\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let response = client(&evenkeel)?.exchange(request)?;
        ensure_refused(&response, 502, "bad_response").context(fields)?;
    }
    Ok(())
}

/// Accepts every upgrade, then sends back what comes; at the end of the client's half it says "bye".
fn upgrading_echo() -> anyhow::Result<Origin> {
    Origin::start(|conn| {
        let Some(request) = conn.read_request()? else {
            return Ok(());
        };
        ensure!(
            request.headers.has_token("connection", "upgrade"),
            "no Connection: upgrade"
        );
        ensure!(
            request.headers.has_token("upgrade", "websocket"),
            "no Upgrade"
        );
        conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhi")?;
        let all = conn.read_to_end()?;
        conn.write(all)?;
        conn.write("bye")
    })
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: y\r\n\r\n";

#[test]
fn a_server_that_ended_its_upgrade_does_not_wait_for_a_silent_client() -> Outcome {
    let (closed, was_closed) = mpsc::channel();
    let origin = Origin::start(move |conn| {
        conn.read_head()?;
        conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbye")?;
        conn.half_close()?;
        let rest = conn.read_to_end()?;
        closed.send(rest)?;
        Ok(())
    })?;
    let evenkeel = proxy_with(&[origin.address()], &["upgrades: [websocket]"], &[])?;
    let mut client = client(&evenkeel)?;
    assert_eq!(client.exchange(UPGRADE)?.status, 101);
    assert_eq!(client.read_to_end()?, b"bye");
    // It stays open, and says no more.
    assert_eq!(was_closed.recv_timeout(SOON)?, b"");
    Ok(())
}

#[test]
fn an_upgrade_is_a_byte_tunnel_with_halves() -> Outcome {
    let origin = upgrading_echo()?;
    let evenkeel = proxy_with(&[origin.address()], &["upgrades: [websocket]"], &[])?;
    let mut client = client(&evenkeel)?;
    // What follows the head at once is for the other protocol.
    client.send(format!("{UPGRADE}early "))?;
    let response = client.response()?;
    assert_eq!(response.status, 101);
    ensure!(
        response.headers.has_token("connection", "upgrade"),
        "{response}"
    );
    assert_eq!(response.header("sec-websocket-accept"), Some("x"));
    assert_eq!(client.read_exactly(2)?, b"hi", "what came with the 101");
    let body = crate::http_setup::noise(3_000_000);
    client.send(&body)?;
    client.half_close()?;
    let back = client.read_to_end()?;
    ensure!(
        back == [&b"early "[..], &body, b"bye"].concat(),
        "{} bytes came back",
        back.len()
    );
    assert_eq!(origin.errors(), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_server_may_end_its_half_of_a_tunnel_first() -> Outcome {
    let origin = Origin::start(|conn| {
        conn.read_request()?;
        conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nlast word")?;
        conn.half_close()?;
        let rest = conn.read_to_end()?;
        ensure!(rest == b"still heard", "{}", rest.escape_ascii());
        Ok(())
    })?;
    let evenkeel = proxy_with(&[origin.address()], &["upgrades: [websocket]"], &[])?;
    let mut client = client(&evenkeel)?;
    assert_eq!(client.exchange(UPGRADE)?.status, 101);
    assert_eq!(client.read_to_end()?, b"last word");
    client.send("still heard")?;
    client.half_close()?;
    testkit::wait_until("the server has ended", Duration::from_secs(5), || {
        origin.open() == 0
    })?;
    assert_eq!(origin.errors(), Vec::<String>::new());
    Ok(())
}

#[test]
fn the_body_of_an_upgrading_request_is_sent_once() -> Outcome {
    let origin = Origin::start(|conn| {
        let request = conn.read_request()?.context("a request")?;
        ensure!(request.body == b"body", "{}", request.body.escape_ascii());
        conn.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let all = conn.read_to_end()?;
        conn.write(all)
    })?;
    let evenkeel = proxy_with(&[origin.address()], &["upgrades: [websocket]"], &[])?;
    let mut client = client(&evenkeel)?;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nbodytunnel")?;
    assert_eq!(client.response()?.status, 101);
    client.half_close()?;
    assert_eq!(client.read_to_end()?.escape_ascii().to_string(), "tunnel");
    Ok(())
}

#[test]
fn an_upgrade_that_the_listener_does_not_name_is_dropped() -> Outcome {
    let origin = Origin::http(|_| reply(200, "plain"))?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    for name in ["websocket", "h2c", "TLS/1.0"] {
        let request = UPGRADE.replace(": WebSocket", &format!(": {name}"));
        assert_eq!(client.exchange(request)?.text(), "plain", "{name}");
    }
    for request in origin.seen() {
        assert_eq!(
            (request.header("upgrade"), request.header("connection")),
            (None, None)
        );
    }
    Ok(())
}
