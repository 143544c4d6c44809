//! A server whose every byte the test decides, for the ugly cases that no real server does on
//! demand: one thread and one closure call for each connection.

use crate::http::{Reader, Request};
use anyhow::{Context, Result};
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Requests and errors that are kept to be looked at; the oldest go first.
const KEPT_MAX: usize = 1000;

/// A running server; dropping it closes its listening socket and every connection.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// One accepted connection. It closes when the closure returns; reads and writes are bounded (30 s
/// unless told otherwise).
#[derive(Debug)]
pub struct Conn {
    reader: Reader,
    number: u64,
    /// The newest stream over HTTP/2.
    newest: u32,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    connections: AtomicU64,
    requests: AtomicU64,
    seen: Mutex<Vec<Request>>,
    errors: Mutex<Vec<String>>,
    /// A second handle of each open connection, so that `stop` can end them.
    open: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Origin {
    /// Listens on a port from the kernel and calls `handle` for each connection, on a thread of
    /// its own. An error that it returns is kept in [`errors`](Self::errors).
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn start<H>(handle: H) -> Result<Self>
    where
        H: Fn(&mut Conn) -> Result<()> + Send + Sync + 'static,
    {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), handle)
    }

    /// The same at a given address, such as that of a [`Port`](crate::Port).
    ///
    /// # Errors
    ///
    /// When it cannot listen there.
    pub fn start_at<H>(address: SocketAddr, handle: H) -> Result<Self>
    where
        H: Fn(&mut Conn) -> Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared, &Arc::new(handle))
        });
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// A plain HTTP/1.1 server with keep-alive: `answer` gives the bytes to send, for which there
    /// is [`reply`]. A connection ends after a request or an answer with `Connection: close`.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn http<A>(answer: A) -> Result<Self>
    where
        A: Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    {
        Self::start(move |conn| {
            while let Some(request) = conn.read_request()? {
                let bytes = answer(&request);
                conn.write(&bytes)?;
                if request.headers.has_token("connection", "close") || says_close(&bytes) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far, probes by TCP connect included.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Request heads read so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The requests that [`Conn::read_request`] gave, the last 1,000, oldest first.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// The errors that closures returned, the last 1,000. Many are expected, such as a
    /// peer's reset.
    pub fn errors(&self) -> Vec<String> {
        lock(&self.shared.errors).clone()
    }

    /// Closes the listening socket and every connection; later connects are refused.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which looks at the switch.
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok();
        accepting.join().ok();
        for stream in lock(&self.shared.open).values() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("address", &self.address)
            .field("connections", &self.connections())
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}

fn accept<H>(listener: &TcpListener, shared: &Arc<Shared>, handle: &Arc<H>)
where
    H: Fn(&mut Conn) -> Result<()> + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(conn) = stream
            .map_err(Into::into)
            .and_then(|stream| Conn::new(stream, shared))
        else {
            continue;
        };
        let handle = Arc::clone(handle);
        std::thread::spawn(move || {
            let mut conn = conn;
            if let Err(error) = handle(&mut conn) {
                push(&conn.shared.errors, format!("{error:#}"));
            }
        });
    }
}

impl Conn {
    fn new(stream: TcpStream, shared: &Arc<Shared>) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        lock(&shared.open).insert(number, stream.try_clone()?);
        Ok(Self {
            reader: Reader::new(stream),
            number,
            newest: 0,
            shared: Arc::clone(shared),
        })
    }

    /// Which connection of this origin it is, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.reader.stream
    }

    /// The next request with its body, or `None` when the peer ended the stream between two.
    ///
    /// # Errors
    ///
    /// When it is cut, badly framed, or does not come in time.
    pub fn read_request(&mut self) -> Result<Option<Request>> {
        let Some(mut request) = self.read_head()? else {
            return Ok(None);
        };
        self.read_body(&mut request)?;
        push(&self.shared.seen, request.clone());
        Ok(Some(request))
    }

    /// The next request's head alone; its body is still on the wire.
    ///
    /// # Errors
    ///
    /// As [`read_request`](Self::read_request).
    pub fn read_head(&mut self) -> Result<Option<Request>> {
        let request = self.reader.request_head()?;
        if request.is_some() {
            self.shared.requests.fetch_add(1, Ordering::Relaxed);
        }
        Ok(request)
    }

    /// The body that belongs to a head from [`read_head`](Self::read_head), into it.
    ///
    /// # Errors
    ///
    /// When it is cut, badly framed, or does not come in time.
    pub fn read_body(&mut self, request: &mut Request) -> Result<()> {
        (request.body, request.trailers) = self.reader.body(&request.headers, false)?;
        Ok(())
    }

    /// Counts a head over HTTP/2, unless it is what ends a body.
    pub(crate) fn count_head(&mut self, stream: u32) {
        if stream > self.newest {
            self.newest = stream;
            self.shared.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether something of the peer, or its end, has come or comes within `limit`.
    ///
    /// # Errors
    ///
    /// When the connection is reset.
    pub fn comes_within(&self, limit: Duration) -> Result<bool> {
        if !self.reader.early.is_empty() {
            return Ok(true);
        }
        self.stream().set_read_timeout(Some(limit))?;
        let peeked = self.stream().peek(&mut [0]);
        self.stream().set_read_timeout(Some(TIMEOUT))?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next byte, or `None` at the end.
    pub(crate) fn read_one(&mut self) -> Result<Option<u8>> {
        self.reader.one()
    }

    /// Exactly this many bytes, whatever they are.
    ///
    /// # Errors
    ///
    /// When fewer come.
    pub fn read_exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        self.reader.exactly(count)
    }

    /// All that comes until the peer ends its direction.
    ///
    /// # Errors
    ///
    /// When it resets the connection, or says nothing for the timeout.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        self.reader.rest()
    }

    /// Sends all of it.
    ///
    /// # Errors
    ///
    /// When the peer has closed, or takes nothing for the timeout.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.reader.stream.write_all(bytes.as_ref())?)
    }

    /// Ends our direction; the peer's stays open.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    pub fn half_close(&self) -> Result<()> {
        Ok(self.stream().shutdown(Shutdown::Write)?)
    }

    /// Ends the connection in both directions, now rather than when the closure returns.
    ///
    /// # Errors
    ///
    /// When it is gone already.
    pub fn close(&self) -> Result<()> {
        Ok(self.stream().shutdown(Shutdown::Both)?)
    }

    /// Makes the close that comes when the closure returns a reset (SO_LINGER 0).
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn reset(&self) -> Result<()> {
        // The second handle must go first, since only the last close of a socket counts.
        lock(&self.shared.open).remove(&self.number);
        Ok(sockopt::set_socket_linger(
            self.stream(),
            Some(Duration::ZERO),
        )?)
    }

    /// Waits until the origin is stopped or `limit` is over: a server that hangs.
    pub fn hang(&self, limit: Duration) {
        let stopped = || self.shared.stopping.load(Ordering::SeqCst);
        crate::wait::wait_until("the origin is stopped", limit, stopped).ok();
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.number);
    }
}

/// An HTTP/1.1 response with a length.
pub fn reply(status: u16, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn says_close(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response).to_ascii_lowercase();
    text.split("\r\n\r\n")
        .next()
        .unwrap_or_default()
        .contains("\r\nconnection: close")
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    let mut list = lock(list);
    if list.len() == KEPT_MAX {
        list.remove(0);
    }
    list.push(item);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
