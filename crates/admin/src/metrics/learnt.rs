//! The families of what pools have learnt of their clients, and of how that bends their balance.

use std::sync::Arc;

use balance::learnt::Counts;
use config::Affinity;
use control::fairness::Fairness;
use control::world::World;

use super::Text;

/// A pool that binds clients, how, and how even that is.
type Bonds<'w> = (&'w Arc<str>, &'w Affinity, Option<Arc<Fairness>>);

/// Where few came of late, nothing is bent.
pub(super) fn fairness(text: &mut Text, world: &World) {
    let pools = world.snapshot.pools.iter().zip(&world.pools);
    let pools: Vec<Bonds<'_>> = pools
        .filter_map(|(config, pool)| {
            let affinity = config.affinity.as_ref()?;
            Some((&pool.name, affinity, pool.fairness()))
        })
        .collect();
    for (family, of) in [
        (
            "evenkeel_affinity_share",
            (|it: &Fairness| it.by_affinity) as fn(&Fairness) -> f64,
        ),
        ("evenkeel_affinity_bend", |it: &Fairness| it.bend),
    ] {
        text.family(family);
        for (pool, _, fairness) in &pools {
            text.sample(&[("pool", pool)], fairness.as_deref().map_or(0.0, of));
        }
    }
    let counted = || {
        let counted = pools.iter();
        let counted = counted.filter(|(_, affinity, _)| affinity.source_alarm.is_some());
        counted
            .map(|(pool, _, fairness)| (pool, fairness.as_ref().and_then(|it| it.source.as_ref())))
    };
    text.family("evenkeel_affinity_source_share");
    for (pool, source) in counted() {
        text.sample(&[("pool", pool)], source.map_or(0.0, |it| it.share));
    }
    text.family("evenkeel_affinity_source_alarm");
    for (pool, source) in counted() {
        let alarm = source.is_some_and(|it| it.alarm);
        text.sample(&[("pool", pool)], u8::from(alarm));
    }
}

pub(super) fn learnt(text: &mut Text, world: &World) {
    let pools = world.pools.iter();
    let pools: Vec<(&Arc<str>, Counts, u32)> = pools
        .filter_map(|pool| {
            let view = pool.view();
            let learnt = view.learnt.as_ref()?.learnt();
            Some((&pool.name, learnt.counts(), learnt.entries_max()))
        })
        .collect();
    text.family("evenkeel_affinity_entries");
    for (pool, counts, _) in &pools {
        text.sample(&[("pool", pool)], counts.entries);
    }
    text.family("evenkeel_affinity_entries_max");
    for (pool, _, max) in &pools {
        text.sample(&[("pool", pool)], max);
    }
    text.family("evenkeel_affinity_learnt_total");
    for (pool, counts, _) in &pools {
        for (event, total) in [
            ("learnt", counts.learnt),
            ("moved", counts.moved),
            ("evicted", counts.evicted),
            ("expired", counts.expired),
            ("forgotten", counts.removed),
            ("dropped", counts.dropped),
        ] {
            text.sample(&[("pool", pool), ("event", event)], total);
        }
    }
}
