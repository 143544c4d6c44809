//! What the tests of automatic certificates share: Pebble as the authority, and an instance that asks it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use testkit::{Evenkeel, Origin, Pebble, PebblePlan, Port, TempDir, missing, reply, wait_until};

use crate::command::BINARY;
use crate::life_support::{admin_get, list};
use crate::tls_support::{Authority, Issued, Wants, believing, shake, shown};

/// Longer than an order takes beside a CPU hog, a wait after a failure included.
pub(crate) const ORDERED: Duration = Duration::from_secs(90);

/// An authority that is not started yet, the ports where it looks, and a folder for stores.
pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    /// Who says who Pebble is.
    pub(crate) ca: Authority,
    issued: Issued,
    pub(crate) pebble: Port,
    pub(crate) http: Port,
    pub(crate) tls: Port,
    pub(crate) origin: Origin,
}

impl Stage {
    /// `None` where Pebble is missing.
    pub(crate) fn new() -> Option<Self> {
        if missing("pebble") || missing("curl") {
            return None;
        }
        let ca = Authority::new("the authority of Pebble's own server");
        let issued = ca.issue(&["127.0.0.1"]);
        let dir = TempDir::new("acme").expect("a folder");
        dir.write("ca.pem", &ca.pem).expect("written");
        let port = || Port::reserve().expect("a port");
        let origin = Origin::http(|_| reply(200, "from the server")).expect("an origin");
        Some(Self {
            dir,
            ca,
            issued,
            pebble: port(),
            http: port(),
            tls: port(),
            origin,
        })
    }

    /// Starts the authority on its port.
    pub(crate) fn authority(self, settings: &str) -> (Pebble, Scene) {
        self.authority_with(settings, 0)
    }

    pub(crate) fn authority_with(self, settings: &str, bad_nonces: u32) -> (Pebble, Scene) {
        let (pebble, scene) = self.split();
        (scene.pebble_on(pebble, settings, bad_nonces), scene)
    }

    /// The authority's port, and the rest.
    pub(crate) fn split(self) -> (Port, Scene) {
        let scene = Scene {
            directory: testkit::directory(&self.pebble),
            dir: self.dir,
            ca: self.ca,
            issued: self.issued,
            http: self.http.address(),
            tls: self.tls.address(),
            _ports: [self.http, self.tls],
            origin: self.origin,
        };
        (self.pebble, scene)
    }
}

/// The same without the authority.
pub(crate) struct Scene {
    pub(crate) directory: String,
    pub(crate) dir: TempDir,
    pub(crate) ca: Authority,
    pub(crate) issued: Issued,
    pub(crate) http: SocketAddr,
    pub(crate) tls: SocketAddr,
    _ports: [Port; 2],
    pub(crate) origin: Origin,
}

impl Scene {
    pub(crate) fn pebble_on(&self, port: Port, settings: &str, bad_nonces: u32) -> Pebble {
        let plan = PebblePlan {
            cert: &self.issued.cert,
            key: &self.issued.key,
            http: self.http,
            tls: self.tls,
            bad_nonces,
            settings,
        };
        Pebble::start(port, &plan).expect("pebble starts")
    }

    /// The `acme` section for these names; `more` are further keys.
    pub(crate) fn acme(&self, domains: &[&str], more: &str) -> String {
        format!(
            "acme: {{ directory: '{}', ca: '{}', store: '{}', domains: [{}] {more} }}",
            self.directory,
            self.path("ca.pem").display(),
            self.store().display(),
            domains.join(", ")
        )
    }

    /// A whole config: HTTP and TLS where the authority looks, in front of one server.
    pub(crate) fn config(&self, acme: &str, tls: &str) -> String {
        self.config_at(self.http, self.tls, acme, tls)
    }

    pub(crate) fn config_at(
        &self,
        http: SocketAddr,
        secure: SocketAddr,
        acme: &str,
        tls: &str,
    ) -> String {
        format!(
            "admin: {{ bind: '127.0.0.1:0' }}
shutdown: {{ idle_wait: 1s, timeout: 10s }}
listeners:
  plain: {{ bind: '{http}', pool: site }}
  web: {{ bind: '{secure}', pool: site, tls: {{ {acme} {tls} }} }}
pools:
  site: {{ servers: {}, health_check: off }}
",
            list(&[self.origin.address()])
        )
    }

    pub(crate) fn start(&self, config: &str) -> Evenkeel {
        Evenkeel::start(BINARY, config).expect("evenkeel starts")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where what comes from the authority is kept.
    pub(crate) fn folder(&self) -> PathBuf {
        let rest = self.directory.strip_prefix("https://").expect("a URL");
        self.store().join(rest.replace([':', '/'], "_"))
    }

    /// The file of a name.
    pub(crate) fn file(&self, domain: &str) -> PathBuf {
        self.folder().join(format!("{domain}.pem"))
    }
}

/// A client that believes what Pebble gives.
pub(crate) fn believer(pebble: &Pebble) -> Arc<ClientConfig> {
    believing(&pebble.root().expect("a root"), &Wants::default())
}

/// Waits until a client that asks for `name` is shown a certificate that it believes, and gives that.
pub(crate) fn wait_shown(
    evenkeel: &Evenkeel,
    address: SocketAddr,
    name: &str,
    client: &Arc<ClientConfig>,
) -> CertificateDer<'static> {
    let valid = || status(evenkeel, name)["state"] == "valid";
    wait_until(&format!("{name} is valid"), ORDERED, valid)
        .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    let mut seen = None;
    wait_until(&format!("a certificate for {name}"), ORDERED, || {
        seen = shake(address, name, client).ok().map(|tls| shown(&tls));
        seen.is_some()
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    seen.expect("seen")
}

/// What the API says of the certificate for a name.
pub(crate) fn status(evenkeel: &Evenkeel, domain: &str) -> Value {
    let text = admin_get(evenkeel, "/api/v1/certificates");
    let all: Value = serde_json::from_str(&text).expect(&text);
    let mut all = all.as_array().expect(&text).iter();
    let found = all.find(|it| it["names"][0] == domain);
    found
        .unwrap_or_else(|| panic!("no {domain} in {text}"))
        .clone()
}

/// Waits until the last attempt for a name has failed, and gives what is said of it.
pub(crate) fn wait_problem(evenkeel: &Evenkeel, domain: &str) -> Value {
    let failed = || status(evenkeel, domain)["failures"].as_u64().unwrap_or(0) > 0;
    wait_until(&format!("{domain} fails"), ORDERED, failed)
        .unwrap_or_else(|error| panic!("{error}\n{}", evenkeel.log()));
    status(evenkeel, domain)
}

/// Who may do what with a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    metadata.permissions().mode() & 0o777
}
