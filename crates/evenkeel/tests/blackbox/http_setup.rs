//! What the HTTP tests share: Evenkeel before one pool, bodies that show a shift, and how a refusal looks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::{Evenkeel, Raw, Response, Signal, wait_until};

use crate::command::BINARY;

pub(crate) type Outcome = Result<()>;

/// One worker before one pool of these servers, without probes.
pub(crate) fn proxy(servers: &[SocketAddr]) -> Result<Evenkeel> {
    proxy_with(servers, &[], &[])
}

/// The same with more lines for the listener and for the pool.
pub(crate) fn proxy_with(
    servers: &[SocketAddr],
    listener: &[&str],
    pool: &[&str],
) -> Result<Evenkeel> {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let (servers, listener, pool) = (
        servers.join(", "),
        listener.join("\n    "),
        pool.join("\n    "),
    );
    let config = format!(
        r#"
admin: off
workers: 1
listeners:
  web:
    bind: "127.0.0.1:0"
    pool: site
    {listener}
pools:
  site:
    servers: [{servers}]
    health_check: off
    {pool}
"#
    );
    Evenkeel::start(BINARY, &config)
}

/// A client of the listener `web`.
pub(crate) fn client(evenkeel: &Evenkeel) -> Result<Raw> {
    Raw::connect(evenkeel.address("web")?)
}

/// Bytes without a period, so that a loss, a repeat or a shift shows.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A chunked body in chunks of `size` bytes, with these trailer lines.
pub(crate) fn chunks(body: &[u8], size: usize, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

/// Whether Evenkeel itself answered this.
pub(crate) fn ensure_refused(response: &Response, status: u16, reason: &str) -> Outcome {
    ensure!(
        response.status == status && response.header("x-evenkeel-reason") == Some(reason),
        "{status} {reason} was expected, this came: {response}"
    );
    Ok(())
}

/// Whether a server answered this with 200.
pub(crate) fn ensure_ok(response: &Response) -> Outcome {
    ensure!(
        response.status == 200,
        "200 was expected, this came: {response}"
    );
    Ok(())
}

/// Stops every thread of Evenkeel, so that what happens before `thaw` is there at once when it looks.
pub(crate) fn freeze(evenkeel: &mut Evenkeel) -> Outcome {
    evenkeel.signal(Signal::STOP)?;
    let tasks = format!("/proc/{}/task", evenkeel.pid());
    let stopped = || {
        std::fs::read_dir(&tasks).is_ok_and(|mut tasks| {
            tasks.all(|task| {
                let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
                stat.is_ok_and(|stat| stat.contains(") T "))
            })
        })
    };
    wait_until("every thread has stopped", Duration::from_secs(5), stopped)
}

pub(crate) fn thaw(evenkeel: &mut Evenkeel) -> Outcome {
    evenkeel.signal(Signal::CONT)
}
