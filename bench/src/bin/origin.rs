//! The servers behind every peer: one thread, epoll, answers that are made before the first request. The last part of
//! the path says which: `/1k`, `/64k`, `/1m`, `/chunked` (64 KiB in eight chunks); a request with a body is answered
//! with two bytes once the body has come. Quick rather than correct: it takes no chunked requests.
//!
//! `origin COUNT [--spread | --everywhere]` listens on COUNT ports of 127.0.0.1 or, spread, on COUNT addresses of
//! 127.1.0.0/16, or on COUNT ports of every address that there is; it prints `IP:port` for each, and ends when its standard
//! input does.
//!
//! A request with `Connection: close` is answered with the same but the connection stays: proxies never send it, and
//! the floor, which cannot take it out, keeps its server connection as proxies do.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use evenkeel_bench::poll::{Interest, Poll, ready};
use memchr::memmem;

/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Longest request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const CHUNK_BYTES: usize = 8 * 1024;
const CHUNKS: usize = 8;

struct Connection {
    socket: TcpStream,
    /// What came and was not used yet.
    input: Vec<u8>,
    /// Bytes of a request's body that are still to come, and are thrown away.
    body_left: u64,
    /// The answer that is owed when the body has come.
    owed: usize,
    /// The answer that is being written, and how much of it is out.
    writing: Option<(usize, usize)>,
}

enum Step {
    /// Everything that came is answered.
    Wait,
    /// The other end takes no more for now.
    Full,
    Close,
}

struct Answers {
    all: Vec<Vec<u8>>,
    by_name: BTreeMap<&'static [u8], usize>,
    upload: usize,
    unknown: usize,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let count: u16 = args.first().context("origin COUNT [--spread]")?.parse()?;
    let asked = |option: &str| args.iter().any(|arg| arg == option);
    let poll = Poll::new()?;
    let mut doors = BTreeMap::new();
    for number in 0..count {
        let [high, low] = (number + 1).to_be_bytes();
        let ip = if asked("--spread") {
            Ipv4Addr::new(127, 1, high, low)
        } else if asked("--everywhere") {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        let listener = TcpListener::bind((ip, 0))?;
        listener.set_nonblocking(true)?;
        println!("{}", listener.local_addr()?);
        let fd = listener.as_raw_fd() as u64;
        poll.add(&listener, fd, Interest::Read)?;
        doors.insert(fd, listener);
    }
    println!("ready");
    let stdin = io::stdin();
    poll.add(&stdin, stdin.as_raw_fd() as u64, Interest::Read)?;
    serve(&poll, &doors)?;
    Ok(())
}

fn serve(poll: &Poll, doors: &BTreeMap<u64, TcpListener>) -> io::Result<()> {
    let answers = Answers::new();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut events = Vec::new();
    loop {
        poll.wait(&mut events)?;
        for event in &events {
            let ready = ready(event);
            if ready.token == 0 {
                return Ok(());
            }
            if let Some(door) = doors.get(&ready.token) {
                accept(poll, door, &mut connections)?;
                continue;
            }
            let Some(slot) = connections.get_mut(ready.token as usize) else {
                continue;
            };
            let Some(connection) = slot else { continue };
            let was_full = connection.writing.is_some();
            let step = connection.step(&answers, &mut piece);
            let interest = match step {
                Step::Close => {
                    *slot = None;
                    continue;
                }
                Step::Full if !was_full => Interest::Write,
                Step::Wait if was_full => Interest::Read,
                _ => continue,
            };
            poll.modify(&connection.socket, ready.token, interest)?;
        }
    }
}

fn accept(
    poll: &Poll,
    door: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    while let Ok((socket, _)) = door.accept() {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let fd = socket.as_raw_fd() as usize;
        poll.add(&socket, fd as u64, Interest::Read)?;
        if connections.len() <= fd {
            connections.resize_with(fd + 1, || None);
        }
        connections[fd] = Some(Connection {
            socket,
            input: Vec::new(),
            body_left: 0,
            owed: 0,
            writing: None,
        });
    }
    Ok(())
}

impl Connection {
    fn step(&mut self, answers: &Answers, piece: &mut [u8]) -> Step {
        if self.writing.is_some() {
            let held = std::mem::take(&mut self.input);
            return match self.flush(answers) {
                Step::Wait => self.take(&held, answers),
                other => {
                    self.input = held;
                    other
                }
            };
        }
        let count = match (&self.socket).read(piece) {
            Ok(count) if count > 0 => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Wait,
            _ => return Step::Close,
        };
        if self.input.is_empty() {
            return self.take(&piece[..count], answers);
        }
        self.input.extend_from_slice(&piece[..count]);
        let held = std::mem::take(&mut self.input);
        self.take(&held, answers)
    }

    /// Answers every whole request in `bytes` and keeps the rest.
    fn take(&mut self, mut bytes: &[u8], answers: &Answers) -> Step {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let used = bytes.len().min(self.body_left as usize);
                bytes = &bytes[used..];
                self.body_left -= used as u64;
            } else {
                let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                    self.input = bytes.to_vec();
                    return match bytes.len() {
                        0..HEAD_BYTES_MAX => Step::Wait,
                        _ => Step::Close,
                    };
                };
                let (head, rest) = bytes.split_at(end + 4);
                bytes = rest;
                (self.owed, self.body_left) = answers.choose(head);
            }
            if self.body_left == 0 {
                self.writing = Some((self.owed, 0));
                match self.flush(answers) {
                    Step::Wait => {}
                    other => {
                        self.input = bytes.to_vec();
                        return other;
                    }
                }
            }
        }
        Step::Wait
    }

    fn flush(&mut self, answers: &Answers) -> Step {
        while let Some((answer, out)) = self.writing {
            let rest = &answers.all[answer][out..];
            match (&self.socket).write(rest) {
                Ok(count) if count == rest.len() => self.writing = None,
                Ok(count) => self.writing = Some((answer, out + count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Full,
                Err(_) => return Step::Close,
            }
        }
        Step::Wait
    }
}

impl Answers {
    /// Each answer is followed by the same one with `Connection: close`.
    fn new() -> Self {
        let mut all = Vec::new();
        let mut by_name = BTreeMap::new();
        let mut add = |status: &str, framing: String, body: Vec<u8>| {
            for connection in ["", "Connection: close\r\n"] {
                let mut answer = format!(
                    "HTTP/1.1 {status}\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
                     Content-Type: text/plain\r\n{connection}{framing}\r\n\r\n"
                )
                .into_bytes();
                answer.extend_from_slice(&body);
                all.push(answer);
            }
            all.len() - 2
        };
        let sizes: [(&[u8], usize); 3] = [(b"1k", 1 << 10), (b"64k", 64 << 10), (b"1m", 1 << 20)];
        for (name, size) in sizes {
            let framing = format!("Content-Length: {size}");
            by_name.insert(name, add("200 OK", framing, vec![b'x'; size]));
        }
        let mut chunk = format!("{CHUNK_BYTES:x}\r\n").into_bytes();
        chunk.resize(chunk.len() + CHUNK_BYTES, b'x');
        chunk.extend_from_slice(b"\r\n");
        let mut chunked = chunk.repeat(CHUNKS);
        chunked.extend_from_slice(b"0\r\n\r\n");
        let framing = "Transfer-Encoding: chunked".to_owned();
        by_name.insert(b"chunked", add("200 OK", framing, chunked));
        let upload = add("200 OK", "Content-Length: 2".to_owned(), b"ok".to_vec());
        let unknown = add("404 Not Found", "Content-Length: 0".to_owned(), Vec::new());
        Self {
            all,
            by_name,
            upload,
            unknown,
        }
    }

    /// The answer to a request, and how long its body is.
    fn choose(&self, head: &[u8]) -> (usize, u64) {
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let name = target.rsplit(|byte| *byte == b'/').next();
        let body = field(head, &[b"\r\nContent-Length: ", b"\r\ncontent-length: "])
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
            .unwrap_or(0);
        let close = field(head, &[b"\r\nConnection: "]).is_some_and(|value| value == b"close");
        let answer = match name.and_then(|name| self.by_name.get(name)) {
            _ if body > 0 => self.upload,
            Some(answer) => *answer,
            None => self.unknown,
        };
        (answer + usize::from(close), body)
    }
}

/// The value of a field in one of these spellings.
fn field<'a>(head: &'a [u8], spellings: &[&[u8]]) -> Option<&'a [u8]> {
    let found = spellings.iter().find_map(|spelling| {
        let at = memmem::find(head, spelling)?;
        head.get(at + spelling.len()..)
    })?;
    found.split(|byte| *byte == b'\r').next()
}
