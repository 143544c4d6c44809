//! Which part of a pool's traffic each server is due, worked out in the plainest way: backups, panic, priorities, zones.

use std::collections::{BTreeMap, BTreeSet};

/// A server as the division sees it.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) id: u32,
    pub(super) weight: f64,
    /// Its operator, its own word and its weight let it serve.
    pub(super) open: bool,
    /// Which part of the weight it has for now.
    pub(super) part: f64,
    pub(super) standing: Standing,
    pub(super) answers: bool,
    pub(super) fresh: bool,
    pub(super) priority: u32,
    pub(super) backup: bool,
    pub(super) zone: Option<u32>,
}

/// What is held of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Fit,
    Unknown,
    /// By probes or by traffic.
    Bad,
}

/// What a server may be.
type Is<'a> = &'a dyn Fn(&Seat) -> bool;

/// How the pool divides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) panic_threshold: u32,
    pub(super) overprovision: f64,
    pub(super) own_zone: bool,
}

impl Seat {
    fn is(&self, standing: Standing) -> bool {
        self.open && self.standing == standing
    }

    fn bad_and_answers(&self) -> bool {
        self.is(Standing::Bad) && self.answers
    }
}

/// The part of each server that gets any; all together are 1.
pub(super) fn due(seats: &[Seat], rules: Rules) -> BTreeMap<u32, f64> {
    let side: Vec<&Seat> = match backups(seats) {
        None => seats.iter().collect(),
        Some(side) => seats.iter().filter(|it| it.backup == side).collect(),
    };
    let (chosen, together) = chosen(&side, rules);
    let group = |seat: &Seat| if together { 0 } else { seat.priority };
    let largest = chosen.iter().map(|it| it.part).fold(0.0, f64::max);
    let force = |seat: &Seat| seat.weight * seat.part / largest;
    let mut groups: BTreeMap<u32, Vec<&Seat>> = BTreeMap::new();
    for seat in &side {
        groups.entry(group(seat)).or_default().push(seat);
    }
    let able: Vec<f64> = groups
        .values()
        .map(|all| {
            let whole: f64 = all.iter().map(|it| it.weight).sum();
            let able: f64 = picked(all, &chosen).map(force).sum();
            if whole > 0.0 { able / whole } else { 0.0 }
        })
        .collect();
    let parts = overflow(&able, rules.overprovision);
    let mut due = BTreeMap::new();
    for (all, part) in groups.values().zip(parts) {
        let (near, far): (Vec<&Seat>, Vec<&Seat>) =
            picked(all, &chosen).partition(|seat| rules.own_zone && seat.zone == Some(0));
        let sum = |side: &[&Seat]| side.iter().map(|it| force(it)).sum::<f64>();
        let kept = kept(all, sum(&near), sum(&far), rules.overprovision);
        for (side, of_group) in [(&near, kept), (&far, 1.0 - kept)] {
            for seat in side {
                let traffic = part * of_group * force(seat) / sum(side);
                if traffic > 0.0 {
                    due.insert(seat.id, traffic);
                }
            }
        }
    }
    due
}

fn picked<'a>(all: &'a [&'a Seat], chosen: &'a [&'a Seat]) -> impl Iterator<Item = &'a Seat> {
    let ids: BTreeSet<u32> = chosen.iter().map(|it| it.id).collect();
    let all = all.iter().copied();
    all.filter(move |seat| ids.contains(&seat.id))
}

/// Whether backups alone are used, or alone not.
fn backups(seats: &[Seat]) -> Option<bool> {
    if seats.iter().all(|it| !it.backup) {
        return None;
    }
    let any = |backup: bool, is: Is<'_>| seats.iter().any(|it| it.backup == backup && is(it));
    let order: [(bool, Is<'_>); 6] = [
        (false, &|it| it.is(Standing::Fit)),
        (false, &|it| it.is(Standing::Unknown) && it.fresh),
        (true, &|it| it.is(Standing::Fit)),
        (false, &|it| it.is(Standing::Unknown)),
        (true, &|it| it.is(Standing::Unknown)),
        (false, &|it| it.open && it.answers),
    ];
    let first = order.iter().find(|(backup, is)| any(*backup, *is));
    first.map(|(backup, _)| *backup)
}

/// Who serves, and whether they do so as one group.
fn chosen<'a>(side: &[&'a Seat], rules: Rules) -> (Vec<&'a Seat>, bool) {
    let of = |is: Is<'_>| -> Vec<&'a Seat> {
        let side = side.iter().copied();
        side.filter(|it| it.open && is(it)).collect()
    };
    let open = of(&|_| true).len() as f64;
    let not_bad = of(&|it| it.standing != Standing::Bad).len() as f64;
    let low = not_bad * 100.0 < open * f64::from(rules.panic_threshold);
    if rules.panic_threshold > 0
        && low
        && !of(&Seat::bad_and_answers).is_empty()
        && !suffices(side, rules.overprovision)
    {
        let fit = |it: &Seat| it.is(Standing::Fit);
        let together = !of(&fit).is_empty();
        return (of(&|it| fit(it) || it.bad_and_answers()), together);
    }
    let classes: [Is<'_>; 4] = [
        &|it| it.standing == Standing::Fit,
        &|it| it.standing == Standing::Unknown,
        &|it| it.answers,
        &|_| true,
    ];
    let found = classes.iter().map(|is| of(*is)).find(|it| !it.is_empty());
    (found.unwrap_or_default(), false)
}

/// Whether there are several groups, and the fit of all can take everything.
fn suffices(side: &[&Seat], overprovision: f64) -> bool {
    let mut groups: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for seat in side {
        let (fit, whole) = groups.entry(seat.priority).or_default();
        *whole += seat.weight;
        if seat.is(Standing::Fit) {
            *fit += seat.weight;
        }
    }
    let groups = groups.values().filter(|(_, whole)| *whole > 0.0);
    let able: Vec<f64> = groups.map(|(fit, whole)| fit / whole).collect();
    let sum: f64 = able.iter().map(|it| bears(*it, overprovision)).sum();
    able.len() > 1 && sum > 0.999_99
}

/// What a group can take of all: in hundredths of a percent, rounded up.
fn bears(able: f64, overprovision: f64) -> f64 {
    ((able * overprovision * 10_000.0 - 1e-6).ceil() / 10_000.0).clamp(0.0, 1.0)
}

fn overflow(able: &[f64], overprovision: f64) -> Vec<f64> {
    let bears: Vec<f64> = able.iter().map(|it| bears(*it, overprovision)).collect();
    let sum: f64 = bears.iter().sum();
    if sum < 0.999_99 {
        return bears.iter().map(|it| it / sum.max(1e-9)).collect();
    }
    let mut left = 1.0;
    bears
        .iter()
        .map(|bears| {
            let takes = bears.min(left);
            left -= takes;
            if left < 1e-9 {
                left = 0.0;
            }
            takes
        })
        .collect()
}

/// What the own zone keeps of a group's traffic: in hundredths of a percent, rounded down.
fn kept(all: &[&Seat], near: f64, far: f64, overprovision: f64) -> f64 {
    if near <= 0.0 {
        return 0.0;
    }
    if far <= 0.0 {
        return 1.0;
    }
    let weighed = all.iter().filter(|it| it.weight > 0.0);
    let zones: BTreeSet<Option<u32>> = weighed.map(|it| it.zone).collect();
    let whole: f64 = all.iter().map(|it| it.weight).sum();
    let bears = near / whole * zones.len() as f64 * overprovision;
    let kept = bears.max(near / (near + far));
    ((kept * 10_000.0 + 0.02).floor() / 10_000.0).clamp(0.0001, 1.0)
}
