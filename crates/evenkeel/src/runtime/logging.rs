//! Log lines: text on a terminal, JSON otherwise, on stderr. What is logged is decided where it happens; only the
//! publisher's notices get their words here.

use std::io::IsTerminal as _;

use control::publisher::{Notice, worst};
use tracing::level_filters::LevelFilter;

/// `text` or `json`; else the terminal decides.
const STYLE: &str = "EVENKEEL_LOG";
/// `error`, `warn`, `info` (default), `debug`, `trace` or `off`.
const LEVEL: &str = "EVENKEEL_LOG_LEVEL";

/// Sets logging up for the process, once.
///
/// # Errors
/// A value of the environment that means nothing, in words for the user.
pub(crate) fn init() -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    let json = match std::env::var(STYLE).as_deref() {
        Err(_) | Ok("") => !terminal,
        Ok("text") => false,
        Ok("json") => true,
        Ok(other) => return Err(format!("{STYLE}={other}: `text` or `json` is expected")),
    };
    let level = match std::env::var(LEVEL).as_deref() {
        Err(_) | Ok("") => LevelFilter::INFO,
        Ok(text) => text.parse().map_err(|_| {
            format!("{LEVEL}={text}: a level such as `info` or `debug` is expected")
        })?,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(std::io::stderr);
    // Set already only in a process that runs two instances, which then share it.
    let _ = if json {
        builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_current_span(false)
            .try_init()
    } else {
        let color = terminal && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(color).try_init()
    };
    Ok(())
}

/// Writes what the publisher has to say.
pub(super) fn notice(notice: &Notice) {
    match notice {
        Notice::Health {
            pool,
            server,
            from,
            to,
            cause,
        } => {
            if matches!(*to, "unhealthy" | "ejected" | "degraded") && *from != "ejected" {
                tracing::warn!(%pool, %server, from, to, %cause, "server is {to}");
            } else {
                tracing::info!(%pool, %server, from, to, %cause, "server is {to}");
            }
        }
        Notice::Panic { pool, on: true } => {
            tracing::warn!(%pool, "no server is fit, or too few: those that still answer, or else all, are used again");
        }
        Notice::Panic { pool, on: false } => {
            tracing::info!(%pool, "a server is fit again");
        }
        Notice::Resolved { name, addresses } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            tracing::info!(%name, addresses = addresses.join(", "), "name resolved");
        }
        Notice::NotResolved { name, error } => {
            tracing::warn!(%name, error, "name does not resolve; its last answer is kept");
        }
        Notice::Says {
            pool,
            server,
            says,
            state,
        } => {
            tracing::info!(%pool, %server, %says, %state, "server speaks for itself");
        }
        Notice::Cut {
            pool,
            server,
            count,
        } => {
            tracing::warn!(%pool, %server, count, "the drain's deadline came: what still ran was cut");
        }
        Notice::Paused {
            listener,
            cause,
            lasted,
        } => {
            let cause = cause.name();
            match lasted {
                None => tracing::warn!(
                    %listener,
                    cause,
                    "accepting pauses: new connections wait in the kernel's queue"
                ),
                Some(lasted) => tracing::info!(
                    %listener,
                    cause,
                    lasted_ms = millis(*lasted),
                    "accepting goes on"
                ),
            }
        }
        Notice::Capacity { pool, on, outlook } => {
            let worst = outlook.as_deref().map_or_else(String::new, worst);
            if *on {
                tracing::warn!(%pool, "capacity: {worst}: past `capacity_alarm`");
            } else {
                tracing::info!(%pool, "capacity: {worst}: no longer past `capacity_alarm`");
            }
        }
        Notice::Drill { pool, server, what } => {
            tracing::warn!(%pool, %server, "drill: {what}");
        }
        Notice::HeavySource {
            pool,
            source,
            percent,
        } => {
            tracing::warn!(
                %pool,
                %source,
                percent = percent.round(),
                "one address carries {percent:.0} % of the pool, all of it bound to one server: bind by a cookie or a \
                 header, which tell its clients apart; if it is a proxy of yours, name it in `trusted_proxies`"
            );
        }
        Notice::Forgotten { pool, what, count } => {
            tracing::info!(%pool, count, "operator: the bindings of {what} are forgotten");
        }
        Notice::Operator { pool, server, what } => {
            tracing::info!(%pool, %server, "operator: {what}");
        }
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Writes what became of a worker.
pub(super) fn worker(notice: &proxy::Notice) {
    use proxy::Notice;
    let ms = |time: &std::time::Duration| millis(*time);
    match notice {
        Notice::Stuck {
            worker,
            silent,
            stand_in,
        } => tracing::error!(
            worker,
            silent_ms = ms(silent),
            stand_in,
            "a worker is stuck: its new connections go to another"
        ),
        Notice::Back { worker, silent } => {
            tracing::warn!(worker, silent_ms = ms(silent), "a worker is back");
        }
        Notice::Lost { worker, silent } => tracing::error!(
            worker,
            silent_ms = ms(silent),
            "a stuck worker did not come back: the process is lost"
        ),
        Notice::Ended { worker, error } => {
            tracing::error!(
                worker,
                error,
                "a worker has ended, and what it served with it"
            );
        }
        Notice::Replaced { worker } => tracing::warn!(worker, "a worker was replaced"),
        Notice::NotReplaced { worker, error } => {
            tracing::error!(
                worker,
                error,
                "a worker cannot be replaced; another polls its sockets"
            );
        }
        _ => {}
    }
}
