//! Parts of a config in words, as `check`, `explain` and the log show them.

use std::fmt::Write as _;
use std::time::Duration;

use config::{Address, Bind, Snapshot, Target};
use control::record::rfc3339;
use rules::{Match, Pattern};

/// What a route of TLS that is passed on takes.
pub(crate) fn hello(route: &config::TcpRoute) -> String {
    let names: Vec<&str> = route.sni.iter().map(|name| name.text()).collect();
    let parts = [("sni", names.join(", ")), ("alpn", route.alpn.join(", "))];
    let given = parts.iter().filter(|(_, values)| !values.is_empty());
    let given: Vec<String> = given
        .map(|(key, values)| format!("{key} {values}"))
        .collect();
    match given.is_empty() {
        true => "everything else".to_owned(),
        false => given.join(", "),
    }
}

/// As it would be written in a config.
pub(crate) fn bind(bind: &Bind) -> String {
    match bind {
        Bind::Tcp {
            address,
            dual_stack: true,
            ..
        } => format!(":{}", address.port()),
        Bind::Tcp { address, .. } => address.to_string(),
        Bind::Unix(path) => format!("unix:{path}"),
    }
}

/// As it would be written in a config.
pub(crate) fn address(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.to_string(),
        Address::Name(name, port) => format!("{name}:{port}"),
        Address::Unix(path) => format!("unix:{path}"),
    }
}

/// Where requests of a route go.
pub(crate) fn target(target: &Target, snapshot: &Snapshot) -> String {
    match target {
        Target::Pool(to) => format!("pool {}", to.shown(&snapshot.pools)),
        Target::Answer => "answered here".to_owned(),
        Target::Split(arms) => {
            let arms: Vec<String> = arms
                .iter()
                .map(|arm| format!("{} {}", arm.to.shown(&snapshot.pools), arm.weight))
                .collect();
            format!("split {}", arms.join(", "))
        }
    }
}

/// What a route matches: `host x.example, path /api/*`.
pub(crate) fn rule(rule: &Match) -> String {
    let mut parts = Vec::new();
    let mut part = |key: &str, values: Vec<&str>| {
        if !values.is_empty() {
            parts.push(format!("{key} {}", values.join(" or ")));
        }
    };
    part("host", rule.host.iter().map(|host| host.text()).collect());
    part("path", rule.path.iter().map(|path| path.text()).collect());
    part("method", rule.method.iter().map(Pattern::text).collect());
    for (kind, named) in [
        ("header", &rule.header),
        ("cookie", &rule.cookie),
        ("query", &rule.query),
    ] {
        for (name, values) in named {
            part(
                &format!("{kind} {name}:"),
                values.iter().map(Pattern::text).collect(),
            );
        }
    }
    let sources: Vec<String> = rule.source.iter().map(ToString::to_string).collect();
    part("source", sources.iter().map(String::as_str).collect());
    if !rule.sni.is_empty() {
        let names: Vec<&str> = rule.sni.iter().map(|name| name.text()).collect();
        parts.push(format!("sni {}", names.join(" or ")));
    }
    if let Some(wanted) = &rule.client_cert {
        parts.push(format!("client certificate {wanted}"));
    }
    if let Some(not) = &rule.not {
        parts.push(format!("not ({})", self::rule(not)));
    }
    if parts.is_empty() {
        "everything else".to_owned()
    } else {
        parts.join(", ")
    }
}

/// `1m30s`, `250ms`: as it would be written in a config.
pub(crate) fn duration(time: Duration) -> String {
    let mut left = time.as_micros();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, micros) in [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ] {
        let count = left / micros;
        if count > 0 {
            let _ = write!(out, "{count}{unit}");
            left %= micros;
        }
    }
    out
}

/// Wall time, to the second.
pub(crate) fn wall(wall: Duration) -> String {
    rfc3339(Duration::from_secs(wall.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_written() {
        for (micros, expected) in [
            (0, "0s"),
            (250_000, "250ms"),
            (90_000_000, "1m30s"),
            (86_400_000_000, "1d"),
            (1_000_001, "1s1us"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), expected);
        }
    }
}
