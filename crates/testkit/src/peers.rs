//! nginx, HAProxy and nghttpd from Debian as servers on loopback, each one process in the foreground that
//! ends with its value and can be killed and started again on the same port.

use crate::dir::TempDir;
use crate::port::Port;
use crate::process::Process;
use crate::tools::program;
use crate::wait::wait_accepts;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const START_WITHIN: Duration = Duration::from_secs(10);

/// nginx as a server. It answers its name at `/` (any method), `ok` at `/health`, 1 KiB, 64 KiB
/// and 1 MiB at `/1k`, `/64k` and `/1m`, and names itself in `x-server` on every answer.
#[derive(Debug)]
pub struct Nginx {
    name: String,
    snippet: String,
    peer: Peer,
}

impl Nginx {
    /// Starts it and waits until it accepts. `snippet` goes into its `server` block: more
    /// locations, or other settings; may be empty.
    ///
    /// # Errors
    ///
    /// When it does not start; the error holds what it said.
    pub fn start(name: &str, snippet: &str) -> Result<Self> {
        Self::start_on(name, "", snippet)
    }

    /// The same on TLS; `snippet` names its certificate and key.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_tls(name: &str, snippet: &str) -> Result<Self> {
        Self::start_on(name, "ssl", snippet)
    }

    /// The same on TLS where clients may agree on HTTP/2.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_http2(name: &str, snippet: &str) -> Result<Self> {
        Self::start_on(name, "ssl http2", snippet)
    }

    fn start_on(name: &str, listen: &str, snippet: &str) -> Result<Self> {
        let port = Port::reserve()?;
        let dir = TempDir::new("nginx")?;
        for (file, size) in [("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
            dir.write(&format!("files/{file}"), pattern(size))?;
        }
        let config = nginx_config(name, &dir, (port.number(), listen), snippet);
        let file = dir.write("nginx.conf", config)?;
        let args = ["-e", "stderr", "-p"].map(Into::into).into_iter();
        let args = args.chain([dir.path().into(), "-c".into(), file]).collect();
        let peer = Peer::start(name, "nginx", args, port, dir)?;
        Ok(Self {
            name: name.to_owned(),
            snippet: snippet.to_owned(),
            peer,
        })
    }

    /// Starts one of TLS again on the same port, as a deployment does: from now on its clients may agree on HTTP/2, or
    /// may not.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn restart_with(&mut self, http2: bool) -> Result<()> {
        let listen = if http2 { "ssl http2" } else { "ssl" };
        let (port, dir) = (self.peer.port.number(), &self.peer.dir);
        let config = nginx_config(&self.name, dir, (port, listen), &self.snippet);
        dir.write("nginx.conf", config)?;
        self.peer.restart()
    }

    /// What it answers at `/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.peer.port.address()
    }

    /// Ends it at once (SIGKILL). The port stays reserved: connections are refused.
    pub fn kill(&mut self) {
        self.peer.process.kill();
    }

    /// Kills it if it runs, starts it again on the same port, and waits until it accepts.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.peer.restart()
    }

    /// The process, for signals and its error log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.peer.process
    }
}

/// The bytes of the sized files: a line of digits over and over, so that a shift shows.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    let line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
    line.iter().copied().cycle().take(size).collect()
}

fn nginx_config(name: &str, dir: &TempDir, (port, listen): (u16, &str), snippet: &str) -> String {
    let dir = dir.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .collect();
    // As root it would give its folders to "nobody", whom a user namespace does not have.
    let user = match rustix::process::geteuid().is_root() {
        true => "user root root;",
        false => "",
    };
    format!(
        "daemon off; master_process off; {user} pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/octet-stream;
  keepalive_requests 1000000000;
  {temporary}
  server {{
    listen 127.0.0.1:{port} {listen} backlog=4096;
    add_header x-server {name} always;
    root {dir}/files;
    location = / {{ return 200 \"{name}\\n\"; }}
    location = /health {{ return 200 \"ok\\n\"; }}
    {snippet}
  }}
}}
"
    )
}

/// HAProxy on a config of the test's own.
#[derive(Debug)]
pub struct Haproxy {
    peer: Peer,
}

impl Haproxy {
    /// Starts it and waits until it accepts. In `config`, `{port}` stands for its reserved port:
    /// `frontend f\n bind 127.0.0.1:{port}\n …`.
    ///
    /// # Errors
    ///
    /// When it does not start; the error holds what it said.
    pub fn start(config: &str) -> Result<Self> {
        let port = Port::reserve()?;
        let dir = TempDir::new("haproxy")?;
        let config = config.replace("{port}", &port.number().to_string());
        let file = dir.write("haproxy.cfg", config)?;
        let args = vec!["-db".into(), "-f".into(), file];
        let peer = Peer::start("haproxy", "haproxy", args, port, dir)?;
        Ok(Self { peer })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.peer.port.address()
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.peer.process.kill();
    }

    /// Kills it if it runs, starts it again on the same port, and waits until it accepts.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.peer.restart()
    }

    /// The process, for signals and its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.peer.process
    }
}

/// nghttpd: files over HTTP/2, spoken from the first byte on unless it is given a key and a certificate. It serves `ok` at
/// `/health`, and files of 1 KiB, 64 KiB and 1 MiB at `/1k`, `/64k` and `/1m`.
#[derive(Debug)]
pub struct Nghttpd {
    peer: Peer,
}

impl Nghttpd {
    /// Starts it with these further arguments and waits until it accepts.
    ///
    /// # Errors
    ///
    /// When it does not start; the error holds what it said.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_on(arguments, &["--no-tls"])
    }

    /// The same on TLS with this key and certificate, PEM files both.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_tls(arguments: &[&str], key: &str, certificate: &str) -> Result<Self> {
        Self::start_on(arguments, &[key, certificate])
    }

    fn start_on(arguments: &[&str], last: &[&str]) -> Result<Self> {
        let port = Port::reserve()?;
        let dir = TempDir::new("nghttpd")?;
        for (file, size) in [("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
            dir.write(&format!("files/{file}"), pattern(size))?;
        }
        dir.write("files/health", "ok\n")?;
        let root = format!("--htdocs={}", dir.path().join("files").display());
        let number = port.number().to_string();
        let args = ["--address=127.0.0.1", &*root]
            .into_iter()
            .chain(arguments.iter().copied())
            .chain([&*number])
            .chain(last.iter().copied());
        let args = args.map(PathBuf::from).collect();
        let peer = Peer::start("nghttpd", "nghttpd", args, port, dir)?;
        Ok(Self { peer })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.peer.port.address()
    }

    /// Ends it at once (SIGKILL). The port stays reserved: connections are refused.
    pub fn kill(&mut self) {
        self.peer.process.kill();
    }

    /// Kills it if it runs, starts it again on the same port, and waits until it accepts.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.peer.restart()
    }

    /// The process, for signals and its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.peer.process
    }
}

/// What all have in common. The fields are dropped in order: the process before its folder.
#[derive(Debug)]
struct Peer {
    process: Process,
    name: String,
    program: PathBuf,
    args: Vec<PathBuf>,
    port: Port,
    dir: TempDir,
}

impl Peer {
    fn start(name: &str, kind: &str, args: Vec<PathBuf>, port: Port, dir: TempDir) -> Result<Self> {
        let program = program(kind).with_context(|| format!("{kind} is not installed"))?;
        let process = launch(name, &program, &args, &port)?;
        Ok(Self {
            process,
            name: name.to_owned(),
            program,
            args,
            port,
            dir,
        })
    }

    fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.name, &self.program, &self.args, &self.port)?;
        Ok(())
    }
}

fn launch(name: &str, program: &PathBuf, args: &[PathBuf], port: &Port) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(args);
    let mut process = Process::spawn(name, command)?;
    let accepts = wait_accepts(port.address(), START_WITHIN);
    accepts.with_context(|| {
        let status = process.exit_status().ok().flatten();
        format!("{name} did not start (ended: {status:?}){}", process.said())
    })?;
    Ok(process)
}
