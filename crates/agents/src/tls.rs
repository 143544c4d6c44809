//! TLS of probes: the same as of the traffic that they stand for.
//!
//! Who is believed and what is shown is not decided here: whoever starts the agents says how traffic does it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use balance::health::Cause;
use config::PoolTls;
use control::live::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, Error, ProtocolVersion, SignatureScheme};

/// HTTP/2 by ALPN.
const H2: &[u8] = b"h2";
/// How long a server is listened to that may still refuse what it was shown: its word needs one way back, and one that
/// stays silent is not to make every probe of it slow.
const AGREEMENT_WAIT: Duration = Duration::from_millis(250);

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
    let (mut config, name) = secure(tls, host, endpoint).map_err(|what| failed(&what))?;
    if h2 {
        Arc::make_mut(&mut config).alpn_protocols = vec![H2.to_vec()];
    }
    let stream = shake(config, name, stream).await?;
    if h2 && !speaks_http2(&stream) {
        return Err(failed("the server speaks no HTTP/2"));
    }
    Ok(stream)
}

/// Shakes hands with a server that nothing will be asked of, and hears whether it believes the certificate of this end,
/// or goes without one. A server of TLS 1.3 that has asked for one says that only behind the handshake (RFC 8446 §4.4):
/// by an alert, or by whatever else it says, tickets first of all. Who stays silent agrees. At most half of the time
/// that the probe has `left` then is spent on it.
pub(crate) async fn agree<S>(
    secure: &Secure,
    tls: &Arc<PoolTls>,
    host: Option<&str>,
    endpoint: &Endpoint,
    stream: S,
    left: impl Fn() -> Duration,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut config, name) = secure(tls, host, endpoint).map_err(|what| failed(&what))?;
    let asked = Arc::new(AtomicBool::new(false));
    let own = Arc::make_mut(&mut config);
    own.client_auth_cert_resolver = Arc::new(Noted {
        inner: own.client_auth_cert_resolver.clone(),
        asked: asked.clone(),
    });
    let mut stream = shake(config, name, stream).await?;
    let is_late = stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    if !is_late || !asked.load(Ordering::Relaxed) {
        return Ok(());
    }
    let wait = AGREEMENT_WAIT.min(left() / 2);
    let heard = timeout(wait, first_word(&mut stream)).await;
    heard.unwrap_or(Ok(())).map_err(|error| broken(&error))
}

/// Waits until a server says anything behind the handshake, tickets included.
async fn first_word<S>(stream: &mut TlsStream<S>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        let (mut byte, mut stream) = ([0], Pin::new(&mut *stream));
        let read = stream.as_mut().poll_read(cx, &mut ReadBuf::new(&mut byte));
        if read.is_pending() && stream.get_ref().1.tls13_tickets_received() > 0 {
            return Poll::Ready(Ok(()));
        }
        read
    })
    .await
}

async fn shake<S>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: S,
) -> Result<TlsStream<S>, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| broken(&error))
}

fn failed(what: &str) -> Cause {
    Cause::Failed(format!("TLS: {what}").into())
}

fn broken(error: &io::Error) -> Cause {
    match tls_error(error) {
        Some(error) => failed(&error.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            failed("the server closed the connection")
        }
        None => failed(&error.to_string()),
    }
}

/// Notes whether a server asks who its client is.
#[derive(Debug)]
struct Noted {
    inner: Arc<dyn ResolvesClientCert>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Noted {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(issuers, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// Whether the server has chosen HTTP/2.
pub(crate) fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}
