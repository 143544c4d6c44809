//! Affinity: clients that keep their server, as their cookie jars and the servers see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use testkit::{Evenkeel, Origin, Raw, Response, missing, reply, wait_until};

use crate::http2_support::{DATA, Frames, GET};
use crate::life_support::{SOON, ask, assert_metric, connect, metric, reload, server, start, web};

/// Servers that answer with their own name and what they got of `Cookie`.
pub(crate) fn origins<const N: usize>(names: [&'static str; N]) -> [Origin; N] {
    names.map(|name| {
        Origin::http(move |request| {
            let cookies = request.headers.all("cookie").join(" + ");
            reply(200, format!("{name} {cookies}"))
        })
        .expect("an origin")
    })
}

/// One HTTP listener before the pool `site`, its servers as `(name, address, further keys)`.
pub(crate) fn config(settings: &str, servers: &[(&str, SocketAddr, &str)]) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, address, keys)| format!("{{ name: {name}, address: '{address}', {keys} }}"))
        .collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
workers: 2
listeners:
  web: {{ bind: '127.0.0.1:0', pool: site }}
pools:
  site:
    balance: round_robin
    health_check: off
    {settings}
    servers: [{}]
",
        servers.join(", ")
    )
}

/// A client as a browser is one: it keeps cookies, and sends them back.
pub(crate) struct Browser {
    raw: Raw,
    address: SocketAddr,
    /// `name=value`, in the order in which they came.
    pub(crate) jar: Vec<String>,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            raw: connect(address),
            address,
            jar: Vec::new(),
        }
    }

    /// On another connection from now on.
    pub(crate) fn reconnect(&mut self) {
        self.raw = connect(self.address);
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        let cookies = match self.jar.join("; ") {
            none if none.is_empty() => none,
            jar => format!("Cookie: {jar}\r\n"),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{cookies}\r\n");
        let answer = self.raw.exchange(request).expect("an answer");
        for set in answer.headers.all("set-cookie") {
            let pair = set.split(';').next().unwrap_or_default().to_owned();
            let name = pair.split('=').next().unwrap_or_default().to_owned();
            self.jar
                .retain(|kept| kept.split('=').next() != Some(name.as_str()));
            self.jar.push(pair);
        }
        answer
    }

    /// The name of the server that answers.
    pub(crate) fn server(&mut self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{answer}");
        let text = answer.text();
        text.split(' ').next().unwrap_or_default().to_owned()
    }
}

/// So many requests of what came of their bonds.
pub(crate) fn bindings(evenkeel: &Evenkeel, what: &str) -> f64 {
    metric(evenkeel, &series(what))
}

fn assert_bindings(evenkeel: &Evenkeel, what: &str, count: f64) {
    assert_metric(evenkeel, &series(what), count);
}

fn series(binding: &str) -> String {
    format!("evenkeel_affinity_requests_total{{pool=\"site\",binding=\"{binding}\"}}")
}

#[test]
fn a_cookie_keeps_a_client_at_its_server() {
    let [a, b, c] = origins(["a", "b", "c"]);
    let servers = [
        ("a", a.address(), ""),
        ("b", b.address(), ""),
        ("c", c.address(), ""),
    ];
    let evenkeel = start(&config("affinity: { cookie: SERVERID }", &servers));
    let mut browsers: Vec<_> = (0..6).map(|_| Browser::new(web(&evenkeel))).collect();
    for (at, browser) in browsers.iter_mut().enumerate() {
        let answer = browser.get("/");
        let set = answer.headers.all("set-cookie");
        assert_eq!(set.len(), 1, "{answer}");
        let value = set[0].strip_prefix("SERVERID=").expect(set[0]);
        let (value, attributes) = value.split_once("; ").expect(set[0]);
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(
            value.len(),
            16,
            "nothing of the server's name or address: {value}"
        );
        assert_eq!(answer.header("cache-control"), Some("private"));
        let home = answer.text();
        assert_eq!(
            home,
            format!("{} ", ["a", "b", "c"][at % 3]),
            "the first by round robin"
        );
        browser.jar.insert(0, "theme=dark".to_owned());
        browser.jar.push("lang=de".to_owned());
        for round in 0..5 {
            if round == 2 {
                browser.reconnect();
            }
            let answer = browser.get("/x");
            assert_eq!(answer.headers.all("set-cookie"), [""; 0], "{answer}");
            assert_eq!(answer.header("cache-control"), None);
            assert_eq!(
                answer.text(),
                format!("{home}theme=dark; lang=de"),
                "its own are passed on"
            );
        }
    }
    assert_bindings(&evenkeel, "new", 6.0);
    assert_bindings(&evenkeel, "kept", 30.0);
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three servers, and Evenkeel before them.
fn three(settings: &str) -> ([Origin; 3], Evenkeel) {
    let origins = origins(NAMES);
    let evenkeel = start(&config(settings, &places(&origins)));
    (origins, evenkeel)
}

fn places(origins: &[Origin; 3]) -> [(&'static str, SocketAddr, &'static str); 3] {
    [0, 1, 2].map(|at| (NAMES[at], origins[at].address(), ""))
}

#[test]
fn what_names_no_server_is_replaced_and_of_two_the_first_that_does_counts() {
    let (_origins, evenkeel) = three("affinity: { cookie: { name: S, value: name } }");
    let address = web(&evenkeel);
    for (cookies, servers) in [
        ("S=nobody", &NAMES[..]),
        ("S=", &NAMES),
        ("S=b~", &NAMES),
        ("S=b~s1~s1", &NAMES),
        ("S=B", &NAMES),
        ("s=b", &NAMES),
        ("S=b", &["b"]),
        ("S=\"b\"", &["b"]),
        ("S=nobody; S=c; S=a", &["c"]),
        ("S=c; S=a", &["c"]),
    ] {
        let mut browser = Browser::new(address);
        browser.jar = vec![cookies.to_owned()];
        let answer = browser.get("/");
        let text = answer.text();
        let (server, seen) = text.split_once(' ').expect(&text);
        assert!(servers.contains(&server), "{cookies}: {server}");
        let told = cookies.starts_with("s=");
        assert_eq!(
            seen,
            if told { cookies } else { "" },
            "servers do not see it"
        );
        let set = answer.headers.all("set-cookie");
        match servers {
            [_] => assert_eq!(set, [""; 0], "{cookies}"),
            _ => assert_eq!(set, [format!("S={server}; Path=/; HttpOnly; SameSite=Lax")]),
        }
    }
    assert_bindings(&evenkeel, "foreign", 5.0);
    assert_bindings(&evenkeel, "new", 1.0);
    assert_bindings(&evenkeel, "kept", 4.0);
}

#[test]
fn streams_of_one_connection_are_bound_each_by_its_own_cookie() {
    let (_origins, evenkeel) = three("affinity: { cookie: { name: S, value: name } }");
    let mut frames = Frames::connect(web(&evenkeel));
    let names = ["a", "b", "c", "c", "b", "a", "b", "b", "c"];
    for (stream, name) in (1..).step_by(2).zip(names) {
        // Browsers send each cookie as a field of its own (RFC 9113 §8.2.3).
        let cookie = format!("S={name}");
        let cookies = [("cookie", "theme=dark"), ("cookie", &*cookie)];
        frames.request(stream, &[GET, &cookies].concat(), true);
    }
    let mut bodies: BTreeMap<u32, String> = BTreeMap::new();
    let mut ended = 0;
    while ended < names.len() {
        let frame = frames.next().expect("an answer to each");
        if frame.kind == DATA {
            let body = bodies.entry(frame.stream).or_default();
            body.push_str(&String::from_utf8_lossy(&frame.payload));
        }
        ended += usize::from(frame.ends_stream());
    }
    let servers: Vec<_> = bodies.into_values().collect();
    assert_eq!(servers, names.map(|name| format!("{name} theme=dark")));
    assert_bindings(&evenkeel, "kept", names.len() as f64);
}

#[test]
fn a_cookie_that_ends_is_given_anew_and_an_old_one_is_not_believed() {
    let (_origins, evenkeel) = three(
        "affinity: { cookie: { value: name, max_age: 2h, indirect: false, no_cache: false } }",
    );
    let mut browser = Browser::new(web(&evenkeel));
    let first = browser.get("/");
    let set = first.header("set-cookie").expect("a cookie");
    assert!(
        set.contains("~t") && set.contains("; Max-Age=7200;"),
        "{set}"
    );
    assert_eq!(first.header("cache-control"), None);
    let value = browser.jar[0].clone();
    let second = browser.get("/");
    assert_eq!(second.header("set-cookie"), None);
    assert!(
        second.text().ends_with(&value),
        "the server sees it: {}",
        second.text()
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    for (age, servers, renewed) in [
        (3000, &["b"][..], false),
        (3700, &["b"], true),
        (7300, &NAMES, true),
        // Clocks of nodes differ; what is of tomorrow would never end.
        (-60, &["b"], false),
        (-3600, &NAMES, true),
        (i64::MIN / 2, &NAMES, true),
    ] {
        let given = now.checked_add_signed(-age).expect("a time");
        browser.jar = vec![format!("SERVERID=b~t{given:x}")];
        let answer = browser.get("/");
        let text = answer.text();
        assert!(
            servers.contains(&text.split(' ').next().unwrap_or_default()),
            "{age}: {text}"
        );
        assert_eq!(answer.header("set-cookie").is_some(), renewed, "{age}");
    }
}

#[test]
fn a_reload_that_takes_a_server_away_and_back_loses_its_clients_alone() {
    let (origins, evenkeel) = three("affinity: { cookie: SERVERID }");
    let all = places(&origins);
    let mut browsers: Vec<_> = (0..6).map(|_| Browser::new(web(&evenkeel))).collect();
    let mut homes: Vec<_> = browsers.iter_mut().map(|it| it.server("/")).collect();
    let settings = "affinity: { cookie: SERVERID }";
    // Weights, order and one more server change nothing for who is bound.
    let heavy = [
        ("c", all[2].1, "weight: 9"),
        ("b", all[1].1, ""),
        ("a", all[0].1, "weight: 3"),
    ];
    reload(&evenkeel, &config(settings, &heavy));
    for (browser, home) in browsers.iter_mut().zip(&homes) {
        assert_eq!(browser.server("/"), *home);
    }
    // One of b's clients does not come while b is away.
    let away = homes
        .iter()
        .position(|home| home == "b")
        .expect("a client of b");
    reload(&evenkeel, &config(settings, &[all[0], all[2]]));
    for (at, (browser, home)) in browsers.iter_mut().zip(&mut homes).enumerate() {
        if at == away {
            continue;
        }
        let server = browser.server("/");
        assert!(home == "b" || server == *home, "{home} -> {server}");
        *home = server;
    }
    reload(&evenkeel, &config(settings, &all));
    for (browser, home) in browsers.iter_mut().zip(&homes) {
        assert_eq!(
            browser.server("/"),
            *home,
            "who was bound to b and stayed away is with b again"
        );
    }
}

#[test]
fn required_refuses_where_preferred_moves() {
    for (strength, expected) in [("preferred", 200), ("required", 503)] {
        let (_origins, evenkeel) = three(&format!(
            "affinity: {{ cookie: {{ strength: {strength} }} }}"
        ));
        let mut browser = Browser::new(web(&evenkeel));
        let home = browser.server("/");
        let done = ask(&evenkeel, &["server", "disable", "site", &home]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let answer = browser.get("/");
        assert_eq!(answer.status, expected, "{answer}");
        if expected == 200 {
            let other = answer.text();
            assert!(!other.starts_with(&home) && answer.header("set-cookie").is_some());
            assert_bindings(&evenkeel, "moved", 1.0);
            ask(&evenkeel, &["server", "enable", "site", &home]);
            assert_eq!(
                browser.get("/").text(),
                other,
                "its new server is its server"
            );
        } else {
            assert_eq!(
                answer.header("x-evenkeel-reason"),
                Some("affinity_server_unavailable")
            );
            assert_eq!(answer.header("set-cookie"), None);
            assert_bindings(&evenkeel, "refused", 1.0);
            ask(&evenkeel, &["server", "enable", "site", &home]);
            assert_eq!(browser.server("/"), home);
        }
    }
}

#[test]
fn a_dead_server_moves_its_clients_and_a_failed_answer_does_not() {
    let (mut origins, evenkeel) =
        three("affinity: { cookie: SERVERID }\n    outlier_detection: off");
    let mut browser = Browser::new(web(&evenkeel));
    let home = browser.server("/");
    let at = NAMES
        .iter()
        .position(|name| *name == home)
        .expect("one of them");
    origins[at].stop();
    let other = browser.server("/");
    assert_ne!(other, home);
    for _ in 0..3 {
        assert_eq!(browser.server("/"), other);
    }
    // A server that answers badly once is asked again.
    let flaky = Origin::http(|request| match request.target.as_str() {
        "/bad" => reply(503, "flaky "),
        _ => reply(200, "flaky "),
    });
    let flaky = flaky.expect("an origin");
    let settings = "affinity: { cookie: { value: name } }\n    retries: { attempts: 2, on: [503], budget: 100% }";
    let [_, good, _] = places(&origins);
    let evenkeel = start(&config(settings, &[("flaky", flaky.address(), ""), good]));
    let mut browser = Browser::new(web(&evenkeel));
    browser.jar = vec!["SERVERID=flaky".to_owned()];
    assert_eq!(browser.server("/bad"), good.0, "another one answers");
    assert_eq!(browser.jar, ["SERVERID=flaky"], "the bond stays");
    assert_eq!(browser.server("/"), "flaky");
    assert_bindings(&evenkeel, "strayed", 1.0);
}

#[test]
fn headers_addresses_and_hashes_bind_too() {
    let (_origins, evenkeel) = three("affinity: { header: X-Session-Server }");
    let ask_with = |evenkeel: &Evenkeel, header: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
        let answer = connect(web(evenkeel)).exchange(request).expect("an answer");
        assert_eq!(
            (answer.status, answer.header("set-cookie")),
            (200, None),
            "{answer}"
        );
        answer.text().trim().to_owned()
    };
    for name in ["c", "a", "b", "c"] {
        assert_eq!(
            ask_with(&evenkeel, &format!("x-session-server: {name}")),
            name
        );
    }
    for affinity in [
        "{ hash: { header: X-User } }",
        "{ header: { name: X-User, mode: hash } }",
    ] {
        let (_origins, evenkeel) = three(&format!("affinity: {affinity}"));
        let mut seen = std::collections::BTreeSet::new();
        for user in 0..30 {
            let header = format!("X-User: {user}");
            let home = ask_with(&evenkeel, &header);
            assert_eq!(ask_with(&evenkeel, &header), home, "{affinity}");
            seen.insert(home);
        }
        assert_eq!(seen.len(), 3, "they are spread: {seen:?}");
    }
    let (_origins, evenkeel) = three("affinity: source");
    let home = ask_with(&evenkeel, "X: y");
    for _ in 0..10 {
        assert_eq!(ask_with(&evenkeel, "X: y"), home);
    }
    // A request is counted a moment after its answer is there.
    wait_until("all are counted", SOON, || {
        bindings(&evenkeel, "kept") == 11.0
    })
    .expect("all are counted");
}

#[test]
fn a_backup_has_no_clients_by_hash_while_anybody_else_serves() {
    let origins = origins(NAMES);
    let mut servers = places(&origins);
    servers[2].2 = "backup: true";
    let affinity = "affinity: { hash: { header: X-User } }";
    let evenkeel = start(&config(affinity, &servers));
    let mut raw = connect(web(&evenkeel));
    let mut homes = || -> Vec<String> {
        let mut home = |user: u32| {
            let request = format!("GET / HTTP/1.1\r\nHost: shop.example\r\nX-User: {user}\r\n\r\n");
            let answer = raw.exchange(request).expect("an answer");
            answer.text().trim().to_owned()
        };
        (0..60).map(&mut home).collect()
    };
    let operate = |args: &[&str]| {
        let done = ask(&evenkeel, &[&["server"], args].concat());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    };
    let count = |homes: &[String], name| homes.iter().filter(|home| *home == name).count();
    let well = homes();
    assert_eq!(count(&well, "c"), 0, "{well:?}");
    assert!((15..=45).contains(&count(&well, "a")), "{well:?}");
    let only = |homes: Vec<String>, name| homes.iter().all(|home| home == name);
    operate(&["disable", "site", "a"]);
    wait_until("b has all of them", SOON, || only(homes(), "b")).expect("b alone");
    operate(&["disable", "site", "b", "--force"]);
    wait_until("the backup serves", SOON, || only(homes(), "c")).expect("c alone");
    for name in ["a", "b"] {
        operate(&["enable", "site", name]);
    }
    wait_until("each is back", SOON, || homes() == well).expect("as before");
}

#[test]
fn connections_of_tcp_are_bound_by_their_source() {
    let origins = origins(NAMES);
    let text = config("affinity: source", &places(&origins)).replace(
        "web: { bind: '127.0.0.1:0',",
        "web: { bind: '127.0.0.1:0', protocol: tcp,",
    ) + "access_log: stdout\n";
    let evenkeel = start(&text);
    let server = || {
        let answer = connect(web(&evenkeel)).get("/").expect("an answer");
        answer.text().trim().to_owned()
    };
    let home = server();
    for _ in 0..10 {
        assert_eq!(server(), home);
    }
    wait_until("the lines say so", SOON, || {
        evenkeel
            .log()
            .matches("\"affinity\":\"source\",\"binding\":\"kept\"")
            .count()
            == 11
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    let done = ask(&evenkeel, &["server", "disable", "site", &home]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let other = server();
    assert_ne!(other, home);
    assert_eq!(server(), other);
}

#[test]
fn a_split_remembers_its_users_and_moves_as_many_as_it_must() {
    let [old, new] = origins(["old", "new"]);
    let text = |weights: &str| {
        format!(
            "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', routes: [{{ split: {{ {weights} }} }}] }}
pools:
  old: {{ servers: [{{ name: a, address: '{}' }}], health_check: off, affinity: cookie }}
  new: {{ servers: [{{ name: a, address: '{}' }}], health_check: off, affinity: cookie }}
",
            old.address(),
            new.address()
        )
    };
    let evenkeel = start(&text("old: 50, new: 50"));
    let mut browsers: Vec<_> = (0..100).map(|_| Browser::new(web(&evenkeel))).collect();
    let mut arms: Vec<_> = browsers.iter_mut().map(|it| it.server("/")).collect();
    let count = |arms: &[String]| arms.iter().filter(|arm| *arm == "new").count();
    assert!((20..80).contains(&count(&arms)), "{}", count(&arms));
    let mut step = |weights: &str, arms: &mut Vec<String>| {
        reload(&evenkeel, &text(weights));
        let mut moved = 0;
        for (browser, arm) in browsers.iter_mut().zip(arms) {
            let now = browser.server("/");
            assert_eq!(browser.server("/"), now, "nobody is flipped back and forth");
            if now != *arm {
                assert_eq!(now, "new", "the growing arm alone gains");
                moved += 1;
            }
            *arm = now;
        }
        moved
    };
    assert_eq!(step("new: 1, old: 1", &mut arms), 0, "the same shares");
    let moved = step("old: 25, new: 75", &mut arms);
    assert!((5..50).contains(&moved), "about a quarter: {moved}");
    let left = arms.len() - count(&arms);
    assert_eq!(
        step("old: 0, new: 1", &mut arms),
        left,
        "an arm at 0 has nobody"
    );
}

#[test]
fn a_rolling_deploy_moves_each_user_only_off_servers_that_go() {
    const USERS: usize = 500;
    let settings = "affinity: { cookie: { value: name } }\n    drain: { timeout: 1s }";
    let (mut origins, evenkeel) = three(settings);
    let address = web(&evenkeel);
    let mut users: Vec<(Browser, String, u32)> = (0..USERS)
        .map(|_| {
            let mut browser = Browser::new(address);
            let home = browser.server("/");
            (browser, home, 0)
        })
        .collect();
    for at in 0..3 {
        let name = NAMES[at];
        let drained = ask(&evenkeel, &["server", "drain", "site", name]);
        assert_eq!(
            drained.code,
            Some(0),
            "{}{}",
            drained.text(),
            drained.stderr
        );
        assert!(drained.text().contains("0 new picks"), "{}", drained.text());
        origins[at].stop();
        for (browser, home, moves) in &mut users {
            let server = browser.server("/");
            if server != *home {
                assert_eq!(home, name, "only who was with {name} moves");
                *moves += 1;
                *home = server;
            }
            assert_ne!(*home, name);
        }
        origins[at] = Origin::http(move |request| {
            let cookies = request.headers.all("cookie").join(" + ");
            reply(200, format!("{name} {cookies}"))
        })
        .expect("an origin");
        let names = [0, 1, 2].map(|it| (NAMES[it], origins[it].address(), ""));
        reload(&evenkeel, &config(settings, &names));
        ask(&evenkeel, &["server", "enable", "site", name]);
        for (browser, home, _) in &mut users {
            assert_eq!(
                browser.server("/"),
                *home,
                "nobody moves because a server comes"
            );
        }
    }
    let most = users.iter().map(|(.., moves)| *moves).max();
    assert!(most <= Some(3), "{most:?}");
}

#[test]
fn users_who_come_all_the_while_lose_nothing_by_a_drain() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::{Arc, Barrier};

    let (_origins, evenkeel) = three("affinity: { cookie: SERVERID }\n    drain: { timeout: 2s }");
    let address = web(&evenkeel);
    let stops = Arc::new(AtomicBool::new(false));
    let (began, users) = (Arc::new(Barrier::new(13)), 0..12);
    let users: Vec<_> = users
        .map(|_| {
            let (stops, began) = (stops.clone(), began.clone());
            std::thread::spawn(move || {
                let mut browser = Browser::new(address);
                let mut homes = vec![browser.server("/")];
                began.wait();
                // Anything but an answer of a server panics.
                while !stops.load(SeqCst) {
                    let server = browser.server("/");
                    if homes.last() != Some(&server) {
                        homes.push(server);
                    }
                }
                homes
            })
        })
        .collect();
    began.wait();
    let drained = ask(&evenkeel, &["server", "drain", "site", "a"]);
    stops.store(true, SeqCst);
    let text = drained.text();
    assert_eq!(drained.code, Some(0), "{text}{}", drained.stderr);
    assert!(text.contains("0 new picks"), "{text}");
    assert!(text.contains("0 cut"), "{text}");
    for user in users {
        let homes = user.join().expect("no request was lost");
        let moved = homes.len() - 1;
        assert!(moved <= usize::from(homes[0] == "a"), "{homes:?}");
    }
}

#[test]
fn curl_keeps_it_in_its_jar() {
    if missing("curl") {
        return;
    }
    let (_origins, evenkeel) = three("affinity: { cookie: SERVERID }");
    let jar = evenkeel.dir().path().join("jar");
    let jar = jar.to_str().expect("UTF-8");
    let url = format!("http://{}/", web(&evenkeel));
    let get = || {
        let answer = testkit::curl(&["-b", jar, "-c", jar, &url]).expect("an answer");
        (answer.text(), answer.header("set-cookie").is_some())
    };
    let (home, set) = get();
    assert!(set);
    for _ in 0..5 {
        assert_eq!(get(), (home.clone(), false));
    }
    let kept = std::fs::read_to_string(jar).expect("a jar");
    let line = kept
        .lines()
        .find(|line| line.contains("SERVERID"))
        .expect(&kept);
    assert!(
        line.starts_with("#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t0\t"),
        "{line}"
    );
}

#[test]
fn the_line_of_a_websocket_says_what_binds_it() {
    let socket = Origin::start(|peer| {
        peer.read_request()?;
        peer.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let said = peer.read_exactly(4)?;
        peer.write(said)?;
        peer.read_to_end()?;
        Ok(())
    })
    .expect("an origin");
    let text = config(
        "affinity: { cookie: SERVERID }",
        &[("a", socket.address(), "")],
    );
    let text = text.replace("pool: site }", "pool: site, upgrades: [websocket] }");
    let evenkeel = start(&(text + "access_log: stdout\n"));
    let mut client = connect(web(&evenkeel));
    let answer = client
        .exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .expect("an answer");
    assert_eq!(answer.status, 101, "{answer}");
    assert!(answer.header("set-cookie").is_some(), "{answer}");
    client.send("ping").expect("sent");
    assert_eq!(client.read_exactly(4).expect("read"), b"ping");
    drop(client);
    wait_until("the line says so", SOON, || {
        evenkeel
            .log()
            .contains("\"affinity\":\"cookie\",\"binding\":\"new\"")
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
}

#[test]
fn a_full_server_is_waited_for_while_others_serve_others() {
    let held = std::sync::Arc::new(std::sync::Barrier::new(2));
    let gate = held.clone();
    let slow = Origin::http(move |request| {
        if request.target == "/slow" {
            gate.wait();
        }
        reply(200, "slow ")
    })
    .expect("an origin");
    let [other] = origins(["other"]);
    let servers = [
        ("slow", slow.address(), "max_connections: 1"),
        ("other", other.address(), ""),
    ];
    let evenkeel = start(&config(
        "affinity: { cookie: { value: name, queue_wait: 10s } }",
        &servers,
    ));
    let bound = || {
        let mut browser = Browser::new(web(&evenkeel));
        browser.jar = vec!["SERVERID=slow".to_owned()];
        browser
    };
    let (mut first, mut second) = (bound(), bound());
    std::thread::scope(|scope| {
        let first = scope.spawn(move || first.server("/slow"));
        wait_until("the first is there", SOON, || {
            server(&evenkeel, "site", "slow")["active"] == 1
        })
        .expect("it is");
        let second = scope.spawn(move || second.server("/"));
        wait_until("the second waits", SOON, || {
            metric(&evenkeel, "evenkeel_queue_length") == 1.0
        })
        .expect("it does");
        for _ in 0..4 {
            assert_eq!(Browser::new(web(&evenkeel)).server("/"), "other");
        }
        held.wait();
        assert_eq!(first.join().expect("it ended"), "slow");
        assert_eq!(second.join().expect("it ended"), "slow");
    });
    assert_bindings(&evenkeel, "kept", 2.0);
}
