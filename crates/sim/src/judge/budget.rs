//! The retry budget once more: every request and retry in a list, counted anew each time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Seconds that are looked back on, the current one included.
const WINDOW: u64 = 10;
/// Retries allowed in a second whatever the share is.
const MIN: u64 = 10;

/// What came, by second.
pub(super) struct Budget {
    percent: u64,
    /// Second, requests, retries.
    seconds: VecDeque<(u64, u64, u64)>,
    /// When the further try that a request is to have was allowed, until it is made.
    claimed: BTreeMap<usize, Duration>,
}

impl Budget {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            percent: percent.into(),
            seconds: VecDeque::new(),
            claimed: BTreeMap::new(),
        }
    }

    pub(super) fn handle_request(&mut self, now: Duration) {
        self.second(now).1 += 1;
    }

    pub(super) fn handle_retry(&mut self, now: Duration, request: usize) -> Result<(), String> {
        self.claimed.insert(request, now);
        self.second(now).2 += 1;
        let (retries, allowed) = self.sums(now);
        if retries > allowed {
            return Err(format!(
                "{retries} retries in {WINDOW} s, {allowed} at most"
            ));
        }
        Ok(())
    }

    /// A server was had for it.
    pub(super) fn handle_made(&mut self, request: usize) {
        self.claimed.remove(&request);
    }

    /// A request has ended: whether a retry of it was not made, so that it does not count.
    pub(super) fn handle_end(&mut self, request: usize) -> bool {
        let Some(at) = self.claimed.remove(&request) else {
            return false;
        };
        let mut seconds = self.seconds.iter_mut();
        if let Some(second) = seconds.find(|it| it.0 == at.as_secs()) {
            second.2 = second.2.saturating_sub(1);
        }
        true
    }

    /// Whether one more would be too many.
    pub(super) fn is_spent(&self, now: Duration) -> bool {
        let (retries, allowed) = self.sums(now);
        retries + 1 > allowed
    }

    fn sums(&self, now: Duration) -> (u64, u64) {
        let first = now.as_secs().saturating_sub(WINDOW - 1);
        let recent = self.seconds.iter().filter(|it| it.0 >= first);
        let (requests, retries) = recent.fold((0, 0), |sum, it| (sum.0 + it.1, sum.1 + it.2));
        (retries, (requests * self.percent / 100).max(MIN * WINDOW))
    }

    fn second(&mut self, now: Duration) -> &mut (u64, u64, u64) {
        let second = now.as_secs();
        if self.seconds.back().is_none_or(|last| last.0 != second) {
            self.seconds.push_back((second, 0, 0));
            while self.seconds.len() > WINDOW as usize {
                self.seconds.pop_front();
            }
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }
}
