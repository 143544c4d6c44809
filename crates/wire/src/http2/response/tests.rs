//! Tables of heads, and a property: whatever comes, one head comes out.

use proptest::prelude::*;

use super::*;
use crate::http1::{self, Decoded, HeadLimits, ResponseHead, Version, decode_response};

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: Asked<'_> = Asked {
    method: Method::Get,
    trailers: false,
    protocol: None,
    accept: None,
};

fn run(
    status: u16,
    fields: Fields<'_>,
    asked: &Asked<'_>,
    ended: bool,
) -> Result<(String, Body), ResponseFault> {
    let mut out = Vec::new();
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let body = encode_response(&mut out, status, fields, asked, ended)?;
    let text = String::from_utf8(out).expect("ASCII");
    Ok((text.replace("\r\n", "\n"), body))
}

#[track_caller]
fn check(
    status: u16,
    fields: Fields<'_>,
    asked: &Asked<'_>,
    ended: bool,
    expected: &str,
    body: Body,
) {
    assert_eq!(
        run(status, fields, asked, ended),
        Ok((expected.to_owned(), body))
    );
}

#[test]
fn a_head_of_http1_comes_out() {
    check(
        200,
        &[("content-length", "5"), ("x", "1"), ("x", "2")],
        &GET,
        false,
        "HTTP/1.1 200 \nx: 1\nx: 2\ncontent-length: 5\n\n",
        Body::Length,
    );
    check(
        404,
        &[("content-type", "text/plain")],
        &GET,
        false,
        "HTTP/1.1 404 \ncontent-type: text/plain\ntransfer-encoding: chunked\n\n",
        Body::Chunked,
    );
    check(
        200,
        &[],
        &GET,
        true,
        "HTTP/1.1 200 \ncontent-length: 0\n\n",
        Body::None,
    );
    check(
        200,
        &[("content-length", "0")],
        &GET,
        true,
        "HTTP/1.1 200 \ncontent-length: 0\n\n",
        Body::None,
    );
    check(204, &[], &GET, true, "HTTP/1.1 204 \n\n", Body::None);
    check(
        304,
        &[("content-length", "77")],
        &GET,
        true,
        "HTTP/1.1 304 \ncontent-length: 77\n\n",
        Body::None,
    );
    let head = Asked {
        method: Method::Head,
        ..GET
    };
    check(
        200,
        &[("content-length", "77")],
        &head,
        true,
        "HTTP/1.1 200 \ncontent-length: 77\n\n",
        Body::None,
    );
}

#[test]
fn who_wants_trailers_gets_chunks() {
    let asked = Asked {
        trailers: true,
        ..GET
    };
    check(
        200,
        &[("content-length", "5")],
        &asked,
        false,
        "HTTP/1.1 200 \ntransfer-encoding: chunked\n\n",
        Body::Chunked,
    );
}

#[test]
fn so_does_who_is_told_that_trailers_follow() {
    check(
        200,
        &[("trailer", "x-sum"), ("content-length", "5")],
        &GET,
        false,
        "HTTP/1.1 200 \ntrailer: x-sum\ntransfer-encoding: chunked\n\n",
        Body::Chunked,
    );
}

#[test]
fn success_of_an_extended_connect_is_a_switch() {
    let asked = Asked {
        protocol: Some(b"websocket"),
        accept: Some(b"abc="),
        ..GET
    };
    check(
        200,
        &[("sec-websocket-protocol", "chat"), ("content-length", "5")],
        &asked,
        false,
        "HTTP/1.1 101 \nsec-websocket-protocol: chat\nconnection: upgrade\nupgrade: websocket\nsec-websocket-accept: abc=\n\n",
        Body::Tunnel,
    );
    check(
        403,
        &[],
        &asked,
        true,
        "HTTP/1.1 403 \ncontent-length: 0\n\n",
        Body::None,
    );
}

#[test]
fn what_is_malformed_is_refused() {
    use ResponseFault as F;
    let table: &[(u16, Fields<'_>, bool, F)] = &[
        (101, &[], true, F::Status),
        (99, &[], true, F::Status),
        (1000, &[], true, F::Status),
        (200, &[("content-length", "5")], true, F::Length),
        (
            200,
            &[("content-length", "5"), ("content-length", "5")],
            false,
            F::Length,
        ),
        (
            200,
            &[("transfer-encoding", "chunked")],
            false,
            F::Field(RequestFault::ConnectionField),
        ),
        (
            200,
            &[("connection", "close")],
            false,
            F::Field(RequestFault::ConnectionField),
        ),
        (
            200,
            &[("x", "a\r\ny: b")],
            false,
            F::Field(RequestFault::FieldValue),
        ),
        (200, &[("X", "a")], false, F::Field(RequestFault::FieldName)),
        (
            200,
            &[(":status", "200")],
            false,
            F::Field(RequestFault::FieldName),
        ),
    ];
    for (status, fields, ended, expected) in table {
        assert_eq!(
            run(*status, fields, &GET, *ended),
            Err(*expected),
            "{status} {fields:?}"
        );
    }
    let mut out = Vec::new();
    let none = std::iter::empty();
    assert_eq!(encode_interim(&mut out, 101, none), Err(F::Status));
}

#[test]
fn an_interim_response_says_no_length() {
    let mut out = Vec::new();
    let fields: [(&[u8], &[u8]); 2] = [(b"link", b"</a>"), (b"content-length", b"3")];
    assert_eq!(encode_interim(&mut out, 103, fields.into_iter()), Ok(()));
    assert_eq!(out, b"HTTP/1.1 103 \r\nlink: </a>\r\n\r\n");
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        "[a-z-]{1,12}".prop_map(String::into_bytes),
        "(content-length|transfer-encoding|te|connection|[0-9]{1,3}|chunked|a\r\nb: c)"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Whatever comes, what goes on is one head: HTTP/1 reads it whole or refuses it, and finds the same fields and the
    /// same end of the body.
    #[test]
    fn what_comes_out_is_one_head(
        status in prop_oneof![Just(200), Just(204), Just(304), 0_u16..1100],
        fields in proptest::collection::vec((bytes(), bytes()), 0..6),
        head in any::<bool>(),
        trailers in any::<bool>(),
        ended in any::<bool>(),
    ) {
        let method = if head { Method::Head } else { Method::Get };
        let asked = Asked { method, trailers, ..GET };
        let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        let mut out = Vec::new();
        let Ok(body) = encode_response(&mut out, status, pairs, &asked, ended) else {
            return Ok(());
        };
        let mut decoded = ResponseHead::default();
        match decode_response(&out, method, &HeadLimits::RESPONSE, &mut decoded) {
            // A length that is none, names that look like a length: HTTP/1's part.
            Err(_) => {}
            Ok(Decoded::Incomplete) => prop_assert!(false, "{:?}", String::from_utf8_lossy(&out)),
            Ok(Decoded::Complete(())) => {
                prop_assert_eq!(decoded.len, out.len());
                prop_assert_eq!(decoded.status, status);
                prop_assert_eq!(decoded.version, Version::Http11);
                let framed = match decoded.body {
                    http1::Body::None => Body::None,
                    http1::Body::Length(0) if ended => Body::None,
                    http1::Body::Length(_) => Body::Length,
                    http1::Body::Chunked => Body::Chunked,
                    http1::Body::UntilClose => unreachable!("never written"),
                };
                prop_assert_eq!(framed, body);
                for field in decoded.fields.iter().filter(|field| field.known == Known::Other) {
                    let pair = (field.name.of(&out).to_vec(), field.value.of(&out).to_vec());
                    prop_assert!(fields.contains(&pair), "{:?}", pair);
                }
            }
        }
    }
}
