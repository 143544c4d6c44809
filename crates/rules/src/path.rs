//! The request target: its form, and the one spelling of its path that is matched and sent on.
//!
//! ```text
//! origin-form     /where?q=now                 RFC 9112 §3.2.1
//! absolute-form   http://example.com/where     §3.2.2
//! authority-form  example.com:443              §3.2.3, CONNECT only
//! asterisk-form   *                            §3.2.4, OPTIONS only
//! ```
//!
//! Normalised as RFC 3986 §6.2.2 has it: escapes of unreserved characters are decoded, the digits
//! of the others are upper case, dot segments are gone (§5.2.4), bytes beyond ASCII are escaped.
//! `%2F` stays an escape and `//` stays. The query is left as it is; whether a route matches it is
//! not decided here.

use wire::http1::Method;

use crate::host::{self, HostError};

/// A request target, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// How the client wrote it.
    pub form: Form<'a>,
    /// Normalised; begins with `/`, or is `*`, or is empty in the authority form.
    pub path: &'a [u8],
    /// What follows the `?`, as it came; `Some` but empty for a bare `?`.
    pub query: Option<&'a [u8]>,
}

/// How a client wrote the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// A path and a query.
    Origin,
    /// A whole URI; its authority replaces `Host`.
    Absolute {
        /// The scheme, which need not be the one the connection speaks.
        scheme: Scheme,
        /// Host and port as written, valid for [`host::normalise`].
        authority: &'a [u8],
    },
    /// `*`: the server as a whole.
    Asterisk,
    /// Host and port of a tunnel (CONNECT).
    Authority(&'a [u8]),
}

/// The schemes that an absolute form may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// Why a target is refused, always with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetError {
    /// No target at all.
    Empty,
    /// A `%` without two hexadecimal digits.
    MalformedEscape,
    /// `%00`.
    Nul,
    /// `..` that leads above `/`.
    AboveRoot,
    /// A control byte, a space or `#`.
    InvalidByte(u8),
    /// The form does not go with the method, or is none of the four.
    Form,
    /// Neither `http` nor `https`.
    Scheme,
    /// The authority of an absolute or authority form.
    Authority(HostError),
}

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TargetError::Empty => f.write_str("the request target is empty"),
            TargetError::MalformedEscape => {
                f.write_str("a % in the path is not followed by two hexadecimal digits")
            }
            TargetError::Nul => f.write_str("%00 in the path"),
            TargetError::AboveRoot => f.write_str("the path climbs above /"),
            TargetError::InvalidByte(byte) => write!(f, "byte 0x{byte:02x} in the request target"),
            TargetError::Form => {
                f.write_str("the form of the request target does not go with the method")
            }
            TargetError::Scheme => {
                f.write_str("the scheme of the request target is neither http nor https")
            }
            TargetError::Authority(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TargetError {}

/// Takes `target` apart and normalises its path.
///
/// What is normal already is borrowed from `target` after a single scan; only what changes is
/// written to `scratch`, which is cleared first.
///
/// # Errors
/// Whatever [`TargetError`] lists; all of it is the client's fault (400).
pub fn normalise<'a>(
    method: Method,
    target: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Target<'a>, TargetError> {
    match (method, target) {
        (_, []) => Err(TargetError::Empty),
        (Method::Connect, _) => {
            host::check(target).map_err(TargetError::Authority)?;
            Ok(Target {
                form: Form::Authority(target),
                path: &[],
                query: None,
            })
        }
        (_, [b'/', ..]) => {
            let (path, query) = path_and_query(target, scratch)?;
            Ok(Target {
                form: Form::Origin,
                path,
                query,
            })
        }
        (Method::Options, b"*") => Ok(Target {
            form: Form::Asterisk,
            path: b"*",
            query: None,
        }),
        _ => absolute(method, target, scratch),
    }
}

fn absolute<'a>(
    method: Method,
    target: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Target<'a>, TargetError> {
    let at = memchr::memmem::find(target, b"://").ok_or(TargetError::Form)?;
    let (name, rest) = target.split_at(at);
    let rest = rest.get(3..).unwrap_or_default();
    let scheme = match name {
        name if name.eq_ignore_ascii_case(b"http") => Scheme::Http,
        name if name.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => return Err(TargetError::Scheme),
    };
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    host::check(authority).map_err(TargetError::Authority)?;
    let form = Form::Absolute { scheme, authority };
    let (path, query) = match rest {
        // RFC 9112 §3.2.4: for OPTIONS, no path and no query stand for the server as a whole.
        [] if method == Method::Options => (b"*".as_slice(), None),
        [] => (b"/".as_slice(), None),
        [b'?', query @ ..] => (b"/".as_slice(), Some(checked(query)?)),
        _ => path_and_query(rest, scratch)?,
    };
    Ok(Target { form, path, query })
}

/// `text` begins with `/`.
fn path_and_query<'a>(
    text: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<(&'a [u8], Option<&'a [u8]>), TargetError> {
    let (path, query) = match end_of_path(text)? {
        End::Normal(at) => {
            let (path, query) = text.split_at(at);
            (path, query.get(1..))
        }
        End::Rewrite => {
            let at = memchr::memchr(b'?', text).unwrap_or(text.len());
            let (path, query) = text.split_at(at);
            rewrite(path, scratch)?;
            (scratch.as_slice(), query.get(1..))
        }
    };
    Ok((path, query.map(checked).transpose()?))
}

enum End {
    /// The path ends here and is normal.
    Normal(usize),
    /// Something before the end is not.
    Rewrite,
}

/// Scans up to the `?`, the end, or the first thing that is not normal.
fn end_of_path(text: &[u8]) -> Result<End, TargetError> {
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'/' if is_dot_segment(tail) => return Ok(End::Rewrite),
            b'%' if !is_normal_escape(tail) => return Ok(End::Rewrite),
            b'?' => return Ok(End::Normal(text.len() - rest.len())),
            0x80.. => return Ok(End::Rewrite),
            _ if is_forbidden(byte) => return Err(TargetError::InvalidByte(byte)),
            _ => {}
        }
        rest = tail;
    }
    Ok(End::Normal(text.len()))
}

fn is_dot_segment(tail: &[u8]) -> bool {
    matches!(
        tail,
        [b'.'] | [b'.', b'/' | b'?', ..] | [b'.', b'.'] | [b'.', b'.', b'/' | b'?', ..]
    )
}

fn is_normal_escape(tail: &[u8]) -> bool {
    match tail {
        [high, low, ..] if !high.is_ascii_lowercase() && !low.is_ascii_lowercase() => {
            matches!(hex_pair(*high, *low), Some(value) if value != 0 && !is_unreserved(value))
        }
        _ => false,
    }
}

/// Writes the normal form of `path`, which begins with `/`, to `out`.
pub(crate) fn rewrite(path: &[u8], out: &mut Vec<u8>) -> Result<(), TargetError> {
    out.clear();
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'/' => {
                if !close_segment(out)? {
                    out.push(b'/');
                }
            }
            b'%' => {
                let [high, low, tail @ ..] = rest else {
                    return Err(TargetError::MalformedEscape);
                };
                rest = tail;
                match hex_pair(*high, *low).ok_or(TargetError::MalformedEscape)? {
                    0 => return Err(TargetError::Nul),
                    value if is_unreserved(value) => out.push(value),
                    value => escape(value, out),
                }
            }
            0x80.. => escape(byte, out),
            _ if is_forbidden(byte) => return Err(TargetError::InvalidByte(byte)),
            _ => out.push(byte),
        }
    }
    close_segment(out)?;
    Ok(())
}

/// Removes the segment that `out` ends with if it is `.` or `..`; then `out` ends with `/`.
fn close_segment(out: &mut Vec<u8>) -> Result<bool, TargetError> {
    if out.ends_with(b"/.") {
        out.truncate(out.len() - 1);
        return Ok(true);
    }
    if !out.ends_with(b"/..") {
        return Ok(false);
    }
    // Less the `/..`, what remains ends in the segment to remove.
    out.truncate(out.len() - 3);
    let slash = memchr::memrchr(b'/', out).ok_or(TargetError::AboveRoot)?;
    out.truncate(slash + 1);
    Ok(true)
}

fn checked(query: &[u8]) -> Result<&[u8], TargetError> {
    match query.iter().find(|&&byte| is_forbidden(byte)) {
        Some(&byte) => Err(TargetError::InvalidByte(byte)),
        None => Ok(query),
    }
}

fn is_forbidden(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | 0x7f | b'#')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

pub(crate) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let digit = |value: u8| {
        if value < 10 {
            b'0' + value
        } else {
            b'A' + value - 10
        }
    };
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests;
