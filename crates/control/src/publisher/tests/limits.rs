//! Bounds of requests in use, and who waits at them.

use std::task::{Context, Poll, Waker};

use balance::outlier::{Failure, Streak};
use balance::queue::Ended;

use super::*;
use crate::gate::{Lease, Ticket};
use crate::live::LimitedBy;

const TWO: &str =
    "servers: [{ name: a, address: '10.0.0.1:80' }, { name: b, address: '10.0.0.2:80' }]";

impl Scene {
    fn take(&self, server: &str) -> Result<Lease, String> {
        Lease::take(&self.member(server)).map_err(|refused| refused.to_string())
    }

    /// Waits, as one who found every server full.
    fn wait(&self, tried: &[&str]) -> Option<Ticket> {
        let pool = self.world.pool("site").unwrap().1.clone();
        let tried: Vec<u32> = tried.iter().map(|name| self.member(name).id).collect();
        let view = pool.view();
        pool.gate.enter(5, &tried, 0, 10, || view.members.clone())
    }

    fn limit(&self, server: &str) -> (Option<u32>, Option<LimitedBy>) {
        let member = self.member(server);
        (member.connections_max(), member.limited_by())
    }
}

/// The server that a waiter was given; `None` while it waits.
fn granted(ticket: &Ticket) -> Option<Lease> {
    match ticket.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(Ended::Granted(lease)) => Some(lease),
        Poll::Ready(other) => panic!("{other:?}"),
    }
}

fn one_each(settings: &str) -> String {
    let servers = "servers: [{ name: a, address: '10.0.0.1:80', max_connections: 1 }, { name: b, address: '10.0.0.2:80', max_connections: 1 }]";
    site(&format!("{servers}, {settings}"))
}

#[test]
fn the_least_of_all_bounds_holds() {
    let mut scene = Scene::running(&site(TWO));
    assert_eq!(scene.limit("a"), (Some(10_000), Some(LimitedBy::Sockets)));
    scene.reload(&one_each("agent_check: 99"));
    assert_eq!(scene.limit("a"), (Some(1), Some(LimitedBy::MaxConnections)));
    scene
        .lines
        .insert("a".to_owned(), Ok("maxconn:0".to_owned()));
    scene.pass(5000);
    assert_eq!(scene.limit("a"), (Some(1), Some(LimitedBy::MaxConnections)));
    scene.reload(&site(&format!("{TWO}, agent_check: 99")));
    scene
        .lines
        .insert("a".to_owned(), Ok("maxconn:7".to_owned()));
    scene.pass(5000);
    assert_eq!(scene.limit("a"), (Some(7), Some(LimitedBy::Agent)));
    scene.reload(&site(&format!(
        "{TWO}, limits: {{ connections_per_server: 5 }}, agent_check: 99"
    )));
    assert_eq!(scene.limit("a"), (Some(5), Some(LimitedBy::Sockets)));
}

/// Over HTTP/2 each socket carries as many requests as the pool lets it, and its server wants.
#[test]
fn a_socket_over_http2_carries_many_requests() {
    let config = |http: &str| {
        let tls = if http.contains("auto") {
            "tls: on, "
        } else {
            ""
        };
        let limits = "limits: { connections_per_server: 4 }";
        site(&format!("{TWO}, {tls}http: {http}, {limits}"))
    };
    let sockets = |max: u32| (Some(max), Some(LimitedBy::Sockets));
    let mut scene = Scene::running(&config("1"));
    assert_eq!(scene.limit("a"), sockets(4));
    scene.reload(&config("{ version: 2, streams: 100 }"));
    assert_eq!(scene.limit("a"), sockets(400));
    let speaks = |scene: &mut Scene, server: &str| {
        let member = scene.member(server).id;
        scene.event(Event::Speaks { member });
    };
    let member = scene.member("a");
    assert!(member.note_streams(10));
    assert!(!member.note_streams(7), "it is told once");
    speaks(&mut scene, "a");
    assert_eq!(
        (scene.limit("a"), scene.limit("b")),
        (sockets(28), sockets(400))
    );
    // One that wants none for a while.
    assert!(member.note_streams(0));
    speaks(&mut scene, "a");
    assert_eq!(scene.limit("a"), sockets(4));
    assert!(member.note_streams(u32::MAX));
    speaks(&mut scene, "a");
    scene.reload(&config("{ version: 2, streams: 10000 }"));
    assert_eq!(scene.limit("a"), sockets(40_000));

    // Until it has chosen each takes a socket.
    scene.reload(&config("{ version: auto, streams: 100 }"));
    assert_eq!(scene.limit("a"), sockets(4));
    for (http2, max) in [(true, 400), (false, 4), (true, 400)] {
        assert!(member.note_chosen(http2) && !member.note_chosen(http2));
        speaks(&mut scene, "a");
        assert_eq!(scene.limit("a"), sockets(max));
    }
}

#[test]
fn over_http2_the_least_of_all_bounds_holds_too() {
    let http2 = "http: { version: 2, streams: 10 }, limits: { connections_per_server: 2 }";
    let mut scene = back_from_ejection(http2);
    assert_eq!(scene.limit("a"), (Some(1), Some(LimitedBy::HalfOpen)));
    assert_eq!(scene.limit("b"), (Some(20), Some(LimitedBy::Sockets)));
    let adaptive = |max: u32| {
        let adaptive = format!("adaptive_concurrency: {{ max: {max} }}");
        site(&format!("{TWO}, {http2}, {adaptive}"))
    };
    scene.reload(&adaptive(1000));
    assert_eq!(scene.limit("b"), (Some(20), Some(LimitedBy::Sockets)));
    scene.reload(&adaptive(15));
    assert_eq!(scene.limit("b"), (Some(15), Some(LimitedBy::Latency)));
    let full = TWO.replace("2:80'", "2:80', max_connections: 5");
    scene.reload(&site(&format!("{full}, {http2}")));
    assert_eq!(scene.limit("b"), (Some(5), Some(LimitedBy::MaxConnections)));
}

/// Whoever came before a reload holds to what it says.
#[test]
fn a_reload_says_how_many_sockets_there_may_be() {
    let mut scene = Scene::running(&site(TWO));
    let member = scene.member("a");
    assert_eq!(
        (member.sockets_max(), member.streams_max()),
        (10_000, u32::MAX)
    );
    let http2 = "http: { version: 2, streams: 10 }, limits: { connections_per_server: 2 }";
    scene.reload(&site(&format!("{TWO}, {http2}")));
    assert_eq!((member.sockets_max(), member.streams_max()), (2, 10));
}

#[test]
fn a_reload_that_lets_more_in_ends_the_wait_of_the_oldest() {
    let mut scene = Scene::running(&one_each(""));
    let held = [scene.take("a").unwrap(), scene.take("b").unwrap()];
    assert_eq!(scene.take("a").unwrap_err(), "at its limit");
    let waiting = [
        scene.wait(&[]).unwrap(),
        scene.wait(&[]).unwrap(),
        scene.wait(&[]).unwrap(),
    ];
    assert!(waiting.iter().all(|ticket| granted(ticket).is_none()));
    assert_eq!(scene.take("b").unwrap_err(), "kept for those who wait");
    scene.reload(&one_each("").replace("max_connections: 1", "max_connections: 2"));
    scene.pass(50);
    let first = granted(&waiting[0]).expect("a slot");
    let second = granted(&waiting[1]).expect("a slot");
    assert_ne!(
        first.member.name, second.member.name,
        "a slot of each in turn"
    );
    assert!(granted(&waiting[2]).is_none());
    // Whoever ends hands its slot on.
    drop(held);
    assert!(granted(&waiting[2]).is_some());
    drop((first, second));
    assert_eq!(scene.world.pool("site").unwrap().1.gate.waiting(), 0);
    assert!(scene.take("a").is_ok());
}

#[test]
fn who_waits_for_a_server_that_goes_is_told() {
    let mut scene = Scene::running(&one_each(""));
    let _held = [scene.take("a").unwrap(), scene.take("b").unwrap()];
    let only_b = scene.wait(&["a"]).unwrap();
    assert!(granted(&only_b).is_none());
    scene.set("b", State::Drain, None);
    scene.pass(50);
    let ended = only_b.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ended, Poll::Ready(Ended::Unservable)), "{ended:?}");
}

#[test]
fn a_bound_of_the_pool_holds_over_all_servers() {
    let bounded = site(&format!("{TWO}, limits: {{ max_connections: 3 }}"));
    let mut scene = Scene::running(&bounded);
    let mut held: Vec<_> = ["a", "b", "a"].map(|name| scene.take(name).unwrap()).into();
    assert_eq!(scene.take("b").unwrap_err(), "in a pool at its limit");
    assert_eq!(scene.member("b").cell.in_use(), 1, "nothing is left behind");
    let gate = scene.world.pool("site").unwrap().1.gate.clone();
    assert_eq!((gate.in_use(), gate.max()), (3, Some(3)));
    let waiting = [scene.wait(&[]).unwrap(), scene.wait(&["a"]).unwrap()];
    assert!(waiting.iter().all(|ticket| granted(ticket).is_none()));
    // What `a` gives back the first takes; the second may have `b` only, and gets what the pool has room for there.
    held.remove(0);
    let first = granted(&waiting[0]).expect("a slot");
    assert_eq!(gate.in_use(), 3);
    held.remove(1);
    let second = granted(&waiting[1]).expect("a slot of the other server");
    assert_eq!(&*second.member.name, "b");
    assert_eq!(gate.in_use(), 3);
    // A bound that goes does not miscount those that it counted.
    scene.reload(&site(TWO));
    scene.pass(50);
    let more: Vec<_> = (0..5).map(|_| scene.take("a").unwrap()).collect();
    assert_eq!(gate.in_use(), 3);
    drop((held, first, second));
    assert_eq!(gate.in_use(), 0);
    scene.reload(&bounded);
    scene.pass(50);
    drop(more);
    assert_eq!(gate.in_use(), 0);
    assert_eq!(
        scene.member("a").cell.in_use() + scene.member("b").cell.in_use(),
        0
    );
}

/// While there is always somebody who waits, nobody picks: who gets a slot on which server is decided here.
#[test]
fn who_waits_at_a_pools_bound_is_given_the_server_with_the_least_in_use() {
    let settings = "limits: { max_connections: 6 }";
    let mut scene = Scene::running(&site(&format!("{TWO}, {settings}")));
    scene.set("b", State::Drain, None);
    scene.pass(50);
    let mut held: Vec<Lease> = (0..6).map(|_| scene.take("a").unwrap()).collect();
    let in_use = |scene: &Scene| ["a", "b"].map(|name| scene.member(name).cell.in_use());
    let turn = |scene: &Scene, held: &mut Vec<Lease>| {
        let waits = scene.wait(&[]).unwrap();
        assert!(granted(&waits).is_none(), "the pool is full");
        drop(held.remove(0));
        held.push(granted(&waits).expect("a slot"));
    };
    turn(&scene, &mut held);
    assert_eq!(in_use(&scene), [6, 0]);
    // One that comes back gets its part, and then each keeps to it.
    scene.set("b", State::Ready, None);
    scene.pass(50);
    for _ in 0..3 {
        turn(&scene, &mut held);
    }
    assert_eq!(in_use(&scene), [3, 3]);
    (0..9).for_each(|_| turn(&scene, &mut held));
    assert_eq!(in_use(&scene), [3, 3]);
    // Weights hold here too.
    scene.set("a", None, Some(2));
    scene.pass(50);
    (0..9).for_each(|_| turn(&scene, &mut held));
    assert_eq!(in_use(&scene), [4, 2]);
    // What the next one may not have is not what it gets, however little is in use there.
    let waits = scene.wait(&["b"]).unwrap();
    let at = held.iter().position(|lease| &*lease.member.name == "b");
    drop(held.remove(at.expect("one of them")));
    let lease = granted(&waits).expect("a slot");
    assert_eq!(&*lease.member.name, "a");
}

#[test]
fn a_pool_with_a_bound_below_its_servers_uses_all_of_them() {
    let settings = "limits: { max_connections: 1 }";
    let scene = Scene::running(&site(&format!("{TWO}, {settings}")));
    let mut held = scene.take("a").unwrap();
    let mut given = Vec::new();
    for _ in 0..20 {
        let waits = scene.wait(&[]).unwrap();
        drop(held);
        held = granted(&waits).expect("a slot");
        given.push(held.member.name.clone());
    }
    for name in ["a", "b"] {
        let count = given.iter().filter(|it| &***it == name).count();
        assert!(count >= 5, "{given:?}");
    }
}

#[test]
fn a_removed_servers_last_request_makes_room_in_the_pool() {
    let settings = "limits: { max_connections: 1 }";
    let mut scene = Scene::running(&site(&format!("{TWO}, {settings}")));
    let held = scene.take("a").unwrap();
    let waits = scene.wait(&[]).unwrap();
    scene.reload(&site(&format!(
        "servers: [{{ name: b, address: '10.0.0.2:80' }}], {settings}"
    )));
    scene.pass(50);
    assert!(granted(&waits).is_none());
    drop(held);
    assert_eq!(&*granted(&waits).expect("a slot").member.name, "b");
}

/// The ejection is over: one at a time until one has succeeded.
fn back_from_ejection(settings: &str) -> Scene {
    let mut scene = Scene::running(&site(&format!("{TWO}, {settings}")));
    scene.event(Event::Failing {
        member: scene.member("a").id,
        streak: Streak::GatewayErrors,
        last: Failure::Reset,
    });
    scene.pass(100);
    assert_eq!(scene.usable(), ["b"]);
    scene.pass(31_000);
    assert_eq!(scene.usable(), ["a", "b"]);
    scene
}

#[test]
fn a_server_is_half_open_until_a_request_succeeds() {
    let mut scene = back_from_ejection("");
    assert_eq!(scene.limit("a"), (Some(1), Some(LimitedBy::HalfOpen)));
    let note = |scene: &Scene| scene.view().standings[0].note.to_string();
    assert_eq!(
        note(&scene),
        "half open: 1 request at once until one succeeds"
    );
    let first = scene.take("a").unwrap();
    assert_eq!(scene.take("a").unwrap_err(), "at its limit");
    let _other = scene.take("b").unwrap();
    let waits = scene.wait(&["b"]).unwrap();
    assert!(granted(&waits).is_none());
    // The worker sees the success before the slot is given back.
    let member = scene.member("a");
    assert!(member.note_success());
    assert!(!member.note_success(), "it is told once");
    scene.event(Event::Passed { member: member.id });
    assert_eq!(scene.limit("a"), (Some(10_000), Some(LimitedBy::Sockets)));
    assert!(granted(&waits).is_some(), "who waits is let in");
    drop(first);
    scene.pass(50);
    assert_eq!(note(&scene), "");
}

#[test]
fn a_failure_ejects_a_half_open_server_again() {
    let mut scene = back_from_ejection("outlier_detection: { half_open_requests: 3 }");
    assert_eq!(scene.limit("a"), (Some(3), Some(LimitedBy::HalfOpen)));
    let member = scene.member("a");
    let streak = member.note_failure(true).expect("one is enough");
    scene.event(Event::Failing {
        member: member.id,
        streak,
        last: Failure::Timeout,
    });
    scene.pass(50);
    assert_eq!(scene.usable(), ["b"]);
    // Picks that did not know of it yet find it as narrow as before.
    assert_eq!(scene.limit("a"), (Some(3), Some(LimitedBy::HalfOpen)));
    scene.pass(61_000);
    assert_eq!(scene.limit("a"), (Some(3), Some(LimitedBy::HalfOpen)));
    // The operator knows better.
    scene.set("a", State::Ready, None);
    scene.pass(50);
    assert_eq!(scene.limit("a"), (Some(10_000), Some(LimitedBy::Sockets)));
}

/// Where no streak is counted, the counts tell of a success.
#[test]
fn the_counts_end_it_too() {
    let mut scene = back_from_ejection("outlier_detection: { consecutive_gateway_errors: 1 }");
    let member = scene.member("a");
    assert!(!member.note_success());
    member.stats.of(1).classes.record(503);
    member.stats.of(1).failed.increment();
    scene.pass(1500);
    assert!(member.is_half_open());
    member.stats.of(1).classes.record(200);
    scene.pass(1500);
    assert!(!member.is_half_open());
    assert_eq!(scene.limit("a"), (Some(10_000), Some(LimitedBy::Sockets)));
}

/// Plays so many seconds of a server that works on `capacity` at once, 10 ms each, with as many clients as it takes.
pub(super) fn work(scene: &mut Scene, server: &str, capacity: f64, seconds: u32) {
    let member = scene.member(server);
    let mut held: Vec<Lease> = Vec::new();
    for _ in 0..seconds * 10 {
        while let Ok(lease) = Lease::take(&member) {
            held.push(lease);
        }
        held.truncate(member.connections_max().unwrap_or(0) as usize);
        let latency = 0.010 * (held.len() as f64 / capacity).max(1.0);
        let count = (held.len() as f64 / latency / 10.0) as u32;
        for turn in 0..count {
            let at = scene.now + Duration::from_millis(100) / count * turn;
            member
                .cell
                .record_latency(at, Duration::from_secs_f64(latency));
            member.stats.of(0).classes.record(200);
        }
        scene.pass(100);
    }
}

#[test]
fn a_limit_follows_latency_and_outlives_reloads() {
    let config = |more: &str| site(&format!("{TWO}, {more}"));
    let mut scene = Scene::running(&config("adaptive_concurrency: gradient"));
    assert_eq!(scene.limit("a"), (Some(20), Some(LimitedBy::Latency)));
    work(&mut scene, "a", 10.0, 30);
    let settled = scene.limit("a").0.unwrap();
    assert!((8..=22).contains(&settled), "{settled}");
    assert_eq!(scene.limit("b").0, Some(20), "nobody asked for more");
    scene.reload(&config(
        "adaptive_concurrency: gradient, panic_threshold: 10%",
    ));
    assert_eq!(scene.limit("a").0, Some(settled));
    scene.reload(&config("adaptive_concurrency: { max: 6 }"));
    assert_eq!(scene.limit("a").0, Some(6));
    scene.reload(&config(""));
    assert_eq!(scene.limit("a"), (Some(10_000), Some(LimitedBy::Sockets)));
    scene.reload(&config(
        "adaptive_concurrency: gradient, limits: { connections_per_server: 12 }",
    ));
    assert_eq!(scene.limit("a"), (Some(12), Some(LimitedBy::Sockets)));
}

#[test]
fn a_limit_that_rises_lets_in_who_waits() {
    let mut scene = Scene::running(&site(
        "servers: [{ name: a, address: '10.0.0.1:80' }], adaptive_concurrency: { min: 2 }",
    ));
    let member = scene.member("a");
    let _held: Vec<_> = std::iter::from_fn(|| Lease::take(&member).ok()).collect();
    assert_eq!(member.cell.in_use(), 20);
    let waits = scene.wait(&[]).unwrap();
    for turn in 0..20 {
        let at = scene.now + Duration::from_millis(20) * turn;
        member.cell.record_latency(at, Duration::from_millis(5));
        member.stats.of(0).classes.record(200);
    }
    assert!(granted(&waits).is_none());
    scene.pass(500);
    assert!(granted(&waits).is_some(), "{:?}", scene.limit("a"));
}
