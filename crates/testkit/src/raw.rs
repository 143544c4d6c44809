//! A client that is nothing but a socket, for what well-behaved clients cannot do.

use crate::http::{Reader, Response};
use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// One connection; every read and write is bounded (10 s unless told otherwise).
#[derive(Debug)]
pub struct Raw {
    reader: Reader,
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When that fails, or takes longer than 10 s.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        let raw = Self {
            reader: Reader::new(stream),
        };
        raw.set_timeout(TIMEOUT)?;
        Ok(raw)
    }

    /// Bounds each later read and write.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_timeout(&self, limit: Duration) -> Result<()> {
        self.stream().set_read_timeout(Some(limit))?;
        Ok(self.stream().set_write_timeout(Some(limit))?)
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.reader.stream
    }

    /// Our own end, which the other side sees as the peer.
    ///
    /// # Errors
    ///
    /// When the system cannot say.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.stream().local_addr()?)
    }

    /// Sends all of it.
    ///
    /// # Errors
    ///
    /// When the other side has closed, or takes nothing for the timeout.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.reader
            .stream
            .write_all(bytes.as_ref())
            .context("sending")
    }

    /// Sends it in pieces of `size` bytes, each in a segment of its own, `pause` apart.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_in_pieces(
        &mut self,
        bytes: impl AsRef<[u8]>,
        size: usize,
        pause: Duration,
    ) -> Result<()> {
        for piece in bytes.as_ref().chunks(size.max(1)) {
            self.send(piece)?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// A whole response to a request that was not HEAD.
    ///
    /// # Errors
    ///
    /// When it does not come in time, is cut, or is badly framed.
    pub fn response(&mut self) -> Result<Response> {
        self.response_to("GET")
    }

    /// A whole response to a request of this method.
    ///
    /// # Errors
    ///
    /// As [`response`](Self::response).
    pub fn response_to(&mut self, method: &str) -> Result<Response> {
        self.reader.response(method)
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send) and [`response`](Self::response).
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Result<Response> {
        let request = request.as_ref();
        self.send(request)?;
        let method = request
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        self.response_to(&String::from_utf8_lossy(method))
    }

    /// `GET path` with `Host: test`, on this connection.
    ///
    /// # Errors
    ///
    /// As [`exchange`](Self::exchange).
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Exactly this many bytes.
    ///
    /// # Errors
    ///
    /// When fewer come.
    pub fn read_exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        self.reader.exactly(count)
    }

    /// All that comes until the other side ends the stream.
    ///
    /// # Errors
    ///
    /// When it resets the connection, or says nothing for the timeout.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        self.reader.rest()
    }

    /// Ends our direction; theirs stays open.
    ///
    /// # Errors
    ///
    /// When the connection is gone already.
    pub fn half_close(&self) -> Result<()> {
        Ok(self.stream().shutdown(Shutdown::Write)?)
    }

    /// Expects the end of the stream, with or without a reset, and no byte before it.
    ///
    /// # Errors
    ///
    /// When a byte comes, or nothing happens for the timeout.
    pub fn expect_close(&mut self) -> Result<()> {
        self.expect_nothing_more()?;
        let mut one = [0];
        match self.reader.stream.read(&mut one) {
            Ok(0) => Ok(()),
            Ok(_) => bail!(
                "a byte ({:?}) where a close was expected",
                one.escape_ascii().to_string()
            ),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).context("a close was expected"),
        }
    }

    /// Expects that for `time` nothing comes, neither a byte nor a close.
    ///
    /// # Errors
    ///
    /// When something does.
    pub fn expect_silence(&mut self, time: Duration) -> Result<()> {
        self.expect_nothing_more()?;
        let before = self.stream().read_timeout()?;
        self.stream().set_read_timeout(Some(time))?;
        let mut some = [0; 256];
        let outcome = self.reader.stream.read(&mut some);
        self.stream().set_read_timeout(before)?;
        match outcome {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(error).context("silence was expected"),
            Ok(0) => bail!("a close where silence was expected"),
            Ok(count) => {
                let said = some.get(..count).unwrap_or_default().escape_ascii();
                bail!("{said} where silence was expected")
            }
        }
    }

    /// Ends the connection by a reset (SO_LINGER 0).
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn reset(self) -> Result<()> {
        Ok(sockopt::set_socket_linger(
            self.stream(),
            Some(Duration::ZERO),
        )?)
    }

    fn expect_nothing_more(&self) -> Result<()> {
        let early = &self.reader.early;
        ensure!(
            early.is_empty(),
            "{} has come already",
            early.escape_ascii()
        );
        Ok(())
    }
}
