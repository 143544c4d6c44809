//! TLS as written: what a listener shows to clients, and how a pool's servers are spoken to.

use super::{RawAcme, words};
use crate::diagnostic::Report;
use crate::read::{Read, Shape, or, required, section, word};
use crate::scalar::Scalar;
use crate::tree::{Node, Value};
use crate::values::{List, Many, Text};

section! {
    /// TLS of a listener, or of one of its addresses.
    RawTls "tls" {
        /// Certificates with their keys. A client gets one that bears the name it asks for, of a kind that it can check; the first one where none does.
        "certificates" certificates: List<RawCertificate> = or("none; it or `acme` is needed"),
        /// Certificates that an authority gives and renews by itself.
        "acme" acme: RawAcme = or("none"),
        /// The lowest version that is spoken.
        "min_version" min_version: TlsVersionWord = or("1.2"),
        /// What may be spoken inside, best first; on a TCP listener what its servers speak.
        "alpn" alpn: Many<Text> = or("h2 and http/1.1, without `http2` http/1.1; nothing on a TCP listener"),
        /// PEM file of the authorities whose certificates clients may show.
        "client_ca" client_ca: Text = or("none"),
        /// Whether a client must show a certificate of `client_ca`, or may.
        "client_auth" client_auth: ClientAuthWord = or("required with `client_ca`"),
        /// A request for a host that no certificate bears which its connection was shown: `refuse` (421 `misdirected`) or `allow`.
        "misdirected" misdirected: MisdirectedWord = or("refuse with `client_ca`, else allow"),
    } later []
}

section! {
    /// A certificate with its key.
    RawCertificate "certificate" {
        /// PEM file: the certificate, then those that lead to its authority.
        "cert" cert: Text = required(),
        /// PEM file of its private key.
        "key" key: Text = required(),
        /// DER file of the authority's word that the certificate is still good (OCSP), shown to clients with it.
        "ocsp" ocsp: Text = or("none"),
    } later []
}

section! {
    /// TLS to a pool's servers; what is left out is verified as usual. In short: `tls: on`.
    RawPoolTlsMap "pool tls" {
        /// PEM file of the authorities that are believed.
        "ca" ca: Text = or("those of this system"),
        /// The name that is asked for (SNI), and that a server's certificate must bear.
        "server_name" server_name: Text = or("the name of the server's address, or its IP address"),
        /// The certificate that this end shows.
        "client" client: RawCertificate = or("none"),
        /// The lowest version that is spoken.
        "min_version" min_version: TlsVersionWord = or("1.2"),
        /// `true`: a server's certificate is not verified at all; whoever is in between can read and change everything.
        "insecure" insecure: bool = or(false),
    } later []
}

words! {
    /// A version of TLS.
    TlsVersionWord "a version of TLS" ["1.2", "1.3"]
}

words! {
    /// Whether clients show certificates.
    ClientAuthWord "a way to ask for certificates" ["required", "optional"]
}

words! {
    /// What becomes of misdirected requests.
    MisdirectedWord "a way to deal with misdirected requests" ["refuse", "allow"]
}

/// TLS to servers, short or long.
#[derive(Debug)]
pub(crate) struct RawPoolTls(pub(crate) RawPoolTlsMap);

impl Read for RawPoolTls {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Scalar(Scalar { .. })) && !node.is_null() {
            word(node, "`tls` of a pool", &["on", "off"], report)?;
            return Some(Self(RawPoolTlsMap::absent()));
        }
        RawPoolTlsMap::read(node, report).map(Self)
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Words(&["on"]), RawPoolTlsMap::shape()])
    }
}
