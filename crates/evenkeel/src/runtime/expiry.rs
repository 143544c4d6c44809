//! Says in the log which certificates from files come near their end, once a day, until the process drains.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::expiry::{Expiring, Expiry};
use control::world::{Hub, Phase};

/// A reload may bring others meanwhile, and the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

pub(super) fn start(hub: &Arc<Hub>) {
    let hub = Arc::downgrade(hub);
    drop(tokio::spawn(watch(hub)));
}

async fn watch(hub: Weak<Hub>) {
    let mut expiry = Expiry::default();
    loop {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.unwrap_or_default();
        let next = {
            let Some(hub) = hub.upgrade().filter(|it| it.phase() == Phase::Running) else {
                return;
            };
            let (expiring, next) = expiry.look(&hub.world().snapshot, wall);
            expiring.into_iter().for_each(tell);
            next
        };
        // The moment itself is not late enough.
        let until = next.map_or(LOOK_EVERY, |next| {
            next.saturating_sub(wall) + Duration::from_secs(1)
        });
        tokio::time::sleep(until.min(LOOK_EVERY)).await;
    }
}

fn tell(Expiring { file, left }: Expiring) {
    match left.map(|left| left.as_secs() / (24 * 3600)) {
        None => tracing::warn!(%file, "certificate: it has expired, and clients refuse it"),
        Some(days) => tracing::warn!(%file, days, "certificate: it expires soon"),
    }
}
