//! Serves the router on a socket, within bounds: an admin listener must neither starve nor be starved.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at once; then accepting waits.
const CONNECTIONS_MAX: usize = 256;
/// A request head must be complete, and the next one begun, within this.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// What is still being answered at the end has this long.
const END_MAX: Duration = Duration::from_secs(1);
/// After a failed accept, as when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` ends, then finishes what is being answered, for a second at most.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (end, ended) = watch::channel(false);
    tokio::select! {
        () = accept(&listener, &router, &places, &ended) => {}
        () = shutdown => {}
    }
    drop(listener);
    let _ = end.send(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(END_MAX, places.acquire_many(all)).await;
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    places: &Arc<Semaphore>,
    ended: &watch::Receiver<bool>,
) {
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, ended) = (router.clone(), ended.clone());
        tokio::spawn(async move {
            connection(stream, router, ended).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, router: Router, mut ended: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        // How a peer's connection ends is no news of ours.
        _ = &mut serving => return,
        _ = ended.wait_for(|ended| *ended) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
