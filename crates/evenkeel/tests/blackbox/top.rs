//! `evenkeel top`: once and plainly, and live on a terminal.

use serde_json::Value;
use testkit::{Load, Origin, Signal, missing, reply, wait_until};

use crate::command::evenkeel_with;
use crate::life_support::{SOON, ask, site, start, wait_all, web};
use crate::shown::Shown;

fn origins() -> [Origin; 2] {
    [0, 1].map(|_| Origin::http(|_| reply(200, "here")).expect("an origin"))
}

#[test]
fn without_a_terminal_it_shows_the_rates_of_one_interval() {
    let origins = origins();
    let addresses = origins.each_ref().map(Origin::address);
    let evenkeel = start(&site(&addresses, "balance: round_robin"));
    wait_all(&evenkeel, &addresses, "healthy");
    let load = Load::to(web(&evenkeel)).clients(4).start();
    load.wait_ok(50, SOON).expect("traffic");
    let finished = ask(&evenkeel, &["top", "--json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let json: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    let pool = &json["pools"][0];
    assert!(json["over_ms"].as_u64() >= Some(1000), "{json}");
    let all = pool["per_second"].as_f64().expect("a rate");
    assert!(all > 0.0, "{json}");
    let each: Vec<f64> = (0..2)
        .filter_map(|at| pool["servers"][at]["per_second"].as_f64())
        .collect();
    assert!((each.iter().sum::<f64>() - all).abs() < 1.0, "{json}");
    assert!(
        each.iter().all(|rate| *rate > all / 4.0),
        "round robin: {json}"
    );

    let finished = ask(&evenkeel, &["top", "--interval", "300ms"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.text();
    for part in [
        "Evenkeel ",
        "site  round_robin  2 of 2 usable  ",
        " req/s  0.0 failed/s",
        "REQ/S",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "plain: {text:?}");
    load.stop().assert_none_failed();
}

#[test]
fn what_is_wrong_is_exit_1_and_nobody_there_is_exit_3() {
    for (interval, part) in [("x", "`x`"), ("1ms", "200ms to 1m")] {
        let finished = evenkeel_with("", &["top", "--interval", interval]);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }
    let finished = evenkeel_with("", &["top", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
}

#[test]
fn on_a_terminal_it_goes_on_until_q_also_while_the_instance_is_away() {
    if missing("script") {
        return;
    }
    let [mut a, b] = origins();
    let addresses = [a.address(), b.address()];
    let mut evenkeel = start(&site(&addresses, ""));
    wait_all(&evenkeel, &addresses, "healthy");
    let url = evenkeel.admin_url().expect("an address");
    let mut top = Shown::start(&format!("top --interval 200ms --admin {url}"));
    top.wait(0, "2 of 2 usable");
    top.wait(0, "req/s");
    a.stop();
    top.wait(0, "1 of 2 usable");
    let from = top.text(0).len();
    evenkeel.stop(SOON).expect("it ends");
    top.wait(from, "no news: nothing answers at ");
    top.press("q", "\x1b[?1049l");
    wait_until("the end", SOON, || {
        matches!(top.child.try_wait(), Ok(Some(_)))
    })
    .expect("it ends");
    assert_eq!(top.child.wait().expect("a status").code(), Some(0));
}

#[test]
fn a_signal_gives_the_terminal_back() {
    if missing("script") {
        return;
    }
    let [a, _b] = origins();
    let evenkeel = start(&site(&[a.address()], ""));
    let url = evenkeel.admin_url().expect("an address");
    let mut top = Shown::start(&format!("top --admin {url}"));
    top.wait(0, "of 1 usable");
    let process = top.process();
    process.signal(Signal::TERM).expect("it runs");
    process.wait_end(SOON).expect("it ends");
    top.wait(0, "\x1b[?1049l");
    wait_until("the end", SOON, || {
        matches!(top.child.try_wait(), Ok(Some(_)))
    })
    .expect("it ends");
}
