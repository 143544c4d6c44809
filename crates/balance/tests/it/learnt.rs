//! The table of what was learnt, against a plain map and under threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evenkeel_balance::learnt::{Bound, Entry, Key, Secret, Table};
use proptest::prelude::*;

const EXPIRE: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::from_secs(1000);

fn key(number: u64) -> Key {
    Secret::new([3; 16]).key(&number.to_le_bytes())
}

/// One in sixty-four of a second and a bit: so that rounding to sixteenths is seen.
fn at(step: u64) -> Duration {
    Duration::from_micros(15_700 * step)
}

fn listed(table: &Table, now: Duration) -> Vec<Entry> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let (page, next) = table.entries(from, 7, now);
        assert!(page.len() <= 7);
        all.extend(page);
        match next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

/// What the table says it is, in its simplest form; times are ticks of a sixteenth of a second.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Key, (u32, u64)>,
}

impl Model {
    fn tick(now: Duration) -> u64 {
        (now.as_nanos() * 16 / 1_000_000_000) as u64
    }

    fn peek(&self, key: Key, now: Duration) -> Option<u32> {
        let (server, used) = self.entries.get(&key)?;
        let fresh = Self::tick(now) - used <= Self::tick(EXPIRE);
        fresh.then_some(*server)
    }

    fn find(&mut self, key: Key, now: Duration) -> Option<u32> {
        let server = self.peek(key, now)?;
        self.entries.insert(key, (server, Self::tick(now)));
        Some(server)
    }

    fn bind(&mut self, key: Key, server: u32, now: Duration) -> Bound {
        let before = self.peek(key, now);
        self.entries.insert(key, (server, Self::tick(now)));
        match before {
            None => Bound::New,
            Some(from) if from == server => Bound::Same,
            Some(from) => Bound::Moved { from },
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Find(u64),
    Peek(u64),
    Bind(u64, u32),
    Remove(u64),
    RemoveServer(u32),
    Sweep,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..80u64;
    let step = prop_oneof![
        6 => number.clone().prop_map(Step::Find),
        2 => number.clone().prop_map(Step::Peek),
        6 => (number.clone(), 0..5u32).prop_map(|(key, server)| Step::Bind(key, server)),
        1 => number.prop_map(Step::Remove),
        1 => (0..5u32).prop_map(Step::RemoveServer),
        1 => Just(Step::Sweep),
        3 => (1..1500u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn it_is_a_map_that_forgets(steps in steps()) {
        let table = Table::new(400, EXPIRE);
        let mut model = Model::default();
        let mut time = 0;
        for step in steps {
            let now = at(time);
            match step {
                Step::Wait(steps) => time += steps,
                Step::Find(it) => prop_assert_eq!(table.find(key(it), now), model.find(key(it), now)),
                Step::Peek(it) => prop_assert_eq!(table.peek(key(it), now), model.peek(key(it), now)),
                Step::Bind(it, server) => {
                    let bound = model.bind(key(it), server, now);
                    prop_assert_eq!(table.bind(key(it), server, now), bound);
                }
                Step::Remove(it) => {
                    // What has expired may be there still, or not.
                    let there = model.peek(key(it), now).is_some();
                    prop_assert!(table.remove(key(it)) || !there);
                    model.entries.remove(&key(it));
                }
                Step::RemoveServer(server) => {
                    table.remove_if(|entry| entry.server == server, now);
                    model.entries.retain(|_, (of, _)| *of != server);
                }
                Step::Sweep => {
                    let mut kept = 0;
                    table.sweep(now, |_| kept += 1);
                    prop_assert_eq!(table.counts().entries, kept);
                }
            }
        }
        let now = at(time);
        let mut seen: Vec<_> = listed(&table, now).iter().map(|entry| (entry.key, entry.server)).collect();
        seen.sort_unstable();
        let keys = model.entries.keys().copied();
        let wanted: Vec<_> = keys.filter_map(|key| Some((key, model.peek(key, now)?))).collect();
        prop_assert_eq!(seen, wanted);
    }
}

#[test]
fn as_many_as_it_promises_fit() {
    let table = Table::new(100_000, EXPIRE);
    for number in 0..100_000 {
        assert_eq!(
            table.bind(key(number), (number % 7) as u32, NOW),
            Bound::New
        );
    }
    for number in 0..100_000 {
        assert_eq!(
            table.find(key(number), NOW),
            Some((number % 7) as u32),
            "{number}"
        );
    }
    assert_eq!(table.find(key(100_000), NOW), None);
    let counts = table.counts();
    assert_eq!(
        (counts.entries, counts.learnt, counts.evicted),
        (100_000, 100_000, 0)
    );
}

#[test]
fn it_is_bounded_and_those_that_come_back_stay() {
    for max in [1, 2, 10, 1000] {
        let table = Table::new(max, Duration::from_secs(100_000));
        let regulars = u64::from(max) / 10;
        for number in 0..u64::from(max) * 20 {
            let now = NOW + Duration::from_secs(number);
            table.bind(key(1_000_000 + number), 1, now);
            assert!(table.counts().entries <= u64::from(max), "{max}");
            for regular in (0..regulars).filter(|it| it % 4 == number % 4) {
                if table.find(key(regular), now).is_none() {
                    table.bind(key(regular), 2, now);
                }
            }
        }
        let counts = table.counts();
        assert_eq!(counts.entries, u64::from(max));
        assert_eq!(counts.learnt - counts.evicted, u64::from(max));
        // Each regular was learnt once: nothing that is in use gave way to what is not.
        assert_eq!(counts.learnt, u64::from(max) * 20 + regulars, "{max}");
    }
}

#[test]
fn what_is_used_does_not_expire() {
    let table = Table::new(10, EXPIRE);
    table.bind(key(1), 1, NOW);
    table.bind(key(2), 2, NOW);
    for minute in 0..5 {
        assert_eq!(table.find(key(1), NOW + EXPIRE * minute), Some(1));
        // To be shown is not to be used.
        assert_eq!(
            table.peek(key(2), NOW + EXPIRE * minute).is_some(),
            minute < 2
        );
    }
    assert_eq!(table.find(key(2), NOW + EXPIRE * 5), None);
    assert_eq!(table.find(key(1), NOW + EXPIRE * 6), None);
    let mut kept = 0;
    table.sweep(NOW + EXPIRE * 6, |_| kept += 1);
    assert_eq!(
        (kept, table.counts().entries, table.counts().expired),
        (0, 0, 2)
    );
    table.set_expire(Duration::from_secs(1));
    table.bind(key(1), 1, NOW);
    assert_eq!(table.find(key(1), NOW + Duration::from_secs(2)), None);
}

#[test]
fn a_clock_that_lags_behind_makes_nothing_old() {
    let table = Table::new(10, EXPIRE);
    table.bind(key(1), 1, NOW);
    assert_eq!(table.find(key(1), NOW - Duration::from_secs(2)), Some(1));
    assert_eq!(listed(&table, NOW - Duration::from_secs(2)).len(), 1);
}

#[test]
fn another_table_takes_over_what_this_one_knows() {
    let table = Table::new(1000, EXPIRE);
    for number in 0..500 {
        table.bind(key(number), 1, NOW + at(number));
    }
    let now = NOW + Duration::from_secs(30);
    let mut entries = listed(&table, now);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.unused));
    let other = Table::new(1000, EXPIRE);
    let later = Duration::from_secs(5);
    other.bind(key(7), 2, later);
    let taken = entries
        .iter()
        .filter(|entry| other.restore(**entry, later))
        .count();
    assert_eq!(taken, 499);
    assert_eq!(other.peek(key(7), later), Some(2), "what is newer stays");
    assert_eq!(other.peek(key(0), later + Duration::from_secs(30)), Some(1));
    assert_eq!(other.peek(key(0), later + Duration::from_secs(31)), None);
    // Into a smaller one the youngest go, as far as sets of sixteen can tell.
    let small = Table::new(100, EXPIRE);
    let kept = entries
        .iter()
        .filter(|entry| small.restore(**entry, later))
        .count();
    assert_eq!((kept, small.counts().entries), (500, 100));
    let young = (400..500).filter(|number| small.peek(key(*number), later).is_some());
    assert!(young.count() > 70);
}

#[test]
fn a_server_whose_number_is_too_large_is_not_bound() {
    let table = Table::new(10, EXPIRE);
    assert_eq!(table.bind(key(1), 1 << 20, NOW), Bound::Dropped);
    assert_eq!(table.find(key(1), NOW), None);
}

/// Every binding under way says by its server which key it is of: nobody ever reads another's.
#[test]
fn threads_never_read_what_is_anothers() {
    const KEYS: u64 = 60;
    const THREADS: u64 = 4;
    let table = &Table::new(24, EXPIRE);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = thread + 1;
                for turn in 0..60_000u64 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let number = (random >> 33) % KEYS;
                    let now = NOW + at(turn / 64);
                    let own = (number * THREADS + thread) as u32;
                    match (random >> 20) % 8 {
                        0..4 => {
                            if let Some(server) = table.find(key(number), now) {
                                assert_eq!(u64::from(server) / THREADS, number);
                            }
                        }
                        4..7 => {
                            if let Bound::Moved { from } = table.bind(key(number), own, now) {
                                assert_eq!(u64::from(from) / THREADS, number);
                            }
                        }
                        _ if turn % 64 == 0 => table.sweep(now, |_| {}),
                        _ => drop(table.remove(key(number))),
                    }
                }
            });
        }
    });
    let now = NOW + at(60_000 / 64);
    let listed = listed(table, now);
    let mut keys: Vec<Key> = listed.iter().map(|entry| entry.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), listed.len(), "no key is there twice");
    let mut left = 0;
    table.sweep(now, |_| left += 1);
    assert_eq!(table.counts().entries, left, "the count is right");
    assert!(left <= 24 + THREADS);
}

/// Whatever others do beside it, an entry that stays is found at every look, with the server it had last.
#[test]
fn threads_never_miss_what_stays() {
    let table = &Table::new(400, EXPIRE);
    let done = &AtomicBool::new(false);
    for number in 0..100 {
        table.bind(key(number), 1, NOW);
    }
    thread::scope(|scope| {
        for thread in 1..4u64 {
            scope.spawn(move || {
                let mut random = thread;
                while !done.load(Ordering::Relaxed) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let number = 1000 * thread + (random >> 33) % 60;
                    table.bind(key(number), 2, NOW);
                    table.remove(key(number));
                }
            });
        }
        for turn in 0..4000u64 {
            for number in 0..100 {
                let server = (turn / 100) as u32;
                if number == turn % 100 {
                    table.bind(key(number), server + 2, NOW + at(turn));
                }
                let found = table.find(key(number), NOW + at(turn));
                let expected = if number <= turn % 100 {
                    server + 2
                } else {
                    server + 1
                };
                assert_eq!(found, Some(expected), "{turn} {number}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(table.counts().evicted, 0);
}

/// Several threads that learn one key at the same moment leave one entry of it.
#[test]
fn one_key_learnt_by_all_at_once_is_one_entry() {
    for round in 0..300u64 {
        let table = &Table::new(16, EXPIRE);
        thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    for number in 0..6 {
                        table.bind(key(round * 10 + number), thread, NOW);
                    }
                });
            }
        });
        assert_eq!((listed(table, NOW).len(), table.counts().entries), (6, 6));
    }
}
