//! The memory of one exchange: what is counted and logged when it ends, exactly once, however it ends.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use control::affinity::End;
use control::live::{Member, PoolState, RouteState};
use control::metrics::RetryCause;
use control::reason::Reason;
use control::record::{FailedTry, Record};
use wire::grpc::Code;

use super::grpc;
use crate::bounds::Counted;
use crate::net;
use crate::outcome;
use crate::worker::{Active, Worker};

/// Filled while an exchange runs; counts and records it when dropped.
pub(super) struct Log {
    worker: Rc<Worker>,
    _active: Active,
    listener: Arc<str>,
    started: Duration,
    /// The first pick, for the pool's histogram.
    picked: Option<Duration>,
    pub(super) route: Option<Arc<RouteState>>,
    pub(super) pool: Option<Arc<PoolState>>,
    pub(super) member: Option<Arc<Member>>,
    pub(super) status: u16,
    /// How a call of gRPC ended, as far as that is known.
    pub(super) grpc: Option<Code>,
    reason: Option<Reason>,
    pub(super) tries: u32,
    /// Tries that came to nothing.
    failed: Vec<FailedTry>,
    /// In the pool's queue.
    pub(super) waited: Duration,
    /// By what the client is bound, and what came of that.
    pub(super) affinity: Option<(&'static str, End)>,
    pub(super) source: Option<IpAddr>,
    bytes_in: u64,
    bytes_out: u64,
    /// Only filled when the exchange will be written to a log.
    pub(super) texts: Option<Box<Texts>>,
    silent: bool,
    /// Its place among the requests of its pool, where these are bounded.
    pub(super) counted: Option<Counted>,
}

/// What a log line shows of a request.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: String,
    pub(super) version: &'static str,
    pub(super) request_id: String,
    pub(super) user_agent: String,
    pub(super) detail: String,
}

impl Log {
    pub(super) fn begin(worker: &Rc<Worker>, listener: &Arc<str>) -> Self {
        Self {
            worker: worker.clone(),
            _active: Active::new(worker),
            listener: listener.clone(),
            started: net::now(),
            picked: None,
            route: None,
            pool: None,
            member: None,
            status: 0,
            grpc: None,
            reason: None,
            tries: 0,
            failed: Vec::new(),
            waited: Duration::ZERO,
            affinity: None,
            source: None,
            bytes_in: 0,
            bytes_out: 0,
            texts: None,
            silent: false,
            counted: None,
        }
    }

    /// Notes that a server was picked.
    pub(super) fn pick(&mut self, member: &Arc<Member>) {
        self.tries += 1;
        if self.picked.is_none() {
            self.picked = Some(net::now());
        }
        self.member = Some(member.clone());
    }

    /// Counts that the last server gave no whole answer, for this reason.
    pub(super) fn count_end(&self, reason: Reason) {
        // Nothing was sent.
        if reason == Reason::Overloaded {
            return;
        }
        if let Some(member) = &self.member {
            outcome::ended(&self.worker, member, reason, false);
        }
    }

    /// Notes that a try came to nothing, and another one follows or runs beside it.
    pub(super) fn fail(&mut self, member: &Member, cause: RetryCause) {
        if self.worker.logs() {
            self.failed.push(self.worker.failed_try(member, cause));
        }
    }

    /// Notes why the exchange ended as it did; the first reason stays.
    pub(super) fn note(&mut self, reason: Reason) {
        if self.reason.is_none() {
            self.reason = Some(reason);
            self.worker.count_error(reason);
            if reason.status() >= 500
                && let Some(pool) = &self.pool
            {
                pool.stats.of(self.worker.number).failed.increment();
            }
        }
    }

    /// Ends an exchange that got no answer. Without a head there is nothing to log.
    pub(super) fn finish_unanswered(&mut self, reason: Reason) {
        self.note(reason);
        self.silent = self.texts.is_none() && self.route.is_none();
        self.status = if reason == Reason::ClientClosed {
            499
        } else {
            0
        };
    }

    /// There was no request.
    pub(super) fn forget(&mut self) {
        self.silent = true;
    }

    pub(super) fn add_bytes(&mut self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
    }

    pub(super) fn texts(&mut self) -> &mut Texts {
        self.texts.get_or_insert_default()
    }

    fn record(&mut self, took: Duration) {
        let texts = *self.texts.take().unwrap_or_default();
        let server = self
            .member
            .as_ref()
            .map(|member| (member.pool.clone(), member.name.clone()));
        self.worker.record(Record {
            wall: self.worker.wall().saturating_sub(took),
            took,
            listener: self.listener.clone(),
            route: self.route.as_ref().map(|route| route.name.clone()),
            server,
            source: self.source,
            method: texts.method,
            target: texts.target,
            host: texts.host,
            version: texts.version,
            status: self.status,
            grpc: self.grpc,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            reason: self.reason,
            tries: self.tries,
            failed: std::mem::take(&mut self.failed),
            waited: self.waited,
            affinity: self.affinity,
            request_id: texts.request_id,
            user_agent: texts.user_agent,
            detail: texts.detail,
        });
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.silent {
            return;
        }
        // Dropped by a panic: nobody has said how it ended.
        if self.status == 0 && self.reason.is_none() && std::thread::panicking() {
            self.note(Reason::Internal);
        }
        let now = net::now();
        let took = now.saturating_sub(self.started);
        let worker = self.worker.number;
        if let Some(route) = &self.route {
            let cells = route.stats.of(worker);
            cells.classes.record(grpc::status(self.status, self.grpc));
            cells.seconds.record(took);
        }
        if let Some((_, end)) = self.affinity
            && let Some(pool) = &self.pool
            && let Some(counter) = pool.stats.of(worker).affinity.get(end as usize)
        {
            counter.increment();
        }
        if let Some(pool) = &self.pool {
            let cells = pool.stats.of(worker);
            match self.picked {
                Some(picked) => cells.seconds.record(now.saturating_sub(picked)),
                None => cells.unserved.increment(),
            }
        }
        let made_here = self
            .reason
            .is_some_and(|reason| !matches!(reason, Reason::Filter | Reason::AcmeChallenge));
        if self.texts.is_some() || made_here {
            self.record(took);
        }
    }
}
