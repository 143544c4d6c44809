//! Idle connections: each asks once, so that the proxy has seen its client, and then is silent. Prints how many are
//! open, holds them until standard input ends, and then tells how many the proxy has closed meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::answer::{Answer, Progress};

/// Connections from one source address: the kernel has about 28,000 ports for each.
const PER_SOURCE: usize = 20_000;

pub(crate) fn run(target: SocketAddr, request: &[u8], connections: usize) -> Result<()> {
    let mut held = Vec::new();
    for number in 0..connections {
        let opened = open(target, number, request);
        held.push(opened.with_context(|| format!("connection {number}"))?);
    }
    println!("{}", serde_json::json!({ "open": held.len() }));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let closed = held.iter().filter(|socket| is_closed(socket)).count();
    println!("{}", serde_json::json!({ "closed": closed }));
    Ok(())
}

fn open(target: SocketAddr, number: usize, request: &[u8]) -> Result<TcpStream> {
    let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number / PER_SOURCE)?);
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &target)?;
    let mut socket = TcpStream::from(socket);
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
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn is_closed(mut socket: &TcpStream) -> bool {
    let read = socket.read(&mut [0]);
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}
