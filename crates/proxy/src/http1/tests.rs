//! What a connection costs while it is idle.

use std::sync::Arc;

use control::publisher::Publisher;
use control::world::Hub;

use super::*;
use crate::listener::Place;

/// An idle connection's future, beside its socket's entry and its deadline.
const IDLE_BYTES_MAX: usize = 256;

struct Text(&'static str);

impl config::Source for Text {
    fn read(&self, _: &str) -> Result<String, String> {
        Ok(self.0.to_owned())
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

#[test]
fn an_idle_connection_is_small() {
    let text = "listeners: { web: { bind: '127.0.0.1:0', pool: p } }\npools: { p: { servers: ['127.0.0.1:1'] } }\n";
    let snapshot = config::load("test.yaml", &Text(text))
        .snapshot
        .expect("a valid config");
    let (world, _) = Publisher::new(1, 1).apply(Arc::new(snapshot), Duration::ZERO);
    let state = world.listeners.first().expect("one listener").clone();
    let hub = Arc::new(Hub::new(world, 1, Duration::ZERO, Box::new(drop)));
    let worker = Worker::new(0, hub, Arc::default(), 1, None);
    let listening = Rc::new(Listening::new("web".into(), state, 0));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let socket = std::net::TcpStream::connect(address).expect("it listens");
    let stream = Stream::from(net::Stream::from_std(socket));
    let place = Place::take(&listening, 1).expect("there is room");
    worker.hub.crew.of(worker.number).claim();
    let open = Open::new(&worker, place);
    let future = serve(worker, listening, stream, None, None, open);
    let bytes = std::mem::size_of_val(&future);
    assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes");
}
