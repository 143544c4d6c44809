//! One request to a server as the exchange of HTTP/1 writes and reads it: a codec, as a TLS session is one.
//!
//! Writing takes the request, head first, and hands its body to h2 as far as the server's window goes. Reading gives the
//! response, interim ones first, framed as HTTP/1.1 would have framed it; the stream's window is opened again only for
//! what was read.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use wire::http1::{Body as RequestBody, ChunkedDecoder, Method};
use wire::http2::{self, Body, encode_interim, encode_response};

use super::super::fields;
use super::super::receive::{BodyFault, Gather, Receiver};
use super::super::send::{Sender, Step, write_parts};
use super::connection::Place;
use super::fault::Fault;
use super::request::{Asked, Upgrade, translate};
use crate::net::Taken;

/// One request to a server over HTTP/2.
pub(crate) struct Exchange {
    outgoing: RefCell<Sender>,
    incoming: RefCell<Incoming>,
    place: Place,
    own: Weak<Self>,
}

/// The response.
struct Incoming {
    step: Answer,
    asked: Wanted,
    receiver: Receiver,
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
    pub(super) fn new(place: Place) -> Rc<Self> {
        Rc::new_cyclic(|own| Self {
            outgoing: RefCell::new(Sender::new(place.connection.passed())),
            incoming: RefCell::new(Incoming {
                step: Answer::Nothing,
                asked: Wanted::default(),
                receiver: Receiver::default(),
            }),
            place,
            own: own.clone(),
        })
    }

    /// Whether it is on a connection of its own so far, so that another one would do no better.
    pub(crate) fn is_fresh(&self) -> bool {
        self.place.fresh
    }

    /// Whether its server, if it has not taken the request, may well take it on another connection: this one was old, or was
    /// ended after it had taken others.
    pub(crate) fn may_be_taken_elsewhere(&self) -> bool {
        !self.is_fresh() || self.place.connection.shared.has_taken_some()
    }

    /// Whether nobody has been charged yet with the end of its connection, which all requests on it have met.
    pub(crate) fn is_first_lost(&self) -> bool {
        self.place.connection.shared.is_first_lost()
    }

    /// Has its connection be taken for one that refuses requests.
    pub(crate) fn tire(&self) {
        self.place.connection.tire();
    }

    /// Takes what the server's window has room for.
    pub(crate) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        write_parts(parts, |bytes| self.write(bytes))
    }

    /// Ready when a write might not block.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.borrow_mut().poll_writable(cx)
    }

    /// How far the server has come with what was written.
    pub(crate) fn taken(&self) -> Taken {
        self.place.connection.taken()
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
        // Whoever drops it in the middle of a request cancels that.
        self.outgoing.borrow_mut().end();
    }

    /// Takes some of `bytes`; 0: the server's window is shut.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut outgoing = self.outgoing.borrow_mut();
        if matches!(outgoing.step, Step::Head) {
            drop(outgoing);
            return self.write_head(bytes);
        }
        let count = outgoing.write(bytes)?;
        if count > 0 {
            self.place.connection.shared.note_sent();
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
        if upgrade.is_some() && !connection.shared.offers_upgrades() {
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
        let step = match body {
            _ if ended => Step::Done,
            _ if upgrade.is_some() => Step::UntilEnd,
            RequestBody::Length(length) => Step::Length(length),
            _ => Step::Chunked(ChunkedDecoder::default()),
        };
        let stream = response.stream_id().as_u32();
        self.outgoing.borrow_mut().begin(send, step);
        let mut incoming = self.incoming.borrow_mut();
        let reader = self.own.clone();
        incoming
            .receiver
            .count(connection.unread(), stream, 0, reader);
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
            if incoming.receiver.is_filled() {
                return Poll::Ready(Ok(()));
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
            let is_over = matches!(incoming.step, Answer::Done | Answer::Failed(_));
            // Its client may take long to read what is here.
            if is_over && matches!(self.outgoing.borrow().step, Step::Done) {
                self.place.release();
            }
        }
    }
}

impl Gather for Exchange {
    fn gather(&self) {
        let Incoming { step, receiver, .. } = &mut *self.incoming.borrow_mut();
        if let Answer::Body(body, _) = step {
            receiver.gather(body);
        }
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
                encode_interim(self.receiver.text(), interim.status().as_u16(), pairs).map_err(bad),
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
            self.receiver.text(),
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
        let taken = ready!(self.receiver.poll_body(body, *framing, cx));
        let ended = taken.map_err(|fault| match fault {
            BodyFault::Http2(error) => Fault::of(&error),
            BodyFault::Trailers(fault) => bad(fault),
        })?;
        if ended {
            self.step = Answer::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is here.
    fn read(&mut self, room: &mut [u8]) -> usize {
        let body = match &mut self.step {
            Answer::Body(body, _) => Some(body),
            _ => None,
        };
        self.receiver.read(room, body)
    }
}

fn bad(fault: impl std::fmt::Display) -> Fault {
    Fault::Bad(format!("HTTP/2: {fault}"))
}
