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

#[test]
fn only_a_socket_that_nobody_listens_on_gives_way() {
    let folder = std::env::temp_dir().join(format!("evenkeel-sockets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let kind = |path: &str| open_unix(path).map_err(|error| error.kind()).map(drop);

    let stale = path("stale");
    drop(open_unix(&stale).unwrap());
    assert_eq!(kind(&stale), Ok(()));

    // One whose queue is full is somebody's, and is not waited for.
    let busy = path("busy");
    let address = SockAddr::unix(&busy).unwrap();
    let stream = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let listens = stream();
    listens.bind(&address).unwrap();
    listens.listen(0).unwrap();
    assert_eq!(kind(&busy), Err(io::ErrorKind::AddrInUse));
    let mut waiting = Vec::new();
    loop {
        let client = stream();
        client.set_nonblocking(true).unwrap();
        if client.connect(&address).is_err() {
            break;
        }
        waiting.push(client);
    }
    assert_eq!(kind(&busy), Err(io::ErrorKind::AddrInUse));

    let file = path("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(kind(&file), Err(io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    std::fs::remove_dir_all(folder).unwrap();
}
