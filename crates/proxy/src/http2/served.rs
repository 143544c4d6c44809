//! A client's stream as the exchange of HTTP/1 reads and writes it: a codec, as a TLS session is one.
//!
//! Reading gives the request's body framed as its head has announced it; the head itself is given to the exchange at
//! the start. Writing takes the response, interim ones first, and hands it to h2 as far as the client's window goes.
//! What the exchange has not read stays in the stream's own window, which is opened again only for what it has.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderValue, Response, StatusCode};
use wire::http1::{
    Body as ResponseBody, ChunkedDecoder, Decoded, HeadLimits, Method, ResponseHead,
    decode_response,
};
use wire::http2::Body;

use super::clients::Link;
use super::receive::{BodyFault, Gather, Receiver};
use super::send::{Sender, Step, gone, write_parts};
use super::{Piece, fields, websocket};
use crate::net::Taken;

thread_local! {
    /// A response's head is decoded at once, and then no more needed.
    static HEAD: RefCell<ResponseHead> = RefCell::default();
}

/// One stream of a client.
pub(crate) struct Served {
    link: Rc<Link>,
    incoming: RefCell<Incoming>,
    outgoing: RefCell<Outgoing>,
}

/// The request's body.
struct Incoming {
    body: RecvStream,
    framing: Body,
    receiver: Receiver,
    ended: bool,
}

/// The response.
struct Outgoing {
    respond: SendResponse<Piece>,
    sender: Sender,
    method: Method,
    /// A head that was taken and is not whole.
    held: BytesMut,
    /// What the server has to say to the WebSocket key that was made up for it.
    accept: Option<websocket::Accept>,
    /// It was ended from here in the middle.
    gave_up: bool,
}

/// What a stream is made of.
pub(super) struct Parts {
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Piece>,
    pub(super) framing: Body,
    pub(super) method: Method,
    pub(super) accept: Option<websocket::Accept>,
    pub(super) link: Rc<Link>,
}

impl Served {
    pub(super) fn new(parts: Parts) -> Rc<Self> {
        Rc::new_cyclic(|own: &Weak<Self>| Self::make(parts, own.clone()))
    }

    fn make(parts: Parts, own: Weak<Self>) -> Self {
        let Parts {
            mut body,
            respond,
            framing,
            method,
            accept,
            link,
        } = parts;
        let sender = Sender::new(link.passed());
        let mut receiver = Receiver::default();
        if framing != Body::None {
            let come = body.flow_control().used_capacity();
            receiver.count(link.unread(), body.stream_id().as_u32(), come, own);
        }
        Self {
            link,
            incoming: RefCell::new(Incoming {
                body,
                framing,
                receiver,
                ended: framing == Body::None,
            }),
            outgoing: RefCell::new(Outgoing {
                respond,
                sender,
                method,
                held: BytesMut::new(),
                accept,
                gave_up: false,
            }),
        }
    }

    /// Reads what is there. `WouldBlock` when nothing is, 0 at the end.
    pub(crate) fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        self.incoming.borrow_mut().read(room)
    }

    /// Ready when a read gives something, or an end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.incoming.borrow_mut().poll_fill(cx)
    }

    /// Takes what the client's window has room for.
    pub(crate) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut outgoing = self.outgoing.borrow_mut();
        write_parts(parts, |bytes| outgoing.write(bytes))
    }

    /// Ready when a write might not block.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.borrow_mut().sender.poll_writable(cx)
    }

    /// How far the client has come with what was written. What is still with h2 goes out in turn with that of other streams;
    /// whoever has given it nothing waits for its window alone, however much of theirs goes out.
    pub(crate) fn taken(&self) -> Taken {
        self.link.taken()
    }

    /// Ready when the client has reset the stream, or the connection is gone.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outgoing.borrow_mut().poll_reset(cx).map(|_| ())
    }

    /// Nothing more of the response will come. In the middle of one that is a failure.
    pub(crate) fn end(&self) {
        if self.was_given_up() {
            self.link.count_cancelled();
        }
        let mut outgoing = self.outgoing.borrow_mut();
        if !outgoing.sender.end() {
            outgoing.give_up(Reason::INTERNAL_ERROR);
        }
    }

    /// Ends the response in the middle with these trailers; false: it has a length, or has not begun.
    pub(crate) fn end_with(&self, trailers: &[u8]) -> bool {
        self.outgoing.borrow_mut().sender.end_with(trailers)
    }

    /// The response broke off.
    pub(crate) fn reset(&self) {
        self.outgoing.borrow_mut().give_up(Reason::INTERNAL_ERROR);
    }

    /// Whether the client gave the stream up, or broke its rules, before it had its answer.
    fn was_given_up(&self) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        !outgoing.gave_up
            && !matches!(outgoing.sender.step, Step::Done)
            && matches!(outgoing.poll_reset(&mut cx), Poll::Ready(Some(_)))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reset();
        } else if self.was_given_up() {
            self.link.count_reset();
        }
    }
}

impl Gather for Served {
    fn gather(&self) {
        let Incoming { body, receiver, .. } = &mut *self.incoming.borrow_mut();
        receiver.gather(body);
    }
}

impl Incoming {
    /// Ready when there is something to read, or nothing ever more.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.receiver.is_filled() && !self.ended {
            let taken = self.receiver.poll_body(&mut self.body, self.framing, cx);
            self.ended = ready!(taken).map_err(|fault| match fault {
                BodyFault::Http2(_) => io::ErrorKind::ConnectionReset.into(),
                BodyFault::Trailers(fault) => io::Error::new(io::ErrorKind::InvalidData, fault),
            })?;
        }
        Poll::Ready(Ok(()))
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        // Whoever waits asks for that beforehand.
        let mut cx = Context::from_waker(Waker::noop());
        let mut count = 0;
        while let Some(left) = room.get_mut(count..).filter(|left| !left.is_empty()) {
            match self.poll_fill(&mut cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if count == 0 => return Err(error),
                Poll::Pending if count == 0 => return Err(io::ErrorKind::WouldBlock.into()),
                _ => break,
            }
            let more = self.receiver.read(left, Some(&mut self.body));
            if more == 0 {
                break;
            }
            count += more;
        }
        Ok(count)
    }
}

impl Outgoing {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reason>> {
        let reset = match self.sender.stream() {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(Result::ok)
    }

    /// Takes some of `bytes`; 0: the client's window is shut.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.sender.step {
            Step::Head => self.write_head(bytes),
            _ => self.sender.write(bytes),
        }
    }

    fn write_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        HEAD.with_borrow_mut(|head| {
            let before = self.held.len();
            if before > 0 {
                self.held.extend_from_slice(bytes);
                let held = std::mem::take(&mut self.held);
                let decoded = self.decode_head(&held, head)?;
                if !decoded {
                    self.held = held;
                    return Ok(bytes.len());
                }
                return Ok(head.len.saturating_sub(before));
            }
            if self.decode_head(bytes, head)? {
                return Ok(head.len);
            }
            self.held.extend_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    /// Decodes and sends a head; false when it is not whole.
    fn decode_head(&mut self, bytes: &[u8], head: &mut ResponseHead) -> io::Result<bool> {
        // The exchange has judged it; this is what it made of it.
        let limits = HeadLimits {
            head_bytes: usize::MAX,
            headers: 1024,
            uri_bytes: 0,
        };
        match decode_response(bytes, self.method, &limits, head) {
            Ok(Decoded::Incomplete) => Ok(false),
            Ok(Decoded::Complete(())) => self.handle_head(bytes, head).map(|()| true),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    fn handle_head(&mut self, bytes: &[u8], head: &ResponseHead) -> io::Result<()> {
        let response = fields::response(head, bytes);
        let mut response = response.ok_or(io::ErrorKind::InvalidData)?;
        let is_tunnel = self.accept.is_some();
        match head.status {
            // RFC 8441 §5: what 101 says is said by 200.
            101 if is_tunnel && self.accept.as_ref().is_some_and(|it| it.matches(&response)) => {
                *response.status_mut() = StatusCode::OK;
                response
                    .headers_mut()
                    .remove(http::header::SEC_WEBSOCKET_ACCEPT);
                self.respond(response, false, Step::UntilEnd)?;
            }
            // Whoever reads 200 would take the stream for a tunnel. An exchange gives no 2xx here.
            101 | 200..300 if is_tunnel => {
                let mut refusal = Response::new(());
                *refusal.status_mut() = StatusCode::BAD_GATEWAY;
                let why = HeaderValue::from_static("bad_response");
                refusal.headers_mut().insert("x-evenkeel-reason", why);
                self.respond(refusal, true, Step::Done)?;
            }
            101 => return Err(io::ErrorKind::InvalidData.into()),
            100..200 => {
                // A client that has reset the stream is noticed by others.
                let _ = self.respond.send_informational(response);
            }
            _ => {
                let step = match head.body {
                    ResponseBody::None | ResponseBody::Length(0) => Step::Done,
                    ResponseBody::Length(length) => Step::Length(length),
                    ResponseBody::Chunked => Step::Chunked(ChunkedDecoder::default()),
                    ResponseBody::UntilClose => Step::UntilEnd,
                };
                let is_whole = matches!(step, Step::Done);
                self.respond(response, is_whole, step)?;
            }
        }
        Ok(())
    }

    fn respond(&mut self, response: Response<()>, is_whole: bool, step: Step) -> io::Result<()> {
        let sent = self.respond.send_response(response, is_whole);
        self.sender.begin(sent.map_err(|_| gone())?, step);
        Ok(())
    }

    fn give_up(&mut self, reason: Reason) {
        if matches!(self.sender.step, Step::Done) {
            return;
        }
        self.gave_up = true;
        match self.sender.stream() {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.sender.step = Step::Done;
    }
}
