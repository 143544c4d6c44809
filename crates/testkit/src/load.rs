//! Clients that keep their connections and never retry: every request that an operator's step
//! loses is counted, and the first ones are described.

use crate::http::{Reader, Response};
use crate::wait::wait_until;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FAILURES_KEPT: usize = 20;
/// After a failure, so that a dead listener is not asked a million times.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

type Check = Arc<dyn Fn(&Response) -> Result<()> + Send + Sync>;

/// How to load; see [`Load::to`].
#[derive(Clone)]
pub struct LoadPlan {
    address: SocketAddr,
    clients: usize,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    pause: Duration,
    timeout: Duration,
    end_at_close: bool,
    check: Check,
}

/// A running load. Dropping it stops it too.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<LoadReport>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    ok: AtomicU64,
    failed: AtomicU64,
}

/// What a load found.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Requests answered as they should be.
    pub ok: u64,
    /// Requests that were not: no connection, no or a cut answer, or one that the check refused.
    pub failed: u64,
    /// Of the failed, those whose answer had begun and did not end.
    pub cut: u64,
    /// Connections that were opened.
    pub connects: u64,
    /// The first failures of each client, 20 at most in all.
    pub failures: Vec<Failure>,
    /// Of the requests answered well, in ascending order.
    pub latencies: Vec<Duration>,
}

/// One lost request.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which client, from 0.
    pub client: usize,
    /// Its how-many-th request, from 1.
    pub request: u64,
    /// The how-many-th on its connection, from 1; 0 if there was none.
    pub on_connection: u64,
    /// Since the load began.
    pub after: Duration,
    /// What went wrong.
    pub what: String,
}

impl Load {
    /// A plan of 8 clients that ask for `GET /` one request after the other, each answer bounded
    /// to 30 s, and take any 2xx for well.
    pub fn to(address: SocketAddr) -> LoadPlan {
        LoadPlan {
            address,
            clients: 8,
            method: "GET".into(),
            path: "/".into(),
            headers: Vec::new(),
            body: Vec::new(),
            pause: Duration::ZERO,
            timeout: Duration::from_secs(30),
            end_at_close: false,
            check: Arc::new(|response| {
                ensure!((200..300).contains(&response.status), "{response}");
                Ok(())
            }),
        }
    }

    /// Requests answered well so far.
    pub fn ok(&self) -> u64 {
        self.shared.ok.load(Ordering::Relaxed)
    }

    /// Requests lost so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests were answered well: how a test gives a load time to
    /// see the last step before it takes the next.
    ///
    /// # Errors
    ///
    /// When they were not within `limit`.
    pub fn wait_ok(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.ok() + more;
        wait_until(&format!("{more} more answers"), limit, || self.ok() >= goal)
    }

    /// Lets each client finish its request and gives what was found.
    pub fn stop(mut self) -> LoadReport {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut total = LoadReport::default();
        for client in self.clients.drain(..) {
            // A client has nothing that panics but the test's own check.
            let report = client.join().unwrap_or_else(|_| LoadReport::broken());
            total.add(report);
        }
        total.latencies.sort_unstable();
        total.failures.sort_by_key(|failure| failure.after);
        total.failures.truncate(FAILURES_KEPT);
        total
    }

    /// Waits until every client has ended by itself, as with
    /// [`end_at_close`](LoadPlan::end_at_close), then gives what was found.
    ///
    /// # Errors
    ///
    /// When some still run after `limit`.
    pub fn wait_ended(self, limit: Duration) -> Result<LoadReport> {
        self.wait_clients_ended(limit)?;
        Ok(self.stop())
    }

    /// Waits for the same and leaves the load as it is.
    ///
    /// # Errors
    ///
    /// As [`wait_ended`](Self::wait_ended).
    pub fn wait_clients_ended(&self, limit: Duration) -> Result<()> {
        wait_until("every client ended", limit, || {
            self.clients.iter().all(JoinHandle::is_finished)
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl LoadPlan {
    /// How many connections at a time.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// Sets the request line.
    #[must_use]
    pub fn request(mut self, method: &str, path: &str) -> Self {
        self.method = method.to_owned();
        self.path = path.to_owned();
        self
    }

    /// Adds a header; `Host` and `Content-Length` are there already.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends a body, with its length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits so long after each answer.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Bounds each connect, write and read.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A client ends after an answer with `Connection: close` instead of opening a new
    /// connection: for a shutdown, which closes the listener.
    #[must_use]
    pub fn end_at_close(mut self) -> Self {
        self.end_at_close = true;
        self
    }

    /// Decides whether an answer is well, in place of "any 2xx".
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&Response) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.check = Arc::new(check);
        self
    }

    /// Begins.
    pub fn start(self) -> Load {
        let shared = Arc::new(Shared::default());
        let started = Instant::now();
        let clients = (0..self.clients).map(|number| {
            let client = Client {
                number,
                started,
                request: self.bytes(),
                plan: self.clone(),
                shared: Arc::clone(&shared),
                report: LoadReport::default(),
            };
            std::thread::spawn(move || client.run())
        });
        let clients = clients.collect();
        Load { shared, clients }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.path, self.address
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

struct Client {
    number: usize,
    started: Instant,
    request: Vec<u8>,
    plan: LoadPlan,
    shared: Arc<Shared>,
    report: LoadReport,
}

impl Client {
    fn run(mut self) -> LoadReport {
        let mut connection: Option<(Reader, u64)> = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let (mut reader, used) = match connection.take().map_or_else(|| self.connect(), Ok) {
                Ok(connection) => connection,
                Err(error) => {
                    self.failed(0, &error);
                    continue;
                }
            };
            let asked = Instant::now();
            match self.exchange(&mut reader) {
                Ok(closes) => {
                    self.report.ok += 1;
                    self.report.latencies.push(asked.elapsed());
                    self.shared.ok.fetch_add(1, Ordering::Relaxed);
                    if closes && self.plan.end_at_close {
                        break;
                    }
                    connection = (!closes).then_some((reader, used + 1));
                    if !self.plan.pause.is_zero() {
                        std::thread::sleep(self.plan.pause);
                    }
                }
                Err(error) => self.failed(used + 1, &error),
            }
        }
        self.report
    }

    fn connect(&mut self) -> Result<(Reader, u64)> {
        let timeout = self.plan.timeout;
        let stream = TcpStream::connect_timeout(&self.plan.address, timeout).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        self.report.connects += 1;
        Ok((Reader::new(stream), 0))
    }

    /// Whether the connection ends with this answer.
    fn exchange(&mut self, reader: &mut Reader) -> Result<bool> {
        let received = reader.received;
        reader.stream.write_all(&self.request).context("sending")?;
        let response = reader.response(&self.plan.method);
        let response = response.inspect_err(|_| {
            self.report.cut += u64::from(reader.received > received);
        })?;
        (self.plan.check)(&response)?;
        ensure!(
            reader.early.is_empty(),
            "{} bytes after the answer",
            reader.early.len()
        );
        Ok(response.closes())
    }

    fn failed(&mut self, on_connection: u64, error: &anyhow::Error) {
        self.report.failed += 1;
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        if self.report.failures.len() < FAILURES_KEPT {
            self.report.failures.push(Failure {
                client: self.number,
                request: self.report.ok + self.report.failed,
                on_connection,
                after: self.started.elapsed(),
                what: format!("{error:#}"),
            });
        }
        std::thread::sleep(PAUSE_AFTER_FAILURE);
    }
}

impl LoadReport {
    /// The latency that this share of the requests stayed within, as `0.99`; zero without any.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }

    /// For the end of a test: nothing was lost, and something was asked.
    ///
    /// # Panics
    ///
    /// When a request was lost, naming the first ones, or when there was none at all.
    pub fn assert_none_failed(&self) {
        assert!(self.failed == 0 && self.ok > 0, "{self}");
    }

    fn broken() -> Self {
        let what = "the check of this load panicked".to_owned();
        let failure = Failure {
            client: 0,
            request: 0,
            on_connection: 0,
            after: Duration::ZERO,
            what,
        };
        Self {
            failed: 1,
            failures: vec![failure],
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.cut += other.cut;
        self.connects += other.connects;
        self.failures.extend(other.failures);
        self.latencies.extend(other.latencies);
    }
}

impl fmt::Debug for LoadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            clients,
            method,
            path,
            ..
        } = self;
        write!(
            f,
            "LoadPlan({clients} clients, {method} {path} at {address})"
        )
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99) = (self.percentile(0.5), self.percentile(0.99));
        write!(
            f,
            "{} ok, {} failed, {} connects, ",
            self.ok, self.failed, self.connects
        )?;
        write!(
            f,
            "median {median:?}, p99 {p99:?}, longest {:?}",
            self.percentile(1.0)
        )?;
        for failure in &self.failures {
            let Failure {
                client,
                request,
                on_connection,
                after,
                what,
            } = failure;
            write!(
                f,
                "\n  client {client}, request {request} ({on_connection} on its connection), after {after:?}: {what}"
            )?;
        }
        Ok(())
    }
}
