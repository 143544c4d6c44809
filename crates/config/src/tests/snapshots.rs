//! What a sound config becomes.

use std::time::Duration;

use balance::Algorithm;

use super::Given;
use crate::*;

/// SPEC's example, without the keys that this version does not support.
const EXAMPLE: &str = include_str!("example.yaml");
/// Every key of this version, in its long form.
const WHOLE: &str = include_str!("whole.yaml");

fn snapshot(yaml: &str) -> Snapshot {
    let given = Given::main(yaml);
    assert_eq!(given.found(), Vec::<String>::new());
    given.load().snapshot.unwrap()
}

fn http(listener: &Listener) -> &HttpListener {
    match &listener.protocol {
        Protocol::Http(http) => http,
        Protocol::Tcp(_) => panic!("{} is TCP", listener.name),
    }
}

fn seconds(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

#[test]
fn example() {
    let snapshot = snapshot(EXAMPLE);
    let [web, postgres] = &snapshot.listeners[..] else {
        panic!("two listeners")
    };
    let targets: Vec<&Target> = http(web).routes.iter().map(|route| &route.target).collect();
    let arms = vec![
        Arm {
            to: Destination::whole(4),
            weight: 90,
        },
        Arm {
            to: Destination::whole(5),
            weight: 10,
        },
    ];
    assert_eq!(
        targets,
        [
            &Target::Pool(Destination::whole(1)),
            &Target::Pool(Destination::whole(3)),
            &Target::Split(arms),
            &Target::Pool(Destination::whole(0))
        ]
    );
    assert_eq!(http(web).table.len(), 4);
    let Protocol::Tcp(tcp) = &postgres.protocol else {
        panic!("tcp")
    };
    let expected = TcpListener {
        priority: 5,
        target: Target::Pool(Destination::whole(2)),
        routes: Vec::new(),
        idle: seconds(3600),
        half_closed: seconds(300),
    };
    assert_eq!(format!("{tcp:?}"), format!("{expected:?}"));
    let api = &snapshot.pools[1];
    assert_eq!(
        (
            &*api.servers[1].name,
            api.servers[1].weight,
            api.servers[1].connections_max
        ),
        ("api-2", 3, Some(500))
    );
    assert_eq!(
        api.servers[1].address,
        Address::Name("api.internal".into(), 8080)
    );
    assert_eq!(&*api.servers[1].place, "etc/main.yaml:22:33");
    assert_eq!(api.balance.algorithm, Algorithm::LeastConnections);
    assert_eq!(snapshot.pools[2].balance.name, "weighted_least_connections");
}

#[test]
fn defaults_are_those_of_the_table() {
    let snapshot = snapshot(
        "listeners: { l: { bind: \":1\", pool: p } }\npools: { p: { servers: [\"[::1]:80\"] } }\n",
    );
    assert_eq!(snapshot.workers, None);
    assert_eq!(
        snapshot.admin,
        Some(Admin {
            bind: "127.0.0.1:9900".parse().unwrap(),
            written: false,
            token_file: None
        })
    );
    assert_eq!(
        snapshot.shutdown,
        Shutdown {
            delay: Duration::ZERO,
            idle_wait: Duration::from_secs(5),
            timeout: Duration::from_secs(30)
        }
    );
    assert_eq!(snapshot.access_log, None);
    let listener = &snapshot.listeners[0];
    assert_eq!(
        listener.binds,
        [Bind::Tcp {
            address: "[::]:1".parse().unwrap(),
            dual_stack: true,
            listener: None,
        }]
    );
    assert_eq!(listener.connections_max, None);
    assert!(listener.trusted_proxies.is_empty());
    let client = http(listener);
    assert_eq!(
        client.timeouts,
        ClientTimeouts {
            header: seconds(10),
            body_idle: seconds(30),
            write_idle: seconds(30),
            keep_alive: seconds(75)
        }
    );
    assert_eq!(
        client.limits,
        ClientLimits {
            header_bytes: 32 << 10,
            headers: 128,
            uri_bytes: 8 << 10,
            body_bytes: None
        }
    );
    assert_eq!(
        client.forwarded,
        rules::forward::Options {
            x_forwarded: true,
            forwarded: false,
            via: false,
            request_id: rules::forward::RequestId::Keep
        }
    );
    assert_eq!(client.upgrades, Vec::<String>::new());
    assert_eq!((&*client.routes[0].name, client.routes.len()), ("1", 1));
}

#[test]
fn a_pools_defaults_are_those_of_the_table() {
    let snapshot = snapshot(
        "listeners: { l: { bind: \":1\", pool: p } }\npools: { p: { servers: [\"[::1]:80\"] } }\n",
    );
    let pool = &snapshot.pools[0];
    assert_eq!(
        pool.balance,
        Balance {
            name: "power_of_two",
            algorithm: Algorithm::PowerOfTwo,
            key: HashKey::Source
        }
    );
    assert_eq!(
        pool.timeouts,
        ServerTimeouts {
            connect: seconds(2),
            first_byte: seconds(60),
            idle: seconds(60),
            request: None,
            tunnel: seconds(3600),
            keep_alive: Duration::from_secs(4),
        }
    );
    assert_eq!(pool.connections_per_server, 10_000);
    let queue = pool.queue.unwrap();
    assert_eq!((queue.max, queue.wait), (1_000, Duration::from_secs(5)));
    assert_eq!(
        pool.retries,
        Retries {
            attempts: 2,
            budget_percent: 20,
            per_try_timeout: None,
            statuses: Vec::new(),
            codes: 0,
            backoff: None,
            repeats_post: false,
            repeats_patch: false,
            hedge: None,
        }
    );
    assert_eq!(pool.drain_timeout, seconds(30));
    assert_eq!(
        pool.health_check,
        Some(HealthCheck {
            probe: Probe::Tcp,
            tls: None,
            http: ServerHttp::Http1,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            initial: InitialHealth::Unknown,
        })
    );
    assert_eq!(
        (&*pool.servers[0].name, pool.servers[0].weight),
        ("[::1]:80", 1)
    );
}

#[test]
fn every_key() {
    let snapshot = snapshot(WHOLE);
    assert_eq!(snapshot.workers, Some(4));
    assert_eq!(
        snapshot.admin.as_ref().unwrap().token_file.as_deref(),
        Some("/etc/evenkeel/token")
    );
    assert_eq!(snapshot.shutdown.delay, Duration::from_secs(1));
    assert_eq!(
        snapshot.access_log,
        Some(AccessLog {
            to: LogTarget::Stderr,
            format: LogFormat::Common
        })
    );
    let web = &snapshot.listeners[0];
    assert_eq!(web.binds.len(), 3);
    assert_eq!(web.binds[1], Bind::Unix("/run/web.sock".to_owned()));
    assert_eq!(
        (web.connections_max, web.trusted_proxies.len()),
        (Some(50_000), 2)
    );
    let client = http(web);
    assert_eq!(
        client.timeouts,
        ClientTimeouts {
            header: seconds(1),
            body_idle: None,
            write_idle: seconds(90),
            keep_alive: Some(Duration::ZERO)
        }
    );
    assert_eq!(
        client.limits,
        ClientLimits {
            header_bytes: 4096,
            headers: 10,
            uri_bytes: 1000,
            body_bytes: Some(1 << 30)
        }
    );
    assert_eq!(
        client.forwarded,
        rules::forward::Options {
            x_forwarded: false,
            forwarded: true,
            via: true,
            request_id: rules::forward::RequestId::Off
        }
    );
    assert_eq!(client.upgrades, ["websocket"]);
    let [api, old, blocked, rest] = &client.routes[..] else {
        panic!("four routes")
    };
    let off = Retries {
        attempts: 0,
        per_try_timeout: None,
        statuses: Vec::new(),
        codes: 0,
        hedge: None,
        ..snapshot.pools[0].retries.clone()
    };
    assert_eq!(
        (&*api.name, api.request_timeout, &api.retries),
        ("api", Some(seconds(30)), &vec![(0, off)])
    );
    assert_eq!(api.filters.len(), 7);
    assert_eq!(
        (&old.target, &blocked.target),
        (&Target::Answer, &Target::Answer)
    );
    assert_eq!((rest.request_timeout, &*rest.name), (Some(None), "4"));
    let [(0, to_api), (1, to_pg)] = &rest.retries[..] else {
        panic!("one policy for each arm: {:?}", rest.retries)
    };
    assert_eq!((to_api.attempts, to_pg.attempts), (7, 7));
    assert_eq!(to_api.statuses, [(500, 599)]);
    assert!(!to_api.repeats_post);
    assert_eq!(to_api.backoff, snapshot.pools[0].retries.backoff);
    assert_eq!(to_api.hedge, to_pg.hedge);
    assert_eq!(
        to_pg.hedge,
        Some(Hedge {
            after: HedgeAfter::Measured(Measured {
                percentile: balance::Percentile::new(9_500),
                at_least: Duration::from_millis(20),
                at_most: seconds(1),
                of_route: true,
            }),
            max: 1
        })
    );
    assert_eq!(
        (rest.priority, api.priority, client.priority),
        (Some(9), None, 5)
    );
}

#[test]
fn every_key_of_a_pool() {
    let snapshot = snapshot(WHOLE);
    let pool = &snapshot.pools[0];
    assert_eq!(
        pool.timeouts,
        ServerTimeouts {
            connect: seconds(1),
            first_byte: None,
            idle: seconds(2),
            request: seconds(3),
            tunnel: None,
            keep_alive: Duration::ZERO
        }
    );
    assert_eq!((pool.connections_per_server, pool.drain_timeout), (5, None));
    let queue = pool.queue.unwrap();
    assert_eq!((queue.max, queue.wait), (7, Duration::from_millis(200)));
    assert_eq!(
        pool.retries,
        Retries {
            attempts: 1,
            budget_percent: 5,
            per_try_timeout: Some(Duration::from_millis(1500)),
            statuses: vec![(502, 503), (504, 504)],
            codes: 1 << 14,
            backoff: Some(Backoff {
                base: Duration::from_millis(10),
                max: seconds(1).unwrap(),
            }),
            repeats_post: true,
            repeats_patch: false,
            hedge: Some(Hedge {
                after: HedgeAfter::Time(Duration::from_millis(100)),
                max: 2,
            }),
        }
    );
    let health = pool.health_check.as_ref().unwrap();
    assert_eq!(
        (health.port, health.initial),
        (Some(8081), InitialHealth::Healthy)
    );
    assert_eq!(
        health.probe,
        Probe::Http(HttpProbe {
            path: "/health".to_owned(),
            method: "HEAD".to_owned(),
            host: Some("api.internal".to_owned()),
            headers: vec![("x-probe".to_owned(), "1".to_owned())],
            status: vec![(200, 299), (304, 304)],
            body: Some("ok".to_owned()),
            drain: Box::new(Mark {
                status: vec![(429, 429)],
                headers: vec![("x-drain".to_owned(), Some("true".to_owned()))],
            }),
            maintenance: Box::new(Mark {
                status: vec![(430, 430)],
                headers: vec![("x-off".to_owned(), None)],
            }),
        })
    );
    assert_eq!(pool.agent_check, None);
    let agent = snapshot.pools[1].agent_check.as_ref();
    let expected = AgentCheck {
        port: 9999,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(300),
        send: "hello".to_owned(),
    };
    assert_eq!(agent, Some(&expected));
}

#[test]
fn spellings_of_balance() {
    let check = |written: &str, algorithm: Algorithm, key: HashKey| {
        let snapshot = snapshot(&format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [h:1], balance: {written} }} }}\n"
        ));
        let balance = &snapshot.pools[0].balance;
        assert_eq!(
            (&balance.algorithm, &balance.key),
            (&algorithm, &key),
            "{written}"
        );
    };
    let source = || HashKey::Source;
    check("round_robin", Algorithm::RoundRobin, source());
    check("{ round_robin: {} }", Algorithm::RoundRobin, source());
    check("{ random: }", Algorithm::Random, source());
    check("weighted_round_robin", Algorithm::RoundRobin, source());
    check(
        "weighted_least_connections",
        Algorithm::LeastConnections,
        source(),
    );
    check(
        "least_response_time",
        Algorithm::LeastResponseTime {
            times_connections: false,
        },
        source(),
    );
    check(
        "{ least_response_time: { times_connections: true } }",
        Algorithm::LeastResponseTime {
            times_connections: true,
        },
        source(),
    );
    check("ip_hash", Algorithm::IpHash, source());
    check("peak_ewma", Algorithm::PeakEwma, source());
    check("maglev", Algorithm::Maglev, source());
    check(
        "{ maglev: { key: path } }",
        Algorithm::Maglev,
        HashKey::Path,
    );
    check(
        "consistent_hash",
        Algorithm::ConsistentHash { bounded_load: None },
        source(),
    );
    check(
        "{ consistent_hash: { key: { header: X-User }, bounded_load: 1.25 } }",
        Algorithm::ConsistentHash {
            bounded_load: Some(1.25),
        },
        HashKey::Header("x-user".to_owned()),
    );
    check(
        "{ consistent_hash: { key: { cookie: Id }, bounded_load: 2 } }",
        Algorithm::ConsistentHash {
            bounded_load: Some(2.0),
        },
        HashKey::Cookie("Id".to_owned()),
    );
    check(
        "{ consistent_hash: { key: { query: q } } }",
        Algorithm::ConsistentHash { bounded_load: None },
        HashKey::Query("q".to_owned()),
    );
}

#[test]
fn codes_of_grpc_to_retry() {
    let check = |written: &str, statuses: &[(u16, u16)], codes: u32| {
        let snapshot = snapshot(&format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [h:1], retries: {{ on: {written} }} }} }}\n"
        ));
        let retries = &snapshot.pools[0].retries;
        assert_eq!((&retries.statuses[..], retries.codes), (statuses, codes));
    };
    check("unavailable", &[], 1 << 14);
    check(
        "[503, unavailable, cancelled]",
        &[(503, 503)],
        1 << 14 | 1 << 1,
    );
    check("500-599", &[(500, 599)], 0);
}

#[test]
fn spellings_of_health_check() {
    let check = |written: &str, expected: Option<&str>| {
        let snapshot = snapshot(&format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [h:1], health_check: {written} }} }}\n"
        ));
        let found = snapshot.pools[0]
            .health_check
            .as_ref()
            .map(|health| match &health.probe {
                Probe::Tcp => format!("tcp {}", health.interval.as_secs()),
                Probe::Http(http) => format!(
                    "{} {} {:?} {}",
                    http.method,
                    http.path,
                    http.status,
                    health.interval.as_secs()
                ),
                Probe::Grpc(grpc) => format!(
                    "grpc {:?} {:?} {:?} {}",
                    grpc.service,
                    grpc.host,
                    grpc.headers,
                    health.interval.as_secs()
                ),
            });
        assert_eq!(found.as_deref(), expected, "{written}");
    };
    check("off", None);
    check("tcp", Some("tcp 10"));
    check("http", Some("GET / [(200, 299)] 10"));
    check("grpc", Some("grpc \"\" None [] 10"));
    check("{ service: a.B }", Some("grpc \"a.B\" None [] 10"));
    check(
        "{ service: a.B, host: x, interval: 3s }",
        Some("grpc \"a.B\" Some(\"x\") [] 3"),
    );
    check(
        "{ grpc: { headers: { x-token: y } } }",
        Some("grpc \"\" None [(\"x-token\", \"y\")] 10"),
    );
    check("{ interval: 3s }", Some("tcp 3"));
    check("{ tcp: { interval: 3s } }", Some("tcp 3"));
    check("{ http: { path: /x } }", Some("GET /x [(200, 299)] 10"));
    check("{ path: /x, status: 204 }", Some("GET /x [(204, 204)] 10"));
    check(
        "{ status: \"200-399\", method: head }",
        Some("HEAD / [(200, 399)] 10"),
    );
    check(
        "{ status: [200, 300-302] }",
        Some("GET / [(200, 200), (300, 302)] 10"),
    );
}

#[test]
fn quick_configs_are_sound() {
    let servers = ["127.0.0.1:9001".to_owned(), "[::1]:9002".to_owned()];
    let yaml = quick(
        ":8080",
        &servers,
        false,
        Some("round_robin"),
        Some("/health"),
    );
    assert_eq!(
        yaml,
        "\
listeners:
  main:
    bind: \":8080\"
    pool: servers
pools:
  servers:
    balance: round_robin
    health_check: { path: \"/health\" }
    servers:
      - 127.0.0.1:9001
      - \"[::1]:9002\"
"
    );
    assert_eq!(snapshot(&yaml).pools[0].servers.len(), 2);
    let tcp = snapshot(&quick("127.0.0.1:1", &servers, true, None, None));
    assert!(matches!(tcp.listeners[0].protocol, Protocol::Tcp(_)));
    let odd = quick(
        "a\"b\\${X}\n",
        &["x: y".to_owned()],
        false,
        Some("${HOME}"),
        None,
    );
    let found = Given::main(&odd).found();
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn a_state_file_is_off_by_default_and_a_path_otherwise() {
    let with = |line: &str| {
        let listeners = "listeners: { web: { bind: ':1', routes: [{ filters: [{ respond: { status: 200 } }] }] } }";
        snapshot(&format!("{line}\n{listeners}\n")).state_file
    };
    assert_eq!(with(""), None);
    assert_eq!(with("state_file: off"), None);
    assert_eq!(
        with("state_file: /var/lib/evenkeel/state.json").as_deref(),
        Some("/var/lib/evenkeel/state.json")
    );
}

#[test]
fn the_level_of_the_capacity_alarm() {
    for (written, level) in [
        ("", Some(100)),
        (", capacity_alarm: 80%", Some(80)),
        (", capacity_alarm: off", None),
    ] {
        let yaml = format!(
            "listeners: {{ l: {{ bind: \":1\", pool: p }} }}\npools: {{ p: {{ servers: [\"10.0.0.1:80\"]{written} }} }}\n"
        );
        assert_eq!(snapshot(&yaml).pools[0].capacity_alarm, level, "{written}");
    }
}

#[test]
fn places_of_servers() {
    let yaml = "\
zone: ${ZONE:-eu-1a}
listeners: { l: { bind: \":1\", pool: p } }
pools:
  p:
    zones: { prefer_own: { traffic: 30% } }
    overprovision: 2
    slow_start: 30s
    servers:
      - 10.0.0.1:80
      - { address: \"10.0.0.2:80\", priority: 1, backup: true, zone: eu-1a }
";
    let snapshot = snapshot(yaml);
    let pool = &snapshot.pools[0];
    let prefer = PreferZone {
        zone: "eu-1a".into(),
        traffic: Some(30),
    };
    assert_eq!(
        (pool.prefer_zone.as_ref(), pool.overprovision),
        (Some(&prefer), 2.0)
    );
    let slow = |duration, aggression, floor| balance::SlowStart {
        duration: Duration::from_secs(duration),
        aggression,
        floor,
    };
    assert_eq!(pool.slow_start, Some(slow(30, 1.0, 0.1)));
    let places: Vec<_> = pool
        .servers
        .iter()
        .map(|it| (it.priority, it.backup, it.zone.as_deref()))
        .collect();
    assert_eq!(places, [(0, false, None), (1, true, Some("eu-1a"))]);

    let long = yaml
        .replace("30s", "{ duration: 1m, aggression: 2, floor: 20% }")
        .replace("{ prefer_own: { traffic: 30% } }", "any");
    let pool = &self::snapshot(&long).pools[0];
    assert_eq!(pool.slow_start, Some(slow(60, 2.0, 0.2)));
    assert_eq!(pool.prefer_zone, None);
}

#[test]
fn each_listener_at_port_0_has_a_port_of_its_own() {
    let snapshot = snapshot(
        "listeners:
  a: { bind: ['127.0.0.1:0', '127.0.0.1:0'], pool: p }
  b: { bind: '127.0.0.1:0', pool: p }
pools: { p: { servers: ['10.0.0.1:80'] } }
",
    );
    let binds: std::collections::BTreeSet<_> =
        snapshot.listeners.iter().flat_map(|it| &it.binds).collect();
    assert_eq!(binds.len(), 3, "{binds:?}");
}

#[test]
fn hedging_after_a_percentile() {
    let snapshot = snapshot(
        "listeners: { web: { bind: ':80', routes: [{ hedge: { after: p99.9, at_most: 5ms }, pool: p }] } }
pools: { p: { servers: [a:1], hedge: p95 } }
",
    );
    let pool = &snapshot.pools[0].retries;
    let route = &http(&snapshot.listeners[0]).routes[0].retries[0].1;
    let measured = |policy: &Retries| match policy.hedge {
        Some(Hedge {
            after: HedgeAfter::Measured(measured),
            max: 1,
        }) => measured,
        other => panic!("{other:?}"),
    };
    let (of_pool, of_route) = (measured(pool), measured(route));
    assert_eq!(
        (
            of_pool.percentile.parts(),
            of_pool.of_route,
            of_pool.at_most
        ),
        (9_500, false, None)
    );
    assert_eq!(
        (of_route.percentile.parts(), of_route.of_route),
        (9_990, true)
    );
    let millis = |millis| Some(Duration::from_millis(millis));
    for (measured, found, wait) in [
        (of_pool, None, None),
        (of_pool, millis(40), millis(40)),
        (of_pool, millis(3), millis(10)),
        (of_route, None, millis(5)),
        (of_route, millis(3), millis(5)),
        (of_route, millis(40), millis(5)),
    ] {
        assert_eq!(measured.wait(found), wait);
    }
}
