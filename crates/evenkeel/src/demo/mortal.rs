//! Connections that end as those of a crashed process do: with a reset, once their server is told to crash.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A listener whose connections look at `crashed` when they are dropped.
pub(super) struct MortalListener {
    listener: TcpListener,
    crashed: Arc<AtomicBool>,
}

impl MortalListener {
    pub(super) fn new(listener: TcpListener, crashed: Arc<AtomicBool>) -> Self {
        Self { listener, crashed }
    }
}

impl axum::serve::Listener for MortalListener {
    type Io = Mortal;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Mortal, SocketAddr) {
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        // Answers are one write each; without this the last one of a pair would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let crashed = self.crashed.clone();
        (Mortal { stream, crashed }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection.
pub(super) struct Mortal {
    stream: TcpStream,
    crashed: Arc<AtomicBool>,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if self.crashed.load(Ordering::Relaxed) {
            // A close with this sends a reset; where the system refuses it, the close is a clean one.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Mortal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
