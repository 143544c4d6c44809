//! What a pool has learnt of its clients: which of its servers each is bound to.
//!
//! The table is `balance`'s; here its numbers get names. A number stands for a server's *name*, so that a binding
//! outlives a reload, and finds a server again that was gone for a while. Who learns what from which part of a message
//! is `proxy`'s to do.
//!
//! **A store that machines share** would go behind [`LearntView::find`] and [`LearntView::bind`], with this table as
//! what is known here: nothing else asks or tells it. What it would hold is what an upgrade hands over already
//! ([`LiveLearnt`](crate::handover::LiveLearnt)): the hash of a key, the name of a server, an age. All machines would
//! need one secret.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use balance::learnt::{Bound, Counts, Entry, Key, Secret, Table, Tally};
use config::{Learning, LearntBy};
use rules::Request;

use crate::affinity::{Bond, End, Tie};
use crate::live::Member;

/// The tag of a member whose pool learns nothing: no table has it.
pub(crate) const NO_TAG: u32 = u32::MAX;

/// The table of a pool, shared by all workers.
#[derive(Debug)]
pub struct Learnt {
    by: LearntBy,
    secret: Secret,
    pub(crate) table: Table,
    expire_ms: AtomicU32,
}

/// A table, and who its numbers stand for. Immutable but for the table; swapped with the view of the pool.
#[derive(Debug)]
pub struct LearntView {
    learnt: Arc<Learnt>,
    /// By tag.
    servers: Vec<Tagged>,
}

/// A server's name in a table.
#[derive(Debug, Clone)]
pub(crate) struct Tagged {
    /// Empty while the tag stands for nobody.
    pub(crate) name: Arc<str>,
    /// The member that has this name now, or had it last; 0 if none ever had in this process.
    pub(crate) member: u32,
}

/// A binding, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// What the client's key is known by: a hash that tells nothing of the key.
    pub key: u64,
    /// The server's name.
    pub server: Arc<str>,
    /// How long it was not used.
    pub unused: Duration,
    /// When it is forgotten if it stays unused.
    pub expires_in: Duration,
}

impl Learnt {
    pub(crate) fn new(config: &Learning, secret: Secret, tally: Arc<Tally>) -> Self {
        let learnt = Self {
            by: config.by.clone(),
            secret,
            table: Table::with_tally(config.entries, config.expire, tally),
            expire_ms: AtomicU32::new(0),
        };
        learnt.set_expire(config.expire);
        learnt
    }

    pub(crate) fn set_expire(&self, expire: Duration) {
        let ms = u32::try_from(expire.as_millis()).unwrap_or(u32::MAX);
        self.expire_ms.store(ms, Ordering::Relaxed);
        self.table.set_expire(expire);
    }

    pub(crate) fn secret(&self) -> Secret {
        self.secret
    }

    /// Every entry, those unused longest first.
    pub(crate) fn oldest_first(&self, now: Duration) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.table.visit(now, |entry| entries.push(*entry));
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.unused));
        entries
    }

    /// What tells clients apart.
    #[must_use]
    pub fn by(&self) -> &LearntBy {
        &self.by
    }

    /// How many entries there may be.
    #[must_use]
    pub fn entries_max(&self) -> u32 {
        self.table.entries_max()
    }

    /// How long an entry may be unused.
    #[must_use]
    pub fn expire(&self) -> Duration {
        Duration::from_millis(self.expire_ms.load(Ordering::Relaxed).into())
    }

    /// What the table holds and what became of its entries.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.table.counts()
    }

    /// The key of a cookie's or a header's value.
    #[must_use]
    pub fn key(&self, value: &[u8]) -> Key {
        self.secret.key(value)
    }

    /// The key of a client's address.
    #[must_use]
    pub fn source_key(&self, source: IpAddr) -> Key {
        let LearntBy::Source { ipv6_prefix } = self.by else {
            return self.key(&[]);
        };
        match network_of(source, ipv6_prefix) {
            IpAddr::V4(address) => self.key(&address.octets()),
            IpAddr::V6(address) => self.key(&address.octets()),
        }
    }

    /// The key that a user means by a text: an address where clients are told apart by theirs, else a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn key_of_text(&self, text: &str) -> Result<Key, String> {
        if !matches!(self.by, LearntBy::Source { .. }) {
            return Ok(self.key(text.as_bytes()));
        }
        let source = text.parse::<IpAddr>();
        source
            .map(|source| self.source_key(source))
            .map_err(|_| format!("`{text}` is not an IP address, by which this pool knows clients"))
    }
}

impl LearntView {
    pub(crate) fn new(learnt: Arc<Learnt>, servers: Vec<Tagged>) -> Self {
        Self { learnt, servers }
    }

    /// The table.
    #[must_use]
    pub fn learnt(&self) -> &Arc<Learnt> {
        &self.learnt
    }

    /// The member that this client is bound to, which may be one that is gone; 0 for a server that this process never
    /// had. The binding is used by this.
    #[must_use]
    pub fn find(&self, key: Key, now: Duration) -> Option<u32> {
        let tag = self.learnt.table.find(key, now)?;
        Some(self.member_of(tag))
    }

    /// As [`LearntView::find`], but the binding counts as unused.
    #[must_use]
    pub fn peek(&self, key: Key, now: Duration) -> Option<u32> {
        let tag = self.learnt.table.peek(key, now)?;
        Some(self.member_of(tag))
    }

    /// Binds a client to a server of this pool. Nothing happens with a server that is gone and whose name is forgotten.
    pub fn bind(&self, key: Key, member: &Member, now: Duration) -> Bound {
        let tag = member.tag();
        if self.member_of(tag) != member.id {
            return Bound::Dropped;
        }
        self.learnt.table.bind(key, tag, now)
    }

    /// What binds a request: whatever of it is known here.
    #[must_use]
    pub fn bond(&self, request: &Request<'_>, now: Duration) -> Bond {
        self.bond_by(request, |key| self.find(key, now))
    }

    /// As [`LearntView::bond`], but what is known counts as unused.
    #[must_use]
    pub fn peek_bond(&self, request: &Request<'_>, now: Duration) -> Bond {
        self.bond_by(request, |key| self.peek(key, now))
    }

    fn bond_by(&self, request: &Request<'_>, find: impl Fn(Key) -> Option<u32>) -> Bond {
        let of = |key| bond_of(key, &find);
        match &self.learnt.by {
            LearntBy::Source { .. } => of(self.learnt.source_key(request.source)),
            LearntBy::Header(name) => match request.header(name) {
                None => Bond::default(),
                Some(value) => of(self.learnt.key(value)),
            },
            LearntBy::AppCookie {
                name,
                path_parameter,
            } => {
                let parameter = path_parameter.as_ref();
                let in_path =
                    parameter.and_then(|it| rules::path_parameter(request.path, it.as_bytes()));
                let mut foreign = false;
                // Paths of their own give a client several cookies of one name.
                for value in request.cookies(name).chain(in_path) {
                    let bond = of(self.learnt.key(value));
                    if bond.tie != Tie::Free {
                        return bond;
                    }
                    foreign = true;
                }
                let mut bond = Bond::to(Tie::Free);
                bond.foreign = foreign;
                bond
            }
        }
    }

    /// What binds a client with this address.
    #[must_use]
    pub fn bond_of_source(&self, source: IpAddr, now: Duration) -> Bond {
        bond_of(self.learnt.source_key(source), &|key| self.find(key, now))
    }

    /// A server serves this request and says no more of it: binds the client if it is to be bound.
    pub fn learn(&self, bond: &Bond, member: &Member, now: Duration) {
        if let Some(key) = bond.key.filter(|_| bond.end(Some(member.id)).binds()) {
            self.bind(key, member, now);
        }
    }

    /// A server has answered with these fields: learns from them, and from what the request has brought.
    pub fn learn_from<'f>(
        &self,
        bond: &Bond,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        member: &Member,
        now: Duration,
    ) {
        let mut told = false;
        let mut tell = |value: Option<&[u8]>| {
            if let Some(value) = value {
                told = true;
                self.bind(self.learnt.key(value), member, now);
            }
        };
        match &self.learnt.by {
            LearntBy::Source { .. } => {}
            LearntBy::Header(wanted) => {
                let is_it = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
                fields
                    .filter(|(name, value)| is_it(name) && !value.is_empty())
                    .for_each(|(_, value)| tell(Some(value)));
            }
            LearntBy::AppCookie { name: wanted, .. } => fields
                .filter(|(name, _)| name.eq_ignore_ascii_case(b"set-cookie"))
                .for_each(|(_, value)| tell(rules::set_cookie(value, wanted.as_bytes()))),
        }
        // Who gets another session leaves the old one; who was moved without a word goes on with it.
        if !told || bond.end(Some(member.id)) == End::Moved {
            self.learn(bond, member, now);
        }
    }

    /// The name that a tag stands for.
    #[must_use]
    pub fn name_of(&self, tag: u32) -> Option<&Arc<str>> {
        let tagged = self.servers.get(usize::try_from(tag).ok()?)?;
        (!tagged.name.is_empty()).then_some(&tagged.name)
    }

    fn member_of(&self, tag: u32) -> u32 {
        let tag = usize::try_from(tag).ok();
        tag.and_then(|tag| self.servers.get(tag))
            .map_or(0, |tagged| tagged.member)
    }

    /// One binding. For those beside traffic.
    #[must_use]
    pub fn binding(&self, key: Key, now: Duration) -> Option<Binding> {
        self.learnt
            .table
            .entry(key, now)
            .and_then(|entry| self.shown(&entry))
    }

    /// Up to `max` bindings from the place `from` on, those of one server if it is named, and where to go on; `None`
    /// when that was all. For those beside traffic.
    #[must_use]
    pub fn bindings(
        &self,
        server: Option<&str>,
        from: usize,
        max: usize,
        now: Duration,
    ) -> (Vec<Binding>, Option<usize>) {
        let (mut found, mut next) = (Vec::new(), Some(from));
        while let Some(from) = next
            && found.len() < max
        {
            let (entries, more) = self.learnt.table.entries(from, max - found.len(), now);
            let shown = entries.iter().filter_map(|entry| self.shown(entry));
            found.extend(shown.filter(|it| server.is_none_or(|server| *it.server == *server)));
            next = more;
        }
        (found, next)
    }

    /// How many bindings there are to each server that has any, by name. Looks at every one.
    #[must_use]
    pub fn by_server(&self, now: Duration) -> Vec<(Arc<str>, u64)> {
        let mut counts = vec![0_u64; self.servers.len()];
        self.learnt.table.visit(now, |entry| {
            let tag = usize::try_from(entry.server).ok();
            if let Some(count) = tag.and_then(|tag| counts.get_mut(tag)) {
                *count += 1;
            }
        });
        let servers = self.servers.iter().zip(counts);
        let held = servers.filter(|(_, count)| *count > 0);
        let mut held: Vec<_> = held.map(|(it, count)| (it.name.clone(), count)).collect();
        held.sort_unstable();
        held
    }

    fn shown(&self, entry: &Entry) -> Option<Binding> {
        Some(Binding {
            key: entry.key.word(),
            server: self.name_of(entry.server)?.clone(),
            unused: entry.unused,
            expires_in: self.learnt.expire().saturating_sub(entry.unused),
        })
    }
}

fn bond_of(key: Key, find: &impl Fn(Key) -> Option<u32>) -> Bond {
    let mut bond = Bond::to(find(key).map_or(Tie::Free, Tie::Server));
    bond.key = Some(key);
    bond
}

/// The part of an address that tells clients apart: all of IPv4, a prefix of IPv6.
#[must_use]
pub fn network_of(source: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let dropped = 128_u32.saturating_sub(ipv6_prefix.into());
            let mask = u128::MAX.checked_shl(dropped).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_as_far_as_it_tells_clients_apart() {
        for (address, prefix, network) in [
            ("192.0.2.7", 64, "192.0.2.7"),
            ("::ffff:192.0.2.7", 64, "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 1, "::"),
            ("2001:db8:1:2:3:4:5:6", 56, "2001:db8:1::"),
        ] {
            let parse = |text: &str| text.parse::<IpAddr>().unwrap();
            assert_eq!(network_of(parse(address), prefix), parse(network));
        }
    }
}
