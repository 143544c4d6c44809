//! What goes over a stream: a body as HTTP/1.1 has framed it, handed to h2 as far as the other side's window goes.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use wire::http1::{ChunkedDecoder, Keep, trailer_fields};

use super::{Passed, Piece, fields};

/// Bytes of a chunked body that h2 may hold beyond the window: chunks are unpacked before their size is known.
const BEYOND_MAX: usize = 16 * 1024;
/// Bytes looked at in one go where the window is shut: heads of chunks, and what ends the body.
const UNSEEN_MAX: usize = 512;
/// Bytes handed to h2 in one piece.
const PIECE_MAX: usize = 32 * 1024;

/// What of a message comes next.
pub(super) enum Step {
    Head,
    /// So many bytes.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Whatever comes, until the exchange says that it is over.
    UntilEnd,
    /// Nothing: it is sent whole, or what comes is for nobody.
    Done,
}

/// The writing end of a stream.
pub(super) struct Sender {
    pub(super) step: Step,
    /// Once the final head is sent.
    stream: Option<SendStream<Piece>>,
    /// Framing of a chunk that was taken and is not whole.
    held: BytesMut,
    /// Bytes of the body given to h2 beyond the window.
    beyond: usize,
    passed: Passed,
}

/// The other side has reset the stream, or has left: what it has to say of that is read.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// Writes parts one after the other; `write` takes some of the bytes that it is given, 0 while the window is shut.
pub(super) fn write_parts(
    parts: &[IoSlice<'_>],
    mut write: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut taken = 0;
    for part in parts {
        let mut bytes = &**part;
        while !bytes.is_empty() {
            match write(bytes) {
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

impl Sender {
    /// `passed` is its connection's.
    pub(super) fn new(passed: Passed) -> Self {
        Self {
            step: Step::Head,
            stream: None,
            held: BytesMut::new(),
            beyond: 0,
            passed,
        }
    }

    /// The head is sent; its body follows as `step` says.
    pub(super) fn begin(&mut self, stream: SendStream<Piece>, step: Step) {
        self.stream = Some(stream);
        self.step = step;
    }

    /// The stream, once the final head is sent.
    pub(super) fn stream(&mut self) -> Option<&mut SendStream<Piece>> {
        self.stream.as_mut()
    }

    /// Ready when a write might not block.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(gone())),
        }
    }

    /// Takes some of a body's bytes; 0: the window is shut.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.step {
            Step::Length(left) => self.write_length(bytes, left),
            Step::Chunked(_) => self.write_chunks(bytes),
            Step::UntilEnd => self.write_bytes(bytes),
            Step::Head | Step::Done => Ok(bytes.len()),
        }
    }

    /// Nothing more will be written; false: that is in the middle of a message.
    pub(super) fn end(&mut self) -> bool {
        match self.step {
            Step::Done => true,
            Step::UntilEnd => {
                // One that is gone needs no word.
                let _ = self.send(&[], true);
                self.step = Step::Done;
                true
            }
            _ => false,
        }
    }

    /// Ends the message here with these trailers; false: it has a length, or there is none.
    ///
    /// What h2 holds of the body goes before them, however long the other side takes nothing of it: as at any other end
    /// that is no more than the window and [`BEYOND_MAX`], and gone with the connection.
    pub(super) fn end_with(&mut self, trailers: &[u8]) -> bool {
        if !matches!(self.step, Step::Chunked(_) | Step::UntilEnd) {
            return false;
        }
        let trailers = fields::trailers(trailer_fields(trailers));
        let Some((trailers, stream)) = trailers.zip(self.stream.as_mut()) else {
            return false;
        };
        let sent = stream.send_trailers(trailers).is_ok();
        if sent {
            self.step = Step::Done;
        }
        sent
    }

    /// What the window has room for, of so many bytes.
    fn room(&mut self, wanted: usize) -> usize {
        self.stream.as_mut().map_or(0, |stream| {
            stream.reserve_capacity(wanted);
            stream.capacity().min(wanted)
        })
    }

    fn send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        let piece = Piece::new(Bytes::copy_from_slice(bytes), self.passed.clone());
        let stream = self.stream.as_mut().ok_or_else(gone)?;
        stream.send_data(piece, is_last).map_err(|_| gone())
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
        let trailers = match trailers.map(|bytes| fields::trailers(trailer_fields(bytes))) {
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
        let stream = self.stream.as_mut().ok_or_else(gone)?;
        if !held.is_empty() || ends {
            let piece = Piece::new(held.freeze(), self.passed.clone());
            stream.send_data(piece, ends).map_err(|_| gone())?;
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers).map_err(|_| gone())?;
        }
        Ok(count)
    }
}
