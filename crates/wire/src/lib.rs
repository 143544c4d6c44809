//! Bytes to values and back: HTTP/1 framing.
