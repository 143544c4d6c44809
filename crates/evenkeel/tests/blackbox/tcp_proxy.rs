//! The TCP proxy: bytes, ends, bounds.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use testkit::{Evenkeel, Origin, Port, Raw, wait_until};

use crate::life_support::{
    SOON, ask, assert_metric, connect, list, metric, reload, server, start, wait_health,
};

/// One TCP listener, `pg`, in front of the pool `site`.
fn tcp(servers: &[SocketAddr], listener: &str, pool: &str) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
shutdown: {{ idle_wait: 1s, timeout: 2s }}
listeners:
  pg: {{ bind: '127.0.0.1:0', protocol: tcp, pool: site{listener} }}
pools:
  site: {{ servers: {}{pool} }}
",
        list(servers)
    )
}

fn pg(evenkeel: &Evenkeel) -> SocketAddr {
    evenkeel.address("pg").expect("an address of `pg`")
}

/// Connects to what ends each connection at once; the reset may come before `connect` returns.
fn expect_turned_away(address: SocketAddr) {
    if let Ok(mut client) = Raw::connect(address) {
        client.expect_close().expect("closed");
    }
}

/// Sends back what comes, and ends when the other side does.
fn echo() -> Origin {
    Origin::start(|conn| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = conn.stream().read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            conn.write(&buffer[..count])?;
        }
    })
    .expect("an origin")
}

/// Bytes without a pattern, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[test]
fn every_byte_arrives_both_ways_and_each_end_is_passed_on() {
    let origin = echo();
    let evenkeel = start(&tcp(&[origin.address()], "", ""));
    let clients: Vec<_> = [0, 1, 1000, 1 << 16, 8 << 20]
        .into_iter()
        .enumerate()
        .map(|(seed, size)| {
            let address = pg(&evenkeel);
            std::thread::spawn(move || {
                let sent = noise(seed as u64, size);
                let stream = TcpStream::connect(address).expect("a connection");
                let mut writer = stream.try_clone().expect("a clone");
                let bytes = sent.clone();
                let writing = std::thread::spawn(move || {
                    writer.write_all(&bytes).expect("sent");
                    writer.shutdown(Shutdown::Write).expect("half-closed");
                });
                let mut received = Vec::new();
                (&stream).read_to_end(&mut received).expect("all of it");
                writing.join().expect("a thread");
                assert!(received == sent, "{} of {size} bytes", received.len());
            })
        })
        .collect();
    for client in clients {
        client.join().expect("whole");
    }
    wait_until("the server's ends are closed", SOON, || origin.open() == 0)
        .expect("the server's ends are closed");
}

#[test]
fn one_side_may_go_on_after_the_other_has_ended() {
    // The server ends first, and still reads.
    let origin = Origin::start(|conn| {
        conn.write("greeting")?;
        conn.half_close()?;
        let rest = conn.read_to_end()?;
        anyhow::ensure!(rest == b"a late word", "{rest:?}");
        Ok(())
    })
    .expect("an origin");
    let evenkeel = start(&tcp(&[origin.address()], "", ", health_check: off"));
    let mut client = connect(pg(&evenkeel));
    assert_eq!(client.read_to_end().expect("the end"), b"greeting");
    client.send("a late word").expect("sent");
    client.half_close().expect("half-closed");
    wait_until("both have ended", SOON, || {
        origin.connections() == 1 && origin.open() == 0
    })
    .expect("both have ended");
    assert_eq!(origin.errors(), [""; 0]);

    // The client ends first, and still reads.
    let origin = Origin::start(|conn| {
        let word = conn.read_to_end()?;
        conn.write(word)?;
        conn.write(" and more")
    })
    .expect("an origin");
    let evenkeel = start(&tcp(&[origin.address()], "", ", health_check: off"));
    let mut client = connect(pg(&evenkeel));
    client.send("word").expect("sent");
    client.half_close().expect("half-closed");
    assert_eq!(client.read_to_end().expect("the end"), b"word and more");
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let origin = Origin::start(|conn| {
        conn.read_exactly(1)?;
        conn.reset()
    })
    .expect("an origin");
    let evenkeel = start(&tcp(&[origin.address()], "", ", health_check: off"));
    let mut client = connect(pg(&evenkeel));
    client.send("x").expect("sent");
    let error = client.read_to_end().expect_err("a reset");
    assert!(
        format!("{error:#}").to_lowercase().contains("reset"),
        "{error:#}"
    );
}

#[test]
fn a_reader_that_does_not_read_stops_the_sender_and_memory_stays_bounded() {
    let origin = Origin::start(|conn| {
        let block = vec![7; 1 << 20];
        for _ in 0..1024 {
            conn.write(&block)?;
        }
        Ok(())
    })
    .expect("an origin");
    let evenkeel = start(&tcp(&[origin.address()], "", ", health_check: off"));
    let before = memory_kib(&evenkeel);
    let mut clients: Vec<_> = (0..20).map(|_| connect(pg(&evenkeel))).collect();
    for client in &mut clients {
        assert_eq!(client.read_exactly(1).expect("a byte"), [7]);
    }
    // Nothing moves any more when what has been passed on stays the same.
    let mut last = -1.0;
    wait_until("the senders are stopped", SOON, || {
        std::thread::sleep(Duration::from_millis(200));
        let bytes = f64::from(received_kib(&clients));
        let same = bytes == last;
        last = bytes;
        same
    })
    .expect("the senders are stopped");
    let grown = memory_kib(&evenkeel).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for 20 connections");
    // And it goes on when it reads.
    let more = clients[0].read_exactly(32 << 20).expect("more");
    assert!(more.iter().all(|byte| *byte == 7));
}

/// What waits in the kernel for these clients.
fn received_kib(clients: &[Raw]) -> u32 {
    let waiting = clients.iter().map(|client| {
        let stream = client.stream();
        rustix::io::ioctl_fionread(stream).unwrap_or_default() >> 10
    });
    u32::try_from(waiting.sum::<u64>()).unwrap_or(u32::MAX)
}

fn memory_kib(evenkeel: &Evenkeel) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", evenkeel.pid()));
    let status = status.expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words.and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn a_refused_connect_goes_to_another_server() {
    let origin = echo();
    let dead = [
        Port::reserve().expect("a port"),
        Port::reserve().expect("a port"),
    ];
    let servers = [dead[0].address(), dead[1].address(), origin.address()];
    let evenkeel = start(&tcp(
        &servers,
        "",
        ", balance: round_robin, health_check: off",
    ));
    for _ in 0..10 {
        let mut client = connect(pg(&evenkeel));
        client.send("hello").expect("sent");
        assert_eq!(client.read_exactly(5).expect("an echo"), b"hello");
    }
    assert!(
        metric(
            &evenkeel,
            "evenkeel_retries_total{pool=\"site\",cause=\"connect_refused\""
        ) > 0.0
    );
}

#[test]
fn nobody_to_connect_to_is_a_reset() {
    let dead = Port::reserve().expect("a port");
    let mut evenkeel = start(&tcp(&[dead.address()], "", ", health_check: off"));
    expect_turned_away(pg(&evenkeel));
    let line = evenkeel.wait_log("connect_refused", SOON).expect("a line");
    let why = format!("{}: tried in vain", dead.address());
    assert!(line.contains(&why), "{line}");
}

#[test]
fn silence_ends_a_connection_at_its_time() {
    let origin = echo();
    let listener = ", timeouts: { idle: 1s, half_closed: 300ms }";
    let evenkeel = start(&tcp(&[origin.address()], listener, ""));
    let mut client = connect(pg(&evenkeel));
    // A byte now and then keeps it open for longer than the time.
    let started = Instant::now();
    for _ in 0..4 {
        client
            .expect_silence(Duration::from_millis(400))
            .expect("open");
        client.send("x").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"x");
    }
    assert!(started.elapsed() > Duration::from_millis(1500));
    let silent = Instant::now();
    client.expect_close().expect("closed");
    assert!(
        silent.elapsed() > Duration::from_millis(800),
        "{:?}",
        silent.elapsed()
    );

    // A server that hangs after the client has ended.
    let hangs = Origin::start(|conn| {
        conn.read_to_end()?;
        conn.hang(SOON);
        Ok(())
    })
    .expect("an origin");
    let evenkeel = start(&tcp(
        &[hangs.address()],
        &listener.replace("1s", "1m"),
        ", health_check: off",
    ));
    let mut client = connect(pg(&evenkeel));
    client.half_close().expect("half-closed");
    client.expect_close().expect("closed");
}

#[test]
fn a_full_listener_pauses_and_goes_on_when_one_leaves() {
    let origin = echo();
    let evenkeel = start(&tcp(
        &[origin.address()],
        ", limits: { connections: 3 }",
        "",
    ));
    let mut clients: Vec<_> = (0..3).map(|_| connect(pg(&evenkeel))).collect();
    for client in &mut clients {
        client.send("x").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"x");
    }
    // The kernel takes it; we do not, yet.
    let mut waits = connect(pg(&evenkeel));
    waits.send("w").expect("sent");
    wait_until("it pauses", SOON, || {
        metric(
            &evenkeel,
            "evenkeel_listener_paused_total{listener=\"pg\",cause=\"connections\"}",
        ) > 0.0
    })
    .expect("it pauses");
    assert_metric(
        &evenkeel,
        "evenkeel_listener_connections{listener=\"pg\"}",
        3.0,
    );
    waits
        .expect_silence(Duration::from_millis(200))
        .expect("nothing yet");
    clients.pop();
    assert_eq!(waits.read_exactly(1).expect("an echo"), b"w");
    clients[0].send("y").expect("sent");
    assert_eq!(clients[0].read_exactly(1).expect("an echo"), b"y");
}

#[test]
fn tunnels_outlive_reloads_and_a_drain_waits_for_them() {
    let origin = echo();
    let other = echo();
    let mut evenkeel = start(&tcp(&[origin.address()], "", ", drain: { timeout: 500ms }"));
    wait_health(&evenkeel, origin.address(), "healthy");
    let mut client = connect(pg(&evenkeel));
    let mut ping = |word: &str| {
        client.send(word).expect("sent");
        assert_eq!(
            client.read_exactly(word.len()).expect("an echo"),
            word.as_bytes()
        );
    };
    ping("one");
    reload(
        &evenkeel,
        &tcp(
            &[origin.address(), other.address()],
            "",
            ", drain: { timeout: 500ms }",
        ),
    );
    // Until then its drain would leave nobody, and need force.
    wait_health(&evenkeel, other.address(), "healthy");
    ping("two");
    let name = origin.address().to_string();
    assert_eq!(server(&evenkeel, "site", &name)["active"], 1);
    let finished = ask(&evenkeel, &["server", "drain", "site", &name]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.text().contains("1 cut"), "{}", finished.text());
    client.expect_close().expect("cut");
    assert_eq!(server(&evenkeel, "site", &name)["active"], 0);

    let mut client = connect(pg(&evenkeel));
    client.send("x").expect("sent");
    assert_eq!(client.read_exactly(1).expect("an echo"), b"x");
    evenkeel.signal(testkit::Signal::TERM).expect("a signal");
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
    evenkeel
        .wait_log("stopped: 1 request cut", SOON)
        .expect("the tunnel");
}

#[test]
fn unix_sockets_on_both_sides() {
    let dir = testkit::TempDir::new("unix").expect("a folder");
    let path = dir.path().join("server.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).ok();
                stream.write_all(&all).ok();
            });
        }
    });
    let front = dir.path().join("front.sock");
    let config = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  pg: {{ bind: 'unix:{}', protocol: tcp, pool: site }}
pools:
  site: {{ servers: ['unix:{}'] }}
",
        front.display(),
        path.display()
    );
    let mut evenkeel = start(&config);
    for size in [0, 5, 1 << 20] {
        let sent = noise(3, size);
        let stream = UnixStream::connect(&front).expect("a connection");
        let mut writer = stream.try_clone().expect("a clone");
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&bytes).expect("sent");
            writer.shutdown(Shutdown::Write).expect("half-closed");
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).expect("all of it");
        writing.join().expect("a thread");
        assert!(received == sent, "{} of {size} bytes", received.len());
    }
    evenkeel.stop(SOON).expect("exit 0");
    assert!(!front.exists(), "its socket file is left behind");
}

#[test]
fn full_servers_are_left_out_and_the_log_says_so() {
    let (a, b) = (echo(), echo());
    let servers = [a.address(), b.address()];
    let long: Vec<_> = servers
        .iter()
        .map(|it| format!("{{ address: '{it}', max_connections: 1 }}"))
        .collect();
    let config = tcp(&servers, "", ", health_check: off, limits: { queue: off }")
        .replace(&list(&servers), &format!("[{}]", long.join(", ")));
    let mut evenkeel = start(&config);
    let mut clients = [connect(pg(&evenkeel)), connect(pg(&evenkeel))];
    for client in &mut clients {
        client.send("x").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"x");
    }
    assert_eq!((a.connections(), b.connections()), (1, 1));
    expect_turned_away(pg(&evenkeel));
    let line = evenkeel.wait_log("server_limit", SOON).expect("a line");
    assert!(line.contains("at its limit"), "{line}");
    clients[0].half_close().expect("half-closed");
    clients[0].expect_close().expect("closed");
    wait_until("there is room again", SOON, || {
        Raw::connect(pg(&evenkeel))
            .is_ok_and(|mut client| client.send("y").is_ok() && client.read_exactly(1).is_ok())
    })
    .expect("there is room again");
}

#[test]
fn the_death_of_a_server_ends_its_connections_and_no_others() {
    let (mut a, b) = (echo(), echo());
    let servers = [a.address(), b.address()];
    let config = tcp(
        &servers,
        "",
        ", balance: round_robin, health_check: { tcp: { interval: 200ms } }",
    );
    let evenkeel = start(&config);
    for address in servers {
        wait_health(&evenkeel, address, "healthy");
    }
    let mut clients: Vec<_> = (0..8).map(|_| connect(pg(&evenkeel))).collect();
    for client in &mut clients {
        client.send("x").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"x");
    }
    a.stop();
    let mut alive = 0;
    for client in &mut clients {
        client.send("y").ok();
        alive += usize::from(client.read_exactly(1).is_ok());
    }
    assert_eq!(alive, 4);
    for _ in 0..8 {
        let mut client = connect(pg(&evenkeel));
        client.send("z").expect("sent");
        assert_eq!(client.read_exactly(1).expect("an echo"), b"z");
    }
}
