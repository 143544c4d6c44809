//! What is spoken with a peer: plain HTTP/1.1 or TCP, TLS with HTTP/1.1, TLS with HTTP/2, and a cookie that every
//! client holds. The certificate is made anew for each run and is the same for all peers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::which;

/// The cookie that binds a client to a server, where a scenario wants that.
pub(crate) const COOKIE: &str = "SERVERID";

/// What clients speak over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secure {
    Http1,
    Http2,
}

/// A certificate on P-256 for 127.0.0.1, in files as the peers want them.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one.
    pub(crate) bundle: PathBuf,
}

impl Keys {
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let keys = Self {
            certificate: folder.join("bench.pem"),
            key: folder.join("bench.key"),
            bundle: folder.join("bench-bundle.pem"),
        };
        let openssl = which("openssl").context("openssl is missing: apt-get install openssl")?;
        let mut make = Command::new(openssl);
        make.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=bench"]);
        make.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        make.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        make.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        make.arg("-keyout").arg(&keys.key);
        make.arg("-out").arg(&keys.certificate);
        let made = make.output()?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "openssl made no certificate: {said}");
        let both = [&keys.certificate, &keys.key].map(std::fs::read);
        let [certificate, key] = both;
        std::fs::write(&keys.bundle, [certificate?, key?].concat())?;
        Ok(keys)
    }
}

/// Where a peer is reached, and how.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) secure: Option<Secure>,
    /// gRPC over HTTP/2 with prior knowledge.
    pub(crate) grpc: bool,
    pub(crate) certificate: PathBuf,
    /// `name=value`, as the peer has set it.
    pub(crate) cookie: Option<String>,
}

impl Door {
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = self.secure.map_or("http", |_| "https");
        format!("{scheme}://{}{path}", self.address)
    }
}

/// The cookie that the head of an answer sets.
pub(crate) fn cookie_of(head: &str) -> Option<String> {
    let set = head.lines().filter_map(|line| line.split_once(": "));
    let mut cookies = set.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let (_, value) = cookies.find(|(_, value)| value.starts_with(COOKIE))?;
    Some(value.split(';').next()?.to_owned())
}
