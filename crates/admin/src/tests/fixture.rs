//! A hub, the publisher behind it, and the router in front of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use config::{Loaded, Severity};
use control::message::{Answer, Command, Message, Reply};
use control::publisher::{Action, Publisher};
use control::world::{Hub, Phase, World};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::{AdminState, router, serve};

/// Two pools; nobody probes, so that what is unknown stays so.
pub(super) const MAIN: &str = r#"
listeners:
  web:
    bind: "127.0.0.1:0"
    routes:
      - { name: api, match: { path: /api/* }, pool: api }
      - { name: both, match: { path: /both }, split: { api: 90, site: 10 } }
      - { name: gone, match: { path: /gone }, filters: [{ respond: { status: 410 } }] }
      - pool: site
  pg:
    bind: "127.0.0.1:0"
    protocol: tcp
    tls: { certificates: [{ cert: cert.pem, key: key.pem }], acme: { domains: [new.example, none.example], store: store } }
    pool: site
pools:
  api:
    balance: least_connections
    health_check: off
    servers:
      - { name: a, address: "10.0.0.1:80", weight: 2, max_connections: 100 }
      - { name: "b<&\"c", address: "10.0.0.2:80", max_connections: 50 }
  site: { servers: ["10.0.1.1:80", "unix:/run/site.sock"], affinity: { source: learn } }
"#;

struct Text(String);

impl config::Source for Text {
    fn read(&self, path: &str) -> Result<String, String> {
        Ok(match path {
            "cert.pem" => include_str!("../../../config/src/tests/tls/cert.pem").to_owned(),
            "key.pem" => include_str!("../../../config/src/tests/tls/key.pem").to_owned(),
            _ => self.0.clone(),
        })
    }
    fn glob(&self, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
    fn resolves(&self, _: &str) -> Option<bool> {
        None
    }
}

fn load(text: &str) -> Loaded {
    config::load("main.yaml", &Text(text.to_owned()))
}

pub(super) struct Fixture {
    pub(super) hub: Arc<Hub>,
    pub(super) address: SocketAddr,
    /// What the next reload reads.
    pub(super) file: Arc<Mutex<String>>,
}

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    #[track_caller]
    pub(super) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Fixture {
    pub(super) async fn new(text: &str) -> Self {
        let mut publisher = Publisher::new(2, 1);
        let snapshot = load(text).snapshot.unwrap();
        let (world, _) = publisher.apply(Arc::new(snapshot), Duration::ZERO);
        publisher.measure(Duration::ZERO);
        let (sender, messages) = mpsc::unbounded_channel();
        let send = Box::new(move |message| sender.send(message).unwrap());
        let hub = Arc::new(Hub::new(world, 2, Duration::from_secs(1_700_000_000), send));
        hub.memory.set_max(Some(1 << 30), 2);
        hub.set_phase(Phase::Running);
        let file = Arc::new(Mutex::new(text.to_owned()));
        tokio::spawn(publish(publisher, messages, hub.clone(), file.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = AdminState {
            hub: hub.clone(),
            token: None,
            bind: address,
            version: "0.1.0",
            started: Instant::now(),
            addresses: Arc::new(Mutex::new(vec![(
                "web".into(),
                "127.0.0.1:8080".to_owned(),
            )])),
            explain: Box::new(|world, asked, addresses, _| match asked.request.as_str() {
                "wrong" => Err("is no request".to_owned()),
                request => Ok(serde_json::json!({
                    "generation": world.generation,
                    "request": request,
                    "headers": asked.headers,
                    "from": asked.from,
                    "web": addresses[0].1,
                })),
            }),
        };
        tokio::spawn(serve(listener, router(state), std::future::pending()));
        Self { hub, address, file }
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        self.send(
            &format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", self.address),
            "",
        )
        .await
    }

    /// A write with everything that a write needs.
    pub(super) async fn write(&self, request: &str, body: &str) -> Answered {
        let head = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n",
            body.len()
        );
        self.send(&head, body).await
    }

    pub(super) async fn send(&self, head: &str, body: &str) -> Answered {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}connection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answered {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}

/// The loop that the binary has, without probes and sockets.
async fn publish(
    mut publisher: Publisher,
    mut messages: mpsc::UnboundedReceiver<Message>,
    hub: Arc<Hub>,
    file: Arc<Mutex<String>>,
) {
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        let message = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => Some(message),
                None => return,
            },
            _ = tick.tick() => None,
        };
        let now = began.elapsed();
        match message {
            None | Some(Message::WorkerEnded) => {}
            Some(Message::Event(event)) => publisher.handle_event(event, now),
            Some(Message::Command(command, reply)) => {
                match (publisher.objection(&command), command) {
                    (Some(why), _) => reply(Answer::NeedsForce(why)),
                    (None, command) => obey(&mut publisher, command, reply, now, (&*hub, &*file)),
                }
            }
        }
        publisher.handle_timeout(now);
        while let Some(action) = publisher.poll_action() {
            if let Action::Reply(reply, answer) = action {
                reply(answer);
            }
        }
    }
}

fn obey(
    publisher: &mut Publisher,
    command: Command,
    reply: Reply,
    now: Duration,
    (hub, file): (&Hub, &Mutex<String>),
) {
    match command {
        Command::Set {
            pool,
            server,
            state,
            weight,
            ..
        } => publisher.handle_set(&pool, &server, state, weight, reply, now),
        Command::Drain {
            pool,
            server,
            timeout,
            ..
        } => publisher.handle_drain(&pool, &server, timeout, reply, now),
        Command::DrainWait { pool, server } => {
            publisher.handle_drain_wait(&pool, &server, reply);
        }
        Command::Drill {
            pool,
            server,
            length,
            ..
        } => publisher.handle_drill(&pool, &server, length, reply, now),
        Command::Forget { pool, what } => publisher.handle_forget(&pool, &what, reply, now),
        Command::Reload => {
            let loaded = load(&file.lock().unwrap());
            reply(reload(publisher, loaded, now, hub));
        }
        Command::Upgrade { binary, .. } => reply(match binary {
            Some(binary) => Answer::Refused(vec![format!("{binary}: no")]),
            None => Answer::Upgraded {
                pid: 7,
                version: "9".to_owned(),
            },
        }),
    }
}

fn reload(publisher: &mut Publisher, loaded: Loaded, now: Duration, hub: &Hub) -> Answer {
    let errors = loaded.diagnostics.iter();
    let errors = errors.filter(|diagnostic| diagnostic.severity == Severity::Error);
    let errors: Vec<String> = errors
        .map(|diagnostic| diagnostic.message.clone())
        .collect();
    match loaded.snapshot {
        None => Answer::Refused(errors),
        Some(snapshot) => {
            let (world, changes): (Arc<World>, _) = publisher.apply(Arc::new(snapshot), now);
            hub.set_world(world);
            Answer::Reloaded(changes)
        }
    }
}
