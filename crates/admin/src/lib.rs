//! What an operator sees and says: the REST API, metrics, the plain table, and the client that the command line uses.
//!
//! It reads live state from `control` and sends commands to the publisher; it changes nothing itself, and knows neither
//! the data plane nor the probes. Everything here runs beside traffic.
#![forbid(unsafe_code)]

mod affinity;
mod api;
mod carried;
mod certificates;
pub mod client;
mod error;
mod guard;
mod health;
mod ledger;
pub mod metrics;
mod page;
mod process;
mod server;
mod shape;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use control::world::{Hub, World};
use serde_json::Value;

pub use carried::Totals;
pub use client::Client;
pub use server::{Ending, serve};

use carried::Carried;
use error::ApiError;
use guard::Guard;
use ledger::Ledger;

/// The addresses that each listener really has, port 0 resolved: listener name and address. The binary sets them after
/// each config that is taken up.
pub type Addresses = Arc<Mutex<Vec<(Arc<str>, String)>>>;

/// What `POST /api/v1/explain` asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRequest {
    /// `GET http://host/path`, as the command line takes it.
    pub request: String,
    /// `name: value`.
    pub headers: Vec<String>,
    /// The peer that the request is to come from.
    pub from: IpAddr,
    /// The certificate that its client shows, as PEM, with those that lead to its authority.
    pub client_cert: Option<String>,
}

/// Says what would become of a request now: the world, the request, where listeners really listen, and the time since
/// the start. It looks at live state and changes none. An error is what is wrong with the request.
pub type Explain = Box<
    dyn Fn(&World, &ExplainRequest, &[(Arc<str>, String)], Duration) -> Result<Value, String>
        + Send
        + Sync,
>;

/// What the admin room needs to know.
pub struct AdminState {
    /// The world, and the way to the publisher.
    pub hub: Arc<Hub>,
    /// What is asked for away from loopback. Without one nothing but `/livez` and `/health` is served there.
    pub token: Option<String>,
    /// The address that was really bound: what a `Host` may say.
    pub bind: SocketAddr,
    /// Of the binary.
    pub version: &'static str,
    /// When the process began.
    pub started: Instant,
    /// Where listeners really listen.
    pub addresses: Addresses,
    /// What would become of a request.
    pub explain: Explain,
}

/// What every handler shares.
struct Admin {
    hub: Arc<Hub>,
    guard: Guard,
    version: &'static str,
    started: Instant,
    addresses: Addresses,
    explain: Explain,
    ledger: Mutex<Ledger>,
    carried: Mutex<Carried>,
}

type Shared = State<Arc<Admin>>;

/// What is shown, beside the listener that shows it: it is there whether or not anybody listens.
#[derive(Clone)]
pub struct Console(Arc<Admin>);

impl Console {
    /// A console of this process.
    #[must_use]
    pub fn new(state: AdminState) -> Self {
        Self(Arc::new(Admin {
            hub: state.hub,
            guard: Guard::new(state.bind, state.token),
            version: state.version,
            started: state.started,
            addresses: state.addresses,
            explain: state.explain,
            ledger: Mutex::new(Ledger::default()),
            carried: Mutex::new(Carried::default()),
        }))
    }

    /// Every path of the admin listener, behind its guards.
    pub fn router(&self) -> Router {
        routes(self.0.clone())
    }

    /// Every total by its series, what was carried over included.
    #[must_use]
    pub fn totals(&self) -> Totals {
        metrics::totals(&self.0)
    }

    /// The same; from here on `/metrics` shows what it showed at this moment, until [`Console::thaw`]. What the next
    /// process begins with has then not been passed here.
    #[must_use]
    pub fn freeze(&self) -> Totals {
        metrics::freeze(&self.0)
    }

    /// Ends what [`Console::freeze`] began.
    pub fn thaw(&self) {
        metrics::thaw(&self.0);
    }

    /// What servers hold now, by the series that shows it.
    #[must_use]
    pub fn active(&self) -> Totals {
        metrics::active(&self.0)
    }

    /// What the process before this one has counted is added to every total from now on, in place of what was given
    /// before; what its servers hold to what they hold here.
    pub fn carry(&self, totals: Totals) {
        metrics::carry(&self.0, totals);
    }

    /// The process before this one is gone: its servers hold nothing there.
    pub fn forget_active(&self) {
        metrics::forget_active(&self.0);
    }
}

/// Every path of the admin listener, behind its guards.
pub fn router(state: AdminState) -> Router {
    Console::new(state).router()
}

fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/livez", get(health::livez))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/listeners", get(api::listeners))
        .route("/api/v1/routes", get(api::routes))
        .route("/api/v1/certificates", get(api::certificates))
        .route("/api/v1/pools", get(api::pools))
        .route("/api/v1/pools/{pool}/servers", get(api::servers))
        .route("/api/v1/pools/{pool}/servers/{server}", get(api::server))
        .route("/api/v1/pools/{pool}/servers/{server}", patch(api::set))
        .route(
            "/api/v1/pools/{pool}/servers/{server}/drain",
            post(api::drain),
        )
        .route(
            "/api/v1/pools/{pool}/servers/{server}/drain/wait",
            post(api::drain_wait),
        )
        .route(
            "/api/v1/pools/{pool}/servers/{server}/drill",
            post(api::drill),
        )
        .route("/api/v1/pools/{pool}/affinity", get(affinity::show))
        .route(
            "/api/v1/pools/{pool}/affinity/forget",
            post(affinity::forget),
        )
        .route("/api/v1/explain", post(api::explain))
        .route("/api/v1/reload", get(api::last_reload).post(api::reload))
        .route("/api/v1/upgrade", post(api::upgrade))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(nothing_here)
        .layer(from_fn_with_state(admin.clone(), guarded))
        .with_state(admin)
}

async fn guarded(State(admin): Shared, request: Request, next: Next) -> Response {
    let mut response = match admin.guard.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

async fn method_not_allowed(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::new(405, format!("{method} is not for {path}"))
}

async fn nothing_here(request: Request) -> ApiError {
    let path = request.uri().path();
    ApiError::new(
        404,
        format!(
            "nothing at {path}; there are /, /livez, /health, /metrics, /api/v1/listeners, /api/v1/routes, \
             /api/v1/certificates, /api/v1/pools, /api/v1/pools/POOL/servers, /api/v1/pools/POOL/servers/SERVER (also PATCH), \
             POST /api/v1/pools/POOL/servers/SERVER/drain and …/drill, /api/v1/pools/POOL/affinity, \
             POST /api/v1/pools/POOL/affinity/forget, POST /api/v1/explain, /api/v1/reload (also POST) and \
             POST /api/v1/upgrade"
        ),
    )
}
