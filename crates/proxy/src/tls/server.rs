//! What clients meet: the certificates of an address, picked by name and by what the client can check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::{Certificate, ClientAuth, KeyForm, ListenerTls, TlsVersion};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureAlgorithm,
    SignatureScheme, SupportedProtocolVersion, version,
};

use super::issued::{ByDomain, Issued};
use super::tickets::Ticketer;
use super::{TlsError, about};

/// TLS as clients of one address meet it.
pub(crate) struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    /// What it was made of.
    made_of: Arc<ListenerTls>,
    /// Those that an authority gives.
    issued: Arc<ByDomain>,
}

impl ServerTls {
    /// Whether it was made of this.
    pub(super) fn is_for(&self, tls: &Arc<ListenerTls>) -> bool {
        Arc::ptr_eq(&self.made_of, tls) || self.made_of == *tls
    }

    pub(super) fn refuses_misdirected(&self) -> bool {
        self.made_of.refuses_misdirected
    }

    /// Whether a certificate that a client is shown which asks for `sni` bears `host`; both in lower case.
    pub(super) fn bears(&self, sni: Option<&str>, host: &str) -> bool {
        match sni.and_then(|sni| self.issued.find(sni)) {
            Some(Some(given)) => given.covers(host),
            // Nothing but those is shown to who asks for another name.
            None if self.made_of.certificates.is_empty() => {
                self.issued.first().is_some_and(|it| it.covers(host))
            }
            _ => self.made_of.bears(sni, host),
        }
    }

    /// Makes it.
    pub(super) fn build(
        tls: &Arc<ListenerTls>,
        ticketer: Ticketer,
        issued: &Issued,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Vec<TlsError>> {
        let mut resolver = ByName::build(&tls.certificates, provider)?;
        let issued = tls.acme.as_ref().map(|acme| issued.of(acme));
        let issued = Arc::new(issued.unwrap_or_default());
        resolver.issued = issued.clone();
        let verifier = match &tls.client {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(client) => {
                let inner = verifier(client, provider).map_err(|error| vec![error])?;
                Arc::new(Verifier(inner))
            }
        };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(tls.min_version));
        let builder = builder.map_err(|error| {
            let place = tls.certificates.first().map(|it| it.place.clone());
            vec![TlsError {
                place: place.unwrap_or_else(|| "".into()),
                message: error.to_string(),
            }]
        })?;
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = tls
            .alpn
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect();
        config.ticketer = Arc::new(ticketer);
        // The default keeps sessions behind a lock.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(config),
            made_of: tls.clone(),
            issued,
        })
    }
}

/// The versions from the lowest that is allowed on.
pub(super) fn versions(lowest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match lowest {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => BOTH.get(..1).unwrap_or_default(),
    }
}

/// A certificate with its key, as rustls uses it.
pub(super) fn certified(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let (chain, key) = parts(certificate);
    let made = CertifiedKey::from_der(chain, key, provider);
    made.map_err(|error| TlsError {
        place: certificate.place.clone(),
        message: match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "the private key does not belong to the certificate in `{}`",
                certificate.file
            ),
            error => format!(
                "the certificate in `{}` cannot be used: {error}",
                certificate.file
            ),
        },
    })
}

/// Its chain and its key, as rustls takes them.
pub(super) fn parts(
    certificate: &Certificate,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = certificate.chain.iter();
    let chain = chain
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let der = certificate.key.der.to_vec();
    let key = match certificate.key.form {
        KeyForm::Pkcs1 => PrivateKeyDer::from(PrivatePkcs1KeyDer::from(der)),
        KeyForm::Pkcs8 => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)),
        KeyForm::Sec1 => PrivateKeyDer::from(PrivateSec1KeyDer::from(der)),
    };
    (chain, key)
}

pub(super) fn verifier(
    client: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wrong = |error: &dyn std::fmt::Display| TlsError {
        place: client.place.clone(),
        message: format!("`client_ca` cannot be used: {error}"),
    };
    let mut roots = RootCertStore::empty();
    for der in &client.authorities {
        let added = roots.add(CertificateDer::from(der.to_vec()));
        added.map_err(|error| wrong(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match client.required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| wrong(&error))
}

/// Verifies clients, and notes until when what they show holds: until the first of their certificates is out of date.
#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(shown, between, now)?;
        // One that does not say so is verified anew each time.
        let ends = |der| config::not_after(der).map_or(0, |until| until.as_secs());
        let all = std::iter::once(shown).chain(between);
        about::note_holds_until(all.map(|der| ends(der)).min());
        Ok(verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A certificate as clients are shown it.
#[derive(Clone)]
struct Shown {
    bare: Arc<CertifiedKey>,
    /// With its authority's word, up to this wall time.
    stapled: Option<(Arc<CertifiedKey>, Option<Duration>)>,
}

impl Shown {
    fn new(certificate: &Certificate, bare: CertifiedKey) -> Self {
        let stapled = certificate.ocsp.as_ref().map(|staple| {
            let mut stapled = bare.clone();
            stapled.ocsp = Some(staple.der.to_vec());
            (Arc::new(stapled), staple.until)
        });
        Self {
            bare: Arc::new(bare),
            stapled,
        }
    }

    /// Without a word that is out of date: clients take it for worse than none.
    fn now(&self) -> Arc<CertifiedKey> {
        match &self.stapled {
            None => self.bare.clone(),
            Some((stapled, Some(until))) if wall() <= *until => stapled.clone(),
            Some((stapled, None)) => stapled.clone(),
            Some(_) => self.bare.clone(),
        }
    }
}

fn wall() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// Certificates by the names that they bear; of several for a name, those that are cheaper to sign with first.
struct ByName {
    exact: BTreeMap<String, Vec<Shown>>,
    /// By what stands behind `*.`.
    wildcards: BTreeMap<String, Vec<Shown>>,
    /// For names that none bears, and for clients that ask for none.
    others: Vec<Shown>,
    /// Those that an authority gives.
    issued: Arc<ByDomain>,
}

impl std::fmt::Debug for ByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByName").finish_non_exhaustive()
    }
}

impl ByName {
    fn build(
        certificates: &[Arc<Certificate>],
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<TlsError>> {
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        for certificate in certificates {
            match certified(certificate, provider) {
                Ok(key) => made.push((certificate, Shown::new(certificate, key))),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        made.sort_by_key(|(_, shown)| shown.bare.key.algorithm() == SignatureAlgorithm::RSA);
        let mut names = Self {
            exact: BTreeMap::new(),
            wildcards: BTreeMap::new(),
            others: Vec::new(),
            issued: Arc::default(),
        };
        let first = certificates.first();
        for (certificate, shown) in made {
            for name in &certificate.names {
                let of_name = match name.strip_prefix("*.") {
                    Some(parent) => names.wildcards.entry(parent.to_owned()),
                    None => names.exact.entry(name.clone()),
                };
                of_name.or_default().push(shown.clone());
            }
            let is_default = first.is_some_and(|first| {
                Arc::ptr_eq(first, certificate)
                    || certificate
                        .names
                        .iter()
                        .any(|name| first.names.contains(name))
            });
            if is_default {
                names.others.push(shown);
            }
        }
        Ok(names)
    }

    /// Those for a name, in lower case; best first.
    fn find(&self, name: &str) -> impl Iterator<Item = &Shown> {
        let exact = self.exact.get(name);
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let wildcard = parent.and_then(|parent| self.wildcards.get(parent));
        [exact, wildcard].into_iter().flatten().flatten()
    }

    /// The first of those for a name, or of those for names that none bears, that a client can check.
    fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let of_name = name.into_iter().flat_map(|name| self.find(name));
        of_name
            .chain(&self.others)
            .find(|shown| shown.bare.key.choose_scheme(schemes).is_some())
            .map(Shown::now)
    }

    /// The automatic certificate for a name that an authority gives one for, or what stands in until it is there: one
    /// from a file. `None`: the name is none of those.
    fn issued(&self, name: &str, schemes: &[SignatureScheme]) -> Option<Option<Arc<CertifiedKey>>> {
        let slot = self.issued.find(name)?;
        let there = slot.map(|given| given.key.clone());
        let there = there.filter(|key| key.key.choose_scheme(schemes).is_some());
        Some(there.or_else(|| self.pick(Some(name), schemes)))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let lower;
        // RFC 6066 §3 has no trailing dot; some clients send it.
        let name = hello.server_name();
        let name = match name.map(|name| name.strip_suffix('.').unwrap_or(name)) {
            Some(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                lower = name.to_ascii_lowercase();
                Some(lower.as_str())
            }
            name => name,
        };
        about::note_asked(name);
        if let Some(found) = name.and_then(|name| self.issued(name, schemes)) {
            return found;
        }
        let found = self.pick(name, schemes);
        found.or_else(|| Some(self.issued.first()?.key.clone()))
    }
}
