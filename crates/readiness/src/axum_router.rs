//! The two paths as an axum router. Everything that they say comes from `Readiness::report`.

use crate::Readiness;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

impl Readiness {
    /// `GET /livez` and `GET /health`, to be merged into the service's own router.
    ///
    /// `/livez` is 200 `ok` for as long as the process answers at all, draining or not: it is what
    /// a supervisor looks at before it restarts something. `/health` is what a balancer looks at
    /// before it sends traffic.
    pub fn router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let readiness = self.clone();
        let health = move || async move { health(&readiness).await };
        Router::new()
            .route("/livez", get(livez))
            .route("/health", get(health))
    }
}

async fn livez() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], "ok")
}

async fn health(readiness: &Readiness) -> impl IntoResponse + use<> {
    let report = readiness.report().await;
    let code =
        StatusCode::from_u16(report.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (code, headers, report.to_json())
}
