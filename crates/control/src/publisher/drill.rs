//! Drills: a server is out as a crash would have it, and what that costs is counted.
//!
//! First the pool is watched as it is, for what its servers carry. Then the server's mark is set: from that moment
//! connections to it are refused, those that there are end as by a reset, and its probes find nobody. What follows is
//! what would follow a crash, by the same code. A drill ends by its own deadline, whoever has left meanwhile, or when its
//! operator enables the server.

use std::sync::Arc;
use std::time::Duration;

use balance::health::{Cause, Outcome};

use super::pools::Place;
use super::{Action, Notice, Publisher};
use crate::live::{Member, PoolState};
use crate::message::{Answer, DrillEnd, DrillReport, Reply, Survivor};
use crate::metrics::{Counter, PoolCells};

/// How long a pool is watched before its server goes out; a shorter drill is preceded by as long as it takes itself.
const BEFORE_MAX: Duration = Duration::from_secs(2);
/// How often a drill is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a drill may take.
const LENGTH_MIN: Duration = Duration::from_secs(1);
const LENGTH_MAX: Duration = Duration::from_secs(3600);
/// A pool in which something failed in the last so-manieth part of a drill has not settled.
const UNSETTLED_PART: u32 = 10;

/// A drill that is under way.
pub(super) struct Drill {
    pool: Arc<PoolState>,
    /// As its operator named it.
    server: String,
    /// The servers that go out: several when a name stands for several addresses.
    out: Vec<Carries>,
    others: Vec<Carries>,
    reply: Option<Reply>,
    length: Duration,
    began: Duration,
    crash: Option<Crash>,
    pub(super) look_at: Duration,
}

/// What a server has carried.
struct Carries {
    member: Arc<Member>,
    /// Picks when the drill began, at the crash, and in the middle of the time after it.
    picks: [u64; 3],
    /// Most requests in use since the crash, as far as was seen.
    active_max: u32,
}

struct Crash {
    at: Duration,
    counts: Counts,
    /// When the second half of the time began.
    middle: Option<Duration>,
    /// When something failed or was tried again last.
    troubled: Option<Duration>,
    /// The counts when it was last looked at.
    last: Counts,
    /// When the servers that are out were no longer among those that may be picked.
    unpicked: Option<Duration>,
}

/// Totals of a pool, and of its servers that are out.
#[derive(Debug, Clone, Copy)]
struct Counts {
    ended: u64,
    failed: u64,
    retried: u64,
    /// Tries with the servers that are out which came to nothing.
    in_vain: u64,
}

impl Counts {
    /// What a pool that bears it does not add to.
    fn troubles(&self) -> [u64; 3] {
        [self.failed, self.retried, self.in_vain]
    }
}

impl Publisher {
    /// Begins a drill; the report goes out as an action when it has ended.
    pub fn handle_drill(
        &mut self,
        pool: &str,
        server: &str,
        length: Duration,
        reply: Reply,
        now: Duration,
    ) {
        match self.plan_drill(pool, server, length, now) {
            Err(answer) => self.actions.push_back(Action::Reply(reply, *answer)),
            Ok(mut drill) => {
                drill.reply = Some(reply);
                self.log_drill(
                    &drill,
                    format!("begins: first its pool is watched for {:?}", drill.before()),
                );
                self.drills.push(drill);
            }
        }
    }

    fn plan_drill(
        &self,
        pool: &str,
        server: &str,
        length: Duration,
        now: Duration,
    ) -> Result<Drill, Box<Answer>> {
        let refused = |why: String| Err(Box::new(Answer::Refused(vec![why])));
        let Some(entry) = self.pools.get(pool) else {
            return Err(Box::new(Answer::NotFound(format!("no pool `{pool}`"))));
        };
        let carries = |of_it: bool| -> Vec<Carries> {
            let slots = entry.slots.iter();
            let slots = slots.filter(move |slot| slot.answers_to(server) == of_it);
            slots.map(|slot| Carries::new(&slot.member)).collect()
        };
        let out = carries(true);
        if out.is_empty() {
            let why = format!("no server `{server}` in pool `{pool}`");
            return Err(Box::new(Answer::NotFound(why)));
        }
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            return refused("a drill lasts 1s to 1h".to_owned());
        }
        let mut drills = self.drills.iter();
        if let Some(other) = drills.find(|drill| *drill.pool.name == *pool) {
            return refused(format!(
                "a drill of `{}` in pool `{pool}` is under way; `enable` ends it",
                other.server
            ));
        }
        Ok(Drill {
            pool: entry.state.clone(),
            server: server.to_owned(),
            out,
            others: carries(false),
            reply: None,
            length,
            began: now,
            crash: None,
            look_at: now,
        })
    }

    pub(super) fn look_at_drills(&mut self, now: Duration) {
        let mut drills = std::mem::take(&mut self.drills);
        drills.retain_mut(|drill| {
            if drill.look_at > now {
                return true;
            }
            drill.look_at = now.saturating_add(LOOK_EVERY);
            let end = self.look_at_drill(drill, now);
            if let Some(end) = end {
                self.end_drill(drill, end, now);
            }
            end.is_none()
        });
        self.drills = drills;
    }

    /// Why it is over, if it is.
    fn look_at_drill(&mut self, drill: &mut Drill, now: Duration) -> Option<DrillEnd> {
        if drill.out.iter().all(|it| it.member.is_retired()) {
            drill.take_in(now);
            return Some(DrillEnd::Removed);
        }
        if drill.crash.is_none() {
            if now >= drill.began.saturating_add(drill.before()) {
                self.crash(drill, now);
            }
            return None;
        }
        if drill.take_in(now) {
            return Some(DrillEnd::Time);
        }
        // What was between two of its own steps at the first cut is met by a further one.
        let busy = drill.out.iter().filter(|it| it.member.cell.in_use() > 0);
        let severed = busy.map(|it| Action::Sever(it.member.clone()));
        self.actions.extend(severed);
        None
    }

    fn crash(&mut self, drill: &mut Drill, now: Duration) {
        drill.begin_crash(now);
        let until = now.saturating_add(drill.length);
        // What the config has let go of meanwhile drains in peace.
        let out = drill.out.iter().map(|it| &it.member);
        for member in out.filter(|member| !member.is_retired()) {
            member.set_crashed(true);
            self.actions.push_back(Action::Sever(member.clone()));
            if let Some((slot, _)) = Place::find(&self.places, &mut self.pools, member.id) {
                slot.drilled = Some(until);
            }
        }
        self.log_drill(drill, format!("out as by a crash, for {:?}", drill.length));
        self.mark_dirty(&drill.pool.name, now);
    }

    /// Ends the drills of a server that its operator enables.
    pub(super) fn end_drills(&mut self, members: &[u32], now: Duration) {
        let mut drills = std::mem::take(&mut self.drills);
        drills.retain_mut(|drill| {
            let same = drill.out.iter().any(|it| members.contains(&it.member.id));
            if same {
                drill.take_in(now);
                self.end_drill(drill, DrillEnd::Operator, now);
            }
            !same
        });
        self.drills = drills;
    }

    /// Another process has taken over: drills end here, and their reports go out.
    pub fn end_all_drills(&mut self, now: Duration) {
        for mut drill in std::mem::take(&mut self.drills) {
            drill.take_in(now);
            self.end_drill(&mut drill, DrillEnd::Upgrade, now);
        }
    }

    /// Gives the servers back. What their traffic said of them was the drill's doing; their probes are asked at once.
    fn end_drill(&mut self, drill: &mut Drill, end: DrillEnd, now: Duration) {
        for Carries { member, .. } in &drill.out {
            member.set_crashed(false);
            let Some((slot, _)) = Place::find(&self.places, &mut self.pools, member.id) else {
                continue;
            };
            slot.drilled = None;
            slot.forgive(now);
            if let Some(due) = slot.due {
                self.schedule.remove(&(due, member.id));
                self.schedule.insert((now, member.id));
                slot.due = Some(now);
            }
        }
        self.mark_dirty(&drill.pool.name, now);
        let report = drill.report(end, now);
        self.log_drill(drill, format!("has ended: {report}"));
        if let Some(reply) = drill.reply.take() {
            let answer = Answer::Drilled(report);
            self.actions.push_back(Action::Reply(reply, answer));
        }
    }

    fn log_drill(&mut self, drill: &Drill, what: String) {
        self.actions.push_back(Action::Log(Notice::Drill {
            pool: drill.pool.name.clone(),
            server: drill.server.as_str().into(),
            what,
        }));
    }

    /// Probes of servers that are out find nobody.
    pub(super) fn refuse_probes(&mut self, probes: Vec<(u32, u64)>, now: Duration) {
        for (id, number) in probes {
            self.handle_probed(id, number, Outcome::Failure(Cause::Refused), now);
        }
    }
}

impl Carries {
    fn new(member: &Arc<Member>) -> Self {
        Self {
            member: member.clone(),
            picks: [member.cell.picks(), 0, 0],
            active_max: 0,
        }
    }

    fn note_picks(&mut self, mark: usize) {
        self.picks[mark] = self.member.cell.picks();
    }

    /// Picks in a second before the crash.
    fn rate_before(&self, time: Duration) -> f64 {
        per_second(self.picks[1].saturating_sub(self.picks[0]), time)
    }

    /// Picks in a second from a mark until now.
    fn rate_since(&self, mark: usize, time: Duration) -> f64 {
        per_second(
            self.member.cell.picks().saturating_sub(self.picks[mark]),
            time,
        )
    }
}

impl Drill {
    /// How long the pool is watched before the crash.
    fn before(&self) -> Duration {
        self.length.min(BEFORE_MAX)
    }

    fn servers(&self) -> impl Iterator<Item = &Carries> {
        self.out.iter().chain(&self.others)
    }

    fn servers_mut(&mut self) -> impl Iterator<Item = &mut Carries> {
        self.out.iter_mut().chain(&mut self.others)
    }

    fn counts(&self) -> Counts {
        let pool = &self.pool.stats;
        let retried = |cells: &PoolCells| cells.retries.iter().map(Counter::get).sum();
        let out = self.out.iter().map(|it| &it.member.stats);
        let broken: u64 = out
            .clone()
            .map(|stats| stats.sum(|cells| cells.broken.get()))
            .sum();
        let tunnels: u64 = self
            .servers()
            .map(|it| it.member.stats.sum(|cells| cells.tunnels.get()))
            .sum();
        Counts {
            ended: pool.sum(|cells| cells.seconds.count() + cells.unserved.get()) + tunnels,
            failed: pool.sum(|cells| cells.failed.get()) + broken,
            retried: pool.sum(retried),
            in_vain: out
                .map(|stats| stats.sum(|cells| cells.classes.get(0)))
                .sum(),
        }
    }

    fn begin_crash(&mut self, now: Duration) {
        self.servers_mut().for_each(|it| it.note_picks(1));
        let counts = self.counts();
        self.crash = Some(Crash {
            at: now,
            counts,
            middle: None,
            troubled: None,
            last: counts,
            unpicked: None,
        });
    }

    /// Takes in what has happened since; whether the time is over.
    fn take_in(&mut self, now: Duration) -> bool {
        let counts = self.counts();
        let is_picked = self.out.iter().any(|it| it.member.serves(0));
        let half = self.length / 2;
        let Some(crash) = &mut self.crash else {
            return false;
        };
        if crash.last.troubles() != counts.troubles() {
            crash.troubled = Some(now);
        }
        crash.last = counts;
        if !is_picked {
            crash.unpicked.get_or_insert(now);
        }
        let age = now.saturating_sub(crash.at);
        let is_middle = crash.middle.is_none() && age >= half;
        if is_middle {
            crash.middle = Some(now);
        }
        for it in self.servers_mut() {
            it.active_max = it.active_max.max(it.member.cell.in_use());
            if is_middle {
                it.note_picks(2);
            }
        }
        age >= self.length
    }

    fn report(&self, ended_by: DrillEnd, now: Duration) -> DrillReport {
        let mut report = DrillReport {
            pool: self.pool.name.clone(),
            server: self.server.clone(),
            ended_by,
            out_ms: 0,
            requests: 0,
            failed: 0,
            retried: 0,
            in_vain: 0,
            settled_ms: None,
            unpicked_ms: None,
            before_per_second: 0.0,
            survivors: Vec::new(),
        };
        let Some(crash) = &self.crash else {
            return report;
        };
        let (watched, out) = (
            crash.at.saturating_sub(self.began),
            now.saturating_sub(crash.at),
        );
        let ms = |at: Duration| millis(at.saturating_sub(crash.at));
        report.out_ms = millis(out);
        let since =
            |count: fn(&Counts) -> u64| count(&crash.last).saturating_sub(count(&crash.counts));
        report.failed = since(|counts| counts.failed);
        report.retried = since(|counts| counts.retried);
        report.in_vain = since(|counts| counts.in_vain);
        let in_use = self.servers().map(|it| u64::from(it.member.cell.in_use()));
        let requests = since(|counts| counts.ended) + in_use.sum::<u64>();
        // What has failed may not have ended yet.
        report.requests = requests.max(report.failed);
        report.settled_ms = match crash.troubled {
            None => Some(0),
            Some(at) if now.saturating_sub(at) >= out / UNSETTLED_PART => Some(ms(at)),
            Some(_) => None,
        };
        report.unpicked_ms = crash.unpicked.map(ms);
        report.before_per_second = self.out.iter().map(|it| it.rate_before(watched)).sum();
        let (mark, since) = match crash.middle {
            Some(middle) if middle < now => (2, middle),
            _ => (1, crash.at),
        };
        let survivor = |it: &Carries| Survivor {
            server: it.member.name.clone(),
            before_per_second: it.rate_before(watched),
            after_per_second: it.rate_since(mark, now.saturating_sub(since)),
            active_max: it.active_max,
        };
        report.survivors = self.others.iter().map(survivor).collect();
        report
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// To a tenth.
fn per_second(count: u64, time: Duration) -> f64 {
    let secs = time.as_secs_f64();
    if secs > 0.0 {
        (count as f64 / secs * 10.0).round() / 10.0
    } else {
        0.0
    }
}
