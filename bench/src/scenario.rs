//! What is measured: the table of scenarios. A new one is a row here; a kind of load that no row has yet is a variant
//! of [`Load`] and a function in `measure`.

use crate::peers::Mode;

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
    pub(crate) subjects: Subjects,
    /// At most this much of HAProxy's, by the project's targets.
    pub(crate) target: Option<f64>,
}

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
}

/// What HTTP/1.1 clients do unless a row says otherwise.
const SMALL: Shape = Shape {
    path: "/1k",
    connections: 64,
    headers: 0,
    upload: 0,
    close: false,
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
    all.extend(beside());
    all
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
        row("ka-1k", "HTTP/1.1 keep-alive, 1 KB", Load::Requests(SMALL)).aims_at(0.75),
        row("ka-1k-40h", "keep-alive, 1 KB, 40 headers", headers).aims_at(0.75),
        row("64k", "64 KiB responses", of("/64k", 32)),
        row("1m", "1 MiB responses", of("/1m", 16))
            .bulk()
            .aims_at(0.95),
        row("upload-1m", "1 MiB uploads", Load::Requests(upload)).bulk(),
        row("chunked", "64 KiB in eight chunks", of("/chunked", 32)),
        row("close-1k", "a connection per request, 1 KB", close).aims_at(0.85),
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
        row("tcp-1k", "TCP, 1 KB", of("/1k", 64))
            .tcp()
            .aims_at(0.95),
        row("tcp-1m", "TCP, 1 MiB", of("/1m", 16))
            .tcp()
            .bulk()
            .aims_at(0.78),
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
        subjects: Subjects::Peers,
        target: None,
    }
}

impl Scenario {
    fn aims_at(self, target: f64) -> Self {
        let target = Some(target);
        Self { target, ..self }
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
            Load::Requests(_) if self.subjects == Subjects::Peers => 2,
            _ => 1,
        }
    }

    /// How many are compared, if `peers` are asked for.
    pub(crate) fn subjects_count(&self, peers: usize) -> usize {
        match self.subjects {
            Subjects::Peers => peers,
            Subjects::Algorithms => 2 * ALGORITHMS.len(),
            Subjects::Alone => 1,
        }
    }
}
