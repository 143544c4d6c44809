//! From HTTP to HTTPS, and HTTPS alone from then on.

use testkit::{Evenkeel, Origin, Raw};

use crate::command::BINARY;
use crate::life_support::web;
use crate::tls_support::{Authority, Wants, config, send, shake};

fn start(authority: &Authority, origin: &Origin) -> Evenkeel {
    let issued = authority.issue(&["a.example"]);
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
routes:
  both:
    - match: {{ path: /gone }}
      filters: [{{ hsts: 365d }}, {{ respond: 410 }}]
    - match: {{ path: /nobody }}
      filters: [{{ hsts: 365d }}]
      pool: nobody
    - filters: [{{ https_redirect: 8443 }}, {{ hsts: {{ max_age: 730d, include_subdomains: true, preload: true }} }}]
      pool: site
listeners:
  web: {{ bind: '127.0.0.1:0', tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }}, routes: both }}
  plain: {{ bind: '127.0.0.2:0', routes: both }}
  behind: {{ bind: '127.0.0.3:0', trusted_proxies: [127.0.0.0/8], routes: both }}
  only: {{ bind: '127.0.0.4:0', routes: [{{ filters: [{{ https_redirect: {{ status: 301 }} }}] }}] }}
pools:
  site: {{ servers: ['{}'], health_check: off }}
  nobody: {{ servers: [{{ address: '127.0.0.1:1', weight: 0 }}], health_check: off }}
",
        origin.address()
    );
    Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("a.pem"), &issued.cert).expect("written");
        std::fs::write(folder.join("a.key"), &issued.key).expect("written");
    })
    .expect("evenkeel starts")
}

#[test]
fn who_comes_by_http_is_sent_on_and_who_comes_by_https_is_told_to_stay() {
    let authority = Authority::new("the authority");
    let origin = Origin::http(|_| {
        b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 4\r\n\r\nwell"
            .to_vec()
    })
    .expect("an origin");
    let evenkeel = start(&authority, &origin);
    let secure = |path: &str| {
        let config = config(&authority, &Wants::default());
        let mut tls = shake(web(&evenkeel), "a.example", &config).expect("a session");
        let answer = send(&mut tls, &format!("GET {path}"), &["Host: a.example"]);
        let told = answer.headers.all("strict-transport-security").join("|");
        (answer.status, told)
    };
    let whole = "max-age=63072000; includeSubDomains; preload".to_owned();
    // In the server's stead, and in what is answered here: by a filter, and because nobody can serve.
    assert_eq!(secure("/x"), (200, whole.clone()));
    assert_eq!(secure("/gone"), (410, "max-age=31536000".to_owned()));
    assert_eq!(secure("/nobody"), (503, "max-age=31536000".to_owned()));

    let plain = |listener: &str, path: &str, fields: &str| {
        let address = evenkeel.address(listener).expect("an address");
        let mut client = Raw::connect(address).expect("a connection");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: A.example:8080\r\n{fields}Content-Length: 0\r\n\r\n"
        );
        let answer = client.exchange(request).expect("an answer");
        let field = |name: &str| answer.headers.all(name).join("|");
        (
            answer.status,
            field("location"),
            field("strict-transport-security"),
        )
    };
    let sent = |status: u16, place: &str| (status, place.to_owned(), String::new());
    assert_eq!(
        plain("plain", "/x?y=1", ""),
        sent(308, "https://a.example:8443/x?y=1")
    );
    assert_eq!(plain("plain", "/gone", ""), sent(410, ""));
    assert_eq!(plain("only", "/x", ""), sent(301, "https://a.example/x"));
    // A client's own word does not count; that of a trusted proxy, where TLS ended, does.
    let by_https = "X-Forwarded-Proto: https\r\n";
    assert_eq!(
        plain("plain", "/x", by_https),
        sent(308, "https://a.example:8443/x")
    );
    assert_eq!(
        plain("behind", "/x", ""),
        sent(308, "https://a.example:8443/x")
    );
    assert_eq!(plain("behind", "/x", by_https), (200, String::new(), whole));
}
