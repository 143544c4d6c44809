//! Where the demo is: its ports, its folder, and the config that it runs.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};

use socket2::Socket;

use super::server::{Server, reserve};

/// The pool's name.
pub(super) const POOL: &str = "site";
const PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9900;
/// Held by the demo that may take those two, so that two that start together do not both find them free.
const CLAIM: &str = "evenkeel-demo";
/// Folders of that name that may be left over from processes that were killed.
const FOLDERS_TRIED: u32 = 100;

/// The addresses, and the config in its folder, which is removed in the end.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) config: PathBuf,
    folder: PathBuf,
    _claim: Option<UnixListener>,
    /// Nobody else is given the ports before the balancer listens on them.
    _reserved: [Socket; 2],
}

impl Place {
    /// Finds ports and writes the config.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn make(servers: &[Server]) -> io::Result<Self> {
        let claim = claim(CLAIM);
        let usual = |port| if claim.is_some() { port } else { 0 };
        let (listener, address) = free(usual(PORT))?;
        let (admin_listener, admin) = free(usual(ADMIN_PORT))?;
        let folder = make_folder()?;
        let place = Self {
            address,
            admin,
            config: folder.join("evenkeel.yaml"),
            folder,
            _claim: claim,
            _reserved: [listener, admin_listener],
        };
        std::fs::write(&place.config, config(address, admin, servers))?;
        Ok(place)
    }

    /// The config as it is in its file now.
    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(&self.config).unwrap_or_else(|error| format!("{error}\n"))
    }

    /// Where to ask.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Where the admin page is.
    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Left behind at worst.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ten lines.
fn config(address: SocketAddr, admin: SocketAddr, servers: &[Server]) -> String {
    let mut text = format!(
        "\
listeners:
  web: {{ bind: \"{address}\", pool: {POOL} }}
admin: {{ bind: \"{admin}\" }}
pools:
  {POOL}:
    servers:
"
    );
    for server in servers {
        let Server { name, address, .. } = server;
        text.push_str(&format!(
            "      - {{ name: {name}, address: \"{address}\" }}\n"
        ));
    }
    text.push_str("    health_check: { path: /health, interval: 1s }\n");
    text
}

/// A name that one process at a time can have.
fn claim(name: &str) -> Option<UnixListener> {
    let address = UnixAddr::from_abstract_name(name).ok()?;
    UnixListener::bind_addr(&address).ok()
}

/// This port if nobody listens on it, else another.
fn free(port: u16) -> io::Result<(Socket, SocketAddr)> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_free = TcpListener::bind(at(port)).is_ok();
    reserve(at(if is_free { port } else { 0 })).or_else(|_| reserve(at(0)))
}

/// A folder that only this user may look into.
fn make_folder() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..FOLDERS_TRIED {
        let folder = base.join(folder_name(number));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn folder_name(number: u32) -> PathBuf {
    let process = std::process::id();
    let name = match number {
        0 => format!("evenkeel-demo-{process}"),
        _ => format!("evenkeel-demo-{process}-{number}"),
    };
    Path::new(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;

    #[test]
    fn the_config_has_ten_lines_and_no_fault() {
        let servers =
            ["server-1", "server-2", "server-3"].map(|name| Server::start(name).expect("a server"));
        let place = Place::make(&servers).expect("a place");
        assert_eq!(place.text().lines().count(), 10, "{}", place.text());
        let loaded = Origin::File(place.config.clone()).load();
        assert_eq!(loaded.diagnostics.len(), 0, "{:?}", loaded.diagnostics);
        assert!(loaded.snapshot.is_some());
        let folder = place.folder.clone();
        drop(place);
        assert!(!folder.exists());
    }

    #[test]
    fn a_taken_port_gives_way() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().map(|address| (taken, address));
        let (_taken, address) = taken.expect("an address");
        let (_reserved, other) = free(address.port()).expect("another");
        assert_ne!(other.port(), address.port());
        let (_reserved, same) = free(other.port()).expect("a reserved one is free to us");
        assert_eq!(same, other);
    }

    #[test]
    fn a_name_is_claimed_once() {
        let name = format!("evenkeel-demo-test-{}", std::process::id());
        let first = claim(&name);
        assert!(first.is_some());
        assert!(claim(&name).is_none());
        drop(first);
        assert!(claim(&name).is_some());
    }
}
