//! HTTP/1 messages as a test sees them: read whole and strictly from a socket, as owned text.
//! Slow and simple on purpose, and independent of the codec that is under test.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::io::Read;
use std::net::TcpStream;

const HEAD_BYTES_MAX: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 1 << 30;

/// Header or trailer fields in their order, repeats kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a name, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every value of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self
            .0
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the comma-separated lists under `name` hold `token`, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let values = self.all(name);
        let mut tokens = values.iter().flat_map(|value| value.split(','));
        tokens.any(|other| other.trim().eq_ignore_ascii_case(token))
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("no colon: {line:?}"))?;
            ensure!(
                !name.is_empty() && !name.contains([' ', '\t']),
                "bad name: {line:?}"
            );
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Self(fields))
    }
}

/// A 1xx answer that came before the real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interim {
    /// 100, 103 …
    pub status: u16,
    /// Its own fields.
    pub headers: Headers,
}

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// "HTTP/1.1".
    pub version: String,
    /// The final status; 101 is final.
    pub status: u16,
    /// The text after it, perhaps none.
    pub reason: String,
    /// Its fields.
    pub headers: Headers,
    /// De-chunked.
    pub body: Vec<u8>,
    /// What came after the last chunk.
    pub trailers: Headers,
    /// The 1xx answers before it.
    pub interim: Vec<Interim>,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection ends with this response.
    pub fn closes(&self) -> bool {
        let http10 =
            self.version == "HTTP/1.0" && !self.headers.has_token("connection", "keep-alive");
        http10 || self.headers.has_token("connection", "close") || !self.is_framed()
    }

    /// Its end is told by a length or by chunks, not by the close of the connection.
    fn is_framed(&self) -> bool {
        matches!(self.status, 100..200 | 204 | 304)
            || self.header("content-length").is_some()
            || self.headers.has_token("transfer-encoding", "chunked")
    }

    /// Reads one from bytes that are all there, as curl prints them: the body is what is left.
    pub fn from_printed(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut interim = Vec::new();
        loop {
            let end = find(rest, b"\r\n\r\n").context("no response head")?;
            let (head, body) = rest.split_at(end + 4);
            let mut response = Self::from_head(&String::from_utf8_lossy(head))?;
            if response.is_interim() {
                interim.push(response.into_interim());
                rest = body;
                continue;
            }
            response.interim = interim;
            response.body = body.to_vec();
            return Ok(response);
        }
    }

    fn from_head(head: &str) -> Result<Self> {
        let mut lines = head_lines(head)?;
        let first = lines.next().unwrap_or_default();
        let (version, rest) = first
            .split_once(' ')
            .with_context(|| format!("no status line: {first:?}"))?;
        ensure!(version.starts_with("HTTP/"), "no status line: {first:?}");
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(Self {
            version: version.to_owned(),
            status: status
                .parse()
                .with_context(|| format!("no status: {first:?}"))?,
            reason: reason.to_owned(),
            headers: Headers::parse(lines)?,
            body: Vec::new(),
            trailers: Headers::default(),
            interim: Vec::new(),
        })
    }

    fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    fn into_interim(self) -> Interim {
        Interim {
            status: self.status,
            headers: self.headers,
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let start: String = text.chars().take(200).collect();
        write!(
            f,
            "{} {} {:?} {start:?}",
            self.status, self.reason, self.headers.0
        )
    }
}

/// A request as an origin saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// "GET".
    pub method: String,
    /// As sent, not decoded.
    pub target: String,
    /// "HTTP/1.1".
    pub version: String,
    /// Its fields.
    pub headers: Headers,
    /// De-chunked; empty until read when only the head was asked for.
    pub body: Vec<u8>,
    /// What came after the last chunk.
    pub trailers: Headers,
}

impl Request {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    fn from_head(head: &str) -> Result<Self> {
        let mut lines = head_lines(head)?;
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("no request line: {first:?}");
        };
        Ok(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            headers: Headers::parse(lines)?,
            body: Vec::new(),
            trailers: Headers::default(),
        })
    }
}

/// The lines of a head that ends with its empty line; every line must end in CRLF.
fn head_lines(head: &str) -> Result<impl Iterator<Item = &str>> {
    let head = head.strip_suffix("\r\n\r\n").context("the head is cut")?;
    ensure!(
        head.split("\r\n").all(|line| !line.contains(['\r', '\n'])),
        "bare CR or LF in {head:?}"
    );
    Ok(head.split("\r\n"))
}

/// Reads whole messages from a socket and keeps what came too early.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) stream: TcpStream,
    pub(crate) early: Vec<u8>,
    /// Bytes read so far, used or not.
    pub(crate) received: u64,
}

impl Reader {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            early: Vec::new(),
            received: 0,
        }
    }

    /// One more read; 0 at the end of the stream.
    pub(crate) fn fill(&mut self) -> Result<usize> {
        let mut some = [0; 64 * 1024];
        let count = self.stream.read(&mut some).with_context(|| {
            let held = String::from_utf8_lossy(&self.early);
            let start: String = held.chars().take(200).collect();
            format!(
                "reading, with {} bytes unused so far: {start:?}",
                self.early.len()
            )
        })?;
        self.early.extend(some.iter().take(count));
        self.received += count as u64;
        Ok(count)
    }

    /// Up to and with the first `end`; `None` when the stream ends before any byte.
    fn until(&mut self, end: &[u8], max: usize) -> Result<Option<Vec<u8>>> {
        let mut searched: usize = 0;
        loop {
            // The delimiter may straddle two reads.
            let from = searched.saturating_sub(end.len());
            if let Some(at) = find(self.early.get(from..).unwrap_or_default(), end) {
                return Ok(Some(self.early.drain(..from + at + end.len()).collect()));
            }
            searched = self.early.len();
            ensure!(
                searched <= max,
                "more than {max} bytes without {:?}",
                String::from_utf8_lossy(end)
            );
            if self.fill()? == 0 {
                if self.early.is_empty() {
                    return Ok(None);
                }
                bail!(
                    "the stream ended within {:?}",
                    String::from_utf8_lossy(&self.early)
                );
            }
        }
    }

    /// The next byte, or `None` at the end.
    pub(crate) fn one(&mut self) -> Result<Option<u8>> {
        if self.early.is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        Ok(self.early.drain(..1).next())
    }

    pub(crate) fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        ensure!(count <= BODY_BYTES_MAX, "{count} bytes are too many");
        while self.early.len() < count {
            let held = self.early.len();
            ensure!(
                self.fill()? > 0,
                "the stream ended after {held} of {count} bytes"
            );
        }
        Ok(self.early.drain(..count).collect())
    }

    pub(crate) fn rest(&mut self) -> Result<Vec<u8>> {
        while self.fill()? > 0 {
            ensure!(
                self.early.len() <= BODY_BYTES_MAX,
                "the stream does not end"
            );
        }
        Ok(std::mem::take(&mut self.early))
    }

    fn head(&mut self) -> Result<Option<String>> {
        let head = self.until(b"\r\n\r\n", HEAD_BYTES_MAX)?;
        Ok(head.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The answer to a request of `method`; the 1xx before it are kept in it.
    pub(crate) fn response(&mut self, method: &str) -> Result<Response> {
        let mut interim = Vec::new();
        let mut response = loop {
            let head = self
                .head()?
                .context("the stream ended before any response byte")?;
            let response = Response::from_head(&head)?;
            if !response.is_interim() {
                break response;
            }
            interim.push(response.into_interim());
        };
        response.interim = interim;
        let bodiless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
        if !bodiless {
            let (body, trailers) = self.body(&response.headers, true)?;
            response.body = body;
            response.trailers = trailers;
        }
        Ok(response)
    }

    /// A request's head, or `None` when the stream ends before it.
    pub(crate) fn request_head(&mut self) -> Result<Option<Request>> {
        self.head()?
            .map(|head| Request::from_head(&head))
            .transpose()
    }

    /// The body that `headers` announce.
    pub(crate) fn body(
        &mut self,
        headers: &Headers,
        until_close: bool,
    ) -> Result<(Vec<u8>, Headers)> {
        let none = Headers::default();
        if headers.has_token("transfer-encoding", "chunked") {
            ensure!(
                headers.get("content-length").is_none(),
                "chunked and a length"
            );
            return self.chunks();
        }
        match headers.all("content-length").as_slice() {
            [length] => Ok((
                self.exactly(length.parse().context("bad Content-Length")?)?,
                none,
            )),
            [] if until_close => Ok((self.rest()?, none)),
            [] => Ok((Vec::new(), none)),
            _ => bail!("two lengths"),
        }
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Headers)> {
        let mut body = Vec::new();
        loop {
            let line = self.line().context("chunk size")?;
            let digits = line
                .split_once(';')
                .map_or(line.as_str(), |(digits, _)| digits);
            let size = usize::from_str_radix(digits, 16)
                .with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                return Ok((body, self.trailers()?));
            }
            body.extend(self.exactly(size)?);
            ensure!(self.exactly(2)? == b"\r\n", "no CRLF after a chunk");
        }
    }

    fn trailers(&mut self) -> Result<Headers> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().context("trailers")?;
            if line.is_empty() {
                return Headers::parse(lines.iter().map(String::as_str));
            }
            lines.push(line);
        }
    }

    fn line(&mut self) -> Result<String> {
        let line = self
            .until(b"\r\n", HEAD_BYTES_MAX)?
            .context("the stream ended")?;
        Ok(String::from_utf8_lossy(&line)
            .trim_end_matches(['\r', '\n'])
            .to_owned())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
