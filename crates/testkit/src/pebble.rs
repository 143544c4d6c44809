//! Pebble from Debian: an ACME authority for tests, by the people who wrote Let's Encrypt's. It believes that every
//! name is at 127.0.0.1.

use crate::dir::TempDir;
use crate::port::Port;
use crate::process::Process;
use crate::tools::{curl, program};
use crate::wait::wait_accepts;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const START_WITHIN: Duration = Duration::from_secs(20);

/// How it runs.
#[derive(Debug, Clone)]
pub struct PebblePlan<'a> {
    /// PEM of the certificate that it shows to its clients, for 127.0.0.1, and its key.
    pub cert: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Where it asks for tokens (HTTP-01).
    pub http: SocketAddr,
    /// Where it shakes hands (TLS-ALPN-01).
    pub tls: SocketAddr,
    /// Of a hundred good nonces this many are refused.
    pub bad_nonces: u32,
    /// More of its `pebble` section, as JSON: `"domainBlocklist": ["b.example"],`.
    pub settings: &'a str,
}

/// A running authority. Ends with its value; what it gave is then unknown to everybody.
#[derive(Debug)]
pub struct Pebble {
    process: Process,
    _names: Process,
    acme: Port,
    management: Port,
    _dns: Port,
    _dir: TempDir,
}

impl Pebble {
    /// Starts it on a port that was reserved, and waits until it accepts.
    ///
    /// # Errors
    ///
    /// When it does not start; the error holds what it said.
    pub fn start(acme: Port, plan: &PebblePlan<'_>) -> Result<Self> {
        let (management, dns) = (Port::reserve()?, Port::reserve()?);
        let names = names(dns.address())?;
        let dir = TempDir::new("pebble")?;
        let cert = dir.write("cert.pem", plan.cert)?;
        let key = dir.write("key.pem", plan.key)?;
        let config = format!(
            "{{ \"pebble\": {{ {} \"listenAddress\": \"{}\", \"managementListenAddress\": \"{}\",
  \"certificate\": {cert:?}, \"privateKey\": {key:?}, \"httpPort\": {}, \"tlsPort\": {} }} }}\n",
            plan.settings,
            acme.address(),
            management.address(),
            plan.http.port(),
            plan.tls.port(),
        );
        let config = dir.write("pebble.json", config)?;
        let mut command = Command::new(find("pebble")?);
        command
            .arg("-config")
            .arg(config)
            .args(["-dnsserver", &dns.address().to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", plan.bad_nonces.to_string());
        let mut process = Process::spawn("pebble", command)?;
        for address in [acme.address(), management.address()] {
            wait_accepts(address, START_WITHIN).with_context(|| {
                let status = process.exit_status().ok().flatten();
                format!("pebble did not start (ended: {status:?}){}", process.said())
            })?;
        }
        Ok(Self {
            process,
            _names: names,
            acme,
            management,
            _dns: dns,
            _dir: dir,
        })
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        directory(&self.acme)
    }

    /// The certificate of its root, as PEM: who believes it believes what it gives.
    ///
    /// # Errors
    ///
    /// When it does not tell.
    pub fn root(&self) -> Result<String> {
        let url = format!("https://{}/roots/0", self.management.address());
        Ok(curl(&["-k", &url])?.text())
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it, and gives its port back.
    pub fn end(mut self) -> Port {
        self.process.kill();
        self.acme
    }
}

/// The URL of the directory of an authority that is started on this port.
pub fn directory(port: &Port) -> String {
    format!("https://{}/dir", port.address())
}

/// A server of DNS that has 127.0.0.1 for every name.
fn names(address: SocketAddr) -> Result<Process> {
    let mut command = Command::new(find("pebble-challtestsrv")?);
    let address = address.to_string();
    command.args(["-dns01", &address, "-defaultIPv4", "127.0.0.1"]);
    // What it would listen to by default is for others to have.
    for off in ["-defaultIPv6", "-http01", "-https01", "-tlsalpn01"] {
        command.args([off, ""]);
    }
    let management = Port::reserve()?;
    command.args(["-management", &management.address().to_string()]);
    let process = Process::spawn("pebble-challtestsrv", command)?;
    wait_accepts(address.parse()?, START_WITHIN)
        .with_context(|| format!("pebble-challtestsrv did not start{}", process.said()))?;
    Ok(process)
}

fn find(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| format!("{name} is not installed"))
}
