//! The admin API of a running instance: shapes, guards, numbers.

use serde_json::Value;
use testkit::{Evenkeel, Origin, Raw, Response, reply};

use crate::life_support::{
    admin_get, assert_metric, assert_no_total_fell, connect, metric, site, start, totals, wait_all,
    web,
};

fn origin() -> Origin {
    Origin::http(|request| match &*request.target {
        "/missing" => reply(404, "no"),
        _ => reply(200, "here"),
    })
    .expect("an origin")
}

fn running(origin: &Origin) -> Evenkeel {
    let evenkeel = start(&site(&[origin.address()], ""));
    wait_all(&evenkeel, &[origin.address()], "healthy");
    evenkeel
}

fn json(evenkeel: &Evenkeel, path: &str) -> Value {
    let text = admin_get(evenkeel, path);
    serde_json::from_str(&text).expect(&text)
}

fn admin(evenkeel: &Evenkeel) -> Raw {
    connect(evenkeel.admin().expect("an address"))
}

/// `POST /api/v1/reload` with these headers.
fn post(evenkeel: &Evenkeel, headers: &str) -> Response {
    let request = format!("POST /api/v1/reload HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n");
    admin(evenkeel).exchange(request).expect("an answer")
}

#[test]
fn the_shapes_are_those_of_the_contract() {
    let origin = origin();
    let evenkeel = running(&origin);
    assert_eq!(admin_get(&evenkeel, "/livez").trim(), "ok");
    let health = json(&evenkeel, "/health");
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["checks"]["config"]["status"], "up");
    assert_eq!(health["checks"]["pool:site"]["servers"], 1);
    assert_eq!(health["checks"]["pool:site"]["usable"], 1);
    assert!(
        health["uptime_secs"].is_u64() && health["version"].is_string(),
        "{health}"
    );

    let server = crate::life_support::server(&evenkeel, "site", &origin.address().to_string());
    for (key, expected) in [
        ("pool", Value::from("site")),
        ("name", origin.address().to_string().into()),
        ("address", origin.address().to_string().into()),
        ("state", "ready".into()),
        ("health", "healthy".into()),
        ("weight", 1.into()),
        ("active", 0.into()),
        ("picks", 0.into()),
    ] {
        assert_eq!(server[key], expected, "{key} of {server}");
    }
    for list in ["listeners", "routes", "pools"] {
        let text = admin_get(&evenkeel, &format!("/api/v1/{list}"));
        assert!(
            text.contains("web") || text.contains("site"),
            "{list}: {text}"
        );
    }
    let answer = admin(&evenkeel)
        .exchange("GET /api/v1/pools/nobody/servers HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.expect("an answer").status, 404);
}

#[test]
fn foreign_pages_cannot_write() {
    let origin = origin();
    let evenkeel = running(&origin);
    let own = evenkeel.admin().expect("an address");
    let well = format!("Host: {own}\r\nContent-Type: application/json\r\n");
    assert_eq!(post(&evenkeel, &well).status, 200);
    assert_eq!(
        post(
            &evenkeel,
            "Host: localhost\r\nContent-Type: application/json\r\n"
        )
        .status,
        200
    );
    for wrong in [
        "Host: evil.example\r\nContent-Type: application/json\r\n".to_owned(),
        format!("Host: {own}\r\nContent-Type: text/plain\r\n"),
        format!("Host: {own}\r\n"),
        format!("{well}Origin: http://evil.example\r\n"),
        format!("{well}Origin: null\r\n"),
    ] {
        let answer = post(&evenkeel, &wrong);
        assert!((400..500).contains(&answer.status), "{wrong:?}: {answer}");
    }
    assert_eq!(
        evenkeel
            .log_lines()
            .iter()
            .filter(|line| line.contains("reloaded:"))
            .count(),
        2
    );
}

#[test]
fn a_config_that_cannot_be_taken_up_is_422_with_its_errors() {
    let origin = origin();
    let evenkeel = running(&origin);
    evenkeel
        .write_config(&site(&[origin.address()], "").replace("pool: site", "pool: sight"))
        .expect("written");
    let answer = post(
        &evenkeel,
        "Host: localhost\r\nContent-Type: application/json\r\n",
    );
    assert_eq!(answer.status, 422, "{answer}");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let errors = body["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 1, "{body}");
    assert!(errors[0].to_string().contains("sight"), "{body}");
}

#[test]
fn what_is_wrong_in_a_patch_is_said_and_changes_nothing() {
    let origin = origin();
    let evenkeel = running(&origin);
    let path = format!("/api/v1/pools/site/servers/{}", origin.address());
    let patch = |path: &str, body: &str| {
        let request = format!(
            "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        admin(&evenkeel).exchange(request).expect("an answer")
    };
    for wrong in [
        "{\"state\":\"asleep\"}",
        "{\"weight\":1001}",
        "{\"weight\":-1}",
        "{\"wait\":1}",
        "{",
        "[]",
    ] {
        let answer = patch(&path, wrong);
        assert!((400..500).contains(&answer.status), "{wrong}: {answer}");
    }
    assert_eq!(
        patch("/api/v1/pools/site/servers/nobody", "{\"weight\":1}").status,
        404
    );
    assert_eq!(
        patch("/api/v1/pools/nobody/servers/x", "{\"weight\":1}").status,
        404
    );
    let server = crate::life_support::server(&evenkeel, "site", &origin.address().to_string());
    assert_eq!(
        (&server["state"], &server["weight"]),
        (&"ready".into(), &1.into())
    );
    let answer = patch(&path, "{\"state\":\"disabled\",\"weight\":5}");
    assert_eq!(answer.status, 200, "{answer}");
    let server = crate::life_support::server(&evenkeel, "site", &origin.address().to_string());
    assert_eq!(
        (&server["state"], &server["weight"]),
        (&"disabled".into(), &5.into())
    );
}

#[test]
fn numbers_follow_the_traffic() {
    let origin = origin();
    let evenkeel = running(&origin);
    let before = totals(&evenkeel);
    let mut client = connect(web(&evenkeel));
    for _ in 0..7 {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    for _ in 0..3 {
        assert_eq!(client.get("/missing").expect("an answer").status, 404);
    }
    let class = |class: &str| {
        metric(
            &evenkeel,
            &format!("evenkeel_requests_total{{listener=\"web\",route=\"1\",class=\"{class}\""),
        )
    };
    assert_eq!(
        (class("2xx"), class("4xx")),
        (7.0, 3.0),
        "{}",
        admin_get(&evenkeel, "/metrics")
    );
    assert_metric(
        &evenkeel,
        "evenkeel_server_requests_total{pool=\"site\"",
        10.0,
    );
    assert_metric(&evenkeel, "evenkeel_request_seconds_count{", 10.0);
    assert_metric(
        &evenkeel,
        "evenkeel_listener_connections{listener=\"web\"}",
        1.0,
    );
    assert_no_total_fell(&evenkeel, &before);
    drop(client);
    testkit::wait_until("the connection is gone", crate::life_support::SOON, || {
        metric(&evenkeel, "evenkeel_listener_connections{listener=\"web\"}") == 0.0
    })
    .expect("the connection is gone");
}
