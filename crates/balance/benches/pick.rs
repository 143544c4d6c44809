//! The cost of one pick, by algorithm and number of servers; and that of a view.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use evenkeel_balance::{Algorithm, Candidate, Local, Rotation, Server, Share, View, hash_key};

const SIZES: [usize; 4] = [3, 10, 100, 10_000];

fn algorithms() -> Vec<(&'static str, Algorithm)> {
    vec![
        ("round_robin", Algorithm::RoundRobin),
        ("least_connections", Algorithm::LeastConnections),
        (
            "least_response_time",
            Algorithm::LeastResponseTime {
                times_connections: true,
            },
        ),
        (
            "consistent_hash",
            Algorithm::ConsistentHash { bounded_load: None },
        ),
        (
            "bounded_load",
            Algorithm::ConsistentHash {
                bounded_load: Some(1.25),
            },
        ),
        ("random", Algorithm::Random),
        ("power_of_two", Algorithm::PowerOfTwo),
        ("maglev", Algorithm::Maglev),
        ("peak_ewma", Algorithm::PeakEwma),
    ]
}

/// Servers of weights 1 to 5, each with requests in use and an average.
fn candidates(count: usize) -> Vec<Candidate> {
    (0..count)
        .map(|index| {
            let server = Server::new();
            for _ in 0..index % 7 {
                let _ = server.acquire(None);
            }
            server.record_latency(
                Duration::ZERO,
                Duration::from_micros(500 + index as u64 % 100),
            );
            Candidate {
                server: Arc::new(server),
                id: index as u32,
                hash_name: hash_key(&index.to_le_bytes()),
                weight: 1 + index as u32 % 5,
                share: Share::FULL,
            }
        })
        .collect()
}

fn pick(criterion: &mut Criterion) {
    for (name, algorithm) in algorithms() {
        let mut group = criterion.benchmark_group(name);
        for size in SIZES {
            let view = View::build(&algorithm, candidates(size));
            let (rotation, mut local) = (Rotation::new(), Local::new(1));
            let now = Duration::from_secs(1);
            let mut key = 0_u64;
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    view.pick(black_box(&rotation), &mut local, Some(key), &[], now)
                });
            });
        }
        group.finish();
    }
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build_10000");
    group.sample_size(10);
    for (name, algorithm) in algorithms() {
        let candidates = candidates(10_000);
        group.bench_function(name, |bencher| {
            bencher.iter(|| View::build(&algorithm, candidates.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, pick, build);
criterion_main!(benches);
