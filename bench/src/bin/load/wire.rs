//! A connection's bytes, plain or through TLS 1.3: the run's own certificate is trusted, tickets are used again.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

/// What connections share.
pub(crate) type Tls = Option<Arc<ClientConfig>>;

/// No session is used again.
pub(crate) fn tls(certificate: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).context("certificate")?)?;
    // What wrk offers too: OpenSSL 3.0 knows no key exchange that withstands quantum computers.
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For one client, whose connections after the first resume a session. What clients share would not do: a store keeps
/// eight tickets for a server, however many clients need one.
pub(crate) fn resuming(tls: &Tls) -> Tls {
    let mut config = ClientConfig::clone(tls.as_deref()?);
    config.resumption = Resumption::in_memory_sessions(1);
    Some(Arc::new(config))
}

pub(crate) enum Wire {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// The handshake comes with the first write.
    pub(crate) fn new(socket: TcpStream, tls: &Tls) -> Result<Self> {
        let Some(config) = tls else {
            return Ok(Self::Plain(socket));
        };
        // The last word of a handshake and the request after it are two small writes: the second would wait for the
        // other side's delayed acknowledgement.
        socket.set_nodelay(true)?;
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let session = ClientConnection::new(config.clone(), name)?;
        Ok(Self::Secure(Box::new(StreamOwned::new(session, socket))))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(stream) => &stream.sock,
        }
    }

    /// Whether its session is an earlier one's.
    pub(crate) fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Whether a write that would block waits for room, and not for the other end's word.
    pub(crate) fn wants_room(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Secure(stream) => stream.conn.wants_write(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
