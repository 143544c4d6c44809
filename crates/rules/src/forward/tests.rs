//! Whom to believe: tables of trusted and untrusted peers.

use proptest::prelude::*;

use super::*;
use crate::testing::sample;

fn trusted() -> Vec<Cidr> {
    ["10.0.0.0/8", "2001:db8::/32"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect()
}

fn check_source(peer: &str, values: &[&str], expected: &str) {
    let got = source(
        peer.parse().unwrap(),
        &trusted(),
        values.iter().map(|value| value.as_bytes()),
    );
    assert_eq!(
        got,
        expected.parse::<IpAddr>().unwrap(),
        "{peer} {values:?}"
    );
}

#[test]
fn sources() {
    check_source("192.0.2.9", &["198.51.100.1"], "192.0.2.9");
    check_source("10.0.0.1", &[], "10.0.0.1");
    check_source("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
    check_source("10.0.0.1", &["203.0.113.7, 198.51.100.1"], "198.51.100.1");
    check_source(
        "10.0.0.1",
        &["198.51.100.1, 10.0.0.2,10.0.0.3"],
        "198.51.100.1",
    );
    check_source("10.0.0.1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1");
    check_source("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
    check_source("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2");
    check_source("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1");
    check_source("10.0.0.1", &["198.51.100.1, , 10.0.0.2,"], "198.51.100.1");
    check_source("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1");
    check_source("10.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1");
    check_source("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1");
    check_source("2001:db8::1", &["2001:db9::1, 2001:db8::2"], "2001:db9::1");
    check_source("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1");
    check_source("10.0.0.1", &["198.51.100.1:x"], "10.0.0.1");
    check_source("10.0.0.1", &["[::1]x"], "10.0.0.1");
    check_source("10.0.0.1", &["\u{ff}"], "10.0.0.1");
}

#[test]
fn request_ids() {
    for (id, expected) in [
        ("a", true),
        ("A-z_0.9", true),
        ("", false),
        ("a b", false),
        ("a\"", false),
        ("\u{e9}", false),
    ] {
        assert_eq!(is_request_id(id.as_bytes()), expected, "{id}");
    }
    assert!(is_request_id(&[b'a'; 128]) && !is_request_id(&[b'a'; 129]));
}

const INCOMING: [&str; 8] = [
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-For: 198.51.100.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: out.test",
    "X-Real-IP: 203.0.113.7",
    "X-Request-ID: abc-1",
    "Forwarded: for=203.0.113.7",
    "Via: 1.1 edge",
];

const ALL: Options = Options {
    x_forwarded: true,
    forwarded: true,
    via: true,
    request_id: RequestId::Keep,
};

/// What a server gets of the forwarding fields: those that pass, then those that are written.
fn check(options: &Options, trusted: bool, incoming: &[&str], expected: &[&str]) {
    let sample = sample("GET a.test:8080/", incoming);
    let (head, bytes) = (&sample.head, &sample.bytes);
    let plan = Plan::new(options, trusted, head, bytes);
    let mut out = Vec::new();
    for field in head
        .fields
        .iter()
        .filter(|field| field.known != Known::Host && !plan.drop.contains(field.known))
    {
        out.extend_from_slice(field.name.of(bytes));
        out.extend_from_slice(b": ");
        push_field(b"", field.value.of(bytes), &mut out);
    }
    let peer = "192.0.2.10".parse().unwrap();
    let hop = Hop {
        peer,
        secure: false,
        version: "1.1",
        authority: b"a.test:8080",
        request_id: b"new",
    };
    plan.encode(&hop, head, bytes, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.split_terminator("\r\n").collect::<Vec<_>>(), expected);
}

#[test]
fn untrusted_peers_are_not_believed() {
    let set = [
        "X-Forwarded-For: 192.0.2.10",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: a.test:8080",
        "X-Request-ID: new",
    ];
    check(&Options::default(), false, &INCOMING, &set);
    check(&Options::default(), false, &[], &set);
    let more = [
        "Forwarded: for=192.0.2.10;host=\"a.test:8080\";proto=http",
        "Via: 1.1 evenkeel",
    ];
    check(&ALL, false, &INCOMING, &[set.as_slice(), &more].concat());
    let off = Options {
        x_forwarded: false,
        forwarded: false,
        via: false,
        request_id: RequestId::Off,
    };
    check(&off, false, &INCOMING, &[]);
}

#[test]
fn trusted_peers_are_appended_to() {
    let kept = [
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: out.test",
        "X-Real-IP: 203.0.113.7",
        "X-Request-ID: abc-1",
    ];
    let lists = ["Forwarded: for=203.0.113.7", "Via: 1.1 edge"];
    let appended = ["X-Forwarded-For: 203.0.113.7, 198.51.100.1, 192.0.2.10"];
    check(
        &Options::default(),
        true,
        &INCOMING,
        &[kept.as_slice(), &lists, &appended].concat(),
    );
    let lists = [
        "Forwarded: for=203.0.113.7, for=192.0.2.10;host=\"a.test:8080\";proto=http",
        "Via: 1.1 edge, 1.1 evenkeel",
    ];
    check(
        &ALL,
        true,
        &INCOMING,
        &[kept.as_slice(), &appended, &lists].concat(),
    );
    let off = Options {
        x_forwarded: false,
        forwarded: false,
        via: false,
        request_id: RequestId::Off,
    };
    let without_id: Vec<&str> = INCOMING
        .into_iter()
        .filter(|line| !line.starts_with("X-Request-ID"))
        .collect();
    check(&off, true, &INCOMING, &without_id);
}

#[test]
fn doubtful_ids_are_replaced() {
    let options = Options {
        x_forwarded: false,
        ..Options::default()
    };
    check(
        &options,
        true,
        &["X-Request-ID: a b"],
        &["X-Request-ID: new"],
    );
    check(
        &options,
        true,
        &["X-Request-ID: a", "X-Request-ID: b"],
        &["X-Request-ID: new"],
    );
    check(&options, true, &["X-Request-ID: a"], &["X-Request-ID: a"]);
    check(
        &options,
        false,
        &["X-Request-ID: a"],
        &["X-Request-ID: new"],
    );
    let replace = Options {
        request_id: RequestId::Replace,
        ..options
    };
    check(&replace, true, &["X-Request-ID: a"], &["X-Request-ID: new"]);
}

#[test]
fn ipv6_in_forwarded_is_quoted() {
    let sample = sample("GET a/", &[]);
    let options = Options {
        x_forwarded: false,
        forwarded: true,
        via: false,
        request_id: RequestId::Off,
    };
    let plan = Plan::new(&options, false, &sample.head, &sample.bytes);
    let peer = "2001:db8::1".parse().unwrap();
    let hop = Hop {
        peer,
        secure: true,
        version: "1.0",
        authority: b"",
        request_id: b"",
    };
    let mut out = Vec::new();
    plan.encode(&hop, &sample.head, &sample.bytes, &mut out);
    assert_eq!(out, b"Forwarded: for=\"[2001:db8::1]\";proto=https\r\n");
}

proptest! {
    #[test]
    fn addresses_are_written_as_std_does(octets in any::<[u8; 4]>()) {
        let address = Ipv4Addr::from(octets);
        let mut out = Vec::new();
        push_ipv4(address, &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
    }

    #[test]
    fn sources_never_panic(value in prop::collection::vec(any::<u8>(), 0..64)) {
        source("10.0.0.1".parse().unwrap(), &trusted(), std::iter::once(value.as_slice()));
    }
}
