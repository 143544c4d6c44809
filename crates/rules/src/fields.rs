//! Names and values of header fields that a user wrote: valid, and not ours to keep from him.

/// Framing and hop-by-hop fields: what they say is between two neighbours, and only the proxy knows it.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether the proxy alone may write this field.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// A token (RFC 9110 §5.6.2).
pub(crate) fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// No control byte but the tab, no blank at either end (RFC 9110 §5.5).
pub(crate) fn is_value(value: &str) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = value.as_bytes();
    !bytes.first().is_some_and(is_blank)
        && !bytes.last().is_some_and(is_blank)
        && bytes
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}
