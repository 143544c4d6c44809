//! Certificates: which one a client gets, new ones without a restart, and what `check` says of them.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::PKCS_ECDSA_P256_SHA256;
use testkit::{Evenkeel, Origin, Signal, TempDir, curl, missing, program, reply, talk};

use crate::command::{BINARY, evenkeel_in};
use crate::life_support::{SOON, ask, metric, web};
use crate::tls_support::{Authority, Issued, Wants, ask_once, config, shake, shown};

fn text(certificates: &[&str], more: &str, origin: &Origin) -> String {
    let certificates: Vec<_> = certificates
        .iter()
        .map(|name| format!("{{ cert: {name}.pem, key: {name}.key }}"))
        .collect();
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{}]{more} }}
    pool: site
pools:
  site: {{ servers: ['{}'], health_check: off }}
",
        certificates.join(", "),
        origin.address()
    )
}

fn write(folder: &Path, name: &str, issued: &Issued) {
    std::fs::write(folder.join(format!("{name}.pem")), &issued.cert).expect("written");
    let key = folder.join(format!("{name}.key"));
    std::fs::write(&key, &issued.key).expect("written");
    let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(key, only_mine).expect("permissions");
}

fn start(text: &str, certificates: &[(&str, &Issued)], args: &[&str]) -> Evenkeel {
    Evenkeel::start_with(BINARY, text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        for (name, issued) in certificates {
            write(&folder, name, issued);
        }
        command.args(args);
    })
    .expect("evenkeel starts")
}

fn origin() -> Origin {
    Origin::http(|_| reply(200, "well")).expect("an origin")
}

#[test]
fn the_name_that_is_asked_for_decides() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let first = authority.issue(&["first.example", "other.example"]);
    let wild = authority.issue(&["*.wild.example"]);
    let own = authority.issue(&["own.wild.example"]);
    let evenkeel = start(
        &text(&["first", "wild", "own"], "", &origin),
        &[("first", &first), ("wild", &wild), ("own", &own)],
        &[],
    );
    let config = config(&authority, &Wants::default());
    let cases = [
        ("first.example", &first),
        ("other.example", &first),
        ("OTHER.example", &first),
        ("a.wild.example", &wild),
        ("own.wild.example", &own),
    ];
    for (name, expected) in cases {
        let tls = shake(web(&evenkeel), name, &config).expect(name);
        assert_eq!(shown(&tls), expected.der(), "{name}");
    }
    // A wildcard is one label; a name that none bears gets the first, which its client then refuses.
    for name in ["a.b.wild.example", "wild.example", "stranger.example"] {
        let Err(refused) = shake(web(&evenkeel), name, &config) else {
            panic!("{name} is served");
        };
        assert!(
            refused.to_string().contains("not valid for name"),
            "{refused}"
        );
    }
}

#[test]
fn a_client_gets_a_kind_that_it_can_check() {
    if missing("curl") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = origin();
    let (rsa, ecdsa) = (
        authority.issue_rsa(&["a.example"]),
        authority.issue(&["a.example"]),
    );
    let evenkeel = start(
        &text(&["rsa", "ecdsa"], "", &origin),
        &[("rsa", &rsa), ("ecdsa", &ecdsa)],
        &[],
    );
    // Until when they are good is told.
    let expiry = metric(
        &evenkeel,
        "evenkeel_certificate_expiry_seconds{listener=\"web\"",
    );
    assert!(expiry > 2.0 * 4_000_000_000.0, "{expiry}");
    let tls = shake(
        web(&evenkeel),
        "a.example",
        &config(&authority, &Wants::default()),
    );
    assert_eq!(shown(&tls.expect("a session")), ecdsa.der());
    let ca = evenkeel
        .dir()
        .write("ca.pem", &authority.pem)
        .expect("written");
    let port = web(&evenkeel).port();
    for ciphers in [
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ] {
        let answer = curl(&[
            "--cacert",
            &ca.to_string_lossy(),
            "--resolve",
            &format!("a.example:{port}:127.0.0.1"),
            "--tls-max",
            "1.2",
            "--ciphers",
            ciphers,
            &format!("https://a.example:{port}/"),
        ]);
        assert_eq!(answer.expect(ciphers).status, 200);
    }
}

#[test]
fn what_bears_a_name_goes_before_what_does_not() {
    if missing("openssl") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = origin();
    let certificates = [
        ("default", &authority.issue_rsa(&["other.example"])),
        ("exact", &authority.issue(&["a.b.example"])),
        ("wildcard", &authority.issue_rsa(&["*.b.example"])),
    ];
    let evenkeel = start(
        &text(&["default", "exact", "wildcard"], "", &origin),
        &certificates,
        &[],
    );
    let ca = evenkeel.dir().write("ca.pem", &authority.pem);
    let ca = ca.expect("written");
    let rsa: &[&str] = &["-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256"];
    for (version, checks, kind) in [
        ("-tls1_2", rsa, "RSA"),
        ("-tls1_3", rsa, "RSA"),
        ("-tls1_2", &[], "ECDSA"),
        ("-tls1_3", &[], "ECDSA"),
    ] {
        for name in ["a.b.example", "a.b.example.", "A.B.Example."] {
            let mut command = Command::new(program("openssl").expect("openssl"));
            command
                .args(["s_client", "-connect", &web(&evenkeel).to_string()])
                .args(["-servername", name, "-verify_hostname", "a.b.example"])
                .args(["-verify_return_error", "-CAfile"])
                .arg(&ca)
                .arg(version)
                .args(checks);
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
            let said = talk(command, &request, "well", SOON).expect("openssl ends");
            let text = &said.text;
            assert!(said.has("Verify return code: 0 (ok)"), "{name}: {text}");
            let signed = format!("Peer signature type: {kind}");
            assert!(said.has(&signed), "{name}: {text}");
            assert!(said.has("200 Scripted"), "{name}: {text}");
        }
    }
}

#[test]
fn the_lowest_version_holds() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let issued = authority.issue(&["a.example"]);
    let evenkeel = start(
        &text(&["a"], ", min_version: \"1.3\"", &origin),
        &[("a", &issued)],
        &[],
    );
    let old = Wants {
        versions: &[&rustls::version::TLS12],
        ..Wants::default()
    };
    let refused = shake(web(&evenkeel), "a.example", &config(&authority, &old));
    let Err(refused) = refused.map_err(|error| error.to_string()) else {
        panic!("served");
    };
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    shake(
        web(&evenkeel),
        "a.example",
        &config(&authority, &Wants::default()),
    )
    .expect("a session");
}

#[test]
fn new_files_are_served_without_dropping_a_connection_and_bad_ones_change_nothing() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let old = authority.issue(&["a.example"]);
    let mut evenkeel = start(&text(&["a"], "", &origin), &[("a", &old)], &[]);
    // Each time a client that has no session to resume.
    let config = || config(&authority, &Wants::default());
    let address = web(&evenkeel);
    let mut before = shake(address, "a.example", &config()).expect("a session");
    before
        .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .expect("sent");
    let mut first = [0; 12];
    before.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");

    // A key that belongs to another certificate: told, with its place, and nothing changes.
    let stranger = authority.issue(&["a.example"]);
    std::fs::write(evenkeel.dir().path().join("a.key"), &stranger.key).expect("written");
    let refused = ask(&evenkeel, &["reload"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    let said = format!("{}{}", refused.text(), refused.stderr);
    assert!(
        said.contains("does not belong to the certificate"),
        "{said}"
    );
    assert!(said.contains("evenkeel.yaml:5:"), "{said}");
    assert_eq!(
        shown(&shake(address, "a.example", &config()).expect("a session")),
        old.der()
    );

    // Both files: taken up, though the config says what it said before.
    write(evenkeel.dir().path(), "a", &stranger);
    let mark = evenkeel.mark();
    evenkeel.signal(Signal::HUP).expect("a signal");
    let told = evenkeel
        .wait_log_after(mark, "reloaded", SOON)
        .expect("reloaded");
    assert!(told.contains("1 listener changed"), "{told}");
    assert_eq!(
        shown(&shake(address, "a.example", &config()).expect("a session")),
        stranger.der()
    );
    let answer = ask_once(&mut before, "a.example").expect("the old connection serves on");
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
}

#[test]
fn with_watch_a_new_certificate_is_taken_up_by_itself() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let (old, new) = (
        authority.issue(&["a.example"]),
        authority.issue(&["a.example"]),
    );
    let mut evenkeel = start(&text(&["a"], "", &origin), &[("a", &old)], &["--watch"]);
    // Each time a client that has no session to resume.
    let config = || config(&authority, &Wants::default());
    let address = web(&evenkeel);
    assert_eq!(
        shown(&shake(address, "a.example", &config()).expect("a session")),
        old.der()
    );
    let mark = evenkeel.mark();
    // Beside them first, as whoever renews certificates does: then one rename after the other.
    write(evenkeel.dir().path(), "new", &new);
    for end in ["key", "pem"] {
        let folder = evenkeel.dir().path();
        std::fs::rename(
            folder.join(format!("new.{end}")),
            folder.join(format!("a.{end}")),
        )
        .expect("renamed");
    }
    evenkeel
        .wait_log_after(mark, "reloaded", SOON)
        .expect("reloaded");
    assert_eq!(
        shown(&shake(address, "a.example", &config()).expect("a session")),
        new.der()
    );
}

#[test]
fn check_reads_certificates_and_keys() {
    let authority = Authority::new("the authority");
    let origin = origin();
    let (good, other) = (
        authority.issue(&["a.example"]),
        authority.issue(&["a.example"]),
    );
    let check = |issued: &Issued, key_mode: u32| {
        let dir = TempDir::new("check").expect("a folder");
        dir.write("evenkeel.yaml", text(&["a"], "", &origin))
            .expect("written");
        issued.write(&dir, "a");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(key_mode);
        std::fs::set_permissions(dir.path().join("a.key"), mode).expect("permissions");
        let finished = evenkeel_in(dir.path(), &["check"]);
        (finished.code, finished.stderr)
    };
    let (code, said) = check(&good, 0o600);
    assert_eq!((code, said.contains("warning")), (Some(0), false), "{said}");

    let (code, said) = check(&good, 0o644);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("5:") && said.contains("can be read by every user"),
        "{said}"
    );

    let (code, said) = check(&authority.issue_expired(&["a.example"]), 0o600);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("warning[certificate]") && said.contains("expired"),
        "{said}"
    );

    let mixed = Issued {
        cert: good.cert.clone(),
        key: other.key.clone(),
    };
    let (code, said) = check(&mixed, 0o600);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("does not belong to the certificate in `./a.pem`"),
        "{said}"
    );

    let empty = Issued {
        cert: "nothing\n".to_owned(),
        key: good.key.clone(),
    };
    let (code, said) = check(&empty, 0o600);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("there is no certificate (PEM) in `"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_comes_near_its_end_is_told_of_without_a_reload() {
    let authority = Authority::new("the authority");
    let origin = origin();
    // Two weeks before it is told of, which is in a moment.
    let until = SystemTime::now() + Duration::from_secs(14 * 24 * 3600 + 5);
    let issued = authority.issue_with(&["a.example"], &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = until.into();
    });
    let mut evenkeel = start(&text(&["a"], "", &origin), &[("a", &issued)], &[]);
    let told = evenkeel
        .wait_log("certificate: it expires soon", SOON)
        .expect("told");
    assert!(told.contains("a.pem") && told.contains("13"), "{told}");
}
