//! Requests for tests.

use wire::http1::{Decoded, HeadLimits, Method, RequestHead, decode_request};

use crate::{Request, host, path};

/// A request and all that it borrows.
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: RequestHead,
    method: String,
    host: Vec<u8>,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    source: &'static str,
}

/// `line`: method, host and target, as in `GET example.com/a?b`. `fields`: further header lines.
pub(crate) fn sample(line: &str, fields: &[&str]) -> Sample {
    let (method, rest) = line.split_once(' ').unwrap();
    let at = rest.find('/').unwrap();
    let (host, target) = rest.split_at(at);
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for field in fields {
        text += &format!("{field}\r\n");
    }
    text += "\r\n";
    let bytes = text.into_bytes();
    let mut head = RequestHead::default();
    let limits = HeadLimits {
        head_bytes: 32 * 1024,
        headers: 128,
        uri_bytes: 8192,
    };
    assert!(
        matches!(
            decode_request(&bytes, &limits, &mut head),
            Ok(Decoded::Complete(()))
        ),
        "{line}"
    );
    let (mut scratch, mut host_scratch) = (Vec::new(), Vec::new());
    let target = path::normalise(Method::Get, target.as_bytes(), &mut scratch).unwrap();
    let host = host::normalise(host.as_bytes(), &mut host_scratch)
        .unwrap()
        .host
        .to_owned();
    let (path, query) = (target.path.to_owned(), target.query.map(<[u8]>::to_owned));
    Sample {
        head,
        method: method.to_owned(),
        host,
        path,
        query,
        bytes,
        source: "192.0.2.1",
    }
}

impl Sample {
    pub(crate) fn from(self, source: &'static str) -> Sample {
        Sample { source, ..self }
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            method: self.method.as_bytes(),
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            head: &self.head,
            bytes: &self.bytes,
            source: self.source.parse().unwrap(),
            tls: None,
            https: false,
        }
    }
}
