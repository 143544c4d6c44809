//! The first message of a TLS client: which name it asks for, and what it wants to speak.
//!
//! Read without decrypting anything, so that a connection can be passed on as it is. It may come in pieces, and over
//! several records (RFC 8446 §5.1). What is read is not judged further: that is for whoever ends the TLS.

use crate::http1::Decoded;

/// Bytes that are looked at; a longer message is refused. Post-quantum key shares make about 2 KiB.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a record's header: type, version, length.
const RECORD_HEADER: usize = 5;
/// Bytes of one record at most (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
const CONTENT_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_HOST: u8 = 0;
/// Bytes of a host name.
const HOST_BYTES_MAX: usize = 255;

/// What a client says first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name that it asks for, in lower case and without a trailing dot; `None` when it asks for none.
    pub server_name: Option<String>,
    /// What it would speak, as it ranks them.
    pub alpn: Vec<Vec<u8>>,
}

/// Why bytes are no first message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientHelloError {
    /// They are not TLS at all.
    NotTls,
    /// A length says more than there is room for, or less than its parts need.
    Malformed,
    /// It is longer than [`CLIENT_HELLO_BYTES_MAX`].
    TooLong,
}

impl std::fmt::Display for ClientHelloError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotTls => "it does not speak TLS",
            Self::Malformed => "its first message is malformed",
            Self::TooLong => "its first message is too long",
        })
    }
}

impl std::error::Error for ClientHelloError {}

impl ClientHello {
    /// Reads it from all that has come so far; `Incomplete` asks for the same bytes and more.
    ///
    /// # Errors
    /// When no further byte can make it one.
    pub fn decode(bytes: &[u8]) -> Result<Decoded<Self>, ClientHelloError> {
        let mut message = Vec::new();
        let whole = join_records(bytes, &mut message)?;
        // RFC 8446 §4: type, 24-bit length, body.
        let Some((header, body)) = message.split_first_chunk::<4>() else {
            return incomplete(bytes);
        };
        let [kind, high, middle, low] = *header;
        if kind != MESSAGE_CLIENT_HELLO {
            return Err(ClientHelloError::Malformed);
        }
        let length = length_24(high, middle, low);
        if length > CLIENT_HELLO_BYTES_MAX {
            return Err(ClientHelloError::TooLong);
        }
        match body.get(..length) {
            Some(body) => read_body(body)
                .map(Decoded::Complete)
                .ok_or(ClientHelloError::Malformed),
            // Another kind of record before the end of the message.
            None if whole => Err(ClientHelloError::Malformed),
            None => incomplete(bytes),
        }
    }
}

fn incomplete(bytes: &[u8]) -> Result<Decoded<ClientHello>, ClientHelloError> {
    if bytes.len() >= CLIENT_HELLO_BYTES_MAX {
        return Err(ClientHelloError::TooLong);
    }
    Ok(Decoded::Incomplete)
}

/// Whether all of a message is there: what follows is not looked at.
fn is_whole(message: &[u8]) -> bool {
    let Some(([_, high, middle, low], body)) = message.split_first_chunk::<4>() else {
        return false;
    };
    body.len() >= length_24(*high, *middle, *low)
}

fn length_24(high: u8, middle: u8, low: u8) -> usize {
    usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
}

/// Puts together what handshake records carry, up to the end of the first message. Whether something follows that is no
/// part of it.
fn join_records(bytes: &[u8], message: &mut Vec<u8>) -> Result<bool, ClientHelloError> {
    let mut rest = bytes;
    let mut is_first = true;
    while let Some(&kind) = rest.first() {
        if is_whole(message) {
            return Ok(true);
        }
        if kind != CONTENT_HANDSHAKE {
            return if is_first {
                Err(ClientHelloError::NotTls)
            } else {
                Ok(true)
            };
        }
        // RFC 8446 §5.1: the version says little, but its first byte is 3.
        if rest.get(1).is_some_and(|major| *major != 3) {
            return Err(ClientHelloError::NotTls);
        }
        let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() else {
            return Ok(false);
        };
        let [.., high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(ClientHelloError::Malformed);
        }
        let part = after.get(..length).unwrap_or(after);
        message.extend_from_slice(part);
        rest = after.get(part.len()..).unwrap_or_default();
        if part.len() < length {
            return Ok(false);
        }
        is_first = false;
    }
    Ok(false)
}

/// RFC 8446 §4.1.2: version, random, session id, cipher suites, compression methods, extensions.
fn read_body(body: &[u8]) -> Option<ClientHello> {
    let mut parts = Parts(body);
    parts.take(2 + 32)?;
    parts.vector8()?;
    parts.vector16()?;
    parts.vector8()?;
    let mut hello = ClientHello::default();
    if parts.0.is_empty() {
        // Before TLS 1.2 there may be no extensions.
        return Some(hello);
    }
    let mut extensions = Parts(parts.vector16()?);
    if !parts.0.is_empty() {
        return None;
    }
    let mut seen = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let data = Parts(extensions.vector16()?);
        // RFC 8446 §4.2: no extension twice.
        match kind {
            EXTENSION_SERVER_NAME if std::mem::replace(&mut seen.0, true) => return None,
            EXTENSION_ALPN if std::mem::replace(&mut seen.1, true) => return None,
            EXTENSION_SERVER_NAME => hello.server_name = server_name(data)?,
            EXTENSION_ALPN => hello.alpn = alpn(data)?,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 §3. The outer `None` is malformed.
fn server_name(mut data: Parts<'_>) -> Option<Option<String>> {
    let mut names = Parts(data.vector16()?);
    if !data.0.is_empty() || names.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !names.0.is_empty() {
        let kind = names.take(1)?;
        let name = names.vector16()?;
        if kind != [NAME_HOST] {
            continue;
        }
        let text = std::str::from_utf8(name).ok()?;
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let fits = !text.is_empty() && text.len() <= HOST_BYTES_MAX;
        if found.is_some() || !fits || !text.bytes().all(is_host) {
            return None;
        }
        found = Some(text.to_ascii_lowercase());
    }
    Some(found)
}

/// RFC 7301 §3.1.
fn alpn(mut data: Parts<'_>) -> Option<Vec<Vec<u8>>> {
    let mut names = Parts(data.vector16()?);
    if !data.0.is_empty() || names.0.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    while !names.0.is_empty() {
        let name = names.vector8()?;
        if name.is_empty() {
            return None;
        }
        found.push(name.to_vec());
    }
    Some(found)
}

/// Bytes that are taken off the front.
struct Parts<'b>(&'b [u8]);

impl<'b> Parts<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    /// What an 8-bit length announces.
    fn vector8(&mut self) -> Option<&'b [u8]> {
        let (length, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take(usize::from(*length))
    }

    /// What a 16-bit length announces.
    fn vector16(&mut self) -> Option<&'b [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
