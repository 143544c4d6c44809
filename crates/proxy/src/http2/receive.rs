//! What comes over a stream, framed as HTTP/1.1 frames it, until it is read.
//!
//! It stays with h2 until somebody reads: the stream's window is opened again only for what was. What waits there is
//! counted among the process's buffers as its frames come ([`Unread`]), whoever is in no hurry to read it. A frame costs h2 some
//! hundred bytes beside its own, and windows count only those: where many small ones have come, they are gathered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use wire::http1::encode;
use wire::http2::{Body, RequestFault, encode_trailers};

use super::fields;
use crate::memory;

/// Streams that a connection's table keeps room for while none is open.
const KEPT_MAX: usize = 14;

/// About what h2 needs for a frame; smaller ones are crumbs.
const FRAME_COST: usize = 256;
/// What crumbs of a connection may cost before they are gathered, whether they are still there or not.
const CRUMBS_MAX: usize = 256 * 1024;

/// One who can gather what has come over a stream.
pub(super) trait Gather {
    /// Takes what has come from h2; the stream's window stays as it is until it is read.
    fn gather(&self);
}

/// What has come over a stream and was not read.
struct Waiting {
    bytes: usize,
    /// Some of it came in crumbs since it was gathered.
    crumbs: bool,
    reader: Weak<dyn Gather>,
}

/// Bodies that have come over a connection and were not read, by stream.
#[derive(Default)]
pub(super) struct Unread {
    streams: RefCell<HashMap<u32, Waiting, BuildHasherDefault<Number>>>,
    /// What crumbs have cost since they were gathered.
    crumbs: Cell<usize>,
}

impl Unread {
    /// A frame of a body has come.
    pub(super) fn came(&self, stream: u32, bytes: usize) {
        let cost = FRAME_COST.saturating_sub(bytes);
        self.crumbs.set(self.crumbs.get().saturating_add(cost));
        if let Some(waiting) = self.streams.borrow_mut().get_mut(&stream) {
            waiting.bytes = waiting.bytes.saturating_add(bytes);
            waiting.crumbs |= cost > 0;
            memory::change(0, bytes);
        }
    }

    fn took(&self, stream: u32, bytes: usize) {
        if let Some(waiting) = self.streams.borrow_mut().get_mut(&stream) {
            let counted = bytes.min(waiting.bytes);
            waiting.bytes -= counted;
            memory::change(counted, 0);
        }
    }

    /// Called after h2 was polled: gathers crumbs if there may be many.
    pub(super) fn gather(&self) {
        if self.crumbs.get() > CRUMBS_MAX {
            self.gather_now();
        }
    }

    #[cold]
    fn gather_now(&self) {
        self.crumbs.set(0);
        let readers: Vec<_> = {
            let mut streams = self.streams.borrow_mut();
            let crumbled = streams.values_mut().filter(|it| it.crumbs);
            crumbled
                .map(|waiting| {
                    waiting.crumbs = false;
                    waiting.reader.clone()
                })
                .collect()
        };
        for reader in readers.iter().filter_map(Weak::upgrade) {
            reader.gather();
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
        let mut streams = self.of.streams.borrow_mut();
        let left = streams.remove(&self.stream);
        if streams.is_empty() && streams.capacity() > KEPT_MAX {
            *streams = HashMap::default();
        }
        memory::change(left.map_or(0, |waiting| waiting.bytes), 0);
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
pub(super) struct Receiver {
    /// Head or framing that is to be read before `data`, from `text_at` on.
    text: Vec<u8>,
    text_at: usize,
    data: Bytes,
    /// The end of a chunk is to follow `data`.
    in_chunk: bool,
    /// What was gathered, which comes before what is still with h2.
    gathered: BytesMut,
    /// Who asked h2 last: it keeps one only.
    asked: Waker,
    share: Option<Share>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            text: Vec::new(),
            text_at: 0,
            data: Bytes::new(),
            in_chunk: false,
            gathered: BytesMut::new(),
            asked: Waker::noop().clone(),
            share: None,
        }
    }
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
    /// Has what comes over a stream counted in `unread`, and gathered by its reader; `come`: bytes of it that have come.
    pub(super) fn count(
        &mut self,
        unread: &Rc<Unread>,
        stream: u32,
        come: usize,
        reader: Weak<dyn Gather>,
    ) {
        let waiting = Waiting {
            bytes: come,
            crumbs: come > 0,
            reader,
        };
        unread.streams.borrow_mut().insert(stream, waiting);
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

    /// Takes what has come from h2, to be read later.
    pub(super) fn gather(&mut self, body: &mut RecvStream) {
        let mut cx = Context::from_waker(&self.asked);
        while let Poll::Ready(Some(Ok(data))) = body.poll_data(&mut cx) {
            self.gathered.extend_from_slice(&data);
        }
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
        self.asked.clone_from(cx.waker());
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.begin_piece(gathered.freeze(), framing);
            return Poll::Ready(Ok(false));
        }
        let Poll::Ready(piece) = body.poll_data(cx) else {
            // Whatever was counted beyond what is read, as padding is, is gone.
            if let Some(share) = &self.share {
                share.of.took(share.stream, usize::MAX);
            }
            return Poll::Pending;
        };
        match piece.transpose()? {
            Some(data) => {
                self.begin_piece(data, framing);
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

    fn begin_piece(&mut self, data: Bytes, framing: Body) {
        if framing == Body::Chunked && !data.is_empty() {
            encode::chunk_head(&mut self.text, data.len() as u64);
            self.in_chunk = true;
        }
        self.data = data;
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

    struct Counts(Cell<u32>);

    impl Gather for Counts {
        fn gather(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn reader() -> Weak<dyn Gather> {
        Weak::<Counts>::new()
    }

    #[test]
    fn crumbs_are_gathered_where_they_came_once_they_are_many() {
        let unread = Rc::new(Unread::default());
        let readers = [(); 3].map(|()| Rc::new(Counts(Cell::new(0))));
        let _receivers: Vec<_> = (1..)
            .step_by(2)
            .zip(&readers)
            .map(|(stream, reader)| {
                let mut receiver = Receiver::default();
                let reader: Rc<dyn Gather> = reader.clone();
                receiver.count(&unread, stream, 0, Rc::downgrade(&reader));
                receiver
            })
            .collect();
        let gathered = || readers.each_ref().map(|reader| reader.0.get());
        let crumbs = |stream| {
            (0..CRUMBS_MAX / FRAME_COST).for_each(|_| unread.came(stream, 1));
            unread.gather();
        };
        unread.came(3, 16_384);
        crumbs(1);
        assert_eq!(gathered(), [0, 0, 0]);
        crumbs(5);
        assert_eq!(gathered(), [1, 0, 1]);
        // Some that came before its reader was known.
        crumbs(7);
        crumbs(3);
        assert_eq!(gathered(), [1, 1, 1]);
    }

    #[test]
    fn what_was_not_read_is_counted_until_its_reader_is_gone() {
        let before = memory::held();
        let unread = Rc::new(Unread::default());
        let (mut one, mut two) = (Receiver::default(), Receiver::default());
        one.count(&unread, 1, 100, reader());
        two.count(&unread, 3, 0, reader());
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
            receiver.count(&unread, stream * 2 + 1, 0, reader());
            all.push(receiver);
        }
        assert!(unread.streams.borrow().capacity() >= 200);
        drop(all);
        assert_eq!(unread.streams.borrow().capacity(), 0);
    }
}
