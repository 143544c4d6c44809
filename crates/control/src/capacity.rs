//! What the rest would bear: the load that a pool has, against the room that is left without its biggest server or zone.
//!
//! Load is what is under way at once, requests and connections, those that wait included. Room is what servers may hold
//! at once; it is known where each of them says so (`max_connections`), and only then is a ratio given. Without it the
//! growth is still known: how many times as much each other server would carry.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// What a pool carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Load {
    /// Under way at once, on average over the last ten seconds.
    pub load: f64,
    /// Requests that ended in a second, on average; TCP connections are not among them.
    pub per_second: f64,
    /// How long they took from the pick of a server to the end, in milliseconds; `None` without any.
    pub mean_ms: Option<f64>,
}

/// A server that may serve.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// Where it is, if that is known.
    pub zone: Option<&'a Arc<str>>,
    /// What it may hold at once, if that is known.
    pub room: Option<u32>,
    /// What its traffic is in proportion to.
    pub weight: f64,
}

/// How a pool stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outlook {
    /// What it carries.
    #[serde(flatten)]
    pub load: Load,
    /// What its servers that may serve can hold at once; `None` if one of them does not say.
    pub room: Option<u64>,
    /// Load against room; `None` without room.
    pub ratio: Option<f64>,
    /// Without the server that would be missed most; `None` if none may serve.
    pub without_server: Option<Without>,
    /// The same for a zone, if there are several.
    pub without_zone: Option<Without>,
    /// Whether one of the two is past the pool's `capacity_alarm`.
    pub alarm: bool,
}

/// A pool without one of its parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Without {
    /// The server or zone that is thought away.
    pub name: Arc<str>,
    /// Servers that are left.
    pub servers_left: usize,
    /// What they can hold at once; `None` if one of them does not say.
    pub room: Option<u64>,
    /// The whole load against that; `None` without room, also where nobody is left.
    pub ratio: Option<f64>,
    /// How many times as much each of them would carry as now; `None` if nobody is left.
    pub growth: Option<f64>,
}

/// Servers taken together.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    servers: usize,
    weight: f64,
    room: u64,
    /// Servers that do not say what they can hold.
    unknown: usize,
}

impl Sum {
    fn add(&mut self, bearer: &Bearer<'_>) {
        self.servers += 1;
        self.weight += bearer.weight;
        self.room += u64::from(bearer.room.unwrap_or(0));
        self.unknown += usize::from(bearer.room.is_none());
    }

    fn room(&self) -> Option<u64> {
        (self.unknown == 0).then_some(self.room)
    }

    fn without(&self, name: &Arc<str>, part: &Self, load: f64) -> Without {
        let left = Self {
            servers: self.servers - part.servers,
            weight: self.weight - part.weight,
            room: self.room - part.room,
            unknown: self.unknown - part.unknown,
        };
        // Of nobody it is known that there is no room, unless nothing was known of who is gone.
        let room = left
            .room()
            .filter(|_| left.servers > 0 || part.unknown == 0);
        let grows = left.servers > 0 && left.weight > 0.0;
        Without {
            name: name.clone(),
            servers_left: left.servers,
            room,
            ratio: room.and_then(|room| ratio(load, room)),
            growth: grows.then(|| hundredths(self.weight / left.weight)),
        }
    }

    /// Whether a pool misses this part more than another one.
    fn is_bigger(&self, other: &Self, by_room: bool) -> bool {
        if by_room {
            self.room > other.room
        } else {
            self.weight > other.weight
        }
    }
}

/// How a pool of these servers stands; without its alarm, which is a matter of time too. Linear in the servers.
#[must_use]
pub fn outlook(bearers: &[Bearer<'_>], load: Load) -> Outlook {
    let mut all = Sum::default();
    let mut zones: BTreeMap<&Arc<str>, Sum> = BTreeMap::new();
    let mut servers = Vec::with_capacity(bearers.len());
    for bearer in bearers {
        all.add(bearer);
        let mut alone = Sum::default();
        alone.add(bearer);
        servers.push((bearer.name, alone));
        if let Some(zone) = bearer.zone {
            zones.entry(zone).or_default().add(bearer);
        }
    }
    let in_zones: usize = zones.values().map(|zone| zone.servers).sum();
    let several = zones.len() > 1 || (zones.len() == 1 && in_zones < all.servers);
    Outlook {
        load,
        room: all.room().filter(|_| all.servers > 0),
        ratio: all.room().and_then(|room| ratio(load.load, room)),
        without_server: biggest(&all, servers.into_iter(), load.load),
        without_zone: if several {
            biggest(&all, zones.into_iter(), load.load)
        } else {
            None
        },
        alarm: false,
    }
}

/// The pool without the part that it would miss most.
fn biggest<'a>(
    all: &Sum,
    mut parts: impl Iterator<Item = (&'a Arc<str>, Sum)>,
    load: f64,
) -> Option<Without> {
    let by_room = all.unknown == 0;
    let mut biggest = parts.next()?;
    for part in parts {
        if part.1.is_bigger(&biggest.1, by_room) {
            biggest = part;
        }
    }
    Some(all.without(biggest.0, &biggest.1, load))
}

impl Outlook {
    /// Whether a part is missed past `level`, in percent; what is on already goes off a tenth below.
    #[must_use]
    pub fn is_alarming(&self, level: u32, was_on: bool) -> bool {
        let level = f64::from(level) / 100.0 * if was_on { 0.9 } else { 1.0 };
        let parts = [&self.without_server, &self.without_zone];
        let past = |without: &Without| match (without.ratio, without.room) {
            (Some(ratio), _) => ratio >= level,
            // Room is known, and there is none of it.
            (None, Some(_)) => self.load.load > 0.0,
            (None, None) => false,
        };
        parts.into_iter().flatten().any(past)
    }
}

fn ratio(load: f64, room: u64) -> Option<f64> {
    (room > 0).then(|| hundredths(load / room as f64))
}

pub(crate) fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = (&'static str, &'static str, Option<u32>, f64);

    fn of(rows: &[Row], load: f64) -> Outlook {
        let names: Vec<(Arc<str>, Arc<str>)> = rows
            .iter()
            .map(|(name, zone, ..)| ((*name).into(), (*zone).into()))
            .collect();
        let bearers: Vec<Bearer<'_>> = rows
            .iter()
            .zip(&names)
            .map(|((_, zone, room, weight), names)| Bearer {
                name: &names.0,
                zone: (!zone.is_empty()).then_some(&names.1),
                room: *room,
                weight: *weight,
            })
            .collect();
        let load = Load {
            load,
            ..Load::default()
        };
        outlook(&bearers, load)
    }

    fn told(without: Option<Without>) -> String {
        without.map_or_else(
            || "-".to_owned(),
            |it| {
                format!(
                    "{} {} {:?} {:?} {:?}",
                    it.name, it.servers_left, it.room, it.ratio, it.growth
                )
            },
        )
    }

    #[track_caller]
    fn check(rows: &[Row], load: f64, server: &str, zone: &str) {
        let outlook = of(rows, load);
        assert_eq!(told(outlook.without_server), server);
        assert_eq!(told(outlook.without_zone), zone);
    }

    #[test]
    fn the_biggest_server_and_zone_are_thought_away() {
        check(&[], 1.0, "-", "-");
        // Alone: nothing is left.
        check(
            &[("a", "", Some(5), 1.0)],
            1.0,
            "a 0 Some(0) None None",
            "-",
        );
        check(
            &[
                ("a", "x", Some(10), 1.0),
                ("b", "y", Some(30), 3.0),
                ("c", "y", Some(20), 2.0),
            ],
            33.0,
            "b 2 Some(30) Some(1.1) Some(2.0)",
            "y 1 Some(10) Some(3.3) Some(6.0)",
        );
        // One that does not say what it can hold: only growth is known, and the heaviest is the biggest.
        check(
            &[
                ("a", "", Some(10), 1.0),
                ("b", "", None, 1.0),
                ("c", "", Some(90), 2.0),
            ],
            30.0,
            "c 2 None None Some(2.0)",
            "-",
        );
        check(
            &[("a", "", Some(10), 1.0), ("b", "", None, 2.0)],
            5.0,
            "b 1 Some(10) Some(0.5) Some(3.0)",
            "-",
        );
        // One zone, and servers without any.
        check(
            &[("a", "x", Some(4), 1.0), ("b", "", Some(4), 1.0)],
            4.0,
            "a 1 Some(4) Some(1.0) Some(2.0)",
            "x 1 Some(4) Some(1.0) Some(2.0)",
        );
        check(
            &[("a", "x", Some(4), 1.0), ("b", "x", Some(4), 1.0)],
            4.0,
            "a 1 Some(4) Some(1.0) Some(2.0)",
            "-",
        );
    }

    #[test]
    fn an_alarm_goes_on_at_its_level_and_off_a_tenth_below() {
        let rows = [("a", "", Some(10), 1.0), ("b", "", Some(10), 1.0)];
        for (load, was_on, is_on) in [
            (7.9, false, false),
            (8.0, false, true),
            (7.5, false, false),
            (7.5, true, true),
            (7.1, true, false),
        ] {
            assert_eq!(
                of(&rows, load).is_alarming(80, was_on),
                is_on,
                "{load} {was_on}"
            );
        }
        let alone = of(&rows[..1], 1.0);
        assert!(alone.is_alarming(100, false), "nothing is left");
        assert!(
            !of(&[("a", "", None, 1.0)], 1.0).is_alarming(1, false),
            "nothing is known"
        );
    }

    proptest! {
        #[test]
        fn no_other_server_leaves_less_room(rooms in prop::collection::vec(1_u32..1000, 1..20), load in 0.0..1e4) {
            let names: Vec<Arc<str>> = (0..rooms.len()).map(|at| at.to_string().into()).collect();
            let bearers: Vec<Bearer<'_>> = rooms
                .iter()
                .zip(&names)
                .map(|(room, name)| Bearer { name, zone: None, room: Some(*room), weight: 1.0 })
                .collect();
            let load = Load { load, ..Load::default() };
            let outlook = outlook(&bearers, load);
            let all: u64 = rooms.iter().map(|room| u64::from(*room)).sum();
            let biggest = u64::from(*rooms.iter().max().unwrap());
            let without = outlook.without_server.unwrap();
            prop_assert_eq!((outlook.room, without.room), (Some(all), Some(all - biggest)));
            prop_assert!(without.ratio >= outlook.ratio || without.servers_left == 0);
        }
    }
}
