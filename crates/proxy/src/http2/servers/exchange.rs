//! One request to a server as the exchange of HTTP/1 writes and reads it: a codec, as a TLS session is one.
//!
//! Writing takes the request, head first, and hands its body to h2 as far as the server's window goes. Reading gives the
//! response, interim ones first, framed as HTTP/1.1 would have framed it; the stream's window is opened again only for
//! what was read.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use wire::http1::{Body as RequestBody, ChunkedDecoder, Keep, Method, encode, trailer_fields};
use wire::http2::{self, Body, encode_interim, encode_response, encode_trailers};

use super::super::{Piece, fields};
use super::connection::Place;
use super::fault::Fault;
use super::request::{Asked, Upgrade, translate};

/// Bytes of a chunked body that h2 may hold beyond the server's window: chunks are unpacked before their size is known.
const BEYOND_MAX: usize = 16 * 1024;
/// Bytes looked at in one go where the window is shut: heads of chunks, and what ends the body.
const UNSEEN_MAX: usize = 512;
/// Bytes handed to h2 in one piece.
const PIECE_MAX: usize = 32 * 1024;

/// One request to a server over HTTP/2.
pub(crate) struct Exchange {
    outgoing: RefCell<Outgoing>,
    incoming: RefCell<Incoming>,
    place: Place,
}

/// The request.
struct Outgoing {
    step: Step,
    /// Once the head is sent.
    send: Option<SendStream<Piece>>,
    /// Framing of a chunk that was taken and is not whole.
    held: BytesMut,
    /// Bytes of the body given to h2 beyond the server's window.
    beyond: usize,
}

/// What of a request comes next.
enum Step {
    Head,
    /// So many bytes.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Whatever comes, until the exchange says that it is over.
    UntilEnd,
    /// Nothing: it is sent whole, or what comes is for nobody.
    Done,
}

/// The response.
struct Incoming {
    step: Answer,
    asked: Wanted,
    /// Head or framing that is to be read before `data`, from `text_at` on.
    text: Vec<u8>,
    text_at: usize,
    data: Bytes,
    /// The end of a chunk is to follow `data`.
    in_chunk: bool,
}

/// What of a request its response is read with.
#[derive(Default)]
struct Wanted {
    method: Method,
    grpc: bool,
    upgrade: Option<Upgrade>,
}

/// What of a response comes next.
enum Answer {
    /// Nothing was asked yet.
    Nothing,
    Head(ResponseFuture),
    Body(RecvStream, Body),
    Done,
    Failed(Fault),
}

impl Exchange {
    pub(super) fn new(place: Place) -> Self {
        Self {
            outgoing: RefCell::new(Outgoing {
                step: Step::Head,
                send: None,
                held: BytesMut::new(),
                beyond: 0,
            }),
            incoming: RefCell::new(Incoming {
                step: Answer::Nothing,
                asked: Wanted::default(),
                text: Vec::new(),
                text_at: 0,
                data: Bytes::new(),
                in_chunk: false,
            }),
            place,
        }
    }

    /// Whether it is on a connection of its own so far, so that another one would do no better.
    pub(crate) fn is_fresh(&self) -> bool {
        self.place.fresh
    }

    /// Has its connection be taken for one that refuses requests.
    pub(crate) fn tire(&self) {
        self.place.connection.tire();
    }

    /// Takes what the server's window has room for.
    pub(crate) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for part in parts {
            let mut bytes = &**part;
            while !bytes.is_empty() {
                match self.write(bytes) {
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
            // The server has reset the stream, or has left: what it has to say of that is read.
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Reads at least one byte, or 0 at the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut incoming = self.incoming.borrow_mut();
        let mut count = 0;
        while let Some(left) = room.get_mut(count..).filter(|left| !left.is_empty()) {
            match self.poll_fill(&mut incoming, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if count == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if count == 0 => return Poll::Pending,
                _ => break,
            }
            let more = incoming.read(left);
            if more == 0 {
                break;
            }
            count += more;
        }
        Poll::Ready(Ok(count))
    }

    /// Reads what has been waited for.
    pub(crate) fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming.borrow_mut();
        let count = incoming.read(room);
        if count > 0 || room.is_empty() {
            return Ok(count);
        }
        match &incoming.step {
            Answer::Done | Answer::Failed(Fault::Closed) => Ok(0),
            Answer::Failed(fault) => Err(fault.clone().into()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Ready when a read gives something, or an end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(&mut self.incoming.borrow_mut(), cx)
    }

    /// Nothing more of a tunnel will be sent.
    pub(crate) fn end(&self) {
        let mut outgoing = self.outgoing.borrow_mut();
        if matches!(outgoing.step, Step::UntilEnd) {
            outgoing.step = Step::Done;
            if let Some(send) = &mut outgoing.send {
                let _ = send.send_data(Piece::from(Bytes::new()), true);
            }
        }
    }

    /// Takes some of `bytes`; 0: the server's window is shut.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut outgoing = self.outgoing.borrow_mut();
        let count = match outgoing.step {
            Step::Head => {
                drop(outgoing);
                return self.write_head(bytes);
            }
            Step::Length(left) => outgoing.write_length(bytes, left),
            Step::Chunked(_) => outgoing.write_chunks(bytes),
            Step::UntilEnd => outgoing.write_bytes(bytes),
            Step::Done => Ok(bytes.len()),
        }?;
        if count > 0 {
            self.place.connection.note_sent();
        }
        Ok(count)
    }

    /// Opens the stream. What keeps the request from being said is told to who reads its response.
    fn write_head(&self, bytes: &[u8]) -> io::Result<usize> {
        let connection = &self.place.connection;
        let translated = translate(
            bytes,
            connection.is_secure(),
            &mut connection.scratch.borrow_mut(),
        );
        let (asked, len) = match translated {
            Ok(Some(translated)) => translated,
            Ok(None) => return Ok(self.fail(Fault::Unsayable("half a head".to_owned()), bytes)),
            Err(detail) => return Ok(self.fail(Fault::Unsayable(detail), bytes)),
        };
        let Asked {
            request,
            method,
            body,
            grpc,
            upgrade,
        } = asked;
        if upgrade.is_some() && !connection.offers_upgrades() {
            return Ok(self.fail(Fault::NoUpgrade, bytes));
        }
        let ended = upgrade.is_none() && matches!(body, RequestBody::None | RequestBody::Length(0));
        let (response, send) = match connection.open(request, ended) {
            Ok(opened) => opened,
            Err(Some(error)) => {
                return Ok(self.fail(Fault::Unsayable(format!("HTTP/2: {error}")), bytes));
            }
            Err(None) => return Err(Fault::NotTaken.into()),
        };
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.step = match body {
            _ if ended => Step::Done,
            _ if upgrade.is_some() => Step::UntilEnd,
            RequestBody::Length(length) => Step::Length(length),
            _ => Step::Chunked(ChunkedDecoder::default()),
        };
        outgoing.send = Some(send);
        let mut incoming = self.incoming.borrow_mut();
        incoming.step = Answer::Head(response);
        incoming.asked = Wanted {
            method,
            grpc,
            upgrade,
        };
        Ok(len)
    }

    /// Takes the request to no end.
    fn fail(&self, fault: Fault, bytes: &[u8]) -> usize {
        self.outgoing.borrow_mut().step = Step::Done;
        self.incoming.borrow_mut().step = Answer::Failed(fault);
        bytes.len()
    }

    /// Ready when there is something to read, or nothing ever more.
    fn poll_fill(&self, incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if incoming.text_at < incoming.text.len() || !incoming.data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            incoming.text.clear();
            incoming.text_at = 0;
            if incoming.in_chunk {
                incoming.in_chunk = false;
                incoming.text.extend_from_slice(encode::CRLF);
                continue;
            }
            let stepped = match &mut incoming.step {
                Answer::Nothing => return Poll::Pending,
                Answer::Done | Answer::Failed(Fault::Closed) => return Poll::Ready(Ok(())),
                Answer::Failed(fault) => return Poll::Ready(Err(fault.clone().into())),
                Answer::Head(_) => {
                    let stepped = ready!(incoming.poll_head(cx));
                    if stepped.is_ok() {
                        self.place.connection.note_answered();
                    }
                    stepped
                }
                Answer::Body(..) => ready!(incoming.poll_body(cx)),
            };
            if let Err(fault) = stepped {
                incoming.step = Answer::Failed(fault);
            }
        }
    }
}

impl Outgoing {
    /// What the server's window has room for, of so many bytes.
    fn room(&mut self, wanted: usize) -> usize {
        self.send.as_mut().map_or(0, |send| {
            send.reserve_capacity(wanted);
            send.capacity().min(wanted)
        })
    }

    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        let piece = Piece::from(Bytes::copy_from_slice(bytes));
        let send = self.send.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        send.send_data(piece, is_last)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn write_length(&mut self, bytes: &[u8], left: u64) -> io::Result<usize> {
        let wanted = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let count = self.room(wanted.min(PIECE_MAX));
        if count == 0 {
            return Ok(0);
        }
        let is_last = count as u64 == left;
        self.send(bytes.get(..count).unwrap_or_default(), is_last)?;
        self.step = if is_last {
            Step::Done
        } else {
            Step::Length(left - count as u64)
        };
        Ok(count)
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.room(bytes.len().min(PIECE_MAX));
        if count > 0 {
            self.send(bytes.get(..count).unwrap_or_default(), false)?;
        }
        Ok(count)
    }

    fn write_chunks(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len().min(PIECE_MAX));
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
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes.get(..count).unwrap_or_default());
        let progress = decoder
            .decode(&mut held, Keep::DataOnly)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let trailers = progress.trailers.and_then(|range| held.get(range));
        let trailers = trailers.map(|bytes| fields::trailers(trailer_fields(bytes)));
        let trailers = match trailers {
            Some(Some(trailers)) if !trailers.is_empty() => Some(trailers),
            Some(None) => return Err(io::ErrorKind::InvalidData.into()),
            _ => None,
        };
        self.held = held.split_off(progress.consumed);
        held.truncate(progress.kept);
        self.beyond += held.len().saturating_sub(room);
        let ends = progress.end && trailers.is_none();
        if progress.end {
            self.step = Step::Done;
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let send = self.send.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        if !held.is_empty() || ends {
            send.send_data(Piece::from(held.freeze()), ends)
                .map_err(gone)?;
        }
        if let Some(trailers) = trailers {
            send.send_trailers(trailers).map_err(gone)?;
        }
        Ok(count)
    }
}

impl Incoming {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Answer::Head(response) = &mut self.step else {
            return Poll::Ready(Ok(()));
        };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let interim = interim.map_err(|error| Fault::of(&error))?;
            let pairs = fields::pairs(interim.headers());
            return Poll::Ready(
                encode_interim(&mut self.text, interim.status().as_u16(), pairs).map_err(bad),
            );
        }
        let head = ready!(Pin::new(response).poll(cx)).map_err(|error| Fault::of(&error))?;
        let (head, body) = head.into_parts();
        let upgrade = self.asked.upgrade.as_ref();
        let asked = http2::Asked {
            method: self.asked.method,
            trailers: self.asked.grpc,
            protocol: upgrade.map(|upgrade| &*upgrade.protocol),
            accept: upgrade.and_then(|upgrade| upgrade.accept.as_deref()),
        };
        let framing = encode_response(
            &mut self.text,
            head.status.as_u16(),
            fields::pairs(&head.headers),
            &asked,
            body.is_end_stream(),
        )
        .map_err(bad)?;
        self.step = match framing {
            Body::None => Answer::Done,
            framing => Answer::Body(body, framing),
        };
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Answer::Body(body, framing) = &mut self.step else {
            return Poll::Ready(Ok(()));
        };
        match ready!(body.poll_data(cx)) {
            Some(Ok(data)) => {
                if *framing == Body::Chunked && !data.is_empty() {
                    encode::chunk_head(&mut self.text, data.len() as u64);
                    self.in_chunk = true;
                }
                self.data = data;
            }
            Some(Err(error)) => return Poll::Ready(Err(Fault::of(&error))),
            None => {
                if *framing == Body::Chunked {
                    let trailers =
                        ready!(body.poll_trailers(cx)).map_err(|error| Fault::of(&error))?;
                    self.text.extend_from_slice(encode::LAST_CHUNK);
                    if let Some(trailers) = trailers {
                        encode_trailers(&mut self.text, fields::pairs(&trailers)).map_err(bad)?;
                    }
                    self.text.extend_from_slice(encode::CRLF);
                }
                self.step = Answer::Done;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is here.
    fn read(&mut self, room: &mut [u8]) -> usize {
        let text = self.text.get(self.text_at..).unwrap_or_default();
        let from = if text.is_empty() { &*self.data } else { text };
        let count = from.len().min(room.len());
        if let (Some(place), Some(piece)) = (room.get_mut(..count), from.get(..count)) {
            place.copy_from_slice(piece);
        }
        if text.is_empty() {
            self.data.advance(count);
            if let Answer::Body(body, _) = &mut self.step {
                // What a stream that has ended frees is freed by h2.
                let _ = body.flow_control().release_capacity(count);
            }
        } else {
            self.text_at += count;
        }
        count
    }
}

fn bad(fault: impl std::fmt::Display) -> Fault {
    Fault::Bad(format!("HTTP/2: {fault}"))
}
