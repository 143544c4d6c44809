//! One of the demo's servers: a real HTTP service on a port of its own, which can be crashed and come back.
//!
//! Each life is a thread with its own runtime, as a process would be: ending it drops every connection at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use readiness::Readiness;
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use super::mortal::MortalListener;

/// The header that names who answered.
pub(super) const SERVER: HeaderName = HeaderName::from_static("x-server");
/// How long `/slow` takes, and everything in slow mode.
const SLOW: Duration = Duration::from_millis(400);
/// Health is looked at anew this often at most, so that a key is seen by the next probe.
const HEALTH_KEPT: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A server, dead or alive.
pub(super) struct Server {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
    /// Nobody else is given the port while the server is dead.
    _reserved: Socket,
    life: Option<Life>,
}

/// One life of a server, as a process.
struct Life {
    modes: Arc<Modes>,
    crashed: Arc<AtomicBool>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What the user has made of it.
#[derive(Default)]
struct Modes {
    slow: AtomicBool,
    errors: AtomicBool,
}

impl Server {
    /// A running server on a port that the kernel gives.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (reserved, address) = reserve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let mut server = Self {
            name: name.into(),
            address,
            _reserved: reserved,
            life: None,
        };
        server.revive()?;
        Ok(server)
    }

    /// Starts it on its port, as new: neither slow nor failing. Nothing happens while it is alive.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        if self.life.is_none() {
            self.life = Some(Life::begin(self.name.clone(), self.address)?);
        }
        Ok(())
    }

    /// Ends it as a crash does: its port refuses, and its connections are reset.
    pub(super) fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            life.end();
        }
    }

    /// Makes it slow, or not.
    pub(super) fn set_slow(&self, slow: bool) {
        if let Some(life) = &self.life {
            life.modes.slow.store(slow, Ordering::Relaxed);
        }
    }

    /// Makes it answer errors, and say so in its health, or not.
    pub(super) fn set_errors(&self, errors: bool) {
        if let Some(life) = &self.life {
            life.modes.errors.store(errors, Ordering::Relaxed);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Life {
    fn begin(name: Arc<str>, address: SocketAddr) -> io::Result<Self> {
        let socket = bind(address)?;
        socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let crashed = Arc::<AtomicBool>::default();
        let modes = Arc::<Modes>::default();
        let app = app(name.clone(), modes.clone());
        let (end, ended) = oneshot::channel();
        let listener = {
            let _on = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            MortalListener::new(listener, crashed.clone())
        };
        let thread = std::thread::Builder::new()
            .name(name.to_string())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = axum::serve(listener, app) => {}
                        _ = ended => {}
                    }
                });
                // Dropping the runtime drops what it served: each connection, in the middle of whatever it was doing.
            })?;
        Ok(Self {
            modes,
            crashed,
            end,
            thread,
        })
    }

    fn end(self) {
        self.crashed.store(true, Ordering::Relaxed);
        // It may have ended by a panic, which has been printed.
        let _ = self.end.send(());
        let _ = self.thread.join();
    }
}

/// Keeps a port for those who bind it on purpose: a socket that is bound and never listens, and its address.
///
/// # Errors
/// What the system refused.
pub(super) fn reserve(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = bind(address)?;
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| io::Error::other("no IP address was given"))?;
    Ok((socket, address))
}

/// A socket bound to this address beside one that does not listen.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What a handler knows.
#[derive(Clone)]
struct Known {
    name: Arc<str>,
    modes: Arc<Modes>,
}

fn app(name: Arc<str>, modes: Arc<Modes>) -> Router {
    let looked_at = modes.clone();
    let work = move || {
        let failing = looked_at.errors.load(Ordering::Relaxed);
        async move {
            if failing {
                return Err("errors are switched on");
            }
            Ok(())
        }
    };
    let readiness = Readiness::builder(env!("CARGO_PKG_VERSION"))
        .check("work", work)
        .expose_errors()
        .keep(HEALTH_KEPT)
        .build();
    Router::new()
        .route("/slow", get(slow))
        .route("/error", get(error))
        .fallback(hello)
        .with_state(Known { name, modes })
        .merge(readiness.router())
}

async fn hello(State(known): State<Known>) -> Response {
    if known.modes.slow.load(Ordering::Relaxed) {
        tokio::time::sleep(SLOW).await;
    }
    if known.modes.errors.load(Ordering::Relaxed) {
        return failed(&known.name);
    }
    well(&known.name)
}

async fn slow(State(known): State<Known>) -> Response {
    tokio::time::sleep(SLOW).await;
    well(&known.name)
}

async fn error(State(known): State<Known>) -> Response {
    failed(&known.name)
}

fn well(name: &str) -> Response {
    ([(SERVER, name)], format!("{name}\n")).into_response()
}

fn failed(name: &str) -> Response {
    let body = format!("{name}: an error on purpose\n");
    (StatusCode::INTERNAL_SERVER_ERROR, [(SERVER, name)], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    /// Asks on a connection of its own, which stays open.
    fn ask(server: &Server, path: &str) -> io::Result<(TcpStream, String)> {
        let mut stream = TcpStream::connect(server.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n")?;
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes)?;
        let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
        Ok((stream, text))
    }

    #[track_caller]
    fn check(server: &Server, path: &str, status: &str, body: &str) {
        let (_, text) = ask(server, path).expect("an answer");
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        assert!(text.contains(body), "{text}");
    }

    #[test]
    fn it_says_its_name_and_its_health() {
        let server = Server::start("server-1").expect("a server");
        check(&server, "/", "200", "server-1\n");
        check(&server, "/slow", "200", "server-1\n");
        check(&server, "/error", "500", "on purpose");
        check(&server, "/livez", "200", "ok");
        check(&server, "/health", "200", r#""status":"healthy""#);
    }

    #[test]
    fn errors_show_in_its_health() {
        let server = Server::start("server-1").expect("a server");
        server.set_errors(true);
        check(&server, "/", "500", "on purpose");
        check(&server, "/health", "503", "errors are switched on");
        check(&server, "/livez", "200", "ok");
    }

    #[test]
    fn a_crash_resets_and_refuses_until_it_is_back_on_its_port() {
        let mut server = Server::start("server-1").expect("a server");
        let (mut kept, _) = ask(&server, "/").expect("an answer");
        server.set_slow(true);
        server.kill();
        let end = kept.read(&mut [0; 1]).expect_err("no clean end");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        let refused = ask(&server, "/").expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        server.revive().expect("its port is still its own");
        check(&server, "/", "200", "server-1\n");
    }
}
