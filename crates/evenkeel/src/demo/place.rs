//! Where the demo is: its ports, its folder, and the config that it runs.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::server::Server;

/// The pool's name.
pub(super) const POOL: &str = "site";
const PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9900;
/// Folders of that name that may be left over from processes that were killed.
const FOLDERS_TRIED: u32 = 100;

/// The addresses, and the config in its folder, which is removed in the end.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) config: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// Finds ports and writes the config.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn make(servers: &[Server]) -> io::Result<Self> {
        let (address, admin) = ports()?;
        let folder = make_folder()?;
        let place = Self {
            address,
            admin,
            config: folder.join("evenkeel.yaml"),
            folder,
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

/// The usual two ports, each if it is free, else another.
fn ports() -> io::Result<(SocketAddr, SocketAddr)> {
    // Both are held until both are known, so that they differ.
    let listener = free(PORT)?;
    let admin = free(ADMIN_PORT)?;
    Ok((listener.local_addr()?, admin.local_addr()?))
}

fn free(port: u16) -> io::Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    at(port).or_else(|_| at(0))
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
        let taken = free(0).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let other = free(port).expect("another");
        assert_ne!(other.local_addr().expect("an address").port(), port);
    }
}
