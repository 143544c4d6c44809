//! One server connection carries the requests of several clients: whatever is cut, and wherever, none sees a byte of
//! another's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::{Origin, Raw, reply, wait_until};

use crate::http_setup::{Outcome, client, freeze, noise, proxy, thaw};

const SOON: Duration = Duration::from_secs(5);

/// Responses in several framings; `MARK` stands for what only the asking client may see.
const FRAMINGS: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nX-For: MARK\r\nContent-Length: 12\r\n\r\nfor MARK bye",
    "HTTP/1.1 200 OK\r\nX-For: MARK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfor \r\n8\r\nMARK bye\r\n0\r\nX-End: MARK\r\n\r\n",
    "HTTP/1.1 103 Hint\r\nX-For: MARK\r\n\r\nHTTP/1.1 204 None\r\nX-For: MARK\r\n\r\n",
    "HTTP/1.0 200 OK\r\nX-For: MARK\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\r\nfor MARK bye",
    "HTTP/1.1 200 OK\r\nX-For: MARK\r\n\r\nfor MARK bye",
];

/// Asks with a mark of its own on a connection of its own, kept as long as it lives.
struct Asking {
    name: &'static str,
    client: Option<Raw>,
}

impl Asking {
    /// What came is this client's own, or Evenkeel's word for "it broke", or nothing whole. Anything else is an error.
    fn ask(&mut self, evenkeel: &testkit::Evenkeel, path: &str, strangers: &str) -> Outcome {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(client(evenkeel)?),
        };
        // Not to be retried, so that each cut is seen; what is on its way to be closed is closed.
        let name = self.name;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nX-Mark: {name}\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = client.exchange(request);
        if !answer.as_ref().is_ok_and(|response| !response.closes()) {
            self.client = None;
        }
        let Ok(response) = answer else { return Ok(()) };
        let seen = format!(
            "{:?} {} {:?}",
            response.headers,
            response.text(),
            response.trailers
        );
        ensure!(
            !seen.contains(strangers),
            "{name} {path} got a stranger's bytes: {seen}"
        );
        let own = response.header("x-for") == Some(name);
        let ours = response.status == 502 && response.header("x-evenkeel-reason").is_some();
        ensure!(own || ours, "{name} {path}: {response}");
        Ok(())
    }
}

#[test]
fn a_response_cut_anywhere_is_nobody_elses() -> Outcome {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            let mark = request.header("x-mark").context("a mark")?;
            let mut words = request.target.trim_start_matches('/').split('/');
            let framing: usize = words.next().context("a framing")?.parse()?;
            let cut: usize = words.next().context("a cut")?.parse()?;
            let whole = FRAMINGS
                .get(framing)
                .context("a framing")?
                .replace("MARK", mark);
            if cut >= whole.len() {
                conn.write(&whole)?;
                if framing == 4 {
                    return Ok(());
                }
                continue;
            }
            let part = whole.as_bytes().get(..cut).unwrap_or_default();
            conn.write(part)?;
            return if cut.is_multiple_of(2) {
                conn.reset()
            } else {
                Ok(())
            };
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut first = Asking {
        name: "AAAA",
        client: None,
    };
    let mut second = Asking {
        name: "BBBB",
        client: None,
    };
    for (framing, text) in FRAMINGS.iter().enumerate() {
        for cut in 0..=text.len() {
            first.ask(&evenkeel, &format!("/{framing}/{cut}"), "BBBB")?;
            second.ask(&evenkeel, &format!("/{framing}/1000"), "AAAA")?;
        }
    }
    ensure!(origin.requests() > 600, "{} requests", origin.requests());
    Ok(())
}

#[test]
fn bytes_that_nobody_asked_for_reach_nobody() -> Outcome {
    const STRAY: &str = "HTTP/1.1 200 OK\r\nX-For: stray\r\nContent-Length: 5\r\n\r\nstray";
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            let mark = request.header("x-mark").context("a mark")?;
            let own = FRAMINGS.first().context("a framing")?.replace("MARK", mark);
            match request.target.as_str() {
                // With the answer, in the same segment.
                "/with" => conn.write([own.as_bytes(), STRAY.as_bytes()].concat())?,
                // Cut anywhere.
                "/part" => conn.write([own.as_bytes(), b"HTT"].concat())?,
                _ => conn.write(&own)?,
            }
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut first = Asking {
        name: "AAAA",
        client: None,
    };
    let mut second = Asking {
        name: "BBBB",
        client: None,
    };
    for path in ["/with", "/part"] {
        for _ in 0..20 {
            first.ask(&evenkeel, path, "stray")?;
            second.ask(&evenkeel, "/", "stray")?;
            second.ask(&evenkeel, "/", "stray")?;
        }
    }
    Ok(())
}

/// What a server does while its connection is idle is seen before the connection is used again, even if Evenkeel
/// learns of both in one turn.
#[test]
fn an_idle_connection_with_news_is_not_used_again() -> Outcome {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |conn| {
        conn.read_request()?;
        conn.write(reply(200, "own"))?;
        if conn.number() < 10 {
            wait.lock().expect("a lock").recv().ok();
        }
        match conn.number() {
            0..4 => conn.write(reply(200, "stray")),
            4..10 => conn.close(),
            _ => conn.read_request().map(drop),
        }
    })?;
    let mut evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.exchange(request)?.text(), "own");
    for n in 1..=10 {
        freeze(&mut evenkeel)?;
        go.send(())?;
        wait_until("the server's news", SOON, || origin.open() == 0)?;
        client.send(request)?;
        thaw(&mut evenkeel)?;
        assert_eq!(client.response()?.text(), "own", "request {n}");
        assert_eq!(origin.connections(), n + 1);
    }
    Ok(())
}

#[test]
fn a_request_cut_anywhere_reaches_no_server_as_a_whole_one() -> Outcome {
    let origin = Origin::http(|request| {
        let body = [
            request.header("x-mark").unwrap_or("none").as_bytes(),
            &request.body,
        ]
        .concat();
        reply(200, body)
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut other = client(&evenkeel)?;
    let requests = [
        "PUT /cut HTTP/1.1\r\nHost: a\r\nX-Mark: cut\r\nContent-Length: 20\r\n\r\nGET /evil HTTP/1.1\r\n",
        "PUT /cut HTTP/1.1\r\nHost: a\r\nX-Mark: cut\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n6\r\n/evil \r\n0\r\nX-End: 1\r\n\r\n",
    ];
    for request in requests {
        for cut in 0..request.len() {
            let mut client = client(&evenkeel)?;
            client.send(&request[..cut])?;
            if cut % 3 == 0 {
                client.reset()?;
            } else if cut % 3 == 1 {
                drop(client);
            } else {
                client.half_close()?;
                // Whatever it gets, it is no 200.
                let answer = client.response();
                ensure!(
                    !answer.is_ok_and(|answer| answer.status == 200),
                    "cut at {cut}"
                );
            }
            let request = "GET /own HTTP/1.1\r\nHost: a\r\nX-Mark: own\r\n\r\n";
            let response = other
                .exchange(request)
                .with_context(|| format!("after a cut at {cut}"))?;
            assert_eq!(response.text(), "own", "after a cut at {cut}");
        }
    }
    for seen in origin.seen() {
        assert_eq!(
            (seen.target.as_str(), seen.header("x-mark")),
            ("/own", Some("own"))
        );
    }
    Ok(())
}

#[test]
fn a_client_that_leaves_takes_its_answer_with_it() -> Outcome {
    let origin = Origin::http(|request| {
        let own = request.header("x-mark").unwrap_or("none").to_owned();
        if own == "gone" {
            std::thread::sleep(Duration::from_millis(10));
        }
        reply(200, own.repeat(if own == "gone" { 100_000 } else { 1 }))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut other = client(&evenkeel)?;
    for n in 0..30 {
        let before = origin.requests();
        let mut gone = client(&evenkeel)?;
        gone.send("GET / HTTP/1.1\r\nHost: a\r\nX-Mark: gone\r\n\r\n")?;
        wait_until("the origin has it", SOON, || origin.requests() > before)?;
        if n % 2 == 0 {
            gone.reset()?;
        } else {
            drop(gone);
        }
        let response = other.exchange("GET / HTTP/1.1\r\nHost: a\r\nX-Mark: own\r\n\r\n")?;
        assert_eq!(response.text(), "own");
    }
    Ok(())
}

/// A close on bytes that nobody has read is a reset, and takes with it what the client has not read yet.
#[test]
fn an_answer_arrives_whole_whatever_comes_after_the_last_request() -> Outcome {
    let go = Arc::new(AtomicBool::new(false));
    let late = go.clone();
    let origin = Origin::http(move |request| {
        let _ = wait_until("the late bytes", SOON, || late.load(Ordering::SeqCst));
        let size: usize = request.target.trim_start_matches('/').parse().unwrap_or(0);
        reply(200, noise(size))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for (number, size) in [2, 3000, 40_000, 400_000].into_iter().enumerate() {
        for late in ["\r\n", "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"] {
            go.store(false, Ordering::SeqCst);
            let seen = origin.requests();
            let mut client = client(&evenkeel)?;
            client.send(format!(
                "GET /{size} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ))?;
            wait_until("it is there", SOON, || origin.requests() > seen)?;
            client.send(late)?;
            go.store(true, Ordering::SeqCst);
            let response = client.response()?;
            ensure!(
                response.body == noise(size),
                "{number}: {}",
                response.body.len()
            );
            client.expect_close()?;
        }
    }
    Ok(())
}

/// Such credentials count for a connection, and for whoever asks over it next.
#[test]
fn a_connection_that_knows_its_user_is_nobody_elses() -> Outcome {
    for (credentials, connections) in [("Basic YTpi", 1), ("NTLM TlRM", 2), ("negotiate YII", 2)] {
        let origin = Origin::http(|_| reply(200, "here"))?;
        let evenkeel = proxy(&[origin.address()])?;
        let response = client(&evenkeel)?.exchange(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {credentials}\r\n\r\n"
        ))?;
        ensure!(response.status == 200, "{response}");
        let response = client(&evenkeel)?.get("/")?;
        ensure!(response.status == 200, "{response}");
        assert_eq!(origin.connections(), connections, "{credentials}");
    }
    Ok(())
}
