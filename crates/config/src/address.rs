//! Addresses of servers and binds.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::snapshot::{Address, Bind};

/// What is wrong with an address, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AddressError {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

fn fault<T>(message: String, help: Option<String>) -> Result<T, AddressError> {
    Err(AddressError { message, help })
}

/// Bytes of a Unix socket path, as Linux has it.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// `IP:port`, `[v6]:port`, `name:port` or `unix:/path`.
pub(crate) fn parse_server(text: &str) -> Result<Address, AddressError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(|path| Address::Unix(path.into()));
    }
    let (host, port) = split(text)?;
    let Some(port) = port else {
        return fault(
            format!("`{text}` has no port"),
            Some(format!("write `{text}:80` if that port is meant")),
        );
    };
    if port == 0 {
        return fault(format!("`{text}` has port 0, where no server is"), None);
    }
    match host {
        Host::Ip(ip) => Ok(Address::Ip(SocketAddr::new(ip, port))),
        Host::Any => fault(
            format!("`{text}` names no server"),
            Some(format!("write `127.0.0.1{text}` for this machine")),
        ),
        Host::Name(name) => Ok(Address::Name(Arc::from(name.to_ascii_lowercase()), port)),
    }
}

/// `:port` (IPv6 and IPv4), `IP:port`, `[v6]:port` or `unix:/path`.
pub(crate) fn parse_bind(text: &str) -> Result<Bind, AddressError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(|path| Bind::Unix(path.to_owned()));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let message = format!("`{text}` is a port without an address");
        return fault(message, Some(format!("write \":{text}\"")));
    }
    let (host, port) = split(text)?;
    let Some(port) = port else {
        return fault(
            format!("`{text}` has no port"),
            Some(format!("write \"{text}:8080\" if that port is meant")),
        );
    };
    let tcp = |ip, dual_stack| {
        Ok(Bind::Tcp {
            address: SocketAddr::new(ip, port),
            dual_stack,
            listener: None,
        })
    };
    match host {
        Host::Any => tcp(IpAddr::V6(Ipv6Addr::UNSPECIFIED), true),
        Host::Ip(ip) => tcp(ip, false),
        Host::Name("*") => fault(
            format!("`{text}` is not an address"),
            Some(format!("write \":{port}\" for every address")),
        ),
        Host::Name(name) => fault(
            format!("`{name}` is a name; a listener binds an address of this machine"),
            Some(format!(
                "write \":{port}\" for every address, or an IP address"
            )),
        ),
    }
}

/// Where the admin listener binds: an IP address and port; `localhost` is `127.0.0.1`.
pub(crate) fn parse_admin(text: &str) -> Result<SocketAddr, AddressError> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => &format!("127.0.0.1:{port}"),
        None => text,
    };
    match parse_bind(text)? {
        Bind::Tcp { address, .. } => Ok(address),
        Bind::Unix(_) => fault(
            "the admin listener binds an IP address and port".to_owned(),
            None,
        ),
    }
}

enum Host<'a> {
    /// Nothing before the colon.
    Any,
    Ip(IpAddr),
    Name(&'a str),
}

/// Host and port, each checked.
fn split(text: &str) -> Result<(Host<'_>, Option<u16>), AddressError> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return fault(
            format!("`{text}` is a URL, not an address"),
            Some(format!("leave out `{scheme}://`: `{rest}`")),
        );
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((ip, after)) = rest.split_once(']') else {
            return fault(format!("`{text}` lacks its `]`"), None);
        };
        let Ok(ip) = ip.parse::<Ipv6Addr>() else {
            return fault(format!("`{ip}` is not an IPv6 address"), None);
        };
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port, text)?),
            None if after.is_empty() => None,
            None => {
                return fault(
                    format!("`{text}` has something between `]` and its port"),
                    None,
                );
            }
        };
        return Ok((Host::Ip(IpAddr::V6(ip)), port));
    }
    if text.matches(':').count() > 1 {
        let help = match text.rsplit_once(':') {
            Some((ip, port)) if ip.parse::<Ipv6Addr>().is_ok() => {
                Some(format!("write \"[{ip}]:{port}\""))
            }
            _ if text.parse::<Ipv6Addr>().is_ok() => {
                Some(format!("write \"[{text}]:80\" if that port is meant"))
            }
            _ => None,
        };
        return fault(
            format!("`{text}` is not an address: an IPv6 address stands in brackets"),
            help,
        );
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port, text)?)),
        None => (text, None),
    };
    Ok((parse_host(host, text)?, port))
}

fn parse_host<'a>(host: &'a str, text: &str) -> Result<Host<'a>, AddressError> {
    if host.is_empty() && text.starts_with(':') {
        return Ok(Host::Any);
    }
    if let Ok(ip) = host.parse() {
        return Ok(Host::Ip(ip));
    }
    if host != "*" && host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return fault(format!("`{host}` is not an IP address"), None);
    }
    if host == "*" || is_name(host) {
        return Ok(Host::Name(host));
    }
    fault(
        format!("`{text}` is not an address"),
        Some("write `IP:port`, `\"[v6]:port\"`, `name:port` or `unix:/path`".to_owned()),
    )
}

fn parse_port(port: &str, text: &str) -> Result<u16, AddressError> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits => Ok(port),
        _ => fault(
            format!("`{port}` in `{text}` is not a port (0 to 65535)"),
            None,
        ),
    }
}

/// A DNS name: labels of letters, digits, `-` and `_`, 63 bytes each and 253 in all.
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(good)
}

fn unix_path(path: &str) -> Result<&str, AddressError> {
    let message = if path.is_empty() {
        "`unix:` needs a path"
    } else if path.len() > UNIX_PATH_BYTES_MAX {
        "a Unix socket's path has at most 107 bytes"
    } else if path.contains('\0') {
        "a path cannot hold a zero byte"
    } else {
        return Ok(path);
    };
    fault(
        message.to_owned(),
        Some("write `unix:/run/NAME.sock`".to_owned()),
    )
}

/// Whether two binds cannot both be had, or one would take what the other should get.
///
/// The same address and port; a wildcard and any address of its family; one dual-stack wildcard
/// and anything on its port; the same path. Port 0 asks the kernel, so it never conflicts.
pub(crate) fn conflict(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Unix(a), Bind::Unix(b)) => a == b,
        (
            Bind::Tcp {
                address: a,
                dual_stack: dual_a,
                ..
            },
            Bind::Tcp {
                address: b,
                dual_stack: dual_b,
                ..
            },
        ) => {
            let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
            let family = ip_a.is_ipv4() == ip_b.is_ipv4();
            let overlap =
                ip_a == ip_b || (family && (ip_a.is_unspecified() || ip_b.is_unspecified()));
            a.port() == b.port() && a.port() != 0 && (*dual_a || *dual_b || overlap)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let check =
            |text: &str, expected: Address| assert_eq!(parse_server(text), Ok(expected), "{text}");
        check("10.0.0.1:80", Address::Ip("10.0.0.1:80".parse().unwrap()));
        check("[::1]:80", Address::Ip("[::1]:80".parse().unwrap()));
        check(
            "Api.Internal:8080",
            Address::Name("api.internal".into(), 8080),
        );
        check("my_service:1", Address::Name("my_service".into(), 1));
        check("unix:/run/x.sock", Address::Unix("/run/x.sock".into()));
        for text in [
            "",
            ":80",
            "10.0.0.1",
            "10.0.0.300:80",
            "api",
            "api:",
            "api:x",
            "api:99999",
            "api:0",
            "::1",
            "::1:80",
            "[::1]",
            "[::1",
            "[x]:80",
            "[::1]80",
            "http://a:80",
            "a b:80",
            "-a:80",
            "a..b:80",
            "unix:",
            "*:80",
            "a:+80",
        ] {
            let fails = parse_server(text).is_err() || text == "*:80";
            assert!(fails, "{text}");
        }
        let help = parse_server("::1:80").unwrap_err().help;
        assert_eq!(help.as_deref(), Some("write \"[::1]:80\""));
    }

    #[test]
    fn binds() {
        let check = |text: &str, address: &str, dual_stack| {
            assert_eq!(
                parse_bind(text),
                Ok(Bind::Tcp {
                    address: address.parse().unwrap(),
                    dual_stack,
                    listener: None,
                }),
                "{text}"
            );
        };
        check(":443", "[::]:443", true);
        check("[::]:443", "[::]:443", false);
        check("0.0.0.0:0", "0.0.0.0:0", false);
        for text in ["", "443", "*:443", "localhost:443", "[::1]", "0.0.0.0"] {
            assert!(parse_bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn conflicts() {
        let check = |a: &str, b: &str, expected| {
            let (x, y) = (parse_bind(a).unwrap(), parse_bind(b).unwrap());
            assert_eq!(
                (conflict(&x, &y), conflict(&y, &x)),
                (expected, expected),
                "{a} {b}"
            );
        };
        check(":80", ":80", true);
        check(":80", "127.0.0.1:80", true);
        check(":80", "[::1]:80", true);
        check(":80", "0.0.0.0:80", true);
        check(":80", "[::]:80", true);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("[::]:80", "[::1]:80", true);
        check("[::]:80", "0.0.0.0:80", false);
        check("[::]:80", "127.0.0.1:80", false);
        check("0.0.0.0:80", "[::1]:80", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true);
        check(":80", ":81", false);
        check(":0", ":0", false);
        check("unix:/a", "unix:/a", true);
        check("unix:/a", "unix:/b", false);
        check("unix:/a", ":80", false);
    }
}
