//! The trailers of a call as gRPC-Web has them: the last frame of the body, written like a head of HTTP/1.
//!
//! ```text
//! trailer-frame = %x80 Message-Length *( field-name ":" field-value CRLF )   ; names in lower case
//! ```

use super::frame::{FRAME_HEADER_BYTES, frame_header};

/// In the flag of a frame: it holds trailers.
pub const TRAILER_FLAG: u8 = 0x80;

/// Appends the frame of these fields.
pub fn encode_trailers<'f>(
    fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(&frame_header(TRAILER_FLAG, 0));
    for (name, value) in fields {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    let length = out.len().saturating_sub(start + FRAME_HEADER_BYTES);
    let header = frame_header(TRAILER_FLAG, u32::try_from(length).unwrap_or(u32::MAX));
    if let Some(place) = out.get_mut(start..start + FRAME_HEADER_BYTES) {
        place.copy_from_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_trailers() {
        let mut out = b"before".to_vec();
        let fields = [
            (&b"Grpc-Status"[..], &b"0"[..]),
            (b"grpc-message", b"all well"),
        ];
        encode_trailers(fields, &mut out);
        let text = b"grpc-status: 0\r\ngrpc-message: all well\r\n";
        let expected = [b"before\x80\0\0\0", &[text.len() as u8][..], text].concat();
        assert_eq!(out, expected);
        let mut out = Vec::new();
        encode_trailers([], &mut out);
        assert_eq!(out, b"\x80\0\0\0\0");
    }
}
