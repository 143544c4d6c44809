//! Hedging: a further try beside a slow one, and the first response head wins that does not say that its server failed.
//!
//! Only heads are raced for; the response itself is relayed as ever. A body that comes in pieces goes to the first server
//! alone; once that has it whole, and it is kept whole for another try, the race begins. Nothing here is touched by a
//! request without `hedge`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use balance::Quantile;
use config::{Hedge, HedgeAfter, Measured};
use control::affinity::Bond;
use control::live::Member;
use control::metrics::RetryCause;
use control::reason::Reason;
use control::tries::{RaceStep, note_tried, race_step};
use wire::http1::{Decoded, HeadLimits, Method, ResponseHead, decode_response};

use super::attempt::{self, Again, Done, Fault, Sent};
use super::exchange::{self, Cx, Unserved};
use super::log::Log;
use super::upload::Upload;
use super::{Block, retry};
use crate::buffer::Buffer;
use crate::http2;
use crate::net::{self, Deadline};
use crate::outcome;
use crate::relay;
use crate::upstream::{Lease, NoConnection, ServerStream};
use crate::watch::Watch;

/// Whether a request may have tries side by side: it may be repeated, is there whole, asks for no tunnel, and is bound to
/// no server, of which another one's answer would rob it.
pub(super) fn is_due(cx: &Cx<'_>, upload: &Upload) -> bool {
    let is_bound = || cx.plan.bond.as_ref().and_then(Bond::owner).is_some();
    cx.repeats && upload.is_done() && upload.can_replay && !cx.plan.upgrade && !is_bound()
}

/// How long the tries of a request may be waited for alone; `None`: not hedged, or nobody can tell yet.
pub(super) fn after(cx: &Cx<'_>, log: &Log) -> Option<Duration> {
    match &cx.plan.retries.hedge?.after {
        HedgeAfter::Time(time) => Some(*time),
        HedgeAfter::Measured(measured) => {
            measured.wait(with_times(cx, measured, log, Quantile::estimate)?)
        }
    }
}

/// Takes in how long a server took until its response head, where a percentile of that is hedged by.
pub(super) fn measure(cx: &Cx<'_>, took: Duration, log: &Log) {
    if let Some(Hedge {
        after: HedgeAfter::Measured(measured),
        ..
    }) = &cx.plan.retries.hedge
        && !cx.hedged.get()
    {
        let percentile = measured.percentile;
        with_times(cx, measured, log, |times| times.record(percentile, took));
    }
}

/// One was not waited for alone: it would have taken longer. The answer that the request gets tells no more.
fn note_slow(cx: &Cx<'_>, hedge: &Hedge, waited: Duration, log: &Log) {
    if let HedgeAfter::Measured(measured) = &hedge.after
        && !cx.hedged.replace(true)
    {
        let percentile = measured.percentile;
        with_times(cx, measured, log, |times| {
            times.record_longer(percentile, waited);
        });
    }
}

/// The times of the route or of the pool, as the config asks for.
fn with_times<T>(
    cx: &Cx<'_>,
    measured: &Measured,
    log: &Log,
    ask: impl FnOnce(&Quantile) -> T,
) -> Option<T> {
    if measured.of_route {
        return log.route.as_ref().map(|route| ask(&route.head_times));
    }
    Some(ask(&cx.pool.borrow().state.head_times))
}

/// Where a race of tries begins.
pub(super) enum First {
    /// With a connection, and nothing sent.
    Connected(ServerStream, Lease),
    /// With a request that a server has got whole, and not answered.
    Sent(Sent),
}

/// As [`attempt::attempt`], with further tries beside the first, each `after` the one before.
pub(super) async fn attempt(
    cx: &Cx<'_>,
    (hedge, after): (&Hedge, Duration),
    block: &mut Block,
    upload: &mut Upload,
    first: First,
    log: &mut Log,
) -> Result<Done, Fault> {
    let won = race(cx, (hedge, after), block, upload, first, log).await?;
    let buffers = &cx.conn.worker.buffers;
    buffers.give(std::mem::replace(&mut block.server_in, won.server_in));
    cx.conn.deadline.tag(won.sent.lease.member.id);
    log.member = Some(won.sent.lease.member.clone());
    attempt::receive(cx, block, upload, won.sent, log).await
}

/// A try whose response head has come.
struct Ready {
    sent: Sent,
    /// Holds the head, and whatever came with it.
    server_in: Buffer,
    status: u16,
}

/// Tries that run side by side.
struct Race<'r> {
    running: Vec<Runner<'r>>,
    /// An answer that is only good if no other one comes: its server has failed, or its status is one to retry.
    held: Option<Ready>,
    /// Fires when a further try is due, or one is given up.
    timer: Deadline,
    watch: Watch,
    /// When the next one starts beside those that run.
    next_at: Option<Duration>,
    /// How much later than the one before.
    after: Duration,
    /// How many more may.
    left: u32,
}

/// One of them.
struct Runner<'r> {
    member: Arc<Member>,
    since: Duration,
    /// What its server had answered by then.
    answers: u64,
    future: Pin<Box<dyn Future<Output = Result<Ready, Fault>> + 'r>>,
}

/// What happened in a race.
enum News {
    Ended(usize, Result<Ready, Fault>),
    /// The timer fired.
    Time,
    ClientGone,
}

async fn race(
    cx: &Cx<'_>,
    (hedge, after): (&Hedge, Duration),
    block: &mut Block,
    upload: &Upload,
    first: First,
    log: &mut Log,
) -> Result<Ready, Fault> {
    let mut tried = std::mem::take(&mut block.tried);
    let parts = attempt::parts(block, upload);
    let method = block.request.method;
    let mut race = Race {
        running: Vec::new(),
        held: None,
        timer: Deadline::new(),
        watch: Watch::default(),
        next_at: Some(net::now().saturating_add(after)),
        after,
        left: hedge.max,
    };
    match first {
        First::Connected(server, lease) => race.start(cx, parts, method, Some(server), lease),
        First::Sent(sent) => race.go_on(cx, method, sent),
    }
    let ended = loop {
        race.set_timer(cx);
        match poll_fn(|context| race.poll(context, cx)).await {
            News::ClientGone => break Err(Fault::Final(Unserved::new(Reason::ClientClosed))),
            News::Time => {
                if let Some(lease) = race.give_up_the_slow(cx, upload, &mut tried, log) {
                    race.start(cx, parts, method, None, lease);
                }
                if let Some(lease) = race.hedge(cx, hedge, upload, &mut tried, log) {
                    race.start(cx, parts, method, None, lease);
                }
            }
            News::Ended(at, ended) => {
                if let Some(ended) = race.take(cx, at, ended, &mut tried, log) {
                    break ended;
                }
            }
        }
    };
    race.end(cx, ended.is_ok(), log);
    block.tried = tried;
    ended
}

impl<'r> Race<'r> {
    fn start(
        &mut self,
        cx: &'r Cx<'r>,
        parts: [&'r [u8]; 3],
        method: Method,
        server: Option<ServerStream>,
        lease: Lease,
    ) {
        self.running.push(Runner {
            member: lease.member.clone(),
            since: net::now(),
            answers: lease.member.answers(),
            future: Box::pin(run(cx, parts, method, server, lease)),
        });
    }

    /// A try that has sent all of its request.
    fn go_on(&mut self, cx: &'r Cx<'r>, method: Method, sent: Sent) {
        let deadline = Deadline::new();
        deadline.tag(sent.lease.member.id);
        self.running.push(Runner {
            member: sent.lease.member.clone(),
            since: net::now(),
            answers: sent.lease.member.answers(),
            future: Box::pin(await_head(cx, method, sent, deadline)),
        });
    }

    fn set_timer(&self, cx: &Cx<'_>) {
        let slow_at = self.running.first().and_then(|runner| {
            let per_try = cx.plan.retries.per_try_timeout?;
            (cx.allowance.left() > 0).then(|| runner.since.saturating_add(per_try))
        });
        let due = self.next_at.filter(|_| self.left > 0);
        let at = match (due, slow_at) {
            (Some(due), Some(slow)) => Some(due.min(slow)),
            (due, slow) => due.or(slow),
        };
        self.timer.set_at(at);
    }

    fn poll(&mut self, context: &mut Context<'_>, cx: &Cx<'_>) -> Poll<News> {
        for (at, runner) in self.running.iter_mut().enumerate() {
            if let Poll::Ready(ended) = runner.future.as_mut().poll(context) {
                return Poll::Ready(News::Ended(at, ended));
            }
        }
        let gone = self
            .watch
            .poll_failed(&cx.conn.stream, &self.timer, context);
        if gone.is_ready() {
            return Poll::Ready(News::ClientGone);
        }
        self.timer.poll(context).map(|net::Elapsed| News::Time)
    }

    /// The servers that have the request now.
    fn members(&self) -> impl Iterator<Item = u32> {
        self.running.iter().map(|runner| runner.member.id)
    }

    /// A further try, when one is due and another server may be asked.
    fn hedge(
        &mut self,
        cx: &Cx<'_>,
        hedge: &Hedge,
        upload: &Upload,
        tried: &mut Vec<u32>,
        log: &mut Log,
    ) -> Option<Lease> {
        let now = net::now();
        if self.left == 0 || self.next_at.is_none_or(|at| at > now) || self.running.is_empty() {
            return None;
        }
        let Some(lease) = retry::beside(cx, upload, tried, self.members()) else {
            self.left = 0;
            return None;
        };
        self.left -= 1;
        self.next_at = Some(now.saturating_add(self.after));
        note_slow(cx, hedge, self.after, log);
        begin(cx, &lease, RetryCause::Hedge, log);
        Some(lease)
    }

    /// Another server for the oldest try, if that has taken all the time of one.
    fn give_up_the_slow(
        &mut self,
        cx: &Cx<'_>,
        upload: &Upload,
        tried: &mut Vec<u32>,
        log: &mut Log,
    ) -> Option<Lease> {
        let per_try = cx.plan.retries.per_try_timeout?;
        let oldest = self.running.first()?;
        if oldest.since.saturating_add(per_try) > net::now() {
            return None;
        }
        let Some(lease) = retry::elsewhere(cx, upload, tried, self.members(), false) else {
            // It goes on, for want of another one; those after it have their time yet.
            self.running.rotate_left(1);
            if let Some(kept) = self.running.last_mut() {
                kept.since = Duration::MAX;
            }
            return None;
        };
        let slow = self.running.remove(0);
        outcome::ended(
            &cx.conn.worker,
            &slow.member,
            Reason::FirstByteTimeout,
            false,
        );
        log.fail(&slow.member, RetryCause::PerTryTimeout);
        begin(cx, &lease, RetryCause::PerTryTimeout, log);
        Some(lease)
    }

    /// A try has ended: what the race comes to, if it is over.
    fn take(
        &mut self,
        cx: &Cx<'_>,
        at: usize,
        ended: Result<Ready, Fault>,
        tried: &mut Vec<u32>,
        log: &mut Log,
    ) -> Option<Result<Ready, Fault>> {
        let runner = self.running.remove(at);
        let alone = self.running.is_empty();
        let answer = ended.as_ref().ok();
        let failed =
            answer.map(|ready| ready.status >= 500 || cx.plan.retries.is_retried(ready.status));
        match (race_step(failed, alone, self.held.is_some()), ended) {
            (RaceStep::KeptWins, Err(fault)) => {
                note_tried(tried, runner.member.id);
                runner.fail(cx, fault, log);
                self.held.take().map(Ok)
            }
            (RaceStep::Kept, Ok(ready)) => {
                note_tried(tried, runner.member.id);
                if let Some(before) = self.held.replace(ready) {
                    before.lose(cx, log);
                }
                None
            }
            (RaceStep::GoOn, Err(fault)) => {
                note_tried(tried, runner.member.id);
                runner.fail(cx, fault, log);
                None
            }
            (_, Ok(ready)) => Some(Ok(ready)),
            (_, Err(fault)) => {
                log.member = Some(runner.member);
                Some(Err(fault))
            }
        }
    }

    /// Those that still run are given up: their connections close as they are dropped. `is_lost`: another one was faster. A
    /// server that has answered nobody meanwhile is then taken for silent, which the race would hide.
    fn end(self, cx: &Cx<'_>, is_lost: bool, log: &mut Log) {
        let now = net::now();
        for runner in &self.running {
            let took = now.saturating_sub(runner.since);
            // It would have taken longer, so that less than what is known of the server says nothing.
            if took > runner.member.cell.latency() {
                runner.member.cell.record_latency(now, took);
            }
            let member = &runner.member;
            if is_lost && took >= self.after && member.answers() == runner.answers {
                outcome::outrun(&cx.conn.worker, member);
            }
            log.fail(&runner.member, RetryCause::Hedge);
        }
        if let Some(held) = self.held {
            held.lose(cx, log);
        }
    }
}

impl Runner<'_> {
    /// It came to nothing while others run.
    fn fail(&self, cx: &Cx<'_>, fault: Fault, log: &mut Log) {
        let (worker, member) = (&cx.conn.worker, &self.member);
        match fault {
            Fault::Retry(again) => {
                again.count(worker, member);
                log.fail(member, again.cause);
            }
            Fault::Final(Unserved { reason, .. }) | Fault::Cut(reason) => {
                let reason = cx.time.judge(reason);
                outcome::ended(worker, member, reason, false);
                log.fail(
                    member,
                    match reason {
                        Reason::ServerClosed | Reason::BadResponse => RetryCause::ServerClosed,
                        Reason::ServerReset => RetryCause::ServerReset,
                        _ => RetryCause::PerTryTimeout,
                    },
                );
            }
        }
    }
}

impl Ready {
    fn lose(&self, cx: &Cx<'_>, log: &mut Log) {
        let member = &self.sent.lease.member;
        outcome::answered(&cx.conn.worker, member, self.status);
        log.fail(member, RetryCause::Status);
    }
}

/// Notes that a further try begins.
fn begin(cx: &Cx<'_>, lease: &Lease, cause: RetryCause, log: &mut Log) {
    log.pick(&lease.member);
    cx.allowance.handle_made();
    cx.pool.borrow().count_retry(cx.conn.worker.number, cause);
}

/// One try, up to its response head.
async fn run(
    cx: &Cx<'_>,
    mut parts: [&[u8]; 3],
    method: Method,
    server: Option<ServerStream>,
    lease: Lease,
) -> Result<Ready, Fault> {
    let deadline = Deadline::new();
    deadline.tag(lease.member.id);
    let server = match server {
        Some(server) => server,
        None => exchange::obtain(cx, &lease, false, None, &deadline)
            .await
            .map_err(no_connection)?,
    };
    let whole = attempt::send_parts(cx, &mut parts, &server, &deadline).await?;
    let sent = Sent {
        server,
        lease,
        at: net::now(),
        whole,
    };
    await_head(cx, method, sent, deadline).await
}

/// The rest of a try, once its request is sent.
async fn await_head(
    cx: &Cx<'_>,
    method: Method,
    sent: Sent,
    deadline: Deadline,
) -> Result<Ready, Fault> {
    deadline.set_at(relay::earliest(
        cx.config.timeouts.first_byte,
        cx.time.until,
    ));
    let mut server_in = cx.conn.worker.buffers.take();
    let head = deadline.guard(read_head(&sent.server, method, &mut server_in));
    let head = head.await;
    let (server, lease) = (&sent.server, &sent.lease);
    match head {
        Ok(Ok(status)) => Ok(Ready {
            sent,
            server_in,
            status,
        }),
        Ok(Err(HeadFault::Ended { reset })) => Err(Fault::Retry(Again::unanswered(
            reset,
            server,
            &cx.conn.worker,
            &lease.member,
        ))),
        Ok(Err(HeadFault::Http2(fault, begun))) => {
            Err(attempt::http2_fault(fault, begun, false, server))
        }
        Ok(Err(HeadFault::Broken { reset })) => Err(Fault::Final(Unserved::new(if reset {
            Reason::ServerReset
        } else {
            Reason::ServerClosed
        }))),
        Ok(Err(HeadFault::Bad(detail))) => Err(Fault::Final(Unserved {
            reason: Reason::BadResponse,
            detail,
        })),
        Err(net::Elapsed) if server.is_crashed() => {
            Err(Fault::Retry(Again::ended(true, true, server.reused)))
        }
        Err(net::Elapsed) => Err(Fault::Final(Unserved::new(
            if cx.conn.worker.cuts(&lease.member) {
                Reason::Draining
            } else {
                Reason::FirstByteTimeout
            },
        ))),
    }
}

/// A further try that found no connection leaves the race to the others; alone, it is as if nothing had been sent.
fn no_connection(fault: NoConnection) -> Fault {
    Fault::Retry(Again::not_connected(fault))
}

/// Why there is no head.
enum HeadFault {
    /// Before a byte of it.
    Ended {
        reset: bool,
    },
    /// In the middle of it.
    Broken {
        reset: bool,
    },
    Bad(String),
    /// Over HTTP/2, with a word of why; whether some of it had come.
    Http2(http2::Fault, bool),
}

/// Reads a final head, and leaves it in the buffer; its status. What comes before it is not passed on: the client
/// gets the final response of one server, and nothing of another.
async fn read_head(
    server: &ServerStream,
    method: Method,
    server_in: &mut Buffer,
) -> Result<u16, HeadFault> {
    let limits = HeadLimits::RESPONSE;
    let mut head = ResponseHead::default();
    let mut begun = false;
    loop {
        while !server_in.is_empty() {
            match decode_response(server_in.filled(), method, &limits, &mut head) {
                Ok(Decoded::Complete(())) if head.status >= 200 => return Ok(head.status),
                Ok(Decoded::Complete(())) => server_in.consume(head.len),
                Ok(Decoded::Incomplete) => break,
                Err(error) => return Err(HeadFault::Bad(error.to_string())),
            }
        }
        if server_in.room().is_empty() && !server_in.grow(limits.head_bytes + 1) {
            return Err(HeadFault::Bad("the response head is too large".to_owned()));
        }
        match relay::read_more(&server.stream, server_in).await {
            Ok(count) if count > 0 => begun = true,
            ended => {
                if let Err(error) = &ended
                    && let Some(fault) = http2::Fault::in_error(error)
                    && *fault != http2::Fault::Lost
                {
                    return Err(HeadFault::Http2(fault.clone(), begun));
                }
                let reset = ended.is_err();
                return Err(if begun {
                    HeadFault::Broken { reset }
                } else {
                    HeadFault::Ended { reset }
                });
            }
        }
    }
}
