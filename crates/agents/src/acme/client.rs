//! HTTP to an authority: one connection for each request, over TLS that is verified.
//!
//! It hears what the protocol's own client does not tell: when the authority says that it is asked too often.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use config::Issuer;
use control::live::Endpoint;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::Secure;

/// From the look-up to the last byte of the answer.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));

/// The way to one authority.
pub(super) struct Http {
    pub(super) issuer: Arc<Issuer>,
    pub(super) secure: Secure,
    /// What the last answer that was an error asked us to wait.
    retry_after: Mutex<Option<Duration>>,
}

impl Http {
    pub(super) fn new(issuer: Arc<Issuer>, secure: Secure) -> Self {
        Self {
            issuer,
            secure,
            retry_after: Mutex::default(),
        }
    }

    /// What the authority asked us to wait since this was asked last.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        let mut retry_after = self
            .retry_after
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        retry_after.take()
    }

    async fn send(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let uri = request.uri().clone();
        let is_post = request.method() == Method::POST;
        let (host, port) = target(&uri)?;
        let name = format!("{host}:{port}");
        let authority = uri.authority().map(|it| it.as_str()).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(
            HOST,
            HeaderValue::from_str(authority).map_err(hyper::http::Error::from)?,
        );
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        *request.uri_mut() = path.parse()?;

        let told =
            |what: &str, error: &dyn std::fmt::Display| other(format!("{name}: {what}: {error}"));
        let socket = TcpStream::connect((host.as_str(), port));
        let socket = socket
            .await
            .map_err(|error| told("cannot connect", &error))?;
        let peer = socket
            .peer_addr()
            .map_err(|error| told("cannot connect", &error))?;
        let endpoint = Endpoint::Ip(peer);
        let tls = (self.secure)(&self.issuer.trust, Some(&host), &endpoint);
        let (config, server) = tls.map_err(|error| told("TLS", &error))?;
        let stream = TlsConnector::from(config).connect(server, socket).await;
        let stream = stream.map_err(|error| told("TLS", &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| told("HTTP", &error))?;
        let connection = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| told("HTTP", &error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| told("HTTP", &error))?.to_bytes();
        drop(connection);

        if !parts.status.is_success() {
            let asked = parts.headers.get(RETRY_AFTER).and_then(wait_of);
            *self
                .retry_after
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = asked;
            // The client looks for a problem document in every answer to a POST, and in no other.
            match serde_json::from_slice::<Problem>(&body) {
                Ok(_) if is_post => {}
                Ok(problem) => return Err(Error::Api(problem)),
                Err(_) => return Err(other(format!("{name} answers {}", parts.status))),
            }
        }
        Ok(BytesResponse::from(Response::from_parts(
            parts,
            Full::new(body),
        )))
    }
}

/// The same, as the protocol's client takes it.
pub(super) struct Way(pub(super) Arc<Http>);

impl HttpClient for Way {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.0.clone();
        Box::pin(async move {
            let host = http.issuer.host.clone();
            match tokio::time::timeout(REQUEST_MAX, http.send(request)).await {
                Ok(sent) => sent,
                Err(_) => Err(other(format!(
                    "{host}: no answer within {} s",
                    REQUEST_MAX.as_secs()
                ))),
            }
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn other(why: String) -> Error {
    Error::Other(Box::new(io::Error::other(why)))
}

/// Host and port of a URL that an authority gave.
fn target(uri: &Uri) -> Result<(String, u16), Error> {
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
        }
        _ => Err(other(format!(
            "the authority named `{uri}`, which is no https URL"
        ))),
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn wait_of(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        let check = |text: &'static str, expected: Option<u64>| {
            let found = wait_of(&HeaderValue::from_static(text));
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }
}
