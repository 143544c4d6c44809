//! What a handshake told of a client: read once for a connection, and asked by each of its requests.

use std::cell::Cell;
use std::sync::Arc;

use rules::TlsFacts;
use rustls::CommonState;

use super::{ServerTls, asked};

/// What is known of a client's connection through its handshake.
pub(crate) struct About {
    pub(crate) facts: TlsFacts,
    /// What it was shown, where requests for other hosts than that bears are refused.
    strict: Option<Arc<ServerTls>>,
}

thread_local! {
    /// The name that the client hello asked for which was read last on this thread. rustls tells it to whoever picks a
    /// certificate, and to nobody else who drives it without its buffers.
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
    /// Until when what the client has shown holds whose handshake takes a step now, as wall time in seconds. Who verifies
    /// a certificate knows it, and who makes tickets needs it, maybe some steps later.
    static HOLDS_UNTIL: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Notes what a client hello asks for, in lower case and without a trailing dot; for [`asked`], at the end of the same step.
pub(super) fn note_asked(name: Option<&str>) {
    ASKED.set(name.map(Into::into));
}

/// What the step that has just ended has noted.
pub(super) fn asked() -> Option<Box<str>> {
    ASKED.take()
}

/// Notes until when what a client has shown holds; `None`: it has shown nothing.
pub(super) fn note_holds_until(until: Option<u64>) {
    HOLDS_UNTIL.set(until);
}

/// What was noted of the handshake that takes a step now.
pub(super) fn holds_until() -> Option<u64> {
    HOLDS_UNTIL.get()
}

impl About {
    /// Of a handshake that is over.
    pub(super) fn of(state: &CommonState, sni: Option<Box<str>>, tls: &Arc<ServerTls>) -> Self {
        let shown = state.peer_certificates().and_then(<[_]>::first);
        let client = shown.map(|der| Box::new(asked::read(der)));
        Self {
            facts: TlsFacts { sni, client },
            strict: tls.refuses_misdirected().then(|| tls.clone()),
        }
    }

    /// Whether a request for this host, as matching sees it, belongs on another connection.
    pub(crate) fn is_misdirected(&self, host: &[u8]) -> bool {
        let Some(shown) = &self.strict else {
            return false;
        };
        let sni = self.facts.sni.as_deref();
        // Who names no host asks for none that could be the wrong one.
        if host.is_empty() || sni.is_some_and(|sni| sni.as_bytes() == host) {
            return false;
        }
        let bare = host
            .strip_prefix(b"[")
            .and_then(|host| host.strip_suffix(b"]"));
        let host = std::str::from_utf8(bare.unwrap_or(host));
        !host.is_ok_and(|host| shown.bears(sni, host))
    }
}
