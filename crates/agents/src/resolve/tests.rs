//! Look-ups against a name server of our own and files of our own; no other is asked.

use std::net::SocketAddr;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use tokio::net::UdpSocket;

use super::*;

const HOSTS: &str = "127.0.0.1 localhost\n# 10.0.0.9 commented\n10.0.0.1\tdb DB.internal # the database\n\
                     ::5 db\n10.0.0.1 db\nnonsense db\n";

/// A name server for `api.test` (two A records, TTL 60 and 20, one AAAA), `four.test` (A only) and nothing else.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 512];
        while let Ok((_, peer)) = socket.recv_from(&mut packet).await {
            let _ = socket.send_to(&answer(&packet), peer).await;
        }
    });
    address
}

/// RFC 1035 §4: header, the question repeated, answers that point at its name.
fn answer(packet: &[u8]) -> Vec<u8> {
    let mut end = 12;
    let mut name = String::new();
    while packet[end] != 0 {
        let length = usize::from(packet[end]);
        name.push_str(
            &String::from_utf8_lossy(&packet[end + 1..=end + length]).to_ascii_lowercase(),
        );
        name.push('.');
        end += length + 1;
    }
    let question = &packet[12..end + 5];
    let (v4, known): (bool, bool) = (
        packet[end + 2] == 1,
        name == "api.test." || name == "four.test.",
    );
    let records: Vec<(u32, Vec<u8>)> = match (&*name, v4) {
        ("api.test.", true) => vec![(60, vec![10, 0, 0, 1]), (20, vec![10, 0, 0, 2])],
        ("api.test.", false) => vec![(60, [vec![0; 15], vec![7]].concat())],
        ("four.test.", true) => vec![(5, vec![10, 0, 0, 4])],
        _ => Vec::new(),
    };
    let mut out = packet[..2].to_vec();
    out.extend([
        0x81,
        if known { 0x80 } else { 0x83 },
        0,
        1,
        0,
        records.len() as u8,
        0,
        0,
        0,
        0,
    ]);
    out.extend(question);
    for (ttl, data) in records {
        out.extend([0xc0, 12, 0, if v4 { 1 } else { 28 }, 0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend([0, data.len() as u8]);
        out.extend(data);
    }
    out
}

fn resolver(server: SocketAddr) -> Resolver {
    let mut name_server = NameServerConfig::udp(server.ip());
    name_server.connections = vec![{
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        connection
    }];
    let servers = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
    let mut options = ResolverOpts::default();
    options.timeout = Duration::from_millis(300);
    options.attempts = 1;
    Resolver {
        hosts: PathBuf::from("/nonexistent"),
        servers: Servers::Given(build(servers, options).unwrap()),
    }
}

#[tokio::test]
async fn both_families_are_asked_and_the_shortest_ttl_holds() {
    let resolver = resolver(name_server().await);
    let (mut addresses, ttl) = resolver.resolve("api.test").await.unwrap();
    addresses.sort();
    let expected = ["10.0.0.1", "10.0.0.2", "::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(addresses, expected);
    assert_eq!(ttl, Duration::from_secs(20));
    let (addresses, ttl) = resolver.resolve("four.test").await.unwrap();
    assert_eq!(addresses, ["10.0.0.4".parse::<IpAddr>().unwrap()]);
    assert_eq!(ttl, Duration::from_secs(5));
}

#[tokio::test]
async fn what_cannot_be_found_says_why() {
    let server = name_server().await;
    assert_eq!(
        resolver(server).resolve("nothing.test").await.unwrap_err(),
        "no such name"
    );
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let error = resolver(silent.local_addr().unwrap())
        .resolve("api.test")
        .await
        .unwrap_err();
    assert_eq!(error, "no answer from the name servers");
}

#[tokio::test]
async fn loopback_names_and_addresses_ask_nobody() {
    let nobody = resolver("127.0.0.1:9".parse().unwrap());
    let loopback = ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    for name in ["localhost", "LOCALHOST.", "db.localhost"] {
        assert_eq!(nobody.resolve(name).await.unwrap().0, loopback, "{name}");
    }
    assert_eq!(
        nobody.resolve("10.1.2.3").await.unwrap().0,
        ["10.1.2.3".parse::<IpAddr>().unwrap()]
    );
}

#[tokio::test]
async fn the_systems_files_are_read_anew_each_time() {
    let folder = std::env::temp_dir().join(format!("evenkeel-resolve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let resolver = Resolver {
        hosts: folder.join("hosts"),
        servers: Servers::System {
            path: folder.join("resolv.conf"),
            built: Mutex::new(None),
        },
    };
    let error = resolver.resolve("db").await.unwrap_err();
    assert!(error.contains("resolv.conf: No such file"), "{error}");
    std::fs::write(folder.join("hosts"), HOSTS).unwrap();
    assert_eq!(resolver.resolve("db").await.unwrap().0.len(), 2);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_hosts_file_is_read_by_line_and_word() {
    for (name, expected) in [
        ("localhost", &["127.0.0.1"][..]),
        ("db", &["10.0.0.1", "::5"]),
        ("Db.Internal.", &["10.0.0.1"]),
        ("commented", &[]),
        ("the", &[]),
    ] {
        let found: Vec<String> = in_hosts(HOSTS, name)
            .iter()
            .map(IpAddr::to_string)
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}
