//! What is learnt of clients, and in how large a table.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A table of what is learnt of clients: which server each is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learning {
    /// What tells clients apart.
    pub by: LearntBy,
    /// Entries at most.
    pub entries: u32,
    /// An entry that was unused for this long is forgotten.
    pub expire: Duration,
}

/// What tells clients apart whose server is learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LearntBy {
    /// The application's own cookie: learnt from `Set-Cookie` of its answers.
    AppCookie {
        /// Its name.
        name: Arc<str>,
        /// The parameter of a path (`/shop;jsessionid=VALUE`) that stands for the cookie where a client takes none.
        path_parameter: Option<Arc<str>>,
    },
    /// The value of the header with this name, in lower case: learnt from answers that have it, else from requests.
    Header(Arc<str>),
    /// The client's address.
    Source {
        /// Bits of an IPv6 address that count, 1-128.
        ipv6_prefix: u8,
    },
}

impl LearntBy {
    /// Its word in the config, in logs and in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AppCookie { .. } => "app_cookie",
            Self::Header(_) => "header",
            Self::Source { .. } => "source",
        }
    }
}

/// As people read it, and as one process tells another: what is learnt by another text means something else.
impl fmt::Display for LearntBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppCookie { name, .. } => write!(f, "app_cookie {name}"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Source { ipv6_prefix } => write!(f, "source, IPv6 by /{ipv6_prefix}"),
        }
    }
}
