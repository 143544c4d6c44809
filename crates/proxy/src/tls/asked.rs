//! A client's certificate without its client: what a handshake would make of one that somebody asks about.

use aws_lc_rs::digest::{SHA256, digest};
use config::ClientAuth;
use rules::ClientCertificate;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{provider, server};

/// What rules are told of a client that shows the first certificate of `pem`, with those after it to lead to its authority.
///
/// # Errors
/// Why there is none, or why a handshake would refuse it.
pub fn ask_certificate(pem: &str, auth: &ClientAuth) -> Result<ClientCertificate, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("the client's certificate is not PEM: {error}"))?;
    let Some((shown, between)) = chain.split_first() else {
        let what = "there is no certificate in the client's: PEM is expected, `-----BEGIN CERTIFICATE-----`";
        return Err(what.to_owned());
    };
    let verifier = server::verifier(auth, &provider()).map_err(|error| error.to_string())?;
    verifier
        .verify_client_cert(shown, between, UnixTime::now())
        .map_err(|error| format!("the handshake refuses the client's certificate: {error}"))?;
    Ok(read(shown))
}

/// What rules are told of a certificate that was verified.
pub(super) fn read(der: &CertificateDer<'_>) -> ClientCertificate {
    let fingerprint = digest(&SHA256, der);
    config::client_certificate(der, fingerprint.as_ref())
}
