//! Listening sockets that a service manager has opened: systemd's socket activation (sd_listen_fds(3)).

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use config::Bind;
use listenfd::ListenFd;
use proxy::Inherited;

/// Names of the sockets, for the log: those of `FileDescriptorName=`.
const NAMES: &str = "LISTEN_FDNAMES";

/// Takes the sockets that this process was started with, if they are meant for it. To be called before there are other
/// threads: the variables are removed, so that they mean nothing to a process that this one starts.
pub(super) fn inherit() -> Inherited {
    let names = std::env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut inherited = Inherited::default();
    for index in 0..sockets.len() {
        let name = names.next().unwrap_or_default();
        let taken = take(&mut sockets, index)
            .and_then(|socket| inherited.insert_foreign(socket).map_err(|not| not.0));
        if let Err(why) = taken {
            tracing::warn!(
                name,
                "socket {index} of the service manager is not used: {why}"
            );
        }
    }
    inherited
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
