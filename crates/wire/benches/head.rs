//! What the codec costs for one message.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_wire::http1::{
    ChunkedDecoder, HeadLimits, Keep, Method, RequestHead, ResponseHead, decode_request,
    decode_response, encode,
};

/// As a browser asks for a page: ten fields.
const BROWSER: &[u8] = b"GET /articles/2026/load-balancing?page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/articles/2026\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=3f2a9c1b7d; theme=dark\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Cache-Control: max-age=0\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.22.1\r\n\
    Date: Sat, 21 Nov 2026 11:39:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Fri, 20 Nov 2026 10:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"673e1a2b-400\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut long = BROWSER[..BROWSER.len() - 2].to_vec();
    for i in 0..30 {
        encode::field(
            &mut long,
            format!("x-tracing-attribute-{i}").as_bytes(),
            b"4bf92f3577b34da6a3ce929d0e0e4736",
        );
    }
    long.extend_from_slice(encode::CRLF);

    let mut group = criterion.benchmark_group("decode");
    let requests = [
        ("request of 1 field", SHORT),
        ("request of 10 fields", BROWSER),
        ("request of 40 fields", &long),
    ];
    for (name, bytes) in requests {
        let mut head = RequestHead::default();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| decode_request(black_box(bytes), &HeadLimits::REQUEST, &mut head));
        });
    }
    let mut head = ResponseHead::default();
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response of 8 fields", |bencher| {
        bencher.iter(|| {
            decode_response(
                black_box(RESPONSE),
                Method::Get,
                &HeadLimits::RESPONSE,
                &mut head,
            )
        });
    });
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut head = RequestHead::default();
    decode_request(BROWSER, &HeadLimits::REQUEST, &mut head).expect("it is valid");
    let mut out = Vec::new();
    criterion.bench_function("encode/request of 10 fields", |bencher| {
        bencher.iter(|| {
            out.clear();
            let bytes = black_box(BROWSER);
            encode::request_line(&mut out, head.method_text.of(bytes), head.target.of(bytes));
            for field in &head.fields {
                encode::field(&mut out, field.name.of(bytes), field.value.of(bytes));
            }
            out.extend_from_slice(encode::CRLF);
            out.len()
        });
    });
}

fn chunks(criterion: &mut Criterion) {
    let mut wire = Vec::new();
    for _ in 0..4 {
        encode::chunk_head(&mut wire, 4096);
        wire.resize(wire.len() + 4096, b'x');
        wire.extend_from_slice(encode::CRLF);
    }
    let mut group = criterion.benchmark_group("chunked");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("4 chunks of 4 KiB, relayed", |bencher| {
        bencher.iter(|| ChunkedDecoder::default().decode(black_box(&mut wire), Keep::Framing));
    });
    group.finish();
}

criterion_group!(benches, heads, encoding, chunks);
criterion_main!(benches);
