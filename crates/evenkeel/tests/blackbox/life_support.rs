//! What the tests of a running instance share: configs, its API and its metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use testkit::{Evenkeel, Finished, Nginx, Raw, Response, wait_until};

use crate::command::{BINARY, evenkeel_in};

/// Longer than anything here takes, even beside a CPU hog.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// One HTTP listener, `web`, in front of one pool, `site`. Probes come every 200 ms.
pub(crate) fn site(servers: &[SocketAddr], settings: &str) -> String {
    let check = if settings.contains("health_check") {
        ""
    } else {
        "health_check: { path: /health, interval: 200ms, timeout: 1s, unhealthy_threshold: 2 },"
    };
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
shutdown: {{ idle_wait: 1s, timeout: 10s }}
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site: {{ servers: {servers}, {check} {settings} }}
",
        servers = list(servers)
    )
}

/// Addresses as a list of a config.
pub(crate) fn list(servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|it| format!("'{it}'")).collect();
    format!("[{}]", servers.join(", "))
}

pub(crate) fn start(config: &str) -> Evenkeel {
    Evenkeel::start(BINARY, config).expect("evenkeel starts")
}

/// As many as there are names.
pub(crate) fn nginxes<const N: usize>(names: [&str; N]) -> [Nginx; N] {
    names.map(|name| Nginx::start(name, "").expect("nginx starts"))
}

pub(crate) fn web(evenkeel: &Evenkeel) -> SocketAddr {
    evenkeel.address("web").expect("an address of `web`")
}

pub(crate) fn connect(address: SocketAddr) -> Raw {
    Raw::connect(address).expect("a connection")
}

/// A command that talks to the instance.
pub(crate) fn ask(evenkeel: &Evenkeel, args: &[&str]) -> Finished {
    let url = evenkeel.admin_url().expect("an admin address");
    evenkeel_in(evenkeel.dir().path(), &[args, &["--admin", &url]].concat())
}

/// Writes a config and has it taken up.
pub(crate) fn reload(evenkeel: &Evenkeel, config: &str) -> String {
    evenkeel.write_config(config).expect("written");
    let finished = ask(evenkeel, &["reload"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.text()
}

/// `GET` of the admin API, as text.
pub(crate) fn admin_get(evenkeel: &Evenkeel, path: &str) -> String {
    let mut admin = connect(evenkeel.admin().expect("an admin address"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    admin.exchange(request).expect("an answer").text()
}

/// What the admin API answers to a body of JSON.
pub(crate) fn admin_write(evenkeel: &Evenkeel, method: &str, path: &str, body: &str) -> Response {
    let mut admin = connect(evenkeel.admin().expect("an admin address"));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    admin.exchange(request).expect("an answer")
}

/// The API's object for one server of a pool.
pub(crate) fn server(evenkeel: &Evenkeel, pool: &str, name: &str) -> Value {
    let text = admin_get(evenkeel, &format!("/api/v1/pools/{pool}/servers"));
    let json: Value = serde_json::from_str(&text).expect(&text);
    let list = json
        .get("servers")
        .unwrap_or(&json)
        .as_array()
        .expect(&text);
    let found = list.iter().find(|it| it.get("name") == Some(&name.into()));
    found
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .clone()
}

/// What one server of `site` has been picked.
pub(crate) fn picks(evenkeel: &Evenkeel, address: SocketAddr) -> u64 {
    let server = server(evenkeel, "site", &address.to_string());
    server.get("picks").and_then(Value::as_u64).expect("picks")
}

/// Waits until a server of `site` is `healthy`, `unhealthy` or `unknown`.
pub(crate) fn wait_health(evenkeel: &Evenkeel, address: SocketAddr, health: &str) {
    let name = address.to_string();
    wait_until(&format!("{name} is {health}"), SOON, || {
        server(evenkeel, "site", &name).get("health") == Some(&health.into())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

/// Every series that must never fall, by its name and labels.
pub(crate) fn totals(evenkeel: &Evenkeel) -> BTreeMap<String, f64> {
    let text = admin_get(evenkeel, "/metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter_map(|line| line.rsplit_once(' '));
    let is_total = |name: &str| {
        ["_total", "_count", "_sum", "_bucket"]
            .iter()
            .any(|end| name.split('{').next().unwrap_or_default().ends_with(end))
    };
    lines
        .filter(|(name, _)| is_total(name))
        .map(|(name, value)| (name.to_owned(), value.parse().expect(name)))
        .collect()
}

/// Fails if a series of `before` is lower now; one may be gone with what it counted.
pub(crate) fn assert_no_total_fell(evenkeel: &Evenkeel, before: &BTreeMap<String, f64>) {
    let after = totals(evenkeel);
    for (name, before) in before {
        if let Some(after) = after.get(name) {
            assert!(after >= before, "{name} fell from {before} to {after}");
        }
    }
}

/// The sum of the series whose line begins so, as `evenkeel_picks_total{pool="site"`.
pub(crate) fn metric(evenkeel: &Evenkeel, start: &str) -> f64 {
    let text = admin_get(evenkeel, "/metrics");
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// That sum comes to `value`: what an answer counts is counted when its last byte is on its way.
pub(crate) fn assert_metric(evenkeel: &Evenkeel, start: &str, value: f64) {
    let mut found = f64::NAN;
    let reached = wait_until(start, SOON, || {
        found = metric(evenkeel, start);
        found == value
    });
    assert!(reached.is_ok(), "{start}: {found}, not {value}");
}

/// The same for several.
pub(crate) fn wait_all(evenkeel: &Evenkeel, addresses: &[SocketAddr], health: &str) {
    for address in addresses {
        wait_health(evenkeel, *address, health);
    }
}
