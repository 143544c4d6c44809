//! What is measured: the table of scenarios. A new one is a row here; a kind of load that no row has yet is a variant
//! of [`Load`] and a function in `measure`.

use crate::door::Secure;
use crate::grpc;
use crate::peers::{Mode, Peer};

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) load: Load,
    pub(crate) mode: Mode,
    /// Large bodies: peers that can splice are told to.
    pub(crate) bulk: bool,
    /// Routes by path prefix; 0 for one pool and no routes.
    pub(crate) routes: usize,
    /// What clients speak over TLS; None: no TLS.
    pub(crate) secure: Option<Secure>,
    /// gRPC over HTTP/2 without TLS, with clients and with servers.
    pub(crate) grpc: bool,
    /// Each client keeps its server by a cookie.
    pub(crate) cookie: bool,
    pub(crate) subjects: Subjects,
    /// Whether a target is for its CPU: then it has many rounds.
    pub(crate) many_rounds: bool,
    /// Whether the slower peers take part too, unless others are asked for.
    pub(crate) all_peers: bool,
}

/// What the project wants to reach.
pub(crate) struct Target {
    /// In words for the table.
    pub(crate) about: &'static str,
    pub(crate) scenario: &'static str,
    /// The figure, by its name in [`crate::results::METRICS`].
    pub(crate) metric: &'static str,
    pub(crate) most: Most,
}

/// How a target is stated.
pub(crate) enum Most {
    /// A share of a peer's figure in the same rounds.
    Of(f64, Peer),
    /// A share of what it costs without a cookie in the same rounds.
    OfNoCookie(f64),
    /// The figure itself.
    Itself(f64),
}

/// Beside these: nowhere more CPU than nginx.
pub(crate) const TARGETS: &[Target] = &[
    cpu("HTTP/1.1 keep-alive 1 KB", "ka-1k", 0.75),
    cpu("the same, 40 headers", "ka-1k-40h", 0.75),
    cpu("connection per request", "close-1k", 0.85),
    cpu("1 MiB responses, HAProxy with splice-response", "1m", 0.95),
    cpu("TCP 1 KB", "tcp-1k", 0.95),
    cpu("TCP 1 MiB", "tcp-1m", 0.78),
    cpu(
        "the same as keep-alive 1 KB, with a cookie that keeps the server",
        "cookie-1k",
        0.75,
    ),
    Target {
        about: "what the cookie adds",
        scenario: "cookie-1k",
        metric: "cpu_us",
        most: Most::OfNoCookie(1.05),
    },
    cpu("TLS 1.3 keep-alive 1 KB", "tls-ka-1k", 0.75),
    cpu("a full TLS handshake per request", "tls-full", 1.0),
    cpu(
        "HTTP/2 over TLS, 1 KB, 32 connections of 10 streams",
        "h2-1k",
        0.95,
    ),
    Target {
        about: "gRPC, unary calls of 1 KB",
        scenario: "grpc-1k",
        metric: "cpu_us",
        most: Most::Of(0.5, Peer::Envoy),
    },
    Target {
        about: "memory per idle TLS connection, bytes",
        scenario: "tls-idle-5000",
        metric: "idle_bytes",
        most: Most::Of(1.0, Peer::Haproxy),
    },
    Target {
        about: "memory per idle connection, bytes",
        scenario: "idle-5000",
        metric: "idle_bytes",
        most: Most::Itself(1536.0),
    },
    Target {
        about: "p99 at half load, keep-alive 1 KB",
        scenario: "ka-1k",
        metric: "p99_us",
        most: Most::Of(0.9, Peer::Haproxy),
    },
];

const fn cpu(about: &'static str, scenario: &'static str, most: f64) -> Target {
    Target {
        about,
        scenario,
        metric: "cpu_us",
        most: Most::Of(most, Peer::Haproxy),
    }
}

/// Open files beside those of clients' connections and what they bring with them.
const OTHER_FILES: u64 = 2_000;

/// Evenkeel in a scenario with cookies, without them.
pub(crate) const NO_COOKIE: &str = "evenkeel/no cookie";

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subjects {
    /// The peers, with HAProxy as 1.
    Peers,
    /// Evenkeel alone, each algorithm with 1,000 servers beside itself with three.
    Algorithms,
    /// Evenkeel alone.
    Alone,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// Requests as fast as they are answered, then the same at a fixed rate.
    Requests(Shape),
    /// Connections that asked once and are silent.
    Idle { connections: usize },
    /// Small requests at a fixed rate beside large ones at another.
    Mixed { small_rate: f64, large_rate: f64 },
    /// Requests at a fixed rate while the config is read again and again.
    Reload { rate: f64, every_ms: u64 },
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) path: &'static str,
    pub(crate) connections: usize,
    /// Header fields beside Host.
    pub(crate) headers: usize,
    /// Bytes of the request's body.
    pub(crate) upload: usize,
    /// A connection for each request.
    pub(crate) close: bool,
    /// Sessions of TLS are used again.
    pub(crate) resume: bool,
    /// Requests at once on a connection of HTTP/2.
    pub(crate) streams: usize,
}

/// What HTTP/1.1 clients do unless a row says otherwise.
pub(crate) const SMALL: Shape = Shape {
    path: "/1k",
    connections: 64,
    headers: 0,
    upload: 0,
    close: false,
    resume: false,
    streams: 1,
};

/// The names that the algorithms have in Evenkeel's config.
pub(crate) const ALGORITHMS: &[&str] = &[
    "round_robin",
    "least_connections",
    "least_response_time",
    "ip_hash",
    "consistent_hash",
    "maglev",
    "random",
    "power_of_two",
    "peak_ewma",
];

/// The route that is asked for stands near the end of the list.
pub(crate) const ROUTES: usize = 10_000;
const LATE_ROUTE: &str = "/team7/service9957/1k";

pub(crate) fn all() -> Vec<Scenario> {
    let mut all = http();
    all.extend(secure());
    all.extend(beside());
    all
}

/// What is measured where the load is of no concern.
pub(crate) fn plain() -> (Scenario, Shape) {
    let load = Load::Requests(SMALL);
    (row("plain", "HTTP/1.1 keep-alive, 1 KB", load), SMALL)
}

/// One kind of HTTP/1.1 request each.
fn http() -> Vec<Scenario> {
    let of = |path, connections| {
        let shape = Shape {
            path,
            connections,
            ..SMALL
        };
        Load::Requests(shape)
    };
    let headers = Load::Requests(Shape {
        headers: 40,
        ..SMALL
    });
    let upload = Shape {
        path: "/upload",
        connections: 16,
        upload: 1 << 20,
        ..SMALL
    };
    let close = Load::Requests(Shape {
        close: true,
        ..SMALL
    });
    vec![
        row("ka-1k", "HTTP/1.1 keep-alive, 1 KB", Load::Requests(SMALL)).all_peers(),
        row("ka-1k-40h", "keep-alive, 1 KB, 40 headers", headers),
        row("64k", "64 KiB responses", of("/64k", 32)).all_peers(),
        row("1m", "1 MiB responses", of("/1m", 16)).bulk(),
        row("upload-1m", "1 MiB uploads", Load::Requests(upload)).bulk(),
        row("chunked", "64 KiB in eight chunks", of("/chunked", 32)),
        row("close-1k", "a connection per request, 1 KB", close).all_peers(),
        Scenario {
            routes: ROUTES,
            ..row("routes-10000", "10,000 routes", of(LATE_ROUTE, 64))
        },
        Scenario {
            subjects: Subjects::Algorithms,
            ..row(
                "servers-1000",
                "1,000 servers, each algorithm",
                of("/1k", 64),
            )
        },
        Scenario {
            cookie: true,
            ..row(
                "cookie-1k",
                "keep-alive, 1 KB, each client kept by a cookie",
                Load::Requests(SMALL),
            )
        },
        row("tcp-1k", "TCP, 1 KB", of("/1k", 64)).tcp(),
        row("tcp-1m", "TCP, 1 MiB", of("/1m", 16)).tcp().bulk(),
    ]
}

/// Over TLS 1.3, with a certificate on P-256; and HTTP/2.
fn secure() -> Vec<Scenario> {
    let of = |name, about, shape| row(name, about, Load::Requests(shape)).tls(Secure::Http1);
    let close = Shape {
        close: true,
        ..SMALL
    };
    let resume = Shape {
        resume: true,
        ..close
    };
    let large = Shape {
        path: "/1m",
        connections: 16,
        ..SMALL
    };
    let streams = Shape {
        connections: 32,
        streams: 10,
        ..SMALL
    };
    vec![
        of("tls-ka-1k", "TLS, keep-alive, 1 KB", SMALL),
        of("tls-full", "TLS, a full handshake per request", close),
        of("tls-resumed", "TLS, a resumed session per request", resume),
        of("tls-1m", "TLS, 1 MiB responses", large),
        row(
            "tls-idle-5000",
            "5,000 idle connections of TLS",
            Load::Idle { connections: 5_000 },
        )
        .tls(Secure::Http1),
        row(
            "h2-1k",
            "HTTP/2 over TLS, 1 KB, ten streams a connection",
            Load::Requests(streams),
        )
        .tls(Secure::Http2),
        Scenario {
            grpc: true,
            ..row(
                "grpc-1k",
                "gRPC without TLS, unary calls of 1 KB, ten at once on a connection",
                Load::Requests(Shape {
                    path: grpc::PATH,
                    ..streams
                }),
            )
        },
    ]
}

/// What else happens to a proxy.
fn beside() -> Vec<Scenario> {
    let idle = |connections| Load::Idle { connections };
    let mixed = Load::Mixed {
        small_rate: 2_000.0,
        large_rate: 200.0,
    };
    let reload = Load::Reload {
        rate: 4_000.0,
        every_ms: 200,
    };
    vec![
        row("idle-5000", "5,000 idle connections", idle(5_000)),
        row("idle-50000", "50,000 idle connections", idle(50_000)),
        row("mixed", "1 KB beside a stream of 1 MiB", mixed).bulk(),
        Scenario {
            subjects: Subjects::Alone,
            ..row("reload", "a reload every 200 ms under load", reload)
        },
    ]
}

fn row(name: &'static str, about: &'static str, load: Load) -> Scenario {
    Scenario {
        name,
        about,
        load,
        mode: Mode::Http,
        bulk: false,
        routes: 0,
        secure: None,
        grpc: false,
        cookie: false,
        subjects: Subjects::Peers,
        many_rounds: TARGETS
            .iter()
            .any(|target| target.scenario == name && target.metric == "cpu_us"),
        all_peers: false,
    }
}

impl Scenario {
    fn all_peers(self) -> Self {
        Self {
            all_peers: true,
            ..self
        }
    }

    /// Who takes part unless others are asked for.
    pub(crate) fn default_peers(&self) -> &'static [Peer] {
        match self.subjects {
            Subjects::Peers if self.all_peers => Peer::ALL,
            Subjects::Peers if self.grpc => Peer::GRPC,
            Subjects::Peers => Peer::MAIN,
            Subjects::Algorithms | Subjects::Alone => &[Peer::Evenkeel],
        }
    }

    fn tls(self, secure: Secure) -> Self {
        let secure = Some(secure);
        Self { secure, ..self }
    }

    fn bulk(self) -> Self {
        Self { bulk: true, ..self }
    }

    fn tcp(self) -> Self {
        let mode = Mode::Tcp;
        Self { mode, ..self }
    }

    /// Connections of clients at once, at most.
    pub(crate) fn connections(&self) -> usize {
        match &self.load {
            Load::Requests(shape) => shape.connections,
            Load::Idle { connections } => *connections,
            Load::Mixed { .. } | Load::Reload { .. } => 128,
        }
    }

    /// How often a round starts each subject: at full speed, and at a fixed rate.
    pub(crate) fn legs(&self) -> usize {
        match self.load {
            // The generator of fixed rates speaks HTTP/1 only.
            Load::Requests(_)
                if self.subjects == Subjects::Peers
                    && self.secure != Some(Secure::Http2)
                    && !self.grpc =>
            {
                2
            }
            _ => 1,
        }
    }

    /// How many are compared, if there are so many peers.
    pub(crate) fn subjects_count(&self, peers: usize) -> usize {
        match self.subjects {
            Subjects::Peers => peers + usize::from(self.cookie),
            Subjects::Algorithms => 2 * ALGORITHMS.len(),
            Subjects::Alone => 1,
        }
    }

    /// The open files that each program may need.
    pub(crate) fn files_needed(&self) -> u64 {
        self.connections() as u64 * 22 / 10 + OTHER_FILES
    }

    /// The same with no more connections than `files` allow, and a word on it where that is fewer.
    pub(crate) fn within(mut self, files: u64) -> (Self, Option<String>) {
        let needed = self.files_needed();
        let Load::Idle { connections } = &mut self.load else {
            return (self, None);
        };
        if needed <= files {
            return (self, None);
        }
        let wanted = *connections;
        let fit = files.saturating_sub(OTHER_FILES) * 10 / 22 / 1_000 * 1_000;
        *connections = usize::try_from(fit).unwrap_or(wanted).max(100);
        let note = format!(
            "not measured: {wanted} connections need {needed} open files, and the limit of this machine is {files}. \
             The figures below are of {connections}, as far as it goes."
        );
        (self, Some(note))
    }
}
