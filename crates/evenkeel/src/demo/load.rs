//! A gentle load of the demo's own: a few clients that keep their connections, never retry, and count honestly.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use control::world::{Hub, Phase};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use super::server::SERVER;
use super::stats::{Outcome, Stats};
use super::story::Story;

const CLIENTS: u32 = 12;
/// Of each client: 60 requests a second together.
const PAUSE: Duration = Duration::from_millis(200);
/// For one request, connecting included.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The running load.
pub(super) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    hub: Arc<Hub>,
    story: Arc<Story>,
    stop: AtomicBool,
    stats: Mutex<Stats>,
}

impl Load {
    /// Begins to ask.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn start(address: SocketAddr, hub: Arc<Hub>, story: Arc<Story>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            address,
            hub,
            story,
            stop: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let clients = shared.clone();
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || runtime.block_on(run(clients)))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What was seen so far.
    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.shared.stats()
    }

    /// Lets each client finish what it asked, and ends.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more is to be asked: a balancer that ends owes newcomers no answer.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.hub.phase() == Phase::Draining
    }

    fn record(&self, outcome: &Outcome, took: Duration) {
        self.stats().record(self.story.now(), outcome, took);
        if let Outcome::Failed(why) = outcome {
            self.story.tell(&format!("FAILED: {why}"));
        }
    }
}

async fn run(shared: Arc<Shared>) {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(shared.clone(), PAUSE / CLIENTS * number)))
        .collect();
    for client in clients {
        // A panic there has been told already.
        let _ = client.await;
    }
}

async fn client(shared: Arc<Shared>, delay: Duration) {
    let mut ticks = interval_at(tokio::time::Instant::now() + delay, PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = None;
    loop {
        ticks.tick().await;
        if shared.is_over() {
            return;
        }
        let began = Instant::now();
        let outcome = match timeout(ANSWER_MAX, ask(&mut kept, shared.address)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(error),
            Err(_) => Outcome::Failed(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        if matches!(outcome, Outcome::Failed(_)) {
            kept = None;
        }
        shared.record(&outcome, began.elapsed());
    }
}

type Sender = SendRequest<Empty<Bytes>>;

/// One request, on the connection that was kept if it is still there.
async fn ask(kept: &mut Option<Sender>, address: SocketAddr) -> Result<Outcome, String> {
    let mut sender = match still_open(kept.take()).await {
        Some(sender) => sender,
        None => connect(address).await?,
    };
    let request = Request::get("/")
        .header(HOST, address.to_string())
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(in_words)?;
    let (head, body) = response.into_parts();
    body.collect().await.map_err(in_words)?;
    *kept = Some(sender);
    Ok(judge(&Response::from_parts(head, ())))
}

async fn still_open(kept: Option<Sender>) -> Option<Sender> {
    let mut sender = kept?;
    sender.ready().await.ok().map(|()| sender)
}

async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(in_words)?;
    // Its end shows at the next request.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn in_words(error: hyper::Error) -> String {
    format!("no whole answer: {error}")
}

fn judge(response: &Response<()>) -> Outcome {
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok()
    };
    let status = response.status();
    match text(SERVER.as_str()) {
        Some(server) if status.is_success() => Outcome::Served(server.into()),
        Some(server) if status.as_u16() == 500 => Outcome::OnPurpose(server.into()),
        _ => Outcome::Failed(format!(
            "{status} {}",
            text("x-evenkeel-reason").unwrap_or("from nobody of ours")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, headers: &[(&str, &str)], expected: Outcome) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        assert_eq!(judge(&response.body(()).expect("a response")), expected);
    }

    #[test]
    fn only_a_servers_own_error_is_no_failure() {
        check(
            200,
            &[("x-server", "server-1")],
            Outcome::Served("server-1".into()),
        );
        check(
            500,
            &[("x-server", "server-1")],
            Outcome::OnPurpose("server-1".into()),
        );
        check(
            503,
            &[("x-evenkeel-reason", "no_usable_server")],
            Outcome::Failed("503 Service Unavailable no_usable_server".to_owned()),
        );
        check(
            200,
            &[],
            Outcome::Failed("200 OK from nobody of ours".to_owned()),
        );
    }
}
