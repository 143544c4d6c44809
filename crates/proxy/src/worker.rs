//! One worker: what its connections share on one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::Destination;
use control::crew::WorkerLoad;
use control::live::{Member, PoolState};
use control::message::{Event, Message};
use control::metrics::{RetryCause, WorkerCells};
use control::pick::LocalPool;
use control::reason::Reason;
use control::record::{FailedTry, Record};
use control::world::{Hub, World};

use crate::buffer::{Buffers, Spares};
use crate::handover::Mailboxes;
use crate::http1::Block;
use crate::http2;
use crate::listener::Listening;
use crate::net;
use crate::sys;
use crate::tls::{self, Tls};
use crate::unshaken::Unshaken;
use crate::upstream::Idle;

/// Exchange blocks kept for the next request of any connection: a few connections of HTTP/2 have hundreds at once.
const BLOCKS_MAX: usize = 1024;
/// New connections that are waited for, after one whose request had not come with it.
const FIRST_READS_UNTRIED: u8 = 31;

/// What the connections of one thread share.
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) hub: Arc<Hub>,
    /// The way to the other workers, for connections that they should have.
    pub(crate) mailboxes: Arc<Mailboxes>,
    /// Connections accepted here, whoever serves them.
    pub(crate) accepts: Cell<usize>,
    /// One of its accept loops holds a connection back until a descriptor is free.
    pub(crate) holds_back: Cell<bool>,
    pub(crate) buffers: Buffers,
    pub(crate) idle: Idle,
    /// Connections to servers that speak HTTP/2.
    pub(crate) http2: http2::Connections,
    pub(crate) unshaken: Unshaken,
    pub(crate) scratch: RefCell<rules::Scratch>,
    pub(crate) listening: RefCell<BTreeMap<Arc<str>, Rc<Listening>>>,
    /// Requests and TCP connections that are being served.
    pub(crate) active: Cell<usize>,
    /// New connections that are waited for before the next one is read at once.
    first_reads_untried: Cell<u8>,
    /// Set at shutdown: answers say `Connection: close`.
    pub(crate) draining: Cell<bool>,
    /// Set later in a shutdown: a connection that becomes idle is closed at once.
    pub(crate) closes_idle: Cell<bool>,
    /// Set when the time of a shutdown is over: what is still served is cut.
    pub(crate) cuts_all: Cell<bool>,
    world: RefCell<Rc<LocalWorld>>,
    /// Boxed: a block goes to its connection and back as one pointer.
    blocks: Spares<Box<Block>>,
    log: Option<SyncSender<Record>>,
    seed: Cell<u64>,
    date: RefCell<(u64, String)>,
}

/// One world with this worker's halves of it.
pub(crate) struct LocalWorld {
    pub(crate) world: Arc<World>,
    pub(crate) tls: Arc<Tls>,
    pools: Vec<RefCell<LocalPool>>,
    /// By pool index, then by subset index.
    subsets: Vec<Box<[RefCell<LocalPool>]>>,
}

impl LocalWorld {
    fn new(world: Arc<World>, tls: Arc<Tls>, mut seed: impl FnMut() -> u64) -> Self {
        let mut local = |state: &Arc<PoolState>| RefCell::new(LocalPool::new(state, seed()));
        let pools = world.pools.iter().map(&mut local).collect();
        let subsets = world.subsets.iter();
        let subsets = subsets
            .map(|of_pool| of_pool.iter().map(&mut local).collect())
            .collect();
        Self {
            world,
            tls,
            pools,
            subsets,
        }
    }

    pub(crate) fn pool(&self, to: Destination) -> Option<&RefCell<LocalPool>> {
        match to.subset {
            None => self.pools.get(to.pool),
            Some(subset) => self
                .subsets
                .get(to.pool)?
                .get(usize::try_from(subset).ok()?),
        }
    }
}

impl Worker {
    pub(crate) fn new(
        number: usize,
        hub: Arc<Hub>,
        mailboxes: Arc<Mailboxes>,
        seed: u64,
        log: Option<SyncSender<Record>>,
    ) -> Rc<Self> {
        let seed = Cell::new(seed);
        let world = hub.world();
        let tls = mailboxes.tls.of(world.generation);
        let world = LocalWorld::new(world, tls, || next_seed(&seed));
        Rc::new(Self {
            number,
            hub,
            mailboxes,
            accepts: Cell::new(0),
            holds_back: Cell::new(false),
            buffers: Buffers::default(),
            idle: Idle::default(),
            http2: http2::Connections::default(),
            unshaken: Unshaken::default(),
            scratch: RefCell::default(),
            listening: RefCell::default(),
            active: Cell::new(0),
            first_reads_untried: Cell::new(0),
            draining: Cell::new(false),
            closes_idle: Cell::new(false),
            cuts_all: Cell::new(false),
            world: RefCell::new(Rc::new(world)),
            blocks: Spares::new(BLOCKS_MAX),
            log,
            seed,
            date: RefCell::new((u64::MAX, String::new())),
        })
    }

    /// The world now. Held for the length of a request, never for that of a tunnel.
    pub(crate) fn world(&self) -> Rc<LocalWorld> {
        self.world.borrow().clone()
    }

    /// Another world than the present one, for what is left of it.
    pub(crate) fn world_of(&self, world: Arc<World>) -> Rc<LocalWorld> {
        let tls = self.mailboxes.tls.of(world.generation);
        Rc::new(LocalWorld::new(world, tls, || self.random()))
    }

    /// Takes up a new world.
    pub(crate) fn set_world(&self, world: Arc<World>) {
        let tls = self.mailboxes.tls.of(world.generation);
        let local = LocalWorld::new(world, tls, || self.random());
        *self.world.borrow_mut() = Rc::new(local);
    }

    /// A well-mixed number (splitmix64), for ids and draws. Not for secrets: who sees one can tell the next.
    pub(crate) fn random(&self) -> u64 {
        next_seed(&self.seed)
    }

    pub(crate) fn cells(&self) -> &WorkerCells {
        self.hub.workers.of(self.number)
    }

    pub(crate) fn load(&self) -> &WorkerLoad {
        self.hub.crew.of(self.number)
    }

    /// Whether what runs on this server is to be cut: the time of its drain is over, or that of the process.
    pub(crate) fn cuts(&self, member: &Member) -> bool {
        member.is_cut() || self.cuts_all.get()
    }

    pub(crate) fn count_error(&self, reason: Reason) {
        if let Some(counter) = self.cells().errors.get(reason as usize) {
            counter.increment();
        }
    }

    /// Tells the publisher that a server refused a connection, once until it has heard.
    pub(crate) fn report_refused(&self, member: &Member) {
        if member.note_refused() {
            self.hub
                .send(Message::Event(Event::Refused { member: member.id }));
        }
    }

    /// Notes which version of HTTP a server has chosen that may choose.
    pub(crate) fn note_chosen(&self, member: &Member, http2: bool) {
        if member.note_chosen(http2) {
            let member = member.id;
            self.hub.send(Message::Event(Event::Speaks { member }));
        }
    }

    /// Whether to look for a new connection's request before waiting for it. Where clients are a round trip away it has
    /// mostly not come yet, and looking costs a system call: then only one in so many connections is tried.
    pub(crate) fn tries_first_read(&self) -> bool {
        let untried = self.first_reads_untried.get();
        self.first_reads_untried.set(untried.saturating_sub(1));
        untried == 0
    }

    /// Learns whether a new connection's request was there at once.
    pub(crate) fn note_first_read(&self, found: bool) {
        self.first_reads_untried
            .set(if found { 0 } else { FIRST_READS_UNTRIED });
    }

    /// With a buffer for what the client's socket says.
    pub(crate) fn take_block(&self) -> Box<Block> {
        let mut block = self.take_bare_block();
        block.client_in = self.buffers.take();
        block
    }

    /// Without any buffer.
    pub(crate) fn take_bare_block(&self) -> Box<Block> {
        self.blocks.take().unwrap_or_default()
    }

    /// Gives the exchange its second buffer, when it first needs it; a later try finds it empty.
    pub(crate) fn ensure_server_buffer(&self, block: &mut Block) {
        self.buffers.give(std::mem::take(&mut block.server_in));
        block.server_in = self.buffers.take();
    }

    pub(crate) fn give_block(&self, mut block: Box<Block>) {
        self.buffers.give(std::mem::take(&mut block.client_in));
        self.buffers.give(std::mem::take(&mut block.server_in));
        block.clear();
        self.blocks.give(block);
    }

    /// Whether exchanges are recorded at all.
    pub(crate) fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// Hands a record to the log; drops and counts it when the log is behind.
    pub(crate) fn record(&self, record: Record) {
        if let Some(log) = &self.log
            && log.try_send(record).is_err()
        {
            self.cells().log_dropped.increment();
        }
    }

    /// What the log says of a try that came to nothing.
    pub(crate) fn failed_try(&self, member: &Member, cause: RetryCause) -> FailedTry {
        let is_told = matches!(
            cause,
            RetryCause::ServerCertificate | RetryCause::ServerHandshake
        );
        FailedTry {
            server: member.name.clone(),
            cause,
            detail: is_told.then(|| self.unshaken.of(member.id)).flatten(),
        }
    }

    /// Wall time now, since the Unix epoch.
    pub(crate) fn wall(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    /// The value of a `Date` header, formatted once a second.
    pub(crate) fn with_date<T>(&self, use_date: impl FnOnce(&str) -> T) -> T {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            *date = (second, httpdate::fmt_http_date(now));
        }
        use_date(&date.1)
    }

    /// Once a second: closes connections to servers that are idle for too long or hung up, and frees what is spare.
    pub(crate) async fn sweep(self: Rc<Self>) {
        let mut counted = 0;
        loop {
            net::sleep(Duration::from_secs(1)).await;
            self.idle.sweep(net::now());
            self.http2.sweep(net::now());
            self.buffers.trim();
            self.blocks.trim();
            tls::trim();
            sys::give_back_memory();
            let panics = net::panics();
            self.cells().panics.add(panics.saturating_sub(counted));
            counted = panics;
        }
    }
}

fn next_seed(seed: &Cell<u64>) -> u64 {
    let state = seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    seed.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Counts one served request or connection; counted down however it ends.
pub(crate) struct Active(Rc<Worker>);

impl Active {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        worker.active.set(worker.active.get() + 1);
        worker.cells().begun.increment();
        Self(worker.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.cells().ended.increment();
    }
}
