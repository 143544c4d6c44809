//! Who is measured: where each proxy is found and how it is laid out to do the same work. One worker, connections to
//! servers kept alive, `X-Forwarded-For` set, no access log, health checks on.

mod caddy;
mod envoy;
pub(crate) mod evenkeel;
mod floor;
mod haproxy;
mod install;
mod nginx;
mod traefik;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::door::{Keys, Secure};

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Evenkeel,
    Floor,
    Haproxy,
    Nginx,
    Envoy,
    Traefik,
    Caddy,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Http,
    Tcp,
}

/// What a proxy is to do.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// A second port, for an admin listener that cannot be left out.
    pub(crate) admin_port: u16,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) mode: Mode,
    pub(crate) bulk: bool,
    /// Clients close after each request.
    pub(crate) close: bool,
    pub(crate) routes: usize,
    /// What clients speak over TLS; None: no TLS.
    pub(crate) secure: Option<Secure>,
    pub(crate) keys: Keys,
    /// gRPC over HTTP/2 without TLS on both sides.
    pub(crate) grpc: bool,
    /// Each client keeps its server by a cookie.
    pub(crate) cookie: bool,
    /// Threads of Evenkeel's data plane; the others have one.
    pub(crate) workers: usize,
    /// It shares both cores with the load and the servers.
    pub(crate) both_cores: bool,
    /// By the name that Evenkeel's config has for it; the others only know round robin here.
    pub(crate) algorithm: &'static str,
    /// Connections of clients at once, at most.
    pub(crate) connections: usize,
    /// A folder of its own.
    pub(crate) folder: PathBuf,
}

/// A proxy that is there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) peer: Peer,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

impl Peer {
    /// Those that speak HTTP/2 with servers too.
    pub(crate) const GRPC: &[Self] = &[Self::Evenkeel, Self::Haproxy, Self::Nginx, Self::Envoy];
    /// Those of every scenario.
    pub(crate) const MAIN: &[Self] = &[Self::Evenkeel, Self::Floor, Self::Haproxy, Self::Nginx];

    pub(crate) const ALL: &[Self] = &[
        Self::Evenkeel,
        Self::Floor,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
        Self::Traefik,
        Self::Caddy,
    ];

    fn has_tls(self) -> bool {
        matches!(
            self,
            Self::Evenkeel | Self::Haproxy | Self::Nginx | Self::Envoy
        )
    }

    /// Without a table of its own, or a part that has to be paid for.
    fn has_cookies(self) -> bool {
        matches!(self, Self::Evenkeel | Self::Haproxy)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel",
            Self::Floor => "floor",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
        }
    }

    /// As its own people write it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            other => other.name(),
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let known = || Self::ALL.iter().map(|peer| peer.name()).collect::<Vec<_>>();
        let found = Self::ALL.iter().find(|peer| peer.name() == name);
        let found =
            found.with_context(|| format!("no peer {name:?}; there are {}", known().join(", ")));
        found.copied()
    }

    /// Finds or installs it; the error says how to get it.
    pub(crate) fn find(self) -> Result<Found> {
        let (program, version) = match self {
            Self::Evenkeel => evenkeel::find(),
            Self::Floor => floor::find(),
            Self::Haproxy => haproxy::find(),
            Self::Nginx => nginx::find(),
            Self::Envoy => envoy::find(),
            Self::Traefik => traefik::find(),
            Self::Caddy => caddy::find(),
        }?;
        Ok(Found {
            peer: self,
            program,
            version,
        })
    }
}

impl Found {
    /// Writes its config and tells how to start it; the error says why it has no place in this scenario.
    pub(crate) fn lay_out(&self, setup: &Setup) -> Result<Command> {
        std::fs::create_dir_all(&setup.folder)?;
        ensure!(
            setup.secure.is_none() || self.peer.has_tls(),
            "not laid out for TLS"
        );
        ensure!(
            !setup.grpc || Peer::GRPC.contains(&self.peer),
            "not laid out for gRPC"
        );
        ensure!(
            !setup.cookie || self.peer.has_cookies(),
            "no cookie that keeps a server"
        );
        match self.peer {
            Peer::Evenkeel => evenkeel::lay_out(&self.program, setup),
            Peer::Floor => floor::lay_out(&self.program, setup),
            Peer::Haproxy => haproxy::lay_out(&self.program, setup),
            Peer::Nginx => nginx::lay_out(&self.program, setup),
            Peer::Envoy => envoy::lay_out(&self.program, setup),
            Peer::Traefik => traefik::lay_out(&self.program, setup),
            Peer::Caddy => caddy::lay_out(&self.program, setup),
        }
    }
}

impl Setup {
    /// Writes a file into the folder.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// The path prefixes of the routes, each ending in `/`.
    fn prefixes(&self) -> impl Iterator<Item = String> {
        (0..self.routes).map(|at| format!("/team{}/service{at}/", at % 50))
    }

    /// A line of text for each server, with its number.
    fn lines(&self, line: impl Fn(usize, SocketAddr) -> String) -> String {
        let servers = self.servers.iter().enumerate();
        servers.map(|(at, server)| line(at, *server)).collect()
    }
}

/// The first line of what a program says when asked for its version.
fn version(program: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output()?;
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said);
    Ok(text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("?")
        .trim()
        .to_owned())
}

/// A program of this workspace, beside us.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(
        program.is_file(),
        "{name} is not built: use cargo xtask bench"
    );
    Ok(program)
}
