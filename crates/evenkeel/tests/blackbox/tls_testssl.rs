//! testssl.sh against a listener as it is by default: what it finds that is ours.

use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CrlDistributionPoint, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256,
};
use serde_json::Value;
use testkit::{Evenkeel, Nginx, missing, run};

use crate::command::BINARY;
use crate::life_support::{list, web};
use crate::tls_support::Authority;

/// It takes half a minute where nothing else runs.
const LIMIT: Duration = Duration::from_secs(400);

/// As an authority of our days would have them.
fn usual(params: &mut CertificateParams) {
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    (params.not_before, params.not_after) = ((now - day).into(), (now + day * 89).into());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec!["http://localhost/none.crl".to_owned()],
    }];
}

#[test]
fn testssl_finds_nothing_of_weight_in_protocols_defaults_and_vulnerabilities() {
    if missing("testssl") || missing("nginx") {
        return;
    }
    let nginx = Nginx::start("a", "").expect("nginx starts");
    let authority = Authority::new("the authority");
    let names = ["localhost"];
    let ecdsa = authority.issue_with(&names, &PKCS_ECDSA_P256_SHA256, usual);
    let rsa = authority.issue_with(&names, &PKCS_RSA_SHA256, usual);
    let text = format!(
        "admin: off
listeners:
  web:
    bind: '127.0.0.1:0'
    tls: {{ certificates: [{{ cert: ec.pem, key: ec.key }}, {{ cert: rsa.pem, key: rsa.key }}] }}
    pool: site
pools:
  site: {{ servers: {}, health_check: off }}
",
        list(&[nginx.address()])
    );
    let evenkeel = Evenkeel::start_with(BINARY, &text, |command| {
        let folder = command.get_current_dir().expect("a folder").to_owned();
        for (name, issued) in [("ec", &ecdsa), ("rsa", &rsa)] {
            let files = [("pem", &issued.cert), ("key", &issued.key)];
            for (kind, text) in files {
                std::fs::write(folder.join(format!("{name}.{kind}")), text).expect("written");
            }
        }
        std::fs::write(folder.join("ca.pem"), &authority.pem).expect("written");
    })
    .expect("evenkeel starts");

    let mut command = Command::new("testssl");
    command
        .current_dir(evenkeel.dir().path())
        .args(["--quiet", "--warnings", "off", "--color", "0"])
        .args(["--nodns", "none", "--ip", "127.0.0.1"])
        .args(["--add-ca", "ca.pem", "--jsonfile", "found.json"])
        .args(["--protocols", "--server-defaults", "--vulnerable"])
        .arg(format!("localhost:{}", web(&evenkeel).port()));
    let finished = run(command, LIMIT).expect("testssl ends");
    let said = finished.text();
    let found = std::fs::read_to_string(evenkeel.dir().path().join("found.json"));
    let found: Vec<Value> = serde_json::from_str(&found.expect(&said)).expect(&said);
    let of = |id: &str| {
        let mut all = found.iter().filter(|it| it["id"] == id);
        let found = all.next().unwrap_or_else(|| panic!("no {id} in {said}"));
        [&found["severity"], &found["finding"]].map(|it| it.as_str().unwrap_or_default())
    };
    let weighty = |it: &&Value| {
        !matches!(
            it["severity"].as_str(),
            Some("OK" | "INFO" | "LOW" | "WARN")
        )
    };
    let weighty: Vec<_> = found.iter().filter(weighty).collect();
    assert!(weighty.is_empty(), "{weighty:#?}\n{said}");
    // It has really looked.
    assert_eq!(of("TLS1_1")[1], "not offered");
    assert_eq!(of("TLS1_2"), ["OK", "offered"]);
    assert_eq!(of("TLS1_3")[0], "OK");
    assert_eq!(of("ALPN_HTTP2"), ["OK", "h2"]);
    assert_eq!(of("secure_renego")[0], "OK");
    assert_eq!(of("heartbleed")[0], "OK");
    assert_eq!(of("LUCKY13")[0], "OK");
}
