//! Under systemd: sockets that it has opened, and what it is told. `systemd-socket-activate` and a socket of the test
//! stand for it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use testkit::{Evenkeel, Load, Origin, Port, Raw, Signal, missing, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{SOON, ask, reload, site, wait_all};
use crate::upgrade::upgrade;

/// As systemd would start it, at the first connection to one of these sockets: address and name of each.
fn activated(sockets: &[(&str, &str)], config: &str) -> Evenkeel {
    Evenkeel::launch(BINARY, config, |command| {
        let mut outer = Command::new("systemd-socket-activate");
        for (address, _) in sockets {
            outer.args(["-l", address]);
        }
        let names: Vec<&str> = sockets.iter().map(|(_, name)| *name).collect();
        outer.args([&format!("--fdname={}", names.join(":")), BINARY]);
        outer.args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            outer.current_dir(folder);
        }
        *command = outer;
    })
    .expect("systemd-socket-activate starts")
}

/// The connection that has evenkeel started.
fn first(address: std::net::SocketAddr) -> Raw {
    let mut first = None;
    wait_until("the socket is there", SOON, || {
        first = Raw::connect(address).ok();
        first.is_some()
    })
    .expect("the socket is there");
    first.expect("a connection")
}

#[test]
fn a_socket_that_systemd_has_opened_is_adopted_and_goes_with_an_upgrade() {
    if missing("systemd-socket-activate") {
        return;
    }
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let port = Port::reserve().expect("a port");
    let address = port.address().to_string();
    let config = format!("workers: 3\n{}", site(&[origin.address()], "")).replace(
        "web: { bind: '127.0.0.1:0'",
        &format!("web: {{ bind: '{address}'"),
    );
    let mut evenkeel = activated(&[(&address, "web")], &config);
    // What came before it ran is answered too.
    let mut waiting = first(port.address());
    assert_eq!(waiting.get("/").expect("an answer").text(), "here");
    evenkeel.wait_log("\"ready\"", SOON).expect("a line");
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let load = Load::to(port.address()).clients(6).start();
    load.wait_ok(100, SOON).expect("traffic");
    let _newest = upgrade(&mut evenkeel, &[]);
    load.wait_ok(100, SOON).expect("traffic");
    load.stop().assert_none_failed();
}

#[test]
fn a_socket_that_no_listener_binds_is_told() {
    if missing("systemd-socket-activate") {
        return;
    }
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let port = Port::reserve().expect("a port");
    let address = port.address().to_string();
    let mut evenkeel = activated(&[(&address, "web")], &site(&[origin.address()], ""));
    let _first = first(port.address());
    let line = evenkeel
        .wait_log("no listener binds", SOON)
        .expect("a warning");
    assert!(line.contains(&port.address().to_string()), "{line}");
    evenkeel.wait_log("\"ready\"", SOON).expect("a line");
}

#[test]
fn the_admin_listeners_socket_is_known_by_its_name() {
    if missing("systemd-socket-activate") {
        return;
    }
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let ports = [(); 2].map(|()| Port::reserve().expect("a port"));
    let [web, admin] = ports.each_ref().map(|port| port.address().to_string());
    // Where the config names no address for it, any will do.
    let config = site(&[origin.address()], "")
        .replace("admin: { bind: '127.0.0.1:0' }\n", "")
        .replace(
            "web: { bind: '127.0.0.1:0'",
            &format!("web: {{ bind: '{web}'"),
        );
    let mut evenkeel = activated(&[(&web, "web"), (&admin, "admin")], &config);
    // The first that asks has it started, and is answered.
    let mut early = first(ports[1].address());
    let answer = early
        .exchange("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("an answer");
    assert_eq!(answer.status, 200);
    evenkeel.wait_log("\"ready\"", SOON).expect("a line");
    assert_eq!(evenkeel.admin().expect("an address"), ports[1].address());
    wait_all(&evenkeel, &[origin.address()], "healthy");
    let _newest = upgrade(&mut evenkeel, &[]);
    assert_eq!(evenkeel.admin().expect("an address"), ports[1].address());
    assert_eq!(ask(&evenkeel, &["status"]).code, Some(0));
    assert_eq!(
        first(ports[0].address())
            .get("/")
            .expect("an answer")
            .text(),
        "here"
    );
}

#[test]
fn an_admin_socket_that_is_open_to_all_needs_a_token() {
    if missing("systemd-socket-activate") {
        return;
    }
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let port = Port::reserve().expect("a port");
    let config = site(&[origin.address()], "").replace("admin: { bind: '127.0.0.1:0' }\n", "");
    let wide = format!("0.0.0.0:{}", port.address().port());
    let mut evenkeel = activated(&[(&wide, "admin")], &config);
    let _first = first(port.address());
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(3));
    assert!(evenkeel.log().contains("token_file"), "{}", evenkeel.log());
}

#[test]
fn systemd_is_told_what_happens() {
    let origin = Origin::http(|_| reply(200, "here")).expect("an origin");
    let dir = testkit::TempDir::new("notify").expect("a folder");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("set");
    let next = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length])
            .trim()
            .to_owned()
    };
    let config = site(&[origin.address()], "");
    let mut evenkeel = Evenkeel::start_with(BINARY, &config, |command| {
        command.env("NOTIFY_SOCKET", &path);
    })
    .expect("evenkeel starts");
    let ready = |pid: u32| format!("MAINPID={pid}\nREADY=1");
    assert_eq!(next(), ready(evenkeel.pid()));
    reload(&evenkeel, &config);
    let reloading = next();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(next(), "READY=1");

    // The process that systemd knows names the new one, which then speaks for itself.
    let newest = upgrade(&mut evenkeel, &[]);
    let mut said = [next(), next()];
    said.sort();
    assert_eq!(
        said,
        [format!("MAINPID={}", newest.pid()), ready(newest.pid())]
    );
    assert_eq!(evenkeel.wait_exit(SOON).expect("an end").code(), Some(0));
    newest.signal(Signal::TERM).expect("a signal");
    assert_eq!(next(), "STOPPING=1");
    newest.wait_end(SOON).expect("an end");
    assert_eq!(ask(&evenkeel, &["status"]).code, Some(3));
}
