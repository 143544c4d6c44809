//! Load of a kind that wrk does not give: requests at a fixed rate, and idle connections. One thread; results are one
//! line of JSON on standard output.
//!
//! `load rate IP:PORT PATH RATE SECONDS CONNECTIONS [--headers N] [--upload BYTES] [--close]`
//! `load idle IP:PORT PATH CONNECTIONS`

#![forbid(unsafe_code)]

mod answer;
mod idle;
mod rate;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [
            "rate",
            target,
            path,
            rate,
            seconds,
            connections,
            options @ ..,
        ] => rate::run(&rate::Plan {
            target: target.parse()?,
            request: request(target, path, options)?,
            rate: rate.parse()?,
            seconds: seconds.parse()?,
            connections: connections.parse()?,
            close: options.contains(&"--close"),
        }),
        ["idle", target, path, connections] => idle::run(
            target.parse()?,
            &request(target, path, &[])?,
            connections.parse()?,
        ),
        _ => bail!("load rate … or load idle …: see the top of its source"),
    }
}

/// The bytes of one request.
fn request(host: &str, path: &str, options: &[&str]) -> Result<Vec<u8>> {
    let number = |name: &str| -> Result<usize> {
        let Some(at) = options.iter().position(|option| *option == name) else {
            return Ok(0);
        };
        let value = options.get(at + 1);
        Ok(value.with_context(|| format!("{name} N"))?.parse()?)
    };
    let (headers, upload) = (number("--headers")?, number("--upload")?);
    let method = if upload > 0 { "POST" } else { "GET" };
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in evenkeel_bench::browser::fields(headers) {
        text += &format!("{name}: {value}\r\n");
    }
    if upload > 0 {
        text += &format!("Content-Length: {upload}\r\n");
    }
    if options.contains(&"--close") {
        text += "Connection: close\r\n";
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.resize(bytes.len() + upload, b'x');
    Ok(bytes)
}
