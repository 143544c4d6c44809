//! The store and the lease, on real files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use control::acme::{Failed, Failures};

use super::lease::Lease;
use super::store::{Answer, Known, Store, What, wall};

/// A folder that is gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("evenkeel-store-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn store(&self, holder: &str) -> Store {
        Store::open(&self.0.display().to_string(), holder).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn certificate(name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

#[test]
fn what_is_kept_is_found_by_others_of_this_user() {
    let folder = Folder::new();
    let (one, other) = (folder.store("1"), folder.store("2"));
    assert_eq!(other.certificate("a.example"), Ok(None));
    assert_eq!(other.certificate_stamp("a.example"), None);
    one.put_certificate("a.example", &certificate("a.example"))
        .unwrap();
    let found = other.certificate("a.example").unwrap().unwrap();
    assert!(found.covers("a.example"));
    let before = other.certificate_stamp("a.example");
    one.put_certificate("a.example", &certificate("a.example"))
        .unwrap();
    assert_ne!(other.certificate_stamp("a.example"), before);

    let known = Known {
        failures: Some(Failures {
            count: 3,
            kind: Failed::RateLimited,
            problem: "slowly".to_owned(),
            until: Duration::from_secs(7),
        }),
        ..Known::default()
    };
    one.put_known("a.example", &known).unwrap();
    assert_eq!(other.known("a.example"), known);
    assert_eq!(other.known("b.example"), Known::default());
    one.put_account(b"{}").unwrap();
    assert_eq!(other.account().unwrap().as_deref(), Some("{}"));
    one.forget_account().unwrap();
    assert_eq!(other.account().unwrap(), None);
    for entry in std::fs::read_dir(&folder.0).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
}

#[test]
fn what_is_no_certificate_for_the_name_is_told() {
    let folder = Folder::new();
    let store = folder.store("1");
    let why = |text: &str| {
        store.put_certificate("a.example", text).unwrap();
        store.certificate("a.example").unwrap_err()
    };
    assert!(why("").contains("no private key"));
    assert!(why("-----BEGIN CERTIFICATE-----\nxx").contains("no private key"));
    let other = certificate("b.example");
    assert!(why(&other).contains("for another name"));
    let key = other
        .split_inclusive("-----END PRIVATE KEY-----\n")
        .next()
        .unwrap();
    assert!(why(key).contains("no certificate"));
}

#[test]
fn answers_are_given_by_all_until_they_are_withdrawn_or_over() {
    let folder = Folder::new();
    let (one, other) = (folder.store("1"), folder.store("2"));
    let answer = |token: &str, until: Duration| Answer {
        until,
        what: What::Http {
            token: token.to_owned(),
            key_authorization: format!("{token}.thumb"),
        },
    };
    let now = wall();
    let soon = now + Duration::from_secs(60);
    let name = one.put_answer(&answer("tok", soon)).unwrap();
    one.put_answer(&answer("old", now)).unwrap();
    // An authority chooses tokens; they stay within the folder.
    one.put_answer(&answer("../../x", soon)).unwrap();
    let found = other.answers(now);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(matches!(&found[&name].what, What::Http { token, .. } if token == "tok"));
    one.remove_answer(&name);
    assert_eq!(other.answers(now).len(), 1);
    assert!(!folder.0.join("x").exists());
}

#[test]
fn one_holds_the_lease_until_it_lets_go_or_its_time_is_over() {
    let folder = Folder::new();
    let (one, other) = (folder.store("1"), folder.store("2"));
    let lease = Lease::take(&one).unwrap().unwrap();
    assert!(Lease::take(&other).unwrap().is_none());
    // The same process may take it anew.
    assert!(Lease::take(&one).unwrap().is_some());
    drop(lease);
    let lease = Lease::take(&other).unwrap().unwrap();
    assert!(Lease::take(&one).unwrap().is_none());
    // Its holder has died long ago.
    std::mem::forget(lease);
    let written = r#"{"holder":"2","until":{"secs":1,"nanos":0}}"#;
    std::fs::write(folder.0.join("lease.json"), written).unwrap();
    assert!(Lease::take(&one).unwrap().is_some());
}

#[test]
fn many_that_try_at_once_are_one_that_gets_it() {
    let folder = Folder::new();
    let stores: Vec<Store> = (0..8).map(|n| folder.store(&n.to_string())).collect();
    let barrier = std::sync::Barrier::new(stores.len());
    let got = std::thread::scope(|scope| {
        let tries: Vec<_> = stores
            .iter()
            .map(|store| {
                scope.spawn(|| {
                    barrier.wait();
                    let lease = Lease::take(store).unwrap();
                    let is_mine = lease.is_some();
                    barrier.wait();
                    is_mine
                })
            })
            .collect();
        let ended = tries.into_iter().map(|it| it.join().unwrap());
        ended.filter(|is_mine| *is_mine).count()
    });
    assert_eq!(got, 1);
}

#[test]
fn a_store_that_cannot_be_made_is_told() {
    let folder = Folder::new();
    std::fs::write(&folder.0, "a file").unwrap();
    let why = Store::open(&folder.0.join("x").display().to_string(), "1").unwrap_err();
    assert!(why.contains("cannot be used"), "{why}");
    std::fs::remove_file(&folder.0).unwrap();
}
