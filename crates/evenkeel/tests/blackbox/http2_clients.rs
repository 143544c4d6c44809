//! HTTP/2 with clients, as programs speak it that we did not write: curl, nghttp, h2load.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use testkit::{Evenkeel, Finished, Nginx, Origin, curl, missing, reply, run};

use crate::command::BINARY;
use crate::http_setup::{noise, proxy, proxy_with};
use crate::life_support::{SOON, list, web};
use crate::tls_support::Authority;

const H2C: &str = "--http2-prior-knowledge";

fn url(evenkeel: &Evenkeel, path: &str) -> String {
    format!("http://{}{path}", web(evenkeel))
}

fn program(name: &str, args: &[&str]) -> Finished {
    let mut command = Command::new(name);
    command.args(args);
    run(command, Duration::from_secs(60)).expect("it runs")
}

/// A listener with a certificate for `a.example`; the arguments that curl needs to reach it.
fn secure(servers: &[SocketAddr], listener: &str) -> (Evenkeel, Vec<String>, String) {
    let authority = Authority::new("the authority");
    let issued = authority.issue(&["a.example"]);
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
access_log: {{ to: stdout, format: json }}
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }}
    pool: site
    {listener}
pools:
  site: {{ servers: {}, health_check: off }}
",
        list(servers)
    );
    let evenkeel = Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        for (file, text) in [
            ("a.pem", &issued.cert),
            ("a.key", &issued.key),
            ("ca.pem", &authority.pem),
        ] {
            std::fs::write(folder.join(file), text).expect("written");
        }
    })
    .expect("evenkeel starts");
    let port = web(&evenkeel).port();
    let ca = evenkeel.dir().path().join("ca.pem");
    let args = vec![
        "--cacert".to_owned(),
        ca.to_string_lossy().into_owned(),
        "--resolve".to_owned(),
        format!("a.example:{port}:127.0.0.1"),
    ];
    let url = format!("https://a.example:{port}/");
    (evenkeel, args, url)
}

#[test]
fn curl_with_prior_knowledge_is_served_by_a_server_of_http_1_and_logged() {
    if missing("curl") {
        return;
    }
    let origin = Origin::http(|request| {
        assert_eq!(request.version, "HTTP/1.1");
        reply(200, format!("{} {}", request.method, request.target))
    })
    .expect("an origin");
    let text = format!(
        "admin: off
access_log: {{ to: stdout, format: json }}
listeners: {{ web: {{ bind: '127.0.0.1:0', pool: site, forwarded: {{ via: true }} }} }}
pools: {{ site: {{ servers: {}, health_check: off }} }}
",
        list(&[origin.address()])
    );
    let mut evenkeel = Evenkeel::start(BINARY, &text).expect("evenkeel starts");
    let answer = curl(&[H2C, "--path-as-is", &url(&evenkeel, "/a/../b?c")]).expect("an answer");
    assert_eq!((answer.version.as_str(), answer.status), ("HTTP/2", 200));
    assert_eq!(answer.text(), "GET /b?c");
    let line = evenkeel.wait_log("\"target\":\"/a/../b?c\"", SOON);
    let line = line.expect("a line of the access log");
    for part in [
        "\"version\":\"HTTP/2\"",
        "\"status\":200",
        "\"method\":\"GET\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let seen = origin.seen();
    let via = seen.last().and_then(|request| request.header("via"));
    assert_eq!(via, Some("2.0 evenkeel"));
    // HTTP/1 goes on beside it.
    let answer = curl(&["--http1.1", &url(&evenkeel, "/")]).expect("an answer");
    assert_eq!((answer.version.as_str(), answer.status), ("HTTP/1.1", 200));
}

#[test]
fn curl_gets_answers_that_come_before_its_upload_is_over() {
    if missing("curl") {
        return;
    }
    let origin = Origin::start(|conn| {
        conn.read_head()?;
        // Enough of the upload is on its way by now that it cannot all be thrown away.
        conn.read_exactly(100_000)?;
        // Nothing else may be asked of it: the kernel may have taken all of the upload, and it reads no more.
        conn.write(
            "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly",
        )?;
        conn.hang(SOON);
        Ok(())
    })
    .expect("an origin");
    let evenkeel = proxy(&[origin.address()]).expect("evenkeel starts");
    let file = evenkeel
        .dir()
        .write("up", noise(4_000_000))
        .expect("written");
    let file = file.to_string_lossy();
    for _ in 0..10 {
        let args = [H2C, "-H", "expect:", "-T", &*file, &url(&evenkeel, "/")];
        let answer = curl(&args).expect("an answer");
        assert_eq!((answer.status, &*answer.text()), (413, "early"));
    }
}

#[test]
fn curl_agrees_on_http_2_by_alpn_unless_it_is_off() {
    if missing("curl") {
        return;
    }
    let origin =
        Origin::http(|request| reply(200, request.header("x-forwarded-proto").unwrap_or("none")))
            .expect("an origin");
    let (evenkeel, args, url) = secure(&[origin.address()], "");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for (more, version) in [("--http2", "HTTP/2"), ("--http1.1", "HTTP/1.1")] {
        let answer = curl(&[&args[..], &[more, &url]].concat()).expect("an answer");
        assert_eq!((answer.version.as_str(), answer.status), (version, 200));
        assert_eq!(answer.text(), "https");
    }
    drop(evenkeel);
    let (evenkeel, args, url) = secure(&[origin.address()], "http2: off");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = curl(&[&args[..], &["--http2", &url]].concat()).expect("an answer");
    assert_eq!((answer.version.as_str(), answer.status), ("HTTP/1.1", 200));
    drop(evenkeel);
    let evenkeel = proxy_with(&[origin.address()], &["http2: off"], &[]).expect("evenkeel starts");
    assert!(curl(&[H2C, &format!("http://{}/", web(&evenkeel))]).is_err());
}

#[test]
fn bodies_of_any_framing_go_both_ways_whole() {
    if missing("curl") {
        return;
    }
    // Echoes the body, framed as the path says.
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            let body = &request.body;
            match request.target.as_str() {
                "/length" => conn.write(reply(200, body))?,
                "/chunked" => {
                    conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                    for piece in body.chunks(10_007) {
                        conn.write(format!("{:x};x=y\r\n", piece.len()))?;
                        conn.write(piece)?;
                        conn.write("\r\n")?;
                    }
                    conn.write("0\r\n\r\n")?;
                }
                _ => {
                    conn.write("HTTP/1.0 200 OK\r\n\r\n")?;
                    conn.write(body)?;
                    break;
                }
            }
        }
        Ok(())
    })
    .expect("an origin");
    let evenkeel = proxy(&[origin.address()]).expect("evenkeel starts");
    for size in [0, 1, 16_384, 300_000, 5_000_000] {
        let body = noise(size);
        let file = evenkeel.dir().write("body", &body).expect("written");
        let data = format!("@{}", file.display());
        for path in ["/length", "/chunked", "/close"] {
            for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
                let url = url(&evenkeel, path);
                let args = [&[H2C, "--data-binary", &data, &url], more].concat();
                let answer = curl(&args).unwrap_or_else(|error| panic!("{path} {size}: {error}"));
                assert_eq!(answer.status, 200, "{path} {size}");
                assert!(answer.body == body, "{path} {size}: another body");
            }
        }
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    if missing("curl") {
        return;
    }
    let origin = Origin::http(|request| {
        let status = request.target.trim_start_matches('/');
        format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\nETag: e\r\n\r\n").into_bytes()
    })
    .expect("an origin");
    let evenkeel = proxy(&[origin.address()]).expect("evenkeel starts");
    let head = curl(&[H2C, "--head", &url(&evenkeel, "/200")]).expect("an answer");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5"))
    );
    let not_modified = curl(&[H2C, &url(&evenkeel, "/304")]).expect("an answer");
    assert_eq!(
        (not_modified.status, not_modified.header("etag")),
        (304, Some("e"))
    );
}

#[test]
fn answers_made_here_say_why() {
    if missing("curl") {
        return;
    }
    let origin = Origin::http(|_| reply(200, "")).expect("an origin");
    let limits = ["limits: { uri_bytes: 100B, header_bytes: 4KiB, body_bytes: 10B }"];
    let evenkeel = proxy_with(&[origin.address()], &limits, &[]).expect("evenkeel starts");
    let long = format!("/{}", "x".repeat(200));
    let large = format!("x: {}", "y".repeat(5000));
    for (args, path, status, reason) in [
        (&[][..], long.as_str(), 414, "uri_too_long"),
        (&["-H", &large], "/", 431, "header_too_large"),
        (
            &["--data", "more than ten bytes"],
            "/",
            413,
            "body_too_large",
        ),
    ] {
        let url = url(&evenkeel, path);
        let answer = curl(&[args, &[H2C, &url]].concat());
        let answer = answer.unwrap_or_else(|error| panic!("{reason}: {error}"));
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-evenkeel-reason"), Some(reason));
        assert_eq!(answer.header("connection"), None);
    }
}

#[test]
fn interim_responses_and_trailers_reach_the_client() {
    if missing("nghttp") {
        return;
    }
    let origin = Origin::start(|conn| {
        while let Some(request) = conn.read_request()? {
            let trailer = request.trailers.get("x-sent").unwrap_or("none").to_owned();
            conn.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
            conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")?;
            conn.write(format!(
                "5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Got: {trailer}\r\n\r\n"
            ))?;
        }
        Ok(())
    })
    .expect("an origin");
    let evenkeel = proxy(&[origin.address()]).expect("evenkeel starts");
    // One more in front, so that a server of HTTP/2 is among them.
    let server = evenkeel.address("web").expect("an address");
    let settings = "health_check: off, http: 2";
    let front = crate::life_support::start(&crate::life_support::site(&[server], settings));
    let body = evenkeel.dir().write("body", "some text").expect("written");
    let body = body.to_string_lossy().into_owned();
    for (through, with_length) in [
        (&evenkeel, false),
        (&evenkeel, true),
        (&front, false),
        (&front, true),
    ] {
        let url = url(through, "/");
        let mut args = vec!["-v", "-n", "--trailer", "x-sent: yes", "-d", &body, &url];
        if !with_length {
            args.insert(0, "--no-content-length");
        }
        let said = program("nghttp", &args).text();
        assert_eq!(said.contains("content-length: 9"), with_length, "{said}");
        for part in [
            ":status: 103",
            "link: </style.css>",
            ":status: 200",
            "x-sum: 42",
            "x-got: yes",
        ] {
            assert!(said.contains(part), "{part}:\n{said}");
        }
        assert!(!said.contains("transfer-encoding"), "{said}");
    }
}

#[test]
fn many_streams_of_many_connections_are_served_by_nginx_without_a_fault() {
    if missing("h2load") || missing("nginx") {
        return;
    }
    let nginx = Nginx::start("a", "").expect("nginx starts");
    let evenkeel = proxy(&[nginx.address()]).expect("evenkeel starts");
    for (path, requests) in [("/1k", "4000"), ("/64k", "500"), ("/1m", "50")] {
        let url = url(&evenkeel, path);
        let args = ["-n", requests, "-c", "8", "-m", "20", &url];
        let said = program("h2load", &args).text();
        let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{path}:\n{said}");
        let status = format!("status codes: {requests} 2xx");
        assert!(said.contains(&status), "{path}:\n{said}");
    }
}

#[test]
fn many_streams_over_tls_are_served_without_a_fault() {
    if missing("h2load") {
        return;
    }
    let body = noise(70_000);
    let origin = Origin::http(move |request| match request.target.as_str() {
        "/large" => reply(200, &body),
        _ => reply(200, "small"),
    })
    .expect("an origin");
    let (evenkeel, _, _) = secure(&[origin.address()], "");
    for (path, requests) in [("/", "2000"), ("/large", "300")] {
        let url = format!("https://{}{path}", web(&evenkeel));
        let said = program("h2load", &["-n", requests, "-c", "4", "-m", "10", &url]).text();
        let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{path}:\n{said}");
        assert!(said.contains("Application protocol: h2"), "{said}");
    }
}
