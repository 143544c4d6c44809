//! Bodies in trouble: answers that come early, both directions at once, halves that end, readers that do not read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::{Origin, reply, wait_until};

use crate::http_setup::{Outcome, client, ensure_ok, freeze, noise, proxy, proxy_with, thaw};

const SOON: Duration = Duration::from_secs(5);
/// Many megabytes may take this long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends until the other side takes no more; how it ended does not matter.
fn send_on(client: &testkit::Raw, megabytes: usize) -> anyhow::Result<()> {
    let mut sender = client.stream().try_clone()?;
    let block = noise(64 * 1024);
    for _ in 0..megabytes * 16 {
        if sender.write_all(&block).is_err() {
            break;
        }
    }
    Ok(())
}

#[test]
fn a_client_that_is_still_sending_gets_an_early_answer() -> Outcome {
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        conn.read_exactly(100_000)?;
        conn.write(
            "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large",
        )
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for framing in ["Content-Length: 50000000", "Transfer-Encoding: chunked"] {
        let mut client = client(&evenkeel)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"))?;
        if framing.contains("chunked") {
            client.send("2000000\r\n")?;
        }
        send_on(&client, 30)?;
        let response = client.response().context(framing)?;
        assert_eq!(
            (response.status, response.text().as_str()),
            (413, "too large")
        );
    }
    Ok(())
}

/// A connection whose kernel takes a few kilobytes of what nobody reads.
fn narrow_client(evenkeel: &testkit::Evenkeel) -> anyhow::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(1024)?;
    // The other side's buffer for sending is a multiple of this.
    socket.set_tcp_mss(536)?;
    socket.connect(&evenkeel.address("web")?.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

#[test]
fn an_upload_that_fails_while_the_answer_waits_is_not_answered_twice() -> Outcome {
    // The head alone is more than what the kernel takes for this client, and less than what is admitted.
    let fields: String = (0..60)
        .map(|n| format!("x-{n}: {}\r\n", "y".repeat(1000)))
        .collect();
    let origin = Origin::start(move |conn| {
        conn.read_head()?;
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok"
        ))?;
        conn.hang(PATIENCE);
        Ok(())
    })?;
    let listener = "timeouts: { body_idle: 500ms }";
    let mut evenkeel = proxy_with(&[origin.address()], &[listener], &[])?;
    let mut client = narrow_client(&evenkeel)?;
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")?;
    // The rest of the body never comes; who reads nothing meanwhile leaves the answer half written.
    evenkeel.wait_log("body_timeout", SOON * 2)?;
    let mut seen = Vec::new();
    let ended = client.read_to_end(&mut seen);
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text:.100}");
    assert!(
        seen.len() < 60_000,
        "the answer was not cut: {}",
        seen.len()
    );
    assert!(
        !text.contains("408"),
        "{ended:?}: {}",
        &text[text.len() - 300..]
    );
    Ok(())
}

/// A close on bytes that nobody has read is a reset, and takes with it what the client has not taken yet.
#[test]
fn an_early_answer_arrives_whole_though_its_client_sends_on() -> Outcome {
    let body = noise(300_000);
    let answer = reply(413, &body);
    let origin = Origin::start(move |conn| {
        conn.read_head()?;
        conn.write(&answer)?;
        conn.read_to_end().map(drop)
    })?;
    for framing in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let evenkeel = proxy(&[origin.address()])?;
        let mut client = client(&evenkeel)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"))?;
        wait_until("the answer is there", SOON, || {
            client.stream().peek(&mut [0]).is_ok_and(|count| count > 0)
        })?;
        // A chunk of its own, or bytes like any other.
        let piece = [b"10000\r\n", &*noise(64 << 10), b"\r\n"].concat();
        for _ in 0..64 {
            client.send(&piece)?;
        }
        let response = client.response().context(framing)?;
        ensure!(response.status == 413, "{response}");
        ensure!(response.body == body, "{} bytes", response.body.len());
    }
    Ok(())
}

#[test]
fn a_server_may_answer_while_it_reads() -> Outcome {
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        for _ in 0..100 {
            let piece = conn.read_exactly(1000)?;
            conn.write(piece)?;
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    let body = noise(100_000);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")?;
    let head = client.read_exactly("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".len())?;
    ensure!(head.ends_with(b"\r\n\r\n"), "{}", head.escape_ascii());
    for piece in body.chunks(1000) {
        client.send(piece)?;
        ensure!(client.read_exactly(1000)? == piece, "the echo is shifted");
    }
    client.expect_silence(Duration::from_millis(50))
}

#[test]
fn a_client_that_has_ended_its_half_gets_its_answer() -> Outcome {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::http(move |request| {
        wait.lock().expect("a lock").recv().ok();
        reply(200, &request.body)
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let before = origin.requests();
        let mut client = client(&evenkeel)?;
        client.send(request)?;
        client.half_close()?;
        wait_until("the origin has it", SOON, || origin.requests() > before)?;
        go.send(())?;
        ensure_ok(&client.response()?).context(request)?;
        client.expect_close()?;
    }
    Ok(())
}

/// Kilobytes of memory in use by a process.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.context("VmRSS").and_then(|text| Ok(text.parse()?))
}

/// Waits until a counter has stood still for half a second.
fn settled(counter: &AtomicU64) -> anyhow::Result<u64> {
    let mut last = (counter.load(Ordering::Relaxed), Instant::now());
    wait_until("the sender is held back", Duration::from_secs(20), || {
        let now = counter.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_millis(500)
    })?;
    Ok(last.0)
}

#[test]
fn a_client_that_does_not_read_holds_the_server_back() -> Outcome {
    const TOTAL: usize = 200 << 20;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let origin = Origin::start(move |conn| {
        conn.read_request()?;
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"
        ))?;
        let block = noise(1 << 20);
        for _ in 0..TOTAL >> 20 {
            conn.write(&block)?;
            counter.fetch_add(1 << 20, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let before = resident(evenkeel.pid())?;
    let mut client = client(&evenkeel)?;
    client.set_timeout(PATIENCE)?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let held = settled(&sent)?;
    ensure!(held < 64 << 20, "{held} bytes were taken from the server");
    let grown = resident(evenkeel.pid())?.saturating_sub(before);
    ensure!(grown < 8 * 1024, "memory grew by {grown} kB");
    // And when it reads again, all of it is there.
    let response = client.response()?;
    ensure!(
        response.body.len() == TOTAL,
        "{} bytes",
        response.body.len()
    );
    Ok(())
}

#[test]
fn a_server_that_does_not_read_holds_the_client_back() -> Outcome {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |conn| {
        let mut request = conn.read_head()?.context("a head")?;
        wait.lock().expect("a lock").recv().ok();
        conn.read_body(&mut request)?;
        conn.write(reply(200, request.body.len().to_string()))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let before = resident(evenkeel.pid())?;
    let mut client = client(&evenkeel)?;
    client.set_timeout(PATIENCE)?;
    let sent = Arc::new(AtomicU64::new(0));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        40 << 20
    ))?;
    let mut sender = client.stream().try_clone()?;
    let counter = sent.clone();
    let sending = std::thread::spawn(move || {
        let block = noise(1 << 20);
        (0..40).try_for_each(|_| {
            counter.fetch_add(1 << 20, Ordering::Relaxed);
            sender.write_all(&block)
        })
    });
    let held = settled(&sent)?;
    ensure!(held < 32 << 20, "{held} bytes were taken from the client");
    let grown = resident(evenkeel.pid())?.saturating_sub(before);
    ensure!(grown < 8 * 1024, "memory grew by {grown} kB");
    go.send(())?;
    assert_eq!(client.response()?.text(), (40 << 20).to_string());
    sending.join().expect("the sender ends")?;
    Ok(())
}

/// The server answers and goes while the last piece of the body is on its way: that piece is no next request.
#[test]
fn a_body_that_the_server_did_not_take_is_not_read_as_a_request() -> Outcome {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |conn| {
        while let Some(mut request) = conn.read_head()? {
            if request.method == "POST" {
                wait.lock().expect("a lock").recv().ok();
                conn.write(reply(200, "early"))?;
                return conn.reset();
            }
            conn.read_body(&mut request)?;
            conn.write(reply(200, request.target.as_bytes()))?;
        }
        Ok(())
    })?;
    let mut evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    let evil = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = 10 + evil.len();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n0123456789"
    ))?;
    wait_until("the origin has the head", SOON, || origin.requests() == 1)?;
    // Both happen before Evenkeel looks.
    freeze(&mut evenkeel)?;
    go.send(())?;
    wait_until("the server has gone", SOON, || origin.open() == 0)?;
    client.send(evil)?;
    thaw(&mut evenkeel)?;
    let first = client.response()?;
    ensure!(first.status == 200 || first.status == 502, "{first}");
    client
        .expect_silence(Duration::from_millis(200))
        .or_else(|_| client.expect_close())?;
    assert_eq!(origin.requests(), 1, "the body was read as a request");
    Ok(())
}

/// A server that leaves the request body unread while it answers at length is not silent.
#[test]
fn a_long_answer_beside_an_unread_body_is_not_cut() -> Outcome {
    const PIECES: usize = 15;
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        let length = PIECES * 10;
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ))?;
        for _ in 0..PIECES {
            std::thread::sleep(Duration::from_millis(100));
            conn.write([b'x'; 10])?;
        }
        // A close with input unread is a reset, which may overtake the last bytes.
        conn.hang(PATIENCE);
        Ok(())
    })?;
    let evenkeel = proxy_with(&[origin.address()], &[], &["timeouts: { idle: 500ms }"])?;
    let mut client = client(&evenkeel)?;
    let mut sending = client.stream().try_clone()?;
    let body = 64 << 20;
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n"
    ))?;
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        // More than any buffer on the way takes; it ends when the connection does.
        let piece = vec![0; 1 << 20];
        while sending.write_all(&piece).is_ok() {}
    });
    let response = client.response()?;
    assert_eq!(response.status, 200, "{response}");
    assert_eq!(response.body.len(), PIECES * 10);
    drop(client);
    drop(evenkeel);
    sender.join().expect("it ends");
    Ok(())
}

/// The same the other way: a server that has begun to answer, and takes the body meanwhile, is not silent.
#[test]
fn a_long_body_beside_an_answer_that_waits_for_it_is_not_cut() -> Outcome {
    const PIECES: usize = 15;
    let origin = Origin::start(|conn| {
        let Some(mut request) = conn.read_head()? else {
            return Ok(());
        };
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")?;
        conn.read_body(&mut request)?;
        conn.write("abc")
    })?;
    let evenkeel = proxy_with(&[origin.address()], &[], &["timeouts: { idle: 500ms }"])?;
    let mut client = client(&evenkeel)?;
    let body = PIECES * 10;
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n"
    ))?;
    for _ in 0..PIECES {
        std::thread::sleep(Duration::from_millis(100));
        client.send([b'x'; 10])?;
    }
    let response = client.response()?;
    assert_eq!((response.status, &*response.text()), (200, "abc"));
    Ok(())
}

/// A server that answers before it reads ten bytes, and keeps its connection.
fn early(status: &'static str) -> anyhow::Result<Origin> {
    Origin::start(move |conn| {
        while conn.read_head()?.is_some() {
            conn.write(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"))?;
            conn.read_exactly(10)?;
        }
        Ok(())
    })
}

#[test]
fn what_is_answered_early_says_whether_the_connection_goes_on() -> Outcome {
    // Refused: nobody waits for the rest, and the client hears that.
    let origin = early("413 Content Too Large")?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut refused = client(&evenkeel)?;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let answer = refused.exchange(head)?;
    ensure!((answer.status, answer.closes()) == (413, true), "{answer}");
    // Served: the rest comes, and the next request after it.
    let origin = early("200 OK")?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut served = client(&evenkeel)?;
    for _ in 0..3 {
        let answer = served.exchange(head)?;
        ensure!((answer.status, answer.closes()) == (200, false), "{answer}");
        served.send("0123456789")?;
    }
    ensure!(origin.connections() == 1, "{}", origin.connections());
    // Nobody has told this client to send.
    let expects = head.replace("Content-Length", "Expect: 100-continue\r\nContent-Length");
    let mut held_back = client(&evenkeel)?;
    let answer = held_back.exchange(expects)?;
    ensure!((answer.status, answer.closes()) == (200, true), "{answer}");
    held_back.expect_close()
}
