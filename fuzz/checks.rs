//! What must hold for every input of each decoder. The fuzz targets call these
//! with what the fuzzer invents; a test of `evenkeel-wire` includes this file
//! and calls them with the corpus and with random bytes.

use evenkeel_wire::agent_check::{AgentLine, PERCENT_MAX, decode_agent_line, line_end};
use evenkeel_wire::client_hello::ClientHello;
use evenkeel_wire::http1::{
    Body, ChunkedDecoder, Decoded, HeadLimits, Keep, Method, RequestHead, ResponseHead, Span,
    decode_request, decode_response, encode, is_host, is_token, trailer_fields,
};
use evenkeel_wire::http2::{self, Pseudo, encode_request};

/// A check, by the name of its target and of its corpus folder.
pub(crate) type Check = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const CHECKS: [Check; 7] = [
    ("http2_request", http2_request),
    ("http2_response", http2_response),
    ("request", request),
    ("response", response),
    ("chunked", chunked),
    ("agent_line", agent_line),
    ("client_hello", client_hello),
];

/// Requests of HTTP/2, their parts between NULs: what becomes of one is one head of HTTP/1, or refused there, and what
/// follows it is framed as both sides think.
pub(crate) fn http2_request(data: &[u8]) {
    let ended = data.len().is_multiple_of(2);
    let mut parts = data.split(|byte| *byte == 0);
    let mut pseudo = || parts.next().filter(|part| !part.is_empty());
    let pseudo = Pseudo {
        method: pseudo().unwrap_or_default(),
        scheme: pseudo(),
        authority: pseudo(),
        path: pseudo(),
        protocol: pseudo(),
    };
    let parts: Vec<&[u8]> = parts.collect();
    let fields = || {
        let pairs = parts.chunks_exact(2);
        pairs.map(|pair| (pair[0], pair[1]))
    };
    let mut out = Vec::new();
    let Ok(body) = encode_request(&mut out, &pseudo, fields, ended) else {
        return;
    };
    if body == http2::Body::Tunnel {
        out.extend_from_slice(encode::CRLF);
    }
    let mut head = RequestHead::default();
    let wide = HeadLimits {
        head_bytes: usize::MAX,
        headers: 4096,
        uri_bytes: usize::MAX,
    };
    match decode_request(&out, &wide, &mut head) {
        Err(_) => {}
        Ok(Decoded::Incomplete) => panic!("half a head"),
        Ok(Decoded::Complete(())) => {
            assert_eq!(head.len, out.len());
            assert_eq!(head.body == Body::Chunked, body == http2::Body::Chunked);
            assert_eq!(head.upgrade.is_some(), body == http2::Body::Tunnel);
            assert!(!ended || matches!(head.body, Body::None | Body::Length(0)));
        }
    }
}

/// Responses of HTTP/2, here as lines: the status, then a field each, `name=value`. What comes out is one head of HTTP/1,
/// or one that HTTP/1 refuses: nothing that came can end it early or begin another.
pub(crate) fn http2_response(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let digits = first.iter().take_while(|byte| byte.is_ascii_digit());
    let status = digits.take(4).fold(0, |status: u16, digit| {
        status * 10 + u16::from(digit - b'0')
    });
    let fields: Vec<_> = lines
        .filter_map(|line| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            Some((&line[..at], &line[at + 1..]))
        })
        .collect();
    let asked = http2::Asked {
        method: if first.contains(&b'H') {
            Method::Head
        } else {
            Method::Get
        },
        trailers: first.contains(&b't'),
        protocol: first.contains(&b'u').then_some(b"websocket"),
        accept: None,
    };
    let ended = first.contains(&b'e');
    let mut out = Vec::new();
    let Ok(body) = http2::encode_response(&mut out, status, fields.iter().copied(), &asked, ended)
    else {
        return;
    };
    let mut head = ResponseHead::default();
    let limits = HeadLimits {
        head_bytes: usize::MAX,
        headers: 4096,
        uri_bytes: 0,
    };
    match decode_response(&out, asked.method, &limits, &mut head) {
        Err(_) => {}
        Ok(Decoded::Incomplete) => panic!("half a head"),
        Ok(Decoded::Complete(())) => {
            assert_eq!(head.len, out.len());
            if body == http2::Body::Tunnel {
                assert_eq!(head.status, 101);
            } else {
                assert_eq!(head.status, status);
                assert_eq!(body == http2::Body::Chunked, head.body == Body::Chunked);
            }
        }
    }
}

/// First messages of TLS clients: no panic, a name that a host can have, incomplete before its end, and nothing behind it
/// counts.
pub(crate) fn client_hello(data: &[u8]) {
    let Ok(Decoded::Complete(hello)) = ClientHello::decode(data) else {
        return;
    };
    if let Some(name) = &hello.server_name {
        assert!(
            !name.is_empty() && name.len() <= 255 && !name.bytes().any(|b| b.is_ascii_uppercase())
        );
    }
    assert!(hello.alpn.iter().all(|name| !name.is_empty()));
    let more = [data, b"more"].concat();
    assert_eq!(ClientHello::decode(&more), Ok(Decoded::Complete(hello)));
    assert_ne!(ClientHello::decode(&data[..4]), ClientHello::decode(data));
}

/// Agents' lines: any bytes are one, what is kept is bounded and fit for a log, and it is the same when written anew.
pub(crate) fn agent_line(data: &[u8]) {
    let said = decode_agent_line(data);
    let text = said.to_string();
    assert!(text.len() <= 1024 && !text.chars().any(char::is_control));
    assert!(said.percent.is_none_or(|percent| percent <= PERCENT_MAX));
    assert_ne!(said.connections_max, Some(0));
    let again = decode_agent_line(text.as_bytes());
    assert_eq!(again, AgentLine { unknown: 0, ..said });
    let end = line_end(data).unwrap_or(data.len());
    assert_eq!(decode_agent_line(&data[..end]).to_string(), text);
}

/// Requests: no panic, spans within the head, no line end or NUL inside of
/// anything, incomplete before its end, and the same when written anew.
pub(crate) fn request(data: &[u8]) {
    let mut head = RequestHead::default();
    let limits = &HeadLimits::REQUEST;
    let Ok(Decoded::Complete(())) = decode_request(data, limits, &mut head) else {
        return;
    };
    let whole = &data[..head.len];
    assert!(whole.ends_with(b"\r\n\r\n"));
    assert_ne!(head.body, Body::UntilClose);
    assert!(is_token(head.method_text.of(data)));
    assert!(
        head.host
            .is_none_or(|h| h.is_empty() || is_host(h.of(data)))
    );
    let fields = head.fields.iter().map(|f| (f.name, f.value));
    check_fields(data, head.len, fields);

    let mut scratch = RequestHead::default();
    for cut in [head.len - 1, head.len / 2, head.len / 3] {
        assert_eq!(
            decode_request(&data[..cut], limits, &mut scratch),
            Ok(Decoded::Incomplete)
        );
    }

    if head.version == evenkeel_wire::http1::Version::Http11 {
        let mut out = Vec::new();
        encode::request_line(&mut out, head.method_text.of(data), head.target.of(data));
        for field in &head.fields {
            encode::field(&mut out, field.name.of(data), field.value.of(data));
        }
        out.extend_from_slice(encode::CRLF);
        let wide = HeadLimits {
            head_bytes: usize::MAX,
            ..*limits
        };
        assert_eq!(
            decode_request(&out, &wide, &mut scratch),
            Ok(Decoded::Complete(()))
        );
        assert_eq!(scratch.len, out.len());
        assert_eq!(
            (scratch.body, scratch.keep_alive, scratch.present),
            (head.body, head.keep_alive, head.present)
        );
    }
}

/// Responses: the same, for each method that changes their meaning.
pub(crate) fn response(data: &[u8]) {
    let limits = &HeadLimits::RESPONSE;
    for method in [Method::Get, Method::Head] {
        let mut head = ResponseHead::default();
        let Ok(Decoded::Complete(())) = decode_response(data, method, limits, &mut head) else {
            return;
        };
        assert!(data[..head.len].ends_with(b"\r\n\r\n"));
        assert!((100..1000).contains(&head.status));
        if method == Method::Head || matches!(head.status, 100..200 | 204 | 304) {
            assert_eq!(head.body, Body::None);
        }
        if head.body == Body::UntilClose {
            assert!(!head.keep_alive);
        }
        let fields = head.fields.iter().map(|f| (f.name, f.value));
        check_fields(data, head.len, fields);
        let mut scratch = ResponseHead::default();
        assert_eq!(
            decode_response(&data[..head.len - 1], method, limits, &mut scratch),
            Ok(Decoded::Incomplete)
        );
    }
}

/// Chunked bodies: the first byte says how the rest is cut into pieces; the
/// result is that of one piece, and what was kept as chunks holds the same data.
pub(crate) fn chunked(data: &[u8]) {
    let Some((&step, body)) = data.split_first() else {
        return;
    };
    let whole = decode_in_pieces(body, body.len().max(1), Keep::DataOnly);
    let pieces = decode_in_pieces(body, usize::from(step).max(1), Keep::DataOnly);
    let framed = decode_in_pieces(body, usize::from(step).max(1), Keep::Framing);
    match (&whole, &pieces) {
        (Some(whole), Some(pieces)) => assert_eq!(whole, pieces),
        (None, None) => {}
        _ => panic!("the pieces decide whether {body:?} is valid"),
    }
    match (whole, framed) {
        (Some(whole), Some(mut framed)) if whole.end.is_some() => {
            framed.kept.extend_from_slice(encode::LAST_CHUNK);
            framed.kept.extend_from_slice(encode::CRLF);
            let again = decode_in_pieces(&framed.kept, framed.kept.len(), Keep::DataOnly);
            let again = again.expect("what was kept is valid");
            assert_eq!(again.kept, whole.kept);
            assert_eq!(again.end, Some(framed.kept.len()));
        }
        (Some(_), Some(_)) | (None, None) => {}
        _ => panic!("what is kept decides whether {body:?} is valid"),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    kept: Vec<u8>,
    /// Where the body ended, if it did.
    end: Option<usize>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Feeds `body` in pieces of `step` bytes, as a connection would.
fn decode_in_pieces(body: &[u8], step: usize, keep: Keep) -> Option<Outcome> {
    let mut decoder = ChunkedDecoder::default();
    let mut outcome = Outcome {
        kept: Vec::new(),
        end: None,
        trailers: Vec::new(),
    };
    let mut buffer: Vec<u8> = Vec::new();
    let mut taken = 0;
    for piece in body.chunks(step) {
        buffer.extend_from_slice(piece);
        let before = buffer.clone();
        let progress = decoder.decode(&mut buffer, keep).ok()?;
        assert!(progress.kept <= progress.consumed);
        assert_eq!(buffer[progress.consumed..], before[progress.consumed..]);
        outcome.kept.extend_from_slice(&buffer[..progress.kept]);
        taken += progress.consumed;
        if let Some(trailers) = progress.trailers {
            assert_eq!(buffer[trailers.clone()], before[trailers.clone()]);
            for (name, value) in trailer_fields(&buffer[trailers]) {
                assert!(is_token(name));
                outcome.trailers.push((name.to_vec(), value.to_vec()));
            }
        }
        buffer.drain(..progress.consumed);
        if progress.end {
            outcome.end = Some(taken);
            break;
        }
    }
    Some(outcome)
}

fn check_fields(data: &[u8], len: usize, fields: impl Iterator<Item = (Span, Span)>) {
    for (name, value) in fields {
        assert!((value.start + value.len) as usize <= len - 4);
        assert!(is_token(name.of(data)));
        assert!(
            !value
                .of(data)
                .iter()
                .any(|b| matches!(b, b'\r' | b'\n' | 0))
        );
    }
}
