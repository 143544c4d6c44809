//! `/livez` and `/health` over a real socket, as a prober sees them.

use evenkeel_readiness::{Check, Readiness};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn serve(readiness: &Readiness) -> SocketAddr {
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "hello" }))
        .merge(readiness.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Status and body; the connection is closed by the server.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_and_its_fate() {
    let database = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&database);
    let readiness = Readiness::builder("1.2.3")
        .keep(Duration::ZERO)
        .check("database", move || {
            let up = seen.load(Ordering::Relaxed);
            async move { if up { Ok(()) } else { Err("refused by db-1") } }
        })
        .with(Check::new("cache", || async { Ok::<(), String>(()) }).optional())
        .build();
    let address = serve(&readiness).await;

    assert_eq!(get(address, "/").await, (200, "hello".into()));
    assert_eq!(get(address, "/livez").await, (200, "ok".into()));
    let (code, body) = get(address, "/health").await;
    assert_eq!(code, 200);
    let start = r#"{"status":"healthy","uptime_secs":0,"version":"1.2.3","checks":{"database":{"status":"up","latency_ms":"#;
    assert!(body.starts_with(start), "{body}");

    database.store(false, Ordering::Relaxed);
    let (code, body) = get(address, "/health").await;
    assert_eq!(code, 503);
    assert!(
        body.contains(r#""status":"unhealthy""#) && body.contains(r#""cause":"failed""#),
        "{body}"
    );
    assert!(!body.contains("db-1"), "{body}");

    database.store(true, Ordering::Relaxed);
    readiness.set_draining(true);
    let (code, body) = get(address, "/health").await;
    assert_eq!(code, 503);
    assert!(body.starts_with(r#"{"status":"draining""#), "{body}");
    assert_eq!(get(address, "/livez").await.0, 200, "draining is alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_probers_cost_one_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let readiness = Readiness::builder("1")
        .keep(Duration::from_secs(60))
        .check("database", move || {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<(), String>(())
            }
        })
        .build();
    let address = serve(&readiness).await;
    let probes: Vec<_> = (0..40)
        .map(|_| tokio::spawn(get(address, "/health")))
        .collect();
    for probe in probes {
        assert_eq!(probe.await.unwrap().0, 200);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}
