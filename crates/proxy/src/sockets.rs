//! Listening sockets: bound by the publisher's thread before anything depends on them, and owned by the listener,
//! not by a worker.
//!
//! What another process has opened for this one is adopted instead of bound: `inherited`.

mod inherited;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use config::{Bind, Snapshot};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use inherited::{HandedOver, Inherited, NotAdopted};

/// Connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The listener that wants it.
    pub listener: Arc<str>,
    /// The address.
    pub bind: Bind,
    /// What the system said.
    pub error: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = show(&self.bind);
        write!(f, "listener `{}` cannot bind {address}: ", self.listener)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => f.write_str("another process has it"),
            io::ErrorKind::PermissionDenied => {
                f.write_str("not permitted (ports below 1024 need a privilege)")
            }
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("no interface of this machine has that address")
            }
            _ => self.error.fmt(f),
        }
    }
}

impl std::error::Error for BindError {}

/// A bind as the user would write it.
#[must_use]
pub fn show(bind: &Bind) -> String {
    match bind {
        Bind::Tcp { address, .. } => address.to_string(),
        Bind::Unix(path) => format!("unix:{path}"),
    }
}

/// The sockets of one address.
pub(crate) struct Bound {
    pub(crate) listener: Arc<str>,
    sockets: Sockets,
    /// With the port that the kernel gave.
    pub(crate) address: String,
    pub(crate) port: Option<u16>,
    /// Lives for as long as any worker has one of the sockets open.
    pub(crate) open: Arc<()>,
}

enum Sockets {
    /// One for each worker, in one SO_REUSEPORT group; when they were inherited, fewer or more.
    Tcp(Vec<TcpListener>),
    /// One, polled by all.
    Unix {
        socket: UnixListener,
        /// The path that goes with it, unless it belongs to another process.
        unlink: Option<String>,
        /// The path that will go with it, once the other process has let go of it.
        inherits: Option<String>,
    },
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Sockets::Unix {
            unlink: Some(path), ..
        } = &self.sockets
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A worker's own descriptor of a socket.
pub(crate) struct Share {
    pub(crate) socket: ShareSocket,
    /// To be kept until the descriptor is closed.
    pub(crate) open: Arc<()>,
}

pub(crate) enum ShareSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// The sockets that one of `workers` polls, by their number: every socket is polled by somebody, and every worker
    /// polls one.
    pub(crate) fn shares(&self, worker: usize, workers: usize) -> Vec<(usize, Share)> {
        let count = match &self.sockets {
            Sockets::Tcp(sockets) => sockets.len(),
            Sockets::Unix { .. } => 1,
        };
        polled(count, worker, workers)
            // Refused only when the process is out of descriptors; the other workers' sockets go on.
            .filter_map(|socket| Some((socket, self.share(socket).ok()?)))
            .collect()
    }

    fn share(&self, number: usize) -> io::Result<Share> {
        let socket = match &self.sockets {
            Sockets::Tcp(sockets) => {
                let socket = sockets
                    .get(number)
                    .ok_or_else(|| io::Error::other("no socket"))?;
                socket.try_clone().map(ShareSocket::Tcp)
            }
            Sockets::Unix { socket, .. } => socket.try_clone().map(ShareSocket::Unix),
        };
        Ok(Share {
            socket: socket?,
            open: self.open.clone(),
        })
    }

    /// Further descriptors of all its sockets, for another process.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        match &self.sockets {
            Sockets::Tcp(sockets) => sockets
                .iter()
                .map(|socket| socket.try_clone().map(OwnedFd::from))
                .collect(),
            Sockets::Unix { socket, .. } => Ok(vec![socket.try_clone()?.into()]),
        }
    }

    /// Whether a path goes with it when it closes.
    pub(crate) fn unlinks(&self) -> bool {
        matches!(
            self.sockets,
            Sockets::Unix {
                unlink: Some(_),
                ..
            }
        )
    }

    /// Another process has it now: closing it here takes nothing away.
    pub(crate) fn give_up(&mut self) {
        if let Sockets::Unix { unlink, .. } = &mut self.sockets {
            *unlink = None;
        }
    }

    /// The other process has let go of it.
    pub(crate) fn inherit(&mut self) {
        if let Sockets::Unix {
            unlink, inherits, ..
        } = &mut self.sockets
            && inherits.is_some()
        {
            *unlink = inherits.take();
        }
    }
}

/// Which of `count` sockets one of `workers` polls.
fn polled(count: usize, worker: usize, workers: usize) -> impl Iterator<Item = usize> {
    let (count, workers) = (count.max(1), workers.max(1));
    let first = worker % workers;
    let first = if count < workers {
        first % count
    } else {
        first
    };
    (first..count).step_by(workers)
}

/// Addresses with port 0 that are the same under another listener's name, before and now: they keep their port.
pub(crate) fn renamed<T>(snapshot: &Snapshot, held: &BTreeMap<Bind, T>) -> Vec<(Bind, Bind)> {
    let binds = || snapshot.listeners.iter().flat_map(|it| &it.binds);
    let wanted: BTreeSet<&Bind> = binds().collect();
    let mut free: Vec<&Bind> = held.keys().filter(|bind| !wanted.contains(bind)).collect();
    let mut renamed = Vec::new();
    for bind in binds().filter(|bind| !held.contains_key(bind)) {
        if let Some(at) = free
            .iter()
            .position(|held| held.is_same_but_for_owner(bind))
        {
            renamed.push((free.remove(at).clone(), bind.clone()));
        }
    }
    renamed
}

/// Binds what `snapshot` needs and `held` does not hold; all failures are reported, and then nothing stays bound.
pub(crate) fn bind_new(
    snapshot: &Snapshot,
    held: &BTreeMap<Bind, Bound>,
    workers: usize,
    inherited: &mut Inherited,
) -> Result<BTreeMap<Bind, Bound>, Vec<BindError>> {
    let renamed: BTreeSet<Bind> = renamed(snapshot, held)
        .into_iter()
        .map(|(_, now)| now)
        .collect();
    let mut fresh = BTreeMap::new();
    let mut errors = Vec::new();
    for listener in &snapshot.listeners {
        for bind in &listener.binds {
            if held.contains_key(bind) || fresh.contains_key(bind) || renamed.contains(bind) {
                continue;
            }
            let opened = match inherited.take(bind) {
                Some(handed) => adopt(bind, handed),
                None => open(bind, held, workers, inherited),
            };
            match opened {
                Ok((sockets, address, port)) => {
                    let listener = listener.name.clone();
                    fresh.insert(
                        bind.clone(),
                        Bound {
                            listener,
                            sockets,
                            address,
                            port,
                            open: Arc::new(()),
                        },
                    );
                }
                Err(error) => errors.push(BindError {
                    listener: listener.name.clone(),
                    bind: bind.clone(),
                    error,
                }),
            }
        }
    }
    if errors.is_empty() {
        Ok(fresh)
    } else {
        Err(errors)
    }
}

/// Sockets, their address, and its port.
type Opened = (Sockets, String, Option<u16>);

/// Takes sockets that another process has opened.
fn adopt(bind: &Bind, handed: HandedOver) -> io::Result<Opened> {
    let mut sockets = handed.sockets.into_iter();
    match bind {
        Bind::Unix(path) => {
            let socket = sockets
                .next()
                .ok_or_else(|| io::Error::other("no socket"))?;
            let socket = UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            let sockets = Sockets::Unix {
                socket,
                unlink: None,
                inherits: handed.unlink.then(|| path.clone()),
            };
            Ok((sockets, format!("unix:{path}"), None))
        }
        Bind::Tcp { .. } => {
            let sockets: Vec<TcpListener> = sockets.map(TcpListener::from).collect();
            let first = sockets
                .first()
                .ok_or_else(|| io::Error::other("no socket"))?;
            let address = first.local_addr()?;
            for socket in &sockets {
                socket.set_nonblocking(true)?;
            }
            let port = Some(address.port());
            Ok((Sockets::Tcp(sockets), address.to_string(), port))
        }
    }
}

fn open(
    bind: &Bind,
    held: &BTreeMap<Bind, Bound>,
    workers: usize,
    inherited: &Inherited,
) -> io::Result<Opened> {
    match bind {
        Bind::Unix(path) => {
            let socket = open_unix(path)?;
            let sockets = Sockets::Unix {
                socket,
                unlink: Some(path.clone()),
                inherits: None,
            };
            Ok((sockets, format!("unix:{path}"), None))
        }
        Bind::Tcp {
            address,
            dual_stack,
            ..
        } => {
            let ours = held
                .values()
                .any(|bound| bound.port == Some(address.port()))
                || inherited.has_port(address.port());
            let (sockets, actual) =
                open_tcp(*address, *dual_stack, workers, ours).or_else(|error| {
                    // A machine without IPv6 still has the other half of `":8080"`.
                    if *dual_stack && is_no_ipv6(&error) {
                        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                        return open_tcp(v4, false, workers, ours);
                    }
                    Err(error)
                })?;
            Ok((
                Sockets::Tcp(sockets),
                actual.to_string(),
                Some(actual.port()),
            ))
        }
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
        || code == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error())
}

fn open_tcp(
    address: SocketAddr,
    dual_stack: bool,
    workers: usize,
    ours: bool,
) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    if address.port() != 0 && !ours {
        // Without SO_REUSEPORT the kernel tells whether anybody else listens there, ourselves in another process
        // included; with it, two processes would silently share the port.
        let probe = socket(address, dual_stack, false)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    let mut sockets = Vec::new();
    let mut actual = address;
    for _ in 0..workers.max(1) {
        let socket = socket(actual, dual_stack, true)?;
        socket.bind(&actual.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        actual = listener.local_addr()?;
        sockets.push(listener);
    }
    Ok((sockets, actual))
}

fn socket(address: SocketAddr, dual_stack: bool, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    Ok(socket)
}

fn open_unix(path: &str) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::metadata(path) {
        // To connect to any other file is refused too, and what it holds would be lost.
        if !found.file_type().is_socket() {
            let what = "a file that is no socket is there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A queue that is full is no reason to wait.
        probe.set_nonblocking(true)?;
        match probe.connect(&SockAddr::unix(path)?) {
            Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Err(io::ErrorKind::AddrInUse.into()),
                // Nobody answers: it was left behind by a process that died.
                io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                _ => return Err(error),
            },
        }
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
