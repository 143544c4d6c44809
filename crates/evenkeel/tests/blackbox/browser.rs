//! A browser that we did not write: Chromium over HTTP/2, and what it makes of the cookie that binds it to a server.

use std::time::Duration;

use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::Value;
use testkit::{Chromium, Evenkeel, Origin, Request, missing, reply, wait_until};

use crate::affinity::config as affinity_config;
use crate::command::BINARY;
use crate::life_support::{SOON, list, metric, web};
use crate::tls_support::{Authority, Issued, sha256};
use crate::websockets;

/// Longer than the browser takes to start and to load a few pages, beside a CPU hog.
const LOADED: Duration = Duration::from_secs(120);

/// Starts it with a certificate that no authority needs to be believed for, and opens a page.
fn start(text: &str, issued: &Issued) -> Evenkeel {
    Evenkeel::start_with(BINARY, text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("it.pem"), &issued.cert).expect("written");
        std::fs::write(folder.join("it.key"), &issued.key).expect("written");
    })
    .expect("evenkeel starts")
}

fn open(url: &str, issued: &Issued) -> Chromium {
    let key = KeyPair::from_pem(&issued.key).expect("a key");
    let hash = sha256(&key.subject_public_key_info());
    Chromium::open(url, &hash).expect("the browser starts")
}

/// Waits until the browser has sent a request for this, and gives it.
fn wait_for(browser: &Chromium, origin: &Origin, target: &str) -> Request {
    let found = || origin.seen().into_iter().find(|it| it.target == target);
    wait_until(target, LOADED, || found().is_some())
        .unwrap_or_else(|error| panic!("{error}\n{}", browser.log()));
    found().expect("seen")
}

/// Fetches ten parts at once, hears three events, asks a WebSocket for its name, and tells by which protocol.
const PAGE: &str = "<!doctype html><title>a page</title><script type=module>
const names = [...Array(10).keys()].map(at => '/part/' + at);
const parts = await Promise.all(names.map(async name => (await fetch(name)).text()));
const events = await new Promise((done, failed) => {
  const seen = [], source = new EventSource('/events');
  source.onerror = () => failed('events');
  source.onmessage = event => {
    seen.push(event.data);
    if (seen.length == 3) { source.close(); done(seen); }
  };
});
const named = await new Promise((done, failed) => {
  const socket = new WebSocket(`wss://${location.host}/chat`, 'chat.v1');
  socket.onerror = () => failed('socket');
  socket.onopen = () => socket.send('who');
  socket.onmessage = message => { done(message.data); socket.close(4000, 'done'); };
});
const hops = kind => performance.getEntriesByType(kind).map(it => it.nextHopProtocol);
const told = { page: hops('navigation'), hops: hops('resource'), parts: parts.map(it => it.length), events, named };
await fetch('/told', { method: 'POST', body: JSON.stringify(told) });
</script>";

#[test]
fn chromium_loads_a_page_over_http_2_and_speaks_websocket_there() {
    if missing("chromium") || missing("ws") {
        return;
    }
    let mut chat = websockets::server(websockets::NODE, "chat");
    let origin = Origin::http(|request| match request.target.as_str() {
        "/" => reply(200, PAGE),
        "/events" => {
            let events = "data: a\n\ndata: b\n\ndata: c\n\n";
            let length = events.len();
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {length}\r\n\r\n{events}").into()
        }
        _ => reply(200, "x".repeat(100_000)),
    })
    .expect("an origin");
    let issued = Authority::new("an authority").issue(&["shop.example"]);
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
access_log: {{ to: stdout, format: json }}
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: it.pem, key: it.key }}] }}
    upgrades: [websocket]
    routes: [{{ match: {{ path: /chat }}, pool: chat }}, {{ pool: site }}]
pools:
  site: {{ servers: {}, health_check: off }}
  chat: {{ servers: {}, health_check: off }}
",
        list(&[origin.address()]),
        list(&[chat.address])
    );
    let mut evenkeel = start(&text, &issued);
    let url = format!("https://shop.example:{}/", web(&evenkeel).port());
    let browser = open(&url, &issued);
    let told = wait_for(&browser, &origin, "/told");
    let told: Value = serde_json::from_slice(&told.body).expect("what the page tells");
    assert_eq!(told["page"], serde_json::json!(["h2"]));
    let hops = told["hops"].as_array().expect("requests");
    assert!(
        hops.len() >= 10 && hops.iter().all(|hop| hop == "h2"),
        "{told}"
    );
    assert_eq!(told["parts"], serde_json::json!(vec![100_000; 10]));
    assert_eq!(told["events"], serde_json::json!(["a", "b", "c"]));
    assert_eq!(told["named"], "chat");
    let closed = chat.process.wait_log("closed 4000 done", SOON);
    closed.expect("the close");
    // The access log says the same.
    let line = evenkeel.wait_log("\"target\":\"/chat\"", SOON);
    let line = line.expect("a line");
    assert!(line.contains("\"version\":\"HTTP/2\""), "{line}");
    let line = evenkeel.wait_log("\"target\":\"/told\"", SOON);
    assert!(line.expect("a line").contains("\"version\":\"HTTP/2\""));
    let lines = evenkeel.log_lines();
    let parts = lines
        .iter()
        .filter(|line| line.contains("\"target\":\"/part/"));
    let parts: Vec<_> = parts.collect();
    assert_eq!(parts.len(), 10);
    assert!(
        parts
            .iter()
            .all(|line| line.contains("\"version\":\"HTTP/2\""))
    );
    let connections = metric(
        &evenkeel,
        "evenkeel_listener_accepted_total{listener=\"web\"",
    );
    assert!(
        connections <= 3.0,
        "one, and what it opens in advance: {connections}"
    );
}

/// Goes where the test wants it, from page to page.
const SHOP: &str = "<!doctype html><title>SERVER</title><script type=module>
const [, tls, plain] = location.hash.match(/^#([0-9]+),([0-9]+)$/);
const shop = `https://shop.example:${tls}`, other = `https://other.example:${tls}`, ports = location.hash;
const tell = (what, more) => fetch(`/told/${what}`, { method: 'POST', body: JSON.stringify(more) });
if (location.pathname == '/shop/cart') {
  const seen = JSON.parse(sessionStorage.seen ?? '[]');
  seen.push(document.title);
  sessionStorage.seen = JSON.stringify(seen);
  document.cookie = 'theme=dark; path=/';
  document.cookie = 'open=yes; path=/; Secure; SameSite=None';
  if (seen.length < 6) {
    location.reload();
  } else {
    await tell('kept', { seen, cookie: document.cookie });
    location = `http://shop.example:${plain}/shop/plain${ports}`;
  }
} else if (location.pathname == '/shop/plain') {
  location = `${other}/elsewhere${ports}`;
} else if (location.pathname == '/elsewhere') {
  await fetch(`${shop}/shop/crossed`, { mode: 'no-cors', credentials: 'include' });
  location = `${shop}/shop/back${ports}`;
} else if (location.pathname == '/shop/back') {
  await tell('back', { server: document.title, cookie: document.cookie });
}
</script>";

#[test]
fn chromium_keeps_the_cookie_as_its_attributes_say() {
    if missing("chromium") {
        return;
    }
    let page = |name: &'static str| {
        let text = SHOP.replace("SERVER", name);
        Origin::http(move |_| reply(200, &text)).expect("an origin")
    };
    let (servers, outside) = (["a", "b", "c"].map(page), page("outside"));
    let [a, b, c] = &servers;
    let places = [
        ("a", a.address(), ""),
        ("b", b.address(), ""),
        ("c", c.address(), ""),
    ];
    let settings = "affinity: { cookie: { path: /shop, indirect: false } }";
    let text = affinity_config(settings, &places);
    let own = "  web: { bind: '127.0.0.1:0', pool: site }";
    assert!(text.contains(own), "{text}");
    let text = text.replace(
        own,
        "  plain: { bind: '127.0.0.1:0', pool: outside }
  web:
    bind: '127.0.0.1:0'
    tls: { certificates: [{ cert: it.pem, key: it.key }] }
    routes:
      - { match: { host: shop.example, path: /shop/* }, pool: site }
      - pool: outside",
    );
    let text = format!(
        "{text}  outside: {{ servers: {}, health_check: off }}\n",
        list(&[outside.address()])
    );
    let issued = Authority::new("an authority").issue(&["shop.example", "other.example"]);
    let evenkeel = start(&text, &issued);
    let plain = evenkeel.address("plain").expect("an address").port();
    let tls = web(&evenkeel).port();
    let url = format!("https://shop.example:{tls}/shop/cart#{tls},{plain}");
    let browser = open(&url, &issued);
    let told = |what: &str| -> Value {
        let told = wait_for(&browser, &outside, &format!("/told/{what}"));
        serde_json::from_slice(&told.body).expect("what the page tells")
    };
    let (kept, back) = (told("kept"), told("back"));

    // The same server over page loads. Scripts see their own cookies, not that one: HttpOnly.
    let seen = kept["seen"].as_array().expect("page loads");
    assert_eq!(
        (seen.len(), seen.iter().all(|it| *it == seen[0])),
        (6, true),
        "{kept}"
    );
    for cookie in [&kept["cookie"], &back["cookie"]] {
        let cookie = cookie.as_str().expect("cookies");
        assert!(
            cookie.contains("theme=dark") && !cookie.contains("SERVERID"),
            "{cookie}"
        );
    }
    let all = |target: &str| -> Vec<String> {
        let seen = servers.iter().chain([&outside]).flat_map(Origin::seen);
        let seen = seen.filter(|request| request.target == target);
        seen.map(|request| request.headers.all("cookie").join("; "))
            .collect()
    };
    let carts = all("/shop/cart");
    let with = carts.iter().filter(|it| it.contains("SERVERID=")).count();
    assert_eq!((carts.len(), with), (6, 5), "{carts:?}");
    // Not outside of its path, and not without TLS: Path, Secure.
    for (target, cookie) in [("/told/kept", "open=yes"), ("/shop/plain", "theme=dark")] {
        let [found] = &all(target)[..] else {
            panic!("{target} was asked for once")
        };
        assert!(
            found.contains(cookie) && !found.contains("SERVERID"),
            "{target}: {found}"
        );
    }
    // Not when another site asks, but when its link is followed: SameSite=Lax. What that request set was not taken.
    let [crossed] = &all("/shop/crossed")[..] else {
        panic!("asked for once")
    };
    assert!(
        crossed.contains("open=yes") && !crossed.contains("SERVERID"),
        "{crossed}"
    );
    let [followed] = &all("/shop/back")[..] else {
        panic!("asked for once")
    };
    assert!(followed.contains("SERVERID="), "{followed}");
    assert_eq!(back["server"], seen[0]);
}
