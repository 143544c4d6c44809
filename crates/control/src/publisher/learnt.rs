//! What pools have learnt, over reloads and upgrades: tables are kept, their numbers stand for names, and what has
//! expired is swept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use balance::learnt::{Entry, Key, Secret, Tally};
use config::{Learning, Snapshot};

use super::pools::{PoolEntry, Slot};
use super::{Action, Notice, Publisher};
use crate::handover::{Hidden, LiveEntry, LiveLearnt};
use crate::learnt::{Learnt, LearntView, Tagged};
use crate::message::{Answer, Forget, Reply};

/// Tables are swept a few times before an entry expires, within these bounds.
const SWEEPS_PER_EXPIRY: u32 = 4;
const SWEEP_MIN: Duration = Duration::from_secs(1);
const SWEEP_MAX: Duration = Duration::from_secs(60);
/// A server that has left and has no entry is forgotten after as many sweeps: no request under way has it any more.
const SWEEPS_IDLE: u8 = 3;
/// Entries of one table that are handed over to another process, those used last.
const CARRIED_MAX: usize = 2_000_000;

/// The table of one pool, as the publisher knows it.
pub(super) struct Taught {
    config: Learning,
    view: Arc<LearntView>,
    servers: Vec<Tagged>,
    /// By tag: for how many sweeps nothing stood for the server.
    idle: Vec<u8>,
    tags: BTreeMap<Arc<str>, u32>,
    /// Tags that stand for nobody.
    free: Vec<u32>,
    /// The table before, if it had another size: workers may still tell it things, which are taken over once.
    before: Option<Arc<Learnt>>,
    tally: Arc<Tally>,
    sweep_at: Duration,
}

impl Taught {
    fn new(config: &Learning, secret: Secret, tally: Arc<Tally>, now: Duration) -> Self {
        let learnt = Arc::new(Learnt::new(config, secret, tally.clone()));
        Self {
            config: config.clone(),
            view: Arc::new(LearntView::new(learnt, Vec::new())),
            servers: Vec::new(),
            idle: Vec::new(),
            tags: BTreeMap::new(),
            free: Vec::new(),
            before: None,
            tally,
            sweep_at: now.saturating_add(sweep_every(config)),
        }
    }

    fn learnt(&self) -> &Arc<Learnt> {
        self.view.learnt()
    }

    /// Takes up another size or time; what is known stays, of a smaller table what was used last.
    fn resize(&mut self, config: &Learning, now: Duration) {
        let same_size = self.config.entries == config.entries;
        self.config = config.clone();
        self.sweep_at = self.sweep_at.min(now.saturating_add(sweep_every(config)));
        if same_size {
            self.learnt().set_expire(config.expire);
            return;
        }
        let before = self.learnt().clone();
        let learnt = Arc::new(Learnt::new(config, before.secret(), self.tally.clone()));
        restore(&learnt, &before.oldest_first(now), now);
        self.before = Some(before);
        self.view = Arc::new(LearntView::new(learnt, self.servers.clone()));
        self.sweep_at = now.saturating_add(SWEEP_MIN);
    }

    /// Gives every server of the pool its tag.
    pub(super) fn take_slots(&mut self, slots: &[Slot]) -> Arc<LearntView> {
        let mut changed = false;
        for slot in slots {
            let member = &slot.member;
            if self
                .tagged(member.tag())
                .is_some_and(|it| it.member == member.id)
            {
                continue;
            }
            let Some(tag) = self.tag_of(&member.name) else {
                continue;
            };
            if let Some(tagged) = self.tagged_mut(tag) {
                tagged.member = member.id;
            }
            member.set_tag(tag);
            changed = true;
        }
        if changed {
            self.publish();
        }
        self.view.clone()
    }

    fn publish(&mut self) {
        let learnt = self.learnt().clone();
        self.view = Arc::new(LearntView::new(learnt, self.servers.clone()));
    }

    fn tagged(&self, tag: u32) -> Option<&Tagged> {
        self.servers.get(usize::try_from(tag).ok()?)
    }

    fn tagged_mut(&mut self, tag: u32) -> Option<&mut Tagged> {
        self.servers.get_mut(usize::try_from(tag).ok()?)
    }

    /// The tag of a name, a new one if it has none; `None` when all are taken, by servers that have left and whose
    /// entries have not expired.
    fn tag_of(&mut self, name: &Arc<str>) -> Option<u32> {
        if let Some(tag) = self.tags.get(name) {
            return Some(*tag);
        }
        let tagged = Tagged {
            name: name.clone(),
            member: 0,
        };
        let tag = match self.free.pop() {
            Some(tag) => {
                *self.tagged_mut(tag)? = tagged;
                tag
            }
            None => {
                let tag = u32::try_from(self.servers.len()).ok()?;
                if tag >= balance::learnt::SERVERS_MAX {
                    return None;
                }
                self.servers.push(tagged);
                self.idle.push(0);
                tag
            }
        };
        self.tags.insert(name.clone(), tag);
        Some(tag)
    }

    /// Forgets what has expired, and servers that have left and that nothing stands for. Whether the view changed.
    fn sweep(&mut self, slots: &[Slot], now: Duration) -> bool {
        if let Some(before) = self.before.take() {
            restore(self.learnt(), &before.oldest_first(now), now);
        }
        let mut used = vec![false; self.servers.len()];
        let mut mark = |tag: u32| {
            let place = usize::try_from(tag).ok();
            if let Some(used) = place.and_then(|tag| used.get_mut(tag)) {
                *used = true;
            }
        };
        self.learnt().table.sweep(now, |entry| mark(entry.server));
        slots.iter().for_each(|slot| mark(slot.member.tag()));
        let mut changed = false;
        let tags = (0_u32..).zip(self.servers.iter_mut().zip(&mut self.idle));
        for ((tag, (tagged, idle)), used) in tags.zip(used) {
            *idle = if used { 0 } else { idle.saturating_add(1) };
            if *idle >= SWEEPS_IDLE && !tagged.name.is_empty() {
                self.tags.remove(&tagged.name);
                self.free.push(tag);
                (tagged.name, tagged.member) = (Arc::default(), 0);
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
        self.sweep_at = now.saturating_add(sweep_every(&self.config));
        changed
    }

    fn tell(&self, pool: &str, now: Duration) -> LiveLearnt {
        let entries = self.learnt().oldest_first(now);
        let skipped = entries.len().saturating_sub(CARRIED_MAX);
        let entries = entries.iter().skip(skipped);
        LiveLearnt {
            pool: pool.to_owned(),
            by: self.config.by.to_string(),
            secret: Hidden(hex(&self.learnt().secret().bytes())),
            servers: self.servers.iter().map(|it| it.name.to_string()).collect(),
            entries: entries
                .map(|entry| {
                    let unused = entry.unused.as_millis();
                    LiveEntry(
                        entry.key.word(),
                        entry.server,
                        u64::try_from(unused).unwrap_or(u64::MAX),
                    )
                })
                .collect(),
        }
    }

    /// Goes on from what another process has learnt by the same.
    fn resume(&mut self, given: &LiveLearnt, now: Duration, ago: Duration) {
        let Some(secret) = unhex(&given.secret.0) else {
            return;
        };
        *self = Self::new(&self.config, Secret::new(secret), self.tally.clone(), now);
        let names = given.servers.iter().map(|name| Arc::from(name.as_str()));
        let tags: Vec<Option<u32>> = names
            .map(|name: Arc<str>| (!name.is_empty()).then(|| self.tag_of(&name)).flatten())
            .collect();
        let entries = given
            .entries
            .iter()
            .filter_map(|LiveEntry(key, server, unused)| {
                let tag = tags
                    .get(usize::try_from(*server).ok()?)
                    .copied()
                    .flatten()?;
                Some(Entry {
                    key: Key::from_word(*key)?,
                    server: tag,
                    unused: Duration::from_millis(*unused).saturating_add(ago),
                })
            });
        let entries: Vec<Entry> = entries.collect();
        restore(self.learnt(), &entries, now);
        self.publish();
    }
}

impl PoolEntry {
    /// Takes what another process has learnt of this pool; it is given once.
    pub(super) fn resume_learning(
        &mut self,
        given: &mut Vec<LiveLearnt>,
        now: Duration,
        ago: Duration,
    ) {
        let Some(taught) = &mut self.taught else {
            return;
        };
        let by = taught.config.by.to_string();
        let of_this = |it: &LiveLearnt| *it.pool == *self.config.name && it.by == by;
        if let Some(at) = given.iter().position(of_this) {
            taught.resume(&given.swap_remove(at), now, ago);
        }
    }
}

impl Publisher {
    /// Keeps what a pool has learnt as long as it learns by the same.
    pub(super) fn take_learning(&mut self, entry: &mut PoolEntry, now: Duration) {
        let Some(config) = entry.config.learning() else {
            entry.taught = None;
            return;
        };
        match &mut entry.taught {
            Some(taught) if taught.config == *config => {}
            Some(taught) if taught.config.by == config.by => taught.resize(config, now),
            taught => {
                let secret = self.learning_secret(&entry.state.name);
                // Kept by name for good: no total ever falls.
                let tally = self.tallies.entry(entry.state.name.clone()).or_default();
                *taught = Some(Box::new(Taught::new(config, secret, tally.clone(), now)));
            }
        }
        let ago = now.saturating_sub(self.given.at);
        entry.resume_learning(&mut self.given.learnt, now, ago);
    }

    /// Hashes what pools learn; another for each pool. Who knows it could have keys meet in one entry.
    fn learning_secret(&self, pool: &str) -> Secret {
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&self.seed.to_le_bytes());
        high.copy_from_slice(&self.seed.to_be_bytes());
        Secret::new(bytes).derive(pool.as_bytes())
    }

    /// When tables are to be swept next.
    pub(super) fn next_learnt(&self) -> Option<Duration> {
        let taught = self
            .pools
            .values()
            .filter_map(|entry| entry.taught.as_ref());
        taught.map(|taught| taught.sweep_at).min()
    }

    pub(super) fn sweep_learnt(&mut self, now: Duration) {
        let mut changed = Vec::new();
        for entry in self.pools.values_mut() {
            if let Some(taught) = &mut entry.taught
                && taught.sweep_at <= now
                && taught.sweep(&entry.slots, now)
            {
                changed.push(entry.state.name.clone());
            }
        }
        for pool in changed {
            self.mark_dirty(&pool, now);
        }
    }

    /// What the next process is to know of what was learnt.
    pub(super) fn tell_learnt(&self, now: Duration) -> Vec<LiveLearnt> {
        let pools = self.pools.values();
        pools
            .filter_map(|entry| Some(entry.taught.as_ref()?.tell(&entry.state.name, now)))
            .collect()
    }

    /// Forgets bindings of a pool. The answer goes out as an action.
    pub fn handle_forget(&mut self, pool: &str, what: &Forget, reply: Reply, now: Duration) {
        let answer = match self.forget(pool, what, now) {
            Ok(count) => Answer::Forgotten(count),
            Err(why) => Answer::NotFound(why),
        };
        self.actions.push_back(Action::Reply(reply, answer));
    }

    fn forget(&mut self, pool: &str, what: &Forget, now: Duration) -> Result<u64, String> {
        let entry = self.pools.get(pool);
        let entry = entry.ok_or_else(|| format!("no pool `{pool}`"))?;
        let taught = entry.taught.as_ref();
        let taught = taught.ok_or_else(|| format!("pool `{pool}` learns nothing"))?;
        let (count, what) = taught.forget(what, &entry.slots, now)?;
        self.actions.push_back(Action::Log(Notice::Forgotten {
            pool: entry.state.name.clone(),
            what,
            count,
        }));
        Ok(count)
    }
}

impl Taught {
    /// How many bindings are gone, and which these were in words.
    fn forget(
        &self,
        what: &Forget,
        slots: &[Slot],
        now: Duration,
    ) -> Result<(u64, String), String> {
        let tables = || std::iter::once(self.learnt()).chain(&self.before);
        let one = |key| {
            let gone = tables().filter(|it| it.table.remove(key)).count();
            (
                u64::from(gone > 0),
                format!("the client {:016x}", key.word()),
            )
        };
        let all = |of: &dyn Fn(&Entry) -> bool| {
            let gone = tables().map(|it| it.table.remove_if(of, now));
            gone.max().unwrap_or(0)
        };
        Ok(match what {
            Forget::All => (all(&|_| true), "all clients".to_owned()),
            Forget::Server(name) => {
                let known = slots.iter().filter(|slot| slot.answers_to(name));
                let known = known.map(|slot| slot.member.tag());
                let tags: BTreeSet<u32> =
                    known.chain(self.tags.get(name.as_str()).copied()).collect();
                if tags.is_empty() {
                    return Err(format!("no client is bound to a server `{name}`"));
                }
                let count = all(&|entry| tags.contains(&entry.server));
                (count, format!("the clients of {name}"))
            }
            Forget::Key(key) => one(Key::from_word(*key).ok_or("0 and 1 are not keys")?),
            Forget::Value(text) => one(self.learnt().key_of_text(text)?),
        })
    }
}

impl super::handover::Given {
    /// Keeps what was learnt of pools that the config names.
    pub(super) fn retain_learnt(&mut self, snapshot: &Snapshot) {
        let named = |pool: &str| snapshot.pools.iter().any(|it| *it.name == *pool);
        self.learnt.retain(|it| named(&it.pool));
    }
}

/// Has a table take over entries, which are in order: where it is full, those that come first give way.
fn restore(learnt: &Learnt, entries: &[Entry], now: Duration) {
    for entry in entries {
        learnt.table.restore(*entry, now);
    }
}

fn sweep_every(config: &Learning) -> Duration {
    (config.expire / SWEEPS_PER_EXPIRY).clamp(SWEEP_MIN, SWEEP_MAX)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| number.to_be_bytes())
}
