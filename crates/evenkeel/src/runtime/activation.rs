//! Listening sockets that a service manager has opened: systemd's socket activation (sd_listen_fds(3)).

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use config::Bind;
use listenfd::ListenFd;
use proxy::Inherited;

/// Names of the sockets, for the log: those of `FileDescriptorName=`.
const NAMES: &str = "LISTEN_FDNAMES";

/// The name of the one that is the admin listener's.
const ADMIN: &str = "admin";

/// What a service manager has opened.
#[derive(Default)]
pub(super) struct Activated {
    pub(super) sockets: Inherited,
    /// The one that is named for the admin listener.
    pub(super) admin: Option<TcpListener>,
}

/// Takes the sockets that this process was started with, if they are meant for it. To be called before there are other
/// threads: the variables are removed, so that they mean nothing to a process that this one starts.
pub(super) fn inherit() -> Activated {
    let names = std::env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut activated = Activated::default();
    for index in 0..sockets.len() {
        let name = names.next().unwrap_or_default();
        let taken = take(&mut sockets, index).and_then(|socket| activated.add(name, socket));
        if let Err(why) = taken {
            tracing::warn!(
                name,
                "socket {index} of the service manager is not used: {why}"
            );
        }
    }
    activated
}

impl Activated {
    fn add(&mut self, name: &str, socket: OwnedFd) -> Result<(), String> {
        if name != ADMIN {
            return self.sockets.insert_foreign(socket).map_err(|not| not.0);
        }
        if self.admin.is_some() {
            return Err(format!("another one is named `{ADMIN}`"));
        }
        let listener = TcpListener::from(socket);
        // Of a Unix socket, it is none.
        listener.local_addr().map_err(|error| error.to_string())?;
        self.admin = Some(listener);
        Ok(())
    }
}

fn take(sockets: &mut ListenFd, index: usize) -> Result<OwnedFd, String> {
    match sockets.take_tcp_listener(index) {
        Ok(Some(socket)) => return Ok(socket.into()),
        Ok(None) => return Err("it was taken before".to_owned()),
        Err(_) => {}
    }
    match sockets.take_unix_listener(index) {
        Ok(Some(socket)) => Ok(socket.into()),
        Ok(None) => Err("it was taken before".to_owned()),
        Err(_) => Err("it is neither a TCP nor a Unix stream socket".to_owned()),
    }
}

/// Says which sockets no listener wants.
pub(super) fn warn_of(left: &BTreeSet<Bind>) {
    for bind in left {
        tracing::warn!(
            address = proxy::show(bind),
            "the service manager has opened a socket that no listener binds: it is not used; a listener adopts it if \
             its `bind` is the same address"
        );
    }
}
