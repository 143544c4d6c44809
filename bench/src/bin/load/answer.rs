//! Where an answer ends: by its length or its last chunk. It trusts what it is given, as only a load generator may.

use memchr::memmem;

/// How a chunked body ends; the bodies of the origin hold nothing like it.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An answer that is being read.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    body: Body,
}

#[derive(Debug, Default)]
enum Body {
    /// The head is not whole yet.
    #[default]
    Unknown,
    Left(u64),
    /// Chunked, with the last bytes so far.
    Chunked(Vec<u8>),
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// Whole, with a status of 200-299.
    Well,
    /// Whole or unreadable: any other answer.
    Bad,
}

impl Answer {
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Progress {
        let rest;
        let mut bytes = bytes;
        if matches!(self.body, Body::Unknown) {
            self.head.extend_from_slice(bytes);
            let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else {
                return Progress::More;
            };
            rest = self.head.split_off(end + 4);
            bytes = &rest;
            let Some(body) = body(&self.head) else {
                return Progress::Bad;
            };
            self.body = body;
        }
        let whole = match &mut self.body {
            Body::Unknown => false,
            Body::Left(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                *left == 0
            }
            Body::Chunked(tail) => {
                tail.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_CHUNK.len())..]);
                tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
                tail == LAST_CHUNK
            }
        };
        match (whole, self.head.get(9)) {
            (false, _) => Progress::More,
            (true, Some(b'2')) => Progress::Well,
            (true, _) => Progress::Bad,
        }
    }
}

fn body(head: &[u8]) -> Option<Body> {
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        return Some(Body::Chunked(Vec::new()));
    }
    let (_, length) = head.split_once("\r\ncontent-length: ")?;
    let (length, _) = length.split_once("\r\n")?;
    Some(Body::Left(length.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_they_say() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Progress::Well,
            ),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
                Progress::Bad,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                Progress::Well,
            ),
        ];
        for (text, expected) in cases {
            for piece in [1, 3, text.len()] {
                let mut answer = Answer::default();
                let mut pieces = text.as_bytes().chunks(piece).peekable();
                while let Some(bytes) = pieces.next() {
                    let progress = answer.take(bytes);
                    let due = if pieces.peek().is_some() {
                        Progress::More
                    } else {
                        expected
                    };
                    assert_eq!(progress, due, "{text} by {piece}");
                }
            }
        }
    }
}
