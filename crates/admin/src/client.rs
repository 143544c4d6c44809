//! A small client of the admin API, for the command line.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, SERVER};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::SIGNATURE;

/// For one connection attempt.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// For an answer to what only reads or sets something.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Asks a running instance.
#[derive(Clone)]
pub struct Client {
    /// Where it is: `http://127.0.0.1:9900`.
    pub url: String,
    /// Sent as `Authorization: Bearer`, if there is one.
    pub token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The URL or the token cannot be used: the user is to change it.
    Wrong(String),
    /// Nothing answers there, or not as the API does.
    NoAnswer(String),
    /// The connection ended before the answer was whole: what was asked for may have been done.
    Ended(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(why) | Self::NoAnswer(why) | Self::Ended(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// `GET`: the status and what came, as a string where it is not JSON.
    ///
    /// # Errors
    /// When there is no answer within 30 s.
    pub async fn get(&self, path: &str) -> Result<(u16, Value), ClientError> {
        self.bounded(self.ask(Method::GET, path, None)).await
    }

    /// `PATCH` with a JSON body.
    ///
    /// # Errors
    /// When there is no answer within 30 s.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<(u16, Value), ClientError> {
        self.bounded(self.ask(Method::PATCH, path, Some(body)))
            .await
    }

    /// `POST` without a body; waits for as long as it takes, as a drain may.
    ///
    /// # Errors
    /// When nothing answers, or the connection ends before an answer.
    pub async fn post(&self, path: &str) -> Result<(u16, Value), ClientError> {
        self.ask(Method::POST, path, None).await
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// When there is no answer within 30 s.
    pub async fn post_json(&self, path: &str, body: &Value) -> Result<(u16, Value), ClientError> {
        self.bounded(self.ask(Method::POST, path, Some(body))).await
    }

    async fn bounded(
        &self,
        asking: impl Future<Output = Result<(u16, Value), ClientError>>,
    ) -> Result<(u16, Value), ClientError> {
        let late = |_| self.no_answer(&format!("no answer within {} s", ANSWER_MAX.as_secs()));
        timeout(ANSWER_MAX, asking).await.map_err(late)?
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), ClientError> {
        let authority = self.authority()?;
        let request = self.request(&authority, method, path, body)?;
        let stream = self.connect(&authority).await?;
        let broken = |error: hyper::Error| {
            let why = format!(
                "what is at {} does not answer as evenkeel does: {error}",
                self.url
            );
            match error.is_parse() {
                true => ClientError::NoAnswer(why),
                false => ClientError::Ended(why),
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut exchange = std::pin::pin!(async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status().as_u16();
            // A 200 of somebody else's would be taken for a word that was heeded.
            if response
                .headers()
                .get(SERVER)
                .is_none_or(|it| it != SIGNATURE)
            {
                return Err(ClientError::NoAnswer(format!(
                    "what is at {} is not the admin listener of evenkeel: it answers {status} without `Server: {SIGNATURE}`",
                    self.url
                )));
            }
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
            let body = body.collect().await.map_err(|error| {
                ClientError::Ended(format!("the answer of {} was cut short: {error}", self.url))
            })?;
            Ok((status, parse(&body.to_bytes())))
        });
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
    }

    /// `HOST:PORT` of the URL.
    fn authority(&self) -> Result<String, ClientError> {
        let wrong = |why: &str| {
            let example = "such as http://127.0.0.1:9900";
            ClientError::Wrong(format!("`{}` {why}, {example}", self.url))
        };
        let uri: Uri = match self.url.parse() {
            Ok(uri) => uri,
            Err(_) => return Err(wrong("is not a URL")),
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("is not a URL"));
        };
        if scheme != "http" {
            return Err(wrong("is not an http:// URL"));
        }
        if authority.as_str().contains('@') {
            return Err(wrong("holds a user; the token goes into EVENKEEL_TOKEN"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("goes on after its port; it ends there"));
        }
        match authority.port_u16() {
            Some(_) => Ok(authority.as_str().to_owned()),
            None if authority.as_str() != authority.host() => {
                Err(wrong("has no port from 1 to 65535"))
            }
            None => Ok(format!("{authority}:80")),
        }
    }

    fn request(
        &self,
        authority: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let write = method != Method::GET;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| ClientError::Wrong(format!("`{path}` cannot be asked for")))?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(authority)
            .map_err(|_| ClientError::Wrong(format!("`{}` is not a URL", self.url)))?;
        headers.insert(HOST, host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if write {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                ClientError::Wrong("the token holds bytes that no header may hold".to_owned())
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    async fn connect(&self, authority: &str) -> Result<TcpStream, ClientError> {
        match timeout(CONNECT_MAX, TcpStream::connect(authority)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let why = error.to_string().to_ascii_lowercase();
                let why = why.split(" (os error").next().unwrap_or_default();
                Err(self.no_answer(why))
            }
            Err(_) => Err(self.no_answer("no connection within 5 s")),
        }
    }

    fn no_answer(&self, why: &str) -> ClientError {
        ClientError::NoAnswer(format!(
            "nothing answers at {}: {why}; is evenkeel running?",
            self.url
        ))
    }
}

/// A name as one segment of a path.
#[must_use]
pub fn segment(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests;
