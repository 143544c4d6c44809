//! The request body on its way to a server, and what is kept of it for another try.

use std::future::poll_fn;
use std::time::Duration;

use config::HttpListener;
use control::reason::Reason;
use wire::grpc::Base64Decoder;
use wire::http1::{Body, Keep, encode};

use super::blame::Time;
use super::respond::Seen;
use crate::buffer::{BUFFER_BYTES, Buffer, Buffers};
use crate::memory::Counted;
use crate::net::{self, Conduit, Deadline};
use crate::relay::{self, Framing, Piece, WriteFault, YIELD_BYTES};
use crate::stream::Stream;

/// Body bytes kept for another try.
const REPLAY_BYTES: usize = 64 * 1024;

/// How far a request body has come.
pub(super) struct Upload {
    framing: Framing,
    /// What was judged last, still in the buffer: what came with the head, or a piece on its way.
    held: Piece,
    /// The held piece has not been written whole by [`relay_rest`].
    writing: bool,
    /// Body bytes read from the client so far.
    pub(super) bytes: u64,
    max: Option<u64>,
    replayable: bool,
    /// Set where the body is base64, and the server gets what it stands for.
    text: Option<Box<Base64Decoder>>,
    /// Whether everything sent so far can be sent again.
    pub(super) can_replay: bool,
}

/// Why a body did not arrive whole.
#[derive(Debug)]
pub(super) enum UploadFault {
    /// The client's fault; the server's connection is aborted.
    Client(Reason),
    /// The server takes no more; it may have said why.
    Server,
    /// The server takes nothing for too long.
    ServerStuck,
}

impl Upload {
    /// Judges what has come with the head before a byte goes to a server.
    pub(super) fn begin(
        body: Body,
        replayable: bool,
        decoded: bool,
        http: &HttpListener,
        client_in: &mut Buffer,
        tail: &mut Vec<u8>,
    ) -> Result<Self, Reason> {
        tail.clear();
        let keep = if decoded {
            Keep::DataOnly
        } else {
            Keep::Framing
        };
        let mut framing = Framing::new(body, keep);
        let held = framing
            .take(client_in.filled_mut(), tail)
            .map_err(|_| Reason::BadFraming)?;
        let mut upload = Self {
            framing,
            held,
            writing: false,
            bytes: held.data as u64,
            max: http.limits.body_bytes,
            replayable,
            text: decoded.then(Box::default),
            can_replay: true,
        };
        if decoded {
            upload.decode(client_in, tail)?;
        }
        if upload.is_too_large() {
            Err(Reason::BodyTooLarge)
        } else {
            Ok(upload)
        }
    }

    /// Where the body is base64: what the held piece stands for is then in `tail`, as a chunk, and nothing else goes on.
    #[cold]
    fn decode(&mut self, client_in: &Buffer, tail: &mut Vec<u8>) -> Result<(), Reason> {
        let Some(decoder) = &mut self.text else {
            return Ok(());
        };
        let mut data = Vec::new();
        let piece = client_in.filled().get(..self.held.kept).unwrap_or_default();
        let decoded = decoder.decode(piece, &mut data);
        decoded.map_err(|_| Reason::BadRequest)?;
        self.held.kept = 0;
        if !data.is_empty() {
            encode::chunk_head(tail, data.len() as u64);
            tail.extend_from_slice(&data);
            tail.extend_from_slice(encode::CRLF);
        }
        if self.framing.is_done() {
            if !decoder.is_whole() {
                return Err(Reason::BadRequest);
            }
            tail.extend_from_slice(encode::LAST_CHUNK);
            tail.extend_from_slice(encode::CRLF);
        }
        Ok(())
    }

    fn is_too_large(&self) -> bool {
        self.max.is_some_and(|max| self.bytes > max)
    }

    /// Whether the body has been read whole.
    pub(super) fn is_done(&self) -> bool {
        self.framing.is_done()
    }

    /// Whether a try ended while a piece was on its way: its server has not had all that was read.
    pub(super) fn was_cut(&self) -> bool {
        self.writing
    }

    /// What of the first piece goes to the server: it stays in the buffer until more must be read.
    pub(super) fn first<'b>(&self, client_in: &'b Buffer) -> &'b [u8] {
        client_in.filled().get(..self.held.kept).unwrap_or_default()
    }

    /// Lets go of the held piece, at the end of an exchange.
    pub(super) fn release(&mut self, client_in: &mut Buffer) {
        let held = std::mem::take(&mut self.held);
        client_in.consume(held.consumed);
    }

    /// Lets go of the held piece, keeping it for another try if that may be.
    fn keep_held(&mut self, client_in: &mut Buffer, replay: &mut Counted) {
        self.can_replay = self.keep(self.first(client_in), replay);
        self.writing = false;
        self.release(client_in);
    }

    /// Whether all that was sent is kept, with these bytes.
    fn keep(&self, bytes: &[u8], replay: &mut Counted) -> bool {
        if self.can_replay && self.replayable && replay.len() + bytes.len() <= REPLAY_BYTES {
            replay.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            replay.clear();
            return false;
        }
        self.can_replay
    }

    /// After a try that failed: a piece that was on its way belongs to the next one.
    pub(super) fn rewind(&mut self, client_in: &mut Buffer, replay: &mut Counted) {
        if self.writing {
            self.keep_held(client_in, replay);
        }
    }
}

/// The pieces of a block that an upload works on.
pub(super) struct UploadBuffers<'b> {
    pub(super) client_in: &'b mut Buffer,
    pub(super) replay: &'b mut Counted,
    pub(super) tail: &'b mut Vec<u8>,
    pub(super) free: &'b Buffers,
}

/// Relays the rest of a body, as it comes.
pub(super) async fn relay_rest(
    client: &Stream,
    server: &Stream,
    upload: &mut Upload,
    buffers: UploadBuffers<'_>,
    (body_idle, write_idle): (Option<Duration>, Option<Duration>),
    time: &Time,
    seen: &Seen,
) -> Result<(), UploadFault> {
    let UploadBuffers {
        client_in,
        replay,
        tail,
        free,
    } = buffers;
    upload.keep_held(client_in, replay);
    let deadline = Deadline::new();
    let mut since_yield = 0;
    while !upload.is_done() {
        if client_in.is_in_bulk()
            && upload.framing.is_bulk()
            && !upload.can_replay
            && upload.text.is_none()
            && let Some(sides) = client.plain().zip(server.plain())
            && let Some(conduit) = free.conduit()
        {
            let idle = (body_idle, write_idle);
            // Boxed, so that small bodies do not carry its state.
            Box::pin(splice(
                sides,
                upload,
                &conduit,
                &deadline,
                idle,
                (time, seen),
            ))
            .await?;
            client_in.end_bulk();
            continue;
        }
        free.widen(client_in);
        if client_in.room().is_empty() && !client_in.grow(2 * crate::buffer::BUFFER_BYTES) {
            // No size line or trailer section is as long as that.
            return Err(UploadFault::Client(Reason::BadFraming));
        }
        deadline.set(body_idle);
        time.await_more();
        let read = deadline.guard(relay::read_more(client, client_in)).await;
        time.handle_more();
        match read {
            Err(net::Elapsed) => return Err(UploadFault::Client(Reason::BodyTimeout)),
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return Err(UploadFault::Client(Reason::ClientClosed)),
        }
        // What was decoded of the piece before, if it is base64. The last one of a body stays where it is.
        upload.can_replay = upload.keep(tail, replay);
        tail.clear();
        upload.held = upload
            .framing
            .take(client_in.filled_mut(), tail)
            .map_err(|_| UploadFault::Client(Reason::BadFraming))?;
        upload.writing = true;
        upload.bytes += upload.held.data as u64;
        if upload.is_too_large() {
            return Err(UploadFault::Client(Reason::BodyTooLarge));
        }
        if upload.text.is_some() {
            let decoded = upload.decode(client_in, tail);
            decoded.map_err(UploadFault::Client)?;
        }
        let parts = [upload.first(client_in), tail];
        let taken = write_piece(server, parts, &deadline, write_idle, seen).await?;
        upload.keep_held(client_in, replay);
        since_yield += taken;
        if since_yield >= YIELD_BYTES {
            since_yield = 0;
            net::yield_now().await;
        }
    }
    Ok(())
}

/// Moves a body on by conduit until it ends, or comes in small pieces. What was moved cannot be sent again.
async fn splice(
    (client, server): (&net::Stream, &net::Stream),
    upload: &mut Upload,
    conduit: &Conduit,
    deadline: &Deadline,
    (body_idle, write_idle): (Option<Duration>, Option<Duration>),
    (time, seen): (&Time, &Seen),
) -> Result<(), UploadFault> {
    let mut since_yield = 0;
    while let Some(unseen) = upload.framing.unseen() {
        let max = usize::try_from(unseen).unwrap_or(usize::MAX);
        deadline.set(body_idle);
        time.await_more();
        let filled = deadline.guard(poll_fn(|cx| client.poll_fill(cx, conduit, max)));
        let filled = filled.await;
        time.handle_more();
        let count = match filled {
            Err(net::Elapsed) => return Err(UploadFault::Client(Reason::BodyTimeout)),
            Ok(Ok(count)) if count > 0 => count,
            Ok(_) => return Err(UploadFault::Client(Reason::ClientClosed)),
        };
        upload.framing.pass(count);
        upload.writing = true;
        upload.bytes += count as u64;
        if upload.is_too_large() {
            return Err(UploadFault::Client(Reason::BodyTooLarge));
        }
        since_yield += drain(server, conduit, deadline, write_idle, seen).await?;
        upload.writing = false;
        if count < BUFFER_BYTES {
            break;
        }
        if since_yield >= YIELD_BYTES {
            since_yield = 0;
            net::yield_now().await;
        }
    }
    Ok(())
}

/// Moves to the server what a conduit holds; bytes taken.
async fn drain(
    server: &net::Stream,
    conduit: &Conduit,
    deadline: &Deadline,
    idle: Option<Duration>,
    seen: &Seen,
) -> Result<u64, UploadFault> {
    let step = async |taken: &mut u64| {
        relay::drain(
            server,
            conduit,
            deadline,
            idle.into(),
            taken,
            net::Push::Now,
        )
        .await
    };
    until_taken(seen, step).await
}

/// Writes a piece; bytes taken.
async fn write_piece(
    server: &Stream,
    [first, second]: [&[u8]; 2],
    deadline: &Deadline,
    idle: Option<Duration>,
    seen: &Seen,
) -> Result<u64, UploadFault> {
    let mut parts: [&[u8]; 3] = [first, second, &[]];
    let step = async |taken: &mut u64| {
        relay::write_all(
            server,
            &mut parts,
            deadline,
            idle.into(),
            taken,
            net::Push::Now,
        )
        .await
    };
    until_taken(seen, step).await
}

/// Repeats a step, which counts the bytes that were taken, until the server has taken all; bytes in all. One that takes
/// nothing, but whose response goes on, is not stuck.
async fn until_taken(
    seen: &Seen,
    mut step: impl AsyncFnMut(&mut u64) -> Result<(), WriteFault>,
) -> Result<u64, UploadFault> {
    let mut all = 0;
    loop {
        let judged_at = seen.bytes.get();
        let mut taken = 0;
        let ended = step(&mut taken).await;
        all += taken;
        seen.sent_up.set(seen.sent_up.get() + taken);
        match ended {
            Ok(()) => return Ok(all),
            Err(WriteFault::Gone) => return Err(UploadFault::Server),
            Err(WriteFault::TimedOut) if seen.bytes.get() == judged_at => {
                return Err(UploadFault::ServerStuck);
            }
            Err(WriteFault::TimedOut) => {}
        }
    }
}
