//! Writing heads and chunks, appended to a buffer that the caller recycles.
//!
//! Nothing is checked: names and values come from a decoder, or passed
//! [`super::is_token`] and [`super::is_field_value`] when the config was read.

/// The end of a line, and of a head.
pub const CRLF: &[u8] = b"\r\n";

/// The chunk that ends a chunked body; trailers and an empty line follow.
pub const LAST_CHUNK: &[u8] = b"0\r\n";

/// Digits of the largest u64 in base 10.
const DECIMAL_DIGITS_MAX: usize = 20;

/// `GET /path HTTP/1.1` and its line end.
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// `HTTP/1.1 200 OK` and its line end; `status` is 100 to 999.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason);
    out.extend_from_slice(CRLF);
}

/// One field line.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
}

/// `content-length: N` and its line end.
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, length);
    out.extend_from_slice(CRLF);
}

/// A number in base 10.
pub fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; DECIMAL_DIGITS_MAX];
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(DECIMAL_DIGITS_MAX - count..).unwrap_or_default());
}

/// The size line of a chunk of `len` bytes, which must not be 0: that would end
/// the body. The data and [`CRLF`] follow.
pub fn chunk_head(out: &mut Vec<u8>, len: u64) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    let places = 16 - (len.max(1).leading_zeros() / 4);
    for place in (0..places).rev() {
        let digit = (len >> (place * 4) & 15) as u8;
        out.push(if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        });
    }
    out.extend_from_slice(CRLF);
}

/// The phrase that goes with a status (IANA's registry), or an empty one.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(write: impl Fn(&mut Vec<u8>), expected: &str) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn what_is_written() {
        check(|o| request_line(o, b"GET", b"/a"), "GET /a HTTP/1.1\r\n");
        check(|o| status_line(o, 200, b"OK"), "HTTP/1.1 200 OK\r\n");
        check(|o| status_line(o, 103, b""), "HTTP/1.1 103 \r\n");
        check(|o| field(o, b"a", b"b c"), "a: b c\r\n");
        check(|o| content_length(o, 0), "content-length: 0\r\n");
        check(|o| decimal(o, 1_234_567_890), "1234567890");
        check(|o| decimal(o, u64::MAX), "18446744073709551615");
        check(|o| chunk_head(o, 1), "1\r\n");
        check(|o| chunk_head(o, 0x1f0), "1f0\r\n");
        check(|o| chunk_head(o, u64::MAX), "ffffffffffffffff\r\n");
    }

    #[test]
    fn phrases() {
        assert_eq!(reason_phrase(503), "Service Unavailable");
        assert_eq!(reason_phrase(599), "");
    }
}
