//! A service with a health page: a database it cannot do without, and a cache that it can.
//!
//! `cargo run -p evenkeel-readiness --example service`, then `curl -i 127.0.0.1:8081/health`.
//! Ctrl-C: `/health` says `draining` for five seconds, then the service stops.

use axum::{Router, routing::get};
use evenkeel_readiness::{Check, Readiness};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let readiness = Readiness::builder(env!("CARGO_PKG_VERSION"))
        .check("database", || async {
            TcpStream::connect("127.0.0.1:5432").await.map(drop)
        })
        .with(
            Check::new("cache", cache)
                .timeout(Duration::from_millis(200))
                .optional(),
        )
        .build();
    let app = Router::new()
        .route("/", get(|| async { "hello\n" }))
        .merge(readiness.router());

    let listener = TcpListener::bind("127.0.0.1:8081").await?;
    println!("try: curl -i http://{}/health", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                readiness.set_draining(true);
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        })
        .await
}

async fn cache() -> std::io::Result<()> {
    TcpStream::connect("127.0.0.1:6379").await.map(drop)
}
