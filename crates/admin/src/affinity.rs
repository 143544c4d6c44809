//! `/api/v1/pools/POOL/affinity`: what a pool has learnt of its clients, and having it forgotten.
//!
//! Clients are shown by a hash of what tells them apart: a session's cookie is as good as its password.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Json};
use control::learnt::{Binding, LearntView};
use control::message::{Answer, Command, Forget};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Answered, SET_MAX, ask, decode, no_server, read, unexpected, view};
use crate::error::ApiError;
use crate::{Shared, metrics};

/// Bindings on a page, unless the request says, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 10_000;

#[derive(Debug, Serialize)]
struct Learnt {
    pool: String,
    kind: &'static str,
    /// What tells clients apart, in words.
    by: String,
    entries: u64,
    entries_max: u32,
    expire_secs: u64,
    learnt: u64,
    moved: u64,
    evicted: u64,
    expired: u64,
    forgotten: u64,
    /// How many bindings there are to each server that has any.
    servers: Vec<Held>,
    bindings: Vec<Shown>,
    /// `from` of the next page; absent when this was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Held {
    name: Arc<str>,
    entries: u64,
}

#[derive(Debug, Serialize)]
struct Shown {
    key: String,
    server: Arc<str>,
    unused_ms: u64,
    expires_in_ms: u64,
}

impl Shown {
    fn new(binding: &Binding) -> Self {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            key: format!("{:016x}", binding.key),
            server: binding.server.clone(),
            unused_ms: ms(binding.unused),
            expires_in_ms: ms(binding.expires_in),
        }
    }
}

/// Which bindings are asked for.
#[derive(Debug, Default)]
struct Page {
    from: usize,
    limit: Option<usize>,
    server: Option<String>,
    value: Option<String>,
}

/// `GET …?limit=100&from=0&server=NAME&value=TEXT`: bindings, page by page.
pub(crate) async fn show(
    State(admin): Shared,
    Path(pool): Path<String>,
    RawQuery(query): RawQuery,
) -> Answered {
    let page = parse_page(query.as_deref()).map_err(|why| ApiError::new(400, why))?;
    let learnt = learnt(&admin.hub, &pool)?;
    let (before, now) = (metrics::before(&admin), admin.started.elapsed());
    let held = learnt.by_server(now);
    if let Some(server) = &page.server {
        expect_server(&admin.hub, &pool, server, &held)?;
    }
    let (bindings, next) = match &page.value {
        Some(value) => {
            let key = learnt.learnt().key_of_text(value);
            let key = key.map_err(|why| ApiError::new(400, why))?;
            (learnt.binding(key, now).into_iter().collect(), None)
        }
        None => {
            let limit = page.limit.unwrap_or(LIMIT);
            learnt.bindings(page.server.as_deref(), page.from, limit, now)
        }
    };
    let table = learnt.learnt();
    let counts = table.counts();
    let total = |event, own| {
        let labels = [("pool", &*pool), ("event", event)];
        own + metrics::total_before(&before, "evenkeel_affinity_learnt_total", &labels)
    };
    Ok(Json(Learnt {
        learnt: total("learnt", counts.learnt),
        moved: total("moved", counts.moved),
        evicted: total("evicted", counts.evicted),
        expired: total("expired", counts.expired),
        forgotten: total("forgotten", counts.removed),
        kind: table.by().name(),
        by: table.by().to_string(),
        entries: counts.entries,
        entries_max: table.entries_max(),
        expire_secs: table.expire().as_secs(),
        servers: held
            .into_iter()
            .map(|(name, entries)| Held { name, entries })
            .collect(),
        bindings: bindings.iter().map(Shown::new).collect(),
        next,
        pool,
    })
    .into_response())
}

/// `POST …/forget` with `{"all": true}`, `{"server": NAME}`, `{"key": KEY}` or `{"value": TEXT}`; answers how many
/// bindings there were.
pub(crate) async fn forget(State(admin): Shared, Path(pool): Path<String>, body: Body) -> Answered {
    let body = read(body).await?;
    let what = parse_forget(&body).map_err(|why| ApiError::new(400, why))?;
    learnt(&admin.hub, &pool)?;
    let command = Command::Forget { pool, what };
    match ask(&admin.hub, command, Some(SET_MAX)).await? {
        Answer::Forgotten(count) => Ok(Json(json!({ "forgotten": count })).into_response()),
        other => Err(unexpected(other)),
    }
}

/// A server that has left may have bindings yet.
fn expect_server(
    hub: &control::world::Hub,
    pool: &str,
    server: &str,
    held: &[(Arc<str>, u64)],
) -> Result<(), ApiError> {
    let view = view(hub, pool)?;
    let mut present = view.standings.iter();
    if present.any(|it| *it.member.name == *server) || held.iter().any(|(it, _)| **it == *server) {
        return Ok(());
    }
    Err(no_server(&view, pool, server))
}

fn learnt(hub: &control::world::Hub, pool: &str) -> Result<Arc<LearntView>, ApiError> {
    let learnt = view(hub, pool)?.learnt.clone();
    learnt.ok_or_else(|| {
        let why = "only `app_cookie` and `mode: learn` of `header` and `source` have a table";
        ApiError::new(404, format!("pool `{pool}` learns nothing: {why}"))
    })
}

fn parse_page(query: Option<&str>) -> Result<Page, String> {
    let mut page = Page::default();
    let parts = query.unwrap_or_default().split('&');
    for part in parts.filter(|part| !part.is_empty()) {
        let number = |text: &str, max| {
            let number = text.parse::<usize>().ok().filter(|number| *number <= max);
            number.ok_or_else(|| format!("`{part}`: a whole number up to {max} is expected"))
        };
        match part.split_once('=') {
            Some(("from", text)) => page.from = number(text, usize::MAX)?,
            Some(("limit", text)) => page.limit = Some(number(text, LIMIT_MAX)?.max(1)),
            Some(("server", text)) => page.server = Some(decode(text)?),
            Some(("value", text)) => page.value = Some(decode(text)?),
            _ => {
                return Err(format!(
                    "unknown parameter `{part}`: `limit=100`, `from=NEXT`, `server=NAME` and `value=TEXT` can be given"
                ));
            }
        }
    }
    Ok(page)
}

fn parse_forget(body: &[u8]) -> Result<Forget, String> {
    let example = r#"such as {"all": true}, {"server": "a"}, {"key": "…"} or {"value": "…"}"#;
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Value::Object(keys) = body else {
        return Err(format!("the body is not an object {example}"));
    };
    let mut keys = keys.iter();
    let (Some((key, value)), None) = (keys.next(), keys.next()) else {
        return Err(format!("one thing is to be forgotten, {example}"));
    };
    match (key.as_str(), value) {
        ("all", Value::Bool(true)) => Ok(Forget::All),
        ("server", Value::String(name)) => Ok(Forget::Server(name.clone())),
        ("value", Value::String(text)) => Ok(Forget::Value(text.clone())),
        ("key", Value::String(key)) => {
            let number = u64::from_str_radix(key, 16);
            let number = number.map_err(|_| format!("`{key}` is not a key as lists show it"))?;
            Ok(Forget::Key(number))
        }
        ("all" | "server" | "value" | "key", _) => {
            Err(format!("`{key}` cannot be {value}: the body is {example}"))
        }
        _ => Err(format!(
            "unknown key `{key}`: `all`, `server`, `key` or `value` can be given"
        )),
    }
}
