//! Handshakes of an authority that wants to know whose a name is (TLS-ALPN-01, RFC 8737).
//!
//! Only while such a question is pending a handshake begins here, by a look at what the client asks for.

use std::sync::Arc;

use control::acme::{Challenges, TlsAnswer};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use wire::client_hello::ClientHello;
use wire::http1::Decoded;

use super::server::{parts, versions};

/// RFC 8737 §6.2.
const ALPN: &[u8] = b"acme-tls/1";

/// What the first bytes of a client come to.
pub(super) enum Asked {
    /// Its message is not whole yet.
    Unknown,
    /// It is a client like others.
    Else,
    /// It is an authority's question, to be answered by this.
    Challenge(Arc<ServerConfig>),
}

/// Looks at what has come of a client's first message.
pub(super) fn look(bytes: &[u8], challenges: &Challenges) -> Asked {
    let hello = match ClientHello::decode(bytes) {
        Ok(Decoded::Complete(hello)) => hello,
        Ok(Decoded::Incomplete) => return Asked::Unknown,
        // The handshake will say what is wrong.
        Err(_) => return Asked::Else,
    };
    if !matches!(&*hello.alpn, [asked] if *asked == ALPN) {
        return Asked::Else;
    }
    let name = hello.server_name.as_deref();
    let answer = name.and_then(|name| challenges.tls(name));
    match answer.and_then(|answer| server_config(&answer)) {
        Some(config) => Asked::Challenge(config),
        None => Asked::Else,
    }
}

/// No client certificate is asked for, and no session is resumed.
fn server_config(answer: &TlsAnswer) -> Option<Arc<ServerConfig>> {
    let provider = super::provider();
    let (chain, key) = parts(answer);
    let key = provider.key_provider.load_private_key(key).ok()?;
    // Not looked into: it has a critical extension that nobody but its reader knows.
    let key = CertifiedKey::new(chain, key);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(config::TlsVersion::Tls12));
    let mut config = builder
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Some(Arc::new(config))
}
