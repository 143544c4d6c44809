//! What servers meet: who is believed, what is asked for, and what this end shows.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use config::{PoolTls, ServerHttp, Trust};
use control::live::{Endpoint, Member};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::TlsError;
use super::server::{certified, versions};

/// What is agreed on by ALPN (RFC 7301 §6).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// TLS as the servers of one pool meet it.
pub(crate) struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    /// The name that every server must bear; `None`: each its own.
    server_name: Option<ServerName<'static>>,
    /// Never used twice in a process, and never 0: a connection that was made under one serves no request of another.
    pub(crate) number: u32,
    /// Where servers choose: the same for connections that are to be of HTTP/1.1.
    only_http1: Option<Arc<Self>>,
    made_of: Arc<PoolTls>,
}

impl ClientTls {
    /// Whether it was made of this.
    pub(super) fn is_for(&self, tls: &Arc<PoolTls>) -> bool {
        Arc::ptr_eq(&self.made_of, tls) || self.made_of == *tls
    }

    /// Makes it.
    pub(super) fn build(tls: &Arc<PoolTls>) -> Result<Self, TlsError> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = tls.server_name.as_deref().map(name_of).transpose();
        let server_name = name.map_err(|message| TlsError {
            place: tls.place.clone(),
            message,
        })?;
        let config = client_config(tls)?;
        let made = |config, only_http1| Self {
            config,
            server_name: server_name.clone(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            only_http1,
            made_of: tls.clone(),
        };
        let only_http1 = (tls.http == ServerHttp::Auto).then(|| {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![HTTP1.to_vec()];
            Arc::new(made(Arc::new(config), None))
        });
        Ok(made(config, only_http1))
    }

    /// What connections are made under that are to be of HTTP/1.1 where servers may choose; itself elsewhere.
    pub(crate) fn only_http1(self: &Arc<Self>) -> &Arc<Self> {
        self.only_http1.as_ref().unwrap_or(self)
    }

    /// The name that a server must bear, which it is asked for too.
    pub(super) fn name(&self, member: &Member) -> Option<ServerName<'static>> {
        if let Some(name) = &self.server_name {
            return Some(name.clone());
        }
        server_name(
            member.host().as_deref().map(|host| &**host),
            &member.endpoint,
        )
    }
}

/// How probes speak to servers: as traffic does. What was made for a pool is kept while its config is.
#[must_use]
pub fn secure_probes() -> Arc<SecureProbes> {
    let known: Mutex<Vec<(Arc<PoolTls>, Arc<ClientConfig>)>> = Mutex::default();
    Arc::new(move |tls, host, endpoint| {
        let name = match tls.server_name.as_deref() {
            Some(name) => name_of(name)?,
            None => server_name(host, endpoint).ok_or("the server has no name")?,
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(tls, _)| Arc::strong_count(tls) > 1);
        if let Some((_, config)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, tls)) {
            return Ok((config.clone(), name));
        }
        let config = client_config(tls).map_err(|error| error.message)?;
        known.push((tls.clone(), config.clone()));
        Ok((config, name))
    })
}

/// What [`secure_probes`] gives.
type SecureProbes = dyn Fn(
        &Arc<PoolTls>,
        Option<&str>,
        &Endpoint,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), String>
    + Send
    + Sync;

/// The name that a server must bear where none is configured: that of its address, or its IP address.
fn server_name(host: Option<&str>, endpoint: &Endpoint) -> Option<ServerName<'static>> {
    match (host, endpoint) {
        (Some(host), _) => name_of(host).ok(),
        (None, Endpoint::Ip(address)) => Some(ServerName::from(address.ip().to_canonical())),
        (None, Endpoint::Unix(_)) => name_of("localhost").ok(),
    }
}

fn name_of(text: &str) -> Result<ServerName<'static>, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(text.to_owned()).map_err(|error| format!("`{text}`: {error}"))
}

/// TLS to servers, as rustls takes it.
///
/// # Errors
/// Authorities that cannot be believed, or a client's certificate that cannot be used.
fn client_config(tls: &PoolTls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = super::provider();
    let wrong = |message: String| TlsError {
        place: tls.place.clone(),
        message,
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| wrong(error.to_string()))?;
    let builder = match &tls.trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider.clone()))),
        Trust::System => builder.with_root_certificates(system_roots().map_err(wrong)?),
        Trust::Authorities(authorities) => {
            let mut roots = RootCertStore::empty();
            for der in authorities {
                let added = roots.add(CertificateDer::from(der.to_vec()));
                added.map_err(|error| wrong(format!("`ca` cannot be used: {error}")))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = certified(certificate, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = match tls.http {
        ServerHttp::Http1 => Vec::new(),
        ServerHttp::Http2 => vec![HTTP2.to_vec()],
        ServerHttp::Auto => vec![HTTP2.to_vec(), HTTP1.to_vec()],
    };
    Ok(Arc::new(config))
}

/// The authorities that this system believes.
fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that cannot be read takes nothing from the others.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(format!(
            "this system has no authorities to believe{}; install ca-certificates, or give `ca`",
            why.unwrap_or_default()
        ));
    }
    Ok(roots)
}

/// Believes every certificate, as `insecure: true` says; that its key is there is checked all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
