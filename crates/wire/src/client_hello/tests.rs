//! Messages built here, cut into pieces and records, and damaged.

use proptest::prelude::*;

use super::*;

fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8][..], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

fn name_extension(name: &str) -> Vec<u8> {
    let entry = [&[NAME_HOST][..], &vector16(name.as_bytes())].concat();
    extension(EXTENSION_SERVER_NAME, &vector16(&entry))
}

fn alpn_extension(names: &[&str]) -> Vec<u8> {
    let names: Vec<u8> = names
        .iter()
        .flat_map(|name| vector8(name.as_bytes()))
        .collect();
    extension(EXTENSION_ALPN, &vector16(&names))
}

/// The whole message, without records.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector8(&[1; 32]),
        &vector16(&[0x13, 0x01]),
        &vector8(&[0]),
        &vector16(&extensions.concat()),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    [&[MESSAGE_CLIENT_HELLO][..], &length[1..], &body].concat()
}

/// In records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[CONTENT_HANDSHAKE, 3, 1][..], &vector16(part)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn hello(name: Option<&str>, alpn: &[&str]) -> ClientHello {
    ClientHello {
        server_name: name.map(str::to_owned),
        alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
    }
}

#[test]
fn what_is_asked_for_is_read() {
    let check = |extensions: &[Vec<u8>], expected: ClientHello| {
        let bytes = records(&message(extensions), 1 << 14);
        assert_eq!(ClientHello::decode(&bytes), Ok(Decoded::Complete(expected)));
    };
    check(&[], hello(None, &[]));
    check(
        &[name_extension("A.Example.")],
        hello(Some("a.example"), &[]),
    );
    check(
        &[
            extension(43, &[2, 3, 4]),
            alpn_extension(&["h2", "http/1.1"]),
            name_extension("b"),
        ],
        hello(Some("b"), &["h2", "http/1.1"]),
    );
}

#[test]
fn what_is_none_is_told() {
    let check = |bytes: &[u8], expected| {
        assert_eq!(ClientHello::decode(bytes), Err(expected), "{bytes:?}");
    };
    check(b"GET / HTTP/1.1", ClientHelloError::NotTls);
    check(&[22, 9], ClientHelloError::NotTls);
    check(&[22, 3, 1, 0, 0], ClientHelloError::Malformed);
    check(&[22, 3, 1, 0xff, 0xff], ClientHelloError::Malformed);
    // Another message than a client's first.
    check(&records(&[2, 0, 0, 0], 4), ClientHelloError::Malformed);
    check(&records(&[1, 1, 0, 0], 4), ClientHelloError::TooLong);
    // Something else in the middle of it.
    let begun = records(&message(&[])[..20], 20);
    check(
        &[&begun[..], &[21, 3, 1, 0, 2, 1, 0]].concat(),
        ClientHelloError::Malformed,
    );
    let many = records(&[&[1, 0, 0x40, 0][..], &[0; 60]].concat(), 1);
    let endless: Vec<u8> = many.iter().copied().chain(records(&[0; 9000], 1)).collect();
    check(&endless, ClientHelloError::TooLong);
    for wrong in [
        vec![name_extension("a"), name_extension("a")],
        vec![alpn_extension(&["a"]), alpn_extension(&["a"])],
        vec![name_extension("")],
        vec![name_extension("a b")],
        vec![name_extension("a\0")],
        vec![alpn_extension(&[])],
        vec![alpn_extension(&[""])],
        vec![extension(EXTENSION_SERVER_NAME, &[])],
        vec![extension(EXTENSION_ALPN, &[0, 9, 1])],
        vec![vec![0, 0, 0, 9]],
    ] {
        check(
            &records(&message(&wrong), 1 << 14),
            ClientHelloError::Malformed,
        );
    }
}

proptest! {
    /// However it is cut into records, and however much of it has come.
    #[test]
    fn pieces(size in 1_usize..600, name in "[a-z]{1,20}", more in 0_usize..700) {
        let padding = extension(21, &vec![0; more]);
        let bytes = records(&message(&[padding, name_extension(&name), alpn_extension(&["x"])]), size);
        for at in 0..bytes.len() {
            prop_assert_eq!(ClientHello::decode(&bytes[..at]), Ok(Decoded::Incomplete));
        }
        // What follows is not looked at.
        let longer = [&bytes[..], b"more"].concat();
        for whole in [bytes, longer] {
            let found = ClientHello::decode(&whole);
            prop_assert_eq!(found, Ok(Decoded::Complete(hello(Some(&name), &["x"]))));
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ClientHello::decode(&bytes);
        let _ = ClientHello::decode(&records(&bytes, 50));
    }

    #[test]
    fn any_damage(at in 0_usize..200, to in any::<u8>()) {
        let mut bytes = records(&message(&[name_extension("a.example"), alpn_extension(&["h2"])]), 40);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        let _ = ClientHello::decode(&bytes);
    }
}
