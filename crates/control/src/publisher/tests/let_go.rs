//! An upgrade whose config has other servers than the process before: that lets go of what is gone, as a reload would.

use super::drains_over::{acquire, cut, release, wait};
use super::predecessors::{TWO, Two, is_open};
use super::*;

/// The one that stays, what its pool says of drains, and one that is new.
fn changed(settings: &str, servers: &str) -> String {
    site(&format!(
        "drain: {{ timeout: {settings} }}, servers: [{servers}]"
    ))
}

const B: &str = "{ name: b, address: '10.0.0.2:80' }";

#[test]
fn a_server_that_is_gone_drains_for_as_long_as_the_new_config_says() {
    let mut two = Two::before(&site(TWO), &changed("2s", B), |before| {
        acquire(&before.member("a"), 1);
        reply().1
    });
    let (a, b) = (two.before.member("a"), two.before.member("b"));
    two.hand_over();
    assert!(a.cell.acquire(None).is_err() && a.is_drained());
    acquire(&b, 1);
    assert_eq!(two.before.usable(), ["b"]);
    two.pass(1900);
    assert!(two.before.cuts.is_empty());
    two.pass(200);
    assert_eq!(two.before.cuts, [a.id]);
    // It is back.
    two.after.reload(&site(TWO));
    two.talk();
    acquire(&a, 1);
}

#[test]
fn an_address_that_is_another_is_let_go_of_and_one_that_stays_is_not() {
    let config = |port: u32| {
        site(&format!(
            "servers: [{{ name: a, address: '10.0.0.1:{port}' }}, {{ name: api, address: 'api.internal:80' }}, {B}]"
        ))
    };
    let mut two = Two::before(&config(80), &config(81), |before| {
        let two = addresses(&["10.0.1.1", "10.0.1.2"]);
        before.resolve("api.internal", Ok((two, Duration::from_secs(600))));
        before.pass(1000);
        reply().1
    });
    two.hand_over();
    let stay = ["api@10.0.1.1:80", "api@10.0.1.2:80", "b"];
    assert_eq!(two.before.usable(), stay);
}

/// It knows no others: what comes to it until it ends would find nobody.
#[test]
fn servers_that_are_all_gone_serve_the_old_process_until_their_time_is_over() {
    let others = "'10.0.0.8:80', '10.0.0.9:80'";
    let elsewhere = "listeners: { web: { bind: '127.0.0.1:8080', pool: new } }\npools: { new: { servers: ['10.0.0.9:80'] } }";
    let own = site(&format!("drain: {{ timeout: 2s }}, {TWO}"));
    for (before, after) in [
        (site(TWO), changed("2s", others)),
        (own, elsewhere.to_owned()),
    ] {
        let mut two = Two::upgrade(&before, &after);
        let (a, b) = (two.before.member("a"), two.before.member("b"));
        acquire(&a, 1);
        acquire(&b, 1);
        two.pass(1900);
        assert_eq!(two.before.usable(), ["a", "b"]);
        two.pass(200);
        assert_eq!(two.before.cuts, [a.id, b.id]);
        assert!(a.cell.acquire(None).is_err() && b.cell.acquire(None).is_err());
    }
    // Back before that, it stays; and so it does without a time.
    let mut two = Two::upgrade(&site(TWO), &changed("2s", others));
    two.after.reload(&site(TWO));
    two.talk();
    two.pass(3000);
    assert_eq!(two.before.usable(), ["a", "b"]);
    let mut two = Two::upgrade(&site(TWO), &changed("off", others));
    acquire(&two.before.member("a"), 1);
    two.pass(100_000);
    assert!(two.before.cuts.is_empty());
}

#[test]
fn who_waits_for_a_drain_of_a_server_that_is_gone_has_its_receipt() {
    let mut two = Two::before(&site(TWO), &changed("2s", B), |before| {
        acquire(&before.member("a"), 2);
        let answers = before.drain("a", 5000);
        before.pass(1000);
        answers
    });
    two.hand_over();
    assert!(matches!(two.told.try_recv(), Ok(Answer::GoesOnElsewhere)));
    let answers = wait(&mut two.after, "a");
    release(&two.before.member("a"), 1);
    two.pass(3000);
    assert!(is_open(&answers));
    two.pass(1500);
    release(&two.before.member("a"), 1);
    two.pass(100);
    for answers in [answers, wait(&mut two.after, "a")] {
        let receipt = receipt(&answers);
        assert_eq!((receipt.finished, cut(&receipt)), (1, 1));
        assert!((5000..6000).contains(&receipt.took_ms), "{receipt:?}");
    }
}
