//! One health probe: a TCP connect, one HTTP request, or one call of gRPC, on a new connection.
//!
//! When a probe is due and what its end means is for `balance` and the publisher; here it is only sent, and what came
//! of it is named. No redirect is followed.

mod grpc;
mod http2;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use balance::State;
use balance::health::{Cause, Outcome};
use bytes::Bytes;
use config::{HttpProbe, Mark, ServerHttp};
use control::live::Endpoint;
use control::publisher::Probe;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::tls::{self, Secure};

/// The text of a body is looked for in this much of it.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of an answer's head.
const HEADERS_MAX: usize = 256;
/// How long the rest of a body that nobody asked for is waited for, so that its server sees no reset.
const LINGER_MAX: Duration = Duration::from_millis(100);

/// Sends one probe and says how it ended; it ends within the check's timeout. `None`: it could not be sent, by a fault
/// of this machine that says nothing of the server. With it comes what the server said by a mark in its answer: `Ready`
/// if it answered without one, `None` when it did not answer, or the check knows no marks.
pub async fn probe_and_hear(probe: &Probe, secure: &Secure) -> (Option<Outcome>, Option<State>) {
    let mut says = None;
    let outcome = bounded(probe, secure, &mut says).await;
    (outcome, says)
}

async fn bounded(probe: &Probe, secure: &Secure, says: &mut Option<State>) -> Option<Outcome> {
    let bound = probe.check.timeout;
    match timeout(bound, attempt(probe, secure, says)).await {
        Ok(Ok(())) => Some(Outcome::Success),
        Ok(Err(Fault::Server(cause))) => Some(Outcome::Failure(cause)),
        Ok(Err(Fault::Ours)) => None,
        Err(_) => Some(Outcome::Failure(Cause::TimedOut { after: bound })),
    }
}

/// Why a probe did not succeed.
enum Fault {
    Server(Cause),
    /// No descriptor, no local port, no memory.
    Ours,
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Self {
        Self::Server(cause)
    }
}

/// Whether the system refused for want of something of ours.
fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of_ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| of_ours.iter().any(|errno| errno.raw_os_error() == code))
}

async fn attempt(probe: &Probe, secure: &Secure, says: &mut Option<State>) -> Result<(), Fault> {
    let failed = |error: io::Error| {
        if is_ours(&error) {
            Fault::Ours
        } else {
            io_cause(&error, probe.check.timeout).into()
        }
    };
    let began = Instant::now();
    match &probe.endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(&**path).await.map_err(failed)?;
            Ok(look(probe, secure, stream, "localhost", began, says).await?)
        }
        Endpoint::Ip(address) => {
            let mut address = *address;
            if let Some(port) = probe.check.port {
                address.set_port(port);
            }
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            Ok(look(probe, secure, stream, &address.to_string(), began, says).await?)
        }
    }
}

/// What is done with a connection, through TLS if the pool speaks it.
async fn look<S>(
    probe: &Probe,
    secure: &Secure,
    stream: S,
    authority: &str,
    began: Instant,
    says: &mut Option<State>,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let check = &probe.check;
    let Some(tls) = &check.tls else {
        let h2 = check.http == ServerHttp::Http2;
        return ask(probe, stream, authority, (false, h2), says).await;
    };
    let host = probe.host.as_deref();
    let must_h2 = match check.probe {
        config::Probe::Tcp => {
            let left = || check.timeout.saturating_sub(began.elapsed());
            return tls::agree(secure, tls, host, &probe.endpoint, stream, left).await;
        }
        config::Probe::Http(_) => check.http == ServerHttp::Http2,
        config::Probe::Grpc(_) => true,
    };
    let stream = tls::connect(secure, tls, host, &probe.endpoint, stream, must_h2).await?;
    let h2 = tls::speaks_http2(&stream);
    ask(probe, stream, authority, (true, h2), says).await
}

/// What is asked of whoever has been reached, through TLS or not, over HTTP/2 or not.
async fn ask<S>(
    probe: &Probe,
    stream: S,
    authority: &str,
    (secure, h2): (bool, bool),
    says: &mut Option<State>,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match &probe.check.probe {
        config::Probe::Tcp => Ok(()),
        config::Probe::Http(http) if h2 => {
            http2::exchange(stream, http, authority, secure, says).await
        }
        config::Probe::Http(http) => exchange(stream, http, authority, says).await,
        config::Probe::Grpc(grpc) => grpc::call(stream, grpc, authority, &probe.check).await,
    }
}

/// One request and its answer. `authority` is the `Host` unless the check names one.
async fn exchange<S>(
    stream: S,
    check: &HttpProbe,
    authority: &str,
    says: &mut Option<State>,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(check, authority)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_cause(&error))?;
    let mut answered = pin!(async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| http_cause(&error))?;
        judge(response, check, says).await
    });
    tokio::select! {
        biased;
        judged = &mut answered => judged,
        // Its end reaches the other branch as an end of the answer, or as its error.
        _ = connection => answered.await,
    }
}

fn request(check: &HttpProbe, authority: &str) -> Result<Request<Empty<Bytes>>, Cause> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() =
        Method::from_bytes(check.method.as_bytes()).map_err(|_| unsendable("method"))?;
    *request.uri_mut() = check.path.parse::<Uri>().map_err(|_| unsendable("path"))?;
    let host = check.host.as_deref().unwrap_or(authority);
    let host = HeaderValue::from_str(host).map_err(|_| unsendable("host"))?;
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static("evenkeel"));
    add_headers(headers, &check.headers)?;
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// Adds the check's own fields: they replace ours, and may repeat among themselves.
fn add_headers(headers: &mut HeaderMap, own: &[(String, String)]) -> Result<(), Cause> {
    let mut given: Vec<HeaderName> = Vec::new();
    for (name, value) in own {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable("headers"))?;
        let value = HeaderValue::from_str(value).map_err(|_| unsendable("headers"))?;
        if given.contains(&name) {
            headers.append(name, value);
        } else {
            headers.insert(name.clone(), value);
            given.push(name);
        }
    }
    Ok(())
}

/// What no request can carry, though the config took it.
fn unsendable(what: &str) -> Cause {
    Cause::Failed(format!("the check's {what} cannot be sent").into())
}

async fn judge(
    response: Response<Incoming>,
    check: &HttpProbe,
    says: &mut Option<State>,
) -> Result<(), Cause> {
    let status = response.status().as_u16();
    let expected = |(low, high): &(u16, u16)| (*low..=*high).contains(&status);
    *says = heard(&response, check);
    let mut marks = check.drain.status.iter().chain(&check.maintenance.status);
    let is_mark = marks.any(expected);
    let mut body = response.into_body();
    if is_mark {
        linger(&mut body).await;
        return Ok(());
    }
    if !check.status.iter().any(expected) {
        linger(&mut body).await;
        return Err(Cause::Status {
            status,
            expected: ranges(&check.status),
        });
    }
    match &check.body {
        Some(text) => find(&mut body, text).await,
        None => {
            linger(&mut body).await;
            Ok(())
        }
    }
}

/// What traffic the server wants by the marks of its answer.
fn heard(response: &Response<Incoming>, check: &HttpProbe) -> Option<State> {
    let status = response.status().as_u16();
    let has = |mark: &Mark| {
        let in_range = |(low, high): &(u16, u16)| (*low..=*high).contains(&status);
        mark.status.iter().any(in_range)
            || mark.headers.iter().any(|(name, value)| {
                let mut fields = response.headers().get_all(name).iter();
                fields.any(|field| match value {
                    Some(value) => field
                        .as_bytes()
                        .trim_ascii()
                        .eq_ignore_ascii_case(value.as_bytes()),
                    None => true,
                })
            })
    };
    if check.drain.is_empty() && check.maintenance.is_empty() {
        return None;
    }
    Some(if has(&check.maintenance) {
        State::Disabled
    } else if has(&check.drain) {
        State::Drain
    } else {
        State::Ready
    })
}

/// Looks for a text in the first 64 KiB.
async fn find(body: &mut Incoming, text: &str) -> Result<(), Cause> {
    let mut seen = Vec::new();
    while seen.len() < BODY_BYTES_MAX {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| http_cause(&error))?;
        let Ok(data) = frame.into_data() else {
            break;
        };
        // What came before may end with all of the text but its last byte.
        let from = seen.len().saturating_sub(text.len());
        let room = BODY_BYTES_MAX - seen.len();
        seen.extend(data.iter().take(room));
        if holds(seen.get(from..).unwrap_or_default(), text.as_bytes()) {
            return Ok(());
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    Err(Cause::Body {
        expected: text.into(),
    })
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

/// Takes what is left of a body, within bounds.
async fn linger(body: &mut Incoming) {
    let rest = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken >= BODY_BYTES_MAX {
                break;
            }
        }
    };
    let _ = timeout(LINGER_MAX, rest).await;
}

/// `200-299`, `200, 204`: the statuses as a user writes them.
fn ranges(status: &[(u16, u16)]) -> Arc<str> {
    let one = |(low, high): &(u16, u16)| {
        if low == high {
            low.to_string()
        } else {
            format!("{low}-{high}")
        }
    };
    let all: Vec<String> = status.iter().map(one).collect();
    all.join(", ").into()
}

fn http_cause(error: &hyper::Error) -> Cause {
    if error.is_parse() {
        return Cause::Malformed;
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return match error.kind() {
                // What hyper says of a chunk size that is none.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Cause::Malformed,
                _ => io_cause(error, Duration::ZERO),
            };
        }
        source = inner.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Cause::Closed;
    }
    Cause::Failed(error.to_string().into())
}

/// `bound`: the time that the probe had, for an error of the kernel that is a timeout of its own.
fn io_cause(error: &io::Error, bound: Duration) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Cause::Closed,
        io::ErrorKind::TimedOut if !bound.is_zero() => Cause::TimedOut { after: bound },
        io::ErrorKind::NotFound => Cause::Failed("no such socket".into()),
        _ => Cause::Failed(words(error).into()),
    }
}

/// "no route to host", without the number that the system has for it.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "failed".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
