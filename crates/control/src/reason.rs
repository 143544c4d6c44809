//! The closed list of reasons: why Evenkeel answered, or ended a connection, itself.

use wire::grpc::Code;

/// Why an answer was made here. The text of each is what `x-evenkeel-reason`, the access log and
/// `evenkeel_errors_total` carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Message framing is conflicting or doubtful (RFC 9112 §6, §7).
    BadFraming,
    /// The request is not HTTP, or breaks a rule other than framing.
    BadRequest,
    /// The head is larger, or has more fields, than the listener allows.
    HeaderTooLarge,
    /// The request target is longer than the listener allows.
    UriTooLong,
    /// The request body is larger than the listener allows.
    BodyTooLarge,
    /// The head did not come in time.
    HeaderTimeout,
    /// The request body stopped coming.
    BodyTimeout,
    /// The whole request took too long, a good part of it by its client.
    RequestTimeout,
    /// No route matched.
    NoRoute,
    /// The route is only for clients that have shown a certificate.
    ClientCertificate,
    /// The request is for a host that no certificate bears which its connection was shown (RFC 9110 §7.4).
    Misdirected,
    /// The method is not served here (CONNECT).
    MethodRefused,
    /// No server of the pool may serve.
    NoUsableServer,
    /// Every server of the pool is at its connection limit.
    ServerLimit,
    /// The pool has as many requests, or connections, as it may.
    PoolLimit,
    /// The pool's queue was full.
    QueueFull,
    /// No server had a slot to give in time.
    QueueTimeout,
    /// No server accepted a connection.
    ConnectRefused,
    /// No server accepted a connection in time.
    ConnectTimeout,
    /// The certificate of no server that was tried is to be believed.
    ServerCertificate,
    /// The TLS handshake with each server that was tried came to nothing.
    ServerHandshake,
    /// The response did not begin in time.
    FirstByteTimeout,
    /// The response stopped coming, or the whole request took too long.
    ResponseTimeout,
    /// The time that a gRPC client gave for its call was over.
    DeadlineExceeded,
    /// The server closed the connection before it answered.
    ServerClosed,
    /// The server reset the connection.
    ServerReset,
    /// The server took no request over HTTP/2, and said so.
    RequestRefused,
    /// The server's response was not HTTP that can be passed on.
    BadResponse,
    /// A retry was due, and the pool's budget for retries was spent.
    RetryBudget,
    /// The server that the client is bound to cannot serve, and no other may.
    AffinityServerUnavailable,
    /// The process or the server is being drained.
    Draining,
    /// The buffers of the process hold nearly as much as they may.
    Overloaded,
    /// A filter of the route answered (`respond`, `redirect`).
    Filter,
    /// An authority asked for the token of a certificate that it is to give (ACME).
    AcmeChallenge,
    /// A client spoke HTTP where TLS is spoken.
    PlainHttp,
    /// A client's TLS handshake came to nothing. In the log only.
    HandshakeFailed,
    /// It was not over in time. In the log only.
    HandshakeTimeout,
    /// A client's HTTP/2 connection broke the protocol's rules. In the log only.
    Http2Error,
    /// A client's HTTP/2 connection gave up too many streams, or sent too much that carries nothing. In the log only.
    Http2Flood,
    /// The HTTP version is not 1.0 or 1.1.
    VersionNotSupported,
    /// A transfer coding other than chunked.
    NotImplemented,
    /// The client left before it had its answer. In the log only.
    ClientClosed,
    /// A fault of our own.
    Internal,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 43] = [
        Self::BadFraming,
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::UriTooLong,
        Self::BodyTooLarge,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::RequestTimeout,
        Self::NoRoute,
        Self::ClientCertificate,
        Self::Misdirected,
        Self::MethodRefused,
        Self::NoUsableServer,
        Self::ServerLimit,
        Self::PoolLimit,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ServerCertificate,
        Self::ServerHandshake,
        Self::FirstByteTimeout,
        Self::ResponseTimeout,
        Self::DeadlineExceeded,
        Self::ServerClosed,
        Self::ServerReset,
        Self::RequestRefused,
        Self::BadResponse,
        Self::RetryBudget,
        Self::AffinityServerUnavailable,
        Self::Draining,
        Self::Overloaded,
        Self::Filter,
        Self::AcmeChallenge,
        Self::PlainHttp,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::Http2Error,
        Self::Http2Flood,
        Self::VersionNotSupported,
        Self::NotImplemented,
        Self::ClientClosed,
        Self::Internal,
    ];

    /// Its text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadFraming => "bad_framing",
            Self::BadRequest => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::NoRoute => "no_route",
            Self::ClientCertificate => "client_certificate",
            Self::Misdirected => "misdirected",
            Self::MethodRefused => "method_refused",
            Self::NoUsableServer => "no_usable_server",
            Self::ServerLimit => "server_limit",
            Self::PoolLimit => "pool_limit",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ServerCertificate => "server_certificate",
            Self::ServerHandshake => "server_handshake",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ServerClosed => "server_closed",
            Self::ServerReset => "server_reset",
            Self::RequestRefused => "request_refused",
            Self::BadResponse => "bad_response",
            Self::RetryBudget => "retry_budget",
            Self::AffinityServerUnavailable => "affinity_server_unavailable",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Filter => "filter",
            Self::AcmeChallenge => "acme_challenge",
            Self::PlainHttp => "plain_http",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Http2Error => "http2_error",
            Self::Http2Flood => "http2_flood",
            Self::VersionNotSupported => "version_not_supported",
            Self::NotImplemented => "not_implemented",
            Self::ClientClosed => "client_closed",
            Self::Internal => "internal",
        }
    }

    /// The status of the answer; 499 is only ever logged.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadFraming
            | Self::BadRequest
            | Self::PlainHttp
            | Self::HandshakeFailed
            | Self::Http2Error => 400,
            Self::Http2Flood => 429,
            Self::ClientCertificate => 403,
            Self::NoRoute => 404,
            Self::MethodRefused => 405,
            Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::RequestTimeout
            | Self::HandshakeTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::Misdirected => 421,
            Self::HeaderTooLarge => 431,
            Self::ClientClosed => 499,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::ConnectRefused
            | Self::ServerCertificate
            | Self::ServerHandshake
            | Self::ServerClosed
            | Self::ServerReset
            | Self::BadResponse
            | Self::RetryBudget => 502,
            Self::NoUsableServer
            | Self::RequestRefused
            | Self::ServerLimit
            | Self::PoolLimit
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::AffinityServerUnavailable
            | Self::Draining
            | Self::Overloaded => 503,
            Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::ResponseTimeout
            | Self::DeadlineExceeded => 504,
            Self::VersionNotSupported => 505,
            // The route's own status is used.
            Self::Filter | Self::AcmeChallenge => 200,
        }
    }

    /// The status of the same answer to a call of gRPC.
    #[must_use]
    pub fn grpc(self) -> Code {
        match self {
            Self::BadFraming | Self::BadRequest | Self::Internal => Code::Internal,
            Self::NoRoute | Self::MethodRefused | Self::NotImplemented => Code::Unimplemented,
            Self::HeaderTooLarge | Self::UriTooLong | Self::BodyTooLarge => Code::ResourceExhausted,
            Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::RequestTimeout
            | Self::FirstByteTimeout
            | Self::ResponseTimeout
            | Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::ClientClosed => Code::Cancelled,
            Self::ClientCertificate => Code::PermissionDenied,
            other => match other.status() {
                502..=504 => Code::Unavailable,
                _ => Code::Unknown,
            },
        }
    }

    /// What it means, in one sentence: for the reference.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::BadFraming => {
                "message framing was conflicting or doubtful, so the request was refused"
            }
            Self::BadRequest => "the request was not valid HTTP",
            Self::HeaderTooLarge => {
                "the request head passed `limits.header_bytes` or `limits.headers`"
            }
            Self::UriTooLong => "the request target passed `limits.uri_bytes`",
            Self::BodyTooLarge => "the request body passed `limits.body_bytes`",
            Self::HeaderTimeout => "the request head did not come within `timeouts.header`",
            Self::BodyTimeout => "the request body stopped for longer than `timeouts.body_idle`",
            Self::RequestTimeout => {
                "the request took longer than `timeouts.request`, a tenth of that or more waiting for the client to send or to read; no server is charged with it"
            }
            Self::NoRoute => "no route of the listener matched",
            Self::ClientCertificate => {
                "the route has `client_auth: required`, and the client has shown no certificate"
            }
            Self::Misdirected => {
                "no certificate that the connection was shown bears the host that the request is for: it belongs on a connection of its own"
            }
            Self::MethodRefused => "the method is not served here: CONNECT",
            Self::NoUsableServer => {
                "no server of the pool may serve: all are down, draining, disabled or at weight 0"
            }
            Self::ServerLimit => {
                "every usable server of the pool is at its connection limit, and `limits.queue` is off"
            }
            Self::PoolLimit => {
                "the pool has as many requests as `limits.max_requests` allows, or as `limits.max_connections` does and `limits.queue` is off"
            }
            Self::QueueFull => {
                "every usable server of the pool is full, and as many requests wait as `limits.queue` allows"
            }
            Self::QueueTimeout => {
                "every usable server of the pool was full for longer than `limits.queue_wait`"
            }
            Self::ConnectRefused => "no server that was tried accepted the connection",
            Self::ConnectTimeout => {
                "no server that was tried accepted the connection within `timeouts.connect`"
            }
            Self::ServerCertificate => {
                "the certificate of no server that was tried is to be believed: it is out of date, bears another name, or nobody known has issued it"
            }
            Self::ServerHandshake => {
                "the TLS handshake with each server that was tried, or its first words of HTTP/2, came to nothing"
            }
            Self::FirstByteTimeout => "the response did not begin within `timeouts.first_byte`",
            Self::ResponseTimeout => {
                "the response stopped for longer than `timeouts.idle`, or the request took longer than `timeouts.request`"
            }
            Self::DeadlineExceeded => "the time that a gRPC client gave by `grpc-timeout` was over",
            Self::ServerClosed => "the server closed the connection before a whole response",
            Self::ServerReset => "the server reset the connection before a whole response",
            Self::RequestRefused => {
                "no server that was tried took the request, as each said over HTTP/2: REFUSED_STREAM or GOAWAY"
            }
            Self::BadResponse => "the server's response was not HTTP that can be passed on",
            Self::RetryBudget => {
                "another try was due, but the pool's `retries.budget` was spent, or `limits.max_retries` reached"
            }
            Self::AffinityServerUnavailable => {
                "the server that the client is bound to cannot serve"
            }
            Self::Draining => "the process or the server was drained and the deadline came",
            Self::Overloaded => {
                "the buffers of the process hold nearly as much as `limits.buffer_bytes` allows"
            }
            Self::Filter => "a filter of the route answered: `respond` or `redirect`",
            Self::AcmeChallenge => {
                "an authority asked for the token of a certificate that it is to give (ACME, HTTP-01)"
            }
            Self::PlainHttp => "the client spoke HTTP without TLS on a port that speaks TLS",
            Self::HandshakeFailed => {
                "the client's TLS handshake came to nothing (logged and counted, never sent)"
            }
            Self::HandshakeTimeout => {
                "the client's TLS handshake was not over within `timeouts.handshake` (logged and counted, never sent)"
            }
            Self::Http2Error => {
                "the client broke a rule of HTTP/2 that all streams of its connection depend on (logged and counted; the connection ends with GOAWAY)"
            }
            Self::Http2Flood => {
                "the client gave up more streams than `http2.resets` allows, or sent too many frames that carry nothing (logged and counted; the connection ends with GOAWAY)"
            }
            Self::VersionNotSupported => "the HTTP version is neither 1.0 nor 1.1",
            Self::NotImplemented => {
                "the request body has a transfer coding other than `chunked`, or the server does not do what an upgrade over HTTP/2 asks for"
            }
            Self::ClientClosed => {
                "the client left before it had its answer (logged as 499, never sent)"
            }
            Self::Internal => "a fault of Evenkeel's own",
        }
    }
}

/// The reference of all reasons, in Markdown: what `docs/reasons.md` holds.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Every answer that Evenkeel makes itself carries `x-evenkeel-reason` (those of the filters `respond` and `redirect` are as they are\n\
         written, and only the log says `filter`), the access log has the same word, and\n\
         `evenkeel_errors_total{reason}` counts it. The body is text, or by `Accept` JSON:\n\
         `{\"status\":503,\"reason\":\"no_usable_server\",\"request_id\":\"…\"}`. Neither names a server or pool to the\n\
         client; the log says for each server why it could not be used. A call of gRPC is answered by 200 with the status of\n\
         gRPC beside it (docs/grpc.md); log and metrics show it as the status of HTTP.\n\n\
         | reason | status | gRPC | meaning |\n| --- | --- | --- | --- |\n",
    );
    for reason in Reason::ALL {
        let status = match reason {
            Reason::Filter => "the filter's".to_owned(),
            reason => reason.status().to_string(),
        };
        text.push_str(&format!(
            "| `{reason}` | {status} | {} | {} |\n",
            grpc_word(reason),
            reason.meaning()
        ));
    }
    text
}

fn grpc_word(reason: Reason) -> &'static str {
    match reason {
        // As a filter says it, or never sent.
        Reason::Filter
        | Reason::AcmeChallenge
        | Reason::PlainHttp
        | Reason::HandshakeFailed
        | Reason::HandshakeTimeout
        | Reason::Http2Error
        | Reason::Http2Flood => "",
        reason => reason.grpc().name(),
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason, reference};

    #[test]
    fn the_reference_in_docs_is_current() {
        let written = include_str!("../../../docs/reasons.md");
        assert!(
            written == reference(),
            "docs/reasons.md should be:\n{}",
            reference()
        );
    }

    #[test]
    fn the_list_is_in_the_order_of_the_numbers_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason}");
        }
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
