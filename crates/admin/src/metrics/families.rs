//! Every family that `/metrics` has: what the reference is made from.

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Never falls while the process runs.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations by bucket, in seconds.
    Histogram,
}

impl Kind {
    /// Its word in the text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One family of series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What kind of number it holds.
    pub kind: Kind,
    /// The labels of its series.
    pub labels: &'static [&'static str],
    /// What it tells, in one sentence.
    pub help: &'static str,
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
    }
}

use Kind::{Counter, Gauge, Histogram};

/// Every family, in the order in which they are shown.
pub const FAMILIES: &[Family] = &[
    family(
        "evenkeel_requests_total",
        Counter,
        &["listener", "route", "class"],
        "Requests by the class of their answer; none: the client left without one.",
    ),
    family(
        "evenkeel_request_seconds",
        Histogram,
        &["listener", "route"],
        "From the first byte of a request to the last of its response.",
    ),
    family(
        "evenkeel_server_requests_total",
        Counter,
        &["pool", "server", "class"],
        "Requests sent to a server by the class of its response; none: it gave none.",
    ),
    family(
        "evenkeel_picks_total",
        Counter,
        &["pool", "server"],
        "Times that a server was picked.",
    ),
    family(
        "evenkeel_active_connections",
        Gauge,
        &["pool", "server"],
        "Requests and TCP connections that hold a server now.",
    ),
    family(
        "evenkeel_server_sockets",
        Gauge,
        &["pool", "server"],
        "Sockets open to a server, idle ones included.",
    ),
    family(
        "evenkeel_server_limit",
        Gauge,
        &["pool", "server"],
        "Requests that a server may hold at once, by the least of all that bounds it; the API says which that is.",
    ),
    family(
        "evenkeel_server_half_open",
        Gauge,
        &["pool", "server"],
        "1 while a server whose ejection is over has few requests at once, until one succeeds.",
    ),
    family(
        "evenkeel_server_usable",
        Gauge,
        &["pool", "server"],
        "1 if a server may be picked in its own right, 0 if it is down, draining, disabled or of weight 0.",
    ),
    family(
        "evenkeel_server_weight",
        Gauge,
        &["pool", "server"],
        "The weight of a server that is in force.",
    ),
    family(
        "evenkeel_server_traffic_ratio",
        Gauge,
        &["pool", "server"],
        "A server's part of its pool's picks by weight, priority, zone and slow start, 0 to 1.",
    ),
    family(
        "evenkeel_server_effective_weight",
        Gauge,
        &["pool", "server"],
        "What a server's traffic is in proportion to: its weight, less while it is degraded or recovers; 0 while it may not be picked.",
    ),
    family(
        "evenkeel_server_failed_total",
        Counter,
        &["pool", "server"],
        "Tries that failed as a gateway error does: no connection, no whole answer, or 502, 503, 504.",
    ),
    family(
        "evenkeel_pool_seconds",
        Histogram,
        &["pool"],
        "From the pick of a server to the end of the response.",
    ),
    family(
        "evenkeel_pool_failed_total",
        Counter,
        &["pool"],
        "Requests that no server of a pool served: answered here with 5xx, or broken off; TCP connections that none took.",
    ),
    family(
        "evenkeel_retries_total",
        Counter,
        &["pool", "cause"],
        "Further tries on another server, by why the one before failed or, with `hedge`, was not waited for alone.",
    ),
    family(
        "evenkeel_ejections_total",
        Counter,
        &["pool", "cause"],
        "Servers taken out by what their traffic showed.",
    ),
    family(
        "evenkeel_agent_checks_total",
        Counter,
        &["pool", "result"],
        "Agent checks of a pool's servers that were answered, or failed.",
    ),
    family(
        "evenkeel_agent_unknown_words_total",
        Counter,
        &["pool"],
        "Words in agents' lines that mean nothing and were passed over.",
    ),
    family(
        "evenkeel_pool_panic",
        Gauge,
        &["pool"],
        "1 while too few servers of a pool are fit, so that it falls back on others.",
    ),
    family(
        "evenkeel_pool_load",
        Gauge,
        &["pool"],
        "Requests and connections of a pool that are under way or wait, on average over ten seconds.",
    ),
    family(
        "evenkeel_pool_room",
        Gauge,
        &["pool"],
        "What the servers of a pool that are fit to serve can hold at once; only where each has `max_connections`.",
    ),
    family(
        "evenkeel_pool_load_ratio",
        Gauge,
        &["pool", "without"],
        "Load of a pool against its room: with all its servers (none), without its biggest server, without its biggest zone.",
    ),
    family(
        "evenkeel_pool_capacity_alarm",
        Gauge,
        &["pool"],
        "1 while the load without the biggest server or zone is past the pool's `capacity_alarm`.",
    ),
    family(
        "evenkeel_queue_length",
        Gauge,
        &["pool"],
        "Requests and TCP connections that wait while all servers of a pool are full, or all connections over HTTP/2 to the one that they have.",
    ),
    family(
        "evenkeel_queue_waits_total",
        Counter,
        &["pool", "end"],
        "Waits in a pool's queue by how they ended: served, timeout, full, no_server, left.",
    ),
    family(
        "evenkeel_queue_seconds",
        Histogram,
        &["pool"],
        "How long requests waited in a pool's queue, however the wait ended.",
    ),
    family(
        "evenkeel_overflows_total",
        Counter,
        &["pool", "limit"],
        "What a bound of a whole pool refused: max_connections (these wait, or are answered 503), max_requests, max_retries.",
    ),
    family(
        "evenkeel_affinity_requests_total",
        Counter,
        &["pool", "binding"],
        "Requests and TCP connections of pools that bind clients, by what came of it: kept, new, foreign (what the client brought names no server), moved (its server could not serve), strayed (a try there failed; it stays bound), refused.",
    ),
    family(
        "evenkeel_affinity_entries",
        Gauge,
        &["pool"],
        "Clients whose server a pool has learnt, those included that have expired and were not yet swept.",
    ),
    family(
        "evenkeel_affinity_entries_max",
        Gauge,
        &["pool"],
        "How many there may be: `entries`.",
    ),
    family(
        "evenkeel_affinity_learnt_total",
        Counter,
        &["pool", "event"],
        "What became of learnt bindings: learnt, moved to another server, evicted by newer ones, expired, forgotten by \
         an operator, dropped since too many others changed at that moment.",
    ),
    family(
        "evenkeel_affinity_share",
        Gauge,
        &["pool"],
        "The part of a pool's picks of late that affinity decided, 0 to 1.",
    ),
    family(
        "evenkeel_affinity_bend",
        Gauge,
        &["pool"],
        "The part of a pool's picks of late that are on another server than by the weights in force alone, 0 to 1.",
    ),
    family(
        "evenkeel_affinity_source_share",
        Gauge,
        &["pool"],
        "The part of a pool's requests that come from one address, the one that most come from, where clients are bound \
         by theirs.",
    ),
    family(
        "evenkeel_affinity_source_alarm",
        Gauge,
        &["pool"],
        "1 while that is past `source_alarm`.",
    ),
    family(
        "evenkeel_listener_connections",
        Gauge,
        &["listener"],
        "Connections of clients that are open now.",
    ),
    family(
        "evenkeel_listener_accepted_total",
        Counter,
        &["listener"],
        "Connections accepted.",
    ),
    family(
        "evenkeel_listener_bytes_in_total",
        Counter,
        &["listener"],
        "Bytes from clients of a TCP listener.",
    ),
    family(
        "evenkeel_listener_bytes_out_total",
        Counter,
        &["listener"],
        "Bytes to clients of a TCP listener.",
    ),
    family(
        "evenkeel_listener_paused_total",
        Counter,
        &["listener", "cause"],
        "Times that accepting paused, by why: connections, descriptors, memory, system.",
    ),
    family(
        "evenkeel_errors_total",
        Counter,
        &["reason"],
        "Answers made here, by reason.",
    ),
    family(
        "evenkeel_requests_in_flight",
        Gauge,
        &[],
        "Requests that have begun and not ended.",
    ),
    family(
        "evenkeel_server_connections_opened_total",
        Counter,
        &[],
        "Connections to servers that were opened.",
    ),
    family(
        "evenkeel_server_connections_reused_total",
        Counter,
        &[],
        "Requests that took a connection which was open already.",
    ),
    family(
        "evenkeel_log_dropped_total",
        Counter,
        &[],
        "Access-log lines dropped because the log was behind.",
    ),
    family(
        "evenkeel_panics_total",
        Counter,
        &[],
        "Connections ended by a fault of Evenkeel's own.",
    ),
    family(
        "evenkeel_buffer_bytes",
        Gauge,
        &[],
        "Bytes that buffers of requests and connections hold.",
    ),
    family(
        "evenkeel_buffer_bytes_max",
        Gauge,
        &[],
        "The bound of these, `limits.buffer_bytes`; absent if there is none.",
    ),
    family("evenkeel_workers", Gauge, &[], "Worker threads."),
    family(
        "evenkeel_worker_connections",
        Gauge,
        &["worker"],
        "Client connections that a worker serves.",
    ),
    family(
        "evenkeel_worker_away",
        Gauge,
        &["worker"],
        "1 while a worker is stuck or has no thread: another accepts for it.",
    ),
    family(
        "evenkeel_worker_stalls_total",
        Counter,
        &["worker"],
        "Times that a worker made no turn for 5 s.",
    ),
    family(
        "evenkeel_worker_deaths_total",
        Counter,
        &["worker"],
        "Times that the thread of a worker ended and was replaced.",
    ),
    family(
        "evenkeel_worker_handed_total",
        Counter,
        &["worker"],
        "Client connections that a worker accepted and handed to one with fewer.",
    ),
    family(
        "evenkeel_certificate_expiry_seconds",
        Gauge,
        &["listener", "file"],
        "Unix time at which a certificate of a listener is out of date.",
    ),
    family(
        "evenkeel_acme_orders_total",
        Counter,
        &["domain", "authority", "result"],
        "Certificates that this process asked an authority for; `issued` or `failed`.",
    ),
    family(
        "evenkeel_acme_failures",
        Gauge,
        &["domain", "authority"],
        "Attempts to get a certificate that failed since the last one that did not, of all instances.",
    ),
    family(
        "evenkeel_acme_valid",
        Gauge,
        &["domain", "authority"],
        "1 while an automatic certificate is there and in date.",
    ),
    family(
        "evenkeel_config_generation",
        Gauge,
        &[],
        "How many configs were taken up since the start.",
    ),
    family(
        "evenkeel_build_info",
        Gauge,
        &["version"],
        "Always 1; its label tells the version.",
    ),
    family(
        "evenkeel_uptime_seconds",
        Gauge,
        &[],
        "Time since the start.",
    ),
    family(
        "process_start_time_seconds",
        Gauge,
        &[],
        "When the process began, in seconds since the Unix epoch.",
    ),
    family(
        "process_cpu_seconds_total",
        Counter,
        &[],
        "User and system time of the process.",
    ),
    family(
        "process_resident_memory_bytes",
        Gauge,
        &[],
        "Memory of the process that is resident.",
    ),
    family(
        "process_virtual_memory_bytes",
        Gauge,
        &[],
        "Address space of the process.",
    ),
    family(
        "process_open_fds",
        Gauge,
        &[],
        "File descriptors that are open.",
    ),
    family(
        "process_max_fds",
        Gauge,
        &[],
        "File descriptors that may be open.",
    ),
    family("process_threads", Gauge, &[], "Threads of the process."),
];

/// The reference of all families, in Markdown: what `docs/metrics.md` holds.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener, in Prometheus' text format. No series carries both route and server; past\n\
         1,000 routes the rest share `route=\"other\"`; no total ever falls while the process runs.\n\n\
         | family | kind | labels | tells |\n| --- | --- | --- | --- |\n",
    );
    for family in FAMILIES {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            family.name,
            family.kind.name(),
            labels.join(", "),
            family.help
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::reference;

    #[test]
    fn the_reference_in_docs_is_current() {
        let written = include_str!("../../../../docs/metrics.md");
        assert!(
            written == reference(),
            "docs/metrics.md should be:\n{}",
            reference()
        );
    }
}
