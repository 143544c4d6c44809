//! Each action comes to one event; what probes find is tested beside them.

use std::time::Duration;

use config::{HealthCheck, InitialHealth};
use control::live::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::probe::tests::no_tls;

#[tokio::test]
async fn each_probe_and_look_up_is_reported_once_and_the_rest_is_given_back() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let report: Report = Arc::new(move |event| sender.send(event).unwrap());
    let agents = Agents::new(Handle::current(), Resolver::system(), no_tls(), report);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = Probe {
        member: 7,
        number: 9,
        endpoint: Endpoint::Ip(listener.local_addr().unwrap()),
        host: None,
        check: Arc::new(HealthCheck {
            probe: config::Probe::Tcp,
            tls: None,
            http: config::ServerHttp::Http1,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            initial: InitialHealth::Unknown,
        }),
    };
    assert!(agents.perform(Action::Probe(probe)).is_none());
    let event = events.recv().await.unwrap();
    let expected = Event::Probed {
        member: 7,
        probe: 9,
        outcome: Outcome::Success,
    };
    assert_eq!(format!("{event:?}"), format!("{expected:?}"));

    assert!(
        agents
            .perform(Action::Resolve("127.0.0.9".into()))
            .is_none()
    );
    let event = format!("{:?}", events.recv().await.unwrap());
    assert!(event.contains("Ok(([127.0.0.9]"), "{event}");

    assert!(matches!(
        agents.perform(Action::Cut(3)),
        Some(Action::Cut(3))
    ));
}

#[test]
fn what_is_given_up_is_reported_too() {
    let (sender, events) = std::sync::mpsc::channel();
    let report: Report = Arc::new(move |event| sender.send(event).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let agents = Agents::new(
        runtime.handle().clone(),
        Resolver::system(),
        no_tls(),
        report,
    );
    agents.perform(Action::Resolve("example.test".into()));
    drop(runtime);
    let event = format!("{:?}", events.try_recv().unwrap());
    assert!(event.contains("the look-up was given up"), "{event}");
    assert!(events.try_recv().is_err());
}
