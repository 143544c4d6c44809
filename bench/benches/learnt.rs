//! The time of one look-up in a full table of learnt bindings, alone and while another thread does the same:
//! `cargo bench -p evenkeel-bench --bench learnt`.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use balance::learnt::{Key, Secret, Table};
use criterion::{Criterion, criterion_group, criterion_main};

const ENTRIES: u32 = 100_000;
const NOW: Duration = Duration::from_secs(1000);

fn keys(from: u64) -> Vec<Key> {
    let secret = Secret::new([9; 16]);
    let numbers = from..from + u64::from(ENTRIES);
    let mut keys: Vec<Key> = numbers.map(|it| secret.key(&it.to_le_bytes())).collect();
    // In no order that the table knows of.
    keys.sort_by_key(|key| key.word().wrapping_mul(0x9e37_79b9_7f4a_7c15));
    keys
}

/// The time that each of `threads` takes for so many rounds of `look`, the longest of them.
fn beside(threads: u64, rounds: u64, look: impl Fn(usize) + Sync) -> Duration {
    let look = &look;
    let times = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut at = (thread * 50_021) as usize;
                    let started = Instant::now();
                    for _ in 0..rounds {
                        at = (at + 1) % ENTRIES as usize;
                        look(at);
                    }
                    started.elapsed()
                })
            })
            .collect();
        let times = threads.into_iter().filter_map(|thread| thread.join().ok());
        times.collect::<Vec<_>>()
    });
    times.into_iter().max().unwrap_or_default()
}

fn look_up(criterion: &mut Criterion) {
    let table = Table::new(ENTRIES, Duration::from_secs(1800));
    let (known, unknown) = (keys(0), keys(1 << 40));
    for (at, key) in known.iter().enumerate() {
        table.bind(*key, (at % 100) as u32, NOW);
    }
    let mut group = criterion.benchmark_group("learnt");
    for threads in [1, 2] {
        let find = |keys: &[Key], now: Duration, at: usize| {
            black_box(keys.get(at).and_then(|key| table.find(*key, now)));
        };
        group.bench_function(format!("find/{threads}"), |bencher| {
            bencher.iter_custom(|rounds| beside(threads, rounds, |at| find(&known, NOW, at)));
        });
        group.bench_function(format!("miss/{threads}"), |bencher| {
            bencher.iter_custom(|rounds| beside(threads, rounds, |at| find(&unknown, NOW, at)));
        });
        // Every pass over the table is at a later tick, so that each look writes.
        group.bench_function(format!("touch/{threads}"), |bencher| {
            let mut tick = 0;
            bencher.iter_custom(|rounds| {
                let passes = rounds.div_ceil(u64::from(ENTRIES));
                let pass = |number: u64| {
                    tick += 1;
                    let later = NOW + Duration::from_millis(63) * tick;
                    let left = rounds - number * u64::from(ENTRIES);
                    beside(threads, left.min(u64::from(ENTRIES)), |at| {
                        find(&known, later, at);
                    })
                };
                (0..passes).map(pass).sum()
            });
        });
    }
    group.bench_function("key/32", |bencher| {
        let secret = Secret::new([9; 16]);
        bencher.iter(|| secret.key(black_box(b"0123456789abcdef0123456789abcdef")));
    });
    group.finish();
}

criterion_group!(benches, look_up);
criterion_main!(benches);
