//! The authority (`Host`, or that of an absolute form): validity, and the host that is matched.
//!
//! It does not decide whether a request needs a host, nor what is sent on: `Host` passes as it came.

use std::io::Write as _;
use std::net::Ipv6Addr;

/// Longest host, bytes (RFC 1035 §2.3.4).
pub const HOST_BYTES_MAX: usize = 255;

/// An authority, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, no trailing dot; an IPv6 address in brackets and in its one canonical spelling.
    pub host: &'a [u8],
    /// If one was written.
    pub port: Option<u16>,
}

/// Why an authority is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// Nothing before the port.
    Empty,
    /// Over [`HOST_BYTES_MAX`].
    TooLong,
    /// Not a letter, digit, `-`, `.` or `_`.
    InvalidByte(u8),
    /// Two dots in a row, or one at the start.
    EmptyLabel,
    /// Not a number of 0-65535.
    Port,
    /// Brackets that hold no IPv6 address.
    Ipv6,
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostError::Empty => f.write_str("the host is empty"),
            HostError::TooLong => write!(f, "the host is longer than {HOST_BYTES_MAX} bytes"),
            HostError::InvalidByte(byte) => write!(f, "byte 0x{byte:02x} in the host"),
            HostError::EmptyLabel => f.write_str("an empty label in the host"),
            HostError::Port => f.write_str("the port of the host is not a number of 0-65535"),
            HostError::Ipv6 => f.write_str("the brackets in the host hold no IPv6 address"),
        }
    }
}

impl std::error::Error for HostError {}

/// Takes `authority` apart and gives its host in the spelling that is matched.
///
/// A host that is lower case already is borrowed; else it is written to `scratch`, cleared first.
///
/// # Errors
/// Whatever [`HostError`] lists (400).
pub fn normalise<'a>(
    authority: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Authority<'a>, HostError> {
    let parts = split(authority)?;
    let host = match parts.host {
        Host::Ipv6(address) => {
            scratch.clear();
            // Writing to a Vec cannot fail.
            let _ = write!(scratch, "[{address}]");
            scratch.as_slice()
        }
        Host::Name(name) if name.iter().any(u8::is_ascii_uppercase) => {
            scratch.clear();
            scratch.extend(name.iter().map(u8::to_ascii_lowercase));
            scratch.as_slice()
        }
        Host::Name(name) => name,
    };
    Ok(Authority {
        host,
        port: parts.port,
    })
}

/// Whether [`normalise`] would take `authority`.
///
/// # Errors
/// The same as [`normalise`].
pub fn check(authority: &[u8]) -> Result<(), HostError> {
    split(authority).map(|_| ())
}

struct Parts<'a> {
    host: Host<'a>,
    port: Option<u16>,
}

enum Host<'a> {
    /// Without the trailing dot.
    Name(&'a [u8]),
    Ipv6(Ipv6Addr),
}

fn split(authority: &[u8]) -> Result<Parts<'_>, HostError> {
    if let [b'[', rest @ ..] = authority {
        let end = memchr::memchr(b']', rest).ok_or(HostError::Ipv6)?;
        let (address, rest) = rest.split_at(end);
        let address = std::str::from_utf8(address)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(HostError::Ipv6)?;
        return Ok(Parts {
            host: Host::Ipv6(address),
            port: port(rest.get(1..).unwrap_or_default())?,
        });
    }
    let colon = memchr::memchr(b':', authority).unwrap_or(authority.len());
    let (name, rest) = authority.split_at(colon);
    Ok(Parts {
        host: Host::Name(checked_name(name)?),
        port: port(rest)?,
    })
}

fn checked_name(name: &[u8]) -> Result<&[u8], HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.len() > HOST_BYTES_MAX {
        return Err(HostError::TooLong);
    }
    let mut before = b'.';
    for &byte in name {
        match byte {
            b'.' if before == b'.' => return Err(HostError::EmptyLabel),
            b'.' | b'-' | b'_' => {}
            _ if byte.is_ascii_alphanumeric() => {}
            _ => return Err(HostError::InvalidByte(byte)),
        }
        before = byte;
    }
    // Also what was a lone dot, or ended in two.
    if before == b'.' {
        Err(HostError::EmptyLabel)
    } else {
        Ok(name)
    }
}

/// `rest` is empty, or begins with the colon; RFC 3986 §3.2.3 allows a colon and no digits.
fn port(rest: &[u8]) -> Result<Option<u16>, HostError> {
    match rest {
        [] | [b':'] => Ok(None),
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
            u16::try_from(value).map(Some).map_err(|_| HostError::Port)
        }
        _ => Err(HostError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authority: &str, expected: Result<(&str, Option<u16>), HostError>) {
        let mut scratch = Vec::new();
        let got = normalise(authority.as_bytes(), &mut scratch).map(|authority| {
            (
                String::from_utf8_lossy(authority.host).into_owned(),
                authority.port,
            )
        });
        assert_eq!(
            got,
            expected.map(|(host, port)| (host.to_owned(), port)),
            "{authority}"
        );
    }

    #[test]
    fn hosts() {
        check("example.com", Ok(("example.com", None)));
        check("EXAMPLE.com:8080", Ok(("example.com", Some(8080))));
        check("example.com.", Ok(("example.com", None)));
        check("Example.com.:80", Ok(("example.com", Some(80))));
        check("example.com:", Ok(("example.com", None)));
        check("a_b-c", Ok(("a_b-c", None)));
        check("10.0.0.1:1", Ok(("10.0.0.1", Some(1))));
        check("[::1]", Ok(("[::1]", None)));
        check("[0:0::0001]:443", Ok(("[::1]", Some(443))));
        check("[2001:DB8::1]", Ok(("[2001:db8::1]", None)));
        check("", Err(HostError::Empty));
        check(":80", Err(HostError::Empty));
        check(".", Err(HostError::EmptyLabel));
        check(".example.com", Err(HostError::EmptyLabel));
        check("a..b", Err(HostError::EmptyLabel));
        check("a..", Err(HostError::EmptyLabel));
        check("a b", Err(HostError::InvalidByte(b' ')));
        check("user@host", Err(HostError::InvalidByte(b'@')));
        check("a,b", Err(HostError::InvalidByte(b',')));
        check("ex%61mple", Err(HostError::InvalidByte(b'%')));
        check("a/b", Err(HostError::InvalidByte(b'/')));
        check("a:b", Err(HostError::Port));
        check("a:65536", Err(HostError::Port));
        check("a:000080", Err(HostError::Port));
        check("a:80:80", Err(HostError::Port));
        check("::1", Err(HostError::Empty));
        check("[::1", Err(HostError::Ipv6));
        check("[::1%eth0]", Err(HostError::Ipv6));
        check("[10.0.0.1]", Err(HostError::Ipv6));
        check("[::1]x", Err(HostError::Port));
        check(&"a".repeat(255), Ok((&"a".repeat(255), None)));
        check(&"a".repeat(256), Err(HostError::TooLong));
    }
}
