//! The built binary as a process: started on a config, asked for its ports, signalled, read.
//!
//! What it relies on, in text (`key=value`) or JSON lines alike: a line with `listening`,
//! `listener=NAME` and `address=IP:PORT` for each bound address; one that names the `admin`
//! address; then one whose message is `ready`.

use crate::dir::TempDir;
use crate::process::{Mark, Process};
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running `evenkeel run FILE`; dropping it kills it. What a [`Process`] can do it can too.
#[derive(Debug)]
pub struct Evenkeel {
    process: Process,
    dir: TempDir,
    config: PathBuf,
}

impl Evenkeel {
    /// Writes the config, starts `binary` on it and waits until it is ready, at most 20 s. Binds
    /// should be `127.0.0.1:0`; ask for the addresses with [`address`](Self::address).
    /// Integration tests of the `evenkeel` crate pass `env!("CARGO_BIN_EXE_evenkeel")`.
    ///
    /// # Errors
    ///
    /// When it does not get ready; the error holds all that it said.
    pub fn start(binary: impl AsRef<Path>, config: &str) -> Result<Self> {
        Self::start_with(binary, config, |_| {})
    }

    /// The same, with more arguments or environment: `|command| { command.env("A", "b"); }`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(
        binary: impl AsRef<Path>,
        config: &str,
        customise: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut started = Self::launch(binary, config, customise)?;
        let ready = "ready";
        started
            .process
            .wait_line(Mark(0), READY_WITHIN, ready, is_ready)?;
        Ok(started)
    }

    /// Starts it without waiting, for a start that should fail or take long.
    ///
    /// # Errors
    ///
    /// When the config cannot be written or the binary not be started.
    pub fn launch(
        binary: impl AsRef<Path>,
        config: &str,
        customise: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let dir = TempDir::new("run")?;
        let config = dir.write("evenkeel.yaml", config)?;
        let mut command = Command::new(binary.as_ref());
        command.arg("run").arg(&config).current_dir(dir.path());
        customise(&mut command);
        let process = Process::spawn("evenkeel", command)?;
        Ok(Self {
            process,
            dir,
            config,
        })
    }

    /// Where the listener is, the last bound address if it has several. An unspecified address is
    /// given as loopback.
    ///
    /// # Errors
    ///
    /// When no line has named it yet.
    pub fn address(&self, listener: &str) -> Result<SocketAddr> {
        let addresses = self.addresses(listener)?;
        addresses.last().copied().with_context(|| {
            let said = self.process.said();
            format!("no `listening` line for listener {listener:?}{said}")
        })
    }

    /// Every address of the listener that was ever bound, in the order of its log lines. Those of
    /// Unix sockets are left out.
    ///
    /// # Errors
    ///
    /// When a line holds an address that is none.
    pub fn addresses(&self, listener: &str) -> Result<Vec<SocketAddr>> {
        let lines = self.process.log_lines();
        let named = lines.iter().filter(|line| {
            line.contains("listening") && field(line, "listener").as_deref() == Some(listener)
        });
        let texts = named.filter_map(|line| field(line, "address"));
        let sockets = texts.filter(|text| !text.starts_with("unix:"));
        sockets.map(|text| parse_address(&text)).collect()
    }

    /// Where the admin API is.
    ///
    /// # Errors
    ///
    /// When no line has named it, as with `admin: off`.
    pub fn admin(&self) -> Result<SocketAddr> {
        let lines = self.process.log_lines();
        let names_admin = |line: &&String| {
            line.contains("admin") && field(line, "listener").is_none_or(|name| name == "admin")
        };
        let text = lines
            .iter()
            .filter(names_admin)
            .filter_map(|line| field(line, "address"))
            .next_back();
        match text {
            Some(text) => parse_address(&text),
            None => bail!("no line with the admin address{}", self.process.said()),
        }
    }

    /// `http://IP:PORT` of the admin API.
    ///
    /// # Errors
    ///
    /// As [`admin`](Self::admin).
    pub fn admin_url(&self) -> Result<String> {
        Ok(format!("http://{}", self.admin()?))
    }

    /// The folder of the config, which is also its working folder.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// The config file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Replaces the config file at once, as an editor does (write beside it, then rename).
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let beside = self.dir.write("evenkeel.yaml.new", config)?;
        Ok(std::fs::rename(beside, &self.config)?)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    ///
    /// When it still runs after `limit`, or did not exit with 0.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait_exit(limit)?;
        if !status.success() {
            bail!("evenkeel ended with {status}{}", self.process.said());
        }
        Ok(())
    }
}

impl Deref for Evenkeel {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Evenkeel {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn is_ready(line: &str) -> bool {
    if let Some(message) = field(line, "message") {
        return message == "ready";
    }
    line.split_whitespace().any(|word| word == "ready")
}

/// The value of `key` in a log line: `key=value`, `key="a value"` or `"key":"value"`.
fn field(line: &str, key: &str) -> Option<String> {
    let json = format!("\"{key}\":");
    if let Some((_, rest)) = line.split_once(&json) {
        return Some(value(rest.trim_start(), &[',', '}', ']']));
    }
    let text = format!("{key}=");
    let mut from = 0;
    while let Some(at) = line.get(from..)?.find(&text) {
        let start = from + at;
        let before = line.get(..start)?.chars().next_back();
        from = start + text.len();
        if before.is_none_or(char::is_whitespace) {
            return Some(value(line.get(from..)?, &[' ', '\t']));
        }
    }
    None
}

fn value(text: &str, ends: &[char]) -> String {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
        None => text.split(ends).next().unwrap_or_default().to_owned(),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr> {
    let mut address: SocketAddr = text
        .parse()
        .with_context(|| format!("{text:?} is no address"))?;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_text_and_json_lines() {
        let text = r#"2026-11-21T11:00:00Z INFO listening listener=web x_address=no address=127.0.0.1:4321"#;
        let json = r#"{"level":"INFO","message":"listening","listener":"web","address":"127.0.0.1:4321","n":7}"#;
        for line in [text, json] {
            assert_eq!(field(line, "listener").as_deref(), Some("web"), "{line}");
            assert_eq!(
                field(line, "address").as_deref(),
                Some("127.0.0.1:4321"),
                "{line}"
            );
            assert_eq!(field(line, "pool"), None, "{line}");
        }
        assert_eq!(field(json, "n").as_deref(), Some("7"));
        assert_eq!(
            field(r#"x address="[::1]:80" y"#, "address").as_deref(),
            Some("[::1]:80")
        );
    }

    #[test]
    fn ready_is_a_message_of_its_own() {
        let cases = [
            ("INFO ready workers=2", true),
            (r#"{"message":"ready","workers":2}"#, true),
            ("INFO already listening", false),
            (r#"{"message":"not ready"}"#, false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_ready(line), expected, "{line}");
        }
    }

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        let address = parse_address("[::]:8080").unwrap();
        assert_eq!(address, "127.0.0.1:8080".parse().unwrap());
    }
}
