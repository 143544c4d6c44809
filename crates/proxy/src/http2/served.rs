//! A client's stream as the exchange of HTTP/1 reads and writes it: a codec, as a TLS session is one.
//!
//! Reading gives the request's body framed as its head has announced it; the head itself is given to the exchange at
//! the start. Writing takes the response, interim ones first, and hands it to h2 as far as the client's window goes.
//! What the exchange has not read stays in the stream's own window, which is opened again only for what it has.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use wire::http1::{
    Body as ResponseBody, ChunkedDecoder, Decoded, HeadLimits, Keep, Method, ResponseHead,
    decode_response, encode, trailer_fields,
};
use wire::http2::{Body, encode_trailers};

use super::clients::Link;
use super::{Piece, fields, websocket};

/// Bytes of a chunked body that h2 may hold beyond the client's window: chunks are unpacked before their size is known.
const BEYOND_MAX: usize = 16 * 1024;
/// Bytes looked at in one go where the window is shut: heads of chunks, and what ends the body.
const UNSEEN_MAX: usize = 512;

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
    /// Framing that is to be read before `data`, from `text_at` on.
    text: Vec<u8>,
    text_at: usize,
    data: Bytes,
    /// The end of a chunk is to follow `data`.
    in_chunk: bool,
    ended: bool,
}

/// The response.
struct Outgoing {
    respond: SendResponse<Piece>,
    /// Once the final head is sent.
    send: Option<SendStream<Piece>>,
    step: Step,
    method: Method,
    /// What was taken and is not whole: a head, or the framing of a chunk.
    held: BytesMut,
    /// Bytes of the body given to h2 beyond the client's window.
    beyond: usize,
    /// What the server has to say to the WebSocket key that was made up for it.
    accept: Option<websocket::Accept>,
    /// It was ended from here in the middle.
    gave_up: bool,
}

/// What of a response comes next.
enum Step {
    /// A head: an interim one, or the final one.
    Head,
    /// So many bytes.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Whatever comes, until the exchange says that it is over.
    UntilEnd,
    /// Nothing: it is sent whole, or what comes is not for the client.
    Done,
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
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            body,
            respond,
            framing,
            method,
            accept,
            link,
        } = parts;
        Self {
            link,
            incoming: RefCell::new(Incoming {
                body,
                framing,
                text: Vec::new(),
                text_at: 0,
                data: Bytes::new(),
                in_chunk: false,
                ended: framing == Body::None,
            }),
            outgoing: RefCell::new(Outgoing {
                respond,
                send: None,
                step: Step::Head,
                method,
                held: BytesMut::new(),
                beyond: 0,
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
        let mut taken = 0;
        for part in parts {
            let mut bytes = &**part;
            while !bytes.is_empty() {
                match outgoing.write(bytes) {
                    Ok(count) if count > 0 => {
                        taken += count;
                        bytes = bytes.get(count..).unwrap_or_default();
                    }
                    _ if taken > 0 => return Ok(taken),
                    Ok(_) => return Err(io::ErrorKind::WouldBlock.into()),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(taken)
    }

    /// Ready when a write might not block.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing.borrow_mut();
        let Some(send) = &mut outgoing.send else {
            return Poll::Ready(Ok(()));
        };
        if send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(gone())),
        }
    }

    /// Ready when the client has reset the stream, or the connection is gone.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outgoing.borrow_mut().poll_reset(cx).map(|_| ())
    }

    /// Nothing more of the response will come. In the middle of one that is a failure.
    pub(crate) fn end(&self) {
        self.outgoing.borrow_mut().end();
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
            && !matches!(outgoing.step, Step::Done)
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

impl Incoming {
    /// Ready when there is something to read, or nothing ever more.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.text_at < self.text.len() || !self.data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.text.clear();
            self.text_at = 0;
            if self.in_chunk {
                self.in_chunk = false;
                self.text.extend_from_slice(encode::CRLF);
            } else if self.ended {
                return Poll::Ready(Ok(()));
            } else {
                match ready!(self.body.poll_data(cx)) {
                    Some(Ok(data)) => self.take(data),
                    Some(Err(_)) => return Poll::Ready(Err(gone())),
                    None => ready!(self.poll_end(cx))?,
                }
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        if self.framing == Body::Chunked && !data.is_empty() {
            encode::chunk_head(&mut self.text, data.len() as u64);
            self.in_chunk = true;
        }
        self.data = data;
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framing == Body::Chunked {
            let trailers = ready!(self.body.poll_trailers(cx)).map_err(|_| gone())?;
            self.text.extend_from_slice(encode::LAST_CHUNK);
            if let Some(trailers) = trailers {
                let pairs = fields::pairs(&trailers);
                encode_trailers(&mut self.text, pairs)
                    .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            }
            self.text.extend_from_slice(encode::CRLF);
        }
        self.ended = true;
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
            let more = self.read_filled(left);
            if more == 0 {
                break;
            }
            count += more;
        }
        Ok(count)
    }

    fn read_filled(&mut self, room: &mut [u8]) -> usize {
        let text = self.text.get(self.text_at..).unwrap_or_default();
        let from = if text.is_empty() { &*self.data } else { text };
        let count = from.len().min(room.len());
        if let (Some(place), Some(piece)) = (room.get_mut(..count), from.get(..count)) {
            place.copy_from_slice(piece);
        }
        if text.is_empty() {
            self.data.advance(count);
            // What a stream that has ended frees is freed by h2.
            let _ = self.body.flow_control().release_capacity(count);
        } else {
            self.text_at += count;
        }
        count
    }
}

impl Outgoing {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reason>> {
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(Result::ok)
    }

    /// Takes some of `bytes`; 0: the client's window is shut.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.step {
            Step::Head => self.write_head(bytes),
            Step::Length(left) => {
                let left = *left;
                let wanted =
                    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let count = self.room(wanted).min(wanted);
                if count == 0 {
                    return Ok(0);
                }
                let is_last = count as u64 == left;
                self.send(bytes.get(..count).unwrap_or_default(), is_last)?;
                self.step = match is_last {
                    true => Step::Done,
                    false => Step::Length(left - count as u64),
                };
                Ok(count)
            }
            Step::Chunked(_) => self.write_chunks(bytes),
            Step::UntilEnd => {
                let count = self.room(bytes.len()).min(bytes.len());
                self.send(bytes.get(..count).unwrap_or_default(), false)?;
                Ok(count)
            }
            Step::Done => Ok(bytes.len()),
        }
    }

    /// What the client's window has room for, of so many bytes.
    fn room(&mut self, wanted: usize) -> usize {
        self.send.as_mut().map_or(0, |send| {
            send.reserve_capacity(wanted);
            send.capacity()
        })
    }

    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        if bytes.is_empty() && !is_last {
            return Ok(());
        }
        let piece = Piece::from(Bytes::copy_from_slice(bytes));
        let send = self.send.as_mut().ok_or_else(gone)?;
        send.send_data(piece, is_last).map_err(|_| gone())
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
                self.respond(response, false)?;
                self.step = Step::UntilEnd;
            }
            // Whoever reads 200 would take the stream for a tunnel.
            101 | 200..300 if is_tunnel => {
                let mut refusal = Response::new(());
                *refusal.status_mut() = StatusCode::BAD_GATEWAY;
                self.respond(refusal, true)?;
                self.step = Step::Done;
            }
            101 => return Err(io::ErrorKind::InvalidData.into()),
            100..200 => {
                // A client that has reset the stream is noticed by others.
                let _ = self.respond.send_informational(response);
            }
            _ => {
                self.step = match head.body {
                    ResponseBody::None | ResponseBody::Length(0) => Step::Done,
                    ResponseBody::Length(length) => Step::Length(length),
                    ResponseBody::Chunked => Step::Chunked(ChunkedDecoder::default()),
                    ResponseBody::UntilClose => Step::UntilEnd,
                };
                let is_whole = matches!(self.step, Step::Done);
                self.respond(response, is_whole)?;
            }
        }
        Ok(())
    }

    fn respond(&mut self, response: Response<()>, is_whole: bool) -> io::Result<()> {
        let sent = self.respond.send_response(response, is_whole);
        self.send = Some(sent.map_err(|_| gone())?);
        Ok(())
    }

    fn write_chunks(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        if room > 0 {
            self.beyond = 0;
        }
        let Step::Chunked(decoder) = &mut self.step else {
            return Ok(0);
        };
        if room == 0 && (decoder.missing() > 0 || self.beyond > BEYOND_MAX) {
            return Ok(0);
        }
        let count = bytes.len().min(room.max(UNSEEN_MAX));
        let more = bytes.get(..count).unwrap_or_default();
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(more);
        let progress = decoder
            .decode(&mut held, Keep::DataOnly)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let trailers = progress
            .trailers
            .and_then(|range| held.get(range))
            .map(|bytes| fields::trailers(trailer_fields(bytes)));
        let trailers = match trailers {
            Some(Some(trailers)) => trailers,
            Some(None) => return Err(io::ErrorKind::InvalidData.into()),
            None => http::HeaderMap::new(),
        };
        let rest = held.split_off(progress.consumed);
        let mut data = held;
        data.truncate(progress.kept);
        self.beyond += data.len().saturating_sub(room);
        self.held = rest;
        if progress.end {
            self.step = Step::Done;
        }
        let ends = progress.end && trailers.is_empty();
        let send = self.send.as_mut().ok_or_else(gone)?;
        if !data.is_empty() || ends {
            send.send_data(Piece::from(data.freeze()), ends)
                .map_err(|_| gone())?;
        }
        if progress.end && !trailers.is_empty() {
            send.send_trailers(trailers).map_err(|_| gone())?;
        }
        Ok(count)
    }

    fn end(&mut self) {
        match self.step {
            Step::Done => {}
            Step::UntilEnd => {
                let _ = self.send(&[], true);
                self.step = Step::Done;
            }
            _ => self.give_up(Reason::INTERNAL_ERROR),
        }
    }

    fn give_up(&mut self, reason: Reason) {
        if matches!(self.step, Step::Done) {
            return;
        }
        self.gave_up = true;
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.step = Step::Done;
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
