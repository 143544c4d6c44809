//! How much of the traffic the own zone keeps, and how much spills over to others.

use crate::priority::ALL;

/// In parts of [`ALL`]: more than what whole parts of [`Share`](crate::Share) make of them, one in 720720.
const ROUNDING: f64 = 0.02;

/// The weights of a set of servers, as the zones divide them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ZoneWeights {
    /// Of the own zone's servers that serve, at their weights in force.
    pub own: f64,
    /// Of the others that serve, the same.
    pub others: f64,
    /// Of all servers, whether they serve or not.
    pub whole: f64,
    /// Zones that have any server, the own one included.
    pub zones: usize,
}

/// What of the traffic the own zone takes, in parts of [`ALL`]; the others take the rest.
///
/// `traffic` is how much of the pool's whole traffic comes in at this zone's balancers, 0 to 1; if
/// it is not known, as much as at each of the other zones'. What the own zone can take of that is
/// `own / whole / traffic`, times `overprovision` (at least 1), up to everything: a zone with its
/// fair part of the servers keeps all of its traffic, a small or half dead one keeps only what it
/// can bear. It never takes less than it would if zones were not looked at, and all if the others
/// have nothing.
pub fn own_share(weights: &ZoneWeights, traffic: Option<f64>, overprovision: f64) -> u32 {
    let ZoneWeights {
        own,
        others,
        whole,
        zones,
    } = *weights;
    if own <= 0.0 {
        return 0;
    }
    if others <= 0.0 {
        return ALL;
    }
    let traffic = traffic
        .unwrap_or(1.0 / zones.max(1) as f64)
        .max(f64::MIN_POSITIVE);
    let bears = own / whole / traffic * overprovision.max(1.0);
    let plain = own / (own + others);
    // Rounded down, so that no more is kept than can be borne; at least 1. What weights in force are off by, being whole
    // parts of a share, is not to send a ten thousandth elsewhere.
    let share = (bears.max(plain) * f64::from(ALL) + ROUNDING).floor();
    share.clamp(1.0, f64::from(ALL)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(own: f64, others: f64, whole: f64, zones: usize, expected: u32) {
        let weights = ZoneWeights {
            own,
            others,
            whole,
            zones,
        };
        assert_eq!(own_share(&weights, None, 1.0), expected, "{weights:?}");
    }

    #[test]
    fn a_fair_zone_keeps_all_and_a_small_one_what_it_can_bear() {
        check(4.0, 8.0, 12.0, 3, 10_000);
        // Half of the own zone is dead: half of its traffic goes elsewhere.
        check(2.0, 8.0, 12.0, 3, 5_000);
        // One of nine servers where three is fair.
        check(1.0, 8.0, 9.0, 3, 3_333);
        // Others are dead: what they cannot take stays.
        check(2.0, 1.0, 12.0, 3, 6_666);
        check(2.0, 0.0, 12.0, 3, 10_000);
        check(0.0, 8.0, 12.0, 3, 0);
        check(6.0, 6.0, 12.0, 2, 10_000);
        // A slow start at 50 % of weights that come in parts of 720720.
        check(0.499_999_5, 1.0, 1.0, 2, 10_000);
    }

    #[test]
    fn the_share_of_traffic_can_be_told() {
        let weights = ZoneWeights {
            own: 1.0,
            others: 3.0,
            whole: 4.0,
            zones: 2,
        };
        assert_eq!(own_share(&weights, Some(0.25), 1.0), 10_000);
        assert_eq!(own_share(&weights, Some(1.0), 1.0), 2_500);
        assert_eq!(own_share(&weights, Some(1.0), 1.4), 3_500);
        assert_eq!(own_share(&weights, None, 1.4), 7_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_below_plain_never_above_all_and_monotone(
            own in 1_u32..100, lost in 0_u32..100, others in 1_u32..1000, dead in 0_u32..1000,
            zones in 2_usize..10, traffic in prop::option::of(0.001_f64..=1.0), factor in 1.0_f64..3.0,
        ) {
            let of = |own: u32, lost: u32| {
                let weights = ZoneWeights {
                    own: f64::from(own),
                    others: f64::from(others),
                    whole: f64::from(own + lost + others + dead),
                    zones,
                };
                own_share(&weights, traffic, factor)
            };
            let share = of(own, lost);
            let plain = f64::from(own) / f64::from(own + others) * f64::from(ALL);
            prop_assert!((1..=ALL).contains(&share));
            prop_assert!(f64::from(share) >= plain.floor());
            // One server fewer never means more.
            if own > 1 {
                prop_assert!(of(own - 1, lost + 1) <= share);
            }
        }
    }
}
