//! What a call of gRPC has that another request has not: a time given by its client, answers made here that its client
//! understands, and an end that is told beside the status of HTTP.
//!
//! How gRPC is written is in `wire::grpc`; gRPC-Web is translated by `web`.

use std::cell::Cell;
use std::time::Duration;

use config::HttpListener;
use control::reason::Reason;
use wire::grpc::{Code, Dialect, content_type, decode_timeout, encode_message};
use wire::http1::{Field, Known, Method, RequestHead, ResponseHead, encode, trailer_fields};

use super::log::Log;
use super::web::Form;
use super::{Conn, Next};
use crate::net::{self, Push};
use crate::relay;

/// What is known of a request that is a call.
#[derive(Default)]
pub(super) struct Call {
    /// How it is written; `None`: it is no call.
    dialect: Option<Dialect>,
    /// What follows the name of its media type.
    suffix: Vec<u8>,
    /// When its client no longer waits, on [`net::now`]'s clock.
    until: Option<Duration>,
    /// Where its answer stands on the way to the client.
    answer: Cell<Answer>,
}

/// How a client whose answer has begun can be told that the call has ended.
#[derive(Clone, Copy, Default)]
pub(super) enum Answer {
    /// Not at all: nothing has gone out, or it is no answer of gRPC, or in the middle of a message of gRPC-Web.
    #[default]
    Untold,
    /// By trailers, where its protocol has them at any time.
    Trailers,
    /// By the last frame of gRPC-Web.
    Frame(Form),
}

impl Call {
    /// Looks whether a request is one: `bytes` hold its head.
    #[inline]
    pub(super) fn read(&mut self, head: &RequestHead, bytes: &[u8]) {
        if head.method == Method::Post && head.present.contains(Known::ContentType) {
            self.read_content_type(head, bytes);
        }
    }

    fn read_content_type(&mut self, head: &RequestHead, bytes: &[u8]) {
        let value = value_of(&head.fields, Known::ContentType, bytes);
        let Some((dialect, suffix)) = value.and_then(content_type) else {
            return;
        };
        self.dialect = Some(dialect);
        self.suffix.extend_from_slice(suffix);
        self.until = value_of(&head.fields, Known::GrpcTimeout, bytes)
            .and_then(decode_timeout)
            .map(|timeout| net::now().saturating_add(timeout));
    }

    /// Forgets it.
    #[inline]
    pub(super) fn clear(&mut self) {
        if self.dialect.take().is_some() {
            self.suffix.clear();
            self.until = None;
            self.answer.set(Answer::Untold);
        }
    }

    /// Notes where its answer stands.
    pub(super) fn note_answer(&self, answer: Answer) {
        self.answer.set(answer);
    }

    pub(super) fn is_one(&self) -> bool {
        self.dialect.is_some()
    }

    /// When its client no longer waits.
    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Writes what stands in the head of an answer made here beside the fields that every one has; false: it is no call.
    pub(super) fn encode_fields(&self, reason: Reason, out: &mut Vec<u8>) -> bool {
        let Some(dialect) = self.dialect else {
            return false;
        };
        let mut media_type = dialect.media_type().as_bytes().to_vec();
        media_type.extend_from_slice(&self.suffix);
        encode::field(out, b"Content-Type", &media_type);
        encode_end(reason, out);
        true
    }

    /// Whether this is a field of those that [`Call::encode_fields`] writes.
    pub(super) fn writes(name: &[u8]) -> bool {
        let own: [&[u8]; 3] = [b"content-type", b"grpc-status", b"grpc-message"];
        own.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Tells the client of an end in the middle of its answer, where that can be, and says what becomes of the
    /// connection. `out`: scratch.
    pub(super) async fn end_amid(
        &self,
        conn: &Conn,
        http: &HttpListener,
        reason: Reason,
        out: &mut Vec<u8>,
        log: &mut Log,
    ) -> Next {
        out.clear();
        let mut trailers = Vec::new();
        encode_end(reason, &mut trailers);
        encode::field(
            &mut trailers,
            b"x-evenkeel-reason",
            reason.name().as_bytes(),
        );
        match self.answer.get() {
            // Nobody is there to be told.
            _ if reason == Reason::ClientClosed => return Next::Reset,
            Answer::Trailers if conn.stream.end_with(&trailers) => {}
            Answer::Frame(form) => {
                form.end(&trailers, out);
                // It may be over for good, for the drain of its server.
                conn.deadline.tag(0);
                let (idle, mut taken) = (http.timeouts.write_idle, 0);
                let mut parts: [&[u8]; 3] = [out, &[], &[]];
                let written = relay::write_all(
                    &conn.stream,
                    &mut parts,
                    &conn.deadline,
                    idle.into(),
                    &mut taken,
                    Push::Now,
                );
                if written.await.is_err() {
                    return Next::Reset;
                }
            }
            _ => return Next::Reset,
        }
        log.grpc = Some(reason.grpc());
        Next::Linger
    }
}

/// Writes how a call ended that ended here.
fn encode_end(reason: Reason, out: &mut Vec<u8>) {
    let mut number = Vec::new();
    encode::decimal(&mut number, u64::from(reason.grpc().number()));
    encode::field(out, b"grpc-status", &number);
    let mut message = Vec::new();
    encode_message(reason.name(), &mut message);
    encode::field(out, b"grpc-message", &message);
}

/// What a reason is when the time that the client gave is over: a wait that ended by then ended by that.
pub(super) fn judged(reason: Reason, until: Option<Duration>) -> Reason {
    let is_wait = matches!(
        reason,
        Reason::ConnectTimeout
            | Reason::FirstByteTimeout
            | Reason::ResponseTimeout
            | Reason::QueueTimeout
    );
    if is_wait && until.is_some_and(|until| until <= net::now()) {
        Reason::DeadlineExceeded
    } else {
        reason
    }
}

/// Whether a server answers a call at all: what is no gRPC goes on as it is.
pub(super) fn is_answer(head: &ResponseHead, bytes: &[u8]) -> bool {
    let dialect = value_of(&head.fields, Known::ContentType, bytes).and_then(content_type);
    head.status == 200 && dialect.is_some_and(|(dialect, _)| dialect == Dialect::Grpc)
}

/// The end of a call that is told in the head of its answer: there is no message.
pub(super) fn end_in_head(head: &ResponseHead, bytes: &[u8]) -> Option<Code> {
    if !head.present.contains(Known::GrpcStatus) {
        return None;
    }
    value_of(&head.fields, Known::GrpcStatus, bytes).map(Code::decode)
}

/// The same in what ends a chunked body: last chunk and trailers, as they are sent on.
pub(super) fn end_in_tail(tail: &[u8]) -> Option<Code> {
    end_in_trailers(tail.strip_prefix(encode::LAST_CHUNK)?)
}

/// The same in trailers.
pub(super) fn end_in_trailers(trailers: &[u8]) -> Option<Code> {
    let mut fields = trailer_fields(trailers);
    let status = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"));
    status.map(|(_, value)| Code::decode(value))
}

/// As which status an answer counts for its server.
pub(super) fn status(status: u16, end: Option<Code>) -> u16 {
    match end {
        Some(code) if status == 200 => code.judged_as(),
        _ => status,
    }
}

fn value_of<'b>(fields: &[Field], known: Known, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let field = fields.iter().find(|field| field.known == known)?;
    Some(field.value.of(bytes))
}
