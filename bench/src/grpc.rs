//! gRPC: servers and clients of nghttp2, since they cost little. Every call is unary: one message of 16 bytes there, one
//! of 1 KB back, and `grpc-status` in the trailers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::door::Door;
use crate::process::{Running, which};

/// The ending is for the server to find the type of its answers.
pub(crate) const PATH: &str = "/bench.Echo/Say.grpc";
/// Bytes of a message.
const ASKED: usize = 16;
const ANSWERED: usize = 1024;
/// How long servers may take until they listen.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Servers, until this is dropped.
pub(crate) struct Servers {
    _running: Vec<Running>,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// Starts `count` servers on the core of the load.
pub(crate) fn servers(folder: &Path, core: usize, count: usize) -> Result<Servers> {
    let nghttpd = which("nghttpd").context("nghttpd is missing: apt-get install nghttp2-server")?;
    let root = folder.join("grpc");
    let answer = root.join(PATH.trim_start_matches('/'));
    std::fs::create_dir_all(answer.parent().unwrap_or(&root))?;
    std::fs::write(&answer, message(ANSWERED))?;
    let types = root.join("mime.types");
    std::fs::write(&types, "application/grpc grpc\n")?;
    let mut servers = Servers {
        _running: Vec::new(),
        addresses: Vec::new(),
    };
    for at in 0..count {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = held.local_addr()?;
        drop(held);
        let mut command = Command::new(&nghttpd);
        command.args([
            "--no-tls",
            "--address=127.0.0.1",
            "--trailer=grpc-status: 0",
        ]);
        command.arg("--no-content-length");
        command.arg(format!("--htdocs={}", root.display()));
        command.arg(format!("--mime-types-file={}", types.display()));
        command.arg(address.port().to_string());
        let log = folder.join(format!("nghttpd-{at}.log"));
        servers._running.push(Running::start(&command, core, &log)?);
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if started.elapsed() > READY_WITHIN {
                bail!("nghttpd does not listen within {READY_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        servers.addresses.push(address);
    }
    Ok(servers)
}

/// What makes h2load a gRPC client.
pub(crate) fn dress(load: &mut Command, folder: &Path) -> Result<()> {
    load.arg("-d").arg(call(folder)?);
    load.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    Ok(())
}

/// Makes one call; what came of it, if it is good.
pub(crate) fn ask(door: &Door, folder: &Path) -> Option<String> {
    let mut load = Command::new(which("h2load")?);
    load.args(["-n1", "-c1", "-m1"]);
    dress(&mut load, folder).ok()?;
    load.arg(door.url(PATH));
    let said = String::from_utf8(load.output().ok()?.stdout).ok()?;
    said.contains("1 succeeded").then_some(said)
}

fn call(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("call.grpc");
    if !path.exists() {
        std::fs::write(&path, message(ASKED))?;
    }
    Ok(path)
}

/// Not compressed, so many bytes long.
fn message(len: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(len as u32).to_be_bytes());
    message.resize(message.len() + len, b'x');
    message
}
