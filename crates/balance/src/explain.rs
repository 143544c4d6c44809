//! Why a pick fell on one server and not on another.

use std::fmt;
use std::time::Duration;

use crate::latency::stamp;
use crate::local::Local;
use crate::rotation::{Rotation, Turns};
use crate::server::State;
use crate::view::{Measure, Plan, Request, View};

/// What the next pick would choose, and what spoke against the others.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The index of the candidate that would be picked.
    pub picked: Option<usize>,
    /// A word for each candidate, in their order.
    pub candidates: Vec<Why>,
}

/// What a pick has to say about one candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// It is picked.
    Picked,
    /// This request has been to it.
    Tried,
    /// Its operator drains it.
    Draining,
    /// Its operator disabled it.
    Disabled,
    /// Round robin is at another server.
    NotItsTurn,
    /// The draw did not fall on it.
    NotDrawn,
    /// The key's place is another server's, or this one is past its bounded load.
    KeyElsewhere,
    /// Another has fewer requests in use per weight, or as many and was picked longer ago.
    Busier {
        /// Its requests in use.
        in_use: u32,
        /// Its weight.
        weight: u32,
    },
    /// Another answers faster, by the measure of the algorithm.
    Slower {
        /// Its average; zero if never measured.
        latency: Duration,
        /// Its requests in use.
        in_use: u32,
        /// Its weight.
        weight: u32,
    },
}

impl View {
    /// What [`View::pick`] would choose with the same arguments, and why. Changes nothing that a
    /// later pick sees.
    pub fn explain(
        &self,
        rotation: &Rotation,
        local: &Local,
        key: Option<u64>,
        tried: &[u32],
        now: Duration,
    ) -> Explanation {
        let request = Request {
            key,
            tried,
            now: stamp(now),
        };
        let mut local = local.clone();
        let turn = if tried.is_empty() {
            rotation.turns()
        } else {
            rotation.further_turns()
        };
        let choice = self.choose(&mut Turns::Peeked(turn), &mut local, &request);
        let candidates = (0..self.len())
            .map(|index| match choice {
                Some(choice) if choice.index == index => Why::Picked,
                _ => self.against(index, choice.and_then(|choice| choice.other), tried),
            })
            .collect();
        Explanation {
            picked: choice.map(|choice| choice.index),
            candidates,
        }
    }

    /// What spoke against the candidate at `index`; `other` lost a draw of two.
    fn against(&self, index: usize, other: Option<usize>, tried: &[u32]) -> Why {
        let candidate = &self.candidates[index];
        if tried.contains(&candidate.id) {
            return Why::Tried;
        }
        match candidate.server.state() {
            State::Ready => {}
            State::Drain => return Why::Draining,
            State::Disabled => return Why::Disabled,
        }
        let (in_use, weight) = (candidate.server.in_use(), candidate.weight);
        match &self.plan {
            Plan::Turns(_) => Why::NotItsTurn,
            Plan::Ring(..) | Plan::Maglev(_) => Why::KeyElsewhere,
            Plan::Random => Why::NotDrawn,
            Plan::Two(_) if other != Some(index) => Why::NotDrawn,
            Plan::Least(Measure::Connections) | Plan::Two(Measure::Connections) => {
                Why::Busier { in_use, weight }
            }
            Plan::Least(Measure::PeakTimesConnections)
            | Plan::Two(Measure::PeakTimesConnections) => Why::Slower {
                latency: candidate.server.peak_latency(),
                in_use,
                weight,
            },
            Plan::Least(_) | Plan::Two(_) => Why::Slower {
                latency: candidate.server.latency(),
                in_use,
                weight,
            },
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Picked => f.write_str("picked"),
            Self::Tried => f.write_str("tried before"),
            Self::Draining => f.write_str("draining"),
            Self::Disabled => f.write_str("disabled"),
            Self::NotItsTurn => f.write_str("not its turn"),
            Self::NotDrawn => f.write_str("not drawn"),
            Self::KeyElsewhere => f.write_str("the key belongs elsewhere"),
            Self::Busier { in_use, weight } => {
                write!(
                    f,
                    "busier or picked later: {in_use} in use, weight {weight}"
                )
            }
            Self::Slower {
                latency,
                in_use,
                weight,
            } => {
                write!(
                    f,
                    "slower or picked later: {latency:?} on average, {in_use} in use, weight {weight}"
                )
            }
        }
    }
}
