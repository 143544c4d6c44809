//! Faults of our own, made on purpose: a panic ends one connection, a worker that is stuck or dies takes only its own.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc::channel;
use std::time::Duration;

use testkit::{Evenkeel, Load, Origin, Raw, reply, wait_until};

use crate::command::BINARY;
use crate::http2_support::{DATA, Frames, GET, HEADERS, INTERNAL_ERROR, RST_STREAM, WINDOW_UPDATE};
use crate::life_support::{SOON, admin_get, assert_metric, connect, metric, site, wait_all, web};

fn start(faults: &str, workers: usize, config: &str) -> Evenkeel {
    let config = format!("workers: {workers}\n{config}");
    let evenkeel = Evenkeel::start_with(BINARY, &config, |command| {
        command.env("EVENKEEL_FAULT", faults);
    });
    evenkeel.expect("evenkeel starts")
}

fn here() -> Origin {
    Origin::http(|_| reply(200, "here")).expect("an origin")
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn ask(client: &mut Raw) -> Option<u16> {
    client.get("/").ok().map(|answer| answer.status)
}

fn health(evenkeel: &Evenkeel) -> String {
    let health: serde_json::Value =
        serde_json::from_str(&admin_get(evenkeel, "/health")).expect("JSON");
    health["status"].as_str().expect("a status").to_owned()
}

fn wait_metric(evenkeel: &Evenkeel, series: &str, value: f64) {
    wait_until(&format!("{series} is {value}"), SOON, || {
        metric(evenkeel, series) == value
    })
    .unwrap_or_else(|error| panic!("{error}, not {}", metric(evenkeel, series)));
}

/// What it wrote may be read a moment after it has ended.
fn wait_log(evenkeel: &Evenkeel, text: &str) {
    wait_until(&format!("the log has {text:?}"), SOON, || {
        evenkeel.log().contains(text)
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

/// Has the thread of one worker end; so many have then.
fn kill_worker(evenkeel: &Evenkeel, deaths: f64) {
    let mut client = connect(web(evenkeel));
    client.send(request("/die")).expect("sent");
    wait_metric(evenkeel, "evenkeel_worker_deaths_total{", deaths);
}

#[test]
fn a_panic_ends_one_connection_and_every_count_is_right() {
    let origin = here();
    let config = site(&[origin.address()], "").replace(
        &format!("['{}']", origin.address()),
        &format!(
            "[{{ address: '{}', max_connections: 9 }}]",
            origin.address()
        ),
    );
    let evenkeel = start("panic@/boom", 2, &config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let load = Load::to(web(&evenkeel)).clients(8).start();
    for _ in 0..20 {
        let mut client = connect(web(&evenkeel));
        assert_eq!(ask(&mut client), Some(200));
        client.send(request("/boom")).expect("sent");
        client.response().expect_err("the connection ends");
        load.wait_ok(20, SOON).expect("traffic");
    }
    let report = load.stop();
    report.assert_none_failed();
    wait_metric(&evenkeel, "evenkeel_panics_total", 20.0);
    wait_metric(&evenkeel, "evenkeel_listener_connections{", 0.0);
    wait_metric(&evenkeel, "evenkeel_worker_connections{", 0.0);
    for (series, value) in [
        ("evenkeel_active_connections{", 0.0),
        ("evenkeel_requests_in_flight", 0.0),
        ("evenkeel_errors_total{reason=\"internal\"}", 20.0),
        ("evenkeel_worker_deaths_total{", 0.0),
    ] {
        assert_eq!(metric(&evenkeel, series), value, "{series}");
    }
    // A request in the class of those without an answer, for each; none is missing.
    assert_metric(
        &evenkeel,
        "evenkeel_requests_total{",
        report.ok as f64 + 40.0,
    );
    // The bound of nine would be used up by twenty slots that were not given back.
    assert_eq!(ask(&mut connect(web(&evenkeel))), Some(200));
}

#[test]
fn a_panic_ends_one_stream_of_http2_and_every_count_is_right() {
    const PANICS: u32 = 20;
    let one = here();
    let two = Origin::start(|conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            conn.answer(stream, "here")?;
        }
        Ok(())
    });
    let two = two.expect("an origin");
    for (origin, http) in [(&one, 1), (&two, 2)] {
        let address = origin.address();
        let config = site(&[address], &format!("http: {http}")).replace(
            &format!("['{address}']"),
            &format!("[{{ address: '{address}', max_connections: 9 }}]"),
        );
        let evenkeel = start("panic@/boom", 1, &config);
        wait_all(&evenkeel, &[address], "healthy");
        let boom: Vec<_> = GET
            .iter()
            .map(|(name, value)| (*name, if *value == "/" { "/boom" } else { value }))
            .collect();
        let mut client = Frames::connect(web(&evenkeel));
        for number in 0..PANICS {
            let stream = 4 * number + 1;
            client.request(stream, &boom, true);
            client.request(stream + 2, GET, true);
            // They end in any order.
            let mut fates = [None, None];
            while fates.contains(&None) {
                let frame = client.next().expect("the connection goes on");
                match (frame.stream.checked_sub(stream), frame.kind) {
                    (Some(0), RST_STREAM) => fates[0] = Some(frame.code()),
                    (Some(2), DATA) if frame.ends_stream() => fates[1] = Some(0),
                    (Some(2), HEADERS | DATA) | (None, WINDOW_UPDATE) => {}
                    _ => panic!("{http}: {frame:?}"),
                }
            }
            assert_eq!(fates, [Some(INTERNAL_ERROR), Some(0)]);
        }
        wait_metric(&evenkeel, "evenkeel_panics_total", f64::from(PANICS));
        for (series, value) in [
            ("evenkeel_active_connections{", 0),
            ("evenkeel_requests_in_flight", 0),
            ("evenkeel_errors_total{reason=\"internal\"}", PANICS),
            ("evenkeel_requests_total{", 2 * PANICS),
            ("evenkeel_listener_connections{", 1),
            ("evenkeel_worker_deaths_total{", 0),
        ] {
            let found = metric(&evenkeel, series);
            assert_eq!(found, f64::from(value), "{http}: {series}");
        }
        drop(client);
        wait_metric(&evenkeel, "evenkeel_listener_connections{", 0.0);
        // The bound of nine would be used up by slots that were not given back.
        assert_eq!(ask(&mut connect(web(&evenkeel))), Some(200));
    }
}

#[test]
fn a_worker_that_dies_is_replaced_and_only_its_own_connections_are_lost() {
    let origin = here();
    let evenkeel = start("die@/die", 4, &site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut clients: Vec<Raw> = (0..31).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut clients {
        assert_eq!(ask(client), Some(200));
    }
    kill_worker(&evenkeel, 1.0);
    // From here on everybody who comes is served.
    let mut new: Vec<Raw> = (0..40).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut new {
        assert_eq!(ask(client), Some(200));
    }
    let left = clients.iter_mut().filter_map(ask).count();
    // Eight for each of the four, two more or fewer.
    assert!((20..=26).contains(&left), "{left} of 31 are left");
    wait_metric(&evenkeel, "evenkeel_worker_away{", 0.0);
    wait_log(&evenkeel, "a worker was replaced");
    assert_eq!(health(&evenkeel), "healthy");
    // The new one has its share.
    let more: Vec<Raw> = (0..20)
        .map(|_| {
            let mut client = connect(web(&evenkeel));
            assert_eq!(ask(&mut client), Some(200));
            client
        })
        .collect();
    let text = admin_get(&evenkeel, "/metrics");
    let loads: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("evenkeel_worker_connections{"))
        .map(|line| line.rsplit(' ').next().expect(line).parse().expect(line))
        .collect();
    assert!(loads.iter().all(|load| *load >= 10.0), "{loads:?}");
    drop((clients, new, more));
    wait_metric(&evenkeel, "evenkeel_worker_connections{", 0.0);
    wait_metric(&evenkeel, "evenkeel_listener_connections{", 0.0);
    assert_eq!(metric(&evenkeel, "evenkeel_requests_in_flight"), 0.0);
    assert_eq!(metric(&evenkeel, "evenkeel_active_connections{"), 0.0);
}

#[test]
fn a_worker_that_dies_again_and_again_never_stops_the_others() {
    let origin = here();
    let evenkeel = start("die@/die", 2, &site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    for deaths in 1..=4 {
        kill_worker(&evenkeel, f64::from(deaths));
        for _ in 0..10 {
            assert_eq!(ask(&mut connect(web(&evenkeel))), Some(200));
        }
    }
    wait_metric(&evenkeel, "evenkeel_worker_away{", 0.0);
}

#[test]
fn a_stuck_worker_is_stood_in_for_and_nobody_is_lost() {
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::http(move |request| {
        if request.target == "/stall" {
            tell.lock().expect("one at a time").send(()).ok();
        }
        reply(200, "here")
    });
    let origin = origin.expect("an origin");
    let mut evenkeel = start("stall@/stall=12s", 4, &site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    // Some of these are on the worker that gets stuck: they wait.
    let load = Load::to(web(&evenkeel)).clients(12).start();
    load.wait_ok(100, SOON).expect("traffic");
    let mut stalled = connect(web(&evenkeel));
    stalled.send(request("/stall")).expect("sent");
    // Once the server has it, the worker takes in nobody more.
    told.recv_timeout(SOON).expect("the server is asked");
    let mut waiting: Vec<Raw> = (0..16).map(|_| connect(web(&evenkeel))).collect();
    for client in &mut waiting {
        client.send(request("/")).expect("sent");
    }
    wait_metric(&evenkeel, "evenkeel_worker_away{", 1.0);
    assert_eq!(health(&evenkeel), "degraded");
    // What the kernel had queued for it, and what comes now, is served while it is stuck.
    for client in &mut waiting {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    for _ in 0..32 {
        assert_eq!(ask(&mut connect(web(&evenkeel))), Some(200));
    }
    stalled
        .expect_silence(Duration::from_millis(10))
        .expect("it is still stuck");
    load.wait_ok(100, SOON).expect("traffic");
    assert_eq!(stalled.response().expect("an answer").status, 200);
    wait_metric(&evenkeel, "evenkeel_worker_away{", 0.0);
    assert_metric(&evenkeel, "evenkeel_worker_stalls_total{", 1.0);
    assert_eq!(health(&evenkeel), "healthy");
    for _ in 0..32 {
        assert_eq!(ask(&mut connect(web(&evenkeel))), Some(200));
    }
    load.stop().assert_none_failed();
    wait_log(&evenkeel, "a worker is stuck");
    wait_log(&evenkeel, "a worker is back");
    evenkeel.stop(SOON).expect("exit 0");
}

#[test]
fn a_worker_that_stays_stuck_ends_the_process() {
    let origin = here();
    let faults = "stall@/stall=600s, lost_after=6s";
    let mut evenkeel = start(faults, 2, &site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    client.send(request("/stall")).expect("sent");
    let status = evenkeel.wait_exit(SOON + SOON).expect("it ends");
    assert_eq!(
        status.signal(),
        Some(rustix::process::Signal::ABORT.as_raw())
    );
    wait_log(&evenkeel, "the process is lost");
}

#[test]
fn a_stuck_worker_does_not_hold_the_end_up() {
    let origin = here();
    let config = site(&[origin.address()], "").replace("timeout: 10s", "timeout: 1s");
    let mut evenkeel = start("stall@/stall=600s", 2, &config);
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let mut client = connect(web(&evenkeel));
    client.send(request("/stall")).expect("sent");
    wait_metric(&evenkeel, "evenkeel_requests_in_flight", 1.0);
    evenkeel.stop(SOON).expect("exit 0");
}

#[test]
fn a_fault_that_means_nothing_is_refused() {
    let origin = here();
    let config = site(&[origin.address()], "");
    let mut evenkeel = Evenkeel::launch(BINARY, &config, |command| {
        command.env("EVENKEEL_FAULT", "panic");
    })
    .expect("it is launched");
    let status = evenkeel.wait_exit(SOON).expect("it ends");
    assert!(!status.success());
    wait_log(&evenkeel, "EVENKEEL_FAULT=panic");
}
