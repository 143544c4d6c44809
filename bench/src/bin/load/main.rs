//! Load of a kind that wrk does not give: requests at a fixed rate, sessions of TLS used again, and idle connections.
//! One thread; results are one line of JSON on standard output.
//!
//! `load rate IP:PORT PATH RATE SECONDS CONNECTIONS [OPTIONS]`; a rate of 0: each connection as soon as it is answered
//! `load idle IP:PORT PATH CONNECTIONS [OPTIONS]`
//! `load ask IP:PORT PATH [OPTIONS]`: the head of one answer
//!
//! Options: `--headers N`, `--upload BYTES`, `--close`, `--cookie NAME=VALUE`, `--tls CERTIFICATE`, `--resume`.

#![forbid(unsafe_code)]

mod answer;
mod idle;
mod rate;
mod wire;

use std::path::Path;

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
            tls: tls(options)?,
            resume: options.contains(&"--resume"),
        }),
        ["idle", target, path, connections, options @ ..] => idle::run(
            target.parse()?,
            &request(target, path, options)?,
            connections.parse()?,
            &tls(options)?,
        ),
        ["ask", target, path, options @ ..] => idle::ask(
            target.parse()?,
            &request(target, path, options)?,
            &tls(options)?,
        ),
        _ => bail!("load rate …, load idle … or load ask …: see the top of its source"),
    }
}

/// The value that follows an option's name.
fn value<'a>(options: &[&'a str], name: &str) -> Result<Option<&'a str>> {
    let Some(at) = options.iter().position(|option| *option == name) else {
        return Ok(None);
    };
    let value = options.get(at + 1);
    Ok(Some(
        *value.with_context(|| format!("{name} needs a value"))?,
    ))
}

fn tls(options: &[&str]) -> Result<wire::Tls> {
    let certificate = value(options, "--tls")?;
    let tls = certificate.map(|path| wire::tls(Path::new(path)));
    tls.transpose()
}

/// The bytes of one request.
fn request(host: &str, path: &str, options: &[&str]) -> Result<Vec<u8>> {
    let number = |name: &str| -> Result<usize> {
        let value = value(options, name)?;
        Ok(value.map_or(Ok(0), str::parse)?)
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
    if let Some(cookie) = value(options, "--cookie")? {
        text += &format!("Cookie: {cookie}\r\n");
    }
    if options.contains(&"--close") {
        text += "Connection: close\r\n";
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.resize(bytes.len() + upload, b'x');
    Ok(bytes)
}
