//! Idle connections: each asks once, so that the proxy has seen its client, and then is silent. Prints how many are
//! open, holds them until standard input ends, and then tells how many the proxy has closed meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::answer::{Answer, Progress};
use crate::wire::{Tls, Wire};

/// How long one answer may take.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// Connections from one source address: the kernel has about 28,000 ports for each.
const PER_SOURCE: usize = 20_000;

pub(crate) fn run(target: SocketAddr, request: &[u8], connections: usize, tls: &Tls) -> Result<()> {
    let mut held = Vec::new();
    for number in 0..connections {
        let opened = open(target, number, request, tls);
        held.push(opened.with_context(|| format!("connection {number}"))?);
    }
    println!("{}", serde_json::json!({ "open": held.len() }));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let closed = held
        .iter_mut()
        .map(is_closed)
        .filter(|closed| *closed)
        .count();
    println!("{}", serde_json::json!({ "closed": closed }));
    Ok(())
}

/// Prints the head of one answer, as far as its first piece has it.
pub(crate) fn ask(target: SocketAddr, request: &[u8], tls: &Tls) -> Result<()> {
    let socket = TcpStream::connect(target)?;
    socket.set_read_timeout(Some(ASK_WITHIN))?;
    let mut wire = Wire::new(socket, tls)?;
    wire.write_all(request)?;
    let mut piece = [0; 4096];
    let count = wire.read(&mut piece)?;
    let text = String::from_utf8_lossy(&piece[..count]);
    let head = text.lines().take_while(|line| !line.is_empty());
    head.for_each(|line| println!("{line}"));
    Ok(())
}

fn open(target: SocketAddr, number: usize, request: &[u8], tls: &Tls) -> Result<Wire> {
    let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number / PER_SOURCE)?);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &target)?;
    let mut socket = Wire::new(TcpStream::from(socket), tls)?;
    socket.write_all(request)?;
    let (mut answer, mut piece) = (Answer::default(), [0; 4096]);
    loop {
        let count = socket.read(&mut piece)?;
        match answer.take(&piece[..count]) {
            Progress::More if count > 0 => {}
            Progress::Well => break,
            _ => bail!("a bad answer"),
        }
    }
    socket.socket().set_nonblocking(true)?;
    Ok(socket)
}

fn is_closed(wire: &mut Wire) -> bool {
    let read = wire.read(&mut [0]);
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}
