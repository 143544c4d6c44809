//! Listening sockets that another process has opened for this one: its predecessor in an upgrade, or a service manager.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use config::Bind;
use socket2::{SockRef, Type};

use super::show;

/// The sockets of one address.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// One or more; they may be more or fewer than there are workers.
    pub sockets: Vec<OwnedFd>,
    /// Whether the path of a Unix socket is this process's to remove.
    pub unlink: bool,
}

/// What is inherited, by the address that a config would name.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: BTreeMap<Bind, HandedOver>,
    ports: BTreeSet<u16>,
}

/// A socket that cannot be adopted, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdopted(pub String);

impl std::fmt::Display for NotAdopted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Inherited {
    /// Adds the sockets that a predecessor had for this address of its config.
    pub fn insert(&mut self, bind: Bind, handed: HandedOver) {
        for socket in &handed.sockets {
            let port = local(socket).ok().and_then(|bind| match bind {
                Bind::Tcp { address, .. } => Some(address.port()),
                Bind::Unix(_) => None,
            });
            self.ports.extend(port);
        }
        let entry = self.sockets.entry(bind).or_default();
        entry.sockets.extend(handed.sockets);
        entry.unlink |= handed.unlink;
    }

    /// Adds a socket that a service manager has opened, under the address that it really has.
    ///
    /// # Errors
    /// When it is not a listening stream socket.
    pub fn insert_foreign(&mut self, socket: OwnedFd) -> Result<(), NotAdopted> {
        let not = |why: String| NotAdopted(why);
        let bind = local(&socket).map_err(|error| not(error.to_string()))?;
        let listens = SockRef::from(&socket)
            .is_listener()
            .map_err(|error| not(error.to_string()))?;
        if !listens {
            return Err(not(format!("{} does not listen", show(&bind))));
        }
        self.insert(
            bind,
            HandedOver {
                sockets: vec![socket],
                unlink: false,
            },
        );
        Ok(())
    }

    /// The addresses that nobody has taken.
    #[must_use]
    pub fn left(&self) -> BTreeSet<Bind> {
        self.sockets.keys().cloned().collect()
    }

    pub(crate) fn take(&mut self, bind: &Bind) -> Option<HandedOver> {
        let handed = self
            .sockets
            .remove(bind)
            .or_else(|| self.sockets.remove(&shared(bind)?));
        handed.filter(|handed| !handed.sockets.is_empty())
    }

    /// Whether one of the sockets has this port: binding it anew meets nobody foreign.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}

/// How a version named an address with port 0 that gave all listeners there one port.
fn shared(bind: &Bind) -> Option<Bind> {
    let mut bind = bind.clone();
    match &mut bind {
        Bind::Tcp { listener, .. } => listener.take().map(|_| bind),
        Bind::Unix(_) => None,
    }
}

/// A socket's address, as a config would name it.
fn local(socket: &OwnedFd) -> io::Result<Bind> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM {
        return Err(io::Error::other("it is not a stream socket"));
    }
    let address = socket.local_addr()?;
    if let Some(address) = address.as_socket() {
        let wildcard = address.is_ipv6() && address.ip().is_unspecified();
        return Ok(Bind::Tcp {
            address,
            dual_stack: wildcard && !socket.only_v6()?,
            listener: None,
        });
    }
    let path = address.as_pathname().and_then(std::path::Path::to_str);
    match path {
        Some(path) => Ok(Bind::Unix(path.to_owned())),
        None => Err(io::Error::other(
            "it is neither a TCP socket nor a Unix socket with a path",
        )),
    }
}
