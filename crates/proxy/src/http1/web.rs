//! Answers of gRPC as gRPC-Web has them: trailers are the last frame of the body, and the text form is base64. Each piece
//! goes on as it comes.
//!
//! The request was translated by `rules` (its head) and `upload` (its body).

use wire::grpc::{Boundary, Dialect, content_type, encode_base64, encode_trailers};
use wire::http1::{
    Body, ChunkError, ChunkedDecoder, Keep, Progress, ResponseHead, Version, encode, trailer_fields,
};

use super::grpc::Answer;
use super::respond::{self, Responded, Responding, ResponseFault};
use super::{encode as heads, grpc};
use crate::buffer::{BUFFER_BYTES, Buffer};
use crate::net::Push;
use crate::outcome;
use crate::relay::{Framing, YIELD_BYTES};
use control::reason::Reason;

/// Relays the answer whose head is read.
pub(super) async fn relay(
    on: &Responding<'_>,
    dialect: Dialect,
    server_in: &mut Buffer,
    head: &ResponseHead,
    out: &mut Vec<u8>,
) -> Result<Responded, ResponseFault> {
    let has_body = !matches!(head.body, Body::None | Body::Length(0));
    let form = Form {
        text: dialect == Dialect::WebText,
        chunked: on.version == Version::Http11,
    };
    let after = respond::after(on, head, !has_body || form.chunked);
    let chunked = has_body && form.chunked;
    let bytes = server_in.filled();
    heads::response(out, head, bytes, chunked, after, &on.parts());
    dress(out, dialect, has_body);
    server_in.consume(head.len);
    let mut source = Source::new(head.body);
    let mut boundary = Boundary::default();
    let mut since_yield = 0;
    loop {
        let progress = source.take(server_in.filled_mut());
        let progress = progress.map_err(|error| respond::broken(on, &error))?;
        let bytes = server_in.filled();
        let piece = bytes.get(..progress.kept).unwrap_or_default();
        form.push(piece, out);
        boundary.pass(piece);
        if progress.end && has_body {
            let trailers = progress.trailers.and_then(|range| bytes.get(range));
            let trailers = trailers.unwrap_or_default();
            let told = on.seen.end.get();
            on.seen.end.set(told.or(grpc::end_in_trailers(trailers)));
            form.end(trailers, out);
        }
        let push = if progress.end {
            respond::let_go(on)
        } else {
            Push::Now
        };
        on.call.note_answer(Answer::Untold);
        since_yield += respond::write(on, &mut [out, &[], &[]], push).await?;
        out.clear();
        if boundary.is_between() {
            on.call.note_answer(Answer::Frame(form));
        }
        on.seen
            .bytes
            .set(on.seen.bytes.get() + progress.data as u64);
        server_in.consume(progress.consumed);
        if progress.end {
            let reusable = head.keep_alive && server_in.is_empty();
            return Ok(Responded { after, reusable });
        }
        outcome::serves(&on.conn.worker, &on.lease.member);
        if since_yield >= YIELD_BYTES {
            since_yield = 0;
            respond::yield_now(on).await?;
        }
        if server_in.room().is_empty() && !server_in.grow(2 * BUFFER_BYTES) {
            return Err(ResponseFault::Broken(Reason::BadResponse));
        }
        respond::set_deadline(on, on.server_idle);
        match respond::read(on, server_in).await? {
            Ok(0) if source.ends_with_connection() => {
                form.end(&[], out);
                respond::write(on, &mut [out, &[], &[]], respond::let_go(on)).await?;
                return Ok(Responded {
                    after,
                    reusable: false,
                });
            }
            Ok(0) => return Err(ResponseFault::Broken(Reason::ServerClosed)),
            Ok(_) => {}
            Err(_) => return Err(ResponseFault::Broken(Reason::ServerReset)),
        }
    }
}

/// How the client gets a body.
#[derive(Clone, Copy)]
pub(super) struct Form {
    text: bool,
    chunked: bool,
}

impl Form {
    /// Appends a piece.
    fn push(self, data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        let mut text = Vec::new();
        let data = if self.text {
            encode_base64(data, &mut text);
            &text
        } else {
            data
        };
        if self.chunked {
            encode::chunk_head(out, data.len() as u64);
        }
        out.extend_from_slice(data);
        if self.chunked {
            out.extend_from_slice(encode::CRLF);
        }
    }

    /// Appends the frame of trailers, if there are any, and the end.
    pub(super) fn end(self, trailers: &[u8], out: &mut Vec<u8>) {
        if trailer_fields(trailers).next().is_some() {
            let mut frame = Vec::new();
            encode_trailers(trailer_fields(trailers), &mut frame);
            self.push(&frame, out);
        }
        if self.chunked {
            out.extend_from_slice(encode::LAST_CHUNK);
            out.extend_from_slice(encode::CRLF);
        }
    }
}

/// Where the body of the server's answer stands.
enum Source {
    Chunked(ChunkedDecoder),
    Other(Framing),
}

impl Source {
    fn new(body: Body) -> Self {
        match body {
            Body::Chunked => Self::Chunked(ChunkedDecoder::default()),
            body => Self::Other(Framing::new(body, Keep::DataOnly)),
        }
    }

    /// Leaves what has come of the body itself at the front.
    fn take(&mut self, bytes: &mut [u8]) -> Result<Progress, ChunkError> {
        match self {
            Self::Chunked(decoder) => decoder.decode(bytes, Keep::DataOnly),
            Self::Other(framing) => {
                let piece = framing.take(bytes, &mut Vec::new())?;
                Ok(Progress {
                    kept: piece.kept,
                    data: piece.data,
                    consumed: piece.consumed,
                    end: framing.is_done(),
                    trailers: None,
                })
            }
        }
    }

    fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Other(Framing::UntilClose))
    }
}

/// Makes the head that of an answer in `dialect`. A body is in chunks from here on.
fn dress(out: &mut Vec<u8>, dialect: Dialect, has_body: bool) {
    let head = std::mem::take(out);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or_default());
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-type")
            && let Some((Dialect::Grpc, suffix)) = content_type(value)
        {
            let media_type = [dialect.media_type().as_bytes(), suffix].concat();
            encode::field(out, b"Content-Type", &media_type);
        } else if !(has_body && name.eq_ignore_ascii_case(b"content-length")) {
            out.extend_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dressed(head: &str, dialect: Dialect, has_body: bool) -> String {
        let mut out = head.as_bytes().to_vec();
        dress(&mut out, dialect, has_body);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_head_says_what_follows_it() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc+proto\r\nContent-Length: 7\r\nx: y\r\n\r\n";
        assert_eq!(
            dressed(head, Dialect::WebText, true),
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web-text+proto\r\nx: y\r\n\r\n"
        );
        assert_eq!(
            dressed(head, Dialect::Web, false),
            head.replace(
                "content-type: application/grpc",
                "Content-Type: application/grpc-web"
            )
        );
    }

    #[test]
    fn pieces_are_chunks_of_their_own() {
        let mut out = Vec::new();
        let form = Form {
            text: true,
            chunked: true,
        };
        form.push(b"", &mut out);
        form.push(b"a", &mut out);
        form.push(b"foo", &mut out);
        assert_eq!(out, b"4\r\nYQ==\r\n4\r\nZm9v\r\n");
        let plain = Form {
            text: false,
            chunked: false,
        };
        out.clear();
        plain.push(b"foo", &mut out);
        assert_eq!(out, b"foo");
    }
}
