//! HAProxy and nginx as TLS clients before evenkeel and as TLS servers behind it, each side asking for certificates.

use std::path::Path;

use testkit::{Evenkeel, Haproxy, Nginx, Origin, Raw, TempDir, missing, reply, wait_until};

use crate::command::BINARY;
use crate::http_setup::noise;
use crate::life_support::{SOON, metric, server, web};
use crate::tls_support::{Authority, Issued};

/// Everybody's certificates, in one folder.
struct Papers {
    dir: TempDir,
}

impl Papers {
    fn new() -> Self {
        let dir = TempDir::new("papers").expect("a folder");
        let (servers, clients) = (Authority::new("of servers"), Authority::new("of clients"));
        dir.write("servers.pem", &servers.pem).expect("written");
        dir.write("clients.pem", &clients.pem).expect("written");
        for (name, issued) in [
            ("middle", servers.issue(&["middle.example"])),
            ("last", servers.issue(&["last.example"])),
            ("front-client", clients.issue_for_client("front")),
            ("middle-client", clients.issue_for_client("middle")),
        ] {
            issued.write(&dir, name);
            let Issued { cert, key } = issued;
            dir.write(&format!("{name}.both"), cert + &key)
                .expect("written");
        }
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// evenkeel before one server, both sides TLS with certificates of both ends.
    fn middle(&self, server: std::net::SocketAddr) -> Evenkeel {
        let path = self.path().display();
        let text = format!(
            "admin: {{ bind: '127.0.0.1:0' }}
workers: 1
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: {path}/middle.pem, key: {path}/middle.key }}], client_ca: {path}/clients.pem }}
    routes:
      - match: {{ sni: middle.example, client_cert: {{ san: 'DNS:front' }} }}
        filters: [{{ set_header: {{ x-front: '{{client_cert.subject}}' }} }}]
        pool: site
pools:
  site:
    servers: ['{server}']
    health_check: {{ path: /health, interval: 200ms }}
    tls: {{ ca: {path}/servers.pem, server_name: last.example, client: {{ cert: {path}/middle-client.pem, key: {path}/middle-client.key }} }}
"
        );
        Evenkeel::start(BINARY, &text).expect("evenkeel starts")
    }

    fn haproxy_last(&self, server: std::net::SocketAddr) -> Haproxy {
        let path = self.path().display();
        let config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend f\n bind 127.0.0.1:{{port}} ssl crt {path}/last.both ca-file {path}/clients.pem verify required alpn http/1.1\n\
             http-request set-header x-last %[ssl_c_s_dn(cn)]:%[ssl_fc_sni]:%[ssl_fc_protocol]\n default_backend b\n\
             backend b\n server s {server}\n"
        );
        Haproxy::start(&config).expect("haproxy starts")
    }

    fn haproxy_front(&self, server: std::net::SocketAddr) -> Haproxy {
        let path = self.path().display();
        let config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend f\n bind 127.0.0.1:{{port}}\n http-request set-header Host middle.example\n default_backend b\n\
             backend b\n http-reuse always\n server s {server} ssl verify required ca-file {path}/servers.pem \
             sni str(middle.example) verifyhost middle.example crt {path}/front-client.both alpn http/1.1\n"
        );
        Haproxy::start(&config).expect("haproxy starts")
    }

    fn nginx_last(&self, server: std::net::SocketAddr) -> Nginx {
        let path = self.path().display();
        let snippet = format!(
            "ssl_certificate {path}/last.pem; ssl_certificate_key {path}/last.key; ssl_protocols TLSv1.2 TLSv1.3;
ssl_client_certificate {path}/clients.pem; ssl_verify_client on; client_max_body_size 0;
location /site/ {{ proxy_pass http://{server}; proxy_set_header x-front $http_x_front;
proxy_set_header x-last \"$ssl_client_s_dn:$ssl_server_name:$ssl_protocol\"; }}"
        );
        Nginx::start_tls("last", &snippet).expect("nginx starts")
    }

    fn nginx_front(&self, server: std::net::SocketAddr) -> Nginx {
        let path = self.path().display();
        let snippet = format!(
            "client_max_body_size 0;
location /site/ {{ proxy_pass https://{server}; proxy_http_version 1.1; proxy_set_header Connection \"\";
proxy_set_header Host middle.example; proxy_ssl_verify on; proxy_ssl_trusted_certificate {path}/servers.pem;
proxy_ssl_name middle.example; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;
proxy_ssl_certificate {path}/front-client.pem; proxy_ssl_certificate_key {path}/front-client.key; }}"
        );
        Nginx::start("front", &snippet).expect("nginx starts")
    }
}

fn absent() -> bool {
    ["nginx", "haproxy"].into_iter().any(missing)
}

/// Bodies both ways, again and again, and what each TLS server saw of its client.
fn exchange(front: std::net::SocketAddr, origin: &Origin, last: &str) {
    let mut client = Raw::connect(front).expect("a connection");
    for size in [1, 1000, 300_000] {
        let body = noise(size);
        let head = format!("POST /site/x HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n");
        let request = [head.as_bytes(), &body].concat();
        let answer = client.exchange(request).expect("an answer");
        assert_eq!(answer.status, 200, "{answer}");
        assert!(answer.body == body, "{} of {size} bytes", answer.body.len());
    }
    // Probes come through too.
    let mut seen = origin.seen().into_iter().rev();
    let seen = seen
        .find(|request| request.method == "POST")
        .expect("a request");
    assert_eq!(seen.header("x-front"), Some("CN=front"));
    assert_eq!(seen.header("x-last"), Some(last));
}

fn healthy(evenkeel: &Evenkeel, server_name: &str) {
    wait_until("the server is healthy", SOON, || {
        server(evenkeel, "site", server_name)["health"] == "healthy"
    })
    .expect("the server is healthy");
}

fn origin() -> Origin {
    Origin::http(|request| reply(200, &request.body)).expect("an origin")
}

#[test]
fn haproxy_is_client_and_server_and_verifies_on_both_sides() {
    if absent() {
        return;
    }
    let (papers, origin) = (Papers::new(), origin());
    let last = papers.haproxy_last(origin.address());
    let evenkeel = papers.middle(last.address());
    healthy(&evenkeel, &last.address().to_string());
    let front = papers.haproxy_front(web(&evenkeel));
    exchange(front.address(), &origin, "middle:last.example:TLSv1.3");
    assert_eq!(
        metric(
            &evenkeel,
            "evenkeel_errors_total{reason=\"handshake_failed\"}"
        ),
        0.0
    );
}

#[test]
fn nginx_is_client_and_server_and_verifies_on_both_sides() {
    if absent() {
        return;
    }
    let (papers, origin) = (Papers::new(), origin());
    let last = papers.nginx_last(origin.address());
    let evenkeel = papers.middle(last.address());
    healthy(&evenkeel, &last.address().to_string());
    let front = papers.nginx_front(web(&evenkeel));
    exchange(front.address(), &origin, "CN=middle:last.example:TLSv1.3");
    assert_eq!(
        metric(
            &evenkeel,
            "evenkeel_errors_total{reason=\"handshake_failed\"}"
        ),
        0.0
    );
}
