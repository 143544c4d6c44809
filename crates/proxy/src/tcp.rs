//! TCP: bytes from a client to a server of a pool and back.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use config::{
    Affinity, AffinityKind, Arm, Destination, HashKey, Pool, Protocol, Target, TcpListener,
};
use control::affinity::{Bond, End, Share, Tie, source_key};
use control::decide;
use control::live::Member;
use control::metrics::Overflow;
use control::pick::LocalPool;
use control::reason::Reason;
use control::record::{FailedTry, Record};
use control::tries::over;

use crate::bounds::Counted;
use crate::buffer::Buffer;
use crate::listener::Listening;
use crate::net::{self, Deadline};
use crate::outcome;
use crate::queue;
use crate::relay::{self, TunnelEnd, TunnelTimes};
use crate::source;
use crate::stream::Stream;
use crate::tls;
use crate::upstream::{self, Lease, NoConnection, ServerStream};
use crate::watch::unless_gone;
use crate::worker::{Active, LocalWorld, Worker};

/// TCP keep-alive probes go out after this long without a byte.
const KEEP_ALIVE_PROBES: Duration = Duration::from_secs(60);

/// What a connection needs of its config once it stands: no more, so that a long one keeps no old config alive.
struct Connected {
    server: ServerStream,
    lease: Lease,
    times: TunnelTimes,
    /// Its place among the connections of its pool, where these are bounded.
    counted: Option<Counted>,
}

impl Connected {
    fn new(
        server: ServerStream,
        lease: Lease,
        tcp: &TcpListener,
        counted: Option<Counted>,
    ) -> Self {
        let times = TunnelTimes {
            idle: tcp.idle,
            half_closed: tcp.half_closed,
            after_server: None,
        };
        Self {
            server,
            lease,
            times,
            counted,
        }
    }
}

/// The servers that were tried for one connection.
#[derive(Default)]
struct Tries {
    count: u32,
    /// In the pool's queue.
    waited: Duration,
    /// Why none of the pool's could be used; empty when one was.
    detail: String,
    /// The client was listened to before a server was picked.
    hears: bool,
    /// Those that came to nothing.
    failed: Vec<FailedTry>,
    /// The last of them, until another one is made.
    again: Option<FailedTry>,
    /// By what the client is bound, and what came of that.
    affinity: Option<(&'static str, End)>,
}

/// Serves one connection.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    client: Stream,
    peer: Option<SocketAddr>,
) {
    let active = Active::new(&worker);
    let started = net::clock();
    let deadline = Deadline::new();
    let source = peer.map(|peer| peer.ip().to_canonical());
    let mut tries = Tries::default();
    let from = From {
        client: &client,
        source,
        deadline: &deadline,
    };
    let mut first = Buffer::default();
    let connected = connect(&worker, &listening, &from, &mut tries, &mut first).await;
    let (reason, server, bytes) = match connected {
        Err(reason) => {
            worker.count_error(reason);
            worker.buffers.give(first);
            if tries.hears {
                Box::pin(tls::refuse(&client, reason, &deadline, &worker.buffers)).await;
            } else {
                client.reset_on_close();
            }
            (Some(reason), None, (0, 0))
        }
        Ok(Connected {
            server,
            lease,
            times,
            counted: _counted,
        }) => {
            client.keep_alive_probes(KEEP_ALIVE_PROBES);
            server.stream.keep_alive_probes(KEEP_ALIVE_PROBES);
            deadline.tag(lease.member.id);
            let first = (first, Buffer::default());
            let (end, up, down) = relay::tunnel(
                &client,
                &server.stream,
                first,
                times,
                &deadline,
                &worker.buffers,
            )
            .await;
            let reason = judge(&worker, end, &lease, &client, &server.stream);
            outcome::tunnelled(&worker, &lease.member, reason, (up, down));
            (
                reason,
                Some((lease.member.pool.clone(), lease.member.name.clone())),
                (up, down),
            )
        }
    };
    let cells = listening.state.stats.of(worker.number);
    cells.bytes_in.add(bytes.0);
    cells.bytes_out.add(bytes.1);
    drop(active);
    if worker.logs() {
        worker.record(Record {
            wall: worker.wall(),
            took: net::clock().saturating_sub(started),
            listener: listening.name.clone(),
            route: None,
            server,
            source,
            method: String::new(),
            target: String::new(),
            host: String::new(),
            version: "TCP",
            status: 0,
            grpc: None,
            bytes_in: bytes.0,
            bytes_out: bytes.1,
            reason,
            tries: tries.count,
            failed: tries.failed,
            waited: tries.waited,
            affinity: tries.affinity,
            request_id: String::new(),
            user_agent: String::new(),
            detail: tries.detail,
        });
    }
}

/// Says why a connection ended, and passes a failure of one side on to the other as a reset.
fn judge(
    worker: &Worker,
    end: TunnelEnd,
    lease: &Lease,
    client: &Stream,
    server: &Stream,
) -> Option<Reason> {
    match end {
        TunnelEnd::Finished => None,
        TunnelEnd::Idle => {
            client.reset_on_close();
            server.reset_on_close();
            Some(if lease.member.is_crashed() {
                Reason::ServerReset
            } else if worker.cuts(&lease.member) {
                Reason::Draining
            } else {
                Reason::ResponseTimeout
            })
        }
        TunnelEnd::ClientFailed => {
            server.reset_on_close();
            Some(Reason::ClientClosed)
        }
        TunnelEnd::ServerFailed => {
            client.reset_on_close();
            Some(Reason::ServerReset)
        }
    }
}

/// Who is to be connected.
struct From<'a> {
    client: &'a Stream,
    source: Option<IpAddr>,
    deadline: &'a Deadline,
}

impl<'a> From<'a> {
    fn waiter(&self, worker: &'a Worker, priority: u8, tried: &'a [u32]) -> queue::Waiter<'a> {
        queue::Waiter {
            worker,
            client: self.client,
            deadline: self.deadline,
            until: None,
            priority,
            tried,
            may_half_close: true,
        }
    }
}

async fn connect(
    worker: &Rc<Worker>,
    listening: &Listening,
    from: &From<'_>,
    tries: &mut Tries,
    first: &mut Buffer,
) -> Result<Connected, Reason> {
    let (world, index) = listening.place(worker);
    let listener = world
        .world
        .snapshot
        .listeners
        .get(index)
        .ok_or(Reason::Internal)?;
    let Protocol::Tcp(tcp) = &listener.protocol else {
        return Err(Reason::Internal);
    };
    let target = match tcp.routes.is_empty() {
        true => &tcp.target,
        false => Box::pin(hear(worker, from, tcp, listener.handshake, tries, first)).await?,
    };
    let to = destination(worker, &world, target, from.source)?;
    let config = world
        .world
        .snapshot
        .pools
        .get(to.pool)
        .ok_or(Reason::Internal)?;
    let pool = world.pool(to).ok_or(Reason::Internal)?;
    let asking = Asking::new(worker, pool, config, from.source, tcp.priority);
    let mut counted = count_in(worker, config, pool)?;
    let mut tried = Vec::new();
    let mut timeouts_left = config.retries.attempts;
    let mut last = None;
    loop {
        let lease = match asking.lease(from, &mut tried, tries).await {
            Ok(lease) => lease,
            Err(reason) => {
                let told = over(last, reason);
                if told == reason {
                    tries.failed.extend(tries.again.take());
                }
                let reason = told;
                if reason == Reason::AffinityServerUnavailable {
                    asking.settle(None, tries);
                }
                count_failed(worker, pool, reason);
                tries.detail = upstream::explain_unusable(worker, pool, &tried);
                return Err(reason);
            }
        };
        tries.count += 1;
        let until = config
            .timeouts
            .connect
            .map(|connect| net::now().saturating_add(connect));
        let connecting = upstream::connect(
            worker,
            &lease.member,
            until,
            from.deadline,
            world.tls.of_pool(to.pool),
            false,
        );
        let connected = unless_gone(from.client, from.deadline, pin!(connecting)).await;
        let (reason, cause) = match connected {
            None => {
                outcome::ended(worker, &lease.member, Reason::ClientClosed, false);
                count_failed(worker, pool, Reason::ClientClosed);
                return Err(Reason::ClientClosed);
            }
            Some(Ok(server)) => {
                outcome::serves(worker, &lease.member);
                asking.settle(Some(&lease.member), tries);
                return Ok(Connected::new(server, lease, tcp, counted.take()));
            }
            Some(Err(why)) => {
                if let (Some((_, bond)), NoConnection::Refused) = (&asking.bond, why) {
                    bond.note_refused(lease.member.id);
                }
                outcome::not_connected(worker, &lease.member, why);
                why.reason()
            }
        };
        last = Some(reason);
        tried.push(lease.member.id);
        if reason == Reason::ConnectTimeout {
            let Some(left) = timeouts_left.checked_sub(1) else {
                count_failed(worker, pool, reason);
                tries.detail = upstream::explain_unusable(worker, pool, &tried);
                return Err(reason);
            };
            timeouts_left = left;
        }
        tries.again = cause.map(|cause| worker.failed_try(&lease.member, cause));
    }
}

/// The hash of what binds a client to a server, where that is something that connections have.
fn key_of(affinity: &Affinity, source: IpAddr) -> Option<u64> {
    match &affinity.kind {
        AffinityKind::Hash(HashKey::Source) => Some(decide::source_key(source)),
        kind => Some(source_key(source, kind.source_prefix()?)),
    }
}

/// What was learnt of a client, where the pool learns.
fn learnt_bond(pool: &RefCell<LocalPool>, source: IpAddr) -> Option<Bond> {
    let mut pool = pool.borrow_mut();
    pool.refresh();
    let learnt = pool.view.learnt.as_ref()?;
    Some(learnt.bond_of_source(source, net::now()))
}

/// A connection that is to have a server of a pool.
struct Asking<'a> {
    worker: &'a Worker,
    pool: &'a RefCell<LocalPool>,
    config: &'a Pool,
    /// What hashing algorithms hash.
    key: Option<u64>,
    /// What binds its client to a server.
    bond: Option<(&'a Affinity, Bond)>,
    priority: u8,
}

impl<'a> Asking<'a> {
    fn new(
        worker: &'a Worker,
        pool: &'a RefCell<LocalPool>,
        config: &'a Pool,
        source: Option<IpAddr>,
        priority: u8,
    ) -> Self {
        let affinity = config.affinity.as_ref().zip(source);
        let bond = affinity.and_then(|(affinity, source)| {
            source::count(worker, affinity, pool, source);
            let bond = match &affinity.kind {
                AffinityKind::Learnt(_) => learnt_bond(pool, source)?,
                _ => Bond::to(Tie::Key(key_of(affinity, source)?)),
            };
            Some((affinity, bond))
        });
        let key = match (&config.balance.key, source) {
            (HashKey::Source, Some(source)) => Some(decide::source_key(source)),
            _ => None,
        };
        Self {
            worker,
            pool,
            config,
            key,
            bond,
            priority,
        }
    }

    fn pick(&self, tried: &mut Vec<u32>) -> Result<Lease, Reason> {
        let (mut pool, key) = (self.pool.borrow_mut(), self.key);
        match &self.bond {
            Some((affinity, bond)) => pool.pick_bound(affinity, bond, key, tried, net::now()),
            None => pool.pick(key, tried, net::now()),
        }
    }

    /// A slot of a server other than those in `tried`.
    async fn lease(
        &self,
        from: &From<'_>,
        tried: &mut Vec<u32>,
        tries: &mut Tries,
    ) -> Result<Lease, Reason> {
        let picked = match self.pick(tried) {
            Err(full @ (Reason::ServerLimit | Reason::PoolLimit)) => {
                count_full(self.worker, self.pool, full);
                Box::pin(self.wait(from, full, tried, tries)).await
            }
            picked => picked,
        };
        if picked.is_ok()
            && let Some(failed) = tries.again.take()
        {
            let pool = self.pool.borrow();
            pool.count_retry(self.worker.number, failed.cause);
            tries.failed.push(failed);
        }
        picked
    }

    /// Waits while every server is `full`, or the one that its client is bound to, unless the pool has no queue.
    async fn wait(
        &self,
        from: &From<'_>,
        full: Reason,
        tried: &mut Vec<u32>,
        tries: &mut Tries,
    ) -> Result<Lease, Reason> {
        if let Some((affinity, bond)) = &self.bond {
            while bond.waits() {
                let waiter = from.waiter(self.worker, self.priority, tried);
                let queue = (self.config.queue, affinity.queue_wait);
                let (on_drain, waited) = (affinity.on_drain, &mut tries.waited);
                let wait = queue::wait_bound(self.pool, queue, bond, on_drain, waiter, waited);
                let picked = match wait.await {
                    Some(ended) => ended,
                    None => self.pick(tried),
                };
                match picked {
                    Err(Reason::ServerLimit | Reason::PoolLimit) => {}
                    picked => return picked,
                }
            }
        }
        let Some(queue) = self.config.queue else {
            return Err(full);
        };
        let waiter = from.waiter(self.worker, self.priority, tried);
        queue::wait(self.pool, queue, waiter, &mut tries.waited).await
    }

    /// Notes what has come of its bond, now that this member serves it, or none.
    fn settle(&self, member: Option<&Member>, tries: &mut Tries) {
        let Some((affinity, bond)) = &self.bond else {
            return;
        };
        let end = bond.end(member.map(|member| member.id));
        tries.affinity = Some((affinity.kind.name(), end));
        let (pool, worker) = (self.pool.borrow(), self.worker.number);
        let cells = pool.state.stats.of(worker);
        if let Some(counter) = cells.affinity.get(end as usize) {
            counter.increment();
        }
        let Some(member) = member else {
            return;
        };
        if end == End::Kept {
            member.stats.of(worker).affinity_picks.increment();
        }
        if let Some(learnt) = &pool.view.learnt {
            learnt.learn(bond, member, net::now());
        }
    }
}

/// Counts a connection where its pool bounds them.
fn count_in(
    worker: &Worker,
    config: &Pool,
    pool: &RefCell<LocalPool>,
) -> Result<Option<Counted>, Reason> {
    let Some(max) = config.requests_max else {
        return Ok(None);
    };
    let counted = Counted::request(worker, &pool.borrow(), max);
    counted.ok_or(Reason::PoolLimit).map(Some)
}

fn count_full(worker: &Worker, pool: &RefCell<LocalPool>, full: Reason) {
    if full == Reason::PoolLimit {
        let pool = pool.borrow();
        pool.count_overflow(worker.number, Overflow::Connections);
    }
}

/// Counts a connection that no server of the pool takes; as failed, unless its client has left.
fn count_failed(worker: &Worker, pool: &RefCell<LocalPool>, reason: Reason) {
    let pool = pool.borrow();
    let cells = pool.state.stats.of(worker.number);
    cells.unserved.increment();
    if reason.status() >= 500 {
        cells.failed.increment();
    }
}

/// Where a TLS client is passed on to, by what it asks for.
async fn hear<'t>(
    worker: &Worker,
    from: &From<'_>,
    tcp: &'t TcpListener,
    limit: Option<Duration>,
    tries: &mut Tries,
    first: &mut Buffer,
) -> Result<&'t Target, Reason> {
    tries.hears = true;
    let heard = tls::hear(from.client, from.deadline, limit, &worker.buffers, first).await;
    let hello = heard.map_err(|(reason, detail)| {
        tries.detail = detail;
        reason
    })?;
    let scratch = &mut worker.scratch.borrow_mut();
    let name = hello.server_name.as_deref();
    let mut routes = tcp.routes.iter();
    let found = routes.find(|route| route.takes(name, &hello.alpn, scratch));
    found.map(|route| &route.target).ok_or_else(|| {
        let asked = name.map_or_else(|| "no name".to_owned(), |name| format!("`{name}`"));
        tries.detail = format!("the client asks for {asked}");
        Reason::NoRoute
    })
}

fn destination(
    worker: &Worker,
    world: &LocalWorld,
    target: &Target,
    source: Option<IpAddr>,
) -> Result<Destination, Reason> {
    match target {
        Target::Pool(to) => Ok(*to),
        Target::Split(arms) => {
            let pools = &world.world.snapshot.pools;
            let affinity = |arm: &Arm| pools.get(arm.to.pool)?.affinity.as_ref();
            let key = arms.iter().find_map(affinity).zip(source);
            let key = key.and_then(|(affinity, source)| key_of(affinity, source));
            let arm = key.and_then(|key| Share::of_key(key).arm(arms, pools));
            if let Some(arm) = arm.and_then(|at| arms.get(at)) {
                return Ok(arm.to);
            }
            let total: u64 = arms.iter().map(|arm| u64::from(arm.weight)).sum();
            let point = worker.random().checked_rem(total).unwrap_or(0);
            decide::arm_at(arms, point).ok_or(Reason::Internal)
        }
        // The config has no such TCP listener: filters belong to HTTP.
        Target::Answer => Err(Reason::Internal),
    }
}
