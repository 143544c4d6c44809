//! Certificates that come while a config stays: those that an authority gives.
//!
//! Each has a slot that handshakes look into; a new one is seen by the next handshake, and nothing else changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use config::{Acme, Certificate};
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::server::certified;

/// The slots of all automatic certificates, by the file that keeps each.
#[derive(Default)]
pub struct Issued(Mutex<BTreeMap<Arc<str>, Arc<Slot>>>);

/// Where one is found, once it is there.
#[derive(Default)]
pub(super) struct Slot(ArcSwapOption<Given>);

/// One that is there.
pub(super) struct Given {
    pub(super) key: Arc<CertifiedKey>,
    certificate: Certificate,
}

impl Given {
    /// Whether it bears a host name, given in lower case.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.certificate.covers(host)
    }
}

impl Issued {
    /// Has new handshakes meet this certificate where the one of its file is wanted.
    ///
    /// # Errors
    /// When it cannot be used; then nothing changes.
    pub fn put(&self, certificate: &Certificate) -> Result<(), TlsError> {
        let key = certified(certificate, &super::provider())?;
        let slot = self.slot(&certificate.file);
        slot.0.store(Some(Arc::new(Given {
            key: Arc::new(key),
            certificate: certificate.clone(),
        })));
        Ok(())
    }

    /// Forgets those whose file is not among these.
    pub fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|file, _| is_wanted(file));
    }

    /// That of a file, empty until it is there.
    fn slot(&self, file: &str) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(file) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::default());
        slots.insert(file.into(), slot.clone());
        slot
    }

    /// Those of a listener, by name; and that for names that nothing bears.
    pub(super) fn of(&self, acme: &Acme) -> ByDomain {
        let slot = |domain: &Arc<str>| self.slot(&acme.issuer.file(domain));
        let domains = acme.domains.iter();
        ByDomain {
            slots: domains.map(|it| (it.to_string(), slot(it))).collect(),
            first: acme.domains.first().map(slot),
        }
    }
}

/// The automatic certificates of a listener.
#[derive(Default)]
pub(super) struct ByDomain {
    slots: BTreeMap<String, Arc<Slot>>,
    first: Option<Arc<Slot>>,
}

impl ByDomain {
    /// That for a name, in lower case. `None`: the name is not among them; `Some(None)`: it is not there yet.
    pub(super) fn find(&self, name: &str) -> Option<Option<Arc<Given>>> {
        self.slots.get(name).map(|slot| slot.0.load_full())
    }

    /// That for names that nothing bears, if it is there.
    pub(super) fn first(&self) -> Option<Arc<Given>> {
        self.first.as_ref()?.0.load_full()
    }
}
