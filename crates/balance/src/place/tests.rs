//! Tables and properties: what part of the traffic each server gets.

use proptest::prelude::*;

use super::*;
use crate::server::State;

/// `h`ealthy, `u`nknown, `f`resh and unknown, `a`nswers badly, `x` does not answer, `d`raining; then `e`jected, `1`… its
/// priority, `b` a backup, `o`wn zone, `z` another, `%` at a tenth of its weight, `w` of weight 3.
fn seat(word: &str) -> Seat<'static> {
    let has = |letter| word.contains(letter);
    Seat {
        standing: Standing {
            verdict: match &word[..1] {
                "u" | "f" => Verdict::Unknown,
                "a" | "x" => Verdict::Unhealthy,
                _ => Verdict::Healthy,
            },
            answers: has('h') || has('a') || has('d'),
            state: if has('d') { State::Drain } else { State::Ready },
            weight: if has('w') { 3 } else { 1 },
            ejected: has('e'),
            share: Share::exact(if has('%') { 0.1 } else { 1.0 }),
        },
        priority: word.chars().find_map(|c| c.to_digit(10)).unwrap_or(0),
        backup: has('b'),
        zone: match (has('o'), has('z')) {
            (true, _) => Some("own"),
            (_, true) => Some("other"),
            _ => None,
        },
        fresh: has('f'),
    }
}

fn seats(words: &str) -> Vec<Seat<'static>> {
    words.split_whitespace().map(seat).collect()
}

/// Percents of the traffic, or why there is none: `-` unfit, `b`ackup, `p`riority, `z`one.
fn shown(placement: &Placement) -> String {
    let role = |role: &Role| match role {
        Role::Used(used) => format!("{:.0}", used.traffic * 100.0),
        Role::Unfit => "-".to_owned(),
        Role::Backup => "b".to_owned(),
        Role::Priority => "p".to_owned(),
        Role::Zone => "z".to_owned(),
    };
    let roles: Vec<_> = placement.roles.iter().map(role).collect();
    format!(
        "{}{}",
        roles.join(" "),
        if placement.panic { " !" } else { "" }
    )
}

fn check_with(words: &str, division: &Division<'_>, expected: &str) {
    assert_eq!(shown(&place(&seats(words), division)), expected, "{words}");
}

fn check(words: &str, expected: &str) {
    check_with(words, &Division::default(), expected);
}

#[test]
fn equals_share_by_weight() {
    check("", "");
    check("h h x", "50 50 -");
    check("h hw", "25 75");
    check("d x", "- 100 !");
}

#[test]
fn priorities_overflow_in_proportion() {
    check("h h h1 h1", "50 50 p p");
    check("h x h1 h1", "70 - 15 15");
    check("h d h1", "70 - 30");
    check("x x h1 h1", "- - 50 50");
    check("x x h1 x1 h7", "- - 70 - 30");
    check("a x a1", "70 - 30 !");
}

#[test]
fn backups_stand_in_only_for_want_of_others() {
    check("h x hb", "100 - b");
    check("x x hb hb", "- - 50 50");
    check("x x hb hb1", "- - 100 p");
    check("x x1 hb", "- - 100");
    check("d hb", "- 100");
    // One that a reload brings waits for its first probe; one there from the start is waited for.
    check("u hb", "- 100");
    check("f hb", "100 b");
    check("f ub", "100 -");
    // Unless traffic has found it failing: found by the simulator.
    check("fe ub", "- 100");
    check("fe hb", "- 100");
    check("x ub", "- 100");
    check("a xb", "100 - !");
    check("x xb", "50 50 !");
    check("hb hb", "50 50");
}

#[test]
fn the_own_zone_is_preferred_as_far_as_it_bears() {
    let prefer = Division {
        own_zone: Some("own"),
        overprovision: 1.0,
        ..Division::default()
    };
    let check = |words, expected| check_with(words, &prefer, expected);
    check("ho ho hz hz", "50 50 z z");
    check("ho xo hz hz", "50 - 25 25");
    check("ho hz hz hz", "50 17 17 17");
    check("xo xo hz hz", "- - 50 50");
    check("ho ho xz xz", "50 50 - -");
    check("ho h h h", "50 17 17 17");
    check("hz hz", "50 50");
    // Within each priority group.
    check("xo hz ho1 hz1", "- 50 50 z");
    let told = Division {
        traffic: Some(1.0),
        ..prefer.clone()
    };
    check_with("ho hz hz hz", &told, "25 25 25 25");
}

#[test]
fn a_server_that_warms_up_counts_for_what_it_has() {
    check("h h%", "91 9");
    // All at once: none is behind.
    check("h% h%", "50 50");
    // Those that come back are given back their traffic little by little.
    check("h% h% h1", "7 7 86");
    // The one that comes back takes load from the other group before it takes it from its own.
    check("h x h1 h1", "70 - 15 15");
    check("h h% h1 h1", "70 7 12 12");
    check("h% h1", "14 86");
}

#[test]
fn groups_that_suffice_are_not_in_panic() {
    let half = Division {
        panic_threshold: 50,
        ..Division::default()
    };
    check_with("a a a h1", &half, "- - - 100");
    check_with("a a a h", &half, "25 25 25 25 !");
    check_with("a a h1 x1 x1 x1", &half, "33 33 33 - - - !");
}

#[test]
fn where_nothing_sets_servers_apart_weights_stand_as_they_are() {
    let placement = place(&seats("h hw x h"), &Division::default());
    for role in &placement.roles {
        if let Role::Used(used) = role {
            assert!(used.share.is_full());
            assert_eq!((used.group, used.side), (ALL, ALL));
        }
    }
}

fn any_seat() -> impl Strategy<Value = Seat<'static>> {
    let state = prop_oneof![4 => Just("h"), 1 => Just("u"), 1 => Just("f"), 1 => Just("a"), 1 => Just("x"), 1 => Just("d")];
    let rest = ("[012]?", "[oz]?", "b?", "%?", "w?");
    (state, rest).prop_map(|(state, (priority, zone, backup, part, weight))| {
        seat(&format!("{state}{priority}{zone}{backup}{part}{weight}"))
    })
}

fn any_division() -> impl Strategy<Value = Division<'static>> {
    (
        1.0_f64..3.0,
        prop::option::of(Just("own")),
        prop::option::of(0.01_f64..=1.0),
        0_u32..=100,
    )
        .prop_map(
            |(overprovision, own_zone, traffic, panic_threshold)| Division {
                overprovision,
                own_zone,
                traffic,
                panic_threshold,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn all_traffic_goes_somewhere_and_only_where_it_may(
        seats in prop::collection::vec(any_seat(), 0..12), division in any_division(),
    ) {
        let placement = place(&seats, &division);
        prop_assert_eq!(placement.roles.len(), seats.len());
        let mut sum = 0.0;
        let fit = |seat: &Seat<'_>| seat.standing.is_open() && seat.standing.is_fit();
        for (role, seat) in placement.roles.iter().zip(&seats) {
            let Role::Used(used) = role else { continue };
            sum += used.traffic;
            prop_assert!(used.traffic > 0.0);
            prop_assert!(seat.standing.is_open(), "only who may serve");
            if !placement.panic && seats.iter().any(fit) {
                let waits = seats.iter().any(|it| !it.backup && it.fresh);
                prop_assert!(fit(seat) || waits, "only the fit while there are any");
            }
            if seat.backup {
                prop_assert!(!seats.iter().any(|it| !it.backup && fit(it)), "no backup without need");
            }
        }
        if seats.iter().any(|seat| seat.standing.is_open()) {
            prop_assert!((sum - 1.0).abs() < 1e-6, "{}", sum);
        } else {
            prop_assert_eq!(sum, 0.0);
        }
    }

    /// The weights that a view gets are in proportion to the traffic that is meant.
    #[test]
    fn shares_give_the_traffic(seats in prop::collection::vec(any_seat(), 1..12), division in any_division()) {
        let placement = place(&seats, &division);
        let used: Vec<(f64, f64)> = placement.roles.iter().zip(&seats).filter_map(|(role, seat)| match role {
            Role::Used(used) => Some((used.traffic, used.share.factor() * f64::from(seat.standing.weight))),
            _ => None,
        }).collect();
        let sum: f64 = used.iter().map(|(_, weight)| weight).sum();
        for (traffic, weight) in &used {
            prop_assert!((weight / sum - traffic).abs() < 1e-3, "{} for {}", weight / sum, traffic);
        }
    }
}
