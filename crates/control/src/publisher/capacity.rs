//! What pools carry, looked at once a second, and whether the rest would bear it if a server went.

use std::collections::VecDeque;
use std::time::Duration;

use super::pools::{PoolEntry, Slot};
use super::{Action, Notice, Publisher};
use crate::capacity::{Bearer, Load, Outlook, Without, hundredths, outlook};
use crate::message::Command;

/// Loads are looked at as often.
const EVERY: Duration = Duration::from_secs(1);
/// And averaged over as many looks.
const LOOKS: usize = 10;

/// What one look at a pool saw.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    /// Under way and waiting.
    load: u64,
    /// Requests that have ended, and how long they took.
    ended: u64,
    took_us: u64,
}

/// The latest looks at a pool.
#[derive(Debug, Default)]
pub(super) struct Looks(VecDeque<Look>);

impl Looks {
    fn add(&mut self, look: Look) {
        // One more than are averaged: totals are compared with those before them.
        while self.0.len() > LOOKS {
            self.0.pop_front();
        }
        self.0.push_back(look);
    }

    fn load(&self) -> Load {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return Load::default();
        };
        let latest = self.0.iter().rev().take(LOOKS);
        let (count, sum) = latest.fold((0_u64, 0_u64), |(count, sum), look| {
            (count + 1, sum + look.load)
        });
        let ended = last.ended.saturating_sub(first.ended) as f64;
        let took_ms = last.took_us.saturating_sub(first.took_us) as f64 / 1000.0;
        let secs = last.at.saturating_sub(first.at).as_secs_f64();
        Load {
            load: hundredths(sum as f64 / count as f64),
            per_second: if secs > 0.0 {
                hundredths(ended / secs)
            } else {
                0.0
            },
            mean_ms: (ended > 0.0).then(|| hundredths(took_ms / ended)),
        }
    }
}

impl Publisher {
    /// Looks at what pools carry; to be called at least once a second, and does nothing more often.
    pub fn measure(&mut self, now: Duration) {
        if self
            .measured
            .is_some_and(|at| now < at.saturating_add(EVERY))
        {
            return;
        }
        self.measured = Some(now);
        for entry in self.pools.values_mut() {
            entry.watch(now);
            if let Some(on) = entry.measure(now) {
                self.actions.push_back(Action::Log(Notice::Capacity {
                    pool: entry.state.name.clone(),
                    on,
                    outlook: entry.state.outlook(),
                }));
            }
        }
    }

    /// Why a command would do harm, if it would and is not forced.
    #[must_use]
    pub fn objection(&self, command: &Command) -> Option<String> {
        let (pool, server) = match command {
            Command::Set {
                pool,
                server,
                state,
                weight,
                force: false,
            } if state.is_some_and(|state| state != balance::State::Ready)
                || *weight == Some(0) =>
            {
                (pool, server)
            }
            Command::Drain {
                pool,
                server,
                force: false,
                ..
            }
            | Command::Drill {
                pool,
                server,
                force: false,
                ..
            } => (pool, server),
            _ => return None,
        };
        let entry = self.pools.get(pool.as_str())?;
        entry.overload(server).or_else(|| {
            // Whoever takes the only server of a pool out knows that nobody is left; whoever drills wants to see others.
            let is_known = entry.is_only(server) && !matches!(command, Command::Drill { .. });
            (entry.is_last(server) && !is_known).then(|| {
                format!("no other server of pool `{pool}` is fit to serve while `{server}` is out; {FORCE}")
            })
        })
    }
}

const FORCE: &str = "to do it all the same, force it (`--force`)";

impl PoolEntry {
    /// Takes a look; whether the alarm is on, if that changed.
    fn measure(&mut self, now: Duration) -> Option<bool> {
        let stats = &self.state.stats;
        self.looks.add(Look {
            at: now,
            load: self.under_way(),
            ended: stats.sum(|cells| cells.seconds.count()),
            took_us: stats.sum(|cells| cells.seconds.sum_us()),
        });
        let mut outlook = self.outlook();
        let was_on = self.state.outlook().is_some_and(|before| before.alarm);
        let level = self.config.capacity_alarm;
        // A pool of one server has no rest that could bear anything: that is known, and no alarm.
        outlook.alarm =
            self.slots.len() > 1 && level.is_some_and(|level| outlook.is_alarming(level, was_on));
        let is_on = outlook.alarm;
        self.state.set_outlook(outlook);
        (is_on != was_on).then_some(is_on)
    }

    /// What holds a server now, or waits for one.
    fn under_way(&self) -> u64 {
        let held: u64 = self
            .slots
            .iter()
            .map(|slot| u64::from(slot.member.cell.in_use()))
            .sum();
        held + self.state.gate.waiting() as u64
    }

    fn outlook(&self) -> Outlook {
        let fit = self.slots.iter().filter(|slot| slot.is_fit());
        let bearers: Vec<Bearer<'_>> = fit
            .map(|slot| Bearer {
                name: &slot.member.name,
                zone: slot.seat.zone.as_ref(),
                room: slot.room(),
                weight: f64::from(slot.weight()) * slot.share().factor(),
            })
            .collect();
        outlook(&bearers, self.looks.load())
    }

    /// Whether the pool has no other server.
    fn is_only(&self, server: &str) -> bool {
        self.slots.iter().all(|slot| slot.answers_to(server))
    }

    /// Whether this server is fit to serve, and no other is.
    fn is_last(&self, server: &str) -> bool {
        let mut fit = self.slots.iter().filter(|slot| slot.is_fit()).peekable();
        fit.peek().is_some() && fit.all(|slot| slot.answers_to(server))
    }

    /// Why the others would not bear what there is without this server; `None` where they would, or where that is not
    /// known.
    fn overload(&self, server: &str) -> Option<String> {
        let fit = self.slots.iter().filter(|slot| slot.is_fit());
        let (out, rest): (Vec<&Slot>, Vec<&Slot>) = fit.partition(|slot| slot.answers_to(server));
        if out.is_empty() || out.iter().any(|slot| slot.room().is_none()) {
            return None;
        }
        let rooms = rest.iter().map(|slot| slot.room().map(u64::from));
        let room = rooms.sum::<Option<u64>>()?;
        let (now, mean) = (self.under_way(), self.looks.load().load);
        let load = mean.max(now as f64);
        if load <= room as f64 {
            return None;
        }
        let servers = match rest.len() {
            0 => "no server".to_owned(),
            1 => "1 server".to_owned(),
            count => format!("{count} servers"),
        };
        let of_it = match room {
            0 => String::new(),
            room => format!(", {:.0} % of it", load * 100.0 / room as f64),
        };
        Some(format!(
            "without `{server}` pool `{}` has {servers} with room for {room} requests at once, and {now} are under way \
             ({mean} on average over the last 10 s){of_it}; {FORCE}",
            self.state.name
        ))
    }
}

impl Slot {
    /// What it may hold at once, where it or its config says so.
    pub(super) fn room(&self) -> Option<u32> {
        [self.file_room, self.own.connections_max()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The part of an outlook that is worse, in words.
#[must_use]
pub fn worst(outlook: &Outlook) -> String {
    let text = |what: &str, without: &Without| {
        let of = match (without.ratio, without.room) {
            (Some(ratio), Some(room)) => {
                format!("{:.0} % of the room for {room} that is left", ratio * 100.0)
            }
            (None, Some(_)) => "more than nothing, which is what is left".to_owned(),
            _ => "not known to fit".to_owned(),
        };
        format!(
            "without {what} `{}` the load of {} is {of}",
            without.name, outlook.load.load
        )
    };
    let (server, zone) = (&outlook.without_server, &outlook.without_zone);
    let rank = |without: &Without| match (without.ratio, without.room) {
        (Some(ratio), _) => ratio,
        (None, Some(_)) => f64::INFINITY,
        (None, None) => -1.0,
    };
    match (server, zone) {
        (Some(server), Some(zone)) if rank(zone) > rank(server) => text("zone", zone),
        (Some(server), _) => text("server", server),
        (None, Some(zone)) => text("zone", zone),
        (None, None) => "no server is fit to serve".to_owned(),
    }
}
