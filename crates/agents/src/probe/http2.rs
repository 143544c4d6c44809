//! An HTTP probe over HTTP/2, for servers that speak nothing else: one request on a new connection.

use std::pin::pin;

use balance::State;
use balance::health::Cause;
use bytes::Bytes;
use config::HttpProbe;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{HEAD_BYTES_MAX, http_cause, judge, request};

/// One request and its answer. `authority` is what is asked for unless the check names a host.
pub(super) async fn exchange<S>(
    stream: S,
    check: &HttpProbe,
    authority: &str,
    secure: bool,
    says: &mut Option<State>,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = absolute(request(check, authority)?, secure)?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| cause(&error))?;
    let mut answered = pin!(async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| cause(&error))?;
        judge(response, check, says).await
    });
    tokio::select! {
        biased;
        judged = &mut answered => judged,
        // Its end reaches the other branch as an end of the answer, or as its error.
        _ = connection => answered.await,
    }
}

/// HTTP/2 asks by a whole URI, and has no word about connections.
fn absolute(
    mut request: Request<Empty<Bytes>>,
    secure: bool,
) -> Result<Request<Empty<Bytes>>, Cause> {
    let wrong = || Cause::Failed("the check's host cannot be sent".into());
    let host = request.headers_mut().remove(HOST).ok_or_else(wrong)?;
    request.headers_mut().remove(CONNECTION);
    let uri = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(host.as_bytes())
        .path_and_query(
            request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str()),
        )
        .build();
    *request.uri_mut() = uri.map_err(|_| wrong())?;
    Ok(request)
}

fn cause(error: &hyper::Error) -> Cause {
    match http_cause(error) {
        Cause::Failed(_) => Cause::Failed(format!("HTTP/2: {error}").into()),
        cause => cause,
    }
}
