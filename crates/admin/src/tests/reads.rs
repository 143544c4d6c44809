//! What can be read, and in which shape.

use std::collections::BTreeMap;
use std::time::Duration;

use control::metrics::RetryCause;
use control::world::Phase;
use serde_json::json;

use super::*;

#[tokio::test]
async fn livez_and_health_have_their_shapes() {
    let fixture = Fixture::new(MAIN).await;
    let livez = fixture.get("/livez").await;
    assert_eq!((livez.status, &*livez.body), (200, "ok"));
    let health = fixture.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(
        health.body,
        r#"{"status":"healthy","uptime_secs":0,"version":"0.1.0","checks":{"config":{"status":"up"},"pool:api":{"servers":2,"status":"up","usable":2},"pool:site":{"servers":2,"status":"up","usable":2},"workers":{"away":0,"status":"up","workers":2}}}"#
    );
    for (phase, status, word) in [
        (Phase::Starting, 503, "starting"),
        (Phase::Draining, 503, "draining"),
        (Phase::Running, 200, "healthy"),
    ] {
        fixture.hub.set_phase(phase);
        let health = fixture.get("/health").await;
        assert_eq!(
            (health.status, &health.json()["status"]),
            (status, &json!(word))
        );
    }
}

#[tokio::test]
async fn a_pool_without_a_usable_server_is_degraded_and_no_more() {
    let fixture = Fixture::new(MAIN).await;
    for server in ["10.0.1.1:80", "unix:%2Frun%2Fsite.sock"] {
        let path = format!("PATCH /api/v1/pools/site/servers/{server}");
        let answer = fixture.write(&path, r#"{"state":"disabled"}"#).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let health = fixture.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["status"], "degraded");
    let pool = &health.json()["checks"]["pool:site"];
    assert_eq!(*pool, json!({"status": "down", "servers": 2, "usable": 0}));
}

#[tokio::test]
async fn the_api_shows_what_there_is() {
    let fixture = Fixture::new(MAIN).await;
    let servers = fixture.get("/api/v1/pools/api/servers").await;
    assert_eq!(
        servers.body,
        concat!(
            r#"[{"pool":"api","name":"a","address":"10.0.0.1:80","state":"ready","health":"healthy","#,
            r#""cause":"not probed","operator":null,"says":"","labels":{},"weight":2,"effective_weight":2.0,"active":0,"limit":100,"limited_by":"max_connections","picks":0,"usable":true,"traffic":0.6667,"note":""},"#,
            r#"{"pool":"api","name":"b<&\"c","address":"10.0.0.2:80","state":"ready","health":"healthy","#,
            r#""cause":"not probed","operator":null,"says":"","labels":{},"weight":1,"effective_weight":1.0,"active":0,"limit":50,"limited_by":"max_connections","picks":0,"usable":true,"traffic":0.3333,"note":""}]"#
        )
    );
    let unix = fixture
        .get("/api/v1/pools/site/servers/unix:%2Frun%2Fsite.sock")
        .await
        .json();
    assert_eq!(unix["address"], "unix:/run/site.sock");
    assert_eq!(unix["health"], "unknown");
    let pools = fixture.get("/api/v1/pools").await.json();
    assert_eq!(
        pools[0],
        json!({"name": "api", "balance": "least_connections", "health_check": "off",
               "servers": 2, "usable": 2, "panic": false, "waiting": 0, "active": 0, "subsets": [], "failed": 0, "retried": 0,
               "capacity": { "load": 0.0, "per_second": 0.0, "mean_ms": null, "room": 150, "ratio": 0.0,
                             "without_server": { "name": "a", "servers_left": 1, "room": 50, "ratio": 0.0,
                                                 "growth": 3.0 },
                             "without_zone": null, "alarm": false }})
    );
    assert_eq!(pools[1]["health_check"], "tcp");
    let listeners = fixture.get("/api/v1/listeners").await.json();
    assert_eq!(
        listeners[0],
        json!({"name": "web", "protocol": "http", "bind": ["127.0.0.1:0"], "addresses": ["127.0.0.1:8080"],
               "connections": 0, "accepted": 0, "routes": 4})
    );
    assert_eq!(listeners[1]["protocol"], "tcp");
    let routes = fixture.get("/api/v1/routes").await.json();
    assert_eq!(
        routes,
        json!([
            {"listener": "web", "name": "api", "pool": "api", "requests": 0},
            {"listener": "web", "name": "both", "requests": 0,
             "split": [{"pool": "api", "weight": 90}, {"pool": "site", "weight": 10}]},
            {"listener": "web", "name": "gone", "answer": true, "requests": 0},
            {"listener": "web", "name": "4", "pool": "site", "requests": 0},
            {"listener": "pg", "pool": "site", "requests": 0},
        ])
    );
}

#[tokio::test]
async fn what_is_not_there_names_what_is() {
    let fixture = Fixture::new(MAIN).await;
    let error = fixture.get("/api/v1/pools/x/servers").await.error(404);
    assert_eq!(error, "no pool `x`; pools: api, site");
    let error = fixture.get("/api/v1/pools/site/servers/x").await.error(404);
    assert_eq!(
        error,
        "no server `x` in pool `site`; servers: 10.0.1.1:80, unix:/run/site.sock"
    );
    let error = fixture.get("/nothing").await.error(404);
    assert!(
        error.starts_with("nothing at /nothing; there are /, /livez"),
        "{error}"
    );
    let wrong = fixture.write("DELETE /api/v1/pools", "").await;
    assert_eq!(wrong.error(405), "DELETE is not for /api/v1/pools");
    assert!(wrong.head.contains("allow: GET,HEAD"), "{}", wrong.head);
}

#[tokio::test]
async fn a_foreign_host_reads_nothing() {
    let fixture = Fixture::new(MAIN).await;
    for path in ["/", "/metrics", "/api/v1/pools", "/nothing"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n");
        assert_eq!(fixture.send(&head, "").await.status, 403, "{path}");
    }
    let health = fixture
        .send("GET /health HTTP/1.1\r\nhost: evil.example\r\n", "")
        .await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn the_page_is_a_table_that_names_cannot_break_out_of() {
    let fixture = Fixture::new(MAIN).await;
    let page = fixture.get("/").await;
    assert!(page.head.contains("content-type: text/html; charset=utf-8"));
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'")
    );
    assert!(
        page.body
            .contains("<td>b&lt;&amp;&quot;c<td>10.0.0.2:80<td>ready"),
        "{}",
        page.body
    );
    assert!(!page.body.contains("<script"));
}

/// Each series with its value; fails on any line that is not of the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(words.next().is_some_and(|rest| !rest.is_empty()), "{line}");
            assert_eq!(
                keyword,
                if name == family { "TYPE" } else { "HELP" },
                "{line}"
            );
            family = name;
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let known = crate::metrics::FAMILIES
            .iter()
            .find(|known| known.name == family);
        let known = known.unwrap_or_else(|| panic!("{family} is no family"));
        assert!(name.starts_with(family), "{line} under {family}");
        for label in known.labels {
            assert!(
                name.contains(&format!("{label}=\"")),
                "{line} without {label}"
            );
        }
        let value = value.parse().unwrap();
        assert!(
            series.insert(name.to_owned(), value).is_none(),
            "{line} twice"
        );
    }
    series
}

/// One of the automatic certificates of `pg` stands like this.
fn show_certificate(fixture: &Fixture) {
    let authority: std::sync::Arc<str> = "acme-v02.api.letsencrypt.org".into();
    let board = &fixture.hub.certificates;
    board.show(control::acme::Status {
        domain: "new.example".into(),
        authority: authority.clone(),
        file: "store/acme-v02.api.letsencrypt.org_directory/new.example.pem".into(),
        not_after: Some(Duration::from_secs(1_000_000_000)),
        next_order: Some(Duration::from_secs(2_000_000_000)),
        failures: 2,
        problem: Some("dns: no such name".into()),
        ..Default::default()
    });
    board.count(&"new.example".into(), &authority, false);
}

#[tokio::test]
async fn certificates_of_authorities_and_of_files_are_shown() {
    let fixture = Fixture::new(MAIN).await;
    show_certificate(&fixture);
    let shown = fixture.get("/api/v1/certificates").await.json();
    let folder = "store/acme-v02.api.letsencrypt.org_directory";
    assert_eq!(
        shown[0],
        json!({
            "names": ["new.example"], "listeners": ["pg"], "file": format!("{folder}/new.example.pem"),
            "authority": "acme-v02.api.letsencrypt.org", "state": "expired",
            "not_after": "2001-09-09T01:46:40.000Z", "next_order": "2033-05-18T03:33:20.000Z",
            "ordering": false, "failures": 2, "problem": "dns: no such name",
        })
    );
    assert_eq!(
        shown[1],
        json!({
            "names": ["none.example"], "listeners": ["pg"], "file": format!("{folder}/none.example.pem"),
            "authority": "acme-v02.api.letsencrypt.org", "state": "missing", "ordering": false, "failures": 0,
        })
    );
    assert_eq!(
        (&shown[2]["file"], &shown[2]["state"]),
        (&json!("cert.pem"), &json!("valid"))
    );
    assert_eq!(shown.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn metrics_are_of_the_format_and_every_family_is_there() {
    let fixture = Fixture::new(MAIN).await;
    let world = fixture.hub.world();
    for (worker, status, ms) in [(0, 200, 3), (1, 200, 30), (0, 503, 70_000)] {
        let route = world.routes[0][0].stats.of(worker);
        route.classes.record(status);
        route.seconds.record(Duration::from_millis(ms));
    }
    let pool = world.pools[0].stats.of(1);
    pool.retries[RetryCause::ServerClosed as usize].add(4);
    let view = world.pools[0].view();
    view.standings[0].member.cell.acquire(None).unwrap();
    show_certificate(&fixture);
    let answer = fixture.get("/metrics").await;
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let series = parse(&answer.body);
    for (name, value) in [
        (
            r#"evenkeel_requests_total{listener="web",route="api",class="2xx"}"#,
            2.0,
        ),
        (
            r#"evenkeel_requests_total{listener="web",route="api",class="5xx"}"#,
            1.0,
        ),
        (
            r#"evenkeel_request_seconds_bucket{listener="web",route="api",le="0.005"}"#,
            1.0,
        ),
        (
            r#"evenkeel_request_seconds_bucket{listener="web",route="api",le="60"}"#,
            2.0,
        ),
        (
            r#"evenkeel_request_seconds_bucket{listener="web",route="api",le="+Inf"}"#,
            3.0,
        ),
        (
            r#"evenkeel_request_seconds_count{listener="web",route="api"}"#,
            3.0,
        ),
        (
            r#"evenkeel_request_seconds_sum{listener="web",route="api"}"#,
            70.033,
        ),
        (
            r#"evenkeel_retries_total{pool="api",cause="server_closed"}"#,
            4.0,
        ),
        (r#"evenkeel_picks_total{pool="api",server="a"}"#, 1.0),
        (r#"evenkeel_active_connections{pool="api",server="a"}"#, 1.0),
        (r#"evenkeel_server_usable{pool="api",server="b<&\"c"}"#, 1.0),
        (r#"evenkeel_errors_total{reason="no_route"}"#, 0.0),
        (r#"evenkeel_build_info{version="0.1.0"}"#, 1.0),
        (
            r#"evenkeel_acme_orders_total{domain="new.example",authority="acme-v02.api.letsencrypt.org",result="failed"}"#,
            1.0,
        ),
        (
            r#"evenkeel_acme_failures{domain="new.example",authority="acme-v02.api.letsencrypt.org"}"#,
            2.0,
        ),
        ("process_start_time_seconds", 1.7e9),
    ] {
        assert_eq!(series.get(name), Some(&value), "{name}");
    }
    for family in crate::metrics::FAMILIES {
        let there = series.keys().any(|name| name.starts_with(family.name));
        assert!(there || !cfg!(target_os = "linux"), "{}", family.name);
    }
}

#[tokio::test]
async fn no_total_falls_when_a_reload_takes_names_away_and_back() {
    let fixture = Fixture::new(MAIN).await;
    let world = fixture.hub.world();
    world.routes[0][0].stats.of(0).classes.record(200);
    world.pools[0]
        .stats
        .of(0)
        .seconds
        .record(Duration::from_millis(3));
    world.pools[0].view().standings[0]
        .member
        .cell
        .acquire(None)
        .unwrap();
    let without = "listeners: { web: { bind: \"127.0.0.1:0\", pool: other } }\n\
                   pools: { other: { servers: [\"10.0.0.9:80\"] } }";
    let mut shown: BTreeMap<String, f64> = BTreeMap::new();
    for text in [MAIN, without, MAIN, without, MAIN] {
        text.clone_into(&mut fixture.file.lock().unwrap());
        assert_eq!(fixture.write("POST /api/v1/reload", "").await.status, 200);
        for (name, value) in parse(&fixture.get("/metrics").await.body) {
            let before = shown.get(&name).copied().unwrap_or(0.0);
            let total = name.contains("_total") || name.contains("_seconds_");
            assert!(
                !total || value >= before,
                "{name} fell from {before} to {value}"
            );
            shown.insert(name, value);
        }
    }
    assert_eq!(shown[r#"evenkeel_picks_total{pool="api",server="a"}"#], 1.0);
    assert_eq!(shown[r#"evenkeel_pool_seconds_count{pool="api"}"#], 1.0);
}

#[tokio::test]
async fn past_a_thousand_routes_the_rest_share_one_label() {
    let routes: String = (0..1200)
        .map(|n| format!("      - {{ name: r{n}, match: {{ path: /r{n} }}, pool: p }}\n"))
        .collect();
    let text = format!(
        "listeners:\n  web:\n    bind: \"127.0.0.1:0\"\n    routes:\n{routes}\
         pools: {{ p: {{ servers: [\"10.0.0.1:80\"] }} }}\n"
    );
    let fixture = Fixture::new(&text).await;
    let world = fixture.hub.world();
    for route in &world.routes[0] {
        route.stats.of(0).classes.record(200);
    }
    let ours = |name: &&String| {
        name.starts_with("evenkeel_requests_total") && name.contains("class=\"2xx\"")
    };
    let series = parse(&fixture.get("/metrics").await.body);
    assert_eq!(series.keys().filter(ours).count(), 1001);
    let other = r#"evenkeel_requests_total{listener="web",route="other",class="2xx"}"#;
    assert_eq!(series[other], 200.0);
    let all: f64 = series
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|(_, value)| value)
        .sum();
    assert_eq!(all, 1200.0);
}
