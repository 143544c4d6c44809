//! The commands that talk to a running instance through its admin API: `status`, `reload`, `upgrade`, `server`; and how
//! the others do.

use std::fmt::Write as _;
use std::process::ExitCode;

use admin::Client;
use admin::client::{ClientError, segment};
use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::{RemoteArgs, ServerArgs, ServerCommand, UpgradeArgs, Which};
use crate::exit;
use crate::table::aligned;

mod certificates;
mod drain;

/// Variable with the token, so that it stands in no process list.
const TOKEN: &str = "EVENKEEL_TOKEN";

/// How a command that was answered ends.
pub(crate) struct Done {
    pub(crate) text: String,
    pub(crate) json: Value,
    pub(crate) code: ExitCode,
}

/// Why a command was not done.
pub(crate) enum Failed {
    /// The instance does not answer, or the system refused.
    Refused(String),
    /// What was asked for is wrong.
    Wrong(String),
}

impl Failed {
    /// Says it on stderr.
    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Wrong(why) => exit::wrong(why),
            Self::Refused(why) => exit::refused(why),
        }
    }

    /// In words.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Wrong(why) | Self::Refused(why) => why,
        }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Wrong(why) => Self::Wrong(why),
            ClientError::NoAnswer(why) | ClientError::Ended(why) => Self::Refused(why),
        }
    }
}

/// Runs `evenkeel status`.
///
/// # Errors
/// What the system refused.
pub(crate) fn status(args: &RemoteArgs) -> anyhow::Result<ExitCode> {
    with_client(args, async |client| {
        let (health, pools) = look(client).await?;
        // A version before this one knows no such path.
        let certificates = ask(client.get("/api/v1/certificates").await?, &[200, 404])?;
        let certificates = Some(certificates).filter(|(_, status)| *status == 200);
        let certificates = certificates.map_or_else(|| json!([]), |(certificates, _)| certificates);
        Ok(Done {
            text: status_text(&health, &pools) + &certificates::table(&certificates),
            json: json!({ "health": health, "pools": pools, "certificates": certificates }),
            code: exit::WELL,
        })
    })
}

/// The instance's health, and its pools with their servers.
///
/// # Errors
/// When the instance does not answer, or refuses.
pub(crate) async fn look(client: &Client) -> Result<(Value, Vec<Value>), Failed> {
    let (health, _) = ask(client.get("/health").await?, &[200, 503])?;
    let (pools, _) = ask(client.get("/api/v1/pools").await?, &[200])?;
    let mut all = Vec::new();
    for pool in pools.as_array().into_iter().flatten() {
        let name = segment(text(pool, "name"));
        // A pool may be gone by now.
        let (servers, status) = ask(
            client.get(&format!("/api/v1/pools/{name}/servers")).await?,
            &[200, 404],
        )?;
        let mut pool = pool.clone();
        if status == 200
            && let Some(object) = pool.as_object_mut()
        {
            object.insert("servers".to_owned(), servers);
            all.push(pool);
        }
    }
    Ok((health, all))
}

/// Runs `evenkeel reload`.
///
/// # Errors
/// What the system refused.
pub(crate) fn reload(args: &RemoteArgs) -> anyhow::Result<ExitCode> {
    with_client(args, async |client| {
        let (answer, status) = ask(client.post("/api/v1/reload").await?, &[200, 422])?;
        if status == 422 {
            return Ok(refused(answer, "not reloaded: nothing has changed\n"));
        }
        Ok(Done {
            text: format!("reloaded: {}\n", text(&answer, "summary")),
            json: answer,
            code: exit::WELL,
        })
    })
}

/// Runs `evenkeel upgrade`.
///
/// # Errors
/// What the system refused.
pub(crate) fn upgrade(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    let mut path = "/api/v1/upgrade?".to_owned();
    if let Some(binary) = &args.binary {
        // The instance has a working folder of its own.
        let binary = std::path::absolute(binary)?;
        let _ = write!(path, "binary={}&", segment(&binary.to_string_lossy()));
    }
    if let Some(timeout) = &args.timeout {
        let _ = write!(path, "timeout={}", segment(timeout));
    }
    with_client(&args.remote, async |client| {
        let (answer, status) = ask(client.post(&path).await?, &[200, 422])?;
        if status == 422 {
            return Ok(refused(
                answer,
                "not upgraded: the process goes on as it was\n",
            ));
        }
        Ok(Done {
            text: format!(
                "upgraded: process {}, version {}\n",
                number(&answer, "pid"),
                text(&answer, "version")
            ),
            json: answer,
            code: exit::WELL,
        })
    })
}

/// Shows the errors of an answer, one by one.
fn refused(answer: Value, text: &str) -> Done {
    let errors = answer.get("errors").and_then(Value::as_array);
    for error in errors.into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("{}", error.trim_end());
    }
    Done {
        text: text.to_owned(),
        json: answer,
        code: ExitCode::from(exit::WRONG),
    }
}

/// Runs `evenkeel server …`.
///
/// # Errors
/// What the system refused.
pub(crate) fn server(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    with_client(&args.remote, async |client| match &args.command {
        ServerCommand::Drain {
            which,
            timeout,
            force,
        } => drain::run(client, which, timeout.as_deref(), *force).await,
        ServerCommand::Disable { which, force } => {
            let change = json!({ "state": "disabled", "force": force });
            set(client, which, change).await
        }
        ServerCommand::Enable(which) => set(client, which, json!({ "state": "ready" })).await,
        ServerCommand::Weight {
            which,
            weight,
            force,
        } => set(client, which, json!({ "weight": weight, "force": force })).await,
    })
}

async fn set(client: &Client, which: &Which, change: Value) -> Result<Done, Failed> {
    let (answer, _) = ask(client.patch(&path(which), &change).await?, &[200])?;
    let servers = match &answer {
        Value::Array(servers) => servers.iter().collect(),
        server => vec![server],
    };
    let mut lines = String::new();
    for server in servers {
        let _ = writeln!(
            lines,
            "{}: {}, weight {}, {} in use",
            text(server, "name"),
            text(server, "state"),
            number(server, "weight"),
            number(server, "active")
        );
    }
    Ok(Done {
        text: lines,
        json: answer,
        code: exit::WELL,
    })
}

pub(crate) fn path(which: &Which) -> String {
    format!(
        "/api/v1/pools/{}/servers/{}",
        segment(&which.pool),
        segment(&which.server)
    )
}

/// Runs one conversation on a small runtime, and prints how it ended.
///
/// # Errors
/// What the system refused.
pub(crate) fn with_client(
    args: &RemoteArgs,
    talk: impl AsyncFnOnce(&Client) -> Result<Done, Failed>,
) -> anyhow::Result<ExitCode> {
    match runtime()?.block_on(talk(&client(args))) {
        Ok(done) => {
            if args.json {
                exit::print(&format!("{}\n", serde_json::to_string_pretty(&done.json)?));
            } else {
                exit::print(&done.text);
            }
            Ok(done.code)
        }
        Err(failed) => Ok(failed.tell()),
    }
}

/// A small runtime for conversations.
///
/// # Errors
/// What the system refused.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

/// Who asks the instance that was named.
pub(crate) fn client(args: &RemoteArgs) -> Client {
    Client {
        url: args.admin.clone(),
        token: std::env::var(TOKEN).ok().filter(|token| !token.is_empty()),
    }
}

/// Takes the answers that are expected; anything else says what was wrong.
pub(crate) fn ask(answer: (u16, Value), expected: &[u16]) -> Result<(Value, u16), Failed> {
    let (status, body) = answer;
    if expected.contains(&status) {
        return Ok((body, status));
    }
    let why = match body.get("error").and_then(Value::as_str).or(body.as_str()) {
        Some(why) if !why.is_empty() => why.trim_end().to_owned(),
        _ => format!("the instance answered {status}"),
    };
    match status {
        401 => Err(Failed::Wrong(format!(
            "{why} (the token goes into {TOKEN})"
        ))),
        400..500 => Err(Failed::Wrong(why)),
        _ => Err(Failed::Refused(why)),
    }
}

/// Pools with their servers, in aligned plain text.
fn status_text(health: &Value, pools: &[Value]) -> String {
    let mut out = format!(
        "{}, version {}, up {} s\n",
        text(health, "status"),
        text(health, "version"),
        number(health, "uptime_secs")
    );
    let header = [
        "POOL", "SERVER", "ADDRESS", "STATE", "HEALTH", "WEIGHT", "ACTIVE", "PICKS",
    ];
    let servers = |pool: &'_ Value| pool.get("servers").and_then(Value::as_array).cloned();
    let all = pools.iter().filter_map(servers).flatten();
    // Where there are none, there is no column for them.
    let labelled = all.map(|server| labels(&server)).any(|it| !it.is_empty());
    let mut header = header.map(str::to_owned).to_vec();
    header.extend(labelled.then(|| "LABELS".to_owned()));
    header.push("CAUSE".to_owned());
    let mut rows = vec![header];
    for pool in pools {
        let servers = pool.get("servers").and_then(Value::as_array);
        for server in servers.into_iter().flatten() {
            let mut row = vec![
                text(server, "pool").to_owned(),
                text(server, "name").to_owned(),
                text(server, "address").to_owned(),
                text(server, "state").to_owned(),
                text(server, "health").to_owned(),
                number(server, "weight").to_string(),
                number(server, "active").to_string(),
                number(server, "picks").to_string(),
            ];
            row.extend(labelled.then(|| labels(server)));
            row.push(cause_and_note(server));
            rows.push(row);
        }
        if servers.is_none_or(Vec::is_empty) {
            rows.push(vec![
                text(pool, "name").to_owned(),
                "(no server)".to_owned(),
            ]);
        }
    }
    out.push_str(&aligned(&rows, 0));
    for pool in pools {
        let waiting = number(pool, "waiting");
        if waiting > 0 {
            let _ = writeln!(out, "{}: {waiting} wait for a server", text(pool, "name"));
        }
        let subsets = pool.get("subsets").and_then(Value::as_array);
        for subset in subsets.into_iter().flatten() {
            let _ = writeln!(
                out,
                "{} ({}): {} of {} usable",
                text(pool, "name"),
                labels(subset),
                number(subset, "usable"),
                number(subset, "servers")
            );
        }
    }
    for pool in pools {
        if let Some(line) = capacity_text(pool) {
            let _ = writeln!(out, "{}: {line}", text(pool, "name"));
        }
        if let Some(line) = fairness_text(pool) {
            let _ = writeln!(out, "{}: {line}", text(pool, "name"));
        }
    }
    out
}

/// How far affinity bends the balance of a pool; `None` where nothing binds its clients, or few came of late.
fn fairness_text(pool: &Value) -> Option<String> {
    let fairness = pool.get("fairness")?;
    let percent = |object: &Value, key: &str| {
        let share = object.get(key).and_then(Value::as_f64);
        share.unwrap_or(0.0) * 100.0
    };
    let mut out = format!(
        "{:.0} % of picks by affinity, which bends the balance by {:.0} %",
        percent(fairness, "by_affinity"),
        percent(fairness, "bend")
    );
    if let Some(most) = fairness.get("most") {
        let _ = write!(
            out,
            "; {} has {:.0} % where {:.0} % is its part",
            text(most, "server"),
            percent(most, "share"),
            percent(most, "due")
        );
    }
    if let Some(source) = fairness.get("source") {
        let alarm = match source.get("alarm").and_then(Value::as_bool) {
            Some(true) => ": ALARM",
            _ => "",
        };
        let _ = write!(
            out,
            "; {} sends {:.0} %{alarm}",
            text(source, "source"),
            percent(source, "share")
        );
    }
    Some(out)
}

/// `tier=gold,version=v2`.
fn labels(object: &Value) -> String {
    let labels = object.get("labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

/// What a pool carries, and what the rest would bear; `None` while there is nothing to say.
pub(crate) fn capacity_text(pool: &Value) -> Option<String> {
    let capacity = pool.get("capacity")?;
    let float = |object: &Value, key: &str| object.get(key).and_then(Value::as_f64);
    let load = float(capacity, "load").unwrap_or(0.0);
    let is_alarm = capacity.get("alarm").and_then(Value::as_bool) == Some(true);
    if load < 0.05 && !is_alarm {
        return None;
    }
    let of_room = |object: &Value| {
        let room = object.get("room").and_then(Value::as_u64)?;
        Some(match float(object, "ratio") {
            Some(ratio) => format!("{:.0} % of room for {room}", ratio * 100.0),
            None => "no room at all".to_owned(),
        })
    };
    let mut out = format!("load {load:.1}");
    if let Some(of_room) = of_room(capacity) {
        let _ = write!(out, ", {of_room}");
    }
    for (key, what) in [("without_server", ""), ("without_zone", "zone ")] {
        let Some(without) = capacity.get(key).filter(|it| it.is_object()) else {
            continue;
        };
        let left = match (of_room(without), float(without, "growth")) {
            (Some(of_room), _) => of_room,
            (None, Some(growth)) => format!("the others carry {growth:.2} times as much"),
            (None, None) => "nobody is left".to_owned(),
        };
        let _ = write!(out, "; without {what}{} {left}", text(without, "name"));
    }
    if is_alarm {
        out.push_str("; ALARM");
    }
    Some(out)
}

pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("?")
}

pub(crate) fn number(object: &Value, key: &str) -> u64 {
    object.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Why a server is as it is, and why it gets more or less than its weight, if it does; a balancer of an older version
/// does not say that.
pub(crate) fn cause_and_note(server: &Value) -> String {
    let cause = text(server, "cause");
    match server.get("note").and_then(Value::as_str) {
        None | Some("") => cause.to_owned(),
        Some(note) => format!("{cause}; {note}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_in_words() {
        let without = |room: Value, ratio: Value, growth: Value| json!({ "name": "b", "servers_left": 2, "room": room, "ratio": ratio, "growth": growth });
        let (room, none) = (json!(30), Value::Null);
        for (load, ratio, server, zone, alarm, expected) in [
            (
                0.0,
                json!(0.0),
                without(room.clone(), json!(0.0), json!(1.5)),
                none.clone(),
                false,
                None,
            ),
            (
                33.0,
                json!(0.55),
                without(room.clone(), json!(1.1), json!(1.5)),
                json!({ "name": "z", "room": 0, "ratio": null }),
                true,
                Some(
                    "load 33.0, 55 % of room for 60; without b 110 % of room for 30; without zone z no room at all; ALARM",
                ),
            ),
            (
                2.0,
                none.clone(),
                without(none.clone(), none.clone(), json!(1.5)),
                none.clone(),
                false,
                Some("load 2.0; without b the others carry 1.50 times as much"),
            ),
        ] {
            let all = if ratio.is_null() {
                none.clone()
            } else {
                json!(60)
            };
            let pool = json!({ "name": "site", "capacity": {
                "load": load, "room": all, "ratio": ratio, "without_server": server, "without_zone": zone,
                "alarm": alarm
            } });
            assert_eq!(capacity_text(&pool).as_deref(), expected);
        }
        assert_eq!(capacity_text(&json!({ "name": "site" })), None);
    }

    #[test]
    fn fairness_in_words() {
        let pool = json!({ "fairness": { "by_affinity": 0.816, "bend": 0.0912,
            "most": { "server": "a", "share": 0.42, "due": 0.3333 },
            "source": { "source": "192.0.2.1", "share": 0.31, "alarm": true } } });
        assert_eq!(
            fairness_text(&pool).as_deref(),
            Some(
                "82 % of picks by affinity, which bends the balance by 9 %; a has 42 % where 33 % is its part; 192.0.2.1 sends 31 %: ALARM"
            )
        );
        let even = json!({ "fairness": { "by_affinity": 0.0, "bend": 0.0 } });
        assert_eq!(
            fairness_text(&even).as_deref(),
            Some("0 % of picks by affinity, which bends the balance by 0 %")
        );
        assert_eq!(fairness_text(&json!({ "name": "site" })), None);
    }

    #[test]
    fn a_table_of_pools_and_servers() {
        let health = json!({ "status": "degraded", "version": "0.1.0", "uptime_secs": 7 });
        let pools = [
            json!({ "name": "site", "servers": [
                { "pool": "site", "name": "a", "address": "127.0.0.1:1", "state": "ready", "health": "healthy",
                  "cause": "passes its probes", "weight": 1, "active": 2, "picks": 300 },
            ] }),
            json!({ "name": "empty", "servers": [] }),
        ];
        assert_eq!(
            status_text(&health, &pools),
            "\
degraded, version 0.1.0, up 7 s
POOL   SERVER       ADDRESS      STATE  HEALTH   WEIGHT  ACTIVE  PICKS  CAUSE
site   a            127.0.0.1:1  ready  healthy  1       2       300    passes its probes
empty  (no server)
"
        );
    }
}
