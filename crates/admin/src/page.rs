//! The plain table at `/`: pools and their servers, without scripts, until there is a dashboard.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use control::world::{Phase, World};

use crate::carried::Totals;
use crate::{Shared, metrics, shape};

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"5\">\n\
<title>Evenkeel</title>\n<style>\n\
:root { color-scheme: light dark }\n\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em; max-width: 70em }\n\
table { border-collapse: collapse; width: 100%; margin-bottom: 2em }\n\
th, td { text-align: left; padding: .3em .8em .3em 0; border-bottom: 1px solid #8884 }\n\
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }\n\
.healthy { color: #197a3b } .unhealthy { color: #c22 } .unknown { color: #a60 }\n\
</style>\n";

/// Nothing may be loaded or run, whatever a name would smuggle in.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";

pub(crate) async fn page(State(admin): Shared) -> Response {
    let phase = match admin.hub.phase() {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Draining => "draining",
    };
    let mut html = String::from(HEAD);
    let secs = admin.started.elapsed().as_secs();
    let _ = writeln!(
        html,
        "<h1>Evenkeel</h1>\n<p>Version {}, {phase}, up for {secs} s. <a href=\"/health\">/health</a> \
         <a href=\"/metrics\">/metrics</a> <a href=\"/api/v1/pools\">/api/v1/pools</a></p>",
        Escaped(admin.version)
    );
    let before = metrics::before(&admin);
    tables(
        &mut html,
        &admin.hub.world(),
        &before,
        admin.started.elapsed(),
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, html).into_response()
}

fn tables(html: &mut String, world: &World, before: &Totals, now: Duration) {
    for (config, state, subsets) in shape::pools(world) {
        let view = state.view();
        let pool = shape::Pool::new(config, state, subsets, before);
        let _ = writeln!(
            html,
            "<h2>{}</h2>\n<p>{}, {} of {} usable{}{}</p>\n<table>\n<tr><th>server<th>address<th>state<th>health\
             <th>cause<th class=n>weight<th class=n>active<th class=n>picks",
            Escaped(&pool.name),
            Escaped(pool.balance),
            pool.usable,
            pool.servers,
            if pool.panic {
                "; traffic goes to servers that are not, for want of better ones"
            } else {
                ""
            },
            if pool.waiting > 0 {
                format!("; {} wait for a server", pool.waiting)
            } else {
                String::new()
            },
        );
        for server in shape::servers(&view, before, now) {
            let _ = writeln!(
                html,
                "<tr><td>{}<td>{}<td>{}<td class={}>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}",
                Escaped(&server.name),
                Escaped(&server.address),
                server.state,
                server.health,
                server.health,
                Escaped(&both(&server.cause, &server.note)),
                server.weight,
                server.active,
                server.picks,
            );
        }
        html.push_str("</table>\n");
    }
}

/// The two, as one text.
fn both(cause: &str, note: &str) -> String {
    if note.is_empty() {
        cause.to_owned()
    } else {
        format!("{cause}; {note}")
    }
}

/// A text that HTML takes for nothing but text.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
