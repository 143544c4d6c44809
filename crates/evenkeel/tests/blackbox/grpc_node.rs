//! The same calls by another's library: a client and servers of @grpc/grpc-js, alone and beside those of grpcio.

use std::net::SocketAddr;

use serde_json::json;
use testkit::{GrpcServer, Process, TempDir, missing, script, wait_until};

use crate::grpc_through::{assert_each_is_well, config, ended, one_of_each};
use crate::life_support::{SOON, metric, start, web};
use crate::tls_support::Authority;

/// A server of grpc-js, and where it is.
fn server(name: &str, more: &[&str]) -> (Process, SocketAddr) {
    let mut command = script("grpc_server.js").expect("Node.js");
    command.arg(name).args(more);
    let mut process = Process::spawn(name, command).expect("a server of grpc-js");
    process.wait_log("ready", SOON).expect("it is ready");
    let line = process.wait_log("listening address=", SOON);
    let line = line.expect("an address");
    let address = line.rsplit('=').next().expect("an address");
    (process, address.parse().expect("an address"))
}

/// A client that makes these calls on one connection: of grpc-js, or of grpcio.
fn client(program: &str, address: SocketAddr, more: &[&str], calls: &serde_json::Value) -> Process {
    let mut command = script(program).expect("a script");
    command.arg(address.to_string()).args(more);
    command.arg(calls.to_string());
    Process::spawn("client", command).expect("the client starts")
}

#[test]
fn every_kind_of_call_passes_with_tls_on_both_sides_whoever_made_client_and_server() {
    if missing("grpc-js") || missing("grpcio") {
        return;
    }
    let authority = Authority::new("the authority");
    let dir = TempDir::new("grpc").expect("a folder");
    let names = ["localhost", "127.0.0.1"];
    authority.issue(&names).write(&dir, "server");
    dir.write("ca.pem", &authority.pem).expect("written");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let shown = ["--cert", &*cert, "--key", &key];
    let (_js, js) = server("js", &shown);
    let python = GrpcServer::start("python", &shown).expect("a server of grpcio starts");
    let pool = format!("tls: {{ ca: '{ca}' }}");
    let tls = format!("web: {{ tls: {{ certificates: [{{ cert: '{cert}', key: '{key}' }}] }},");
    let more = ["--ca", &ca, "--name", "localhost"];
    for (client_of, address, served_by) in [
        ("grpc_client.js", js, "js"),
        ("grpc_client.js", python.address(), "python"),
        ("grpc_client.py", js, "js"),
    ] {
        let evenkeel = start(&config(&[address], &pool).replace("web: {", &tls));
        for at_once in [&[][..], &["--at-once"]] {
            let more = [&more, at_once].concat();
            let done = ended(client(client_of, web(&evenkeel), &more, &one_of_each()));
            assert_each_is_well(&done);
            assert!(
                done.iter()
                    .all(|call| call.all["trailing"]["x-served-by"] == served_by)
            );
        }
    }
}

#[test]
fn cancellations_deadlines_and_codes_pass_between_client_and_server_of_grpc_js() {
    if missing("grpc-js") {
        return;
    }
    let (mut process, address) = server("js", &[]);
    let evenkeel = start(&config(&[address], "outlier_detection: off"));
    let endless = json!({ "count": 100_000, "sleep": 0.02 });
    let three = json!([{ "text": "a" }, { "text": "b" }, { "text": "c" }]);
    let late = json!({ "count": 2, "status": 8, "message": "enough" });
    let calls = json!([
        { "kind": "server_stream", "requests": [endless], "cancel_after": 3 },
        { "kind": "bidi", "requests": three, "cancel_after": 2 },
        { "kind": "unary", "requests": [{ "sleep": 30 }], "timeout": 0.7 },
        { "kind": "unary", "requests": [{ "status": 5, "message": "no \u{fc}ber %zeug" }] },
        { "kind": "server_stream", "requests": [late] },
        { "kind": "unary", "requests": [{ "text": "still here" }], "timeout": 20 },
    ]);
    let done = ended(client("grpc_client.js", web(&evenkeel), &[], &calls));
    let seen: Vec<_> = done
        .iter()
        .map(|it| (&*it.code, it.answers.len()))
        .collect();
    assert_eq!(
        seen,
        [
            ("CANCELLED", 3),
            ("CANCELLED", 2),
            ("DEADLINE_EXCEEDED", 0),
            ("NOT_FOUND", 0),
            ("RESOURCE_EXHAUSTED", 2),
            ("OK", 1),
        ]
    );
    assert_eq!(
        (&*done[3].details, &*done[4].details),
        ("no \u{fc}ber %zeug", "enough")
    );
    let remaining = done[5].answers[0]["remaining"].as_f64();
    let remaining = remaining.expect("a deadline");
    assert!((1.0..=21.0).contains(&remaining), "{remaining}");
    for what in ["ServerStream", "Bidi", "Unary"] {
        let line = format!("cancelled {what}");
        process.wait_log(&line, SOON).expect("the server is told");
    }
    wait_until("nothing is left", SOON, || {
        metric(&evenkeel, "evenkeel_active_connections{pool=\"site\"") == 0.0
    })
    .expect("all ended");
}
