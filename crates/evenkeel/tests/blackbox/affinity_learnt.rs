//! Sessions that the application itself tells apart stay with the server that began them: by what is learnt from its
//! answers, over reloads, upgrades, drains and failures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use testkit::http2::{END_STREAM, Frame, kind};
use testkit::{Evenkeel, Origin, wait_until};

use crate::life_support::{
    SOON, admin_get, ask, assert_metric, connect, list, metric, reload, site, start, wait_all, web,
};
use crate::upgrade::upgrade;

/// A server with sessions in its own memory, as one that runs servlets: who comes without one is given one; one that
/// another server has given is not known here.
struct App {
    origin: Origin,
}

impl App {
    fn start(name: &'static str) -> Self {
        let sessions: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let count = AtomicU32::new(0);
        let origin = Origin::http(move |request| {
            let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let cookies = request.headers.all("cookie").join("; ");
            let cookie = cookies
                .split("; ")
                .find_map(|it| it.strip_prefix("JSESSIONID="));
            let in_path = request.target.split(";jsessionid=").nth(1);
            let given = cookie.or(in_path);
            let known = given.is_some_and(|id| sessions.contains(id));
            let mut more = String::new();
            if !known && request.target != "/health" {
                let id = format!("{:04}-{name}", count.fetch_add(1, Relaxed));
                more = format!("Set-Cookie: JSESSIONID={id}; Path=/; HttpOnly\r\n");
                sessions.insert(id);
            }
            let body = match (given, known) {
                (None, _) => "new",
                (Some(_), true) => "known",
                (Some(_), false) => "lost",
            };
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\nX-Server: {name}\r\n{more}Content-Length: {length}\r\n\r\n{body}")
                .into_bytes()
        });
        let origin = origin.expect("an origin");
        Self { origin }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }
}

fn apps<const N: usize>(names: [&'static str; N]) -> [App; N] {
    names.map(App::start)
}

/// A browser: it keeps the cookie that it was given, and comes on a new connection each time.
#[derive(Default)]
struct Browser {
    session: Option<String>,
}

/// Who answered, and whether the session was `new`, `known` or `lost` there.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    server: String,
    session: String,
}

impl Browser {
    fn get(&mut self, address: SocketAddr, target: &str) -> Seen {
        let cookie = self.session.as_ref();
        let cookie = cookie.map_or_else(String::new, |id| {
            format!("Cookie: x=1; JSESSIONID={id}\r\n")
        });
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: shop\r\n{cookie}Connection: close\r\n\r\n");
        let answer = connect(address).exchange(request).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let set = answer.headers.all("set-cookie");
        assert!(set.len() <= 1, "no cookie but the application's: {set:?}");
        if let Some(set) = set.first() {
            let value = set.strip_prefix("JSESSIONID=").expect("its cookie");
            self.session = value.split(';').next().map(str::to_owned);
        }
        Seen {
            server: answer.header("x-server").expect("a server").to_owned(),
            session: answer.text(),
        }
    }
}

fn shop(apps: &[App], affinity: &str) -> String {
    let addresses: Vec<SocketAddr> = apps.iter().map(App::address).collect();
    site(
        &addresses,
        &format!("balance: round_robin, affinity: {affinity}"),
    )
}

const COOKIE: &str = "{ app_cookie: JSESSIONID }";

fn start_shop(apps: &[App], affinity: &str) -> Evenkeel {
    let evenkeel = start(&shop(apps, affinity));
    let addresses: Vec<SocketAddr> = apps.iter().map(App::address).collect();
    wait_all(&evenkeel, &addresses, "healthy");
    evenkeel
}

/// So many browsers with a session each, by their server.
fn visitors(evenkeel: &Evenkeel, count: usize) -> Vec<(Browser, String)> {
    let come = |_| {
        let mut browser = Browser::default();
        let seen = browser.get(web(evenkeel), "/");
        assert_eq!(seen.session, "new");
        (browser, seen.server)
    };
    (0..count).map(come).collect()
}

/// Every one of them finds its session where it began.
fn assert_known(evenkeel: &Evenkeel, visitors: &mut [(Browser, String)]) {
    for (browser, server) in visitors {
        let seen = browser.get(web(evenkeel), "/cart");
        assert_eq!((seen.session.as_str(), &seen.server), ("known", &*server));
    }
}

fn table(evenkeel: &Evenkeel, query: &str) -> Value {
    let text = admin_get(evenkeel, &format!("/api/v1/pools/site/affinity{query}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn entries(evenkeel: &Evenkeel) -> u64 {
    table(evenkeel, "")["entries"].as_u64().expect("entries")
}

#[test]
fn sessions_stay_where_they_began() {
    let apps = apps(["a", "b", "c"]);
    let evenkeel = start_shop(&apps, COOKIE);
    let mut all = visitors(&evenkeel, 30);
    let servers: BTreeSet<&String> = all.iter().map(|(_, server)| server).collect();
    assert_eq!(servers.len(), 3, "new ones are spread");
    for _ in 0..3 {
        assert_known(&evenkeel, &mut all);
    }
    let count = |event: &str| {
        let series = format!("evenkeel_affinity_learnt_total{{pool=\"site\",event=\"{event}\"}}");
        metric(&evenkeel, &series)
    };
    assert_eq!(
        (count("learnt"), count("moved"), count("evicted")),
        (30.0, 0.0, 0.0)
    );
    assert_metric(&evenkeel, "evenkeel_affinity_entries{", 30.0);
    // A session that nobody here has given is anybody's.
    let mut stranger = Browser {
        session: Some("9999-z".to_owned()),
    };
    assert_eq!(stranger.get(web(&evenkeel), "/").session, "lost");
    assert_eq!(stranger.get(web(&evenkeel), "/").session, "known");
}

#[test]
fn clients_without_cookies_carry_their_session_in_the_path() {
    let apps = apps(["a", "b", "c"]);
    let evenkeel = start_shop(&apps, COOKIE);
    for (browser, server) in visitors(&evenkeel, 9) {
        let id = browser.session.expect("a session");
        for _ in 0..3 {
            let target = format!("/cart;jsessionid={id}");
            let seen = Browser::default().get(web(&evenkeel), &target);
            assert_eq!(
                (seen.session.as_str(), seen.server),
                ("known", server.clone())
            );
        }
    }
}

#[test]
fn bindings_outlive_reloads_and_find_a_server_that_comes_back() {
    let apps = apps(["a", "b", "c"]);
    let evenkeel = start_shop(&apps, COOKIE);
    let mut all = visitors(&evenkeel, 12);
    // Nothing of the pool changes.
    reload(&evenkeel, &shop(&apps, COOKIE));
    assert_known(&evenkeel, &mut all);
    // The table grows, and an entry lasts longer.
    let larger = "{ app_cookie: { name: JSESSIONID, entries: 500, expire: 1h } }";
    reload(&evenkeel, &shop(&apps, larger));
    assert_known(&evenkeel, &mut all);
    assert_eq!(table(&evenkeel, "")["entries_max"], 500);
    // One server leaves: its clients that come meanwhile move, the others stay.
    reload(&evenkeel, &shop(&apps[..2], larger));
    let (mut left, mut stay): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, server)| server == "c");
    assert_eq!(left.len(), 4);
    assert_known(&evenkeel, &mut stay);
    let (browser, _) = &mut left[0];
    let seen = browser.get(web(&evenkeel), "/");
    assert_eq!(seen.session, "lost");
    left[0].1 = seen.server;
    // It comes back: who was not here in between finds it, who moved stays where it is now.
    reload(&evenkeel, &shop(&apps, larger));
    wait_all(&evenkeel, &[apps[2].address()], "healthy");
    assert_known(&evenkeel, &mut left);
    assert_known(&evenkeel, &mut stay);
}

#[test]
fn bindings_go_on_in_the_next_process() {
    let apps = apps(["a", "b", "c"]);
    let mut evenkeel = start_shop(&apps, COOKIE);
    let mut all = visitors(&evenkeel, 30);
    let mut newest = Vec::new();
    let learnt = |evenkeel: &Evenkeel| table(evenkeel, "")["learnt"].clone();
    assert_eq!(learnt(&evenkeel), 30);
    for _ in 0..2 {
        let mark = evenkeel.mark();
        newest.push(upgrade(&mut evenkeel, &[]));
        assert_known(&evenkeel, &mut all);
        assert_eq!(entries(&evenkeel), 30);
        assert_eq!(learnt(&evenkeel), 30);
        evenkeel
            .wait_log_after(mark, "the process before this one has drained", SOON)
            .expect("a line");
    }
    assert_metric(
        &evenkeel,
        "evenkeel_affinity_learnt_total{pool=\"site\",event=\"learnt\"",
        30.0,
    );
}

#[test]
fn what_is_unused_for_long_enough_is_forgotten() {
    let apps = apps(["a", "b"]);
    let evenkeel = start_shop(&apps, "{ app_cookie: { name: JSESSIONID, expire: 1s } }");
    let _gone = visitors(&evenkeel, 6);
    assert!(entries(&evenkeel) > 0);
    wait_until("all are forgotten", SOON, || entries(&evenkeel) == 0).expect("forgotten");
    let expired = "evenkeel_affinity_learnt_total{pool=\"site\",event=\"expired\"";
    assert_metric(&evenkeel, expired, 6.0);
}

#[test]
fn a_full_table_forgets_the_oldest_and_serves_the_newest() {
    let apps = apps(["a", "b"]);
    let evenkeel = start_shop(&apps, "{ app_cookie: { name: JSESSIONID, entries: 10 } }");
    let mut all = visitors(&evenkeel, 60);
    assert_eq!(entries(&evenkeel), 10);
    let evicted = "evenkeel_affinity_learnt_total{pool=\"site\",event=\"evicted\"";
    assert_metric(&evenkeel, evicted, 50.0);
    assert_known(&evenkeel, all.split_at_mut(59).1);
}

#[test]
fn the_table_is_listed_and_forgotten_by_api_and_command() {
    let apps = apps(["a", "b"]);
    let evenkeel = start_shop(&apps, COOKIE);
    let all = visitors(&evenkeel, 7);
    let ours = |name: &str| all.iter().filter(|(_, server)| server == name).count();
    let name_of = |app: &App| app.address().to_string();
    // Page by page, each once.
    let (mut keys, mut from) = (BTreeMap::new(), 0);
    loop {
        let page = table(&evenkeel, &format!("?limit=3&from={from}"));
        let bindings = page["bindings"].as_array().expect("bindings");
        assert!(bindings.len() <= 3);
        for it in bindings {
            let key = it["key"].as_str().expect("a key").to_owned();
            let server = it["server"].as_str().expect("a server").to_owned();
            assert_eq!(keys.insert(key, server), None);
        }
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    let of_a = keys.values().filter(|it| **it == name_of(&apps[0])).count();
    assert_eq!((keys.len(), of_a), (7, ours("a")));
    let text = admin_get(&evenkeel, "/api/v1/pools/site/affinity");
    let session = all[0].0.session.as_ref().expect("a session");
    assert!(!text.contains(session), "a session is a secret: {text}");
    // One is looked up, and forgotten, by what it is known by.
    let found = table(&evenkeel, &format!("?value={session}"));
    assert_eq!(
        found["bindings"].as_array().map(Vec::len),
        Some(1),
        "{found}"
    );
    let shown = ask(&evenkeel, &["affinity", "list", "site"]).text();
    assert!(
        shown.contains("app_cookie JSESSIONID: 7 of 100000"),
        "{shown}"
    );
    let forget = |what: &[&str], count: usize, left: u64| {
        let finished = ask(&evenkeel, &[&["affinity", "forget", "site"], what].concat());
        let text = finished.text();
        assert!(
            text.starts_with(&format!("{count} binding")),
            "{what:?}: {text} {}",
            finished.stderr
        );
        assert_eq!(entries(&evenkeel), left);
    };
    forget(&["--value", session], 1, 6);
    forget(&["--value", session], 0, 6);
    let key = keys.keys().find(|key| {
        let page = table(&evenkeel, "");
        let mut shown = page["bindings"].as_array().expect("bindings").iter();
        shown.any(|it| it["key"] == **key && it["server"] == name_of(&apps[0]))
    });
    forget(&["--key", key.expect("one of a")], 1, 5);
    let page = table(&evenkeel, &format!("?server={}", name_of(&apps[1])));
    let of_b = page["bindings"].as_array().map_or(0, Vec::len);
    forget(&["--server", &name_of(&apps[1])], of_b, 5 - of_b as u64);
    forget(&["--all"], 5 - of_b, 0);
    for (args, part) in [
        (["forget", "other", "--all"].as_slice(), "no pool `other`"),
        (&["list", "site", "--server", "zz"], "no server `zz`"),
    ] {
        let wrong = ask(&evenkeel, &[&["affinity"], args].concat());
        assert_eq!(wrong.code, Some(1), "{}", wrong.text());
        assert!(wrong.stderr.contains(part), "{}", wrong.stderr);
    }
    let a = name_of(&apps[0]);
    let known = ask(&evenkeel, &["affinity", "list", "site", "--server", &a]);
    assert_eq!(known.code, Some(0), "{}", known.stderr);
}

#[test]
fn a_drain_keeps_bound_clients_or_moves_them() {
    let apps = apps(["a", "b"]);
    let name = apps[0].address().to_string();
    for (on_drain, kept) in [("keep", true), ("move", false)] {
        let affinity = format!("{{ app_cookie: {{ name: JSESSIONID, on_drain: {on_drain} }} }}");
        let evenkeel = start_shop(&apps, &affinity);
        let mut all = visitors(&evenkeel, 6);
        // By the API alone: the command would wait for the drain's end.
        let state = r#"{"state":"drain","force":true}"#;
        let length = state.len();
        let mut admin = connect(evenkeel.admin().expect("an admin address"));
        let answer = admin
            .exchange(format!(
                "PATCH /api/v1/pools/site/servers/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{state}"
            ))
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        for (browser, server) in &mut all {
            let seen = browser.get(web(&evenkeel), "/");
            let stays = kept || server == "b";
            let expected = if stays {
                ("known", server.as_str())
            } else {
                ("lost", "b")
            };
            assert_eq!((seen.session.as_str(), seen.server.as_str()), expected);
        }
        // Nobody new comes to it.
        for _ in 0..4 {
            assert_eq!(Browser::default().get(web(&evenkeel), "/").server, "b");
        }
    }
}

#[test]
fn a_server_that_dies_loses_its_clients_to_another_for_good() {
    let [mut a, b] = apps(["a", "b"]);
    let config = {
        let addresses = [a.address(), b.address()];
        site(
            &addresses,
            &format!("balance: round_robin, affinity: {COOKIE}"),
        )
    };
    let evenkeel = start(&config);
    wait_all(&evenkeel, &[a.address(), b.address()], "healthy");
    let mut all = visitors(&evenkeel, 6);
    a.origin.stop();
    for (browser, server) in &mut all {
        let seen = browser.get(web(&evenkeel), "/");
        assert_eq!(seen.server, "b");
        assert_eq!(seen.session == "known", server == "b");
        *server = seen.server;
    }
    assert_known(&evenkeel, &mut all);
}

/// Answers with its name, and where it is asked to, with a token of its own.
fn named(name: &'static str) -> Origin {
    let count = AtomicU32::new(0);
    Origin::http(move |request| {
        let token = format!("{name}{}", count.fetch_add(1, Relaxed));
        let more = match request.target.as_str() {
            "/login" => format!("X-Token: {token}\r\n"),
            _ => String::new(),
        };
        let length = name.len();
        format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n{name}").into_bytes()
    })
    .expect("an origin")
}

fn get(address: SocketAddr, target: &str, header: &str) -> testkit::Response {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n");
    connect(address).exchange(request).expect("an answer")
}

#[test]
fn the_value_of_a_header_is_learnt_from_requests_and_from_answers() {
    let servers = [named("a"), named("b"), named("c")];
    let addresses = servers.each_ref().map(Origin::address);
    let affinity = "affinity: { header: { name: X-Token, mode: learn } }";
    let evenkeel = start(&site(
        &addresses,
        &format!("balance: round_robin, {affinity}"),
    ));
    wait_all(&evenkeel, &addresses, "healthy");
    let mut used = BTreeSet::new();
    for turn in 0..6 {
        // The client names itself: where it came to first, it stays.
        let header = format!("x-token: client-{turn}\r\n");
        let first = get(web(&evenkeel), "/", &header).text();
        for _ in 0..4 {
            assert_eq!(get(web(&evenkeel), "/", &header).text(), first);
        }
        used.insert(first);
        // The server names it.
        let login = get(web(&evenkeel), "/login", "");
        let token = login.header("x-token").expect("a token").to_owned();
        for _ in 0..4 {
            let answer = get(web(&evenkeel), "/", &format!("X-Token: {token}\r\n"));
            assert!(
                token.starts_with(&answer.text()),
                "{token} at {}",
                answer.text()
            );
        }
    }
    assert!(used.len() > 1, "{used:?}");
}

/// A server of HTTP/2 that names a session, and a client, in each answer; it says its own name.
fn named_http2(name: &'static str) -> Origin {
    let count = AtomicU32::new(0);
    let origin = Origin::start(move |conn| {
        conn.greet(&[])?;
        while let Some(stream) = conn.next_stream()? {
            let id = format!("{name}-{}", count.fetch_add(1, Relaxed));
            let cookie = format!("JSESSIONID={id}; Path=/");
            let fields = [("set-cookie", &*cookie), ("x-token", &*id)];
            conn.send(Frame::headers(stream, 200, &fields))?;
            conn.send(Frame::new(kind::DATA, stream, name).with(END_STREAM))?;
        }
        Ok(())
    });
    origin.expect("an origin")
}

#[test]
fn what_servers_of_http2_answer_is_learnt_too() {
    let servers = [named_http2("a"), named_http2("b"), named_http2("c")];
    let addresses = servers.each_ref().map(Origin::address);
    for (affinity, field) in [
        ("{ app_cookie: JSESSIONID }", "set-cookie"),
        ("{ header: { name: X-Token, mode: learn } }", "x-token"),
    ] {
        let settings =
            format!("balance: round_robin, health_check: off, http: 2, affinity: {affinity}");
        let evenkeel = start(&site(&addresses, &settings));
        let mut used = BTreeSet::new();
        for _ in 0..6 {
            let first = get(web(&evenkeel), "/", "");
            let named = first.header(field).expect("a name").to_owned();
            let header = match field {
                "set-cookie" => format!("Cookie: {named}\r\n"),
                _ => format!("X-Token: {named}\r\n"),
            };
            for _ in 0..4 {
                let again = get(web(&evenkeel), "/", &header);
                assert_eq!(again.text(), first.text(), "{affinity}: {named}");
            }
            used.insert(first.text());
        }
        assert!(used.len() > 1, "{used:?}");
    }
}

#[test]
fn an_address_is_learnt_as_trusted_proxies_tell_it() {
    let servers = [named("a"), named("b"), named("c")];
    let addresses = servers.each_ref().map(Origin::address);
    let config = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', trusted_proxies: [127.0.0.1], pool: site }}
pools:
  site: {{ servers: {}, balance: round_robin, affinity: {{ source: {{ mode: learn }} }} }}
",
        list(&addresses)
    );
    let evenkeel = start(&config);
    wait_all(&evenkeel, &addresses, "healthy");
    let from = |source: &str| {
        get(
            web(&evenkeel),
            "/",
            &format!("X-Forwarded-For: {source}\r\n"),
        )
        .text()
    };
    let mut used = BTreeSet::new();
    for client in 1..10 {
        let v4 = format!("192.0.2.{client}");
        let first = from(&v4);
        assert!((0..4).all(|_| from(&v4) == first));
        // One household is one client, whichever of its addresses it uses.
        let first_of_v6 = from(&format!("2001:db8:0:{client}::1"));
        for host in 2..6 {
            assert_eq!(from(&format!("2001:db8:0:{client}::{host}")), first_of_v6);
        }
        used.insert(first);
    }
    assert!(used.len() > 1, "{used:?}");
    assert_eq!(entries(&evenkeel), 18);
    let found = table(&evenkeel, "?value=2001:db8:0:3::77");
    assert_eq!(
        found["bindings"].as_array().map(Vec::len),
        Some(1),
        "{found}"
    );
}

#[test]
fn tcp_clients_are_bound_by_their_address() {
    let servers = [named("a"), named("b"), named("c")];
    let addresses = servers.each_ref().map(Origin::address);
    let config = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web: {{ bind: '127.0.0.1:0', protocol: tcp, pool: site }}
pools:
  site: {{ servers: {}, balance: round_robin, affinity: {{ source: {{ mode: learn }} }} }}
",
        list(&addresses)
    );
    let evenkeel = start(&config);
    wait_all(&evenkeel, &addresses, "healthy");
    let first = get(web(&evenkeel), "/", "").text();
    for _ in 0..6 {
        assert_eq!(get(web(&evenkeel), "/", "").text(), first);
    }
    let forgotten = ask(
        &evenkeel,
        &["affinity", "forget", "site", "--value", "127.0.0.1"],
    );
    assert_eq!(forgotten.text(), "1 binding is forgotten\n");
    assert_eq!(entries(&evenkeel), 0);
    let _ = get(web(&evenkeel), "/", "");
    assert_eq!(entries(&evenkeel), 1);
}
