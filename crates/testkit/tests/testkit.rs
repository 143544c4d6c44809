//! The testkit on itself: its servers and clients against each other, no balancer between.

use anyhow::{Result, ensure};
use evenkeel_testkit::{
    Evenkeel, Haproxy, Load, Nginx, Origin, Port, Process, Raw, Signal, TempDir, curl, missing,
    reply, wait_accepts, wrk,
};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn raw_and_origin_speak_every_framing() -> Result<()> {
    let origin = Origin::http(|request| {
        match request.target.as_str() {
        "/length" => reply(200, "four"),
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nSum: 4\r\n\r\n".to_vec(),
        "/early" => b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/close" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end".to_vec(),
        "/echo" => reply(200, &request.body),
        _ => reply(404, ""),
    }
    })?;
    let mut raw = Raw::connect(origin.address())?;
    assert_eq!(raw.get("/length")?.text(), "four");
    let chunked = raw.get("/chunked")?;
    assert_eq!(
        (chunked.text().as_str(), chunked.trailers.get("sum")),
        ("abcd", Some("4"))
    );
    let early = raw.get("/early")?;
    assert_eq!((early.status, early.interim[0].status), (204, 103));
    let echo = raw.exchange(
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    )?;
    assert_eq!(echo.text(), "hi");
    let close = raw.get("/close")?;
    assert_eq!(
        (close.text().as_str(), close.closes()),
        ("until the end", true)
    );
    raw.expect_close()?;
    assert_eq!((origin.connections(), origin.requests()), (1, 5));
    assert_eq!(origin.seen()[3].body, b"hi");
    Ok(())
}

#[test]
fn an_origin_can_be_ugly() -> Result<()> {
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour")?;
        if conn.number() == 0 {
            conn.reset()
        } else {
            conn.close()
        }
    })?;
    for expected in ["reset", "ended after 4 of 10"] {
        let mut raw = Raw::connect(origin.address())?;
        let error = format!("{:#}", raw.get("/").unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}

#[test]
fn a_stopped_origin_refuses_and_ends_what_was_open() -> Result<()> {
    let mut origin = Origin::start(|conn| {
        conn.write("x")?;
        conn.hang(20 * SECOND);
        Ok(())
    })?;
    let mut raw = Raw::connect(origin.address())?;
    raw.read_exactly(1)?;
    raw.expect_silence(Duration::from_millis(50))?;
    assert_eq!(origin.open(), 1);
    origin.stop();
    raw.expect_close()?;
    ensure!(Raw::connect(origin.address()).is_err(), "still accepts");
    Ok(())
}

#[test]
fn a_reserved_port_can_be_listened_on_again_and_again() -> Result<()> {
    let port = Port::reserve()?;
    for _ in 0..3 {
        let listener = TcpListener::bind(port.address())?;
        let _client = Raw::connect(port.address())?;
        drop(listener.accept()?);
    }
    ensure!(Raw::connect(port.address()).is_err(), "nobody listens");
    Ok(())
}

#[test]
fn a_load_counts_what_is_lost_and_says_where() -> Result<()> {
    let origin = Origin::start(|conn| {
        for _ in 0..10 {
            if conn.read_request()?.is_none() {
                break;
            }
            conn.write(reply(200, "ok"))?;
        }
        conn.close() // without a word: the eleventh request is lost
    })?;
    let load = Load::to(origin.address()).clients(2).start();
    load.wait_ok(50, 10 * SECOND)?;
    let report = load.stop();
    assert!(report.failed > 0 && report.ok >= 50, "{report}");
    assert_eq!(report.failures[0].on_connection, 11, "{report}");
    assert_eq!(report.latencies.len() as u64, report.ok);
    assert!(report.percentile(1.0) >= report.percentile(0.5));
    Ok(())
}

#[test]
fn a_load_takes_an_announced_close_for_well() -> Result<()> {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::http(move |_| answer.to_vec())?;
    let load = Load::to(origin.address()).clients(2).start();
    load.wait_ok(20, 10 * SECOND)?;
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(report.connects, report.ok);

    let report = Load::to(origin.address())
        .clients(3)
        .end_at_close()
        .start()
        .wait_ended(10 * SECOND)?;
    assert_eq!((report.ok, report.failed), (3, 0), "{report}");
    Ok(())
}

#[test]
fn a_process_is_read_signalled_and_ended() -> Result<()> {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap 'echo got it; exit 3' TERM; echo on; echo err >&2; while :; do sleep 0.05; done",
    ]);
    let mut process = Process::spawn("sh", command)?;
    process.wait_log("on", 5 * SECOND)?;
    process.wait_log("err", 5 * SECOND)?;
    let mark = process.mark();
    process.signal(Signal::TERM)?;
    process.wait_log_after(mark, "got it", 5 * SECOND)?;
    assert_eq!(process.wait_exit(5 * SECOND)?.code(), Some(3));
    ensure!(process.signal(Signal::TERM).is_err(), "it has ended");
    let error = process
        .wait_log("never", 5 * SECOND)
        .unwrap_err()
        .to_string();
    assert!(error.contains("got it"), "{error}");
    Ok(())
}

/// A stand-in for the binary: it says what `Evenkeel` waits for, and nothing more.
#[test]
fn evenkeel_is_asked_for_its_ports() -> Result<()> {
    let dir = TempDir::new("stand-in")?;
    let script = "#!/bin/sh\ntest \"$1\" = run && cat \"$2\" || exit 2\n\
        trap 'exit 0' TERM\n\
        echo 'INFO listening listener=web address=127.0.0.1:4001' >&2\n\
        echo '{\"message\":\"listening\",\"listener\":\"pg\",\"address\":\"0.0.0.0:4002\"}' >&2\n\
        echo 'INFO admin address=127.0.0.1:4003' >&2\necho 'INFO ready' >&2\n\
        while :; do sleep 0.05; done\n";
    let binary = dir.write("stand-in", script)?;
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755))?;

    let mut evenkeel = Evenkeel::start(&binary, "listeners: {}\n")?;
    assert_eq!(evenkeel.address("web")?.port(), 4001);
    assert_eq!(evenkeel.address("pg")?, "127.0.0.1:4002".parse()?);
    assert_eq!(evenkeel.admin_url()?, "http://127.0.0.1:4003");
    assert!(evenkeel.address("other").is_err());
    evenkeel.wait_log("listeners: {}", SECOND)?;
    evenkeel.write_config("pools: {}\n")?;
    assert_eq!(
        std::fs::read_to_string(evenkeel.config_path())?,
        "pools: {}\n"
    );
    evenkeel.stop(5 * SECOND)
}

#[test]
fn nginx_answers_dies_and_comes_back() -> Result<()> {
    if missing("nginx") || missing("curl") || missing("wrk") {
        return Ok(());
    }
    let mut nginx = Nginx::start("a", "location = /gone { return 410; }")?;
    let url = |path: &str| format!("http://{}{path}", nginx.address());
    let home = curl(&[&url("/")])?;
    assert_eq!(
        (home.status, home.text().as_str(), home.header("X-Server")),
        (200, "a\n", Some("a"))
    );
    assert_eq!(curl(&["-d", "x=y", &url("/")])?.status, 200);
    assert_eq!(curl(&[&url("/gone")])?.status, 410);
    for (path, size) in [("/1k", 1 << 10), ("/64k", 64 << 10), ("/1m", 1 << 20)] {
        assert_eq!(curl(&[&url(path)])?.body.len(), size);
    }
    let (root, health) = (url("/"), url("/health"));
    let report = wrk(&["-t1", "-c2", "-d1", &health], 10 * SECOND)?;
    assert!(
        report.requests > 0 && report.bad_status + report.socket_errors == 0,
        "{report:?}"
    );

    nginx.kill();
    assert!(curl(&[&root]).is_err());
    nginx.restart()?;
    assert_eq!(curl(&[&root])?.status, 200);
    Ok(())
}

#[test]
fn haproxy_stands_before_an_origin() -> Result<()> {
    if missing("haproxy") {
        return Ok(());
    }
    let origin = Origin::http(|_| reply(200, "from behind"))?;
    let haproxy = Haproxy::start(&format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         listen l\n bind 127.0.0.1:{{port}}\n server s {}\n",
        origin.address()
    ))?;
    wait_accepts(haproxy.address(), SECOND)?;
    assert_eq!(
        Raw::connect(haproxy.address())?.get("/")?.text(),
        "from behind"
    );
    Ok(())
}
