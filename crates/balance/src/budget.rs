//! How many retries a pool may make, so that they never become the load that keeps it down.
//!
//! It does not decide whether a request may be retried at all; only whether there is room for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds that are looked back on, the current one included.
const WINDOW_SECS: u64 = 10;

/// Bits of each of the two counts in a slot.
const COUNT_BITS: u32 = 22;
/// The highest count of a slot; what is above is not counted.
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// One request, in a slot.
const REQUEST: u64 = 1 << COUNT_BITS;

/// Retries of a pool as a share of its live requests.
///
/// Over the last ten seconds at most `percent` of the requests may be retries, or `per_second_min`
/// of them for each second, whichever is more; the ten seconds may be spent at once, as when a
/// server dies under load. Shared by all workers; counting a request is one relaxed addition, and
/// the bound is never passed, though retries asked for at the same instant may all be refused near
/// it.
#[derive(Debug)]
#[repr(align(128))]
pub struct RetryBudget {
    percent: AtomicU64,
    per_second_min: u64,
    /// One for each second of the window: the second in the top bits, requests, retries.
    slots: [AtomicU64; WINDOW_SECS as usize],
}

impl RetryBudget {
    /// `percent` of live requests (0 to 100 is usual), at least `per_second_min` each second.
    pub const fn new(percent: u32, per_second_min: u32) -> Self {
        Self {
            percent: AtomicU64::new(percent as u64),
            per_second_min: per_second_min as u64,
            slots: [const { AtomicU64::new(0) }; WINDOW_SECS as usize],
        }
    }

    /// Changes the share; what was counted stays.
    pub fn set_percent(&self, percent: u32) {
        self.percent.store(u64::from(percent), Ordering::Relaxed);
    }

    /// A request came in; its retries are not counted here.
    pub fn handle_request(&self, now: Duration) {
        self.count(now, REQUEST);
    }

    /// Whether one more retry fits; if so it is counted.
    pub fn try_retry(&self, now: Duration) -> bool {
        self.count(now, 1);
        let (requests, retries) = self.sums(now);
        let share = requests * self.percent.load(Ordering::Relaxed) / 100;
        let fits = retries <= share.max(self.per_second_min * WINDOW_SECS);
        if !fits {
            self.take_back(now);
        }
        fits
    }

    /// Undoes a [`RetryBudget::try_retry`] of the same moment that fitted: there was nowhere to go.
    pub fn take_back(&self, now: Duration) {
        let second = now.as_secs();
        let _ = self
            .slot(second)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |slot| {
                (is_of(slot, second) && slot & COUNT_MAX != 0).then(|| slot - 1)
            });
    }

    /// Adds to the slot of this second, emptying it first if it is of an earlier one.
    fn count(&self, now: Duration, one: u64) {
        let second = now.as_secs();
        let slot = self.slot(second);
        let seen = slot.load(Ordering::Relaxed);
        if is_of(seen, second) {
            if (seen / one) & COUNT_MAX < COUNT_MAX / 2 {
                slot.fetch_add(one, Ordering::Relaxed);
            }
            return;
        }
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            let counts = if is_of(seen, second) {
                seen
            } else {
                stamp(second)
            };
            Some(counts + one)
        });
    }

    /// Requests and retries of the window.
    fn sums(&self, now: Duration) -> (u64, u64) {
        let last = now.as_secs();
        let first = last.saturating_sub(WINDOW_SECS - 1);
        (first..=last)
            .map(|second| (second, self.slot(second).load(Ordering::Relaxed)))
            .filter(|(second, slot)| is_of(*slot, *second))
            .fold((0, 0), |(requests, retries), (_, slot)| {
                (
                    requests + (slot >> COUNT_BITS & COUNT_MAX),
                    retries + (slot & COUNT_MAX),
                )
            })
    }

    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.slots[(second % WINDOW_SECS) as usize]
    }
}

impl Default for RetryBudget {
    /// 20 % of live requests, at least 10 a second.
    fn default() -> Self {
        Self::new(20, 10)
    }
}

/// A slot of `second` that has counted nothing. The 20 bits come round after twelve days.
fn stamp(second: u64) -> u64 {
    second << (2 * COUNT_BITS)
}

fn is_of(slot: u64, second: u64) -> bool {
    slot >> (2 * COUNT_BITS) == stamp(second) >> (2 * COUNT_BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(budget: &RetryBudget, now: Duration, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(budget.try_retry(now))).sum()
    }

    /// So many requests in each of the seconds, then as many retries as fit in the last one.
    fn check(requests: &[u32], expected: u32) {
        let budget = RetryBudget::default();
        for (second, count) in requests.iter().enumerate() {
            for _ in 0..*count {
                budget.handle_request(Duration::from_secs(second as u64));
            }
        }
        let now = Duration::from_secs(requests.len() as u64 - 1);
        assert_eq!(allowed(&budget, now, 100_000), expected, "{requests:?}");
    }

    #[test]
    fn a_fifth_of_live_requests_and_at_least_ten_a_second() {
        check(&[0], 100);
        check(&[400], 100);
        check(&[1000], 200);
        check(&[1000; 10], 2000);
        check(&[1000; 25], 2000);
        check(&[100_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100);
    }

    #[test]
    fn what_was_spent_comes_back_when_its_second_has_passed() {
        let budget = RetryBudget::default();
        let at = Duration::from_secs;
        assert_eq!(allowed(&budget, at(5), 60), 60);
        assert_eq!(allowed(&budget, at(9), 60), 40);
        assert_eq!(allowed(&budget, at(14), 10), 0);
        assert_eq!(allowed(&budget, at(15), 100), 60);
        assert_eq!(allowed(&budget, at(1000), 200), 100);
    }

    #[test]
    fn no_budget_refuses_all() {
        let budget = RetryBudget::new(0, 0);
        budget.handle_request(Duration::ZERO);
        assert!(!budget.try_retry(Duration::ZERO));
    }

    #[test]
    fn threads_together_never_pass_the_bound() {
        let budget = RetryBudget::default();
        let now = Duration::from_secs(3);
        let sum: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| allowed(&budget, now, 10_000)))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert!((90..=100).contains(&sum), "{sum}");
    }

    #[test]
    fn what_was_taken_back_can_be_had_again() {
        let budget = RetryBudget::new(0, 1);
        let now = Duration::from_secs(7);
        assert_eq!(allowed(&budget, now, 20), 10);
        budget.take_back(now);
        assert_eq!(allowed(&budget, now, 20), 1);
        budget.set_percent(100);
        (0..12).for_each(|_| budget.handle_request(now));
        assert_eq!(allowed(&budget, now, 20), 2);
    }

    /// What happens to a budget, the seconds since the last thing first.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Requests(u64, u32),
        Retries(u64, u32),
        TakeBack,
        Percent(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Mostly within a window, at times beyond it.
        let wait = || prop_oneof![4 => 0..1u64, 4 => 0..4u64, 1 => 0..30u64];
        prop_oneof![
            4 => (wait(), 0..300u32).prop_map(|(wait, count)| Step::Requests(wait, count)),
            4 => (wait(), 0..60u32).prop_map(|(wait, count)| Step::Retries(wait, count)),
            1 => Just(Step::TakeBack),
            1 => (0..=100u32).prop_map(Step::Percent),
        ]
    }

    /// The same in the plainest way: every request and retry with its second.
    #[derive(Default)]
    struct Shadow {
        percent: u64,
        per_second_min: u64,
        requests: Vec<u64>,
        retries: Vec<u64>,
    }

    impl Shadow {
        fn try_retry(&mut self, second: u64) -> bool {
            let recent = |at: &&u64| **at + 10 > second;
            let requests = self.requests.iter().filter(recent).count() as u64;
            let retries = self.retries.iter().filter(recent).count() as u64;
            let bound = (requests * self.percent / 100).max(10 * self.per_second_min);
            let fits = retries < bound;
            if fits {
                self.retries.push(second);
            }
            fits
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_all_that_happened(
            start in 0..2_000_000u64,
            per_second_min in 0..12u32,
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let budget = RetryBudget::new(20, per_second_min);
            let mut shadow = Shadow {
                percent: 20,
                per_second_min: per_second_min.into(),
                ..Shadow::default()
            };
            let mut second = start;
            for step in steps {
                match step {
                    Step::Requests(wait, count) => {
                        second += wait;
                        for _ in 0..count {
                            budget.handle_request(Duration::from_secs(second));
                            shadow.requests.push(second);
                        }
                    }
                    Step::Retries(wait, count) => {
                        second += wait;
                        for _ in 0..count {
                            let fits = budget.try_retry(Duration::from_secs(second));
                            prop_assert_eq!(fits, shadow.try_retry(second));
                        }
                    }
                    Step::TakeBack => {
                        if shadow.retries.last() == Some(&second) {
                            shadow.retries.pop();
                            budget.take_back(Duration::from_secs(second));
                        }
                    }
                    Step::Percent(percent) => {
                        budget.set_percent(percent);
                        shadow.percent = percent.into();
                    }
                }
            }
        }

        /// However requests and failures fall, servers get at most so many tries for them.
        #[test]
        fn amplification_is_bounded(
            seconds in prop::collection::vec(0..2000u64, 1..40),
            attempts in 1..5u32,
        ) {
            let budget = RetryBudget::default();
            let (mut requests, mut retries) = (0, 0);
            for (second, count) in seconds.iter().enumerate() {
                let now = Duration::from_secs(second as u64);
                for _ in 0..*count {
                    requests += 1;
                    budget.handle_request(now);
                    // Every server fails, and each request asks for all that it may have.
                    let granted = (0..attempts).take_while(|_| budget.try_retry(now)).count();
                    retries += granted as u64;
                }
            }
            // A fifth of what came, and the floor of each second and of the window before.
            let floor = 10 * (seconds.len() as u64 + WINDOW_SECS);
            prop_assert!(retries <= requests / 5 + floor, "{retries} for {requests}");
        }
    }
}
