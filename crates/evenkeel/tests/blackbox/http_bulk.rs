//! Large bodies, which pass without being looked at: every byte arrives, and every end is seen as what it is.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::{Origin, reply, wait_until};

use crate::http_setup::{Outcome, client, noise, proxy};

/// Many megabytes may take this long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGE: usize = 3 << 20;

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn large_bodies_arrive_whole_both_ways_over_one_connection_to_the_server() -> Outcome {
    let origin = Origin::http(|request| reply(200, &request.body))?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    client.set_timeout(PATIENCE)?;
    for size in [LARGE, 1, LARGE + 12_345, 200_000, 0, LARGE - 1] {
        let body = noise(size);
        let mut sending = client.stream().try_clone()?;
        let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        let sent = [request.as_bytes(), &body].concat();
        let sender = std::thread::spawn(move || std::io::Write::write_all(&mut sending, &sent));
        let response = client.response()?;
        sender.join().expect("it ends")?;
        assert_eq!(response.status, 200, "{response}");
        ensure!(response.body == body, "{size} bytes came back changed");
    }
    assert_eq!(origin.connections(), 1, "the server's connection was kept");
    Ok(())
}

#[test]
fn a_large_body_without_a_length_ends_with_the_connection() -> Outcome {
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        conn.write("HTTP/1.1 200 OK\r\n\r\n")?;
        conn.write(noise(LARGE))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut client = client(&evenkeel)?;
    client.set_timeout(PATIENCE)?;
    let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(response.body == noise(LARGE), "{response}");
    Ok(())
}

#[test]
fn a_large_body_that_breaks_off_is_seen_as_broken() -> Outcome {
    for resets in [false, true] {
        let origin = Origin::start(move |conn| {
            conn.read_head()?;
            conn.write(head(LARGE))?;
            conn.write(noise(LARGE - 100_000))?;
            if resets { conn.reset() } else { conn.close() }
        })?;
        let evenkeel = proxy(&[origin.address()])?;
        let mut client = client(&evenkeel)?;
        client.set_timeout(PATIENCE)?;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut came = Vec::new();
        let end = client.stream().read_to_end(&mut came);
        ensure!(end.is_err(), "the end looked like a clean one");
        ensure!(came.len() < LARGE, "{} bytes of a cut body", came.len());
    }
    Ok(())
}

/// What follows a body that was not looked at is no next response.
#[test]
fn what_a_server_sends_beyond_a_large_body_reaches_nobody() -> Outcome {
    let origin = Origin::start(|conn| {
        while conn.read_head()?.is_some() {
            let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            conn.write([head(LARGE).as_bytes(), &noise(LARGE), evil.as_bytes()].concat())?;
        }
        Ok(())
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    for _ in 0..4 {
        let mut client = client(&evenkeel)?;
        client.set_timeout(PATIENCE)?;
        for _ in 0..2 {
            let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            ensure!(response.body == noise(LARGE), "{response}");
        }
    }
    Ok(())
}

/// More slow readers than there are pipes for them: the others are served by copying, and all in the end.
#[test]
fn more_slow_readers_than_pipes_get_all_their_bytes() -> Outcome {
    const READERS: usize = 48;
    const SIZE: usize = 4 << 20;
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        conn.write(head(SIZE))?;
        let piece = vec![b'x'; 1 << 20];
        (0..SIZE >> 20).try_for_each(|_| conn.write(&piece))
    })?;
    let evenkeel = proxy(&[origin.address()])?;
    let mut readers = (0..READERS)
        .map(|_| {
            let mut reader = client(&evenkeel)?;
            reader.set_timeout(PATIENCE)?;
            reader.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            Ok(reader)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    wait_until("all are served", PATIENCE, || {
        origin.requests() == READERS as u64
    })?;
    // Who asks for little meanwhile is served beside them.
    let mut small = client(&evenkeel)?;
    small.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    small
        .stream()
        .read_exact(&mut [0; 100])
        .context("a busy proxy")?;
    for reader in &mut readers {
        let length = reader.response()?.body.len();
        assert_eq!(length, SIZE);
    }
    Ok(())
}
