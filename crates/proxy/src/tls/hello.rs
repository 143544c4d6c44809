//! What a TLS client asks for, heard before its connection is passed on as it is.

use std::io;
use std::time::Duration;

use control::reason::Reason;
use wire::client_hello::ClientHello;
use wire::http1::Decoded;

use crate::buffer::{Buffer, Buffers};
use crate::net::{self, Deadline, Push};
use crate::relay;
use crate::stream::Stream;

/// Alerts of TLS (RFC 8446 §6): nobody bears that name, and what came cannot be read.
const UNRECOGNIZED_NAME: u8 = 112;
const DECODE_ERROR: u8 = 50;

/// Reads until a client has said what it asks for, at most for `limit`; what was read stays in `first`.
pub(crate) async fn hear(
    client: &Stream,
    deadline: &Deadline,
    limit: Option<Duration>,
    buffers: &Buffers,
    first: &mut Buffer,
) -> Result<ClientHello, (Reason, String)> {
    deadline.set(limit);
    let left = || (Reason::ClientClosed, String::new());
    loop {
        match deadline.guard(client.readable()).await {
            Err(net::Elapsed) => return Err((Reason::HandshakeTimeout, String::new())),
            Ok(Err(_)) => return Err(left()),
            Ok(Ok(())) => {}
        }
        if first.room().is_empty() {
            *first = buffers.take();
        }
        match client.try_read(first.room()) {
            Ok(0) => return Err(left()),
            Ok(count) => first.added(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(left()),
        }
        match ClientHello::decode(first.filled()) {
            Ok(Decoded::Complete(hello)) => return Ok(hello),
            Ok(Decoded::Incomplete) => {}
            Err(error) => return Err((Reason::HandshakeFailed, error.to_string())),
        }
    }
}

/// Tells a client that its connection leads nowhere, and lets it hear that before it is closed.
pub(crate) async fn refuse(
    client: &Stream,
    reason: Reason,
    deadline: &Deadline,
    buffers: &Buffers,
) {
    let alert = match reason {
        Reason::NoRoute => UNRECOGNIZED_NAME,
        Reason::HandshakeFailed => DECODE_ERROR,
        _ => {
            client.reset_on_close();
            return;
        }
    };
    // A fatal alert in a record of its own, in the clear.
    let record = [21, 3, 3, 0, 2, 2, alert];
    let (mut taken, parts) = (0, &mut [&record[..], &[], &[]]);
    // Whoever does not take it has left.
    let _ = relay::write_all(client, parts, deadline, None.into(), &mut taken, Push::Now).await;
    relay::linger(client, deadline, buffers).await;
}
