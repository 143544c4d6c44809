//! Moving bytes: whole writes, message bodies by their framing, and tunnels.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::slice::from_ref;
use std::task::{Context, Poll};
use std::time::Duration;

use control::memory::Level;
use wire::http1::{Body, ChunkError, ChunkedDecoder, Keep, encode, trailer_fields};

use crate::buffer::{BUFFER_BYTES, Borrowed, Buffer, Buffers};
use crate::memory;
use crate::net::{self, Conduit, Deadline, Push, Taken};
use crate::stream::Stream;
use crate::watch::Watch;

/// Bytes after which a connection lets others run.
pub(crate) const YIELD_BYTES: u64 = 256 * 1024;

/// Writes up to this many bytes wait until every ready task has had its turn, so that a batch of events is read first and
/// written then: the kernel's code for each half stays in cache, and who reads at the other end is woken less often.
/// Larger ones go out at once, while their bytes are in cache.
const STAGED_MAX: usize = 8 * 1024;

/// How long bytes are left where they are while there is no memory to read them into.
const STARVED_WAIT: Duration = Duration::from_millis(20);
/// What the other side may still send once it has acknowledged our last word, and for how long, before the connection is
/// closed on it.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(2);
/// How long it may take to acknowledge that, while it goes on doing so.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// How long a stream of a carried connection that is still being sent to stays after its answer, before it is reset. The
/// two are apart then: some clients (curl 7.88) that read both at once take the reset for the end of a stream without an
/// answer.
const CARRIED_LINGER: Duration = Duration::from_millis(250);

/// What must be left of a body for a conduit to carry it, bytes.
const CONDUIT_MIN: u64 = 128 * 1024;

/// Why a write did not end.
#[derive(Debug)]
pub(crate) enum WriteFault {
    /// The other side takes nothing for too long.
    TimedOut,
    /// The connection is gone.
    Gone,
}

/// How often it is asked what the other side has taken, for each time that it may take nothing.
const LOOKS: u32 = 4;

/// How long a write waits for the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While nothing is taken, not even of what the kernel holds.
    pub(crate) idle: Option<Duration>,
    /// When it must have ended, on [`net::now`]'s clock.
    pub(crate) until: Option<Duration>,
}

impl Patience {
    /// Waits for `step` while the other side takes something, which `taken` says.
    async fn wait<T>(
        self,
        deadline: &Deadline,
        taken: impl Fn() -> Taken,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, net::Elapsed> {
        let mut since = net::now();
        let look = self.idle.map(|idle| idle / LOOKS);
        let mut before: Option<Taken> = None;
        self.set(deadline);
        loop {
            let waited = deadline.guard(poll_fn(|cx| {
                let stepped = step(cx);
                if stepped.is_pending() && before.is_none() {
                    before = Some(taken());
                    deadline.set_at(earliest(look, self.until));
                }
                stepped
            }));
            let waited = waited.await;
            if waited.is_ok() {
                // Whoever waits next within what is left gets no less for it.
                self.set(deadline);
                return waited;
            }
            let now = net::now();
            if before.as_mut().is_some_and(|it| it.has_grown(taken())) {
                since = now;
            }
            let is_idle = self
                .idle
                .is_some_and(|idle| since.saturating_add(idle) <= now);
            // One that was made to fire stays over.
            deadline.set_at(self.until);
            if is_idle || deadline.is_over() {
                return waited;
            }
            deadline.set_at(earliest(look, self.until));
        }
    }

    fn set(self, deadline: &Deadline) {
        deadline.set_at(earliest(self.idle, self.until));
    }
}

impl From<Option<Duration>> for Patience {
    fn from(idle: Option<Duration>) -> Self {
        Self { idle, until: None }
    }
}

/// `after` from now, or `until`, whichever comes first.
pub(crate) fn earliest(after: Option<Duration>, until: Option<Duration>) -> Option<Duration> {
    let at = after.map(|after| net::now().saturating_add(after));
    match (at, until) {
        (Some(at), Some(until)) => Some(at.min(until)),
        (at, until) => at.or(until),
    }
}

/// Whether so many bytes are few enough for a connection to take them at once, if nothing is on its way over it.
pub(crate) fn is_small(stream: &Stream, size: usize) -> bool {
    // A carried stream's connection gathers what its streams write.
    size <= STAGED_MAX && !stream.is_carried()
}

/// Bytes of all parts.
pub(crate) fn size_of(parts: &[&[u8]; 3]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Writes all parts. `taken` counts what the kernel took, however it ends; where it fails, `parts` is what is left.
pub(crate) async fn write_all(
    stream: &Stream,
    parts: &mut [&[u8]; 3],
    deadline: &Deadline,
    patience: Patience,
    taken: &mut u64,
    push: Push,
) -> Result<(), WriteFault> {
    let mut size = size_of(parts);
    if is_small(stream, size) {
        net::after_ready().await;
    }
    while size > 0 {
        let all = parts.map(IoSlice::new);
        let written = match stream.try_write(in_pieces(&all), push) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Boxed, so that who need not wait does not carry its state.
                match Box::pin(write_later(stream, *parts, deadline, patience, push)).await {
                    Err(net::Elapsed) => return Err(WriteFault::TimedOut),
                    Ok(Err(_)) => return Err(WriteFault::Gone),
                    Ok(Ok(written)) => written,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Err(WriteFault::Gone),
        };
        *taken += written as u64;
        size = size.saturating_sub(written);
        if size == 0 {
            break;
        }
        let mut left = written;
        for part in &mut *parts {
            let used = left.min(part.len());
            *part = part.get(used..).unwrap_or_default();
            left -= used;
        }
    }
    Ok(())
}

/// What there is of `all`: one piece takes the kernel less than a list of them.
fn in_pieces<'a, 'b>(all: &'a [IoSlice<'b>; 3]) -> &'a [IoSlice<'b>] {
    match all {
        [one, second, third] if second.is_empty() && third.is_empty() => from_ref(one),
        [first, one, third] if first.is_empty() && third.is_empty() => from_ref(one),
        // Who encrypts asks which piece is the last.
        [pieces @ .., third] if third.is_empty() => pieces,
        all => all,
    }
}

/// Writes a first piece of `parts` once there is room for it.
async fn write_later(
    stream: &Stream,
    parts: [&[u8]; 3],
    deadline: &Deadline,
    patience: Patience,
    push: Push,
) -> Result<io::Result<usize>, net::Elapsed> {
    let all = parts.map(IoSlice::new);
    let write = |cx: &mut Context<'_>| stream.poll_write(cx, in_pieces(&all), push);
    patience.wait(deadline, || stream.taken(), write).await
}

/// How far a body has been relayed.
pub(crate) enum Framing {
    /// All of it.
    Done,
    /// Bytes that are missing.
    Length(u64),
    /// Chunks.
    Chunked(ChunkedDecoder, Keep),
    /// Until the sender closes.
    UntilClose,
}

/// What one look at the bytes gave.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Piece {
    /// Bytes at the front that go on.
    pub(crate) kept: usize,
    /// How many of these are the body's own, chunk framing aside.
    pub(crate) data: usize,
    /// Bytes at the front that are used up.
    pub(crate) consumed: usize,
}

impl Framing {
    pub(crate) fn new(body: Body, keep: Keep) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Done,
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(ChunkedDecoder::default(), keep),
            Body::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes that are missing and need no look at them.
    pub(crate) fn unseen(&self) -> Option<u64> {
        match self {
            Self::Length(missing) => Some(*missing),
            Self::UntilClose => Some(u64::MAX),
            _ => None,
        }
    }

    /// Whether so much is missing that a conduit is worth its system calls.
    pub(crate) fn is_bulk(&self) -> bool {
        self.unseen().is_some_and(|unseen| unseen >= CONDUIT_MIN)
    }

    /// Takes in that `count` of those bytes went by.
    pub(crate) fn pass(&mut self, count: usize) {
        if let Self::Length(missing) = self {
            *missing = missing.saturating_sub(count as u64);
            if *missing == 0 {
                *self = Self::Done;
            }
        }
    }

    /// Judges what has come and says what of it goes on. At the end of a chunked body that stays chunked, the last
    /// chunk and the trailers are written to `tail`.
    pub(crate) fn take(
        &mut self,
        bytes: &mut [u8],
        tail: &mut Vec<u8>,
    ) -> Result<Piece, ChunkError> {
        match self {
            Self::Done => Ok(Piece::default()),
            Self::UntilClose => Ok(Piece {
                kept: bytes.len(),
                data: bytes.len(),
                consumed: bytes.len(),
            }),
            Self::Length(missing) => {
                let count = usize::try_from(*missing)
                    .map_or(bytes.len(), |missing| missing.min(bytes.len()));
                *missing -= count as u64;
                if *missing == 0 {
                    *self = Self::Done;
                }
                Ok(Piece {
                    kept: count,
                    data: count,
                    consumed: count,
                })
            }
            Self::Chunked(decoder, keep) => {
                let progress = decoder.decode(bytes, *keep)?;
                if progress.end {
                    if *keep == Keep::Framing {
                        encode_tail(
                            progress
                                .trailers
                                .and_then(|range| bytes.get(range))
                                .unwrap_or_default(),
                            tail,
                        );
                    }
                    *self = Self::Done;
                }
                Ok(Piece {
                    kept: progress.kept,
                    data: progress.data,
                    consumed: progress.consumed,
                })
            }
        }
    }
}

fn encode_tail(trailers: &[u8], tail: &mut Vec<u8>) {
    tail.extend_from_slice(encode::LAST_CHUNK);
    for (name, value) in trailer_fields(trailers) {
        encode::field(tail, name, value);
    }
    tail.extend_from_slice(encode::CRLF);
}

/// Reads into `buffer`; 0 at the end.
pub(crate) async fn read_more(stream: &Stream, buffer: &mut Buffer) -> io::Result<usize> {
    let count = stream.read(buffer.room()).await?;
    buffer.added(count);
    Ok(count)
}

/// Ends our half, then throws away what the other side still sends, so that a reset does not destroy our last word: at
/// least until its kernel has acknowledged that (RFC 9112 §9.6).
pub(crate) async fn linger(stream: &Stream, deadline: &Deadline, buffers: &Buffers) {
    if stream.shutdown_write().is_err() {
        return;
    }
    deadline.tag(0);
    deadline.set(Some(LINGER));
    let until = net::now().saturating_add(LINGER_MAX);
    let mut left = LINGER_BYTES;
    let mut behind = stream.unacknowledged();
    loop {
        if left == 0 && stream.is_carried() {
            // Read on, the rest would come as fast as the client can send; unread, it fills the stream's window, for which
            // there must be memory. It may leave before this is over, or not.
            if memory::level() == Level::Calm {
                deadline.set(Some(CARRIED_LINGER));
                let _ = deadline.guard(poll_fn(|cx| stream.poll_hung_up(cx))).await;
            }
            break;
        }
        let readable = deadline.guard(stream.readable()).await;
        if matches!(readable, Ok(Err(_))) {
            break;
        }
        if left == 0 || readable.is_err() {
            // Who sends at full speed never waits.
            net::yield_now().await;
            let before = std::mem::replace(&mut behind, stream.unacknowledged());
            let goes_on = behind < before;
            if behind == 0 || !goes_on && deadline.is_over() || until <= net::now() {
                break;
            }
            if goes_on {
                deadline.set(Some(LINGER));
            }
            left = LINGER_BYTES;
            continue;
        }
        // Held only while something is there to be read.
        let mut buffer = buffers.take();
        let read = stream.try_read(buffer.room());
        buffers.give(buffer);
        match read {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
}

/// Moves all that a conduit holds to `to`. `taken` counts what the kernel took, however it ends.
pub(crate) async fn drain(
    to: &net::Stream,
    conduit: &Conduit,
    deadline: &Deadline,
    patience: Patience,
    taken: &mut u64,
    push: Push,
) -> Result<(), WriteFault> {
    while !conduit.is_empty() {
        let drained = patience.wait(
            deadline,
            || to.taken(),
            |cx| to.poll_drain(cx, conduit, push),
        );
        match drained.await {
            Err(net::Elapsed) => return Err(WriteFault::TimedOut),
            Ok(Err(_)) => return Err(WriteFault::Gone),
            Ok(Ok(count)) => *taken += count as u64,
        }
    }
    Ok(())
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TunnelEnd {
    /// Both sides said all they had to say.
    Finished,
    /// Silence for too long.
    Idle,
    /// The client's connection failed.
    ClientFailed,
    /// The server's connection failed.
    ServerFailed,
}

/// Times of a tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TunnelTimes {
    /// Silence in both directions.
    pub(crate) idle: Option<Duration>,
    /// Silence after one side has ended.
    pub(crate) half_closed: Option<Duration>,
    /// Silence after the server has ended, where that is the end of the tunnel: it waits to be closed on, and the client may
    /// not think of it. `None`: it is like any side.
    pub(crate) after_server: Option<Duration>,
}

impl TunnelTimes {
    /// How long both may be silent now.
    fn of(&self, up: &Pipe<'_>, down: &Pipe<'_>) -> Option<Duration> {
        match self.after_server {
            Some(after) if down.done => Some(after),
            _ if up.done || down.done => self.half_closed,
            _ => self.idle,
        }
    }
}

/// One direction of a tunnel.
struct Pipe<'a> {
    from: &'a Stream,
    to: &'a Stream,
    buffer: Buffer,
    /// Both sides as sockets, where the bytes pass unchanged.
    sockets: Option<(&'a net::Stream, &'a net::Stream)>,
    /// What comes fills the buffer as fast as it is emptied: conduits carry it, while there are any.
    bulk: bool,
    /// Holds what the receiver has not taken yet.
    conduit: Option<Borrowed<'a>>,
    read_end: bool,
    done: bool,
    bytes: u64,
}

enum Step {
    /// It may go on at once.
    Moved,
    /// Nothing was moved; it is woken when it can be.
    Blocked,
    /// Something was moved; it is woken when more can be.
    Drained,
    /// Something was read, to be written when this task runs again.
    Staged,
    /// There is something to be read, and no memory to read it into.
    Starved,
    FromFailed,
    ToFailed,
}

impl Step {
    fn waiting(moved: bool) -> Self {
        if moved { Step::Drained } else { Step::Blocked }
    }
}

impl<'a> Pipe<'a> {
    fn new(from: &'a Stream, to: &'a Stream, first: Buffer) -> Self {
        Self {
            from,
            to,
            buffer: first,
            sockets: from.plain().zip(to.plain()),
            bulk: false,
            conduit: None,
            read_end: false,
            done: false,
            bytes: 0,
        }
    }

    /// Whether bytes were read that the receiver has not taken yet.
    fn holds(&self) -> bool {
        !self.buffer.is_empty() || self.conduit.is_some()
    }

    /// Moves what can be moved now.
    fn step(&mut self, cx: &mut Context<'_>, buffers: &'a Buffers) -> Step {
        let mut moved = false;
        let enough = self.bytes.saturating_add(YIELD_BYTES);
        loop {
            if self.bytes >= enough {
                return Step::Moved;
            }
            if self.bulk || self.conduit.is_some() {
                match self.splice(cx, buffers, &mut moved) {
                    Some(step) => return step,
                    None => continue,
                }
            }
            if !self.buffer.is_empty() {
                match self
                    .to
                    .poll_write(cx, &[IoSlice::new(self.buffer.filled())], Push::Now)
                {
                    Poll::Pending => return Step::waiting(moved),
                    Poll::Ready(Err(_)) => return Step::ToFailed,
                    Poll::Ready(Ok(count)) => {
                        self.bytes += count as u64;
                        self.buffer.consume(count);
                        moved = true;
                        continue;
                    }
                }
            }
            if self.done {
                return Step::waiting(moved);
            }
            if self.read_end {
                let _ = self.to.shutdown_write();
                self.done = true;
                buffers.give(std::mem::take(&mut self.buffer));
                return Step::Moved;
            }
            match self.from.poll_readable(cx) {
                Poll::Ready(Err(_)) => return Step::FromFailed,
                Poll::Pending => {
                    // Nothing is held while nothing comes.
                    if self.buffer.is_allocated() {
                        buffers.give(std::mem::take(&mut self.buffer));
                    }
                    return Step::waiting(moved);
                }
                Poll::Ready(Ok(())) => {}
            }
            if self.buffer.room().is_empty() {
                let Some(buffer) = buffers.take_if_any() else {
                    return if moved { Step::Moved } else { Step::Starved };
                };
                self.buffer = buffer;
            }
            if self.buffer.is_in_bulk()
                && self.sockets.is_some()
                && let Some(conduit) = buffers.conduit()
            {
                self.bulk = true;
                self.conduit = Some(conduit);
                buffers.give(std::mem::take(&mut self.buffer));
                continue;
            }
            buffers.widen(&mut self.buffer);
            match self.from.try_read(self.buffer.room()) {
                Ok(0) => self.read_end = true,
                Ok(count) => {
                    self.buffer.added(count);
                    if count <= STAGED_MAX && net::goes_behind(cx) {
                        return Step::Staged;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::FromFailed,
            }
        }
    }
}

impl<'a> Pipe<'a> {
    /// Moves by conduit what can be moved now; `None`: the rest by buffers.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &'a Buffers,
        moved: &mut bool,
    ) -> Option<Step> {
        let (from, to) = self.sockets?;
        let enough = self.bytes.saturating_add(YIELD_BYTES);
        loop {
            let Some(conduit) = self.conduit.take().or_else(|| buffers.conduit()) else {
                self.bulk = false;
                return None;
            };
            if conduit.is_empty() {
                if !self.bulk {
                    return None;
                }
                if self.bytes >= enough {
                    return Some(Step::Moved);
                }
                match from.poll_fill(cx, &conduit, usize::MAX) {
                    // The conduit goes back: nothing is held while nothing comes.
                    Poll::Pending => return Some(Step::waiting(*moved)),
                    Poll::Ready(Err(_)) => return Some(Step::FromFailed),
                    Poll::Ready(Ok(0)) => {
                        self.read_end = true;
                        self.bulk = false;
                        return None;
                    }
                    Poll::Ready(Ok(count)) => self.bulk = count >= BUFFER_BYTES,
                }
            }
            match to.poll_drain(cx, &conduit, Push::Now) {
                Poll::Pending => {
                    self.conduit = Some(conduit);
                    return Some(Step::waiting(*moved));
                }
                Poll::Ready(Err(_)) => return Some(Step::ToFailed),
                Poll::Ready(Ok(count)) => {
                    self.bytes += count as u64;
                    *moved = true;
                    self.conduit = Some(conduit);
                }
            }
        }
    }
}

/// Copies bytes both ways until both sides have ended. `first_up` and `first_down` were read already.
pub(crate) async fn tunnel(
    client: &Stream,
    server: &Stream,
    first: (Buffer, Buffer),
    times: TunnelTimes,
    deadline: &Deadline,
    buffers: &Buffers,
) -> (TunnelEnd, u64, u64) {
    let mut up = Pipe::new(client, server, first.0);
    let mut down = Pipe::new(server, client, first.1);
    // Bytes that had been carried when others last ran.
    let mut rested_at = 0;
    let watch = Watch::default();
    deadline.set(times.idle);
    let end = loop {
        let mut starved = false;
        let stepped = poll_fn(|cx| {
            let a = up.step(cx, buffers);
            if let Step::Staged = a {
                return Poll::Pending;
            }
            let b = down.step(cx, buffers);
            match (a, b) {
                (Step::FromFailed, _) | (_, Step::ToFailed) => {
                    return Poll::Ready(Some(TunnelEnd::ClientFailed));
                }
                (Step::ToFailed, _) | (_, Step::FromFailed) => {
                    return Poll::Ready(Some(TunnelEnd::ServerFailed));
                }
                (Step::Starved, Step::Blocked | Step::Starved) | (Step::Blocked, Step::Starved) => {
                    starved = true;
                    return Poll::Ready(None);
                }
                (Step::Moved | Step::Starved, _) | (_, Step::Moved | Step::Starved) => {
                    return Poll::Ready(None);
                }
                (Step::Blocked, Step::Blocked) => {}
                (_, Step::Staged) => return Poll::Pending,
                (Step::Drained | Step::Blocked | Step::Staged, Step::Drained | Step::Blocked) => {
                    deadline.set(times.of(&up, &down));
                }
            }
            rested_at = up.bytes + down.bytes;
            // Who waits for the server does not read the client; once both were told the end, that is no failure.
            if up.holds() && !down.done && watch.poll_failed(client, deadline, cx).is_ready() {
                return Poll::Ready(Some(TunnelEnd::ClientFailed));
            }
            deadline
                .poll(cx)
                .map(|_: net::Elapsed| Some(TunnelEnd::Idle))
        })
        .await;
        if let Some(end) = stepped {
            break end;
        }
        if up.done && down.done {
            break TunnelEnd::Finished;
        }
        if starved {
            // Cold: boxed, so that other tunnels do not carry its state.
            Box::pin(net::sleep(STARVED_WAIT)).await;
            continue;
        }
        deadline.set(times.of(&up, &down));
        if up.bytes + down.bytes - rested_at >= YIELD_BYTES {
            rested_at = up.bytes + down.bytes;
            net::yield_now().await;
            // One that never waits for either side learns here that it is to end.
            if deadline.is_over() {
                break TunnelEnd::Idle;
            }
        }
    };
    buffers.give(std::mem::take(&mut up.buffer));
    buffers.give(std::mem::take(&mut down.buffer));
    let is_over = down.done && times.after_server.is_some();
    let end = match end {
        TunnelEnd::Idle if is_over => TunnelEnd::Finished,
        end => end,
    };
    (end, up.bytes, down.bytes)
}
