//! Drains that an upgrade finds under way: the new process waits for what the old one holds, and its receipt is of both.

use super::handovers::succeed;
use super::predecessors::{TWO, Two, is_open};
use super::*;
use crate::message::Receipt;

pub(super) fn acquire(member: &Member, count: usize) {
    for _ in 0..count {
        member.cell.acquire(None).unwrap();
    }
}

pub(super) fn release(member: &Member, count: usize) {
    for _ in 0..count {
        member.cell.release();
    }
}

/// Whoever waited in the process before asks the one after.
pub(super) fn wait(scene: &mut Scene, server: &str) -> Receiver<Answer> {
    let (reply, answers) = reply();
    scene.publisher.handle_drain_wait("site", server, reply);
    scene.take_actions();
    answers
}

pub(super) fn cut(receipt: &Receipt) -> u64 {
    receipt.cut.iter().map(|cut| cut.count).sum()
}

/// A drain of `a` is a second old, and one of its three requests has ended.
fn draining(config: &str, timeout_ms: u64) -> (Two, Receiver<Answer>) {
    let mut two = Two::before(config, config, |before| {
        acquire(&before.member("a"), 3);
        let answers = before.drain("a", timeout_ms);
        before.pass(500);
        release(&before.member("a"), 1);
        before.pass(500);
        answers
    });
    assert!(is_open(&two.told));
    two.hand_over();
    assert!(matches!(two.told.try_recv(), Ok(Answer::GoesOnElsewhere)));
    let answers = wait(&mut two.after, "a");
    (two, answers)
}

#[test]
fn the_new_process_waits_for_what_the_old_one_holds_and_counts_from_the_beginning() {
    let (mut two, answers) = draining(&site(TWO), 60_000);
    let there = two.before.member("a");
    two.pass(2000);
    assert!(is_open(&answers), "the old one holds two");
    release(&there, 1);
    two.pass(1000);
    assert!(is_open(&answers), "the old one holds one");
    // Whoever asks late waits with the others.
    let late = wait(&mut two.after, "a");
    release(&there, 1);
    two.pass(100);
    for answers in [answers, late, wait(&mut two.after, "a")] {
        let receipt = receipt(&answers);
        let took_ms = receipt.took_ms;
        assert!((4000..4300).contains(&took_ms), "{receipt:?}");
        let whole = Receipt {
            finished: 3,
            took_ms,
            ..Receipt::default()
        };
        assert_eq!(receipt, whole);
    }
}

#[test]
fn what_the_deadline_cuts_in_the_old_process_is_told() {
    let (mut two, answers) = draining(&site(TWO), 2000);
    let there = two.before.member("a");
    two.pass(950);
    assert!(is_open(&answers) && two.before.cuts.is_empty());
    two.pass(100);
    assert_eq!(two.before.cuts, [there.id]);
    release(&there, 2);
    two.pass(100);
    let receipt = receipt(&answers);
    assert_eq!((receipt.finished, cut(&receipt)), (1, 2), "{receipt:?}");
}

#[test]
fn bound_clients_of_both_are_counted() {
    let config = site(&format!("affinity: {{ cookie: S }}, {TWO}"));
    let (mut two, answers) = draining(&config, 60_000);
    let (there, here) = (two.before.member("a"), two.after.member("a"));
    for member in [&there, &here] {
        let keep = balance::OnDrain::Keep;
        member.cell.acquire_by_affinity(None, keep).unwrap();
        member.cell.release();
    }
    release(&there, 2);
    two.pass(4500);
    assert!(is_open(&answers), "they may come again");
    two.pass(1000);
    let receipt = receipt(&answers);
    assert_eq!((receipt.affinity_picks, receipt.finished), (2, 5));
}

#[test]
fn another_word_ends_it_in_both() {
    let (mut two, answers) = draining(&site(TWO), 60_000);
    let (reply, done) = reply();
    let (now, ready) = (two.after.now, Some(State::Ready));
    let publisher = &mut two.after.publisher;
    publisher.handle_set("site", "a", ready, None, reply, now);
    two.after.take_actions();
    assert!(is_open(&answers));
    two.talk();
    assert!(matches!(done.try_recv(), Ok(Answer::Done)));
    let receipt = receipt(&answers);
    assert_eq!((receipt.finished, receipt.left), (1, Some(2)));
    assert_eq!(two.before.usable(), ["a", "b"]);
}

#[test]
fn a_second_drain_says_anew_how_long_both_may_take() {
    let (mut two, first) = draining(&site(TWO), 60_000);
    let second = two.after.drain("a", 1000);
    two.talk();
    two.pass(1100);
    let there = two.before.member("a");
    assert!(two.before.cuts.contains(&there.id));
    release(&there, 2);
    two.pass(100);
    for answers in [first, second] {
        assert_eq!(cut(&receipt(&answers)), 2);
    }
}

#[test]
fn an_old_process_that_is_gone_has_its_part_missing_and_a_silent_one_may_speak_later() {
    let (mut two, answers) = draining(&site(TWO), 60_000);
    two.pass(1000);
    two.after.event(Event::PredecessorSilent);
    assert!(matches!(answers.try_recv(), Ok(Answer::Refused(_))));
    let late = wait(&mut two.after, "a");
    release(&two.before.member("a"), 2);
    two.pass(100);
    assert_eq!(receipt(&late).finished, 3);

    for in_order in [true, false] {
        let (mut two, answers) = draining(&site(TWO), 60_000);
        // In the one case all has ended here by then, in the other not.
        two.after.pass(if in_order { 1000 } else { 0 });
        two.after.event(Event::PredecessorEnded { in_order });
        two.after.pass(100);
        for answers in [answers, wait(&mut two.after, "a")] {
            let receipt = receipt(&answers);
            assert_eq!((receipt.finished, receipt.partial), (0, !in_order));
            let took_ms = if in_order { 2000..2300 } else { 1000..1300 };
            assert!(took_ms.contains(&receipt.took_ms), "{receipt:?}");
        }
    }
}

#[test]
fn what_the_old_process_cuts_at_its_end_is_told() {
    let (mut two, answers) = draining(&site(TWO), 60_000);
    two.before.publisher.conclude_drains(two.before.now);
    two.before.take_actions();
    two.pass(100);
    let receipt = receipt(&answers);
    assert_eq!((receipt.finished, cut(&receipt)), (1, 2));
}

#[test]
fn a_new_process_that_ends_before_the_old_one_says_so() {
    for own in [0, 1] {
        let config = site(&format!("affinity: {{ cookie: S }}, {TWO}"));
        let (mut two, answers) = draining(&config, 60_000);
        for _ in 0..own {
            let (here, keep) = (two.after.member("a"), balance::OnDrain::Keep);
            here.cell.acquire_by_affinity(None, keep).unwrap();
        }
        two.pass(500);
        two.after.publisher.conclude_drains(two.after.now);
        two.after.take_actions();
        let receipt = receipt(&answers);
        assert_eq!((receipt.left, receipt.partial), (Some(own), true));
        assert!(receipt.ending);
    }
}

#[test]
fn what_ended_since_it_was_told_is_waited_for_no_longer() {
    let mut two = Two::before(&site(TWO), &site(TWO), |before| {
        acquire(&before.member("a"), 1);
        before.drain("a", 60_000)
    });
    release(&two.before.member("a"), 1);
    two.before.pass(100);
    assert_eq!(receipt(&two.told).finished, 1);
    two.hand_over();
    two.pass(100);
    assert_eq!(receipt(&wait(&mut two.after, "a")).finished, 0);
}

/// Its command hears of the end where it waits; the new process, which was told before, does so too.
#[test]
fn what_is_being_cut_when_the_new_process_takes_over_ends_in_the_old_one() {
    let mut two = Two::before(&site(TWO), &site(TWO), |before| {
        acquire(&before.member("a"), 2);
        before.drain("a", 1000)
    });
    two.before.pass(1050);
    assert!(!two.before.cuts.is_empty());
    two.hand_over();
    assert!(is_open(&two.told));
    let answers = wait(&mut two.after, "a");
    release(&two.before.member("a"), 2);
    two.pass(1500);
    for answers in [&two.told, &answers] {
        assert_eq!(cut(&receipt(answers)), 2);
    }
    // That it is over is all that a process hears which is told so late.
    let mut two = Two::before(&site(TWO), &site(TWO), |before| {
        acquire(&before.member("a"), 1);
        let answers = before.drain("a", 1000);
        before.pass(1050);
        answers
    });
    two.hand_over();
    assert!(matches!(
        wait(&mut two.after, "a").try_recv(),
        Ok(Answer::NotFound(_))
    ));
    two.before.pass(2000);
    assert_eq!(cut(&receipt(&two.told)), 1);
}

#[test]
fn a_drain_of_a_server_that_a_reload_has_removed_ends_in_the_old_process() {
    let rest = site("servers: [{ name: b, address: '10.0.0.2:80' }]");
    let mut kept = None;
    let mut two = Two::before(&site(TWO), &rest, |before| {
        let a = kept.insert(before.member("a"));
        acquire(a, 1);
        let answers = before.drain("a", 60_000);
        before.reload(&rest);
        answers
    });
    two.hand_over();
    two.pass(1000);
    assert!(is_open(&two.told));
    release(&kept.unwrap(), 1);
    two.pass(100);
    assert_eq!(receipt(&two.told).finished, 1);
}

#[test]
fn a_drain_that_nobody_waits_for_goes_on_in_both() {
    let mut two = Two::before(&site(TWO), &site(TWO), |before| {
        acquire(&before.member("a"), 1);
        drop(before.drain("a", 2000));
        reply().1
    });
    two.hand_over();
    two.pass(2100);
    assert_eq!(two.before.cuts, [two.before.member("a").id]);
    release(&two.before.member("a"), 1);
    two.pass(100);
    assert_eq!(cut(&receipt(&wait(&mut two.after, "a"))), 1);
}

/// By its name and then by its addresses, or by the same word twice: in the new process it is one drain.
#[test]
fn all_addresses_of_a_name_are_waited_for_however_they_were_drained() {
    let config = site("servers: [{ name: api, address: 'api.internal:80' }, '10.0.0.2:80']");
    let names = ["api@10.0.1.1:80", "api@10.0.1.2:80"];
    for words in [&["api"][..], &names, &["api", "api"], &[names[0], "api"]] {
        let mut two = Two::before(&config, &config, |before| {
            let two = addresses(&["10.0.1.1", "10.0.1.2"]);
            before.resolve("api.internal", Ok((two, Duration::from_secs(600))));
            before.pass(1000);
            for name in names {
                acquire(&before.member(name), 1);
            }
            let answers = words.iter().map(|name| before.drain(name, 60_000));
            answers.last().unwrap()
        });
        two.hand_over();
        let answers = wait(&mut two.after, "api");
        for name in names {
            two.pass(500);
            assert!(is_open(&answers), "{words:?}");
            release(&two.before.member(name), 1);
        }
        two.pass(500);
        assert_eq!(receipt(&answers).finished, 2, "{words:?}");
    }
}

#[test]
fn a_process_after_that_has_the_receipt_of_all() {
    let config = site(&format!("affinity: {{ cookie: S }}, {TWO}"));
    let (mut two, answers) = draining(&config, 60_000);
    release(&two.before.member("a"), 2);
    two.before.publisher.conclude_drains(two.before.now);
    two.before.take_actions();
    two.talk();
    two.after.event(Event::PredecessorEnded { in_order: true });
    assert!(is_open(&answers), "its clients may come again");
    let Two { after: second, .. } = two;
    let third = succeed(second.publisher.live(second.now), &config);
    let mut two = Two {
        before: second,
        after: third,
        told: answers,
    };
    two.hand_over();
    assert!(matches!(two.told.try_recv(), Ok(Answer::GoesOnElsewhere)));
    let answers = wait(&mut two.after, "a");
    two.pass(6000);
    assert_eq!(receipt(&answers).finished, 3);
}

#[test]
fn versions_that_know_nothing_of_it_go_on_as_they_did() {
    // The old one does not hear of it: what it has is missing, but it is waited for until it has ended.
    let mut two = Two::before(&site(TWO), &site(TWO), |before| {
        acquire(&before.member("a"), 1);
        before.drain("a", 60_000)
    });
    let now = two.after.now;
    assert_eq!(two.after.publisher.follow_predecessor(false, now).len(), 1);
    let answers = wait(&mut two.after, "a");
    two.after.pass(5000);
    assert!(is_open(&answers));
    two.after.event(Event::PredecessorEnded { in_order: true });
    assert_eq!(receipt(&answers).finished, 0);
    // The new one says nothing of it: what the old one holds is cut when it was to be.
    let mut two = Two::before(&site(TWO), &site(TWO), |before| {
        acquire(&before.member("a"), 1);
        before.drain("a", 1000)
    });
    two.before.publisher.hand_drains_over();
    two.before.pass(1100);
    assert_eq!(two.before.cuts, [two.before.member("a").id]);
}
