//! Drains and their receipts.

use super::*;
use crate::message::Cut;

const SITE: &str =
    "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }]";

#[test]
fn an_idle_server_drains_at_once() {
    let mut scene = Scene::running(&site(SITE));
    let answers = scene.drain("a", 30_000);
    assert_eq!(receipt(&answers), Receipt::default());
    assert_eq!(scene.usable(), ["b"]);
    assert_eq!(scene.member("a").cell.state(), State::Drain);
}

#[test]
fn a_drain_waits_for_what_the_server_holds_and_counts_it() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    for _ in 0..3 {
        a.cell.acquire(None).unwrap();
    }
    let answers = scene.drain("a", 30_000);
    assert!(
        a.cell.acquire(None).is_err(),
        "no pick after the drain began"
    );
    scene.pass(500);
    a.cell.release();
    a.cell.release();
    scene.pass(500);
    answers.try_recv().unwrap_err();
    a.cell.release();
    scene.pass(100);
    let receipt = receipt(&answers);
    assert_eq!((receipt.new_picks, receipt.finished), (0, 3));
    assert!(receipt.cut.is_empty());
    assert!((1000..=1100).contains(&receipt.took_ms), "{receipt:?}");
    assert!(scene.cuts.is_empty());
}

#[test]
fn at_the_deadline_what_still_runs_is_cut_and_counted() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    for _ in 0..5 {
        a.cell.acquire(None).unwrap();
    }
    let answers = scene.drain("a", 2000);
    scene.pass(1000);
    a.cell.release();
    scene.pass(1100);
    assert_eq!(scene.cuts, [a.id]);
    assert!(a.is_cut());
    (0..4).for_each(|_| {
        a.cell.release();
    });
    scene.pass(100);
    let receipt = receipt(&answers);
    assert_eq!(receipt.finished, 1);
    assert_eq!(
        receipt.cut,
        [Cut {
            reason: "deadline",
            count: 4
        }]
    );
}

#[test]
fn what_does_not_end_when_cut_is_counted_once() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    for _ in 0..5 {
        a.cell.acquire(None).unwrap();
    }
    let answers = scene.drain("a", 1000);
    (0..3).for_each(|_| {
        a.cell.release();
    });
    scene.pass(500);
    assert!(scene.cuts.is_empty());
    scene.pass(4500);
    // Who was between two steps when the first word came has heard a later one.
    let again = scene.cuts.len();
    assert!((3..10).contains(&again), "{again}");
    let receipt = receipt(&answers);
    assert_eq!(receipt.finished, 3);
    assert_eq!(
        receipt.cut,
        [Cut {
            reason: "deadline",
            count: 2
        }]
    );
}

/// Found by the simulator: the first word's deadline cut what the second one gave more time.
#[test]
fn a_second_drain_decides_how_long_what_runs_may_take() {
    for (first, second) in [(1000, 3000), (3000, 1000)] {
        let mut scene = Scene::running(&site(SITE));
        let a = scene.member("a");
        for _ in 0..2 {
            a.cell.acquire(None).unwrap();
        }
        let before = scene.drain("a", first);
        scene.pass(100);
        let later = scene.drain("a", second);
        scene.pass(second - 100);
        assert!(scene.cuts.is_empty(), "{first} ms, then {second} ms");
        scene.pass(200);
        assert_eq!(scene.cuts.first(), Some(&a.id));
        (0..2).for_each(|_| {
            a.cell.release();
        });
        scene.pass(100);
        for answers in [before, later] {
            let cut = receipt(&answers).cut;
            assert_eq!(cut.iter().map(|it| it.count).sum::<u64>(), 2);
        }
    }
}

/// What the first word's deadline has cut is told to whoever gave it; the second word is for what is left.
#[test]
fn a_drain_whose_time_is_over_ends_when_another_begins() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    a.cell.acquire(None).unwrap();
    let before = scene.drain("a", 1000);
    scene.pass(1050);
    let cuts = scene.cuts.len();
    assert!(cuts > 0);
    let later = scene.drain("a", 5000);
    assert_eq!(receipt(&before).cut.len(), 1);
    scene.pass(2000);
    assert_eq!(scene.cuts.len(), cuts);
    a.cell.release();
    scene.pass(100);
    assert_eq!(receipt(&later).finished, 1);
}

#[test]
fn enable_ends_a_drain_that_waits_and_its_receipt_says_what_was_so_far() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    for _ in 0..2 {
        a.cell.acquire(None).unwrap();
    }
    let answers = scene.drain("a", 30_000);
    a.cell.release();
    scene.pass(100);
    scene.set("a", State::Ready, None);
    let receipt = receipt(&answers);
    assert_eq!((receipt.new_picks, receipt.finished), (0, 1));
    assert!(receipt.cut.is_empty());
    assert_eq!(scene.usable(), ["a", "b"]);
    scene.pass(60_000);
    assert!(scene.cuts.is_empty(), "the deadline is forgotten");
}

#[test]
fn a_server_that_was_cut_serves_again_when_it_is_ready() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    a.cell.acquire(None).unwrap();
    let _answers = scene.drain("a", 100);
    scene.pass(200);
    assert!(a.is_cut());
    a.cell.release();
    scene.pass(100);
    scene.set("a", State::Ready, None);
    assert!(!a.is_cut());
    assert_eq!(scene.usable(), ["a", "b"]);
}

#[test]
fn two_who_drain_the_same_server_both_get_a_receipt() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    a.cell.acquire(None).unwrap();
    let first = scene.drain("a", 30_000);
    let second = scene.drain("a", 30_000);
    a.cell.release();
    scene.pass(100);
    assert_eq!(receipt(&first).finished, 1);
    assert_eq!(receipt(&second).finished, 1);
}

#[test]
fn a_drain_outlives_the_removal_of_its_server() {
    let mut scene = Scene::running(&site(SITE));
    let a = scene.member("a");
    a.cell.acquire(None).unwrap();
    let answers = scene.drain("a", 30_000);
    scene.reload(&site("servers: [{ name: b, address: '10.0.0.2:80' }]"));
    a.cell.release();
    scene.pass(100);
    assert_eq!(receipt(&answers).finished, 1);
}

#[test]
fn draining_a_name_drains_every_address_that_it_stands_for() {
    let mut scene = Scene::running(&site(
        "servers: [{ name: api, address: 'api.internal:80' }, '10.0.0.2:80']",
    ));
    let two = addresses(&["10.0.1.1", "10.0.1.2"]);
    scene.resolve("api.internal", Ok((two, Duration::from_secs(600))));
    scene.pass(1000);
    let (one, other) = (
        scene.member("api@10.0.1.1:80"),
        scene.member("api@10.0.1.2:80"),
    );
    one.cell.acquire(None).unwrap();
    other.cell.acquire(None).unwrap();
    let answers = scene.drain("api", 30_000);
    assert_eq!(scene.usable(), ["10.0.0.2:80"]);
    one.cell.release();
    scene.pass(100);
    answers.try_recv().unwrap_err();
    other.cell.release();
    scene.pass(100);
    assert_eq!(receipt(&answers).finished, 2);
}

#[test]
fn what_does_not_exist_cannot_be_drained() {
    let mut scene = Scene::running(&site(SITE));
    let answers = scene.drain("c", 1000);
    let answer = answers.try_recv();
    assert!(matches!(answer, Ok(Answer::NotFound(_))), "{answer:?}");
}

#[test]
fn a_process_that_ends_says_what_its_drains_have_come_to_and_a_restart_goes_on() {
    let mut scene = Scene::running(&site(&format!("affinity: {{ cookie: S }}, {SITE}")));
    let a = scene.member("a");
    for _ in 0..2 {
        a.cell.acquire(None).unwrap();
    }
    let answers = scene.drain("a", 30_000);
    a.cell.release();
    scene.pass(1000);
    scene.publisher.conclude_drains(scene.now);
    scene.take_actions();
    let receipt = receipt(&answers);
    assert_eq!(
        (receipt.finished, receipt.left, receipt.ending),
        (1, Some(1), true)
    );
    let words = scene.publisher.words(scene.now);
    let drain = words.servers[0].drain.unwrap();
    assert_eq!((drain.is_over, drain.left_ms), (false, Some(29_000)));
}
