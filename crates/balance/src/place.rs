//! Which part of a pool's traffic each of its servers gets: backups, priorities and zones put
//! together.
//!
//! Who is fit to serve is for [`usable`]; which of several gets one request is for the algorithm.

use std::collections::{BTreeMap, BTreeSet};

use crate::health::Verdict;
use crate::priority::{ALL, overflow, suffices};
use crate::share::Share;
use crate::usable::{Standing, Usable, usable};
use crate::zone::{ZoneWeights, own_share};

/// A server and where its config has put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat<'a> {
    /// How it stands.
    pub standing: Standing,
    /// Its group: 0 is used first.
    pub priority: u32,
    /// Used only while none of the others is fit to serve.
    pub backup: bool,
    /// Where it is, if that is known.
    pub zone: Option<&'a str>,
    /// Whether it was there when its pool began, and no probe has found it down since. Backups wait
    /// for what comes of the first probes of such servers.
    pub fresh: bool,
}

/// How a pool divides its traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Division<'a> {
    /// How many times its fair part of the traffic a server can bear; at least 1.
    pub overprovision: f64,
    /// The zone whose servers are preferred, if any is.
    pub own_zone: Option<&'a str>,
    /// What part of the pool's whole traffic comes in at the own zone, 0 to 1; `None`: as much as
    /// at each other zone.
    pub traffic: Option<f64>,
    /// See [`usable`].
    pub panic_threshold: u32,
}

/// What a pool's servers are used for.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Placement {
    /// Of each server, in the order given.
    pub roles: Vec<Role>,
    /// Whether servers are used for want of better ones.
    pub panic: bool,
}

/// What a server is used for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// It gets traffic.
    Used(Used),
    /// It may not serve now: its health, its operator or its weight speak against it.
    Unfit,
    /// It is a backup, and others serve.
    Backup,
    /// Servers of a higher priority suffice.
    Priority,
    /// Servers of the own zone suffice.
    Zone,
}

/// How much traffic a server gets, and what that comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    /// Which part of its weight counts beside other servers'; for [`Candidate`](crate::Candidate).
    pub share: Share,
    /// Its part of the pool's traffic by weight, 0 to 1.
    pub traffic: f64,
    /// What of the traffic its priority group takes, in parts of [`ALL`](crate::ALL); all if it is alone.
    pub group: u32,
    /// What of that its side takes, the own zone or all others; all if zones do not matter here.
    pub side: u32,
}

/// What there is of one priority group.
#[derive(Debug, Default)]
struct Group<'a> {
    /// Weights of all its servers.
    whole: f64,
    /// Weights in force of those that serve in the own zone, and in all others.
    own: f64,
    others: f64,
    zones: BTreeSet<Option<&'a str>>,
}

impl Default for Division<'_> {
    fn default() -> Self {
        Self {
            overprovision: 1.4,
            own_zone: None,
            traffic: None,
            panic_threshold: 0,
        }
    }
}

/// Divides a pool's traffic among its servers.
///
/// 1. Backups are used while none of the other servers is fit, and some backup is.
/// 2. Of those at hand, [`usable`] says who serves. Several priority groups whose fit servers can
///    take everything together are not in panic, however few these are.
/// 3. [`overflow`] divides the traffic between the priority groups. In a panic that has the fit serve together with
///    others, all are one group: else those of a high priority that are judged bad would take everything.
/// 4. [`own_share`] divides a group's traffic between the own zone and all others.
/// 5. There servers share by weight times [`Standing::share`]. These shares are relative: the
///    largest counts in full, so that a pool in which all warm up at once has all of its capacity.
pub fn place(seats: &[Seat<'_>], division: &Division<'_>) -> Placement {
    let side = backups_or_not(seats);
    let in_turn = |seat: &Seat<'_>| side.is_none_or(|backups| seat.backup == backups);
    let standings: Vec<Standing> = seats
        .iter()
        .map(|seat| Standing {
            weight: if in_turn(seat) {
                seat.standing.weight
            } else {
                0
            },
            ..seat.standing
        })
        .collect();
    let threshold = match division.panic_threshold {
        0 => 0,
        _ if groups_suffice(seats, &standings, division) => 0,
        threshold => threshold,
    };
    let chosen = usable(&standings, threshold);
    let mut roles = vec![Role::Unfit; seats.len()];
    for (role, seat) in roles.iter_mut().zip(seats) {
        let fit = seat.standing.is_open() && seat.standing.is_fit();
        if fit && seat.backup && !in_turn(seat) {
            *role = Role::Backup;
        }
    }
    divide(&chosen, seats, &standings, division, &mut roles);
    Placement {
        roles,
        panic: chosen.panic,
    }
}

/// Whether backups alone are used, or alone not; `None` if it makes no difference, since nobody is
/// any good.
fn backups_or_not(seats: &[Seat<'_>]) -> Option<bool> {
    if !seats.iter().any(|seat| seat.backup) {
        return None;
    }
    let any = |backup: bool, is: fn(&Seat<'_>) -> bool| {
        seats.iter().any(|seat| seat.backup == backup && is(seat))
    };
    let fit = |seat: &Seat<'_>| seat.standing.is_open() && seat.standing.is_fit();
    let unknown = |seat: &Seat<'_>| {
        let standing = &seat.standing;
        standing.is_open() && !standing.ejected && standing.verdict == Verdict::Unknown
    };
    // Waited for, unless traffic has found it failing meanwhile.
    let fresh = |seat: &Seat<'_>| {
        let standing = &seat.standing;
        let unknown = !standing.ejected && standing.verdict == Verdict::Unknown;
        seat.fresh && standing.is_open() && unknown
    };
    let answers = |seat: &Seat<'_>| seat.standing.is_open() && seat.standing.answers;
    if any(false, fit) || any(false, fresh) {
        Some(false)
    } else if any(true, fit) {
        Some(true)
    } else if any(false, unknown) {
        Some(false)
    } else if any(true, unknown) {
        Some(true)
    } else if any(false, answers) {
        Some(false)
    } else {
        None
    }
}

/// Whether there are several priority groups, and the fit servers of all can take everything.
fn groups_suffice(seats: &[Seat<'_>], standings: &[Standing], division: &Division<'_>) -> bool {
    let mut groups: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (seat, standing) in seats.iter().zip(standings) {
        let (fit, whole) = groups.entry(seat.priority).or_default();
        *whole += f64::from(standing.weight);
        if standing.is_open() && standing.is_fit() {
            *fit += f64::from(standing.weight);
        }
    }
    let healthy: Vec<f64> = groups
        .into_values()
        .filter(|(_, whole)| *whole > 0.0)
        .map(|(fit, whole)| fit / whole)
        .collect();
    healthy.len() > 1 && suffices(&healthy, division.overprovision)
}

/// Gives those chosen their roles.
fn divide(
    Usable {
        indices: chosen,
        panic,
        ..
    }: &Usable,
    seats: &[Seat<'_>],
    standings: &[Standing],
    division: &Division<'_>,
    roles: &mut [Role],
) {
    let one_group = *panic && chosen.iter().any(|index| standings[*index].is_fit());
    let group_of = |seat: &Seat<'_>| if one_group { 0 } else { seat.priority };
    let largest = chosen
        .iter()
        .map(|index| standings[*index].share.factor())
        .fold(0.0, f64::max);
    let force = |index: usize| {
        let standing = &standings[index];
        f64::from(standing.weight) * standing.share.factor() / largest
    };
    let is_own =
        |index: usize| division.own_zone.is_some() && seats[index].zone == division.own_zone;
    let mut groups: BTreeMap<u32, Group<'_>> = BTreeMap::new();
    for (seat, standing) in seats.iter().zip(standings) {
        let group = groups.entry(group_of(seat)).or_default();
        group.whole += f64::from(standing.weight);
        if standing.weight > 0 && division.own_zone.is_some() {
            group.zones.insert(seat.zone);
        }
    }
    for index in chosen {
        let group = groups.entry(group_of(&seats[*index])).or_default();
        if is_own(*index) {
            group.own += force(*index);
        } else {
            group.others += force(*index);
        }
    }
    let healthy: Vec<f64> = groups.values().map(Group::healthy).collect();
    let shares = overflow(&healthy, division.overprovision);
    let parts: BTreeMap<u32, (u32, u32, &Group<'_>)> = groups
        .iter()
        .zip(shares)
        .map(|((priority, group), share)| (*priority, (share, group.own_share(division), group)))
        .collect();
    let mut factors = Vec::with_capacity(chosen.len());
    for index in chosen {
        let Some((group_share, own, group)) = parts.get(&group_of(&seats[*index])) else {
            continue;
        };
        let (side, sum) = if is_own(*index) {
            (*own, group.own)
        } else {
            (ALL - *own, group.others)
        };
        let whole = f64::from(ALL);
        let factor = f64::from(*group_share) / whole * f64::from(side) / whole / sum
            * standings[*index].share.factor()
            / largest;
        factors.push((*index, factor, *group_share, side));
    }
    let most = factors
        .iter()
        .map(|(_, factor, ..)| *factor)
        .fold(0.0, f64::max);
    for (index, factor, group, side) in factors {
        roles[index] = if factor > 0.0 {
            Role::Used(Used {
                share: Share::exact(factor / most),
                traffic: factor * f64::from(standings[index].weight),
                group,
                side,
            })
        } else if group == 0 {
            Role::Priority
        } else {
            Role::Zone
        };
    }
}

impl Group<'_> {
    fn healthy(&self) -> f64 {
        if self.whole > 0.0 {
            ((self.own + self.others) / self.whole).min(1.0)
        } else {
            0.0
        }
    }

    /// What of the group's traffic the own zone takes.
    fn own_share(&self, division: &Division<'_>) -> u32 {
        let weights = ZoneWeights {
            own: self.own,
            others: self.others,
            whole: self.whole,
            zones: self.zones.len(),
        };
        own_share(&weights, division.traffic, division.overprovision)
    }
}

#[cfg(test)]
mod tests;
