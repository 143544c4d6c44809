//! The floor: what a proxy costs that reads, writes, reads, writes and does nothing else. One thread, raw epoll; each
//! client connection has a server connection of its own. It understands no byte of what it carries.
//!
//! `floor PORT SERVER,… [--close]`. With `--close` a client's connection ends after the first piece of the answer, and
//! its server connection goes to the next client: what a connection per request costs at least.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use evenkeel_bench::poll::{Interest, Poll, ready};

/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// One end of a pair.
struct Side {
    socket: TcpStream,
    /// The other end, by descriptor; none while a server connection waits for a client.
    other: Option<RawFd>,
    is_client: bool,
    /// Bytes for this end that it had no room for.
    pending: Vec<u8>,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    servers: Vec<SocketAddr>,
    next: usize,
    close: bool,
    /// By descriptor.
    sides: Vec<Option<Side>>,
    /// Server connections without a client.
    spare: Vec<RawFd>,
    piece: Vec<u8>,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let port: u16 = args.first().context("floor PORT SERVER,…")?.parse()?;
    let servers = args.get(1).context("floor PORT SERVER,…")?.split(',');
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let mut floor = Floor {
        poll: Poll::new()?,
        listener,
        servers: servers.map(str::parse).collect::<Result<_, _>>()?,
        next: 0,
        close: args.iter().any(|arg| arg == "--close"),
        sides: Vec::new(),
        spare: Vec::new(),
        piece: vec![0; PIECE_BYTES],
    };
    floor.run()?;
    Ok(())
}

impl Floor {
    fn run(&mut self) -> io::Result<()> {
        let door = self.listener.as_raw_fd();
        self.poll.add(&self.listener, door as u64, Interest::Read)?;
        let mut events = Vec::new();
        loop {
            self.poll.wait(&mut events)?;
            for event in &events {
                let ready = ready(event);
                let fd = ready.token as RawFd;
                if fd == door {
                    self.accept()?;
                    continue;
                }
                if ready.write {
                    self.flush(fd);
                }
                if ready.read {
                    self.carry(fd);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let client = match self.listener.accept() {
            Ok((client, _)) => client,
            Err(_) => return Ok(()),
        };
        let server = match self.spare.pop() {
            Some(server) => server,
            None => self.connect()?,
        };
        let client = self.adopt(client, true)?;
        self.pair(client, Some(server));
        self.pair(server, Some(client));
        Ok(())
    }

    fn connect(&mut self) -> io::Result<RawFd> {
        let server = TcpStream::connect(self.servers[self.next % self.servers.len()])?;
        self.next += 1;
        self.adopt(server, false)
    }

    fn adopt(&mut self, socket: TcpStream, is_client: bool) -> io::Result<RawFd> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let fd = socket.as_raw_fd();
        self.poll.add(&socket, fd as u64, Interest::Read)?;
        if self.sides.len() <= fd as usize {
            self.sides.resize_with(fd as usize + 1, || None);
        }
        self.sides[fd as usize] = Some(Side {
            socket,
            other: None,
            is_client,
            pending: Vec::new(),
        });
        Ok(fd)
    }

    fn pair(&mut self, fd: RawFd, other: Option<RawFd>) {
        if let Some(side) = &mut self.sides[fd as usize] {
            side.other = other;
        }
    }

    /// Reads once and writes what came to the other end.
    fn carry(&mut self, fd: RawFd) {
        let Some(from) = &self.sides[fd as usize] else {
            return;
        };
        let count = match (&from.socket).read(&mut self.piece) {
            Ok(count) if count > 0 => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            _ => return self.end(fd),
        };
        let (Some(other), from_server) = (from.other, !from.is_client) else {
            return self.end(fd);
        };
        let Some(to) = &mut self.sides[other as usize] else {
            return self.end(fd);
        };
        let sent = match (&to.socket).write(&self.piece[..count]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return self.end(fd),
        };
        if sent < count {
            to.pending.extend_from_slice(&self.piece[sent..count]);
            self.watch(other, Interest::Both);
            self.watch(fd, Interest::Nothing);
        } else if self.close && from_server {
            self.sides[other as usize] = None;
            self.pair(fd, None);
            self.spare.push(fd);
        }
    }

    /// Writes what an end had no room for; once it is out the other end is read again.
    fn flush(&mut self, fd: RawFd) {
        let Some(side) = &mut self.sides[fd as usize] else {
            return;
        };
        match (&side.socket).write(&side.pending) {
            Ok(sent) => drop(side.pending.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.end(fd),
        }
        if side.pending.is_empty() {
            let other = side.other;
            self.watch(fd, Interest::Read);
            other
                .into_iter()
                .for_each(|other| self.watch(other, Interest::Read));
        }
    }

    fn watch(&self, fd: RawFd, interest: Interest) {
        if let Some(side) = &self.sides[fd as usize] {
            // It is registered, so this cannot fail but for want of memory.
            let _ = self.poll.modify(&side.socket, fd as u64, interest);
        }
    }

    /// Closes both ends.
    fn end(&mut self, fd: RawFd) {
        self.spare.retain(|spare| *spare != fd);
        let side = self.sides[fd as usize].take();
        if let Some(other) = side.and_then(|side| side.other) {
            self.sides[other as usize] = None;
        }
    }
}
