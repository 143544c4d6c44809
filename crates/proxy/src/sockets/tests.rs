//! Which sockets are adopted, and who polls them.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use super::*;

#[test]
fn every_socket_is_polled_and_every_worker_polls() {
    for count in 1..20 {
        for workers in 1..20 {
            let each: Vec<Vec<usize>> = (0..workers)
                .map(|worker| polled(count, worker, workers).collect())
                .collect();
            let all: BTreeSet<usize> = each.iter().flatten().copied().collect();
            assert_eq!(all.len(), count, "{count} sockets, {workers} workers");
            assert!(each.iter().all(|sockets| !sockets.is_empty()));
            assert!(count < workers || each.iter().flatten().count() == count);
        }
    }
}

#[test]
fn a_foreign_socket_is_known_by_the_address_that_it_has() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let mut inherited = Inherited::default();
    inherited.insert_foreign(OwnedFd::from(tcp)).unwrap();
    assert!(inherited.has_port(address.port()));
    let bind = |dual_stack| Bind::Tcp {
        address,
        dual_stack,
        listener: None,
    };
    assert!(inherited.take(&bind(true)).is_none());
    assert_eq!(inherited.left(), BTreeSet::from([bind(false)]));
    let handed = inherited.take(&bind(false)).unwrap();
    assert!(inherited.left().is_empty());
    let (_, shown, port) = adopt(&bind(false), handed).unwrap();
    assert_eq!((shown, port), (address.to_string(), Some(address.port())));
}

#[test]
fn what_does_not_listen_is_not_adopted() {
    let mut inherited = Inherited::default();
    let socket = socket("127.0.0.1:0".parse().unwrap(), false, false).unwrap();
    let why = inherited.insert_foreign(socket.into()).unwrap_err();
    assert!(why.to_string().contains("does not listen"), "{why}");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let why = inherited.insert_foreign(udp.into()).unwrap_err();
    assert!(why.to_string().contains("stream"), "{why}");
}
