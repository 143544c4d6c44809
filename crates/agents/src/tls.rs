//! TLS of probes: the same as of the traffic that they stand for.
//!
//! Who is believed and what is shown is not decided here: whoever starts the agents says how traffic does it.

use std::io;
use std::sync::Arc;

use balance::health::Cause;
use config::PoolTls;
use control::live::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error};

/// HTTP/2 by ALPN.
const H2: &[u8] = b"h2";

/// How a server of this host name (if it has one) at this address is spoken to, or why it cannot be.
pub type Secure = Arc<
    dyn Fn(
            &Arc<PoolTls>,
            Option<&str>,
            &Endpoint,
        ) -> Result<(Arc<ClientConfig>, ServerName<'static>), String>
        + Send
        + Sync,
>;

/// Shakes hands with a server. `h2`: it must choose HTTP/2 (RFC 9113 §3.3).
pub(crate) async fn connect<S>(
    secure: &Secure,
    tls: &Arc<PoolTls>,
    host: Option<&str>,
    endpoint: &Endpoint,
    stream: S,
    h2: bool,
) -> Result<TlsStream<S>, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |what: String| Cause::Failed(format!("TLS: {what}").into());
    let (mut config, name) = secure(tls, host, endpoint).map_err(failed)?;
    if h2 {
        Arc::make_mut(&mut config).alpn_protocols = vec![H2.to_vec()];
    }
    let connected = TlsConnector::from(config).connect(name, stream).await;
    let stream = connected.map_err(|error| match tls_error(&error) {
        Some(error) => failed(error.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            failed("the server closed the connection".to_owned())
        }
        None => failed(error.to_string()),
    })?;
    if h2 && !speaks_http2(&stream) {
        return Err(failed("the server speaks no HTTP/2".to_owned()));
    }
    Ok(stream)
}

/// Whether the server has chosen HTTP/2.
pub(crate) fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}
