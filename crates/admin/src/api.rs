//! `/api/v1`: what there is, and the commands to the publisher.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use balance::State as Word;
use bytes::Bytes;
use control::live::PoolView;
use control::message::{Answer, Command, Message};
use control::world::Hub;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::segment;
use crate::error::ApiError;
use crate::{Admin, ExplainRequest, Shared, certificates, metrics, shape};

/// Bytes of a request body.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How long a body may take.
const BODY_MAX: Duration = Duration::from_secs(10);
/// How long the publisher may take over a change of a server.
pub(crate) const SET_MAX: Duration = Duration::from_secs(10);
/// And over a reload.
const RELOAD_MAX: Duration = Duration::from_secs(120);
/// And over an upgrade, whose own bound is given with it.
const UPGRADE_MORE: Duration = Duration::from_secs(30);
/// How long the new process of an upgrade has to be ready, unless the request says.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a drill takes a server out, unless the request says.
const DRILL_LENGTH: Duration = Duration::from_secs(30);
/// The highest weight.
const WEIGHT_MAX: u32 = 1000;

pub(crate) type Answered = Result<Response, ApiError>;

pub(crate) async fn listeners(State(admin): Shared) -> Response {
    Json(shape::listeners(
        &admin.hub.world(),
        &admin.addresses,
        &metrics::before(&admin),
    ))
    .into_response()
}

pub(crate) async fn routes(State(admin): Shared) -> Response {
    Json(shape::routes(&admin.hub.world(), &metrics::before(&admin))).into_response()
}

pub(crate) async fn certificates(State(admin): Shared) -> Response {
    Json(certificates::all(&admin.hub)).into_response()
}

pub(crate) async fn pools(State(admin): Shared) -> Response {
    let (world, before) = (admin.hub.world(), metrics::before(&admin));
    let pools: Vec<shape::Pool> = shape::pools(&world)
        .map(|(config, state, subsets)| shape::Pool::new(config, state, subsets, &before))
        .collect();
    Json(pools).into_response()
}

pub(crate) async fn servers(State(admin): Shared, Path(pool): Path<String>) -> Answered {
    let view = view(&admin.hub, &pool)?;
    let before = metrics::before(&admin);
    Ok(Json(shape::servers(&view, &before, admin.started.elapsed())).into_response())
}

pub(crate) async fn server(
    State(admin): Shared,
    Path((pool, server)): Path<(String, String)>,
) -> Answered {
    show(&admin, &pool, &server)
}

/// `PATCH` with `{"state": …, "weight": …, "force": true}`; answers what the server is then, or 409 with why it needs
/// force.
pub(crate) async fn set(
    State(admin): Shared,
    Path((pool, server)): Path<(String, String)>,
    body: Body,
) -> Answered {
    let body = read(body).await?;
    let change = parse_change(&body).map_err(|why| ApiError::new(400, why))?;
    show(&admin, &pool, &server)?;
    let command = Command::Set {
        pool: pool.clone(),
        server: server.clone(),
        state: change.state,
        weight: change.weight,
        force: change.force,
    };
    match ask(&admin.hub, command, Some(SET_MAX)).await? {
        Answer::Done => show(&admin, &pool, &server),
        other => Err(unexpected(other)),
    }
}

/// What a command on a server that is there is asked with: a time of this name, and force; nothing in the body.
async fn timed(
    admin: &Admin,
    (pool, server): (&str, &str),
    query: Option<&str>,
    name: &str,
    body: Body,
) -> Result<Timed, ApiError> {
    expect_nothing(&read(body).await?)?;
    let asked = parse_timed(query, name).map_err(|why| ApiError::new(400, why))?;
    show(admin, pool, server)?;
    Ok(asked)
}

/// `POST …/drain?timeout=30s&force=true`; answers the receipt when the drain has ended, 409 with why it needs force, or 307
/// to `…/drain/wait` where another process has taken the drain over.
pub(crate) async fn drain(
    State(admin): Shared,
    Path((pool, server)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Answered {
    let asked = timed(&admin, (&pool, &server), query.as_deref(), "timeout", body).await?;
    let wait = wait_path(&pool, &server);
    let command = Command::Drain {
        pool,
        server,
        timeout: asked.time,
        force: asked.force,
    };
    drained(ask(&admin.hub, command, None).await?, &wait)
}

/// `POST …/drain/wait`: the receipt of a drain that began in the process before this one, when it has ended; 404 if there
/// is none, 307 as above.
pub(crate) async fn drain_wait(
    State(admin): Shared,
    Path((pool, server)): Path<(String, String)>,
    body: Body,
) -> Answered {
    expect_nothing(&read(body).await?)?;
    // A server that this process's config does not have may drain in the one before it.
    let wait = wait_path(&pool, &server);
    let command = Command::DrainWait { pool, server };
    drained(ask(&admin.hub, command, None).await?, &wait)
}

/// Where the process that goes on with a drain is asked for its receipt.
fn wait_path(pool: &str, server: &str) -> String {
    let (pool, server) = (segment(pool), segment(server));
    format!("/api/v1/pools/{pool}/servers/{server}/drain/wait")
}

fn drained(answer: Answer, wait: &str) -> Answered {
    match answer {
        Answer::Drained(receipt) => Ok(Json(receipt).into_response()),
        Answer::GoesOnElsewhere => {
            let why =
                "another process goes on with the drain since an upgrade, and has the receipt";
            // Over a connection of its own: this one is the old process's.
            let headers = [(header::LOCATION, wait), (header::CONNECTION, "close")];
            let error = ApiError::new(307, why);
            Ok((headers, error).into_response())
        }
        other => Err(unexpected(other)),
    }
}

/// `POST …/drill?for=30s&force=true`; answers the report when the drill has ended, 409 with why it needs force, or 422
/// with why there is none.
pub(crate) async fn drill(
    State(admin): Shared,
    Path((pool, server)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Answered {
    let asked = timed(&admin, (&pool, &server), query.as_deref(), "for", body).await?;
    let command = Command::Drill {
        pool,
        server,
        length: asked.time.unwrap_or(DRILL_LENGTH),
        force: asked.force,
    };
    match ask(&admin.hub, command, None).await? {
        Answer::Drilled(report) => Ok(Json(report).into_response()),
        Answer::Refused(errors) => Err(ApiError::new(422, errors.join("; "))),
        other => Err(unexpected(other)),
    }
}

/// `POST /api/v1/explain`: what would become of `{"request": "GET http://host/path", "headers": […], "from": "IP"}` now.
/// Nothing is sent, picked or counted.
pub(crate) async fn explain(State(admin): Shared, body: Body) -> Answered {
    let body = read(body).await?;
    let wrong = |why| ApiError::new(400, why);
    let request = parse_explain(&body).map_err(wrong)?;
    let addresses = admin
        .addresses
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    let (world, now) = (admin.hub.world(), admin.started.elapsed());
    let explained = (admin.explain)(&world, &request, &addresses, now).map_err(wrong)?;
    Ok(Json(explained).into_response())
}

/// `POST /api/v1/reload`: what changed, or 422 with every error.
pub(crate) async fn reload(State(admin): Shared, body: Body) -> Answered {
    expect_nothing(&read(body).await?)?;
    match ask(&admin.hub, Command::Reload, Some(RELOAD_MAX)).await? {
        Answer::Reloaded(changes) => {
            let (summary, generation) = (changes.to_string(), admin.hub.world().generation);
            let answer =
                json!({ "summary": summary, "generation": generation, "changes": changes });
            Ok(Json(answer).into_response())
        }
        Answer::Refused(errors) => {
            let errors = Json(json!({ "errors": errors }));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, errors).into_response())
        }
        other => Err(unexpected(other)),
    }
}

/// `GET /api/v1/reload`: what came of the last one, however it was asked for; `null` before the first.
pub(crate) async fn last_reload(State(admin): Shared) -> Response {
    let Some(report) = admin.hub.reloaded() else {
        return Json(Value::Null).into_response();
    };
    let mut shown = serde_json::to_value(&*report).unwrap_or_default();
    if let (Some(changes), Some(keys)) = (&report.changes, shown.as_object_mut()) {
        keys.insert("summary".to_owned(), changes.to_string().into());
    }
    Json(shown).into_response()
}

/// `POST /api/v1/upgrade?binary=PATH&timeout=60s`: the process that serves from now on, or 422 with why it is not.
pub(crate) async fn upgrade(
    State(admin): Shared,
    RawQuery(query): RawQuery,
    body: Body,
) -> Answered {
    expect_nothing(&read(body).await?)?;
    let (binary, timeout) =
        parse_upgrade(query.as_deref()).map_err(|why| ApiError::new(400, why))?;
    let command = Command::Upgrade { binary, timeout };
    let bound = timeout.saturating_add(UPGRADE_MORE);
    match ask(&admin.hub, command, Some(bound)).await? {
        Answer::Upgraded { pid, version } => {
            Ok(Json(json!({ "pid": pid, "version": version })).into_response())
        }
        Answer::Refused(errors) => {
            let errors = Json(json!({ "errors": errors }));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, errors).into_response())
        }
        other => Err(unexpected(other)),
    }
}

/// The server of this name; several, as an array, when the name is one of DNS with several addresses.
fn show(admin: &Admin, pool: &str, server: &str) -> Answered {
    let view = view(&admin.hub, pool)?;
    let (before, now) = (metrics::before(admin), admin.started.elapsed());
    let standings = view.standings.iter();
    let mut found: Vec<shape::Server> = standings
        .filter(|standing| shape::answers_to(&standing.member, server))
        .map(|standing| shape::Server::new(standing, &view, &before, now))
        .collect();
    match found.len() {
        0 => Err(no_server(&view, pool, server)),
        1 => Ok(Json(found.remove(0)).into_response()),
        _ => Ok(Json(found).into_response()),
    }
}

pub(crate) fn no_server(view: &PoolView, pool: &str, server: &str) -> ApiError {
    let names = view.standings.iter().map(|standing| &*standing.member.name);
    let why = format!(
        "no server `{server}` in pool `{pool}`; servers: {}",
        list(names)
    );
    ApiError::new(404, why)
}

pub(crate) fn view(hub: &Hub, pool: &str) -> Result<Arc<PoolView>, ApiError> {
    let world = hub.world();
    if let Some((_, state)) = world.pool(pool) {
        return Ok(state.view());
    }
    let names = world.pools.iter().map(|pool| &*pool.name);
    Err(ApiError::new(
        404,
        format!("no pool `{pool}`; pools: {}", list(names)),
    ))
}

/// The first fifty names.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    if names.len() > 50 {
        names.truncate(50);
        names.push("…");
    }
    names.join(", ")
}

/// Sends a command and waits for its answer.
pub(crate) async fn ask(
    hub: &Hub,
    command: Command,
    bound: Option<Duration>,
) -> Result<Answer, ApiError> {
    let (sender, answer) = oneshot::channel();
    let reply = Box::new(move |answer| {
        // Who asked may have left.
        let _ = sender.send(answer);
    });
    hub.send(Message::Command(command, reply));
    let answer = match bound {
        None => answer.await,
        Some(bound) => timeout(bound, answer).await.map_err(|_| {
            ApiError::new(
                504,
                format!(
                    "no answer within {} s; it may still be done",
                    bound.as_secs()
                ),
            )
        })?,
    };
    answer.map_err(|_| ApiError::new(503, "the process is ending"))
}

pub(crate) fn unexpected(answer: Answer) -> ApiError {
    match answer {
        // It was there a moment ago.
        Answer::NotFound(why) => ApiError::new(404, why),
        Answer::NeedsForce(why) => ApiError::new(409, why),
        // Another process has taken over, or this one ends.
        Answer::Refused(errors) => ApiError::new(503, errors.join("; ")),
        other => ApiError::new(500, format!("an answer to another question: {other:?}")),
    }
}

pub(crate) async fn read(body: Body) -> Result<Bytes, ApiError> {
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match timeout(BODY_MAX, reading).await {
        Err(_) => Err(ApiError::new(408, "the body did not come in time")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(413, "the body is larger than 16 KiB"))
        }
        Ok(Err(_)) => Err(ApiError::new(400, "the body could not be read")),
    }
}

fn expect_nothing(body: &[u8]) -> Result<(), ApiError> {
    if matches!(body.trim_ascii(), b"" | b"{}") {
        return Ok(());
    }
    Err(ApiError::new(
        400,
        "this takes no body but an empty one or `{}`",
    ))
}

fn parse_explain(body: &[u8]) -> Result<ExplainRequest, String> {
    let example =
        r#"such as {"request": "GET http://host/path", "headers": ["k: v"], "from": "192.0.2.1"}"#;
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Value::Object(keys) = body else {
        return Err(format!("the body is not an object {example}"));
    };
    let mut asked = ExplainRequest {
        request: String::new(),
        headers: Vec::new(),
        from: Ipv4Addr::LOCALHOST.into(),
        client_cert: None,
    };
    for (key, value) in &keys {
        match (key.as_str(), value) {
            ("request", Value::String(request)) => asked.request.clone_from(request),
            ("headers", Value::Array(headers)) => {
                for header in headers {
                    let header = header.as_str().ok_or_else(|| {
                        format!("`headers` is a list of texts \"name: value\", not {value}")
                    })?;
                    asked.headers.push(header.to_owned());
                }
            }
            ("from", Value::String(from)) => {
                asked.from = from
                    .parse()
                    .map_err(|_| format!("`from` is an IP address, not `{from}`"))?;
            }
            ("client_cert", Value::String(pem)) => asked.client_cert = Some(pem.clone()),
            ("request" | "headers" | "from" | "client_cert", _) => {
                return Err(format!("`{key}` cannot be {value}: the body is {example}"));
            }
            _ => {
                return Err(format!(
                    "unknown key `{key}`: `request`, `headers`, `from` and `client_cert` can be given"
                ));
            }
        }
    }
    if asked.request.is_empty() {
        return Err(format!("`request` is missing: the body is {example}"));
    }
    Ok(asked)
}

/// What is to become of a server.
#[derive(Default)]
struct Change {
    state: Option<Word>,
    weight: Option<u32>,
    force: bool,
}

fn parse_change(body: &[u8]) -> Result<Change, String> {
    let example = r#"such as {"state": "drain", "weight": 3}"#;
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Value::Object(keys) = body else {
        return Err(format!("the body is not an object {example}"));
    };
    let mut change = Change::default();
    for (key, value) in &keys {
        match key.as_str() {
            "state" => change.state = Some(parse_state(value)?),
            "weight" => change.weight = Some(parse_weight(value)?),
            "force" => {
                let said = value.as_bool();
                change.force = said.ok_or(format!("`force` is true or false, not {value}"))?;
            }
            _ => {
                return Err(format!(
                    "unknown key `{key}`: `state` and `weight` can be set, by `force` where need be"
                ));
            }
        }
    }
    if change.state.is_none() && change.weight.is_none() {
        return Err(format!(
            "nothing is to be changed: an object {example} is expected"
        ));
    }
    Ok(change)
}

fn parse_state(value: &Value) -> Result<Word, String> {
    match value.as_str() {
        Some("ready") => Ok(Word::Ready),
        Some("drain") => Ok(Word::Drain),
        Some("disabled") => Ok(Word::Disabled),
        _ => Err(format!(
            "`state` is \"ready\", \"drain\" or \"disabled\", not {value}"
        )),
    }
}

fn parse_weight(value: &Value) -> Result<u32, String> {
    let weight = value.as_u64().and_then(|weight| u32::try_from(weight).ok());
    weight
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or_else(|| format!("`weight` is a whole number from 0 to {WEIGHT_MAX}, not {value}"))
}

fn parse_upgrade(query: Option<&str>) -> Result<(Option<String>, Duration), String> {
    let (mut binary, mut timeout) = (None, UPGRADE_TIMEOUT);
    let parts = query.unwrap_or_default().split('&');
    for part in parts.filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("timeout", text)) => timeout = config::parse_duration(text)?,
            Some(("binary", text)) => binary = Some(decode(text)?),
            _ => {
                return Err(format!(
                    "unknown parameter `{part}`: `binary=/PATH` and `timeout=60s` can be given"
                ));
            }
        }
    }
    Ok((binary, timeout))
}

/// Undoes percent-encoding (RFC 3986 §2.1).
pub(crate) fn decode(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not a percent-encoded text");
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = rest.next().and_then(|byte| char::from(byte).to_digit(16));
            digit
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or_else(wrong)
        };
        out.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(out).map_err(|_| wrong())
}

/// What a query says of something that takes its time.
#[derive(Default)]
struct Timed {
    time: Option<Duration>,
    force: bool,
}

fn parse_timed(query: Option<&str>, time: &str) -> Result<Timed, String> {
    let mut timed = Timed::default();
    let parts = query.unwrap_or_default().split('&');
    for part in parts.filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((key, text)) if key == time => timed.time = Some(config::parse_duration(text)?),
            Some(("force", "true")) => timed.force = true,
            Some(("force", "false")) => timed.force = false,
            _ => {
                return Err(format!(
                    "unknown parameter `{part}`: `{time}=30s` and `force=true` can be given"
                ));
            }
        }
    }
    Ok(timed)
}
