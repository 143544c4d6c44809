//! Memory is short: accepting pauses, new requests are refused, and what runs goes on.

use std::time::Duration;

use testkit::{Evenkeel, Origin, Raw, reply, wait_until};

use crate::life_support::{SOON, admin_get, connect, metric, reload, site, start, wait_all, web};

const MIB: f64 = 1024.0 * 1024.0;

/// Answers `/big` without end, else "here".
fn origin() -> Origin {
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            if request.target != "/big" {
                conn.write(reply(200, "here"))?;
                continue;
            }
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")?;
            let piece = vec![b'x'; 64 * 1024];
            loop {
                conn.write(&piece)?;
            }
        }
        Ok(())
    });
    origin.expect("an origin")
}

/// Two workers, and buffers of one MiB.
fn config(origin: &Origin) -> String {
    let site = site(&[origin.address()], "");
    format!("workers: 2\nlimits: {{ buffer_bytes: 1MiB }}\n{site}")
}

/// The most that was held whenever it was looked at.
#[derive(Default)]
struct Most(f64);

impl Most {
    fn look(&mut self, evenkeel: &Evenkeel) {
        self.0 = self.0.max(metric(evenkeel, "evenkeel_buffer_bytes "));
    }
}

/// Asks for what never ends, and reads none of it.
fn slow_reader(evenkeel: &Evenkeel) -> Raw {
    let mut client = connect(web(evenkeel));
    client
        .send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    client
}

fn paused(evenkeel: &Evenkeel, cause: &str) -> f64 {
    let start = format!("evenkeel_listener_paused_total{{listener=\"web\",cause=\"{cause}\"}}");
    metric(evenkeel, &start)
}

fn told(evenkeel: &Evenkeel, message: &str) -> usize {
    let log = evenkeel.log();
    let lines = log.lines();
    lines
        .filter(|line| line.contains(message) && line.contains("memory"))
        .count()
}

#[test]
fn slow_readers_do_not_take_all_the_memory_and_the_honest_are_answered() {
    let origin = origin();
    let evenkeel = start(&config(&origin));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    assert_eq!(metric(&evenkeel, "evenkeel_buffer_bytes_max"), MIB);
    // They came before: a pause in accepting does not concern them.
    let mut honest: Vec<_> = (0..4).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut honest {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let mut most = Most::default();
    let slow: Vec<_> = (0..120)
        .map(|_| {
            most.look(&evenkeel);
            slow_reader(&evenkeel)
        })
        .collect();
    wait_until("accepting pauses", SOON, || {
        paused(&evenkeel, "memory") > 0.0
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    let mut refused = 0;
    for round in 0..50 {
        for client in &mut honest {
            let answer = client.get("/").expect("an answer");
            if answer.status == 503 {
                let reason = answer.header("x-evenkeel-reason");
                assert_eq!(reason, Some("overloaded"), "{round}: {answer}");
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            } else {
                assert_eq!(answer.status, 200, "{round}: {answer}");
            }
        }
        most.look(&evenkeel);
    }
    let counted = metric(&evenkeel, "evenkeel_errors_total{reason=\"overloaded\"}");
    assert!(counted >= f64::from(refused), "{counted} of {refused}");
    assert!(most.0 > 0.5 * MIB, "{} bytes were held", most.0);
    assert!(most.0 <= MIB, "{} bytes were held", most.0);
    assert_eq!(paused(&evenkeel, "connections"), 0.0);

    drop(slow);
    wait_until("new connections are served again", SOON, || {
        let mut client = connect(web(&evenkeel));
        client.get("/").is_ok_and(|answer| answer.status == 200)
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    // Those that waited in the kernel's queue are accepted now, though they have left, and their answers take memory until
    // that is noticed.
    wait_until("all that have left are gone", SOON, || {
        metric(&evenkeel, "evenkeel_listener_connections{") == honest.len() as f64
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    for client in &mut honest {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    wait_until("the log says that accepting goes on", SOON, || {
        told(&evenkeel, "accepting goes on") == 1
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    assert_eq!(told(&evenkeel, "accepting pauses"), 1);
}

/// Heads that never end hold what they need until their time is over; the bound holds meanwhile.
#[test]
fn unfinished_heads_are_refused_when_memory_is_short() {
    let origin = origin();
    let evenkeel = start(&config(&origin));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut clients: Vec<_> = (0..150).map(|_| connect(web(&evenkeel))).collect();
    wait_until("all are accepted", SOON, || {
        metric(&evenkeel, "evenkeel_listener_connections{") == 150.0
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    let mut most = Most::default();
    for client in &mut clients {
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\nx-a: ")
            .expect("sent");
        most.look(&evenkeel);
    }
    wait_until("some are refused", SOON, || {
        metric(&evenkeel, "evenkeel_errors_total{reason=\"overloaded\"}") > 0.0
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    most.look(&evenkeel);
    assert!(most.0 <= MIB, "{} bytes were held", most.0);
    let last = clients.pop().expect("clients");
    let answer = { last }.response().expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-evenkeel-reason"), Some("overloaded"));
    drop(clients);
    wait_until("all is well again", SOON, || {
        let mut client = connect(web(&evenkeel));
        client.get("/").is_ok_and(|answer| answer.status == 200)
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

#[test]
fn the_bound_follows_a_reload() {
    let origin = origin();
    let evenkeel = start(&config(&origin));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let wider = config(&origin).replace("1MiB", "64MiB");
    reload(&evenkeel, &wider);
    assert_eq!(metric(&evenkeel, "evenkeel_buffer_bytes_max"), 64.0 * MIB);
    let slow: Vec<_> = (0..100).map(|_| slow_reader(&evenkeel)).collect();
    wait_until("all of them hold buffers", SOON, || {
        metric(&evenkeel, "evenkeel_buffer_bytes ") > 1.5 * MIB
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", admin_get(&evenkeel, "/metrics")));
    assert_eq!(paused(&evenkeel, "memory"), 0.0);
    reload(&evenkeel, &config(&origin));
    let mut waits = connect(web(&evenkeel));
    waits
        .send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    waits
        .expect_silence(Duration::from_millis(200))
        .expect("accepting pauses");
    reload(&evenkeel, &config(&origin).replace("1MiB", "off"));
    assert_eq!(waits.response().expect("an answer").status, 200);
    assert_eq!(metric(&evenkeel, "evenkeel_buffer_bytes_max"), 0.0);
    drop(slow);
}
