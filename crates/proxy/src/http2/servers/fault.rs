//! How a request over HTTP/2 came to nothing, as the exchange that reads its response is told.

use std::fmt;
use std::io;

use h2::Reason;

/// Carried by the `io::Error` of a read; what is not here is an error of that kind alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server has not taken the request, and said so: REFUSED_STREAM, or a GOAWAY that leaves it out (RFC 9113 §8.7).
    NotTaken,
    /// What the server sent is not HTTP/2, or not what HTTP/2 allows.
    Bad(String),
    /// The request cannot be said in HTTP/2.
    Unsayable(String),
    /// The server cannot be asked for the upgrade.
    NoUpgrade,
    /// The server gave the request up: RST_STREAM.
    Reset,
    /// The connection was reset.
    Lost,
    /// The connection ended.
    Closed,
}

impl Fault {
    /// What became of a stream.
    pub(super) fn of(error: &h2::Error) -> Self {
        let reason = error.reason();
        if error.is_remote() {
            return match reason {
                _ if error.is_go_away() => Self::NotTaken,
                Some(Reason::REFUSED_STREAM) => Self::NotTaken,
                Some(Reason::HTTP_1_1_REQUIRED) => {
                    Self::Bad("the server wants HTTP/1.1 (HTTP_1_1_REQUIRED)".to_owned())
                }
                _ => Self::Reset,
            };
        }
        match error.get_io().map(io::Error::kind) {
            Some(
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::TimedOut,
            ) => Self::Lost,
            Some(_) => Self::Closed,
            None => Self::Bad(format!("HTTP/2: {error}")),
        }
    }

    /// That of a failed read.
    pub(crate) fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::Reset | Fault::Lost => io::ErrorKind::ConnectionReset,
            Fault::Closed => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTaken => "the server has not taken the request",
            Self::Bad(detail) | Self::Unsayable(detail) => detail,
            Self::NoUpgrade => {
                "the server takes no upgrade over HTTP/2: it does not offer extended CONNECT (RFC 8441)"
            }
            Self::Reset => "the server reset the stream",
            Self::Lost => "the connection was reset",
            Self::Closed => "the connection ended",
        })
    }
}

impl std::error::Error for Fault {}
