//! All four kinds of calls through Evenkeel, by a client and servers of grpcio.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Evenkeel, GrpcServer, Port, Process, Signal, TempDir, missing, script, wait_until};

use crate::life_support::{SOON, connect, list, metric, picks, start, web};
use crate::tls_support::Authority;

/// Longer than the client of any test takes, beside a CPU hog.
const LIMIT: Duration = Duration::from_secs(60);

fn grpc(name: &str) -> GrpcServer {
    GrpcServer::start(name, &[]).expect("a server of grpcio starts")
}

pub(crate) fn config(servers: &[SocketAddr], pool: &str) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
shutdown: {{ idle_wait: 1s, timeout: 10s }}
access_log: {{ to: stdout, format: json }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site: {{ http: 2, servers: {}, health_check: off, balance: round_robin, {pool} }}
",
        list(servers)
    )
}

fn run(servers: &[&GrpcServer], pool: &str) -> Evenkeel {
    let addresses: Vec<_> = servers.iter().map(|it| it.address()).collect();
    start(&config(&addresses, pool))
}

/// A client that makes these calls on one connection.
fn client(evenkeel: &Evenkeel, more: &[&str], calls: &Value) -> Process {
    let mut command = script("grpc_client.py").expect("Python");
    command.arg(web(evenkeel).to_string()).args(more);
    command.arg(calls.to_string());
    Process::spawn("client", command).expect("the client starts")
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: String,
    pub(crate) details: String,
    pub(crate) answers: Vec<Value>,
    pub(crate) all: Value,
}

/// Waits until the client is done; its calls in their order.
pub(crate) fn ended(mut client: Process) -> Vec<Ended> {
    client.wait_log("done", LIMIT).expect("the client is done");
    let lines = client.log_lines();
    let mut all: Vec<Value> = lines
        .iter()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    all.sort_by_key(|call| call["at"].as_u64());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.into_iter()
        .map(|all| Ended {
            code: text(&all["code"]),
            details: text(&all["details"]),
            answers: all["answers"].as_array().cloned().unwrap_or_default(),
            all,
        })
        .collect()
}

fn calls(evenkeel: &Evenkeel, more: &[&str], calls: &Value) -> Vec<Ended> {
    ended(client(evenkeel, more, calls))
}

/// One call of each kind, with what is large enough to need windows opened again.
pub(crate) fn one_of_each() -> Value {
    json!([
        { "kind": "unary", "requests": [{ "text": "one", "size": 300_000 }], "metadata": { "x-own": "mine" } },
        { "kind": "server_stream", "requests": [{ "text": "many", "count": 20, "size": 50_000 }] },
        { "kind": "client_stream", "requests": [{ "text": "\u{e4}", "times": 100_000 }, { "text": "two" }, { "text": "three" }], "hold": 0.05 },
        { "kind": "bidi", "requests": [{ "text": "a" }, { "text": "b", "size": 100_000 }, { "text": "c" }] },
    ])
}

#[track_caller]
pub(crate) fn assert_each_is_well(ended: &[Ended]) {
    let texts = |at: usize| -> Vec<_> {
        let answers = ended[at].answers.iter();
        answers
            .map(|it| it["text"].as_str().unwrap_or_default())
            .collect()
    };
    for call in ended {
        assert_eq!(call.code, "OK", "{}", call.details);
        assert!(call.all["trailing"]["x-served-by"].is_string());
    }
    assert_eq!(ended.len(), 4);
    assert_eq!(texts(0), ["one"]);
    assert_eq!(ended[0].answers[0]["metadata"]["x-own"], "mine");
    let pad = |answer: &Value| answer["pad"].as_str().map_or(0, str::len);
    assert_eq!(pad(&ended[0].answers[0]), 300_000);
    assert_eq!(texts(1), ["many"; 20]);
    assert!(ended[1].answers.iter().all(|it| pad(it) == 50_000));
    let joined = format!("{} two three", "\u{e4}".repeat(100_000));
    assert_eq!(texts(2), [joined]);
    assert_eq!(texts(3), ["a", "b", "c"]);
}

#[test]
fn every_kind_of_call_passes() {
    if missing("grpcio") {
        return;
    }
    let (a, b) = (grpc("a"), grpc("b"));
    let evenkeel = run(&[&a, &b], "");
    assert_each_is_well(&calls(&evenkeel, &[], &one_of_each()));
    assert_each_is_well(&calls(&evenkeel, &["--at-once"], &one_of_each()));
}

#[test]
fn the_same_through_tls_on_both_sides() {
    if missing("grpcio") {
        return;
    }
    let authority = Authority::new("the authority");
    let dir = TempDir::new("grpc").expect("a folder");
    authority
        .issue(&["localhost", "127.0.0.1"])
        .write(&dir, "server");
    dir.write("ca.pem", &authority.pem).expect("written");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let server = GrpcServer::start("a", &["--cert", &cert, "--key", &key]);
    let server = server.expect("a server of grpcio starts");
    let text = config(&[server.address()], &format!("tls: {{ ca: '{ca}' }}"));
    let tls = format!("web: {{ tls: {{ certificates: [{{ cert: '{cert}', key: '{key}' }}] }},");
    let evenkeel = start(&text.replace("web: {", &tls));
    let more = ["--ca", &ca, "--name", "localhost"];
    assert_each_is_well(&calls(&evenkeel, &more, &one_of_each()));
}

#[test]
fn each_call_of_one_connection_is_balanced_for_itself() {
    if missing("grpcio") {
        return;
    }
    let servers = ["a", "b", "c"].map(grpc);
    let evenkeel = run(&[&servers[0], &servers[1], &servers[2]], "");
    let many: Vec<_> = (0..30)
        .map(|_| json!({ "kind": "unary", "requests": [{ "text": "x" }] }))
        .collect();
    let done = calls(&evenkeel, &["--at-once"], &json!(many));
    assert!(done.iter().all(|call| call.code == "OK"), "{done:?}");
    for server in &servers {
        assert_eq!(picks(&evenkeel, server.address()), 10);
    }
    let by = |name: &str| {
        done.iter()
            .filter(|call| call.answers[0]["server"] == name)
            .count()
    };
    assert_eq!(["a", "b", "c"].map(by), [10, 10, 10]);
}

#[test]
fn how_a_server_ends_a_call_is_what_its_client_sees() {
    if missing("grpcio") {
        return;
    }
    let a = grpc("a");
    let evenkeel = run(&[&a], "outlier_detection: off");
    let fails = json!({ "text": "x", "status": 5, "message": "no \u{fc}ber %zeug\n" });
    let early = json!({ "early": true, "status": 9, "message": "not now" });
    let late = json!({ "count": 2, "status": 8, "message": "enough" });
    let done = calls(
        &evenkeel,
        &[],
        &json!([
            { "kind": "unary", "requests": [fails] },
            { "kind": "server_stream", "requests": [early] },
            { "kind": "server_stream", "requests": [late] },
            { "kind": "unary", "method": "Nothing", "requests": [{}] },
        ]),
    );
    let seen: Vec<_> = done
        .iter()
        .map(|it| (&*it.code, &*it.details, it.answers.len()))
        .collect();
    assert_eq!(
        seen,
        [
            ("NOT_FOUND", "no \u{fc}ber %zeug\n", 0),
            ("FAILED_PRECONDITION", "not now", 0),
            ("RESOURCE_EXHAUSTED", "enough", 2),
            ("UNIMPLEMENTED", "Method not found!", 0),
        ]
    );
    let mut evenkeel = evenkeel;
    let line = evenkeel
        .wait_log("\"grpc_status\":8,", SOON)
        .expect("a line");
    assert!(line.contains("\"status\":200,"), "{line}");
}

#[test]
fn deadlines_hold_and_the_server_is_told() {
    if missing("grpcio") {
        return;
    }
    let mut a = grpc("a");
    let evenkeel = run(&[&a], "");
    let slow = json!({ "text": "slow", "sleep": 30 });
    let done = calls(
        &evenkeel,
        &["--at-once"],
        &json!([
            { "kind": "unary", "requests": [slow], "timeout": 0.7 },
            { "kind": "server_stream", "requests": [{ "sleep": 30, "count": 2 }], "timeout": 0.7 },
            { "kind": "unary", "requests": [{}], "timeout": 20 },
        ]),
    );
    assert_eq!(
        (&*done[0].code, &*done[1].code),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    );
    assert_eq!(done[1].answers.len(), 1);
    let remaining = done[2].answers[0]["remaining"]
        .as_f64()
        .expect("a deadline");
    // Its clock's conversion adds a moment to the 20 s, and what is above them it rounds up to a tenth: grpcio sends `20S`
    // or `20100m`, and nothing between it and the server may add to that.
    assert!((1.0..=20.1).contains(&remaining), "{remaining}");
    a.wait_log("cancelled Unary", SOON)
        .expect("the server's call ends");
    a.wait_log("cancelled ServerStream", SOON)
        .expect("the server's stream ends");
    // The route's time, where the client gives more or none.
    let evenkeel = run(
        &[&a],
        "timeouts: { request: 300ms }, outlier_detection: off",
    );
    let done = calls(
        &evenkeel,
        &[],
        &json!([{ "kind": "unary", "requests": [slow] }]),
    );
    assert_eq!(
        (&*done[0].code, &*done[0].details),
        ("DEADLINE_EXCEEDED", "first_byte_timeout")
    );
}

#[test]
fn a_call_that_its_client_cancels_ends_at_the_server() {
    if missing("grpcio") {
        return;
    }
    let mut a = grpc("a");
    let evenkeel = run(&[&a], "");
    let endless = json!({ "count": 100_000, "sleep": 0.02 });
    let done = calls(
        &evenkeel,
        &[],
        &json!([
            { "kind": "server_stream", "requests": [endless], "cancel_after": 3 },
            { "kind": "bidi", "requests": [{ "text": "a" }, { "text": "b", "more": true }, { "text": "c" }], "cancel_after": 2 },
            { "kind": "unary", "requests": [{ "text": "still here" }] },
        ]),
    );
    assert_eq!(
        [&*done[0].code, &*done[1].code, &*done[2].code],
        ["CANCELLED", "CANCELLED", "OK"]
    );
    a.wait_log("cancelled ServerStream", SOON)
        .expect("the server's stream ends");
    a.wait_log("cancelled Bidi", SOON)
        .expect("the server's call ends");
    wait_until("nothing is left", SOON, || {
        metric(&evenkeel, "evenkeel_active_connections{pool=\"site\"") == 0.0
    })
    .expect("all ended");
}

#[test]
fn a_server_that_dies_costs_only_what_it_was_at() {
    if missing("grpcio") {
        return;
    }
    let (mut a, b) = (grpc("a"), grpc("b"));
    let evenkeel = run(&[&a, &b], "");
    let streams: Vec<_> = (0..4)
        .map(|_| json!({ "kind": "server_stream", "requests": [{ "count": 40, "sleep": 0.1 }] }))
        .collect();
    let mut streaming = client(&evenkeel, &["--at-once"], &json!(streams));
    for at in 0..4 {
        let word = format!("answer {at} 2");
        streaming.wait_log(&word, SOON).expect("each stream goes");
    }
    a.kill();
    let unary: Vec<_> = (0..6)
        .map(|_| json!({ "kind": "unary", "requests": [{}] }))
        .collect();
    let others = calls(&evenkeel, &[], &json!(unary));
    assert!(others.iter().all(|call| call.code == "OK"), "{others:?}");
    let done = ended(streaming);
    for call in &done {
        let server = call.answers[0]["server"].as_str().unwrap_or_default();
        match (server, &*call.code) {
            ("b", "OK") => assert_eq!(call.answers.len(), 40),
            ("a", "UNAVAILABLE") => {}
            other => panic!("{other:?}: {}", call.details),
        }
    }
    let whole = done.iter().filter(|call| call.code == "OK").count();
    assert_eq!(whole, 2, "{done:?}");
}

#[test]
fn a_server_that_is_stopped_in_order_costs_nothing() {
    if missing("grpcio") {
        return;
    }
    let (mut a, b) = (grpc("a"), grpc("b"));
    let evenkeel = run(&[&a, &b], "");
    let mut many: Vec<_> = (0..100)
        .map(|_| json!({ "kind": "unary", "requests": [{ "sleep": 0.03 }] }))
        .collect();
    many.insert(
        0,
        json!({ "kind": "server_stream", "requests": [{ "count": 20, "sleep": 0.05 }] }),
    );
    let mut calling = client(&evenkeel, &["--at-once"], &json!(many[..2]));
    calling
        .wait_log("answer 0 2", SOON)
        .expect("the stream goes");
    let rest = client(&evenkeel, &[], &json!(many[1..]));
    wait_until("both are called", SOON, || {
        picks(&evenkeel, a.address()) > 5 && picks(&evenkeel, b.address()) > 5
    })
    .expect("calls");
    a.signal(Signal::TERM).expect("a signal");
    for call in ended(rest).iter().chain(&ended(calling)) {
        assert_eq!(call.code, "OK", "{}", call.details);
    }
}

#[test]
fn a_drain_of_evenkeel_lets_calls_end() {
    if missing("grpcio") {
        return;
    }
    let a = grpc("a");
    let mut evenkeel = run(&[&a], "");
    let stream = json!([{ "kind": "server_stream", "requests": [{ "count": 20, "sleep": 0.1 }] }]);
    let mut streaming = client(&evenkeel, &[], &stream);
    streaming
        .wait_log("answer 0 2", SOON)
        .expect("the stream goes");
    evenkeel.stop(LIMIT).expect("it ends well");
    let done = ended(streaming);
    assert_eq!((&*done[0].code, done[0].answers.len()), ("OK", 20));
}

#[test]
fn answers_made_here_reach_the_client_with_their_reason() {
    if missing("grpcio") {
        return;
    }
    let dead = Port::reserve().expect("a port");
    let evenkeel = start(&config(&[dead.address()], ""));
    let requests = |kind: &str| json!({ "kind": kind, "requests": [{ "text": "x" }] });
    let kinds = ["unary", "server_stream", "client_stream", "bidi"].map(requests);
    for call in calls(&evenkeel, &[], &json!(kinds)) {
        assert_eq!(call.code, "UNAVAILABLE");
        let told = call.details.as_str();
        assert!(
            matches!(told, "connect_refused" | "no_usable_server"),
            "{told}"
        );
    }
}

#[test]
fn a_browser_calls_a_real_server_by_grpc_web() {
    if missing("grpcio") {
        return;
    }
    let a = grpc("a");
    let text = config(&[a.address()], "").replace(
        "pool: site }",
        "routes: [{ filters: [grpc_web], pool: site }] }",
    );
    let evenkeel = start(&text);
    let mut browser = connect(web(&evenkeel));
    for (method, request, answers) in [
        ("Unary", json!({ "text": "hi" }), 1),
        ("ServerStream", json!({ "text": "hi", "count": 3 }), 3),
    ] {
        let message = request.to_string();
        let head = format!(
            "POST /test.Echo/{method} HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: {}\r\n\r\n",
            message.len() + 5
        );
        let length = u32::try_from(message.len()).expect("a short one");
        let body = [&[0][..], &length.to_be_bytes(), message.as_bytes()].concat();
        let response = browser
            .exchange([head.as_bytes(), &body].concat())
            .expect("an answer");
        assert_eq!(response.status, 200, "{response}");
        let mut rest = &*response.body;
        let mut frames = Vec::new();
        while let [flag, a, b, c, d, after @ ..] = rest {
            let (payload, next) = after.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            frames.push((*flag, String::from_utf8_lossy(payload).into_owned()));
            rest = next;
        }
        let trailers = frames.pop().expect("trailers");
        assert_eq!(trailers.0, 0x80);
        assert!(trailers.1.contains("grpc-status: 0\r\n"), "{}", trailers.1);
        assert_eq!(frames.len(), answers);
        assert!(
            frames
                .iter()
                .all(|(_, text)| text.contains("\"text\": \"hi\""))
        );
    }
}
