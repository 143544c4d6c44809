//! The data plane as the binary sees it: starts workers, takes configs up as transactions, ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use config::{Bind, Snapshot};
use control::live::Member;
use control::record::Record;
use control::world::{Hub, World};

use crate::buffer::CONDUITS_MAX;
use crate::handover::Mailboxes;
use crate::http1::IDLE_TAG;
use crate::http2::CONNECTION_TAG;
use crate::listener::{self, At, Listening, StopAccepting};
use crate::net::{self, Acceptor};
use crate::queue::QUEUE_TAG;
use crate::sockets::{self, BindError, Bound, HandedOver, Inherited, Share, ShareSocket};
use crate::tls::{Issued, Secrets, Tls, TlsError};
use crate::worker::Worker;

mod tend;

use tend::Handle;
pub use tend::Notice;

/// Descriptors that are not for connections: listening sockets, logs, probes, the admin listener.
const OTHER_FILES: u64 = 512;

/// How often, and how many times, a port that is being let go is looked at before it is bound anew.
const LEAVING_LOOK: Duration = Duration::from_millis(5);
const LEAVING_LOOKS_MAX: u32 = 100;
/// How often, and how many times, a worker that was told to end is looked at.
const STOP_LOOK: Duration = Duration::from_millis(1);
const STOP_LOOKS_MAX: u32 = 2_000;

/// Connections for a listener without a limit of its own: two descriptors each, within the open-file limit. Pipes of
/// `workers` get up to a quarter of what is there for both; bytes that get none are copied.
#[must_use]
pub fn connection_default_max(open_files: u64, workers: usize) -> u32 {
    let free = open_files.saturating_sub(OTHER_FILES);
    let pipes = (2 * CONDUITS_MAX as u64).saturating_mul(workers as u64);
    u32::try_from((free - pipes.min(free / 4)) / 2)
        .unwrap_or(u32::MAX)
        .max(16)
}

/// The running data plane.
pub struct Engine {
    hub: Arc<Hub>,
    /// Connections for a listener without a limit of its own.
    connections_default: u32,
    mailboxes: Arc<Mailboxes>,
    /// What tickets of TLS sessions are made with.
    secrets: Arc<Secrets>,
    /// Certificates that authorities have given.
    issued: Arc<Issued>,
    log: Option<SyncSender<Record>>,
    seed: u64,
    workers: Vec<Handle>,
    /// Workers that are stuck or have no thread, and who polls their sockets meanwhile.
    absent: BTreeMap<usize, Option<usize>>,
    /// When the workers were last looked at.
    looked: Duration,
    /// What a worker that begins now must know of the end.
    ending: End,
    held: BTreeMap<Bind, Bound>,
    /// Ports that no listener wants any more, and whether their sockets are still open.
    leaving: Vec<(u16, Weak<()>)>,
    /// Worlds that a worker may still hold: freed here, so that no worker stalls over a large one.
    worlds: Vec<Arc<World>>,
}

#[derive(Clone, Copy, Default)]
struct End {
    draining: bool,
    closes_idle: bool,
    cuts_all: bool,
}

/// What a stop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Requests and TCP connections that were cut.
    pub cut: u64,
    /// Workers that did not end in time.
    pub stuck: usize,
}

/// What a config needs, made and not yet visible. Dropping it undoes it.
pub struct Prepared {
    fresh: BTreeMap<Bind, Bound>,
    tls: Arc<Tls>,
}

/// Why a config cannot be taken up.
#[derive(Debug)]
pub enum NotPrepared {
    /// Addresses that cannot be bound.
    Bind(Vec<BindError>),
    /// Certificates and keys that cannot be used.
    Tls(Vec<TlsError>),
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// Sockets by address and number, with their listener's name and a worker's own descriptor.
type Shares = Vec<((Bind, usize), Arc<str>, Share)>;

/// This thread's worker, and the accept loops that run on it.
struct Here {
    worker: Rc<Worker>,
    /// By address, then by the number of the socket.
    accepting: BTreeMap<(Bind, usize), Rc<StopAccepting>>,
    /// The sockets that it accepts from for others, by the worker that is absent.
    standing_in: BTreeMap<usize, BTreeSet<(Bind, usize)>>,
    connections_default: u32,
}

impl Engine {
    /// Starts one worker for each of `hub.worker_count`. `seed` should be secret; `log` gets a record of each
    /// exchange that is to be logged, and may be behind.
    ///
    /// # Errors
    /// When a thread or its poll cannot be made.
    pub fn start(hub: Arc<Hub>, seed: u64, log: Option<SyncSender<Record>>) -> io::Result<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let open_files = limit.current.unwrap_or(u64::MAX);
        net::files::set_limit(open_files, hub.worker_count);
        let mailboxes = Arc::new(Mailboxes::new(hub.worker_count));
        let mut engine = Self {
            connections_default: connection_default_max(open_files, hub.worker_count),
            hub,
            mailboxes,
            secrets: Arc::new(Secrets::new()),
            issued: Arc::default(),
            log,
            seed,
            workers: Vec::new(),
            absent: BTreeMap::new(),
            looked: Duration::ZERO,
            ending: End::default(),
            held: BTreeMap::new(),
            leaving: Vec::new(),
            worlds: Vec::new(),
        };
        for number in 0..engine.hub.worker_count {
            let handle = engine.begin_worker(number, Duration::ZERO)?;
            engine.workers.push(handle);
        }
        Ok(engine)
    }

    /// Binds what `snapshot` needs beyond what is bound, and makes TLS of its certificates.
    ///
    /// # Errors
    /// Every address that cannot be had, or every certificate that cannot be used; then nothing has changed.
    pub fn prepare(&self, snapshot: &Snapshot) -> Result<Prepared, NotPrepared> {
        self.prepare_with(snapshot, &mut Inherited::default())
    }

    /// The same, adopting what another process has opened where that is what the config asks for.
    ///
    /// # Errors
    /// As [`Engine::prepare`].
    pub fn prepare_with(
        &self,
        snapshot: &Snapshot,
        inherited: &mut Inherited,
    ) -> Result<Prepared, NotPrepared> {
        let before = self.mailboxes.tls.newest();
        let tls = Tls::build(snapshot, &before, &self.secrets, &self.issued);
        let tls = tls.map_err(NotPrepared::Tls)?;
        self.wait_for_leaving(snapshot);
        let fresh = sockets::bind_new(snapshot, &self.held, self.workers.len(), inherited)
            .map_err(NotPrepared::Bind)?;
        Ok(Prepared {
            fresh,
            tls: Arc::new(tls),
        })
    }

    /// Takes a world up: workers get it, new sockets are accepted from, and those that no listener wants any more
    /// are drained and closed. Connections of listeners that stay are not touched.
    pub fn publish(&mut self, prepared: Prepared, world: Arc<World>) {
        let mut wanted: BTreeMap<Bind, Arc<str>> = BTreeMap::new();
        for listener in &world.snapshot.listeners {
            for bind in &listener.binds {
                wanted.insert(bind.clone(), listener.name.clone());
            }
        }
        self.worlds.retain(|world| Arc::strong_count(world) > 1);
        self.worlds.push(world.clone());
        let alive: Vec<u64> = self.worlds.iter().map(|world| world.generation).collect();
        self.mailboxes
            .tls
            .publish(world.generation, prepared.tls, &alive);
        let mut moved = Vec::new();
        for (before, now) in sockets::renamed(&world.snapshot, &self.held) {
            if let Some(bound) = self.held.remove(&before) {
                self.held.insert(now, bound);
                moved.push(before);
            }
        }
        self.held.extend(prepared.fresh);
        let mut start = Vec::new();
        let mut stop = Vec::new();
        for (bind, bound) in &mut self.held {
            match wanted.get(bind) {
                None => stop.push(bind.clone()),
                Some(listener) => {
                    bound.listener = listener.clone();
                    start.push(bind.clone());
                }
            }
        }
        for number in 0..self.workers.len() {
            self.post(number, world.clone(), &start, &stop, &moved);
        }
        for (absent, stand_in) in &self.absent {
            if let Some(stand_in) = stand_in {
                self.adopt(*stand_in, *absent);
            }
        }
        self.leaving.retain(|(_, open)| open.strong_count() > 0);
        for bind in stop {
            let bound = self.held.remove(&bind);
            let left = bound.and_then(|bound| Some((bound.port?, Arc::downgrade(&bound.open))));
            self.leaving.extend(left);
        }
    }

    /// A worker's descriptors of the sockets of these addresses.
    fn shares_of<'a>(&self, number: usize, binds: impl IntoIterator<Item = &'a Bind>) -> Shares {
        let mut shares = Vec::new();
        for bind in binds {
            let Some(bound) = self.held.get(bind) else {
                continue;
            };
            for (socket, share) in bound.shares(number, self.hub.worker_count) {
                shares.push(((bind.clone(), socket), bound.listener.clone(), share));
            }
        }
        shares
    }

    /// Sends a worker a world, its descriptors of the sockets to accept from, the binds to let go of, and those that are
    /// known by another name now.
    fn post(
        &self,
        number: usize,
        world: Arc<World>,
        start: &[Bind],
        stop: &[Bind],
        moved: &[Bind],
    ) {
        let shares = self.shares_of(number, start);
        let (stop, moved) = (stop.to_vec(), moved.to_vec());
        if let Some(handle) = self.workers.get(number) {
            handle
                .remote
                .run(move || with_here(|here| here.take_up(world, shares, &stop, &moved)));
        }
    }

    /// A port that the config before this one let go of is ours until each worker has accepted what was queued there;
    /// bound before that, it would look like another process's, or share its connections with sockets that close.
    fn wait_for_leaving(&self, snapshot: &Snapshot) {
        let binds = snapshot.listeners.iter().flat_map(|it| &it.binds);
        let wanted: BTreeSet<u16> = binds
            .filter(|bind| !self.held.contains_key(bind))
            .filter_map(|bind| match bind {
                Bind::Tcp { address, .. } => Some(address.port()),
                Bind::Unix(_) => None,
            })
            .collect();
        let is_open =
            |(port, open): &(u16, Weak<()>)| wanted.contains(port) && open.strong_count() > 0;
        for _ in 0..LEAVING_LOOKS_MAX {
            if !self.leaving.iter().any(is_open) {
                return;
            }
            std::thread::sleep(LEAVING_LOOK);
        }
    }

    /// Each listener's name and address, with the ports that the kernel gave.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, String)> {
        self.held
            .values()
            .map(|bound| (bound.listener.clone(), bound.address.clone()))
            .collect()
    }

    /// Ends what still runs on a member whose drain is over.
    pub fn cut(&self, member: u32) {
        self.everywhere(move |_| net::expire(member));
    }

    /// Ends every connection to a member, idle or in use, as its crash would. What is between two steps of its own at
    /// this moment may be missed: to be called again while the member has requests in use. A worker that hears of it when
    /// the member is back leaves it alone.
    pub fn sever(&self, member: &Arc<Member>) {
        let member = member.clone();
        self.everywhere(move |here| {
            if !member.is_crashed() {
                return;
            }
            here.worker.idle.close(member.id);
            here.worker.http2.cut(member.id);
            net::expire(member.id);
        });
    }

    /// Closes idle connections to a member that takes no new traffic.
    pub fn close_idle_to(&self, member: u32) {
        self.everywhere(move |here| {
            here.worker.idle.close(member);
            here.worker.http2.leave(member);
        });
    }

    /// From now on answers say `Connection: close`.
    pub fn begin_drain(&mut self) {
        self.ending.draining = true;
        self.everywhere(|here| {
            here.worker.draining.set(true);
            net::expire(CONNECTION_TAG);
        });
    }

    /// Accepts what the kernel has queued, then closes the listening sockets.
    pub fn close_listeners(&mut self) {
        self.everywhere(|here| {
            for stop in std::mem::take(&mut here.accepting).into_values() {
                stop.stop();
            }
        });
        self.held.clear();
    }

    /// Every listening socket, for another process to go on with.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn descriptors(&self) -> io::Result<Vec<(Bind, HandedOver)>> {
        let handed = |(bind, bound): (&Bind, &Bound)| {
            let handed = HandedOver {
                sockets: bound.descriptors()?,
                unlink: bound.unlinks(),
            };
            Ok((bind.clone(), handed))
        };
        self.held.iter().map(handed).collect()
    }

    /// Where certificates go that authorities give.
    #[must_use]
    pub fn issued(&self) -> &Arc<Issued> {
        &self.issued
    }

    /// What tickets of TLS sessions are made with, as text: secrets, for another process to go on with.
    #[must_use]
    pub fn ticket_secrets(&self) -> Vec<String> {
        self.secrets.export()
    }

    /// How long the newest of them has been in use.
    #[must_use]
    pub fn ticket_age(&self) -> Duration {
        self.secrets.age(self.looked)
    }

    /// Goes on with those of another process, so that its clients resume their sessions here. `age`: that of the newest.
    pub fn take_ticket_secrets(&self, secrets: &[String], age: Duration) {
        self.secrets.import(secrets, age, self.looked);
    }

    /// What was adopted from another process is this one's alone: paths of Unix sockets go with it from now on. Until then
    /// that one may have to go on with them.
    pub fn inherit(&mut self) {
        self.held.values_mut().for_each(Bound::inherit);
    }

    /// Stops accepting: what waits at the `adopted` addresses is another process's now; the other addresses are closed
    /// as by [`Engine::close_listeners`].
    pub fn hand_over(&mut self, adopted: &BTreeSet<Bind>) {
        let gone = adopted.clone();
        self.everywhere(move |here| {
            here.accepting.retain(|(bind, _), accepting| {
                let stays = !gone.contains(bind);
                if !stays {
                    accepting.hand_over();
                }
                stays
            });
        });
        for (bind, bound) in &mut self.held {
            if adopted.contains(bind) {
                bound.give_up();
            }
        }
        self.close_listeners();
    }

    /// Closes connections that wait for a next request.
    pub fn close_idle(&mut self) {
        self.ending.closes_idle = true;
        self.everywhere(|here| {
            here.worker.closes_idle.set(true);
            net::expire(IDLE_TAG);
            here.worker.idle.clear();
            here.worker.http2.leave_all();
        });
    }

    /// Cuts what is still served: who waits for a server, or for its answer, is told that it will not come.
    pub fn cut_all(&mut self) {
        self.close_idle();
        self.ending.cuts_all = true;
        self.everywhere(|here| {
            here.worker.cuts_all.set(true);
            net::expire_where(|tag| tag <= QUEUE_TAG);
        });
    }

    /// Requests and TCP connections that are being served.
    #[must_use]
    pub fn active(&self) -> u64 {
        // What has ended is read first, so that the difference is never too small.
        let ended = self.hub.workers.sum(|cells| cells.ended.get());
        self.hub
            .workers
            .sum(|cells| cells.begun.get())
            .saturating_sub(ended)
    }

    /// Ends the workers; what they still serve is cut. A worker that is stuck is not waited for without end.
    #[must_use]
    pub fn stop(self) -> Stopped {
        let cut = self.active();
        self.everywhere(|_| net::stop());
        let mut left: Vec<_> = self
            .workers
            .into_iter()
            .filter_map(|it| it.thread)
            .collect();
        for _ in 0..STOP_LOOKS_MAX {
            left.retain(|thread| !thread.is_finished());
            if left.is_empty() {
                break;
            }
            std::thread::sleep(STOP_LOOK);
        }
        Stopped {
            cut,
            stuck: left.len(),
        }
    }

    fn everywhere(&self, job: impl Fn(&mut Here) + Clone + Send + 'static) {
        for handle in &self.workers {
            let job = job.clone();
            handle.remote.run(move || with_here(job));
        }
    }
}

fn with_here(job: impl FnOnce(&mut Here)) {
    HERE.with_borrow_mut(|here| {
        if let Some(here) = here {
            job(here);
        }
    });
}

/// This thread's worker.
pub(crate) fn here() -> Option<Rc<Worker>> {
    HERE.with_borrow(|here| here.as_ref().map(|here| here.worker.clone()))
}

/// Serves what other workers have handed to this thread's.
pub(crate) fn take_handed() {
    let Some(worker) = here() else {
        return;
    };
    for handed in worker.mailboxes.take(worker.number) {
        listener::start_handed(&worker, handed);
    }
}

/// Whether a listener spoke before what it speaks now.
fn same_protocol(before: &World, name: &str, now: &config::Listener) -> bool {
    let is_http =
        |listener: &config::Listener| matches!(listener.protocol, config::Protocol::Http(_));
    let before = before
        .snapshot
        .listeners
        .iter()
        .find(|listener| *listener.name == *name);
    before.is_some_and(|before| is_http(before) == is_http(now))
}

impl Here {
    fn take_up(&mut self, world: Arc<World>, shares: Shares, stop: &[Bind], moved: &[Bind]) {
        let before = self.worker.world();
        let mut known = std::mem::take(&mut *self.worker.listening.borrow_mut());
        let mut kept = BTreeMap::new();
        let mut lets_go = false;
        for (index, (config, state)) in world
            .snapshot
            .listeners
            .iter()
            .zip(&world.listeners)
            .enumerate()
        {
            let listening = match known.remove(&config.name) {
                Some(listening) if same_protocol(&before.world, &config.name, config) => {
                    listening.set_index(index);
                    listening
                }
                other => {
                    if let Some(other) = other {
                        other.let_go(before.clone());
                        lets_go = true;
                    }
                    Rc::new(Listening::new(config.name.clone(), state.clone(), index))
                }
            };
            kept.insert(config.name.clone(), listening);
        }
        for gone in known.values() {
            gone.let_go(before.clone());
            lets_go = true;
        }
        if lets_go {
            net::expire(CONNECTION_TAG);
        }
        *self.worker.listening.borrow_mut() = kept;
        self.worker.set_world(world);
        self.accepting.retain(|(bind, _), accepting| {
            let (stops, moves) = (stop.contains(bind), moved.contains(bind));
            if moves {
                // What is queued is the new one's.
                accepting.hand_over();
            } else if stops {
                accepting.stop();
            }
            !stops && !moves
        });
        for (socket, name, share) in shares {
            self.start_accepting(socket, &name, share);
        }
    }

    /// Accepts for a worker that cannot; what this one accepts from anyway stays its own.
    fn stand_in(&mut self, absent: usize, shares: Shares) {
        let mut taken = self.standing_in.remove(&absent).unwrap_or_default();
        for (socket, name, share) in shares {
            let is_own = self.accepting.contains_key(&socket)
                && !taken.contains(&socket)
                && !self.stands_in_for(&socket);
            if !is_own {
                self.start_accepting(socket.clone(), &name, share);
                taken.insert(socket);
            }
        }
        self.standing_in.insert(absent, taken);
    }

    fn stands_in_for(&self, socket: &(Bind, usize)) -> bool {
        self.standing_in.values().any(|of| of.contains(socket))
    }

    /// Leaves a worker's sockets to it again.
    fn step_back(&mut self, returned: usize) {
        for socket in self.standing_in.remove(&returned).unwrap_or_default() {
            if !self.stands_in_for(&socket)
                && let Some(running) = self.accepting.remove(&socket)
            {
                running.hand_over();
            }
        }
    }

    fn start_accepting(&mut self, bind: (Bind, usize), name: &Arc<str>, share: Share) {
        let Some(listening) = self.worker.listening.borrow().get(name).cloned() else {
            return;
        };
        if let Some(running) = self.accepting.get(&bind) {
            if Rc::ptr_eq(&running.listening, &listening) {
                return;
            }
            // What is queued is the new one's.
            running.hand_over();
        }
        let acceptor = match share.socket {
            ShareSocket::Tcp(socket) => Acceptor::tcp(socket),
            ShareSocket::Unix(socket) => Acceptor::unix(socket),
        };
        // Refused only when the kernel is out of memory or of epoll watches; the other workers' sockets go on.
        let Ok(acceptor) = acceptor else {
            return;
        };
        let stop = Rc::new(StopAccepting::new(listening.clone(), share.open));
        let at = At {
            listening,
            bind: bind.0.clone(),
        };
        self.accepting.insert(bind, stop.clone());
        net::spawn(listener::accept(
            self.worker.clone(),
            at,
            acceptor,
            stop,
            self.connections_default,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_of_open_files_leaves_most_for_connections() {
        assert_eq!(connection_default_max(600, 2), 33);
        assert_eq!(connection_default_max(1024, 2), 192);
        assert_eq!(connection_default_max(1_048_576, 4), 523_904);
        assert_eq!(connection_default_max(0, 64), 16);
        assert_eq!(connection_default_max(u64::MAX, 64), u32::MAX);
    }
}
