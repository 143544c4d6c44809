//! What happens to a request: matching, path normalisation, filters, header rules.
//!
//! Pure: bytes and compiled rules go in, the index of a route, edits and field bytes come out.
//! It does not parse HTTP (that is `wire`), read a config (`config`), pick a server (`balance`)
//! or write to a socket (`proxy`); it knows no clock, file, socket or environment.
//!
//! The order of use for one request:
//!
//! 1. [`path::normalise`] the target and [`host::normalise`] the authority;
//! 2. [`forward::source`] says who the client is;
//! 3. [`RouteTable::find`] gives the route;
//! 4. [`Walk`] applies its filters, which leave their mark in [`Edits`];
//! 5. [`forward::Plan`] says which forwarding headers are dropped and writes the new ones.
//!
//! Nothing is allocated on that way once the recycled buffers ([`Scratch`], [`Edits`], the caller's
//! `Vec`s) have grown to their size.

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod cidr;
mod covers;
mod edits;
mod fields;
mod filter;
pub mod forward;
pub mod host;
mod index;
mod matching;
pub mod path;
mod pattern;
mod read;
mod request;
mod scratch;
mod session;
mod table;
mod template;
#[cfg(test)]
mod testing;
mod tls;
mod trace;
mod why;

pub use cidr::{Cidr, CidrError};
pub use edits::{Edits, HeaderEdit, On};
pub use filter::{
    Answer, Filter, FilterError, Hsts, HttpsRedirect, Outcome, Question, Redirect, RemoveHeader,
    Reply, Respond, SetHeader, StripPrefix, Walk,
};
pub use matching::{HostPattern, Match, PathPattern};
pub use pattern::{PATTERN_BYTES_MAX, Pattern, PatternError, REGEX_BYTES_MAX};
pub use read::{cookie, cookies, params, query, without_cookie};
pub use request::Request;
pub use scratch::Scratch;
pub use session::{path_parameter, set_cookie};
pub use table::{RouteTable, Unreachable};
pub use template::PLACEHOLDERS;
pub use tls::{CertMatch, CertPart, ClientCertificate, SAN_BETWEEN, TlsFacts};
pub use trace::{Collect, Key, NoTrace, Rejection, Trace};
