//! What openssl and GnuTLS say of a listener: versions, resumption, client certificates, stapling, and what is refused.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Evenkeel, Origin, Talk, TempDir, missing, program, reply, talk};

use crate::command::{BINARY, evenkeel_in};
use crate::life_support::{ask, metric, web};
use crate::tls_support::{Authority, Issued};

const LIMIT: Duration = Duration::from_secs(20);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn text(certificate: &str, tls: &str, origin: &Origin) -> String {
    format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: a.pem, key: a.key{certificate} }}]{tls} }}
    pool: site
pools:
  site: {{ servers: ['{}'], health_check: off }}
",
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

fn start(text: &str, issued: &Issued, files: &[(&str, &[u8])]) -> Evenkeel {
    Evenkeel::start_with(BINARY, text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        write(&folder, "a", issued);
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).expect("written");
        }
    })
    .expect("evenkeel starts")
}

fn origin() -> Origin {
    Origin::http(|_| reply(200, "all is well")).expect("an origin")
}

/// `openssl s_client` to `web`, run in the folder of its config, up to this text.
fn s_client(evenkeel: &Evenkeel, args: &[&str], says: &str, until: &str) -> Talk {
    let mut command = Command::new(program("openssl").expect("openssl"));
    let address = web(evenkeel).to_string();
    command
        .current_dir(evenkeel.dir().path())
        .args(["s_client", "-connect", &address, "-servername", "a.example"])
        .args(["-CAfile", "ca.pem", "-verify_return_error"])
        .args(["-verify_hostname", "a.example"])
        .args(args);
    talk(command, says, until, LIMIT).expect("openssl ends")
}

#[test]
fn openssl_verifies_agrees_on_http_and_resumes() {
    if missing("openssl") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = origin();
    let evenkeel = start(
        &text("", "", &origin),
        &authority.issue(&["a.example"]),
        &[("ca.pem", authority.pem.as_bytes())],
    );
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let first = [version, "-alpn", "http/1.1", "-sess_out", "session"];
        let said = s_client(&evenkeel, &first, REQUEST, "all is well");
        assert_eq!(said.code, Some(0), "{}", said.text);
        for part in [
            &format!("New, {name}"),
            "Verify return code: 0 (ok)",
            "ALPN protocol: http/1.1",
            "all is well",
        ] {
            assert!(said.has(part), "{part}: {}", said.text);
        }
        let again = [version, "-sess_in", "session"];
        let said = s_client(&evenkeel, &again, REQUEST, "all is well");
        assert!(said.has(&format!("Reused, {name}")), "{}", said.text);
        assert!(said.has("all is well"), "{}", said.text);
    }
    // Five times more, each by the session of the one before.
    let said = s_client(
        &evenkeel,
        &["-tls1_2", "-reconnect"],
        REQUEST,
        "all is well",
    );
    assert_eq!(
        said.text.matches("Reused, TLSv1.2").count(),
        5,
        "{}",
        said.text
    );
    // Nothing that is not spoken here is agreed upon.
    let said = s_client(&evenkeel, &["-alpn", "imap"], REQUEST, "alert");
    assert!(said.has("no application protocol"), "{}", said.text);
}

#[test]
fn old_versions_and_renegotiation_are_refused() {
    if missing("openssl") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = origin();
    let evenkeel = start(
        &text("", "", &origin),
        &authority.issue_rsa(&["a.example"]),
        &[("ca.pem", authority.pem.as_bytes())],
    );
    for version in ["-tls1", "-tls1_1"] {
        let old = [version, "-cipher", "ALL:@SECLEVEL=0"];
        let said = s_client(&evenkeel, &old, REQUEST, "alert");
        let refused = said.has("alert protocol version") || said.has("alert handshake failure");
        assert!(refused && said.has("Cipher is (NONE)"), "{}", said.text);
    }
    let failed = metric(
        &evenkeel,
        "evenkeel_errors_total{reason=\"handshake_failed\"}",
    );
    assert_eq!(failed, 2.0);
    // `R` has it ask for another handshake on the same connection.
    let said = s_client(&evenkeel, &["-tls1_2"], "R\n", "no renegotiation");
    assert!(said.has("RENEGOTIATING"), "{}", said.text);
    assert!(said.has("no renegotiation"), "{}", said.text);
    for weak in ["NULL", "RC4", "3DES", "EXPORT", "aNULL", "kRSA", "SHA1"] {
        let ciphers = format!("{weak}:@SECLEVEL=0");
        let said = s_client(
            &evenkeel,
            &["-tls1_2", "-cipher", &ciphers],
            REQUEST,
            "alert",
        );
        assert!(!said.has("all is well"), "{weak}: {}", said.text);
    }
}

#[test]
fn a_client_certificate_is_asked_for_and_verified() {
    if missing("openssl") || missing("gnutls-cli") {
        return;
    }
    let (authority, clients) = (
        Authority::new("the authority"),
        Authority::new("of clients"),
    );
    let (known, stranger) = (
        clients.issue_for_client("known"),
        authority.issue_for_client("stranger"),
    );
    let origin = origin();
    let evenkeel = start(
        &text("", ", client_ca: clients.pem", &origin),
        &authority.issue(&["a.example"]),
        &[
            ("ca.pem", authority.pem.as_bytes()),
            ("clients.pem", clients.pem.as_bytes()),
        ],
    );
    write(evenkeel.dir().path(), "known", &known);
    write(evenkeel.dir().path(), "stranger", &stranger);
    for version in ["-tls1_2", "-tls1_3"] {
        let shows = |name: &str| {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            let args = [version, "-cert", &cert, "-key", &key];
            s_client(&evenkeel, &args, REQUEST, "all is well")
        };
        let said = shows("known");
        assert!(said.has("all is well"), "{}", said.text);
        // Whose certificates are believed is told, so that a client can choose.
        assert!(
            said.has("Acceptable client certificate CA names"),
            "{}",
            said.text
        );
        assert!(said.has("of clients"), "{}", said.text);
        assert!(!shows("stranger").has("all is well"));
        let said = s_client(&evenkeel, &[version], REQUEST, "alert");
        assert!(said.has("alert"), "{}", said.text);
        assert!(!said.has("all is well"), "{}", said.text);
    }
    let shows = ["--x509certfile", "known.pem", "--x509keyfile", "known.key"];
    let said = gnutls(&evenkeel, &shows, "NORMAL");
    assert!(said.has("all is well"), "{}", said.text);
    assert_eq!(origin.requests(), 3);
}

/// `gnutls-cli` to `web`, as [`s_client`].
fn gnutls(evenkeel: &Evenkeel, args: &[&str], priority: &str) -> Talk {
    let mut command = Command::new(program("gnutls-cli").expect("gnutls-cli"));
    let address = web(evenkeel);
    command
        .current_dir(evenkeel.dir().path())
        .args(["-p", &address.port().to_string(), "--x509cafile", "ca.pem"])
        .args([
            "--sni-hostname",
            "a.example",
            "--verify-hostname",
            "a.example",
        ])
        .args(["--priority", priority])
        .args(args)
        .arg(address.ip().to_string());
    talk(command, REQUEST, "all is well", LIMIT).expect("gnutls-cli ends")
}

#[test]
fn gnutls_verifies_and_resumes() {
    if missing("gnutls-cli") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = origin();
    let evenkeel = start(
        &text("", "", &origin),
        &authority.issue(&["a.example"]),
        &[("ca.pem", authority.pem.as_bytes())],
    );
    for (versions, name) in [
        ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS1.2"),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLS1.3"),
    ] {
        let said = gnutls(&evenkeel, &["--alpn", "http/1.1"], versions);
        for part in [name, "The certificate is trusted", "all is well"] {
            assert!(said.has(part), "{part}: {}", said.text);
        }
    }
    let said = gnutls(&evenkeel, &["--resume"], "NORMAL:-VERS-ALL:+VERS-TLS1.2");
    assert!(said.has("This is a resumed session"), "{}", said.text);
    let said = gnutls(&evenkeel, &[], "NORMAL:-VERS-ALL:+VERS-TLS1.1");
    assert!(!said.has("all is well"), "{}", said.text);
}

/// The authority's answer on a certificate, as DER; `state` is `V` (good) or `R` (revoked), `minutes` how long it holds.
fn ocsp(authority: &Authority, issued: &Issued, state: char, minutes: u32) -> Vec<u8> {
    let dir = TempDir::new("ocsp").expect("a folder");
    issued.write(&dir, "leaf");
    for (name, text) in [("ca.pem", &authority.pem), ("ca.key", &authority.key)] {
        dir.write(name, text).expect("written");
    }
    let run = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(dir.path()).args(args);
        let finished = testkit::run(command, LIMIT).expect("openssl runs");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.text()
    };
    let serial = run(&["x509", "-in", "leaf.pem", "-noout", "-serial"]);
    let (_, serial) = serial.trim().split_once('=').expect("a serial number");
    let revoked = if state == 'R' { "200101000000Z" } else { "" };
    let index = format!("{state}\t21000101000000Z\t{revoked}\t{serial}\tunknown\t/CN=a\n");
    dir.write("index", index).expect("written");
    let minutes = minutes.to_string();
    run(&[
        "ocsp",
        "-index",
        "index",
        "-CA",
        "ca.pem",
        "-rsigner",
        "ca.pem",
        "-rkey",
        "ca.key",
        "-issuer",
        "ca.pem",
        "-cert",
        "leaf.pem",
        "-nmin",
        &minutes,
        "-no_nonce",
        "-respout",
        "answer",
    ]);
    std::fs::read(dir.path().join("answer")).expect("an answer")
}

#[test]
fn the_authoritys_answer_is_stapled_and_one_of_another_certificate_is_not() {
    if missing("openssl") {
        return;
    }
    let authority = Authority::new("the authority");
    let origin = origin();
    let (own, other) = (
        authority.issue(&["a.example"]),
        authority.issue(&["a.example"]),
    );
    let (good, wrong) = (
        ocsp(&authority, &own, 'V', 60),
        ocsp(&authority, &other, 'V', 60),
    );
    let evenkeel = start(
        &text(", ocsp: a.ocsp", "", &origin),
        &own,
        &[("ca.pem", authority.pem.as_bytes()), ("a.ocsp", &good)],
    );
    let stapled = || {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(&evenkeel, &["-status", version], REQUEST, "all is well");
            assert!(said.has("all is well"), "{}", said.text);
            // openssl says what it thinks of the answer by the authority's key.
            let is_good =
                said.has("OCSP Response Status: successful") && said.has("Cert Status: good");
            assert!(
                is_good != said.has("OCSP response: no response sent"),
                "{}",
                said.text
            );
            if version == "-tls1_3" {
                return is_good;
            }
        }
        false
    };
    assert!(stapled());
    let put = |answer: &[u8]| {
        std::fs::write(evenkeel.dir().path().join("a.ocsp"), answer).expect("written");
        let reloaded = ask(&evenkeel, &["reload"]);
        assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
        evenkeel_in(evenkeel.dir().path(), &["check"]).stderr
    };
    let said = put(&wrong);
    assert!(
        said.contains("evenkeel.yaml:5:") && said.contains("is about another certificate"),
        "{said}"
    );
    assert!(!stapled());
    assert!(put(&ocsp(&authority, &own, 'R', 60)).contains("the certificate is revoked"));
    assert!(!stapled());
    assert_eq!(put(&ocsp(&authority, &own, 'V', 60)), "");
    assert!(stapled());
}
