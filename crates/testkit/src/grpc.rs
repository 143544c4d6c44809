//! gRPC as others made it: a server of grpcio from PyPI, in a process of its own.

use crate::process::Process;
use crate::script::script;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(30);
const CONTROL_LIMIT: Duration = Duration::from_secs(10);

/// A running `grpc_server.py`: what it serves is written there. Dropping it kills it; what a [`Process`] can do it can
/// too.
#[derive(Debug)]
pub struct GrpcServer {
    process: Process,
    address: SocketAddr,
    control: SocketAddr,
}

impl GrpcServer {
    /// Starts one with more arguments, as `["--no-health"]`, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not get ready.
    pub fn start(name: &str, more: &[&str]) -> Result<Self> {
        let mut command = script("grpc_server.py")?;
        command.arg(name).args(more);
        let mut process = Process::spawn(name, command)?;
        process.wait_log("ready", READY_WITHIN)?;
        let address = |word: &str| -> Result<SocketAddr> {
            let lines = process.log_lines();
            let start = format!("{word} address=");
            let mut found = lines.iter().filter_map(|line| line.strip_prefix(&start));
            Ok(found.next().context("no address")?.parse()?)
        };
        let (address, control) = (address("listening")?, address("control")?);
        Ok(Self {
            process,
            address,
            control,
        })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what its health service says of `service` (empty: the server as a whole): `SERVING`, `NOT_SERVING`…
    ///
    /// # Errors
    ///
    /// When it is gone, or knows no such status.
    pub fn set_health(&self, service: &str, status: &str) -> Result<()> {
        let service = if service.is_empty() { "-" } else { service };
        let mut stream = TcpStream::connect(self.control)?;
        stream.set_read_timeout(Some(CONTROL_LIMIT))?;
        stream.write_all(format!("health {service} {status}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        ensure!(answer == "done\n", "the server said {answer:?}");
        Ok(())
    }
}

impl Deref for GrpcServer {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for GrpcServer {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
