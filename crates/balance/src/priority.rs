//! How traffic overflows from one priority group to the next.

/// All of the traffic, in the unit of [`overflow`] and [`own_share`](crate::own_share).
pub const ALL: u32 = 10_000;

/// What of the traffic each group takes, first priority first, given how much of each is healthy (0
/// to 1, by weight); in hundredths of a percent.
///
/// A group takes its healthy share times `overprovision` (at least 1), up to everything; what is
/// left overflows to the next. If all of them together cannot take everything, each takes in
/// proportion to what it could. So the sum is [`ALL`], unless nothing at all is healthy.
pub fn overflow(healthy: &[f64], overprovision: f64) -> Vec<u32> {
    let limits: Vec<u32> = healthy
        .iter()
        .map(|share| limit(*share, overprovision))
        .collect();
    let sum: u32 = limits.iter().sum();
    if sum == 0 {
        return limits;
    }
    if sum < ALL {
        return scaled(&limits, sum);
    }
    let mut left = ALL;
    limits
        .iter()
        .map(|limit| {
            let taken = left.min(*limit);
            left -= taken;
            taken
        })
        .collect()
}

/// Whether the groups together could take everything, so that no panic is called for.
pub(crate) fn suffices(healthy: &[f64], overprovision: f64) -> bool {
    let sum: u32 = healthy.iter().map(|it| limit(*it, overprovision)).sum();
    sum >= ALL
}

/// What a group can take; above 0 if any of it is healthy.
fn limit(healthy: f64, overprovision: f64) -> u32 {
    // The epsilon takes 7000.000…01 for 7000.
    let limit = (healthy * overprovision.max(1.0) * f64::from(ALL) - 1e-6).ceil();
    if healthy > 0.0 {
        limit.clamp(1.0, f64::from(ALL)) as u32
    } else {
        0
    }
}

/// The same proportions with all as their sum; what rounding leaves over goes to the first group that
/// has any.
fn scaled(limits: &[u32], sum: u32) -> Vec<u32> {
    let mut shares: Vec<u32> = limits.iter().map(|limit| limit * ALL / sum).collect();
    let left = ALL - shares.iter().sum::<u32>();
    if let Some(first) = shares.iter_mut().find(|share| **share > 0) {
        *first += left;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(healthy: &[f64], expected: &[u32]) {
        let expected: Vec<u32> = expected.iter().map(|percent| percent * 100).collect();
        assert_eq!(overflow(healthy, 1.4), expected, "{healthy:?}");
    }

    #[test]
    fn a_group_takes_what_it_can_and_the_rest_overflows() {
        check(&[], &[]);
        check(&[1.0, 1.0], &[100, 0]);
        // 72 % healthy is enough for everything.
        check(&[0.72, 1.0], &[100, 0]);
        check(&[0.5, 1.0], &[70, 30]);
        check(&[0.25, 0.5, 1.0], &[35, 65, 0]);
        check(&[0.25, 0.25, 1.0], &[35, 35, 30]);
        check(&[0.0, 1.0], &[0, 100]);
        check(&[0.0, 0.0], &[0, 0]);
        // Too little everywhere: in proportion.
        check(&[0.25, 0.25], &[50, 50]);
        check(&[0.1, 0.3], &[25, 75]);
        check(&[0.0, 0.1], &[0, 100]);
    }

    fn groups() -> impl Strategy<Value = Vec<f64>> {
        let share = prop_oneof![Just(0.0), Just(1.0), 0.0_f64..=1.0];
        prop::collection::vec(share, 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_is_taken_and_nothing_by_the_dead(healthy in groups(), factor in 1.0_f64..3.0) {
            let shares = overflow(&healthy, factor);
            let any = healthy.iter().any(|share| *share > 0.0);
            prop_assert_eq!(shares.iter().sum::<u32>(), if any { ALL } else { 0 });
            for (share, healthy) in shares.iter().zip(&healthy) {
                prop_assert!(*healthy > 0.0 || *share == 0);
            }
        }

        /// As the first group loses servers it takes less, and no other group does.
        #[test]
        fn overflow_is_monotone(healthy in groups(), less in 0.0_f64..=1.0, factor in 1.0_f64..3.0) {
            let mut fewer = healthy.clone();
            fewer[0] *= less;
            let (before, after) = (overflow(&healthy, factor), overflow(&fewer, factor));
            prop_assert!(after[0] <= before[0]);
            // While they suffice the others take all that the first leaves.
            if suffices(&fewer, factor) {
                for (after, before) in after.iter().zip(&before).skip(1) {
                    prop_assert!(after >= before);
                }
            }
        }

        /// A later group is used only when all before it are at what they can take.
        #[test]
        fn no_group_is_used_before_its_time(healthy in groups(), factor in 1.0_f64..3.0) {
            let shares = overflow(&healthy, factor);
            if suffices(&healthy, factor) {
                let last = shares.iter().rposition(|share| *share > 0).unwrap();
                for at in 0..last {
                    prop_assert_eq!(shares[at], limit(healthy[at], factor));
                }
            }
        }
    }
}
