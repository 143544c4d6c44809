//! Chunked bodies: what is kept, what is refused, what waits.

use super::*;

/// `kept|consumed|end trailers`, or the error.
fn told(input: &str, keep: Keep) -> String {
    let mut bytes = input.as_bytes().to_vec();
    let progress = match ChunkedDecoder::default().decode(&mut bytes, keep) {
        Ok(progress) => progress,
        Err(error) => return format!("{error:?}"),
    };
    let mut told = format!(
        "{}|{}",
        String::from_utf8_lossy(&bytes[..progress.kept]),
        progress.consumed
    );
    assert_eq!(
        bytes[progress.consumed..],
        input.as_bytes()[progress.consumed..]
    );
    if let Some(trailers) = progress.trailers {
        assert_eq!(bytes[trailers.clone()], input.as_bytes()[trailers.clone()]);
        told += &format!("|{}", String::from_utf8_lossy(&bytes[trailers]));
    }
    assert_eq!(progress.end, told.matches('|').count() == 2);
    told
}

#[track_caller]
fn check(input: &str, expected: &str) {
    assert_eq!(told(input, Keep::Framing), expected, "{input:?}");
}

#[track_caller]
fn check_data(input: &str, expected: &str) {
    assert_eq!(told(input, Keep::DataOnly), expected, "{input:?}");
}

#[test]
fn chunks_are_kept_as_they_are() {
    check("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n|15|");
    check("5\r\nhello\r\n0\r\n\r\nNEXT", "5\r\nhello\r\n|15|");
    check("0\r\n\r\n", "|5|");
    check("a\r\n0123456789\r\n", "a\r\n0123456789\r\n|15");
    check("A\r\n01234", "A\r\n01234|8");
    check("5\r\nhello", "5\r\nhello|8");
    check("5\r\nhello\r", "5\r\nhello|8");
    check("", "|0");
}

#[test]
fn extensions_and_zeros_are_dropped() {
    check("5;a=b\r\nhello\r\n0;c\r\n\r\n", "5\r\nhello\r\n|21|");
    check("005\r\nhello\r\n000\r\n\r\n", "5\r\nhello\r\n|19|");
    check("0000000000000005\r\nhello", "5\r\nhello|23");
    check("5 ;a=\"b\t;\"\r\nhello", "5\r\nhello|17");
    check("5\t;\r\nhello", "5\r\nhello|10");
    check(
        "1\r\na\r\n1;x\r\nb\r\n1\r\nc\r\n",
        "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n|20",
    );
}

#[test]
fn only_the_data_is_kept_when_asked() {
    check_data(
        "5\r\nhello\r\n6;x\r\n world\r\n0\r\n\r\n",
        "hello world|28|",
    );
    check_data("5\r\nhel", "hel|6");
}

#[test]
fn incomplete_lines_wait() {
    for input in ["5", "5\r", "5;a", "5;a=b\r", "ffffffffffffffff"] {
        check(input, "|0");
    }
    check("0\r\n", "|3");
    check("0\r\n\r", "|3");
    check("0\r\nA: b\r\n", "|3");
}

#[test]
fn bad_sizes() {
    for input in [
        "\r\n",
        "x",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "\n",
        "\r",
        "1\n",
        "1\rX",
        "1x\r\n",
        "1,\r\n",
        ";a\r\n",
        "00000000000000001\r\n",
        "ffffffffffffffff0",
    ] {
        check(input, "Size");
    }
}

#[test]
fn bad_extensions() {
    for input in [
        "1;a\n",
        "1;a\rb\r\n",
        "1;\0\r\n",
        "1 \r\n",
        "1 a\r\n",
        "1;\n\r\n",
    ] {
        check(input, "Extension");
    }
    let of_length = |len: usize| format!("1;{}", "a".repeat(len - 1));
    check(&format!("{}\r\nx", of_length(256)), "1\r\nx|260");
    check(&format!("{}\r\nx", of_length(257)), "Extension");
    check(&of_length(257), "|0");
    check(&of_length(258), "Extension");
}

#[test]
fn a_chunk_must_end_where_it_says() {
    for input in [
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        "1\r\nab\r\n",
        "1\r\na0\r\n\r\n",
    ] {
        check(input, "DataEnd");
    }
}

#[test]
fn the_largest_chunk_does_not_overflow() {
    let mut decoder = ChunkedDecoder::default();
    let mut bytes = b"ffffffffffffffff\r\nabc".to_vec();
    let progress = decoder.decode(&mut bytes, Keep::Framing).unwrap();
    assert_eq!((progress.kept, progress.consumed), (21, 21));
    assert_eq!(decoder.missing(), u64::MAX - 3);
}

#[test]
fn trailers() {
    check("0\r\nA: b\r\nC:\r\n\r\nX", "|15|A: b\r\nC:\r\n");
    for input in [
        "0\r\nA : b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA: b\r\n c\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\r\n\n",
        "0\r\nA: \0\r\n\r\n",
        "0\r\nA: b\rc\r\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\n: b\r\n\r\n",
    ] {
        check(input, "Trailer");
    }
    let section = |len: usize| format!("A: {}\r\n\r\n", "b".repeat(len - 7));
    let whole = section(TRAILER_BYTES_MAX);
    assert!(told(&format!("0\r\n{whole}"), Keep::Framing).starts_with("|8195|A: b"));
    check(
        &format!("0\r\n{}", section(TRAILER_BYTES_MAX + 1)),
        "TrailersTooLarge",
    );
    check(&format!("0\r\n{}", &whole[..TRAILER_BYTES_MAX - 1]), "|3");
}

#[test]
fn forbidden_trailers_are_dropped() {
    let trailers = b"Digest: x\r\nContent-Length: 5\r\nHost: a\r\nAuthorization: b\r\n\
        Connection: c\r\nX-Checksum:  y \r\nTransfer_Encoding: chunked\r\nSet-Cookie: d\r\n";
    let passed: Vec<_> = trailer_fields(trailers).collect();
    let expected: [(&[u8], &[u8]); 2] = [(b"Digest", b"x"), (b"X-Checksum", b"y")];
    assert_eq!(passed, expected);
}

#[test]
fn states_can_be_asked() {
    let mut decoder = ChunkedDecoder::default();
    let mut step = |input: &str| {
        let consumed = decoder
            .decode(&mut input.as_bytes().to_vec(), Keep::Framing)
            .unwrap()
            .consumed;
        (consumed, decoder.in_trailers(), decoder.is_done())
    };
    assert_eq!(step("1\r\na\r\n0\r\n"), (9, true, false));
    assert_eq!(step("\r\nGET"), (2, false, true));
    assert_eq!(step("GET"), (0, false, true));
}
