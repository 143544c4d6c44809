//! One `grpc.health.v1.Health/Check` on a new connection of HTTP/2: with prior knowledge, or as ALPN chose it.
//!
//! The server is well if it says `SERVING` and ends the call with `OK`.

use std::pin::pin;
use std::time::Duration;

use balance::health::Cause;
use bytes::Bytes;
use config::{GrpcProbe, HealthCheck};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::grpc::health::{CHECK_PATH, Serving, decode_response, encode_request};
use wire::grpc::{
    Code, FRAME_HEADER_BYTES, content_type, decode_frame, decode_message, encode_timeout,
    frame_header,
};
use wire::http1::Decoded;

use super::{HEAD_BYTES_MAX, add_headers, io_cause, unsendable};

/// Bytes of an answer: it holds a number, and maybe a field or two that are of no interest.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Characters of a server's `grpc-message` that are shown.
const TEXT_MAX: usize = 128;

/// One call and what came of it. `authority` is that of the request unless the check names one.
pub(super) async fn call<S>(
    stream: S,
    grpc: &GrpcProbe,
    authority: &str,
    check: &HealthCheck,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(grpc, authority, check)?;
    let message = message(&grpc.service)?;
    let (sender, connection) = Builder::new()
        .enable_push(false)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(stream)
        .await
        .map_err(|error| cause(&error, check.timeout))?;
    let mut asked = pin!(async {
        match ask(sender, request, message).await {
            Ok(judged) => judged,
            Err(error) => Err(cause(&error, check.timeout)),
        }
    });
    tokio::select! {
        biased;
        judged = &mut asked => judged,
        // Its end reaches the other branch as an error.
        _ = connection => asked.await,
    }
}

fn request(grpc: &GrpcProbe, authority: &str, check: &HealthCheck) -> Result<Request<()>, Cause> {
    let uri = Uri::builder()
        .scheme(if check.tls.is_some() { "https" } else { "http" })
        .authority(grpc.host.as_deref().unwrap_or(authority))
        .path_and_query(CHECK_PATH)
        .build()
        .map_err(|_| unsendable("host"))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("evenkeel"));
    add_headers(headers, &grpc.headers)?;
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let timeout = HeaderValue::try_from(encode_timeout(check.timeout));
    headers.insert("grpc-timeout", timeout.map_err(|_| unsendable("timeout"))?);
    Ok(request)
}

fn message(service: &str) -> Result<Bytes, Cause> {
    let mut message = Vec::new();
    encode_request(service, &mut message);
    let length = u32::try_from(message.len()).map_err(|_| unsendable("service"))?;
    message.splice(..0, frame_header(0, length));
    Ok(message.into())
}

async fn ask(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<Result<(), Cause>, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, false)?;
    // A message of a few bytes: it waits in the connection until the server takes it.
    body.send_data(message, true)?;
    judge(response.await?).await
}

async fn judge(response: Response<RecvStream>) -> Result<Result<(), Cause>, h2::Error> {
    let status = response.status().as_u16();
    if status != 200 {
        return Ok(Err(Cause::Status {
            status,
            expected: "200".into(),
        }));
    }
    let (head, mut body) = response.into_parts();
    let is_grpc = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
        content_type(value.as_bytes()).is_some_and(|(dialect, _)| !dialect.is_web())
    });
    if !is_grpc {
        return Ok(Err(Cause::Malformed));
    }
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if answer.len() + data.len() > FRAME_HEADER_BYTES + MESSAGE_BYTES_MAX {
            return Ok(Err(Cause::Malformed));
        }
        body.flow_control().release_capacity(data.len())?;
        answer.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    // Without a message the end of the call stands in the head.
    let ended = trailers.as_ref().unwrap_or(&head.headers);
    Ok(ended_well(ended).and_then(|()| serves(&answer)))
}

/// Whether the call ended with `OK`.
fn ended_well(fields: &HeaderMap) -> Result<(), Cause> {
    let status = fields.get("grpc-status").ok_or(Cause::Malformed)?;
    let code = Code::decode(status.as_bytes());
    if code == Code::Ok {
        return Ok(());
    }
    let text = fields.get("grpc-message").map(HeaderValue::as_bytes);
    let text = decode_message(text.unwrap_or_default());
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_MAX)
        .collect();
    let said = match text.trim() {
        "" => code.name().to_owned(),
        text => format!("{code} ({text})"),
    };
    Err(not_serving(&said))
}

fn serves(answer: &[u8]) -> Result<(), Cause> {
    let Ok(Decoded::Complete(frame)) = decode_frame(answer, MESSAGE_BYTES_MAX) else {
        return Err(Cause::Malformed);
    };
    let is_all = answer.len() == FRAME_HEADER_BYTES + frame.payload.len();
    // A flag would say that it is compressed, which nobody offered.
    if frame.flag != 0 || !is_all {
        return Err(Cause::Malformed);
    }
    match decode_response(frame.payload) {
        Ok(Serving::Serving) => Ok(()),
        Ok(said) => Err(not_serving(&said.to_string())),
        Err(_) => Err(Cause::Malformed),
    }
}

fn not_serving(said: &str) -> Cause {
    Cause::Said {
        said: said.into(),
        expected: "SERVING".into(),
    }
}

fn cause(error: &h2::Error, timeout: Duration) -> Cause {
    if let Some(error) = error.get_io() {
        return io_cause(error, timeout);
    }
    match error.reason() {
        // The server's own word: it takes no call now.
        Some(reason) if error.is_remote() => {
            Cause::Failed(format!("HTTP/2: {}", reason.description()).into())
        }
        _ => Cause::Malformed,
    }
}

#[cfg(test)]
mod tests;
