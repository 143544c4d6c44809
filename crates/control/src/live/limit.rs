//! What bounds the requests that a server has at once, and which of its bounds that is.

/// What bounds the requests in use of a server: one word, which a pick loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub(super) u32);

impl Limit {
    /// Set while its pool has a bound of its own.
    pub(super) const IN_POOL: u32 = 1 << 31;

    /// Its own bound; `None` if there is none.
    #[must_use]
    pub fn own(self) -> Option<u32> {
        match self.0 & !Self::IN_POOL {
            0 => None,
            max => Some(max),
        }
    }

    /// Whether its pool has a bound, too.
    #[must_use]
    pub fn in_pool(self) -> bool {
        self.0 & Self::IN_POOL != 0
    }
}

/// What the bound of a server's requests in use comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LimitedBy {
    /// `limits.connections_per_server` of its pool: each request needs a socket, or over HTTP/2 its place on one.
    Sockets,
    /// Its own `max_connections`.
    MaxConnections,
    /// What its agent said.
    Agent,
    /// An ejection is over, and no request has succeeded since.
    HalfOpen,
    /// How its latency answers to the requests that it has.
    Latency,
}

impl LimitedBy {
    /// Each, in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::Sockets,
        Self::MaxConnections,
        Self::Agent,
        Self::HalfOpen,
        Self::Latency,
    ];

    /// The word for it in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sockets => "connections_per_server",
            Self::MaxConnections => "max_connections",
            Self::Agent => "agent",
            Self::HalfOpen => "half_open",
            Self::Latency => "latency",
        }
    }
}
