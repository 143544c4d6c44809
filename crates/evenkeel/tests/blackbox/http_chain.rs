//! Evenkeel between the proxies that people have: nginx and HAProxy before it and behind it.

use anyhow::{Context, ensure};
use testkit::{Haproxy, Nginx, Origin, Raw, TempDir, curl, missing, reply};

use crate::http_setup::{Outcome, ensure_ok, noise, proxy, proxy_with};

fn haproxy_to(server: std::net::SocketAddr) -> anyhow::Result<Haproxy> {
    Haproxy::start(&format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend f\n bind 127.0.0.1:{{port}}\n default_backend b\n\
         backend b\n http-reuse always\n server s {server}\n"
    ))
}

fn nginx_to(server: std::net::SocketAddr) -> anyhow::Result<Nginx> {
    Nginx::start(
        "front",
        &format!(
            "client_max_body_size 0;\n location /via/ {{ proxy_pass http://{server}/; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_request_buffering off; proxy_buffering off; }}\n\
             location /store/ {{ proxy_pass http://{server}; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}"
        ),
    )
}

fn absent() -> bool {
    ["nginx", "haproxy", "curl"].into_iter().any(missing)
}

#[test]
fn a_chain_of_four_passes_bodies_whole() -> Outcome {
    if absent() {
        return Ok(());
    }
    let last = Nginx::start("last", "")?;
    let inner = haproxy_to(last.address())?;
    let evenkeel = proxy_with(&[inner.address()], &["trusted_proxies: [127.0.0.1]"], &[])?;
    let front = nginx_to(evenkeel.address("web")?)?;
    let outer = haproxy_to(front.address())?;
    let files = [("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)];
    for way in [front.address(), outer.address()] {
        let mut client = Raw::connect(way)?;
        for (file, size) in files {
            let direct = Raw::connect(last.address())?.get(&format!("/{file}"))?;
            assert_eq!(direct.body.len(), size);
            for _ in 0..5 {
                let response = client.get(&format!("/via/{file}"))?;
                ensure_ok(&response)?;
                ensure!(response.body == direct.body, "{file} changed on its way");
            }
            let url = format!("http://{way}/via/{file}");
            ensure!(
                curl(&["-0", &url])?.body == direct.body,
                "{file} by HTTP/1.0"
            );
            let part = curl(&["-r", "100-199", &url])?;
            ensure!(
                part.status == 206 && direct.body.get(100..200) == Some(&part.body),
                "a range of {file}"
            );
        }
        let missing = client.get("/via/nothing")?;
        assert_eq!(missing.status, 404);
        assert_eq!(
            missing.header("x-evenkeel-reason"),
            None,
            "the server's own 404"
        );
    }
    Ok(())
}

#[test]
fn uploads_pass_whole_through_proxies_on_both_sides() -> Outcome {
    if absent() {
        return Ok(());
    }
    let origin = Origin::http(|request| reply(200, &request.body))?;
    let inner = haproxy_to(origin.address())?;
    let evenkeel = proxy(&[inner.address()])?;
    let front = nginx_to(evenkeel.address("web")?)?;
    let dir = TempDir::new("upload")?;
    let body = noise(3 << 20);
    let file = dir.write("body", &body)?;
    let data = format!("@{}", file.display());
    for way in [evenkeel.address("web")?, front.address()] {
        let url = format!("http://{way}/via/x");
        for more in [
            &[][..],
            &["-H", "Transfer-Encoding: chunked"],
            &["-H", "Expect: 100-continue"],
        ] {
            let args = [&["--data-binary", &data, &url], more].concat();
            let response = curl(&args).with_context(|| format!("{more:?}"))?;
            ensure_ok(&response)?;
            ensure!(
                response.body == body,
                "{more:?}: {} bytes came back",
                response.body.len()
            );
        }
    }
    Ok(())
}

#[test]
fn evenkeel_speaks_to_itself() -> Outcome {
    let origin =
        Origin::http(|request| reply(200, [request.target.as_bytes(), &request.body].concat()))?;
    let inner = proxy_with(&[origin.address()], &["trusted_proxies: [127.0.0.1]"], &[])?;
    let outer = proxy(&[inner.address("web")?])?;
    let mut client = Raw::connect(outer.address("web")?)?;
    let response = client.exchange(
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )?;
    assert_eq!(response.text(), "/aabc");
    let seen = origin.seen().pop().context("a request")?;
    assert_eq!(
        seen.headers.all("x-forwarded-for").join(", "),
        "127.0.0.1, 127.0.0.1"
    );
    assert_eq!(seen.headers.all("x-request-id").len(), 1);
    Ok(())
}
