//! What an authority is answered that wants to know whose a name is. While nothing is pending this costs one load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use config::Certificate;

/// Where tokens are asked for (RFC 8555 §8.3).
const HTTP_PATH: &[u8] = b"/.well-known/acme-challenge/";

/// What is shown in a handshake (RFC 8737 §3).
pub type TlsAnswer = Arc<Certificate>;

/// The answers that are pending, of all authorities and instances.
#[derive(Debug, Default, Clone)]
pub struct Pending {
    /// By token: the key authorization.
    pub http: BTreeMap<Arc<str>, Arc<[u8]>>,
    /// By name, in lower case.
    pub tls: BTreeMap<Arc<str>, TlsAnswer>,
}

/// The same, as workers look at it.
#[derive(Debug, Default)]
pub struct Challenges {
    is_pending: AtomicBool,
    pending: ArcSwap<Pending>,
}

impl Challenges {
    /// Replaces what is pending.
    pub fn set(&self, pending: Pending) {
        let is_pending = !(pending.http.is_empty() && pending.tls.is_empty());
        self.pending.store(Arc::new(pending));
        self.is_pending.store(is_pending, Relaxed);
    }

    /// Whether anything is.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.is_pending.load(Relaxed)
    }

    /// The answer to a request for this path, if it is one for a token that is pending.
    #[must_use]
    pub fn http(&self, path: &[u8]) -> Option<Arc<[u8]>> {
        let token = std::str::from_utf8(path.strip_prefix(HTTP_PATH)?).ok()?;
        self.pending.load().http.get(token).cloned()
    }

    /// What to show to whoever asks for this name, in any case.
    #[must_use]
    pub fn tls(&self, name: &str) -> Option<TlsAnswer> {
        let name = name.to_ascii_lowercase();
        self.pending.load().tls.get(&*name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_pending_is_answered() {
        let challenges = Challenges::default();
        assert!(!challenges.is_pending());
        let mut pending = Pending::default();
        pending
            .http
            .insert("tok-1".into(), b"tok-1.thumb".as_slice().into());
        challenges.set(pending);
        assert!(challenges.is_pending());
        let answer = |path: &str| challenges.http(path.as_bytes());
        assert_eq!(
            answer("/.well-known/acme-challenge/tok-1").as_deref(),
            Some(b"tok-1.thumb".as_slice())
        );
        for other in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/tok-2",
            "/tok-1",
            "/",
        ] {
            assert_eq!(answer(other), None, "{other}");
        }
        assert!(challenges.tls("a.example").is_none());
        challenges.set(Pending::default());
        assert!(!challenges.is_pending());
        assert_eq!(answer("/.well-known/acme-challenge/tok-1"), None);
    }
}
