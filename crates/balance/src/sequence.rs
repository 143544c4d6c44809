//! The order of round robin: which server has turn `t`, in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::spread::{Spread, reduced};

/// The longest period that is written out, in turns of four bytes.
const LISTED_MAX: u64 = 16_384;
/// How many strides are looked at for the one that mixes best.
const STRIDES: u64 = 256;

/// A periodic order in which every period holds each server exactly as often as its weight says.
#[derive(Debug)]
pub(crate) enum Sequence {
    /// Written out: a server has at any point had less than one turn more or less than its share.
    Listed(Vec<u32>),
    /// For longer periods: turn `t` falls on slot `t × stride` of the weights laid end to end. The
    /// stride shares no divisor with their total, so each slot has one turn in a period, and is
    /// near the golden section of it, so that the turns of a server lie far apart.
    Strided { spread: Spread, stride: u64 },
}

impl Sequence {
    /// `weights` are above 0.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let spread = Spread::new(weights);
        if spread.total() <= LISTED_MAX {
            return Self::Listed(smooth(&reduced(weights), spread.total()));
        }
        let stride = golden_stride(spread.total());
        Self::Strided { spread, stride }
    }

    /// The server whose turn it is; `None` if there is none at all.
    pub(crate) fn at(&self, turn: u64) -> Option<usize> {
        match self {
            Self::Listed(turns) => {
                let at = turn.checked_rem(turns.len() as u64)?;
                turns.get(at as usize).map(|index| *index as usize)
            }
            Self::Strided { spread, stride } => {
                let total = u128::from(spread.total());
                let turn = u128::from(turn).checked_rem(total)?;
                Some(spread.at((turn * u128::from(*stride) % total) as u64))
            }
        }
    }
}

/// Writes a period out. The k-th of a server's w turns is due within `k×W/w .. (k+1)×W/w`; among
/// those that may be now, the one due first goes first. One processor shared by such tasks never
/// misses a date (Baruah et al., "Proportionate progress", 1996), hence less than one turn off.
fn smooth(weights: &[u32], total: u64) -> Vec<u32> {
    let mut given = vec![0_u64; weights.len()];
    let mut early: BinaryHeap<_> = (0..weights.len())
        .map(|index| Reverse((0, index)))
        .collect();
    let mut ready = BinaryHeap::new();
    let mut turns = Vec::with_capacity(total as usize);
    for now in 0..total {
        while let Some(Reverse((from, index))) = early.peek().copied() {
            if from > now {
                break;
            }
            early.pop();
            let due = ((given[index] + 1) * total).div_ceil(u64::from(weights[index]));
            ready.push(Reverse((due, index)));
        }
        let Some(Reverse((_, index))) = ready.pop() else {
            continue;
        };
        turns.push(index as u32);
        given[index] += 1;
        if given[index] < u64::from(weights[index]) {
            early.push(Reverse((
                given[index] * total / u64::from(weights[index]),
                index,
            )));
        }
    }
    turns
}

/// Of the numbers next to the golden section of `total` that share no divisor with it, the one
/// whose continued fraction grows least: its multiples are spread most evenly (Niederreiter 1992,
/// theorem 3.4).
fn golden_stride(total: u64) -> u64 {
    let golden = (u128::from(total) * 618_033_989 / 1_000_000_000) as u64;
    (golden.saturating_sub(STRIDES / 2).max(1)..golden + STRIDES / 2)
        .filter_map(|stride| Some((quotients(stride, total)?, stride)))
        .min()
        .map_or(1, |(_, stride)| stride)
}

/// The sum of the partial quotients of `a / b`; `None` if they share a divisor.
fn quotients(mut a: u64, mut b: u64) -> Option<u64> {
    let mut sum = 0;
    while a != 0 {
        sum += b / a;
        (a, b) = (b % a, a);
    }
    (b == 1).then_some(sum)
}
