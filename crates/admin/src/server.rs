//! Serves the router on a socket, within bounds: an admin listener must neither starve nor be starved.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Connections at once; then accepting waits.
const CONNECTIONS_MAX: usize = 256;
/// A request head must be complete, and the next one begun, within this.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Who is connected when serving ends has this long to ask: a request may be on its way.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(1);
/// What is still being answered at the end has this long.
const END_MAX: Duration = Duration::from_secs(2);
/// What the kernel had queued when serving ends is accepted within this.
const SETTLE: Duration = Duration::from_millis(20);
/// After a failed accept, as when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Failures with less than this between them are one trouble, of which is told once when it begins and once when it is
/// over.
const QUIET: Duration = Duration::from_secs(1);

/// The `Server` field of each answer, by which a client knows that it has asked the right one.
pub(crate) const SIGNATURE: &str = "evenkeel";

/// Who asks this listener when it ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nobody: who waits to be accepted is served still.
    Closed,
    /// Another process, which has the socket, and with it those who wait to be accepted.
    HandedOver,
}

/// Serves until `shutdown` ends. Then every connection has one more answer, which says `Connection: close`: those are
/// waited for which are being answered, for two seconds at most, and those which have not asked, for one.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = Ending>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (end, ended) = watch::channel(false);
    let is_ended = ended.clone();
    let router = router.layer(map_response(move |response: Response| {
        let is_ended = *is_ended.borrow();
        std::future::ready(sign(is_ended, response))
    }));
    let ending = tokio::select! {
        () = accept(&listener, &router, &places, &ended) => Ending::Closed,
        ending = shutdown => ending,
    };
    let _ = end.send(true);
    if ending == Ending::Closed {
        let accepting = accept(&listener, &router, &places, &ended);
        let _ = tokio::time::timeout(SETTLE, accepting).await;
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(END_MAX, places.acquire_many(all)).await;
}

/// Says who answers, and whether it is the last time.
fn sign(is_ended: bool, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SIGNATURE));
    if is_ended {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    places: &Arc<Semaphore>,
    ended: &watch::Receiver<bool>,
) {
    let mut trouble: Option<Trouble> = None;
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            lasted = Trouble::over(trouble.as_ref()) => {
                let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(lasted_ms, "the admin listener accepts again");
                trouble = None;
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if trouble.is_none() {
                    tracing::warn!(%error, "the admin listener cannot accept: it goes on trying");
                }
                Trouble::note(&mut trouble);
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

/// Accepts that fail.
struct Trouble {
    since: Instant,
    last: Instant,
}

impl Trouble {
    fn note(trouble: &mut Option<Self>) {
        let now = Instant::now();
        trouble
            .get_or_insert(Self {
                since: now,
                last: now,
            })
            .last = now;
    }

    /// Waits until none has failed for a while; gives how long they did.
    async fn over(trouble: Option<&Self>) -> Duration {
        match trouble {
            Some(Self { since, last }) => {
                tokio::time::sleep_until(*last + QUIET).await;
                last.duration_since(*since)
            }
            None => std::future::pending().await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router, mut ended: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    // What has come is taken in before it is looked whether the time is over.
    tokio::select! {
        biased;
        // How a peer's connection ends is no news of ours.
        _ = &mut serving => return,
        _ = ended.wait_for(|ended| *ended) => {}
    }
    tokio::select! {
        biased;
        _ = &mut serving => return,
        () = tokio::time::sleep(LAST_REQUEST_MAX) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
