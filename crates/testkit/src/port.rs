//! A port that the kernel gave and that stays ours while the server behind it comes and goes.

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// A reserved port of 127.0.0.1, free until a server listens on it.
///
/// The reservation is a socket that is bound but never listens: a server that sets SO_REUSEADDR
/// (all do) can still bind and listen there, while the kernel gives the port to nobody else, also
/// not for outgoing connections. So a killed server can be started again on the same port.
#[derive(Debug)]
pub struct Port {
    _held: OwnedFd,
    address: SocketAddr,
}

impl Port {
    /// Reserves one.
    ///
    /// # Errors
    ///
    /// When the kernel has none left.
    pub fn reserve() -> Result<Self> {
        let held = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&held, true)?;
        bind(&held, &SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
            .context("no port left")?;
        let address = SocketAddr::try_from(getsockname(&held)?)?;
        Ok(Self {
            _held: held,
            address,
        })
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number alone.
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}
