//! Listeners that accept nothing for a while: one word in the log when that begins, and one when it has ended.
//!
//! At a limit a listener pauses and goes on many times a second: pauses with less than [`QUIET`] between them are one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Notice;
use crate::live::ListenerState;
use crate::metrics::PauseCause;

/// Accepting goes on when there was no pause for this long.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Pauses {
    known: BTreeMap<(Arc<str>, PauseCause), Pause>,
    /// Begun, and not yet told.
    begun: Vec<Notice>,
}

struct Pause {
    listener: Arc<ListenerState>,
    since: Duration,
    /// When the last of its loops went on; `None` while one pauses.
    ended: Option<Duration>,
}

impl Pause {
    fn is_on(&self, cause: PauseCause) -> bool {
        is_paused(&self.listener, cause)
    }
}

impl Pauses {
    /// Loops of a listener began or ended to pause. What is so is asked of the listener: words of two workers may come
    /// in another order than they were said.
    pub(super) fn handle(
        &mut self,
        listener: &Arc<ListenerState>,
        cause: PauseCause,
        now: Duration,
    ) {
        let key = (listener.name.clone(), cause);
        let is_on = is_paused(listener, cause);
        match self.known.get_mut(&key) {
            Some(pause) => {
                pause.listener = listener.clone();
                pause.ended = (!is_on).then_some(now);
            }
            None if is_on => {
                self.begun.push(Notice::Paused {
                    listener: listener.name.clone(),
                    cause,
                    lasted: None,
                });
                let pause = Pause {
                    listener: listener.clone(),
                    since: now,
                    ended: None,
                };
                self.known.insert(key, pause);
            }
            None => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let ended = self.known.values().filter_map(|pause| pause.ended).min();
        ended.map(|ended| ended.saturating_add(QUIET))
    }

    /// What is to be told.
    pub(super) fn handle_timeout(&mut self, now: Duration) -> Vec<Notice> {
        let mut told = std::mem::take(&mut self.begun);
        self.known.retain(|(name, cause), pause| {
            let Some(ended) = pause.ended else {
                return true;
            };
            if pause.is_on(*cause) {
                pause.ended = None;
                return true;
            }
            let over = ended.saturating_add(QUIET) <= now;
            if over {
                told.push(Notice::Paused {
                    listener: name.clone(),
                    cause: *cause,
                    lasted: Some(ended.saturating_sub(pause.since)),
                });
            }
            !over
        });
        told
    }
}

fn is_paused(listener: &ListenerState, cause: PauseCause) -> bool {
    let loops = listener.paused.get(cause as usize);
    loops.is_some_and(|loops| loops.load(Relaxed) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PerWorker;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    struct Story {
        pauses: Pauses,
        listener: Arc<ListenerState>,
    }

    impl Story {
        fn new() -> Self {
            let listener = ListenerState {
                name: "web".into(),
                stats: PerWorker::new(1),
                connections: 0.into(),
                paused: Default::default(),
            };
            Self {
                pauses: Pauses::default(),
                listener: Arc::new(listener),
            }
        }

        /// So many loops pause for want of memory since `millis`.
        fn loops(&mut self, millis: u64, count: u32) {
            self.listener.paused[PauseCause::Memory as usize].store(count, Relaxed);
            self.pauses
                .handle(&self.listener.clone(), PauseCause::Memory, at(millis));
        }

        /// `begin`, or how long it lasted.
        fn told(&mut self, millis: u64) -> Vec<String> {
            let notices = self.pauses.handle_timeout(at(millis));
            let word = |notice| match notice {
                Notice::Paused { lasted: None, .. } => "begin".to_owned(),
                Notice::Paused {
                    lasted: Some(lasted),
                    ..
                } => format!("{} ms", lasted.as_millis()),
                other => panic!("{other:?}"),
            };
            notices.into_iter().map(word).collect()
        }
    }

    #[test]
    fn a_pause_is_told_when_it_begins_and_when_it_has_ended() {
        let mut story = Story::new();
        assert_eq!(story.pauses.poll_timeout(), None);
        story.loops(100, 1);
        assert_eq!(story.told(100), ["begin"]);
        story.loops(300, 2);
        story.loops(400, 1);
        assert!(story.told(9000).is_empty(), "one still pauses");
        story.loops(9000, 0);
        assert_eq!(story.pauses.poll_timeout(), Some(at(10_000)));
        assert!(story.told(9999).is_empty());
        assert_eq!(story.told(10_000), ["8900 ms"]);
        assert!(story.told(20_000).is_empty());
        story.loops(21_000, 1);
        assert_eq!(story.told(21_000), ["begin"]);
    }

    #[test]
    fn pauses_in_quick_turn_are_one() {
        let mut story = Story::new();
        for turn in 0..20 {
            story.loops(turn * 500, 1);
            let expected: &[&str] = if turn == 0 { &["begin"] } else { &[] };
            assert_eq!(story.told(turn * 500), expected);
            story.loops(turn * 500 + 250, 0);
        }
        assert_eq!(story.told(20_000), ["9750 ms"]);
    }

    #[test]
    fn the_order_in_which_workers_say_it_does_not_matter() {
        let mut story = Story::new();
        story.loops(0, 1);
        story.told(0);
        // The first ends, the second begins: its word comes first, then that of the first.
        story.loops(100, 1);
        story.loops(100, 1);
        assert!(story.told(5000).is_empty());
        // A loop that ended before it was heard of tells nothing.
        let mut story = Story::new();
        story.loops(0, 0);
        assert!(story.told(5000).is_empty());
    }
}
