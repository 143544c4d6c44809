//! `evenkeel affinity`: what a pool has learnt of its clients is shown, or forgotten.

use std::fmt::Write as _;
use std::process::ExitCode;

use admin::client::{Client, segment};
use serde_json::{Value, json};

use crate::cli::{AffinityArgs, AffinityCommand, ForgetArgs};
use crate::exit;
use crate::remote::{self, Done, Failed, number, text};
use crate::table::aligned;

/// Runs the command.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(args: &AffinityArgs) -> anyhow::Result<ExitCode> {
    remote::with_client(&args.remote, async |client| match &args.command {
        AffinityCommand::List {
            pool,
            server,
            value,
            limit,
            from,
        } => {
            let mut path = format!("{}?limit={limit}&from={from}", path(pool));
            for (key, text) in [("server", server), ("value", value)] {
                if let Some(text) = text {
                    let _ = write!(path, "&{key}={}", segment(text));
                }
            }
            let (listed, _) = remote::ask(client.get(&path).await?, &[200])?;
            Ok(Done {
                text: list_text(&listed),
                json: listed,
                code: exit::WELL,
            })
        }
        AffinityCommand::Forget { pool, what } => forget(client, pool, what).await,
    })
}

async fn forget(client: &Client, pool: &str, what: &ForgetArgs) -> Result<Done, Failed> {
    let body = match (&what.server, &what.key, &what.value) {
        (Some(server), ..) => json!({ "server": server }),
        (_, Some(key), _) => json!({ "key": key }),
        (.., Some(value)) => json!({ "value": value }),
        // One of them is given.
        _ => json!({ "all": what.all }),
    };
    let path = format!("{}/forget", path(pool));
    let (answer, _) = remote::ask(client.post_json(&path, &body).await?, &[200])?;
    Ok(Done {
        text: match number(&answer, "forgotten") {
            1 => "1 binding is forgotten\n".to_owned(),
            count => format!("{count} bindings are forgotten\n"),
        },
        json: answer,
        code: exit::WELL,
    })
}

fn path(pool: &str) -> String {
    format!("/api/v1/pools/{}/affinity", segment(pool))
}

/// A page of bindings in words.
fn list_text(listed: &Value) -> String {
    let count = |key| number(listed, key);
    let mut out = format!(
        "{}: {} of {} entries, forgotten after {} s unused; {} learnt, {} moved, {} evicted, {} expired\n",
        text(listed, "by"),
        count("entries"),
        count("entries_max"),
        count("expire_secs"),
        count("learnt"),
        count("moved"),
        count("evicted"),
        count("expired"),
    );
    let rows = |key: &str| listed.get(key).and_then(Value::as_array).cloned();
    let mut servers = vec![vec!["SERVER".to_owned(), "CLIENTS".to_owned()]];
    for server in rows("servers").unwrap_or_default() {
        servers.push(vec![
            text(&server, "name").to_owned(),
            number(&server, "entries").to_string(),
        ]);
    }
    out.push_str(&aligned(&servers, 0));
    let secs = |binding: &Value, key| format!("{} s", number(binding, key) / 1000);
    let header = ["KEY", "SERVER", "UNUSED", "EXPIRES IN"];
    let mut bindings = vec![header.map(str::to_owned).to_vec()];
    for binding in rows("bindings").unwrap_or_default() {
        bindings.push(vec![
            text(&binding, "key").to_owned(),
            text(&binding, "server").to_owned(),
            secs(&binding, "unused_ms"),
            secs(&binding, "expires_in_ms"),
        ]);
    }
    out.push('\n');
    out.push_str(&aligned(&bindings, 0));
    if let Some(next) = listed.get("next").and_then(Value::as_u64) {
        let _ = writeln!(out, "there are more: --from {next}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_words() {
        let listed = json!({
            "by": "app_cookie JSESSIONID", "entries": 2, "entries_max": 100_000, "expire_secs": 1800, "learnt": 3,
            "moved": 1, "evicted": 0, "expired": 1, "servers": [{ "name": "a", "entries": 2 }], "next": 7,
            "bindings": [{ "key": "00000000000000ff", "server": "a", "unused_ms": 2500, "expires_in_ms": 1_797_500 }]
        });
        assert_eq!(
            list_text(&listed),
            "\
app_cookie JSESSIONID: 2 of 100000 entries, forgotten after 1800 s unused; 3 learnt, 1 moved, 0 evicted, 1 expired
SERVER  CLIENTS
a       2

KEY               SERVER  UNUSED  EXPIRES IN
00000000000000ff  a       2 s     1797 s
there are more: --from 7
"
        );
    }
}
