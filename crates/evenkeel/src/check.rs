//! `evenkeel check`: every error of a config at once, else a summary of what would run.

use std::fmt::Write as _;
use std::process::ExitCode;

use config::{
    Admin, HealthCheck, Listener, LogFormat, LogTarget, Pool, Probe, Protocol, Route, Snapshot,
};

use crate::cli::CheckArgs;
use crate::source::Origin;
use crate::table::aligned;
use crate::{describe, diagnose, exit};

/// Runs the command.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let origin = match Origin::find(args.file.as_deref()) {
        Ok(origin) => origin,
        Err(error) => return exit::wrong(error),
    };
    match diagnose::show(origin.load(), args.strict) {
        Ok(snapshot) => {
            if let Err(errors) = proxy::check_tls(&snapshot) {
                for error in &errors {
                    eprintln!("{error}");
                }
                return exit::wrong(diagnose::errors(errors.len()));
            }
            exit::print(&(summary(&snapshot) + &certificates(&snapshot)));
            exit::WELL
        }
        Err(counts) => exit::wrong(counts),
    }
}

/// What would run, in aligned plain text.
pub(crate) fn summary(snapshot: &Snapshot) -> String {
    let mut out = String::from("listeners\n");
    for listener in &snapshot.listeners {
        write_listener(listener, snapshot, &mut out);
    }
    out.push_str("pools\n");
    for pool in &snapshot.pools {
        write_pool(pool, &mut out);
    }
    let rows = [
        ("admin", admin(snapshot.admin.as_ref())),
        ("access log", access_log(snapshot)),
        (
            "workers",
            snapshot.workers.map_or_else(
                || "one for each core".to_owned(),
                |workers| workers.to_string(),
            ),
        ),
        ("files", snapshot.files.join(", ")),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    out.push_str(&aligned(&rows, 0));
    out
}

/// The certificates that would be asked for; nobody is asked.
fn certificates(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for (issuer, domains) in agents::acme::wanted(snapshot) {
        let _ = writeln!(
            out,
            "certificates  {}  {}  {}",
            issuer.directory,
            issuer.challenge.name(),
            issuer.folder
        );
        let rows = domains.iter().map(|domain| {
            let found = match agents::acme::kept(&issuer, domain) {
                Ok(Some(not_after)) => format!("kept, good until {}", describe::wall(not_after)),
                Ok(None) => "would be asked for".to_owned(),
                Err(why) => format!("would be asked for: {why}"),
            };
            vec![domain.to_string(), found]
        });
        out.push_str(&aligned(&rows.collect::<Vec<_>>(), 2));
    }
    out
}

fn write_listener(listener: &Listener, snapshot: &Snapshot, out: &mut String) {
    let binds: Vec<String> = listener.binds.iter().map(describe::bind).collect();
    let protocol = match listener.protocol {
        Protocol::Http(_) => "http",
        Protocol::Tcp(_) => "tcp",
    };
    let _ = writeln!(out, "  {}  {}  {protocol}", listener.name, binds.join(", "));
    let rows: Vec<Vec<String>> = match &listener.protocol {
        Protocol::Http(http) => http
            .routes
            .iter()
            .zip(http.table.matches())
            .map(|(route, rule)| {
                vec![
                    format!("route {}", route.name),
                    rule_of(route, rule),
                    format!("-> {}", describe::target(&route.target, snapshot)),
                ]
            })
            .collect(),
        Protocol::Tcp(tcp) if tcp.routes.is_empty() => vec![vec![format!(
            "-> {}",
            describe::target(&tcp.target, snapshot)
        )]],
        Protocol::Tcp(tcp) => tcp
            .routes
            .iter()
            .map(|route| {
                vec![
                    format!("route {}", route.name),
                    describe::hello(route),
                    format!("-> {}", describe::target(&route.target, snapshot)),
                ]
            })
            .collect(),
    };
    out.push_str(&aligned(&rows, 4));
}

fn rule_of(route: &Route, rule: &rules::Match) -> String {
    let with = match route.requires_client_cert {
        true => ", only with a client certificate",
        false => "",
    };
    describe::rule(rule) + with
}

fn write_pool(pool: &Pool, out: &mut String) {
    let _ = writeln!(
        out,
        "  {}  {}  {}",
        pool.name,
        pool.balance.name,
        probes(pool.health_check.as_ref())
    );
    let rows: Vec<Vec<String>> = pool
        .servers
        .iter()
        .map(|server| {
            let address = describe::address(&server.address);
            let name = if *server.name == *address {
                String::new()
            } else {
                server.name.to_string()
            };
            let max = server
                .connections_max
                .map_or_else(String::new, |max| format!("at most {max} at once"));
            vec![
                "server".to_owned(),
                address,
                name,
                format!("weight {}", server.weight),
                max,
                server.labels.to_string(),
            ]
        })
        .collect();
    out.push_str(&aligned(&rows, 4));
}

fn probes(check: Option<&HealthCheck>) -> String {
    let Some(check) = check else {
        return "not probed (health_check: off)".to_owned();
    };
    let what = match &check.probe {
        Probe::Tcp => "TCP only: probed by connect".to_owned(),
        Probe::Http(http) => format!("probed by {} {}", http.method, http.path),
        Probe::Grpc(grpc) if grpc.service.is_empty() => "probed by gRPC".to_owned(),
        Probe::Grpc(grpc) => format!("probed by gRPC for {}", grpc.service),
    };
    let port = check
        .port
        .map_or_else(String::new, |port| format!(" on port {port}"));
    format!(
        "{what}{port} every {}, timeout {}",
        describe::duration(check.interval),
        describe::duration(check.timeout)
    )
}

fn admin(admin: Option<&Admin>) -> String {
    match admin {
        None => "off".to_owned(),
        Some(admin) if admin.written => format!("http://{}", admin.bind),
        Some(admin) => format!("http://{} (default)", admin.bind),
    }
}

fn access_log(snapshot: &Snapshot) -> String {
    let Some(log) = &snapshot.access_log else {
        return "off".to_owned();
    };
    let to = match &log.to {
        LogTarget::Stdout => "stdout",
        LogTarget::Stderr => "stderr",
        LogTarget::File(path) => path,
    };
    let format = match log.format {
        LogFormat::Json => "json",
        LogFormat::Common => "common",
    };
    format!("{to}, {format}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_everything_that_would_run() {
        let text = r#"
listeners:
  web:
    bind: ":8080"
    routes:
      - { match: { path: /api/* }, pool: api }
      - { match: { host: x.example }, split: { site: 90, api: 10 } }
      - { name: rest, pool: site }
  db: { bind: "127.0.0.1:5432", protocol: tcp, pool: pg }
pools:
  site: { servers: ["127.0.0.1:1"] }
  api:
    balance: round_robin
    servers: [{ name: api-1, address: "127.0.0.1:2", weight: 3, max_connections: 500 }, "127.0.0.1:30"]
    health_check: { path: /health, port: 81 }
  pg: { servers: ["unix:/run/pg.sock"], health_check: off }
admin: off
"#;
        let origin = Origin::Text {
            name: "x.yaml",
            text: text.to_owned(),
        };
        let snapshot = origin.load().snapshot.expect("a good config");
        assert_eq!(
            summary(&snapshot),
            "\
listeners
  web  :8080  http
    route 1     path /api/*      -> pool api
    route 2     host x.example   -> split site 90, api 10
    route rest  everything else  -> pool site
  db  127.0.0.1:5432  tcp
    -> pool pg
pools
  site  power_of_two  TCP only: probed by connect every 10s, timeout 5s
    server  127.0.0.1:1  weight 1
  api  round_robin  probed by GET /health on port 81 every 10s, timeout 5s
    server  127.0.0.1:2   api-1  weight 3  at most 500 at once
    server  127.0.0.1:30         weight 1
  pg  power_of_two  not probed (health_check: off)
    server  unix:/run/pg.sock  weight 1
admin       off
access log  off
workers     one for each core
files       x.yaml
"
        );
    }
}
