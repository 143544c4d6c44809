//! Requests at a fixed rate, in an open loop: each has a moment at which it is due, whatever became of those before
//! it, and its latency counts from there. So a proxy that stands still for a moment pays for every request of that
//! moment (what a closed loop forgets: coordinated omission).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use evenkeel_bench::poll::{Interest, Poll, ready};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::answer::{Answer, Progress};
use crate::wire::{self, Tls, Wire};

const TIMER: u64 = u64::MAX;
/// The clock ticks at the rate, but not more often than this.
const TICK_MIN: Duration = Duration::from_micros(50);
/// At full speed it only ends the run.
const TICK_RUSH: Duration = Duration::from_millis(20);
/// How long what is under way may take after the last request was due.
const GRACE: Duration = Duration::from_secs(2);
const PIECE_BYTES: usize = 256 * 1024;

pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) request: Vec<u8>,
    /// Requests per second; 0: each as soon as a connection is free.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    pub(crate) connections: usize,
    /// A connection for each request.
    pub(crate) close: bool,
    pub(crate) tls: Tls,
    /// Sessions of TLS are used again.
    pub(crate) resume: bool,
}

#[derive(Default)]
struct Client {
    tls: Tls,
    socket: Option<Wire>,
    /// When the request under way was due, in time since the start.
    due: Option<Duration>,
    /// Bytes of it that are out.
    sent: usize,
    /// Whether room to write is waited for.
    full: bool,
    answer: Answer,
}

struct Run<'a> {
    plan: &'a Plan,
    poll: Poll,
    started: Instant,
    clients: Vec<Client>,
    idle: Vec<usize>,
    /// Due, but without a connection.
    late: VecDeque<Duration>,
    piece: Vec<u8>,
    /// Nanoseconds from due to answered.
    latencies: Vec<u64>,
    /// Answers over a session that was used again.
    resumed: usize,
    errors: usize,
}

pub(crate) fn run(plan: &Plan) -> Result<()> {
    ensure!(plan.rate >= 0.0 && plan.connections > 0, "no load at all");
    let client = |_| Client {
        tls: if plan.resume {
            wire::resuming(&plan.tls)
        } else {
            plan.tls.clone()
        },
        ..Client::default()
    };
    let mut run = Run {
        plan,
        poll: Poll::new()?,
        started: Instant::now(),
        clients: (0..plan.connections).map(client).collect(),
        idle: (0..plan.connections).collect(),
        late: VecDeque::new(),
        piece: vec![0; PIECE_BYTES],
        latencies: Vec::new(),
        resumed: 0,
        errors: 0,
    };
    if !plan.close {
        for number in 0..plan.connections {
            run.connect(number)?;
        }
    }
    let sent = if plan.rate > 0.0 {
        run.drive()?
    } else {
        run.rush()?
    };
    let took = run.started.elapsed();
    report(sent, took, run);
    Ok(())
}

/// Latencies only at a fixed rate: at full speed they show how many connections there are.
fn report(sent: usize, took: Duration, run: Run<'_>) {
    let (mut latencies, errors) = (run.latencies, run.errors);
    let telling = run.plan.rate > 0.0;
    latencies.sort_unstable();
    let quantile = |share: f64| {
        let at = (latencies.len() as f64 * share) as usize;
        let value = latencies.get(at.min(latencies.len().saturating_sub(1)));
        let value = value.filter(|_| telling);
        value.map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    let line = serde_json::json!({
        "requests": latencies.len(),
        "resumed": run.resumed,
        "us": took.as_micros() as u64,
        "errors": errors.max(sent.saturating_sub(latencies.len())),
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "p999_us": quantile(0.999),
        "max_us": quantile(1.0),
    });
    println!("{line}");
}

impl Run<'_> {
    /// Sends what is due until all is answered or given up; how many were sent.
    fn drive(&mut self) -> Result<usize> {
        let between = Duration::from_secs_f64(1.0 / self.plan.rate);
        let total = (self.plan.rate * self.plan.seconds) as usize;
        let timer = ticks(between.max(TICK_MIN))?;
        self.poll.add(&timer, TIMER, Interest::Read)?;
        self.started = Instant::now();
        let end = Duration::from_secs_f64(self.plan.seconds) + GRACE;
        let (mut events, mut begun) = (Vec::new(), 0);
        while self.latencies.len() + self.errors < total && self.started.elapsed() < end {
            self.poll.wait(&mut events)?;
            for event in &events {
                let ready = ready(event);
                if ready.token == TIMER {
                    rustix::io::read(&timer, &mut [0; 8])?;
                } else {
                    self.handle(ready.token as usize, ready.read, ready.write)?;
                }
            }
            let now = self.started.elapsed();
            while begun < total && between.mul_f64(begun as f64) <= now {
                self.late.push_back(between.mul_f64(begun as f64));
                begun += 1;
            }
            while !self.late.is_empty()
                && let Some(number) = self.idle.pop()
            {
                self.begin(number)?;
            }
        }
        Ok(begun)
    }

    /// Sends as fast as is answered until the time is over; how many were sent.
    fn rush(&mut self) -> Result<usize> {
        let timer = ticks(TICK_RUSH)?;
        self.poll.add(&timer, TIMER, Interest::Read)?;
        self.started = Instant::now();
        let end = Duration::from_secs_f64(self.plan.seconds);
        let (mut events, mut begun) = (Vec::new(), 0);
        loop {
            let now = self.started.elapsed();
            if now > end {
                // What is under way is neither answered nor failed.
                let under_way = self.plan.connections - self.idle.len();
                return Ok(begun - under_way.min(begun));
            }
            for number in std::mem::take(&mut self.idle) {
                self.late.push_back(now);
                begun += 1;
                self.begin(number)?;
            }
            self.poll.wait(&mut events)?;
            for event in &events {
                let ready = ready(event);
                if ready.token == TIMER {
                    rustix::io::read(&timer, &mut [0; 8])?;
                } else {
                    self.handle(ready.token as usize, ready.read, ready.write)?;
                }
            }
        }
    }

    /// Starts the oldest request that is due.
    fn begin(&mut self, number: usize) -> Result<()> {
        if self.clients[number].socket.is_none() {
            self.connect(number)?;
        }
        let client = &mut self.clients[number];
        client.due = self.late.pop_front();
        client.sent = 0;
        client.answer = Answer::default();
        self.send(number)
    }

    /// Begins to connect; the first write waits until it is done.
    fn connect(&mut self, number: usize) -> Result<()> {
        let kind = (
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        );
        let socket = rustix::net::socket_with(AddressFamily::INET, kind.0, kind.1, None)?;
        match rustix::net::connect(&socket, &self.plan.target) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connect"),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        self.poll.add(&socket, number as u64, Interest::Read)?;
        let client = &mut self.clients[number];
        client.socket = Some(Wire::new(socket, &client.tls)?);
        client.full = false;
        Ok(())
    }

    fn send(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let Some(wire) = client.socket.as_mut() else {
            return Ok(());
        };
        let full = match wire.write(&self.plan.request[client.sent..]) {
            Ok(count) => {
                client.sent += count;
                client.sent < self.plan.request.len()
            }
            Err(error) if would_wait(&error) => wire.wants_room(),
            Err(_) => return self.fail(number),
        };
        if full != client.full {
            client.full = full;
            let interest = if full { Interest::Both } else { Interest::Read };
            self.poll.modify(wire.socket(), number as u64, interest)?;
        }
        Ok(())
    }

    fn handle(&mut self, number: usize, read: bool, write: bool) -> Result<()> {
        let client = &self.clients[number];
        // A handshake is written on by what is read.
        if (write || self.plan.tls.is_some())
            && client.due.is_some()
            && client.sent < self.plan.request.len()
        {
            self.send(number)?;
        }
        if read { self.receive(number) } else { Ok(()) }
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let Some(wire) = client.socket.as_mut() else {
            return Ok(());
        };
        let count = match wire.read(&mut self.piece) {
            Ok(count) if count > 0 => count,
            Err(error) if would_wait(&error) => return Ok(()),
            // An idle connection may be closed at any time: the next request opens another.
            _ if client.due.is_none() => {
                client.socket = None;
                return Ok(());
            }
            _ => return self.fail(number),
        };
        match client.answer.take(&self.piece[..count]) {
            Progress::More => return Ok(()),
            Progress::Bad => return self.fail(number),
            Progress::Well => {}
        }
        if let Some(due) = client.due.take() {
            let took = self.started.elapsed().saturating_sub(due);
            self.latencies.push(took.as_nanos() as u64);
            self.resumed += usize::from(wire.is_resumed());
        }
        if self.plan.close {
            client.socket = None;
        }
        self.idle.push(number);
        Ok(())
    }

    fn fail(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        client.socket = None;
        if client.due.take().is_some() {
            self.errors += 1;
            self.idle.push(number);
        }
        Ok(())
    }
}

/// Not connected yet, or no room.
fn would_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

/// A clock that ticks, since epoll's own timeout knows only milliseconds.
fn ticks(between: Duration) -> Result<rustix::fd::OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let every = Timespec {
        tv_sec: between.as_secs() as i64,
        tv_nsec: i64::from(between.subsec_nanos()),
    };
    let both = Itimerspec {
        it_interval: every,
        it_value: every,
    };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &both)?;
    Ok(timer)
}
