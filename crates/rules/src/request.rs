//! What matching sees of a request.

use std::net::IpAddr;

use wire::http1::{Known, RequestHead};

use crate::read;
use crate::tls::TlsFacts;

/// A request as the rules see it; everything in it is borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// As it came; methods are case-sensitive.
    pub method: &'a [u8],
    /// From [`crate::host::normalise`]; empty when an HTTP/1.0 client named none.
    pub host: &'a [u8],
    /// From [`crate::path::normalise`].
    pub path: &'a [u8],
    /// From [`crate::path::normalise`], without the `?`.
    pub query: Option<&'a [u8]>,
    /// Fields, as offsets into `bytes`.
    pub head: &'a RequestHead,
    /// The buffer that `head` was read from.
    pub bytes: &'a [u8],
    /// The client, from [`crate::forward::source`].
    pub source: IpAddr,
    /// The TLS of the connection that it came on; `None`: plain bytes.
    pub tls: Option<&'a TlsFacts>,
    /// Whether the client came by HTTPS: to here, or as a trusted proxy tells.
    pub https: bool,
}

impl<'a> Request<'a> {
    /// The first value of the header `name`, whose case does not matter.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers(name).next()
    }

    /// Every value of the header `name`, in order.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let bytes = self.bytes;
        self.head
            .fields
            .iter()
            .filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |field| field.value.of(bytes))
    }

    /// The first cookie called `name`.
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        self.cookies(name).next()
    }

    /// Every cookie called `name`, in order.
    pub fn cookies<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let bytes = self.bytes;
        self.head
            .fields
            .iter()
            .filter(|field| field.known == Known::Cookie)
            .flat_map(move |field| read::cookies(field.value.of(bytes)))
            .filter(move |(found, _)| *found == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// The first query parameter called `name`, decoded; `scratch` is used only where it must be.
    pub fn query_value<'s>(&self, name: &str, scratch: &'s mut Vec<u8>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        read::query(self.query?, name.as_bytes(), scratch)
    }
}
