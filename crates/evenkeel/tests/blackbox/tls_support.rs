//! What the TLS tests share: an authority that issues certificates, and a client that says exactly what it sees.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use testkit::{Response, TempDir};

/// Longer than any read or write takes.
const LIMIT: Duration = Duration::from_secs(15);

/// Issues certificates that whoever believes its own one believes.
pub(crate) struct Authority {
    pub(crate) pem: String,
    /// Its private key, as PEM.
    pub(crate) key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            pem,
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names, with an ECDSA key.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &PKCS_ECDSA_P256_SHA256, |_| {})
    }

    pub(crate) fn issue_rsa(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &PKCS_RSA_SHA256, |_| {})
    }

    /// One that is out of date.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &PKCS_ECDSA_P256_SHA256, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// One that a client shows.
    pub(crate) fn issue_for_client(&self, name: &str) -> Issued {
        self.issue_with(&[name], &PKCS_ECDSA_P256_SHA256, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    /// The same, good until then.
    pub(crate) fn issue_until(&self, name: &str, until: SystemTime) -> Issued {
        self.issue_with(&[name], &PKCS_ECDSA_P256_SHA256, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.not_after = until.into();
        })
    }

    /// Any other.
    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, dir: &TempDir, name: &str) {
        dir.write(&format!("{name}.pem"), &self.cert)
            .expect("written");
        let key = dir
            .write(&format!("{name}.key"), &self.key)
            .expect("written");
        let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(key, only_mine).expect("permissions");
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")
    }
}

/// How a client goes about it.
pub(crate) struct Wants<'a> {
    pub(crate) versions: &'a [&'static SupportedProtocolVersion],
    pub(crate) shows: Option<&'a Issued>,
}

impl Default for Wants<'_> {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS,
            shows: None,
        }
    }
}

/// A config of a client that believes `authority`; sessions are resumed by those who share it.
pub(crate) fn config(authority: &Authority, wants: &Wants<'_>) -> Arc<ClientConfig> {
    believing(&authority.pem, wants)
}

/// The same for an authority of which only the certificate is known, as PEM.
pub(crate) fn believing(authority: &str, wants: &Wants<'_>) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
    roots.add(ca).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(wants.versions)
        .expect("versions")
        .with_root_certificates(roots);
    let config = match wants.shows {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            let config = builder.with_client_auth_cert(vec![issued.der()], key);
            config.expect("a client's certificate")
        }
    };
    Arc::new(config)
}

/// A client's TLS connection.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands.
pub(crate) fn shake(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<Tls> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a client");
    let mut tls = StreamOwned::new(connection, socket);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// Sends a request that ends the connection, and reads until the end. An end that was not said to be one is an error.
pub(crate) fn ask_once(tls: &mut Tls, host: &str) -> std::io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a request with these lines after the first, which ends the connection; the answer.
pub(crate) fn send(tls: &mut Tls, line: &str, fields: &[&str]) -> Response {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).expect("an answer and its end");
    Response::from_printed(&answer).expect("a response")
}

/// The certificate that the other end has shown.
pub(crate) fn shown(tls: &Tls) -> CertificateDer<'static> {
    let shown = tls.conn.peer_certificates().expect("a handshake");
    shown.first().expect("a certificate").clone().into_owned()
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("TLS 1.3");
    let hash = suite.common.hash_provider.hash(bytes);
    hash.as_ref().to_vec()
}
