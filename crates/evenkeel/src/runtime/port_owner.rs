//! Who listens on a port: what `/proc` says of it, for the message of a bind that failed.

use std::path::Path;

/// A listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// ": nginx (pid 123) listens there" for a bind that failed because of it, else nothing: the end of a message.
pub(super) fn of_error(error: &std::io::Error, port: u16) -> String {
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return String::new();
    }
    owner(port).map_or_else(String::new, |owner| format!(": {owner} listens there"))
}

/// "nginx (pid 123)", as far as this user may know.
fn owner(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?;
    let process = processes
        .flatten()
        // Not `self` and its like.
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .find(|process| holds(&process.path(), &links))?;
    let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
    Some(format!(
        "{} (pid {})",
        name.trim(),
        process.file_name().to_string_lossy()
    ))
}

/// The inodes of the sockets that listen on a port.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    let mut found = Vec::new();
    for line in table.lines() {
        // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(local), Some(state), Some(inode)) =
            (columns.get(1), columns.get(3), columns.get(9))
        else {
            continue;
        };
        if local.ends_with(&port) && *state == LISTENING && *inode != "0" {
            found.push((*inode).to_owned());
        }
    }
    found
}

fn holds(process: &Path, links: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        std::fs::read_link(descriptor.path())
            .is_ok_and(|link| links.iter().any(|known| link == Path::new(known)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_port_has_an_inode() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0
   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0
";
        assert_eq!(listening_inodes(table, 8080), ["4711"]);
    }

    #[test]
    fn our_own_listener_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let owner = owner(port).expect("an owner");
        assert!(
            owner.ends_with(&format!("(pid {})", std::process::id())),
            "{owner}"
        );
    }
}
