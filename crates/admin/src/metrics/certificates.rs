//! Certificates: until when each is good, and how those stand that an authority gives.

use std::collections::BTreeMap;
use std::time::Duration;

use control::acme::{Board, State};
use control::world::World;

use super::Text;

pub(super) fn certificates(text: &mut Text, world: &World, board: &Board) {
    let statuses = board.all();
    text.family("evenkeel_certificate_expiry_seconds");
    for listener in &world.snapshot.listeners {
        let mut shown: BTreeMap<&str, Duration> = BTreeMap::new();
        for tls in listener.tls.iter().flatten() {
            let files = tls.certificates.iter();
            shown.extend(files.map(|it| (&*it.file, it.not_after)));
            for acme in tls.acme.iter() {
                let of_listener = statuses
                    .iter()
                    .filter(|status| acme.domains.contains(&status.domain));
                let of_listener =
                    of_listener.filter(|status| *status.file == *acme.issuer.file(&status.domain));
                shown.extend(of_listener.filter_map(|it| Some((&*it.file, it.not_after?))));
            }
        }
        for (file, not_after) in shown {
            let labels = [("listener", &*listener.name), ("file", file)];
            text.sample(&labels, not_after.as_secs());
        }
    }
    let counts = board.counts();
    text.family("evenkeel_acme_orders_total");
    for ((domain, authority), issued, failed) in &counts {
        for (result, count) in [("issued", issued), ("failed", failed)] {
            let labels = [
                ("domain", &**domain),
                ("authority", authority),
                ("result", result),
            ];
            text.sample(&labels, count);
        }
    }
    // Two stores may hold a certificate of one authority for the same name: the worse one counts.
    let mut worst: BTreeMap<(&str, &str), (u32, bool)> = BTreeMap::new();
    for status in &statuses {
        let key = (&*status.domain, &*status.authority);
        let (failures, is_valid) = worst.entry(key).or_insert((0, true));
        *failures = (*failures).max(status.failures);
        *is_valid &= status.state == State::Valid;
    }
    text.family("evenkeel_acme_failures");
    for ((domain, authority), (failures, _)) in &worst {
        text.sample(&[("domain", domain), ("authority", authority)], failures);
    }
    text.family("evenkeel_acme_valid");
    for ((domain, authority), (_, is_valid)) in &worst {
        let labels = [("domain", *domain), ("authority", authority)];
        text.sample(&labels, u8::from(*is_valid));
    }
}
