//! What holds for every message and every way of cutting it.

use evenkeel_wire::http1::{
    Body, ChunkedDecoder, Decoded, Field, HeadLimits, Keep, Method, RequestError, RequestHead,
    ResponseHead, Span, Version, decode_request, decode_response, encode, reason_phrase,
};
use proptest::prelude::*;

use super::checks;

/// Pieces that heads are made of, good and bad, so that random sequences of them
/// come near the decoders' decisions.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "GET / HTTP/2.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 204 \r\n",
    "HTTP/1.1 101 X\r\n",
    "Host: a\r\n",
    "Host:\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Connection: close, x\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "X: y\r\n",
    "X : y\r\n",
    " fold\r\n",
    "\r\n",
    "\r",
    "\n",
    "\0",
    " ",
    ":",
    "#",
    "0\r\n",
    "5\r\nhello\r\n",
    "a;b=c\r\n",
    "\u{e4}",
];

fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..12);
    prop_oneof![
        pieces.prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..300),
    ]
}

/// A field that is valid and does not matter to the codec.
fn any_field() -> impl Strategy<Value = (String, String)> {
    ("x-[a-z0-9!#_]{0,20}", "([!-~ä]([ -~\t]{0,60}[!-~])?)?")
}

#[derive(Debug, Clone)]
struct Message {
    method: String,
    target: String,
    status: u16,
    fields: Vec<(String, String)>,
    body: Body,
}

fn any_message() -> impl Strategy<Value = Message> {
    let body = prop_oneof![
        Just(Body::None),
        any::<u64>().prop_map(Body::Length),
        Just(Body::Chunked),
    ];
    (
        "GET|POST|PUT|[A-Z]{1,12}",
        "/[!\"$-~]{0,80}",
        200..1000_u16,
        prop::collection::vec(any_field(), 0..20),
        body,
    )
        .prop_map(|(method, target, status, fields, body)| Message {
            method,
            target,
            status,
            fields,
            body,
        })
}

fn write_fields(message: &Message, out: &mut Vec<u8>) {
    encode::field(out, b"host", b"example.com:80");
    for (name, value) in &message.fields {
        encode::field(out, name.as_bytes(), value.as_bytes());
    }
    match message.body {
        Body::Length(length) => encode::content_length(out, length),
        Body::Chunked => encode::field(out, b"transfer-encoding", b"chunked"),
        Body::None | Body::UntilClose => {}
    }
    out.extend_from_slice(encode::CRLF);
}

fn request(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode::request_line(
        &mut out,
        message.method.as_bytes(),
        message.target.as_bytes(),
    );
    write_fields(message, &mut out);
    out
}

fn response(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    let reason = reason_phrase(message.status).as_bytes();
    encode::status_line(&mut out, message.status, reason);
    write_fields(message, &mut out);
    out
}

/// Feeds ever longer prefixes: until the whole is decided, no prefix is anything
/// but incomplete or already refused, and afterwards nothing changes any more.
fn same_at_every_cut<H: Default + PartialEq + std::fmt::Debug, E: std::fmt::Debug + PartialEq>(
    input: &[u8],
    decode: impl Fn(&[u8], &mut H) -> Result<Decoded<()>, E>,
) {
    let mut decided: Option<(Result<Decoded<()>, E>, H)> = None;
    for cut in 0..=input.len() {
        let mut head = H::default();
        let result = decode(&input[..cut], &mut head);
        match &decided {
            None if result == Ok(Decoded::Incomplete) => {}
            None => decided = Some((result, head)),
            Some((Ok(_), first)) => {
                assert_eq!((&result, &head), (&Ok(Decoded::Complete(())), first));
            }
            Some((Err(error), _)) => assert!(result.is_err(), "{error:?} turned into {result:?}"),
        }
    }
}

/// What a decoded head is for another parser.
type Parts<'a> = (Vec<&'a [u8]>, Vec<(&'a [u8], &'a [u8])>, usize);

fn parts<'a>(line: &[Span], fields: &[Field], len: usize, bytes: &'a [u8]) -> Parts<'a> {
    let line = line.iter().map(|span| span.of(bytes)).collect();
    let fields = fields
        .iter()
        .map(|field| (field.name.of(bytes), field.value.of(bytes)));
    (line, fields.collect(), len)
}

fn parts_by_httparse<'a>(
    line: &[Option<&'a str>],
    fields: &[httparse::Header<'a>],
    len: httparse::Status<usize>,
) -> Parts<'a> {
    let line = line
        .iter()
        .map(|part| part.expect("it is complete").as_bytes())
        .collect();
    let fields = fields
        .iter()
        .map(|field| (field.name.as_bytes(), field.value));
    (line, fields.collect(), len.unwrap())
}

/// Whatever head is accepted here is one for httparse too, and made of the same parts.
fn read_as_by_httparse(bytes: &[u8]) {
    let mut room = [httparse::EMPTY_HEADER; 512];
    let mut head = RequestHead::default();
    if decode_request(bytes, &HeadLimits::REQUEST, &mut head) == Ok(Decoded::Complete(())) {
        let mut theirs = httparse::Request::new(&mut room);
        let len = theirs.parse(bytes).expect("both accept it");
        assert_eq!(
            parts(
                &[head.method_text, head.target],
                &head.fields,
                head.len,
                bytes
            ),
            parts_by_httparse(&[theirs.method, theirs.path], theirs.headers, len)
        );
        assert_eq!(head.version == Version::Http11, theirs.version == Some(1));
    }
    let mut head = ResponseHead::default();
    if decode_response(bytes, Method::Get, &HeadLimits::RESPONSE, &mut head)
        == Ok(Decoded::Complete(()))
    {
        let mut theirs = httparse::Response::new(&mut room);
        let len = theirs.parse(bytes).expect("both accept it");
        // httparse shows none that is not ASCII.
        let reason = match head.reason.of(bytes).is_ascii() {
            true => head.reason,
            false => Span::default(),
        };
        assert_eq!(
            parts(&[reason], &head.fields, head.len, bytes),
            parts_by_httparse(&[theirs.reason], theirs.headers, len)
        );
        assert_eq!(Some(head.status), theirs.code);
        assert_eq!(head.version == Version::Http11, theirs.version == Some(1));
    }
}

proptest! {
    #[test]
    fn heads_are_read_as_by_another_parser(
        input in any_input(),
        message in any_message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        read_as_by_httparse(&input);
        for mut bytes in [request(&message), response(&message)] {
            read_as_by_httparse(&bytes);
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            read_as_by_httparse(&bytes);
        }
    }

    #[test]
    fn agents_lines_hold(
        pieces in prop::collection::vec(prop::sample::select(&["ready", "DRAIN", "maint", "up", "down", "fail#x y", "stopped", "7%", "maxconn:9", "#", "\u{e4}\u{7}", "0%"][..]), 0..8),
        between in prop::sample::select(&[" ", ",", "\t ", "\n", ""][..]),
        any in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        checks::agent_line(pieces.join(between).as_bytes());
        checks::agent_line(&any);
    }

    #[test]
    fn decoders_never_panic(input in any_input()) {
        for (_, check) in checks::CHECKS {
            check(&input);
        }
    }

    #[test]
    fn any_cut_of_anything_is_decided_alike(input in any_input()) {
        same_at_every_cut(&input, |bytes, head| {
            decode_request(bytes, &HeadLimits::REQUEST, head)
        });
        same_at_every_cut(&input, |bytes, head| {
            decode_response(bytes, Method::Get, &HeadLimits::RESPONSE, head)
        });
    }

    #[test]
    fn any_cut_of_a_message_is_incomplete(message in any_message(), byte in any::<u8>()) {
        let mut bytes = request(&message);
        let len = bytes.len();
        bytes.push(byte);
        same_at_every_cut(&bytes, |bytes, head: &mut RequestHead| {
            let result = decode_request(bytes, &HeadLimits::REQUEST, head);
            assert!(result.is_ok());
            assert_eq!(result == Ok(Decoded::Complete(())), bytes.len() >= len);
            result
        });
    }

    #[test]
    fn a_request_that_is_written_and_read_is_itself(message in any_message()) {
        let bytes = request(&message);
        let mut head = RequestHead::default();
        let result = decode_request(&bytes, &HeadLimits::REQUEST, &mut head);
        prop_assert_eq!(result, Ok(Decoded::Complete(())));
        prop_assert_eq!(head.len, bytes.len());
        prop_assert_eq!(head.method_text.of(&bytes), message.method.as_bytes());
        prop_assert_eq!(head.method, Method::of(message.method.as_bytes()));
        prop_assert_eq!(head.target.of(&bytes), message.target.as_bytes());
        prop_assert_eq!(head.body, message.body);
        for ((name, value), field) in message.fields.iter().zip(head.fields.iter().skip(1)) {
            prop_assert_eq!(field.name.of(&bytes), name.as_bytes());
            prop_assert_eq!(field.value.of(&bytes), value.as_bytes());
        }
    }

    #[test]
    fn a_response_that_is_written_and_read_is_itself(message in any_message()) {
        let bytes = response(&message);
        let mut head = ResponseHead::default();
        let limits = &HeadLimits::RESPONSE;
        let result = decode_response(&bytes, Method::Get, limits, &mut head);
        prop_assert_eq!(result, Ok(Decoded::Complete(())));
        prop_assert_eq!(head.status, message.status);
        prop_assert_eq!(head.reason.of(&bytes), reason_phrase(message.status).as_bytes());
        let body = match (message.status, message.body) {
            (204 | 304, _) => Body::None,
            (_, Body::None) => Body::UntilClose,
            (_, body) => body,
        };
        prop_assert_eq!(head.body, body);
        for ((name, value), field) in message.fields.iter().zip(head.fields.iter().skip(1)) {
            prop_assert_eq!(field.name.of(&bytes), name.as_bytes());
            prop_assert_eq!(field.value.of(&bytes), value.as_bytes());
        }
    }

    #[test]
    fn a_tight_limit_refuses_whole_and_in_part(message in any_message(), less in 1..40_usize) {
        let bytes = request(&message);
        let limits = HeadLimits {
            head_bytes: bytes.len() - less,
            ..HeadLimits::REQUEST
        };
        let mut head = RequestHead::default();
        for input in [&bytes[..], &bytes[..limits.head_bytes]] {
            let error = decode_request(input, &limits, &mut head).unwrap_err();
            prop_assert_eq!(error.status(), 431);
        }
    }

    #[test]
    fn chunks_that_are_written_and_read_are_the_payload(
        chunks in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..200), "(;[a-z]{1,9}(=\"[ -!#-~]{0,9}\")?)?"),
            0..8,
        ),
        cuts in prop::collection::vec(1..64_usize, 1..40),
        framing in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut wire = Vec::new();
        for (data, extension) in &chunks {
            encode::chunk_head(&mut wire, data.len() as u64);
            wire.truncate(wire.len() - 2);
            wire.extend_from_slice(extension.as_bytes());
            for part in [encode::CRLF, data.as_slice(), encode::CRLF] {
                wire.extend_from_slice(part);
            }
        }
        wire.extend_from_slice(b"0\r\nx-sum: 1\r\n\r\n");
        let len = wire.len();
        wire.extend_from_slice(&rest);

        let mut expected = Vec::new();
        for (data, _) in &chunks {
            if framing {
                encode::chunk_head(&mut expected, data.len() as u64);
            }
            expected.extend_from_slice(data);
            if framing {
                expected.extend_from_slice(encode::CRLF);
            }
        }

        let keep = if framing { Keep::Framing } else { Keep::DataOnly };
        let (mut decoder, mut buffer, mut kept) = (ChunkedDecoder::default(), vec![], vec![]);
        let (mut fed, mut taken) = (0, 0);
        for cut in cuts.iter().cycle() {
            let end = (fed + cut).min(wire.len());
            buffer.extend_from_slice(&wire[fed..end]);
            fed = end;
            let progress = decoder.decode(&mut buffer, keep).unwrap();
            kept.extend_from_slice(&buffer[..progress.kept]);
            taken += progress.consumed;
            if progress.end {
                prop_assert_eq!(&buffer[progress.trailers.unwrap()], b"x-sum: 1\r\n");
                break;
            }
            prop_assert!(fed < wire.len(), "the end was missed");
            buffer.drain(..progress.consumed);
        }
        prop_assert_eq!(taken, len);
        prop_assert_eq!(kept, expected);
    }
}

#[test]
fn every_single_byte_in_place_of_another_never_makes_two_readings() {
    // A head that is changed in one byte is refused, or still ends where it did.
    let input = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y\r\n\r\nGET / HTTP/1";
    let len = input.len() - 12;
    let mut head = RequestHead::default();
    for at in 0..len {
        for byte in 0..=255 {
            let mut changed = input.to_vec();
            changed[at] = byte;
            match decode_request(&changed, &HeadLimits::REQUEST, &mut head) {
                Ok(Decoded::Complete(())) => assert_eq!(head.len, len),
                Ok(Decoded::Incomplete) => panic!("byte {byte} at {at} hides the end"),
                Err(RequestError::UriTooLong) => unreachable!("it is short"),
                Err(_) => {}
            }
        }
    }
}
