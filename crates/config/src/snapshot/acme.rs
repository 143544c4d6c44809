//! Automatic certificates, compiled: from whom, for which names, proved how, kept where.

use std::fmt;
use std::sync::Arc;

use super::PoolTls;

/// Certificates that an authority gives for names of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// From whom, and how.
    pub issuer: Arc<Issuer>,
    /// Names in lower case, each with a certificate of its own; at least one, the first is for names that nothing bears.
    pub domains: Vec<Arc<str>>,
}

/// An authority, and how it is asked. In one config there is one for each folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// URL of its directory (RFC 8555 §7.1.1).
    pub directory: Arc<str>,
    /// The host of that URL, as a name or an address.
    pub host: Arc<str>,
    /// The port of that URL.
    pub port: u16,
    /// Whom it tells of trouble: `mailto:` URLs.
    pub contacts: Vec<Arc<str>>,
    /// Who is believed to say who it is.
    pub trust: Arc<PoolTls>,
    /// The account outside of ACME that the account is bound to (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// How names are proved to be ours.
    pub challenge: Challenge,
    /// Where everything that comes from this authority is kept: a folder of its own within the store.
    pub folder: Arc<str>,
    /// Where the user wrote it: `FILE:LINE:COLUMN`.
    pub place: Arc<str>,
}

impl Issuer {
    /// Whether it is the same, wherever that is written.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let trust = PoolTls {
            place: other.trust.place.clone(),
            ..(*self.trust).clone()
        };
        let moved = Self {
            place: other.place.clone(),
            trust: Arc::new(trust),
            ..self.clone()
        };
        moved == *other
    }

    /// The path of the file with a name's key and certificate.
    #[must_use]
    pub fn file(&self, domain: &str) -> String {
        format!("{}/{domain}.pem", self.folder)
    }
}

/// An account outside of ACME. Its `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its key identifier.
    pub id: Arc<str>,
    /// Its HMAC key.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How an authority finds out whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// It asks for a token by plain HTTP (RFC 8555 §8.3).
    Http01,
    /// It shakes hands and looks at the certificate (RFC 8737).
    TlsAlpn01,
}

impl Challenge {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}
