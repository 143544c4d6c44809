//! What comes over a stream, framed as HTTP/1.1 frames it, until it is read.
//!
//! It stays with h2 until somebody reads: the stream's window is opened again only for what was. What waits there is
//! counted among the process's buffers as its frames come ([`Unread`]), whoever is in no hurry to read it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use wire::http1::encode;
use wire::http2::{Body, RequestFault, encode_trailers};

use super::fields;
use crate::memory;

/// Streams that a connection's table keeps room for while none is open.
const KEPT_MAX: usize = 14;

/// Bytes of bodies that have come over a connection and were not read, by stream.
#[derive(Default)]
pub(super) struct Unread(RefCell<HashMap<u32, usize, BuildHasherDefault<Number>>>);

impl Unread {
    /// So much of a body has come.
    pub(super) fn came(&self, stream: u32, bytes: usize) {
        if let Some(count) = self.0.borrow_mut().get_mut(&stream) {
            *count = count.saturating_add(bytes);
            memory::change(0, bytes);
        }
    }

    fn took(&self, stream: u32, bytes: usize) {
        if let Some(count) = self.0.borrow_mut().get_mut(&stream) {
            let counted = bytes.min(*count);
            *count -= counted;
            memory::change(counted, 0);
        }
    }
}

/// A stream's part of [`Unread`], while its reader lives.
struct Share {
    of: Rc<Unread>,
    stream: u32,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.of.0.borrow_mut();
        let left = counts.remove(&self.stream);
        if counts.is_empty() && counts.capacity() > KEPT_MAX {
            *counts = HashMap::default();
        }
        memory::change(left.unwrap_or_default(), 0);
    }
}

/// Stream numbers are as good as hashes of theirs: a connection has few at once, and h2 judges them.
#[derive(Default)]
pub(super) struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // Tables look at the highest bits and at the lowest.
        self.0 = (self.0 ^ u64::from(number >> 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The reading end of a stream.
#[derive(Default)]
pub(super) struct Receiver {
    /// Head or framing that is to be read before `data`, from `text_at` on.
    text: Vec<u8>,
    text_at: usize,
    data: Bytes,
    /// The end of a chunk is to follow `data`.
    in_chunk: bool,
    share: Option<Share>,
}

/// Why a body broke off.
pub(super) enum BodyFault {
    Http2(h2::Error),
    Trailers(RequestFault),
}

impl From<h2::Error> for BodyFault {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

impl Receiver {
    /// Has what comes over a stream counted in `unread`; `come`: bytes of it that have come.
    pub(super) fn count(&mut self, unread: &Rc<Unread>, stream: u32, come: usize) {
        unread.0.borrow_mut().insert(stream, come);
        memory::change(0, come);
        self.share = Some(Share {
            of: unread.clone(),
            stream,
        });
    }

    /// Whether there is something to read; if not, `text` is empty.
    pub(super) fn is_filled(&mut self) -> bool {
        if self.text_at < self.text.len() || !self.data.is_empty() {
            return true;
        }
        self.text.clear();
        self.text_at = 0;
        if std::mem::take(&mut self.in_chunk) {
            self.text.extend_from_slice(encode::CRLF);
        }
        !self.text.is_empty()
    }

    /// What is to be read next, for who has a head to say.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Takes the next piece of a body; true: that was the end of it.
    pub(super) fn poll_body(
        &mut self,
        body: &mut RecvStream,
        framing: Body,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, BodyFault>> {
        let Poll::Ready(piece) = body.poll_data(cx) else {
            // Whatever was counted beyond what is read, as padding is, is gone.
            if let Some(share) = &self.share {
                share.of.took(share.stream, usize::MAX);
            }
            return Poll::Pending;
        };
        match piece.transpose()? {
            Some(data) => {
                if framing == Body::Chunked && !data.is_empty() {
                    encode::chunk_head(&mut self.text, data.len() as u64);
                    self.in_chunk = true;
                }
                self.data = data;
                Poll::Ready(Ok(false))
            }
            None if framing == Body::Chunked => {
                let trailers = ready!(body.poll_trailers(cx))?;
                self.text.extend_from_slice(encode::LAST_CHUNK);
                if let Some(trailers) = trailers {
                    encode_trailers(&mut self.text, fields::pairs(&trailers))
                        .map_err(BodyFault::Trailers)?;
                }
                self.text.extend_from_slice(encode::CRLF);
                Poll::Ready(Ok(true))
            }
            None => Poll::Ready(Ok(true)),
        }
    }

    /// Reads what is here; `body`: where that came from, if it is a body's.
    pub(super) fn read(&mut self, room: &mut [u8], body: Option<&mut RecvStream>) -> usize {
        let text = self.text.get(self.text_at..).unwrap_or_default();
        let from = if text.is_empty() { &*self.data } else { text };
        let count = from.len().min(room.len());
        if let (Some(place), Some(piece)) = (room.get_mut(..count), from.get(..count)) {
            place.copy_from_slice(piece);
        }
        if !text.is_empty() {
            self.text_at += count;
            return count;
        }
        self.data.advance(count);
        if let Some(body) = body
            && count > 0
        {
            // What a stream that has ended frees is freed by h2.
            let _ = body.flow_control().release_capacity(count);
        }
        if let Some(share) = &self.share {
            share.of.took(share.stream, count);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_is_counted_until_its_reader_is_gone() {
        let before = memory::held();
        let unread = Rc::new(Unread::default());
        let (mut one, mut two) = (Receiver::default(), Receiver::default());
        one.count(&unread, 1, 100);
        two.count(&unread, 3, 0);
        unread.came(3, 50);
        unread.came(5, 1000);
        assert_eq!(memory::held(), before + 150);
        unread.took(1, 60);
        unread.took(3, 70);
        assert_eq!(memory::held(), before + 40);
        unread.came(3, 10);
        drop(two);
        unread.came(3, 1000);
        assert_eq!(memory::held(), before + 40);
        drop(one);
        assert_eq!(memory::held(), before);
    }

    #[test]
    fn a_table_that_has_grown_is_given_back() {
        let unread = Rc::new(Unread::default());
        let mut all = Vec::new();
        for stream in 0..200 {
            let mut receiver = Receiver::default();
            receiver.count(&unread, stream * 2 + 1, 0);
            all.push(receiver);
        }
        assert!(unread.0.borrow().capacity() >= 200);
        drop(all);
        assert_eq!(unread.0.borrow().capacity(), 0);
    }
}
