//! While the process before drains, both obey what is said of servers to the one that serves.

use super::handovers::succeed;
use super::*;

pub(super) const TWO: &str =
    "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }]";

/// Both processes of an upgrade, after it.
pub(super) struct Two {
    pub(super) before: Scene,
    pub(super) after: Scene,
    /// What somebody hears who asked the one before for something.
    pub(super) told: Receiver<Answer>,
}

impl Two {
    pub(super) fn upgrade(config: &str, after: &str) -> Self {
        let mut two = Self::before(config, after, |_| reply().1);
        two.hand_over();
        two
    }

    /// The new one has been told what is known after such a story, and does not serve yet.
    pub(super) fn before(
        config: &str,
        after: &str,
        story: impl FnOnce(&mut Scene) -> Receiver<Answer>,
    ) -> Self {
        let mut before = Scene::running(config);
        let told = story(&mut before);
        let live = before.publisher.live(before.now);
        let mut after = succeed(live.clone(), after);
        after.publisher.take_over(live, after.now);
        Self {
            before,
            after,
            told,
        }
    }

    /// The new one serves, and the old one drains.
    pub(super) fn hand_over(&mut self) {
        let words = self
            .after
            .publisher
            .follow_predecessor(true, self.after.now);
        self.before.publisher.hand_drains_over();
        for word in &words {
            self.before.publisher.handle_word(word, self.before.now);
        }
        self.before.take_actions();
        self.talk();
    }

    /// What they have to say to one another arrives.
    pub(super) fn talk(&mut self) {
        for word in std::mem::take(&mut self.after.forwarded) {
            self.before.publisher.handle_word(&word, self.before.now);
            self.before.take_actions();
        }
        for obeyed in std::mem::take(&mut self.before.obeyed) {
            self.after.event(Event::Obeyed(obeyed));
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.before.pass(millis);
        self.after.pass(millis);
        self.talk();
    }

    /// So many requests of the process before are on `a`.
    fn hold(&self, count: usize) -> Arc<Member> {
        let a = self.before.member("a");
        for _ in 0..count {
            a.cell.acquire(None).unwrap();
        }
        a
    }
}

pub(super) fn is_open(answers: &Receiver<Answer>) -> bool {
    answers.try_recv().is_err()
}

#[test]
fn a_drain_waits_for_both_and_its_receipt_is_the_sum() {
    for local_first in [true, false] {
        let mut two = Two::upgrade(&site(TWO), &site(TWO));
        let (there, here) = (two.hold(2), two.after.member("a"));
        here.cell.acquire(None).unwrap();
        let answers = two.after.drain("a", 30_000);
        two.talk();
        assert!(there.cell.acquire(None).is_err());
        assert_eq!(two.before.usable(), ["b"]);
        let end_here = || assert!(!here.cell.release());
        if local_first {
            end_here();
        }
        two.pass(500);
        assert!(is_open(&answers));
        there.cell.release();
        there.cell.release();
        two.pass(500);
        if !local_first {
            assert!(is_open(&answers));
            end_here();
            two.pass(100);
        }
        let receipt = receipt(&answers);
        assert_eq!((receipt.new_picks, receipt.finished), (0, 3));
        assert!((1000..1300).contains(&receipt.took_ms), "{receipt:?}");
    }
}

#[test]
fn the_deadline_holds_in_both() {
    let mut two = Two::upgrade(&site(TWO), &site(TWO));
    let there = two.hold(1);
    let answers = two.after.drain("a", 2000);
    two.talk();
    two.pass(2100);
    assert_eq!(two.before.cuts, [there.id]);
    there.cell.release();
    two.pass(100);
    let receipt = receipt(&answers);
    assert_eq!(receipt.finished, 0);
    assert_eq!(receipt.cut.iter().map(|cut| cut.count).sum::<u64>(), 1);
}

#[test]
fn the_later_word_wins_in_both() {
    let mut two = Two::upgrade(&site(TWO), &site(TWO));
    let there = two.hold(2);
    let drained = two.after.drain("a", 30_000);
    two.talk();
    let (reply, enabled) = reply();
    let now = two.after.now;
    let ready = Some(State::Ready);
    two.after
        .publisher
        .handle_set("site", "a", ready, None, reply, now);
    two.after.take_actions();
    assert!(is_open(&enabled), "the other has yet to obey");
    two.talk();
    assert!(matches!(enabled.try_recv(), Ok(Answer::Done)));
    assert_eq!(receipt(&drained).left, Some(2));
    assert_eq!(two.before.usable(), ["a", "b"]);
    there.cell.acquire(None).unwrap();
}

#[test]
fn a_server_that_a_reload_removes_is_let_go_of_in_both() {
    let mut two = Two::upgrade(&site(TWO), &site(TWO));
    let there = two.hold(1);
    let config = "servers: [{ name: b, address: '10.0.0.2:80' }], drain: { timeout: 2s }";
    two.after.reload(&site(config));
    let (reply, reloaded) = reply();
    let now = two.after.now;
    let publisher = &mut two.after.publisher;
    publisher.answer_when_all_obeyed(vec![reply], Answer::Done, now);
    two.after.take_actions();
    assert!(is_open(&reloaded));
    two.talk();
    assert!(matches!(reloaded.try_recv(), Ok(Answer::Done)));
    assert!(there.cell.acquire(None).is_err() && there.is_drained());
    two.pass(2100);
    assert_eq!(two.before.cuts, [there.id]);
    // It is back.
    two.after.reload(&site(TWO));
    two.talk();
    there.cell.acquire(None).unwrap();
}

#[test]
fn another_server_of_the_same_name_is_another() {
    let moved = TWO.replace("10.0.0.1", "10.0.0.9");
    let mut two = Two::before(&site(TWO), &site(&moved), |before| {
        before.member("a").cell.acquire(None).unwrap();
        reply().1
    });
    two.hand_over();
    let there = two.before.member("a");
    let answers = two.after.drain("a", 30_000);
    two.talk();
    two.pass(100);
    assert_eq!(receipt(&answers).finished, 0);
    // The config has let go of it, and that is all.
    two.pass(10_000);
    assert_eq!((there.cell.in_use(), two.before.cuts.len()), (1, 0));
}

#[test]
fn who_waits_for_a_process_that_is_gone_or_silent_is_answered() {
    let mut two = Two::upgrade(&site(TWO), &site(TWO));
    let first = two.after.drain("a", 30_000);
    two.after.event(Event::PredecessorSilent);
    assert!(matches!(first.try_recv(), Ok(Answer::Refused(_))));
    let second = two.after.drain("a", 30_000);
    assert!(is_open(&second));
    two.after.event(Event::PredecessorEnded { in_order: true });
    assert_eq!(receipt(&second).finished, 0);
    // From here on there is one process.
    two.after.forwarded.clear();
    two.after.set("a", State::Ready, None);
    assert_eq!(two.after.forwarded, []);
}

#[test]
fn what_is_cut_at_the_end_of_the_process_before_is_told_as_cut() {
    let mut two = Two::upgrade(&site(TWO), &site(TWO));
    let there = two.hold(3);
    let answers = two.after.drain("a", 30_000);
    two.talk();
    there.cell.release();
    two.before.publisher.conclude_drains(two.before.now);
    two.before.take_actions();
    two.talk();
    let receipt = receipt(&answers);
    assert_eq!(receipt.finished, 1);
    assert_eq!(receipt.cut.iter().map(|cut| cut.count).sum::<u64>(), 2);
}

#[test]
fn words_of_another_version_are_answered() {
    let mut two = Two::upgrade(&site(TWO), &site(TWO));
    let text = r#"{"number": 7, "pool": "site", "servers": [["a", "10.0.0.1:80"]], "state": "resting",
        "weight": 99999, "mirror": true}"#;
    let word: Word = serde_json::from_str(text).unwrap();
    two.before.publisher.handle_word(&word, two.before.now);
    two.before.take_actions();
    let numbers: Vec<u64> = two.before.obeyed.iter().map(|it| it.number).collect();
    assert_eq!(numbers, [7]);
    assert_eq!(two.before.usable(), ["a", "b"]);
}
