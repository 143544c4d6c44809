//! `/livez` and `/health`: what a supervisor and another balancer look at.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use control::world::Phase;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Admin, Shared, shape};

#[derive(Serialize)]
struct Report {
    status: &'static str,
    uptime_secs: u64,
    version: &'static str,
    checks: Map<String, Value>,
}

/// 200 for as long as the process answers at all.
pub(crate) async fn livez() -> &'static str {
    "ok"
}

/// 503 only while starting or draining: one bad pool must not take the balancer out.
pub(crate) async fn health(State(admin): Shared) -> Response {
    let phase = admin.hub.phase();
    let report = report(&admin, phase);
    let status = match phase {
        Phase::Running => StatusCode::OK,
        Phase::Starting | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report)).into_response()
}

fn report(admin: &Arc<Admin>, phase: Phase) -> Report {
    let mut checks = Map::new();
    checks.insert("config".to_owned(), json!({ "status": "up" }));
    let away = admin.hub.crew.iter().filter(|load| load.is_away()).count();
    checks.insert(
        "workers".to_owned(),
        json!({
            "status": if away == 0 { "up" } else { "down" },
            "workers": admin.hub.worker_count,
            "away": away,
        }),
    );
    let mut all_up = away == 0;
    let world = admin.hub.world();
    let pools =
        shape::pools(&world).flat_map(|(_, pool, parts)| std::iter::once(pool).chain(parts));
    for pool in pools {
        let view = pool.view();
        let usable = shape::usable(&view);
        all_up &= usable > 0;
        checks.insert(
            format!("pool:{}", pool.shown()),
            json!({
                "status": if usable > 0 { "up" } else { "down" },
                "servers": view.standings.len(),
                "usable": usable,
            }),
        );
    }
    Report {
        status: match phase {
            Phase::Starting => "starting",
            Phase::Draining => "draining",
            Phase::Running if all_up => "healthy",
            Phase::Running => "degraded",
        },
        uptime_secs: admin.started.elapsed().as_secs(),
        version: admin.version,
        checks,
    }
}
