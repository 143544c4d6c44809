//! Automatic certificates from a real authority: asked for, shown, kept, renewed and shared.

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use testkit::{Evenkeel, Port, curl, wait_until};

use crate::command::{BINARY, evenkeel_in};
use crate::life_support::{SOON, admin_get, ask, list, metric, reload};
use crate::tls_acme_support::{ORDERED, Scene, Stage, believer, mode, status, wait_shown};
use crate::tls_support::{Wants, ask_once, believing, shake, shown};
use crate::upgrade::upgrade;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn issued(evenkeel: &Evenkeel) -> f64 {
    let text = admin_get(evenkeel, "/metrics");
    let lines = text.lines().filter(|line| {
        line.starts_with("evenkeel_acme_orders_total{") && line.contains("result=\"issued\"")
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

#[test]
fn curl_is_served_with_a_certificate_that_http_01_has_got_and_a_restart_asks_nothing() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let config = scene.config(
        &scene.acme(&["a.example"], ", email: admin@example.org"),
        "",
    );
    let mut evenkeel = scene.start(&config);
    let client = believer(&pebble);
    let first = wait_shown(&evenkeel, scene.tls, "a.example", &client);

    scene
        .dir
        .write("root.pem", pebble.root().expect("a root"))
        .expect("written");
    let root = scene.path("root.pem").display().to_string();
    let port = scene.tls.port();
    let args = [
        "--cacert",
        &root,
        "--resolve",
        &format!("a.example:{port}:127.0.0.1"),
        &format!("https://a.example:{port}/"),
    ];
    let answer = curl(&args).expect("an answer");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "from the server")
    );

    // The token was asked for here, and is not answered any more.
    assert!(
        metric(
            &evenkeel,
            "evenkeel_errors_total{reason=\"acme_challenge\"}"
        ) >= 1.0
    );
    let challenges = scene.folder().join("challenges");
    wait_until("no answer is pending", SOON, || {
        std::fs::read_dir(&challenges).expect("a folder").count() == 0
    })
    .expect("removed");
    let stale = curl(&[&format!(
        "http://{}/.well-known/acme-challenge/x",
        scene.http
    )]);
    assert_eq!(stale.expect("an answer").text(), "from the server");

    // Nobody else can read it; what is said of it is true.
    for file in ["a.example.pem", "account.json"] {
        assert_eq!(mode(&scene.folder().join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&scene.folder()), 0o700);
    let shown_status = status(&evenkeel, "a.example");
    assert_eq!(shown_status["state"], "valid");
    assert_eq!(shown_status["listeners"][0], "web");
    let file = scene.file("a.example").display().to_string();
    let expiry = format!("evenkeel_certificate_expiry_seconds{{listener=\"web\",file=\"{file}\"}}");
    assert!(metric(&evenkeel, &expiry) > 1e9);
    assert_eq!(issued(&evenkeel), 1.0);
    let table = ask(&evenkeel, &["status"]).text();
    assert!(
        table.contains("a.example") && table.contains("valid"),
        "{table}"
    );

    // The authority is gone, and nobody needs it.
    evenkeel.stop(SOON).expect("it ends");
    pebble.end();
    let evenkeel = scene.start(&config);
    assert_eq!(
        wait_shown(&evenkeel, scene.tls, "a.example", &client),
        first
    );
    assert_eq!(status(&evenkeel, "a.example")["failures"], 0);
    assert!(!evenkeel.log_contains("asked for"), "{}", evenkeel.log());
}

#[test]
fn tls_alpn_01_needs_no_plain_listener_and_asks_the_authority_for_no_certificate() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let acme = scene.acme(&["a.example", "B.Example."], ", challenge: tls-alpn-01");
    // Whoever is no authority has to show one.
    let config = scene.config(&acme, ", client_ca: ca.pem, client_auth: required");
    let evenkeel = Evenkeel::start_with(BINARY, &config, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("ca.pem"), &scene.ca.pem).expect("written");
    })
    .expect("evenkeel starts");
    for name in ["a.example", "b.example"] {
        let valid = || status(&evenkeel, name)["state"] == "valid";
        wait_until(&format!("{name} is valid"), ORDERED, valid)
            .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    }
    drop(pebble);
}

#[test]
fn one_that_ends_soon_is_renewed_while_its_connections_go_on() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    // Somebody else's, and nine tenths of its life are over.
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
    let now = std::time::SystemTime::now();
    params.not_before = (now - DAY * 90).into();
    params.not_after = (now + DAY).into();
    let key = KeyPair::generate().expect("a key");
    let old = params.self_signed(&key).expect("a certificate");
    std::fs::create_dir_all(scene.folder()).expect("a folder");
    let pem = format!("{}{}", key.serialize_pem(), old.pem());
    std::fs::write(scene.file("a.example"), pem).expect("written");

    let config = scene.config(&scene.acme(&["a.example"], ""), "");
    let evenkeel = scene.start(&config);
    let trusting = believing(&old.pem(), &Wants::default());
    let mut open = shake(scene.tls, "a.example", &trusting).expect("the old one is shown");
    assert_eq!(shown(&open), *old.der());
    let new = wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
    assert_ne!(new, *old.der());
    let answer = ask_once(&mut open, "a.example").expect("an answer");
    assert!(answer.contains("from the server"), "{answer}");
    wait_until("it is counted", SOON, || issued(&evenkeel) == 1.0).expect("once");
}

#[test]
fn instances_that_share_a_store_ask_once_and_answer_for_one_another() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let names = ["a.example", "b.example", "c.example"];
    let ports = [(); 4].map(|()| Port::reserve().expect("a port"));
    let [a, b, c, d] = ports.each_ref().map(Port::address);
    let start = |http, secure| {
        let acme = scene.acme(&names, "");
        scene.start(&scene.config_at(http, secure, &acme, ""))
    };
    let (both, plain) = ([start(a, b), start(c, d)], [a, c]);
    // The authority meets either of them, by turns.
    let front = scene.start(&format!(
        "admin: off
listeners:
  front: {{ bind: '{}', protocol: tcp, pool: both }}
pools:
  both: {{ balance: round_robin, servers: {}, health_check: off }}
",
        scene.http,
        list(&plain)
    ));
    let client = believer(&pebble);
    for name in names {
        let shown = both.each_ref().map(|evenkeel| {
            let address = evenkeel.address("web").expect("an address");
            wait_shown(evenkeel, address, name, &client)
        });
        assert_eq!(shown[0], shown[1], "{name}");
    }
    let sum: f64 = both.iter().map(issued).sum();
    assert_eq!(
        sum,
        names.len() as f64,
        "{}\n{}",
        both[0].log(),
        both[1].log()
    );
    drop(front);
}

#[test]
fn a_reload_adds_and_removes_names_and_an_upgrade_keeps_all() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let config = |names: &[&str]| scene.config(&scene.acme(names, ""), "");
    let mut evenkeel = scene.start(&config(&["a.example"]));
    let client = believer(&pebble);
    let first = wait_shown(&evenkeel, scene.tls, "a.example", &client);
    reload(&evenkeel, &config(&["a.example", "b.example"]));
    wait_shown(&evenkeel, scene.tls, "b.example", &client);
    assert_eq!(
        wait_shown(&evenkeel, scene.tls, "a.example", &client),
        first
    );

    reload(&evenkeel, &config(&["b.example"]));
    let second = wait_shown(&evenkeel, scene.tls, "b.example", &client);
    // The name is nobody's now: the first of those that are left is shown, which does not bear it.
    assert!(shake(scene.tls, "a.example", &client).is_err());
    assert_eq!(issued(&evenkeel), 2.0);

    pebble.end();
    let _next = upgrade(&mut evenkeel, &[]);
    assert_eq!(
        wait_shown(&evenkeel, scene.tls, "b.example", &client),
        second
    );
    // That of the name which is nobody's is gone.
    wait_until("the totals go on", SOON, || issued(&evenkeel) >= 1.0).expect("no total fell");
    assert_eq!(status(&evenkeel, "b.example")["failures"], 0);
}

#[test]
fn names_come_from_the_routes_and_files_go_before() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let acme = format!(
        "directory: '{}', ca: '{}', store: store",
        scene.directory,
        scene.path("ca.pem").display()
    );
    let own = scene.ca.issue(&["own.example"]);
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  plain: {{ bind: '{}', pool: site }}
  web:
    bind: '{}'
    tls: {{ certificates: [{{ cert: own.pem, key: own.key }}], acme: {{ {acme} }} }}
    routes:
      - {{ match: {{ host: [a.example, own.example] }}, pool: site }}
      - {{ match: {{ host: B.example }}, pool: site }}
      - {{ pool: site }}
pools:
  site: {{ servers: {}, health_check: off }}
",
        scene.http,
        scene.tls,
        list(&[scene.origin.address()])
    );
    let evenkeel = Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("own.pem"), &own.cert).expect("written");
        std::fs::write(folder.join("own.key"), &own.key).expect("written");
    })
    .expect("evenkeel starts");
    let client = believer(&pebble);
    for name in ["a.example", "b.example"] {
        wait_shown(&evenkeel, scene.tls, name, &client);
    }
    assert_eq!(issued(&evenkeel), 2.0);
    let owner = believing(&scene.ca.pem, &Wants::default());
    let tls = shake(scene.tls, "own.example", &owner).expect("a handshake");
    assert_eq!(shown(&tls), own.der());
}

#[test]
fn a_request_belongs_where_the_certificate_that_was_issued_bears_its_host() {
    let Some(stage) = Stage::new() else { return };
    let (pebble, scene) = stage.authority("");
    let acme = scene.acme(&["a.example", "b.example"], "");
    let evenkeel = scene.start(&scene.config(&acme, ", misdirected: refuse"));
    let client = believer(&pebble);
    for name in ["a.example", "b.example"] {
        wait_shown(&evenkeel, scene.tls, name, &client);
    }
    // An address is asked for without a name.
    let ask = |asked: &str, host: &str| {
        let port = scene.tls.port();
        let resolved = format!("{asked}:{port}:127.0.0.1");
        let (url, host) = (format!("https://{asked}:{port}/"), format!("Host: {host}"));
        let answer = curl(&["-k", "--resolve", &resolved, "-H", &host, &url]);
        answer.expect("an answer").status
    };
    let of_both = |asked: &str| ["a.example", "b.example"].map(|host| ask(asked, host));
    assert_eq!(of_both("a.example"), [200, 421]);
    assert_eq!(of_both("b.example"), [421, 200]);
    assert_eq!(of_both("127.0.0.1"), [200, 421], "the first is shown");
    assert_eq!(of_both("nobody.example"), [200, 421]);

    // One from a file bears every name there, and is shown to nobody who asks for a name of the authority's.
    let wide = scene.ca.issue(&["*.example"]);
    let folder = evenkeel.dir();
    wide.write(folder, "wide");
    let files = ", misdirected: refuse, certificates: [{ cert: wide.pem, key: wide.key }]";
    reload(&evenkeel, &scene.config(&acme, files));
    assert_eq!(of_both("a.example"), [200, 421]);
    assert_eq!(of_both("127.0.0.1"), [200, 200]);
    assert_eq!(ask("c.example", "b.example"), 200);
    assert_eq!(ask("a.example", "c.example"), 421);
}

#[test]
fn check_says_what_would_be_asked_for_and_asks_nobody() {
    let Some(stage) = Stage::new() else { return };
    let (port, scene) = stage.split();
    drop(port);
    let config = scene.config(&scene.acme(&["a.example"], ""), "");
    let file = scene.dir.write("evenkeel.yaml", config).expect("written");
    let file = file.display().to_string();
    let checked = evenkeel_in(scene.dir.path(), &["check", &file]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let text = checked.text();
    assert!(text.contains("http-01"), "{text}");
    assert!(text.contains("a.example  would be asked for"), "{text}");
    assert!(!scene.store().exists());
}

/// Halfway through its life, by an authority that says who it is.
fn half_over(name: &str) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(params, KeyPair::generate().expect("a key"));
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let now = std::time::SystemTime::now();
    params.not_before = (now - DAY * 45).into();
    params.not_after = (now + DAY * 45).into();
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    let made = params.signed_by(&key, &issuer).expect("a certificate");
    (key.serialize_pem(), made.pem())
}

/// An instance before Pebble that says what Pebble does not: when certificates should be renewed.
fn with_renewal_info(scene: &Scene, at: SocketAddr, pebble: SocketAddr) -> Evenkeel {
    let url = |path: &str| format!("\"https://{at}/{path}\"");
    let directory = format!(
        r#"{{ "newNonce": {}, "newAccount": {}, "newOrder": {}, "renewalInfo": {} }}"#,
        url("nonce-plz"),
        url("sign-me-up"),
        url("order-plz"),
        url("renewal")
    );
    let window = r#"{ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } }"#;
    let text = format!(
        "admin: {{ bind: '127.0.0.1:0' }}
listeners:
  web:
    bind: '{at}'
    tls: {{ certificates: [{{ cert: it.pem, key: it.key }}] }}
    routes:
      - {{ match: {{ path: /dir }}, filters: [{{ respond: {{ body: '{directory}' }} }}] }}
      - name: renewal
        match: {{ path: /renewal/* }}
        filters: [{{ respond: {{ body: '{window}', headers: {{ retry-after: '21600' }} }} }}]
      - {{ pool: pebble }}
pools:
  pebble: {{ servers: ['{pebble}'], tls: {{ ca: '{}' }}, health_check: off }}
",
        scene.path("ca.pem").display()
    );
    Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        std::fs::write(folder.join("it.pem"), &scene.issued.cert).expect("written");
        std::fs::write(folder.join("it.key"), &scene.issued.key).expect("written");
    })
    .expect("the front starts")
}

#[test]
fn one_is_renewed_when_the_authority_says_so_and_not_over_and_over() {
    let Some(stage) = Stage::new() else { return };
    let (port, scene) = stage.split();
    let behind = Port::reserve().expect("a port");
    let front = with_renewal_info(&scene, port.address(), behind.address());
    let pebble = scene.pebble_on(behind, "", 0);
    let (key, old) = half_over("a.example");
    std::fs::create_dir_all(scene.folder()).expect("a folder");
    std::fs::write(scene.file("a.example"), format!("{key}{old}")).expect("written");
    let evenkeel = scene.start(&scene.config(&scene.acme(&["a.example"], ""), ""));
    wait_shown(&evenkeel, scene.tls, "a.example", &believer(&pebble));
    // Of the new one it says the same.
    let asked = || {
        metric(
            &front,
            "evenkeel_requests_total{listener=\"web\",route=\"renewal\"",
        )
    };
    wait_until("it is asked of the new one too", ORDERED, || asked() >= 2.0)
        .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    let status = status(&evenkeel, "a.example");
    assert_eq!(
        (issued(&evenkeel), &status["ordering"]),
        (1.0, &false.into())
    );
}
