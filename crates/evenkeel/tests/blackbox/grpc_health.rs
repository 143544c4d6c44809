//! Health by gRPC, as servers of grpcio say it.

use std::net::SocketAddr;

use testkit::{Evenkeel, GrpcServer, Origin, TempDir, missing, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{SOON, admin_get, server, site, start};
use crate::tls_support::Authority;

/// The cause that a healthy server is shown with.
const WELL: &str = "passes its probes";

fn grpc(name: &str, more: &[&str]) -> GrpcServer {
    GrpcServer::start(name, more).expect("a server of grpcio starts")
}

/// Probed every 200 ms; `rest` is of the check.
fn probed(servers: &[SocketAddr], rest: &str) -> String {
    let check = "interval: 200ms, timeout: 5s, unhealthy_threshold: 1, healthy_threshold: 1";
    site(
        servers,
        &format!("health_check: {{ grpc: {{ {check}, {rest} }} }}"),
    )
}

/// Waits until the API says so of a server: its health, and the cause if it has one.
fn wait_said(evenkeel: &Evenkeel, address: SocketAddr, health: &str, cause: &str) {
    let said = || {
        let server = server(evenkeel, "site", &address.to_string());
        let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
        (text("health"), text("cause"))
    };
    wait_until("the health", SOON, || {
        said() == (health.to_owned(), cause.to_owned())
    })
    .unwrap_or_else(|error| {
        let servers = admin_get(evenkeel, "/api/v1/pools/site/servers");
        panic!("{error}: {health} {cause:?} was expected: {servers}")
    });
}

#[test]
fn a_server_is_as_well_as_its_health_service_says() {
    if missing("grpcio") {
        return;
    }
    let (a, b) = (grpc("a", &[]), grpc("b", &[]));
    b.set_health("shop.Cart", "SERVING").expect("set");
    let evenkeel = start(&probed(&[a.address(), b.address()], "service: shop.Cart"));
    wait_said(&evenkeel, b.address(), "healthy", WELL);
    let said = |evenkeel: &Evenkeel, word: &str| {
        let cause = format!("{word} where SERVING was expected");
        wait_said(evenkeel, a.address(), "unhealthy", &cause);
    };
    said(&evenkeel, "NOT_FOUND");
    a.set_health("shop.Cart", "SERVING").expect("set");
    wait_said(&evenkeel, a.address(), "healthy", WELL);
    for word in ["NOT_SERVING", "UNKNOWN", "SERVICE_UNKNOWN"] {
        a.set_health("shop.Cart", word).expect("set");
        said(&evenkeel, word);
    }
    // Nobody asked about the server as a whole.
    b.set_health("", "NOT_SERVING").expect("set");
    a.set_health("shop.Cart", "SERVING").expect("set");
    wait_said(&evenkeel, a.address(), "healthy", WELL);
    wait_said(&evenkeel, b.address(), "healthy", WELL);
}

#[test]
fn without_a_service_the_server_as_a_whole_is_asked() {
    if missing("grpcio") {
        return;
    }
    let (well, none) = (grpc("well", &[]), grpc("none", &["--no-health"]));
    let servers = [well.address(), none.address()];
    let evenkeel = start(&site(
        &servers,
        "health_check: { grpc: { interval: 200ms, timeout: 5s, unhealthy_threshold: 1 } }",
    ));
    wait_said(&evenkeel, well.address(), "healthy", WELL);
    let cause = "UNIMPLEMENTED (Method not found!) where SERVING was expected";
    wait_said(&evenkeel, none.address(), "unhealthy", cause);
    well.set_health("", "NOT_SERVING").expect("set");
    let cause = "NOT_SERVING where SERVING was expected";
    wait_said(&evenkeel, well.address(), "unhealthy", cause);
}

#[test]
fn who_speaks_no_grpc_is_told_by_what_it_does() {
    if missing("grpcio") {
        return;
    }
    let http = Origin::http(|_| reply(200, "well")).expect("an origin");
    let mut gone = grpc("gone", &[]);
    let evenkeel = start(&probed(&[http.address(), gone.address()], "service: a"));
    let cause = "NOT_FOUND where SERVING was expected";
    wait_said(&evenkeel, gone.address(), "unhealthy", cause);
    gone.kill();
    wait_said(&evenkeel, gone.address(), "unhealthy", "connection refused");
    let cause = "an answer that cannot be read";
    wait_said(&evenkeel, http.address(), "unhealthy", cause);
}

#[test]
fn through_tls_http_2_is_chosen() {
    if missing("grpcio") || missing("nginx") {
        return;
    }
    let authority = Authority::new("the authority");
    let dir = TempDir::new("grpc").expect("a folder");
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    issued.write(&dir, "server");
    dir.write("ca.pem", &authority.pem).expect("written");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (path("server.pem"), path("server.key"));
    let well = grpc("well", &["--cert", &cert, "--key", &key]);
    let snippet = format!("ssl_certificate {cert}; ssl_certificate_key {key};");
    let old = testkit::Nginx::start_tls("old", &snippet).expect("nginx starts");
    let config = probed(
        &[well.address(), old.address()],
        "host: grpc.internal, headers: { x-token: secret }",
    );
    let tls = format!("  site: {{ tls: {{ ca: '{}' }},", path("ca.pem"));
    let evenkeel =
        Evenkeel::start(BINARY, &config.replace("  site: {", &tls)).expect("evenkeel starts");
    wait_said(&evenkeel, well.address(), "healthy", WELL);
    wait_until("nginx without HTTP/2 is found out", SOON, || {
        let server = server(&evenkeel, "site", &old.address().to_string());
        let cause = server["cause"].as_str().unwrap_or_default();
        server["health"] == "unhealthy" && cause.starts_with("TLS: ")
    })
    .expect("a cause");
}
