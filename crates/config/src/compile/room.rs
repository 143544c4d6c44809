//! Bounds of a server that another one keeps from ever being reached.

use crate::diagnostic::{Kind, Report, Span};
use crate::snapshot::Pool;

/// Warns where a server's sockets carry fewer requests than something else lets it have. `at`: of what bounds them.
pub(super) fn warn_of_room(pool: &Pool, at: Span, report: &mut Report) {
    let sockets = pool.connections_per_server;
    let streams = pool.http2.map(|http2| http2.streams);
    let carried = sockets.saturating_mul(streams.unwrap_or(1));
    let carry = match streams {
        None => format!("`limits.connections_per_server` ({sockets})"),
        Some(streams) => format!(
            "`limits.connections_per_server` ({sockets}) and `http.streams` ({streams}), by which a server has at most {carried} requests at once"
        ),
    };
    for server in &pool.servers {
        if let Some(max) = server.connections_max.filter(|max| *max > carried) {
            let message = format!(
                "`max_connections` of the server `{}` ({max}) is above {carry}: it is never reached",
                server.name
            );
            report.warn(Kind::Conflict, at, message);
        }
    }
    if let Some(adaptive) = &pool.adaptive_concurrency
        && adaptive.min > carried
    {
        let message = format!(
            "the least limit of `adaptive_concurrency` ({}) is above {carry}: it never bounds anything",
            adaptive.min
        );
        report.warn(Kind::Conflict, at, message);
    }
}
