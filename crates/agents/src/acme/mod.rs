//! Automatic certificates (ACME): asked for, kept, renewed, and taken up from what other instances keep.
//!
//! One task for each authority works on its folder of the store; when something is due is decided in `control::acme`.
//! How a certificate is shown to clients, and how answers reach an authority, is for `proxy`.

mod client;
mod lease;
mod order;
mod run;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::{Certificate, Issuer, Snapshot};
use control::acme::{Board, Pending};
use control::world::Hub;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::tls::Secure;
use run::Runner;
use store::Store;

/// What an operator is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A certificate is asked for.
    Ordering {
        /// For which name.
        domain: Arc<str>,
        /// Whom.
        directory: Arc<str>,
    },
    /// It came, is in use and kept.
    Issued {
        /// For which name.
        domain: Arc<str>,
        /// Wall time at which it ends, since the Unix epoch.
        not_after: Duration,
        /// From asking to keeping.
        took: Duration,
    },
    /// One that the store has is in use.
    TakenUp {
        /// For which name.
        domain: Arc<str>,
        /// Wall time at which it ends, since the Unix epoch.
        not_after: Duration,
    },
    /// There is none.
    Failed {
        /// For which name.
        domain: Arc<str>,
        /// What the authority says, or why it could not be asked.
        problem: Arc<str>,
        /// For how long nothing is asked.
        wait: Duration,
        /// Whether an older one is still shown.
        has_certificate: bool,
    },
    /// What the store has for a name is none; another one is asked for.
    Unusable {
        /// For which name.
        domain: Arc<str>,
        /// What is wrong.
        why: String,
    },
    /// The authority does not know the account any more: it is set aside, and another one made.
    AccountGone {
        /// The authority.
        directory: Arc<str>,
    },
    /// The store cannot be used.
    Store {
        /// Where.
        folder: Arc<str>,
        /// What is wrong.
        why: String,
    },
}

/// Has clients meet a certificate, or says why it cannot be used.
pub type Put = Box<dyn Fn(&Certificate) -> Result<(), String> + Send + Sync>;

/// What this room is given to work with.
pub struct Hooks {
    /// Where answers go, and how certificates stand.
    pub hub: Arc<Hub>,
    /// Has clients meet a certificate, or says why it cannot be used.
    pub put: Put,
    /// Tells an operator.
    pub tell: Box<dyn Fn(Notice) + Send + Sync>,
    /// How an authority's server is spoken to.
    pub secure: Secure,
    /// Random.
    pub seed: u64,
}

/// What all tasks share.
struct Parts {
    hub: Arc<Hub>,
    put: Put,
    tell: Box<dyn Fn(Notice) + Send + Sync>,
    secure: Secure,
    /// By folder: what is pending there.
    pending: Mutex<BTreeMap<Arc<str>, Pending>>,
    /// By folder: what was told last.
    told: Mutex<BTreeMap<Arc<str>, Notice>>,
    random: AtomicU64,
}

impl Parts {
    fn board(&self) -> &Board {
        &self.hub.certificates
    }

    /// Has workers answer what is pending in a folder.
    fn give(&self, folder: &Arc<str>, pending: Pending) {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(folder.clone(), pending);
        self.hub.challenges.set(merged(&all));
    }

    fn forget(&self, folder: &str) {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(folder);
        self.hub.challenges.set(merged(&all));
    }

    /// Tells what was not told of a folder just before.
    fn tell_once(&self, folder: &Arc<str>, notice: Notice) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(folder) != Some(&notice) {
            told.insert(folder.clone(), notice.clone());
            drop(told);
            (self.tell)(notice);
        }
    }

    fn forget_told(&self, folder: &str) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(folder);
    }

    /// From 0 to 1.
    fn random(&self) -> f64 {
        // SplitMix64: the constants are its author's.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from((z >> 32) as u32) / f64::from(u32::MAX)
    }
}

fn merged(all: &BTreeMap<Arc<str>, Pending>) -> Pending {
    let mut merged = Pending::default();
    for pending in all.values() {
        merged.http.extend(pending.http.clone());
        merged.tls.extend(pending.tls.clone());
    }
    merged
}

/// Keeps certificates for what a config wants.
pub struct Acme {
    runtime: Handle,
    parts: Arc<Parts>,
    holder: String,
    running: Vec<Running>,
}

struct Running {
    issuer: Arc<Issuer>,
    wanted: watch::Sender<Vec<Arc<str>>>,
    task: JoinHandle<()>,
}

impl Acme {
    /// Works on `runtime`, which needs its I/O and time drivers.
    #[must_use]
    pub fn new(runtime: Handle, hooks: Hooks) -> Self {
        let Hooks {
            hub,
            put,
            tell,
            secure,
            seed,
        } = hooks;
        Self {
            runtime,
            holder: format!("{}-{seed:016x}", std::process::id()),
            parts: Arc::new(Parts {
                hub,
                put,
                tell,
                secure,
                pending: Mutex::default(),
                told: Mutex::default(),
                random: AtomicU64::new(seed),
            }),
            running: Vec::new(),
        }
    }

    /// Makes what a config needs: folders, and certificates as far as they are kept. Nothing is asked.
    ///
    /// # Errors
    /// Every store that cannot be used, in words for the user.
    pub fn prepare(&self, snapshot: &Snapshot) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        for (issuer, domains) in wanted(snapshot) {
            let store = match Store::open(&issuer.folder, &self.holder) {
                Ok(store) => store,
                Err(why) => {
                    errors.push(format!("{}: error[file]: {why}", issuer.place));
                    continue;
                }
            };
            for domain in domains {
                // What cannot be used is told once the task looks at it.
                if let Ok(Some(found)) = store.certificate(&domain) {
                    let _ = (self.parts.put)(&found);
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// Keeps certificates for this config from now on. What did not change goes on.
    pub fn take_up(&mut self, snapshot: &Snapshot) {
        let wanted = wanted(snapshot);
        self.running.retain(|running| {
            let stays = wanted
                .iter()
                .any(|(issuer, _)| running.issuer.is_like(issuer));
            if !stays {
                running.task.abort();
                self.parts.forget(&running.issuer.folder);
            }
            stays
        });
        let files: BTreeSet<String> = wanted
            .iter()
            .flat_map(|(issuer, domains)| domains.iter().map(|domain| issuer.file(domain)))
            .collect();
        self.parts.board().retain(|file| files.contains(file));
        for (issuer, domains) in wanted {
            let domains: Vec<Arc<str>> = domains.into_iter().collect();
            let mut running = self.running.iter();
            if let Some(running) = running.find(|running| running.issuer.is_like(&issuer)) {
                running.wanted.send_if_modified(|known| {
                    let is_new = *known != domains;
                    *known = domains;
                    is_new
                });
                continue;
            }
            // It was there a moment ago; if it is gone the task says so.
            let Ok(store) = Store::open(&issuer.folder, &self.holder) else {
                continue;
            };
            let (sender, receiver) = watch::channel(domains);
            let runner = Runner::new(self.parts.clone(), issuer.clone(), store, receiver);
            self.running.push(Running {
                issuer,
                wanted: sender,
                task: self.runtime.spawn(runner.run()),
            });
        }
    }

    /// Asks nothing any more: the process ends, or another one goes on. Answers are given until the end.
    pub fn stop(&mut self) {
        for running in self.running.drain(..) {
            running.task.abort();
        }
    }
}

/// What a config wants, by authority.
#[must_use]
pub fn wanted(snapshot: &Snapshot) -> Vec<(Arc<Issuer>, BTreeSet<Arc<str>>)> {
    let mut all: Vec<(Arc<Issuer>, BTreeSet<Arc<str>>)> = Vec::new();
    let tls = snapshot.listeners.iter().flat_map(|listener| &listener.tls);
    for acme in tls.flatten().filter_map(|tls| tls.acme.as_ref()) {
        let known = all
            .iter_mut()
            .find(|(issuer, _)| issuer.folder == acme.issuer.folder);
        let domains = acme.domains.iter().cloned();
        match known {
            Some((_, known)) => known.extend(domains),
            None => all.push((acme.issuer.clone(), domains.collect())),
        }
    }
    all
}

/// What a store holds for a name, without changing anything: the end of its certificate, as wall time.
///
/// # Errors
/// When what is there cannot be used, in words for the user.
pub fn kept(issuer: &Issuer, domain: &str) -> Result<Option<Duration>, String> {
    let found = Store::glance(&issuer.folder).certificate(domain)?;
    Ok(found.map(|certificate| certificate.not_after))
}
