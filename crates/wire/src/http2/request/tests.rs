//! Requests of HTTP/2 as heads of HTTP/1.

use proptest::prelude::*;

use super::*;
use crate::http1::{self, Decoded, HeadLimits, RequestHead, decode_request};

type Fields<'a> = &'a [(&'a str, &'a str)];
/// Pseudo-header fields, fields, whether the stream ended, and what is wrong with them.
type Row<'a> = (Vec<(&'a str, &'a str)>, Fields<'a>, bool, RequestFault);

fn run(
    pseudo: Fields<'_>,
    fields: Fields<'_>,
    ended: bool,
) -> Result<(String, Body), RequestFault> {
    let of = |name: &str| {
        let found = pseudo.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_bytes())
    };
    let pseudo = Pseudo {
        method: of(":method").unwrap_or_default(),
        scheme: of(":scheme"),
        authority: of(":authority"),
        path: of(":path"),
        protocol: of(":protocol"),
    };
    let fields = || {
        let fields = fields.iter();
        fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    };
    let mut out = Vec::new();
    let body = encode_request(&mut out, &pseudo, fields, ended)?;
    Ok((String::from_utf8_lossy(&out).into_owned(), body))
}

const GET: Fields<'_> = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "a.example"),
    (":path", "/x?y"),
];

#[test]
fn requests_become_heads() {
    let check = |pseudo, fields, ended, expected: &str, body| {
        let (head, framed) = run(pseudo, fields, ended).expect("a head");
        assert_eq!(head, expected.replace('\n', "\r\n"));
        assert_eq!(framed, body);
    };
    check(
        GET,
        &[("accept", "*/*")],
        true,
        "GET /x?y HTTP/1.1\nhost: a.example\naccept: */*\n\n",
        Body::None,
    );
    check(
        &[(":method", "GET"), (":path", "/")],
        &[
            ("cookie", "a=1"),
            ("host", "h:80"),
            ("x", ""),
            ("cookie", "b=2"),
        ],
        true,
        "GET / HTTP/1.1\nhost: h:80\nx: \ncookie: a=1; b=2\n\n",
        Body::None,
    );
    check(
        &[(":method", "POST"), (":authority", "a"), (":path", "/")],
        &[("content-length", "5"), ("host", "A")],
        false,
        "POST / HTTP/1.1\nhost: a\ncontent-length: 5\n\n",
        Body::Length,
    );
    check(
        &[(":method", "POST"), (":authority", "a"), (":path", "/")],
        &[("te", "trailers")],
        false,
        "POST / HTTP/1.1\nhost: a\nte: trailers\ntransfer-encoding: chunked\n\n",
        Body::Chunked,
    );
    // Chunks have a place for trailers; what is no length is left for others to refuse.
    let post = &[(":method", "POST"), (":authority", "a"), (":path", "/")];
    let announced = "POST / HTTP/1.1\nhost: a\ntrailer: x\ntransfer-encoding: chunked\n\n";
    let fields = [("content-length", "5"), ("trailer", "x")];
    check(post, &fields, false, announced, Body::Chunked);
    let odd = "POST / HTTP/1.1\nhost: a\ncontent-length: +5\ntrailer: x\n\n";
    let fields = [("content-length", "+5"), ("trailer", "x")];
    check(post, &fields, false, odd, Body::Length);
    let twice = "POST / HTTP/1.1\nhost: a\ncontent-length: 5\ncontent-length: 6\ntrailer: x\n\n";
    let fields = [
        ("content-length", "5"),
        ("content-length", "6"),
        ("trailer", "x"),
    ];
    check(post, &fields, false, twice, Body::Length);
    let none = "POST / HTTP/1.1\nhost: a\ncontent-length: 0\ntrailer: x\n\n";
    let fields = [("content-length", "0"), ("trailer", "x")];
    check(post, &fields, true, none, Body::None);
    check(
        &[(":method", "OPTIONS"), (":authority", "a"), (":path", "*")],
        &[("content-length", "0")],
        true,
        "OPTIONS * HTTP/1.1\nhost: a\ncontent-length: 0\n\n",
        Body::None,
    );
    check(
        &[(":method", "CONNECT"), (":authority", "a:443")],
        &[],
        false,
        "CONNECT a:443 HTTP/1.1\nhost: a:443\n\n",
        Body::None,
    );
    check(
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/chat"),
        ],
        &[("sec-websocket-version", "13")],
        false,
        "GET /chat HTTP/1.1\nhost: a\nsec-websocket-version: 13\nconnection: upgrade\nupgrade: websocket\n",
        Body::Tunnel,
    );
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    use RequestFault as F;
    let with = |name: &'static str, value: &'static str| {
        let mut pseudo = GET.to_vec();
        pseudo.retain(|(known, _)| *known != name);
        pseudo.push((name, value));
        pseudo
    };
    let get = || GET.to_vec();
    let table: &[Row<'_>] = &[
        (with(":method", "G T"), &[], true, F::Method),
        (
            with(":method", "GET / HTTP/1.1\r\nx:"),
            &[],
            true,
            F::Method,
        ),
        (with(":method", ""), &[], true, F::Method),
        (with(":scheme", "gopher"), &[], true, F::Scheme),
        (with(":path", ""), &[], true, F::Path),
        (with(":path", "x"), &[], true, F::Path),
        (with(":path", "*"), &[], true, F::Path),
        (with(":path", "/a b"), &[], true, F::Path),
        (with(":path", "/a#b"), &[], true, F::Path),
        (with(":path", "/ HTTP/1.1\r\nx: y"), &[], true, F::Path),
        (with(":path", "http://b/"), &[], true, F::Path),
        (with(":authority", "user@a"), &[], true, F::Authority),
        (with(":authority", ""), &[], true, F::Authority),
        (with(":authority", "a/b"), &[], true, F::Authority),
        (with(":authority", "a\r\nx: y"), &[], true, F::Authority),
        (get(), &[("host", "b.example")], true, F::Host),
        (
            get(),
            &[("host", "a.example"), ("host", "a.example")],
            true,
            F::Host,
        ),
        (get(), &[("connection", "close")], true, F::ConnectionField),
        (
            get(),
            &[("transfer-encoding", "chunked")],
            false,
            F::ConnectionField,
        ),
        (get(), &[("upgrade", "websocket")], true, F::ConnectionField),
        (get(), &[("keep-alive", "1")], true, F::ConnectionField),
        (
            get(),
            &[("proxy-connection", "close")],
            true,
            F::ConnectionField,
        ),
        (get(), &[("te", "gzip")], true, F::Te),
        (get(), &[("X-Upper", "1")], true, F::FieldName),
        (get(), &[("", "1")], true, F::FieldName),
        (get(), &[("a b", "1")], true, F::FieldName),
        (get(), &[("a:", "1")], true, F::FieldName),
        (get(), &[(":path", "/y")], true, F::FieldName),
        (get(), &[("x: y\r\nz", "1")], true, F::FieldName),
        (get(), &[("x", "1\r\ny: 2")], true, F::FieldValue),
        (get(), &[("x", "1\n")], true, F::FieldValue),
        (get(), &[("x", "\u{0}")], true, F::FieldValue),
        (get(), &[("x", " 1")], true, F::FieldValue),
        (get(), &[("x", "1\t")], true, F::FieldValue),
        (get(), &[("content-length", "5")], true, F::Length),
        (with(":protocol", "websocket"), &[], false, F::Protocol),
        (with(":method", "CONNECT"), &[], false, F::Path),
    ];
    for (pseudo, fields, ended, expected) in table {
        assert_eq!(
            run(pseudo, fields, *ended).map(|_| ()),
            Err(*expected),
            "{pseudo:?} {fields:?}"
        );
    }
}

#[test]
fn trailers_are_judged_as_fields_are() {
    let mut out = Vec::new();
    let good: [(&[u8], &[u8]); 2] = [(b"grpc-status", b"0"), (b"x", b"")];
    assert_eq!(encode_trailers(&mut out, good.into_iter()), Ok(()));
    assert_eq!(out, b"grpc-status: 0\r\nx: \r\n");
    for bad in [(":status", "200"), ("connection", "x"), ("x", "a\r\nb")] {
        let fields = [(bad.0.as_bytes(), bad.1.as_bytes())];
        assert!(
            encode_trailers(&mut out, fields.into_iter()).is_err(),
            "{bad:?}"
        );
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        "[a-z-]{1,12}".prop_map(String::into_bytes),
        "(content-length|transfer-encoding|host|cookie|te|connection|[0-9]{1,3}|chunked|a\r\nb: c)"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Whatever comes, what goes on is one head: HTTP/1 reads it whole or refuses it, and finds the same fields.
    #[test]
    fn what_comes_out_is_one_head(
        method in prop_oneof![Just(b"GET".to_vec()), Just(b"CONNECT".to_vec()), bytes()],
        authority in proptest::option::of(prop_oneof![Just(b"a:1".to_vec()), bytes()]),
        path in proptest::option::of(prop_oneof![Just(b"/p?q".to_vec()), bytes()]),
        protocol in proptest::option::weighted(0.1, bytes()),
        fields in proptest::collection::vec((bytes(), bytes()), 0..6),
        ended in any::<bool>(),
    ) {
        let pseudo = Pseudo {
            method: &method,
            scheme: None,
            authority: authority.as_deref(),
            path: path.as_deref(),
            protocol: protocol.as_deref(),
        };
        let pairs = || fields.iter().map(|(name, value)| (&name[..], &value[..]));
        let mut out = Vec::new();
        let Ok(body) = encode_request(&mut out, &pseudo, pairs, ended) else {
            return Ok(());
        };
        if body == Body::Tunnel {
            out.extend_from_slice(b"\r\n");
        }
        let mut head = RequestHead::default();
        match decode_request(&out, &HeadLimits::REQUEST, &mut head) {
            // A length that is none, no host, names that look like a length: HTTP/1's part.
            Err(_) => {}
            Ok(Decoded::Incomplete) => prop_assert!(false, "{:?}", String::from_utf8_lossy(&out)),
            Ok(Decoded::Complete(())) => {
                prop_assert_eq!(head.len, out.len());
                let framed = match head.body {
                    http1::Body::None => Body::None,
                    http1::Body::Chunked => Body::Chunked,
                    http1::Body::Length(length) => {
                        prop_assert!(!ended || length == 0);
                        if ended { Body::None } else { Body::Length }
                    }
                    http1::Body::UntilClose => unreachable!("never in a request"),
                };
                prop_assert_eq!(framed, if body == Body::Tunnel { Body::None } else { body });
                for field in head.fields.iter().filter(|field| field.known == Known::Other) {
                    let pair = (field.name.of(&out).to_vec(), field.value.of(&out).to_vec());
                    prop_assert!(fields.contains(&pair), "{:?}", pair);
                }
            }
        }
    }
}
