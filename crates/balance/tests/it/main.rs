//! The crate as its users see it: the examples of the manual, evenness, drain under threads.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adaptive;
mod drain;
mod even;
mod examples;
mod large;
mod learnt;
mod queue;
mod shares;
mod tried;
mod warming;

use std::sync::Arc;
use std::time::Duration;

use evenkeel_balance::{Algorithm, Candidate, Local, Rotation, Server, Share, View, hash_key};

/// A pool of one process: a view, its rotation, and one worker.
pub(crate) struct Pool {
    pub(crate) view: View,
    pub(crate) rotation: Rotation,
    pub(crate) local: Local,
    pub(crate) now: Duration,
}

impl Pool {
    /// Servers 0, 1, 2 … with these weights.
    pub(crate) fn new(algorithm: Algorithm, weights: &[u32]) -> Self {
        Self {
            view: View::build(&algorithm, candidates(weights)),
            rotation: Rotation::new(),
            local: Local::new(7),
            now: Duration::from_secs(1),
        }
    }

    pub(crate) fn pick(&mut self, key: u64) -> Option<usize> {
        self.pick_untried(key, &[])
    }

    pub(crate) fn pick_untried(&mut self, key: u64, tried: &[u32]) -> Option<usize> {
        let key = Some(hash_key(&key.to_le_bytes()));
        self.view
            .pick(&self.rotation, &mut self.local, key, tried, self.now)
    }

    pub(crate) fn server(&self, index: usize) -> &Server {
        &self.view.candidates()[index].server
    }

    /// Has the server at `index` hold `count` requests.
    pub(crate) fn hold(&self, index: usize, count: u32) {
        for _ in 0..count {
            self.server(index).acquire(None).unwrap();
        }
    }
}

pub(crate) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    weights
        .iter()
        .enumerate()
        .map(|(index, weight)| Candidate {
            server: Arc::new(Server::new()),
            id: index as u32,
            hash_name: hash_key(format!("10.0.0.{index}:8080").as_bytes()),
            weight: *weight,
            share: Share::FULL,
        })
        .collect()
}

/// Every algorithm, each option of it.
pub(crate) fn algorithms() -> Vec<Algorithm> {
    vec![
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::LeastResponseTime {
            times_connections: false,
        },
        Algorithm::LeastResponseTime {
            times_connections: true,
        },
        Algorithm::IpHash,
        Algorithm::ConsistentHash { bounded_load: None },
        Algorithm::ConsistentHash {
            bounded_load: Some(1.25),
        },
        Algorithm::Random,
        Algorithm::PowerOfTwo,
        Algorithm::Maglev,
        Algorithm::PeakEwma,
    ]
}
