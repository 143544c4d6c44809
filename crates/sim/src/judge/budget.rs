//! The retry budget once more: every request and retry in a list, counted anew each time.

use std::collections::VecDeque;
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
}

impl Budget {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            percent: percent.into(),
            seconds: VecDeque::new(),
        }
    }

    pub(super) fn handle_request(&mut self, now: Duration) {
        self.second(now).1 += 1;
    }

    pub(super) fn handle_retry(&mut self, now: Duration) -> Result<(), String> {
        self.second(now).2 += 1;
        let (retries, allowed) = self.sums(now);
        if retries > allowed {
            return Err(format!(
                "{retries} retries in {WINDOW} s, {allowed} at most"
            ));
        }
        Ok(())
    }

    /// One of that moment was not made.
    pub(super) fn handle_withdrawn(&mut self, at: Duration) {
        let mut seconds = self.seconds.iter_mut();
        if let Some(second) = seconds.find(|it| it.0 == at.as_secs()) {
            second.2 = second.2.saturating_sub(1);
        }
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
