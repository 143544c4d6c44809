//! The admin listener: its port, its token, and its task.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use admin::{Console, Ending};
use config::Admin;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::port_owner;

/// Ports above the default one that are tried.
const PORTS_TRIED: u16 = 100;
/// Bytes of a token file.
const TOKEN_BYTES_MAX: usize = 4096;

/// The token that the config asks for.
///
/// # Errors
/// When its file cannot be used, in words for the user.
pub(super) fn token(admin: Option<&Admin>) -> Result<Option<String>, String> {
    let Some(admin) = admin else {
        return Ok(None);
    };
    let Some(path) = &admin.token_file else {
        if admin.bind.ip().to_canonical().is_loopback() {
            return Ok(None);
        }
        return Err(format!(
            "admin: away from loopback ({}) a `token_file` is needed",
            admin.bind
        ));
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("admin: cannot read the token file {path}: {error}"))?;
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || token.contains(char::is_control) {
        return Err(format!(
            "admin: the token file {path} must hold one line of at most {TOKEN_BYTES_MAX} bytes"
        ));
    }
    Ok(Some(token.to_owned()))
}

/// A socket that this process did not open itself.
pub(super) enum Given {
    /// What the process before this one had for this address of its config.
    Handed(SocketAddr, TcpListener),
    /// What a service manager has opened for the admin listener.
    Opened(TcpListener),
}

/// Goes on with what is given, if that is for the address which the config says; else binds anew.
///
/// # Errors
/// What the system refused, or would be open to everybody, in words for the user.
pub(super) fn take(
    wanted: Option<&Admin>,
    given: Option<Given>,
) -> Result<Option<TcpListener>, String> {
    let Some(wanted) = wanted else {
        if let Some(Given::Opened(_)) = given {
            tracing::warn!("`admin` is off: the service manager's socket for it is not used");
        }
        return Ok(None);
    };
    let listener = match given {
        Some(Given::Handed(bind, listener)) if bind == wanted.bind => listener,
        Some(Given::Opened(listener)) if fits(wanted, &listener) => listener,
        _ => return bind(wanted).map(Some),
    };
    let address = listener
        .local_addr()
        .map_err(|error| format!("admin: {error}"))?;
    if !address.ip().to_canonical().is_loopback() && wanted.token_file.is_none() {
        return Err(format!(
            "admin: away from loopback (its socket is at {address}) a `token_file` is needed"
        ));
    }
    Ok(Some(listener))
}

/// Whether a service manager's socket is at the address that the config says, if it says one.
fn fits(wanted: &Admin, listener: &TcpListener) -> bool {
    let address = listener.local_addr();
    let fits = !wanted.written || address.as_ref().is_ok_and(|it| *it == wanted.bind);
    if !fits {
        let shown = address.map_or_else(|_| "?".to_owned(), |it| it.to_string());
        tracing::warn!(
            "the service manager's socket for the admin listener is at {shown}, and `admin` binds {}: it is not used",
            wanted.bind
        );
    }
    fits
}

/// Binds what the config says; the default port gives way to the next free one.
///
/// # Errors
/// What the system refused, in words for the user.
pub(super) fn bind(admin: &Admin) -> Result<TcpListener, String> {
    let error = match TcpListener::bind(admin.bind) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let owner = port_owner::of_error(&error, admin.bind.port());
    if admin.written || error.kind() != ErrorKind::AddrInUse {
        return Err(format!("admin: cannot bind {}: {error}{owner}", admin.bind));
    }
    let listener = bind_next(admin.bind)
        .map_err(|error| format!("admin: no port from {} on is free: {error}", admin.bind))?;
    let port = listener.local_addr().map_or(0, |address| address.port());
    tracing::warn!(
        "the default admin port {} is taken{owner}; {port} is used",
        admin.bind.port()
    );
    Ok(listener)
}

fn bind_next(from: SocketAddr) -> io::Result<TcpListener> {
    let next = (1..=PORTS_TRIED).filter_map(|more| from.port().checked_add(more));
    let mut last = io::Error::from(ErrorKind::AddrInUse);
    for port in next {
        match TcpListener::bind(SocketAddr::new(from.ip(), port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The running admin listener.
pub(super) struct AdminTask {
    pub(super) address: SocketAddr,
    socket: TcpListener,
    end: oneshot::Sender<Ending>,
    task: JoinHandle<()>,
}

impl AdminTask {
    /// Serves from now on. To be called on a runtime.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn start(listener: TcpListener, console: &Console) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let socket = listener.try_clone()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (end, ended) = oneshot::channel();
        let ended = async move { ended.await.unwrap_or(Ending::Closed) };
        let task = tokio::spawn(admin::serve(listener, console.router(), ended));
        Ok(Self {
            address,
            socket,
            end,
            task,
        })
    }

    /// A further descriptor of its socket, for another process.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone().map(OwnedFd::from)
    }

    /// Another process has the socket: nothing new is accepted. Whoever is connected here is served to the end by the
    /// task that is given back, and wants to be waited for.
    pub(super) fn hand_over(self) -> JoinHandle<()> {
        let _ = self.end.send(Ending::HandedOver);
        self.task
    }

    /// Finishes what is being answered, and what may be on its way, within two seconds.
    pub(super) async fn end(self) {
        let _ = self.end.send(Ending::Closed);
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_port_gives_way_and_a_written_one_does_not() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut admin = Admin {
            bind: taken.local_addr().expect("an address"),
            written: false,
            token_file: None,
        };
        let other = bind(&admin).expect("the next port");
        assert_ne!(other.local_addr().expect("an address"), admin.bind);
        admin.written = true;
        let error = bind(&admin).expect_err("taken");
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
    }

    #[test]
    fn a_given_socket_is_taken_for_its_address_only() {
        let admin = |bind: &str, written: bool, token: bool| Admin {
            bind: bind.parse().expect("an address"),
            written,
            token_file: token.then(|| "token".to_owned()),
        };
        let socket = |bind: &str| TcpListener::bind(bind).expect("a port");
        let at = |listener: &TcpListener| listener.local_addr().expect("an address");
        let opened = socket("127.0.0.1:0");
        let address = at(&opened);
        for (written, bind, taken) in [
            (false, "127.0.0.1:1".to_owned(), true),
            (true, address.to_string(), true),
            (true, "127.0.0.1:0".to_owned(), false),
        ] {
            let given = Given::Opened(opened.try_clone().expect("a copy"));
            let listener = take(Some(&admin(&bind, written, false)), Some(given));
            let found = at(&listener.expect("it works").expect("it is on"));
            assert_eq!(found == address, taken, "{bind}");
        }
        let handed = Given::Handed("127.0.0.1:7".parse().expect("it is one"), opened);
        let listener = take(Some(&admin("127.0.0.1:7", true, false)), Some(handed));
        assert_eq!(at(&listener.expect("it works").expect("it is on")), address);
        let off = take(None, Some(Given::Opened(socket("127.0.0.1:0"))));
        assert!(off.expect("it works").is_none());

        // Open to all, it has a token or is refused, whatever the config's own address is.
        let wide = || Given::Opened(socket("0.0.0.0:0"));
        let error = take(Some(&admin("127.0.0.1:1", false, false)), Some(wide()));
        assert!(error.expect_err("it is refused").contains("token_file"));
        assert!(take(Some(&admin("127.0.0.1:1", false, true)), Some(wide())).is_ok());
    }

    #[test]
    fn a_token_is_needed_away_from_loopback() {
        let mut admin = Admin {
            bind: SocketAddr::from(([0, 0, 0, 0], 1)),
            written: true,
            token_file: None,
        };
        assert!(token(Some(&admin)).is_err());
        admin.token_file = Some("/nonexistent/token".to_owned());
        assert!(
            token(Some(&admin))
                .expect_err("no file")
                .contains("/nonexistent/token")
        );
        assert_eq!(token(None), Ok(None));
    }
}
