//! The families of capacity: what pools carry, and whether the rest would bear it.

use std::sync::Arc;

use control::capacity::{Outlook, Without};
use control::world::World;

use super::Text;

pub(super) fn capacity(text: &mut Text, world: &World) {
    let pools = world.pools.iter();
    let pools: Vec<(&Arc<str>, Arc<Outlook>)> = pools
        .filter_map(|pool| Some((&pool.name, pool.outlook()?)))
        .collect();
    text.family("evenkeel_pool_load");
    for (pool, outlook) in &pools {
        text.sample(&[("pool", pool)], outlook.load.load);
    }
    text.family("evenkeel_pool_room");
    for (pool, outlook) in &pools {
        if let Some(room) = outlook.room {
            text.sample(&[("pool", pool)], room);
        }
    }
    text.family("evenkeel_pool_load_ratio");
    for (pool, outlook) in &pools {
        let left = |without: &Option<Without>| without.as_ref().and_then(ratio);
        for (without, ratio) in [
            ("none", outlook.ratio),
            ("server", left(&outlook.without_server)),
            ("zone", left(&outlook.without_zone)),
        ] {
            if let Some(ratio) = ratio {
                let ratio = if ratio.is_finite() {
                    ratio.to_string()
                } else {
                    "+Inf".to_owned()
                };
                text.sample(&[("pool", pool), ("without", without)], ratio);
            }
        }
    }
    text.family("evenkeel_pool_capacity_alarm");
    for (pool, outlook) in &pools {
        text.sample(&[("pool", pool)], u8::from(outlook.alarm));
    }
}

/// Without bound where nothing is left.
fn ratio(without: &Without) -> Option<f64> {
    match (without.ratio, without.room) {
        (None, Some(_)) => Some(f64::INFINITY),
        (ratio, _) => ratio,
    }
}
