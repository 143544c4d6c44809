//! Affinity: clients that keep their server, as their cookie jars and the servers see it.

use std::net::SocketAddr;

use testkit::{Evenkeel, Origin, Raw, Response, reply};

use crate::life_support::{connect, metric, start, web};

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
}

/// So many requests of what came of their bonds.
pub(crate) fn bindings(evenkeel: &Evenkeel, what: &str) -> f64 {
    let series = format!("evenkeel_affinity_requests_total{{pool=\"site\",binding=\"{what}\"}}");
    metric(evenkeel, &series)
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
    assert_eq!(
        (bindings(&evenkeel, "new"), bindings(&evenkeel, "kept")),
        (6.0, 30.0)
    );
}
