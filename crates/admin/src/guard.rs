//! Who may ask for what: the guards against foreign pages and foreign machines.
//!
//! A page of another site can make a browser send requests here. It cannot set `Content-Type: application/json` without
//! asking first (and nobody here answers such a question), it cannot hide its `Origin`, and when it makes a name of its
//! own resolve to this machine (DNS rebinding) its `Host` gives it away. Away from loopback a token is asked for, which
//! no browser sends by itself: it proves what `Host` is asked to prove on loopback, so that there any name may be used.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::error::ApiError;

/// Knows where the listener is bound, and the token.
pub(crate) struct Guard {
    bind: SocketAddr,
    token: Option<String>,
}

impl Guard {
    /// An empty token is none.
    pub(crate) fn new(bind: SocketAddr, token: Option<String>) -> Self {
        Self {
            bind,
            token: token.filter(|token| !token.is_empty()),
        }
    }

    /// Lets a request pass, or says why not.
    pub(crate) fn judge<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        if matches!(request.uri().path(), "/livez" | "/health") {
            return Ok(());
        }
        let headers = request.headers();
        // RFC 9112 §3.2.2: the authority of an absolute form replaces Host.
        let host = match request.uri().authority() {
            Some(authority) => authority.as_str(),
            None => only(headers, &header::HOST)?.unwrap_or_default(),
        };
        if self.bind.ip().to_canonical().is_loopback() {
            self.judge_host(host)?;
        } else {
            self.judge_token(headers)?;
        }
        judge_origin(headers, host)?;
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(());
        }
        judge_content_type(headers)
    }

    fn judge_host(&self, host: &str) -> Result<(), ApiError> {
        let name = without_port(host);
        let known = match name.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        };
        if known {
            return Ok(());
        }
        Err(ApiError::new(
            403,
            format!(
                "Host must be {} or localhost, against foreign pages",
                self.bind
            ),
        ))
    }

    fn judge_token(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(token) = &self.token else {
            return Err(ApiError::new(
                401,
                "away from loopback a token is needed, and none is configured: set `admin.token_file`",
            ));
        };
        let given = only(headers, &header::AUTHORIZATION)?.unwrap_or_default();
        let given = match given.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => "",
        };
        if same(given.as_bytes(), token.as_bytes()) {
            return Ok(());
        }
        let message = if given.is_empty() {
            "away from loopback `Authorization: Bearer TOKEN` is needed"
        } else {
            "the token is not the right one"
        };
        Err(ApiError::new(401, message))
    }
}

fn judge_origin(headers: &HeaderMap, host: &str) -> Result<(), ApiError> {
    let Some(origin) = only(headers, &header::ORIGIN)? else {
        return Ok(());
    };
    let at = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    if !host.is_empty() && at.is_some_and(|at| at.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(ApiError::new(
        403,
        "a page of another origin may not ask this",
    ))
}

fn judge_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = only(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        415,
        "what changes something needs `Content-Type: application/json`, with an empty body too: \
         curl -X POST -H 'Content-Type: application/json' …",
    ))
}

/// The value of a field that may be given once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let wrong = |what| Err(ApiError::new(400, format!("the header {name} {what}")));
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        (Some(Err(_)), None) => wrong("is not text"),
        (Some(_), Some(_)) => wrong("is given twice"),
    }
}

/// `[::1]:80` is `::1`, `localhost:80` is `localhost`.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether two texts are the same, in a time that tells of the given one's length and nothing else.
fn same(given: &[u8], token: &[u8]) -> bool {
    let mut differing = given.len() ^ token.len();
    for (index, byte) in given.iter().enumerate() {
        let other = token.get(index % token.len().max(1)).copied().unwrap_or(0);
        differing |= black_box(usize::from(byte ^ other));
    }
    black_box(differing) == 0
}

#[cfg(test)]
mod tests;
