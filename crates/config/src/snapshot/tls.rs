//! TLS, compiled: certificates and keys as bytes that were read and looked at.
//!
//! Nothing here does cryptography; whether a key belongs to its certificate is found out by whoever builds a TLS
//! config of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Acme, ServerHttp};

/// TLS as clients meet it at an address.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// From files; the first is for names that none bears. Empty only with `acme`.
    pub certificates: Vec<Arc<Certificate>>,
    /// Certificates that an authority gives.
    pub acme: Option<Acme>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// What may be spoken inside, best first; empty: not agreed upon.
    pub alpn: Vec<String>,
    /// Whose certificates clients show; `None`: they are not asked.
    pub client: Option<ClientAuth>,
    /// Whether a request is refused whose host no certificate bears that its connection was shown.
    pub refuses_misdirected: bool,
}

impl ListenerTls {
    /// Whether a certificate that a client is shown which asks for `sni` bears `host`; both in lower case.
    #[must_use]
    pub fn bears(&self, sni: Option<&str>, host: &str) -> bool {
        let mut asked = sni
            .into_iter()
            .flat_map(|sni| self.certificates.iter().filter(move |it| it.covers(sni)))
            .peekable();
        match asked.peek() {
            Some(_) => asked.any(|it| it.covers(host)),
            None => self.certificates.first().is_some_and(|it| it.covers(host)),
        }
    }
}

/// TLS to the servers of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolTls {
    /// Who is believed.
    pub trust: Trust,
    /// The name that is asked for and verified; `None`: that of each server's address.
    pub server_name: Option<Arc<str>>,
    /// What this end shows.
    pub client: Option<Arc<Certificate>>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// What is agreed on by ALPN: HTTP/2, or what the server chooses. With HTTP/1.1 alone nothing is.
    pub http: ServerHttp,
    /// Where the user wrote it: `FILE:LINE:COLUMN`.
    pub place: Arc<str>,
}

/// Who is believed to say who a server is.
#[derive(Debug, Clone, PartialEq)]
pub enum Trust {
    /// The authorities that the system believes.
    System,
    /// These, as DER.
    Authorities(Vec<Arc<[u8]>>),
    /// Nobody is asked.
    Anyone,
}

/// Whose certificates clients show.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAuth {
    /// The authorities, as DER.
    pub authorities: Vec<Arc<[u8]>>,
    /// Whether one must be shown.
    pub required: bool,
    /// Where the user wrote it: `FILE:LINE:COLUMN`.
    pub place: Arc<str>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// As DER: the certificate, then those that lead to its authority.
    pub chain: Vec<Arc<[u8]>>,
    /// Its private key.
    pub key: PrivateKey,
    /// The authority's word that it is still good.
    pub ocsp: Option<Staple>,
    /// The names that it bears, in lower case; `*.` at the front stands for one label. IP addresses as text.
    pub names: Vec<String>,
    /// Wall time from which it is good, since the Unix epoch.
    pub not_before: Duration,
    /// Wall time after which it is not.
    pub not_after: Duration,
    /// The path of its file.
    pub file: Arc<str>,
    /// Where the user wrote it: `FILE:LINE:COLUMN`.
    pub place: Arc<str>,
}

impl Certificate {
    /// Whether it bears a host name, given in lower case (RFC 6125 §6.4.3: a wildcard is one whole label).
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => name == host,
        })
    }
}

/// An authority's word that a certificate is still good (OCSP), to be shown with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staple {
    /// As DER.
    pub der: Arc<[u8]>,
    /// Wall time after which it is shown no more; `None`: it says no such time.
    pub until: Option<Duration>,
}

/// A private key. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// As DER.
    pub der: Arc<[u8]>,
    /// In which form.
    pub form: KeyForm,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").finish_non_exhaustive()
    }
}

/// How a private key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// RFC 8017: `RSA PRIVATE KEY`.
    Pkcs1,
    /// RFC 5958: `PRIVATE KEY`.
    Pkcs8,
    /// RFC 5915: `EC PRIVATE KEY`.
    Sec1,
}
