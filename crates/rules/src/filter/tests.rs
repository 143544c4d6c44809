//! Filters: what each does to a request, and what they refuse to be.

use super::*;
use crate::testing::sample;
use crate::{ClientCertificate, TlsFacts};

/// The filters over `line`: the path that the server gets, or the answer's status and `location`.
fn check(filters: &[Result<Filter, FilterError>], line: &str, expected: &str) {
    let filters: Vec<Filter> = filters.iter().cloned().map(Result::unwrap).collect();
    let request = sample(line, &[]);
    let mut edits = Edits::new();
    // Twice, since the memory is recycled.
    for _ in 0..2 {
        edits.clear();
        let got = match Walk::new(&filters).step(&request.request(), &mut edits) {
            Outcome::Continue => {
                String::from_utf8_lossy(edits.path().unwrap_or(request.request().path)).into_owned()
            }
            Outcome::Respond(answer) => {
                let location = edits
                    .field(On::Response, b"Location")
                    .and_then(|edit| edit.value)
                    .unwrap_or_default();
                format!("{} {}", answer.status, String::from_utf8_lossy(location))
            }
            Outcome::Refuse(why) => panic!("{why}"),
            Outcome::Ask(question) => match question {},
        };
        assert_eq!(got, expected, "{line}");
    }
}

#[test]
fn strip_prefix() {
    let strip = Filter::strip_prefix;
    check(&[strip("/api")], "GET a/api/x", "/x");
    check(&[strip("/api")], "GET a/api", "/");
    check(&[strip("/api")], "GET a/api/", "/");
    check(&[strip("/api/")], "GET a/api/x", "/x");
    check(&[strip("/api")], "GET a/apix", "/apix");
    check(&[strip("/api")], "GET a/x/api", "/x/api");
    check(&[strip("/api")], "GET a/api//x", "//x");
    check(&[strip("/a%62c")], "GET a/abc/x", "/x");
    check(&[strip("/a"), strip("/b")], "GET a/a/b/c", "/c");
    check(&[strip("/a"), strip("/b"), strip("/c")], "GET a/a/b/c", "/");
    check(&[strip("/b"), strip("/a")], "GET a/a/b/c", "/b/c");
}

#[test]
fn redirect() {
    let to = |to| Filter::redirect(302, to);
    check(
        &[to("https://{host}{path}")],
        "GET a.test:80/x",
        "302 https://a.test/x",
    );
    check(
        &[to("https://{host}{path}?{query}")],
        "GET a/x?y=1",
        "302 https://a/x?y=1",
    );
    check(
        &[to("https://{host}{path}?{query}")],
        "GET a/x",
        "302 https://a/x",
    );
    check(&[to("/new?a=b&{query}")], "GET a/x", "302 /new?a=b");
    check(&[Filter::redirect(308, "/new")], "GET a/x", "308 /new");
    check(&[to("{path}/")], "GET a//evil.test", "302 /evil.test/");
    check(&[to("{path}/")], "GET a///evil.test", "302 /evil.test/");
    check(&[to("{path}/")], "GET a/\\evil.test", "302 /evil.test/");
    check(&[to("{path}")], "GET a/", "302 /");
    check(
        &[Filter::strip_prefix("/old"), to("https://n.test{path}")],
        "GET a/old/x",
        "302 https://n.test/x",
    );
    check(&[to("/a"), to("/b")], "GET a/x", "302 /a");
}

/// The edits as text: `+name: value` or `-name`, requests before responses.
fn check_edits(filters: &[Result<Filter, FilterError>], expected: &[&str]) {
    let filters: Vec<Filter> = filters.iter().cloned().map(Result::unwrap).collect();
    let request = sample("GET a/x", &[]);
    let mut edits = Edits::new();
    let _ = Walk::new(&filters).step(&request.request(), &mut edits);
    let text = |edit: HeaderEdit<'_>| {
        let name = String::from_utf8_lossy(edit.name).into_owned();
        edit.value.map_or(format!("-{name}"), |value| {
            format!("+{name}: {}", String::from_utf8_lossy(value))
        })
    };
    let got: Vec<String> = edits
        .fields(On::Request)
        .chain(edits.fields(On::Response))
        .map(text)
        .collect();
    assert_eq!(got, expected);
}

use crate::HeaderEdit;

#[test]
fn headers() {
    let set = |name, value| Filter::set_header(name, value, On::Request);
    let remove = |name| Filter::remove_header(name, On::Request);
    check_edits(&[], &[]);
    check_edits(
        &[set("x-tier", "api"), remove("Cookie")],
        &["+x-tier: api", "-Cookie"],
    );
    check_edits(&[set("x-a", "1"), set("X-A", "2")], &["+x-a: 2"]);
    check_edits(&[set("x-a", "1"), remove("X-A")], &["-x-a"]);
    check_edits(&[set("host", "b.test:80")], &["+host: b.test:80"]);
    check_edits(
        &[
            set("x-a", "1"),
            Filter::set_header("x-a", "", On::Response),
            Filter::remove_header("server", On::Response),
        ],
        &["+x-a: 1", "+x-a: ", "-server"],
    );
}

fn certificate() -> TlsFacts {
    TlsFacts {
        sni: Some("s.example".into()),
        client: Some(Box::new(ClientCertificate {
            subject: "CN=alice".into(),
            ..ClientCertificate::default()
        })),
    }
}

#[test]
fn headers_made_of_the_request_and_its_tls() {
    let filters = [
        Filter::set_header("X-Client-Subject", "{client_cert.subject}", On::Request),
        Filter::set_header("x-sni", "name {sni}", On::Request),
        Filter::set_header("x-path", "{path}", On::Response),
    ]
    .map(Result::unwrap);
    let request = sample("GET a/x", &[]);
    let tls = certificate();
    let mut edits = Edits::new();
    for (tls, subject, sni) in [
        (Some(&tls), Some(&b"CN=alice"[..]), &b"name s.example"[..]),
        // One that comes out empty is taken away, and with it what a client wrote there.
        (None, None, &b"name"[..]),
    ] {
        edits.clear();
        let request = Request {
            tls,
            ..request.request()
        };
        let _ = Walk::new(&filters).step(&request, &mut edits);
        let value = |on, name: &[u8]| edits.field(on, name).map(|edit| edit.value);
        assert_eq!(value(On::Request, b"x-client-subject"), Some(subject));
        assert_eq!(value(On::Request, b"x-sni"), Some(Some(sni)));
        assert_eq!(value(On::Response, b"X-Path"), Some(Some(&b"/x"[..])));
        // What a server could take for a word of ours about the certificate is ours too.
        assert_eq!(value(On::Request, b"X_Client-SUBJECT"), Some(subject));
        assert_eq!(value(On::Request, b"x_sni"), None);
        assert_eq!(value(On::Response, b"x-client-subject"), None);
    }
}

#[test]
fn to_https_and_to_nothing_else_from_then_on() {
    let year = Duration::from_secs(365 * 24 * 3600);
    let to = |line: &str, port: u16, https: bool| {
        let filters = [
            Filter::strip_prefix("/api"),
            Filter::hsts(year, true, true),
            Filter::https_redirect(308, port),
        ]
        .map(Result::unwrap);
        let request = sample(line, &[]);
        let request = Request {
            https,
            ..request.request()
        };
        let mut edits = Edits::new();
        let outcome = Walk::new(&filters).step(&request, &mut edits);
        let field = |name: &[u8]| {
            let edit = edits.field(On::Response, name)?;
            edit.value
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let status = match outcome {
            Outcome::Respond(answer) => Some(answer.status),
            _ => None,
        };
        (
            status,
            field(b"location"),
            field(b"strict-transport-security"),
        )
    };
    let sent = |place: &str| (Some(308), Some(place.to_owned()), None);
    assert_eq!(to("GET a.test:80/x", 443, false), sent("https://a.test/x"));
    assert_eq!(
        to("POST a.test/api/y?q=1", 8443, false),
        sent("https://a.test:8443/api/y?q=1")
    );
    assert_eq!(to("GET [::1]:80//x", 443, false), sent("https://[::1]//x"));
    let told = Some("max-age=31536000; includeSubDomains; preload".to_owned());
    assert_eq!(to("GET a.test/x", 443, true), (None, None, told));
}

#[test]
fn who_names_no_host_cannot_be_sent_on() {
    let refuses = |filter: Filter| {
        let request = sample("GET a/x", &[]);
        let request = Request {
            host: b"",
            ..request.request()
        };
        let filters = [filter];
        let outcome = Walk::new(&filters).step(&request, &mut Edits::new());
        matches!(outcome, Outcome::Refuse(_))
    };
    assert!(refuses(Filter::https_redirect(308, 443).unwrap()));
    for (to, expected) in [
        ("https://{host}{path}?{query}", true),
        ("//{host}/", true),
        ("https://www.{host}:8443/", true),
        ("https://b.test/login?from={host}{path}", false),
        ("https://b.test?{host}", false),
        ("/login?from={host}", false),
        ("{path}?{host}", false),
        ("https://b.test{path}//{host}", false),
    ] {
        assert_eq!(
            refuses(Filter::redirect(302, to).unwrap()),
            expected,
            "{to}"
        );
    }
}

#[test]
fn respond() {
    let own = [("Content-Type".to_owned(), "text/html".to_owned())];
    check_edits(
        &[Filter::respond(200, "hi", &[])],
        &["+content-type: text/plain; charset=utf-8"],
    );
    check_edits(
        &[Filter::respond(200, "hi", &own)],
        &["+Content-Type: text/html"],
    );
    check_edits(&[Filter::respond(204, "", &[])], &[]);
    let filters = [Filter::respond(410, "gone", &[]).unwrap()];
    let request = sample("GET a/x", &[]);
    let outcome = Walk::new(&filters).step(&request.request(), &mut Edits::new());
    assert_eq!(
        outcome,
        Outcome::Respond(Answer {
            status: 410,
            body: b"gone"
        })
    );
}

fn check_error(filter: Result<Filter, FilterError>, expected: &str) {
    assert_eq!(filter.unwrap_err().to_string(), expected);
}

#[test]
fn errors() {
    let set = |name, value| Filter::set_header(name, value, On::Request);
    check_error(Filter::strip_prefix("api"), "a prefix begins with `/`");
    check_error(Filter::strip_prefix("/"), "the prefix `/` strips nothing");
    check_error(
        Filter::strip_prefix("/a/.."),
        "the prefix `/` strips nothing",
    );
    assert_eq!(
        Filter::strip_prefix("/api/*"),
        Err(FilterError::PrefixPattern)
    );
    assert_eq!(
        Filter::strip_prefix("/.."),
        Err(FilterError::Prefix(TargetError::AboveRoot))
    );
    check_error(set("x a", "1"), "\"x a\" is no header name");
    check_error(set("", "1"), "\"\" is no header name");
    check_error(
        set("x", "a\r\nb"),
        "the value of x holds a control character, or a blank at one end",
    );
    assert!(set("x", " a").is_err() && set("x", "a b\tc").is_ok());
    let reserved = "belongs to the connection or the framing; only the proxy sets it";
    for name in [
        "Content-Length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "keep-alive",
    ] {
        check_error(set(name, "1"), &format!("{name} {reserved}"));
        check_error(
            Filter::remove_header(name, On::Response),
            &format!("{name} {reserved}"),
        );
    }
    assert_eq!(
        Filter::remove_header("Host", On::Request),
        Err(FilterError::Host)
    );
    assert_eq!(
        Filter::set_header("Host", "a", On::Response),
        Err(FilterError::Host)
    );
    assert!(set("host", "a b").is_err());
    check_error(
        Filter::redirect(200, "/"),
        "200 is no redirect; expected 301, 302, 303, 307 or 308",
    );
    let known = "expected {host}, {path}, {query}, {source}, {sni}, {client_cert.subject}, \
         {client_cert.issuer}, {client_cert.serial}, {client_cert.san}, {client_cert.fingerprint} \
         or {client_cert.der}";
    check_error(
        Filter::redirect(302, "/{x}"),
        &format!("unknown placeholder {{x}}; {known}"),
    );
    check_error(
        Filter::redirect(302, "/{host"),
        &format!("unknown placeholder {{host; {known}"),
    );
    check_error(
        set("x", "{client_cert.sbject}"),
        &format!("unknown placeholder {{client_cert.sbject}}; {known}"),
    );
    assert!(set("host", "{sni}").is_err());
    assert!(set("report-to", "{\"group\":\"a\"}").is_ok());
    check_error(
        Filter::https_redirect(200, 443),
        "200 is no redirect; expected 301, 302, 303, 307 or 308",
    );
    for (days, subdomains) in [(364, true), (365, false)] {
        let age = Duration::from_secs(days * 24 * 3600);
        let refused = Filter::hsts(age, subdomains, true);
        assert_eq!(refused, Err(FilterError::HstsPreload));
    }
    check_error(
        Filter::redirect(302, ""),
        "a redirect needs to know where to",
    );
    check_error(
        Filter::respond(101, "", &[]),
        "101 is no final status; expected 200-599",
    );
    check_error(
        Filter::respond(204, "x", &[]),
        "a response with status 204 has no body",
    );
}
