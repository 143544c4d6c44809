//! What binds a client to a server of a pool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use balance::OnDrain;

use super::{HashKey, Learning, LearntBy, Pool};

/// What binds a client to a server of a pool, and how firmly.
#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    /// By what.
    pub kind: AffinityKind,
    /// What happens when the bound server cannot serve.
    pub strength: Strength,
    /// What becomes of bound clients while their server drains.
    pub on_drain: OnDrain,
    /// How long a request waits for its server when that is full; at most as long as the pool lets requests wait.
    /// `None`: not at all.
    pub queue_wait: Option<Duration>,
    /// A warning is due when one address sends as many percent of the pool's requests; `None`: addresses are not counted.
    pub source_alarm: Option<u32>,
}

impl Pool {
    /// What it learns of its clients, if it does.
    #[must_use]
    pub fn learning(&self) -> Option<&Learning> {
        match &self.affinity.as_ref()?.kind {
            AffinityKind::Learnt(learning) => Some(learning),
            _ => None,
        }
    }
}

/// By what a client is bound.
#[derive(Debug, Clone, PartialEq)]
pub enum AffinityKind {
    /// A cookie of ours.
    Cookie(Box<InsertedCookie>),
    /// The header of this name, in lower case, holds the name of a server.
    Header(Arc<str>),
    /// The hash of the client's address.
    Source {
        /// Bits of an IPv6 address that count, 1-128.
        ipv6_prefix: u8,
    },
    /// The hash of something that requests have.
    Hash(HashKey),
    /// What was learnt before.
    Learnt(Learning),
}

impl AffinityKind {
    /// Its word in the config, in logs and in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Header(_) => "header",
            Self::Source { .. } => "source",
            Self::Hash(_) => "hash",
            Self::Learnt(learning) => learning.by.name(),
        }
    }

    /// Whether TCP connections have what binds.
    #[must_use]
    pub fn is_for_tcp(&self) -> bool {
        self.source_prefix().is_some() || matches!(self, Self::Hash(HashKey::Source))
    }

    /// Bits of an IPv6 address that count, where clients are bound by theirs.
    #[must_use]
    pub fn source_prefix(&self) -> Option<u8> {
        match self {
            Self::Source { ipv6_prefix } => Some(*ipv6_prefix),
            Self::Learnt(learning) => match learning.by {
                LearntBy::Source { ipv6_prefix } => Some(ipv6_prefix),
                _ => None,
            },
            _ => None,
        }
    }
}

/// How firmly a client is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// When the server cannot serve, another one does, and the client is bound to that.
    Preferred,
    /// When the server cannot serve, the request is answered 503.
    Required,
}

/// A cookie that is added to responses, and says which server the client is bound to.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertedCookie {
    /// A token (RFC 6265 §4.1.1).
    pub name: Arc<str>,
    /// Whether its value tells nothing of the server: a keyed hash of its name, else the name itself.
    pub opaque: bool,
    /// `Path`.
    pub path: Arc<str>,
    /// `Domain`, if it is not for the host alone.
    pub domain: Option<Arc<str>>,
    /// `Secure`; `None`: where the client came over TLS.
    pub secure: Option<bool>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`, as it is sent.
    pub same_site: &'static str,
    /// `Max-Age`; `None`: until the browser is closed.
    pub max_age: Option<Duration>,
    /// A cookie of this age is given anew; `None`: it is not.
    pub renewal: Option<Duration>,
    /// Whether servers do not see it.
    pub indirect: bool,
    /// Whether a response that sets it tells caches that it is for one client.
    pub no_cache: bool,
}

/// Bytes that sign what clients carry. Its `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}
