//! TLS on connections of clients and to servers.
//!
//! `server` and `client` make rustls configs of what a snapshot holds, on the control thread, while a config is taken
//! up; `handshake` waits for a connection to become a session; `session` is the codec between a socket and plaintext;
//! `about` is what a handshake told of the client.
//! What is spoken inside is for others.

mod about;
mod asked;
mod challenge;
mod client;
mod handshake;
mod hello;
mod issued;
mod records;
mod server;
mod session;
mod tickets;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use config::{Bind, Snapshot};
use rustls::crypto::CryptoProvider;
use tickets::Ticketer;

pub(crate) use about::About;
pub use asked::ask_certificate;
pub(crate) use client::ClientTls;
pub use client::secure_probes;
pub(crate) use handshake::{Broken, accept, connect};
pub(crate) use hello::{hear, refuse};
pub use issued::Issued;
pub(crate) use records::trim;
pub(crate) use server::ServerTls;
pub(crate) use session::Session;
pub(crate) use tickets::Secrets;

/// What of TLS in a config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// Where the user wrote it: `FILE:LINE:COLUMN`.
    pub place: Arc<str>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: error[certificate]: {}", self.place, self.message)
    }
}

impl std::error::Error for TlsError {}

/// Whether what a config says of TLS can be used: keys fit their certificates, authorities can be believed.
///
/// # Errors
/// All that is wrong.
pub fn check_tls(snapshot: &Snapshot) -> Result<(), Vec<TlsError>> {
    let secrets = Arc::new(Secrets::new());
    Tls::build(snapshot, &Tls::default(), &secrets, &Issued::default()).map(drop)
}

/// TLS of one config, ready to be used.
#[derive(Default)]
pub(crate) struct Tls {
    /// By listener index, then by bind index; empty where a listener has none.
    listeners: Vec<Vec<Option<Arc<ServerTls>>>>,
    /// By pool index; empty where no pool has any.
    pools: Vec<Option<Arc<ClientTls>>>,
    /// By pool name, for the next config.
    known_pools: BTreeMap<Arc<str>, Arc<ClientTls>>,
    /// By listener name and address, so that the next config can go on with what did not change.
    known: BTreeMap<(Arc<str>, Bind), Arc<ServerTls>>,
}

impl Tls {
    /// Makes what a snapshot needs. What did not change since `before` is used on, with whatever it has learnt.
    pub(crate) fn build(
        snapshot: &Snapshot,
        before: &Self,
        secrets: &Arc<Secrets>,
        issued: &Issued,
    ) -> Result<Self, Vec<TlsError>> {
        let provider = provider();
        let mut errors = Vec::new();
        let mut made = Self::default();
        for listener in &snapshot.listeners {
            let mut of_binds = Vec::new();
            for (bind, tls) in listener.binds.iter().zip(&listener.tls) {
                let Some(tls) = tls else {
                    of_binds.push(None);
                    continue;
                };
                let key = (listener.name.clone(), bind.clone());
                let known = before.known.get(&key).filter(|known| known.is_for(tls));
                let built = match known {
                    Some(known) => Ok(known.clone()),
                    None => {
                        let ticketer = Ticketer::new(secrets.clone(), &listener.name, tls);
                        ServerTls::build(tls, ticketer, issued, &provider).map(Arc::new)
                    }
                };
                match built {
                    Ok(built) => {
                        made.known.insert(key, built.clone());
                        of_binds.push(Some(built));
                    }
                    Err(failed) => errors.extend(failed),
                }
            }
            made.listeners.push(of_binds);
        }
        if made.known.is_empty() {
            made.listeners.clear();
        }
        made.build_pools(snapshot, before, &mut errors);
        errors.dedup();
        if errors.is_empty() {
            Ok(made)
        } else {
            Err(errors)
        }
    }

    fn build_pools(&mut self, snapshot: &Snapshot, before: &Self, errors: &mut Vec<TlsError>) {
        for pool in &snapshot.pools {
            let Some(tls) = &pool.tls else {
                self.pools.push(None);
                continue;
            };
            let known = before.known_pools.get(&pool.name);
            let built = match known.filter(|known| known.is_for(tls)) {
                Some(known) => Ok(known.clone()),
                None => ClientTls::build(tls).map(Arc::new),
            };
            match built {
                Ok(built) => {
                    self.known_pools.insert(pool.name.clone(), built.clone());
                    self.pools.push(Some(built));
                }
                Err(error) => errors.push(error),
            }
        }
        if self.known_pools.is_empty() {
            self.pools.clear();
        }
    }

    /// What servers of a pool meet; `None`: plain bytes.
    pub(crate) fn of_pool(&self, pool: usize) -> Option<&Arc<ClientTls>> {
        self.pools.get(pool)?.as_ref()
    }

    /// What clients of an address meet; `None`: plain bytes.
    pub(crate) fn of_bind(
        &self,
        snapshot: &Snapshot,
        listener: usize,
        bind: &Bind,
    ) -> Option<&Arc<ServerTls>> {
        let of_binds = self.listeners.get(listener)?;
        let binds = &snapshot.listeners.get(listener)?.binds;
        let at = binds.iter().position(|known| known == bind)?;
        of_binds.get(at)?.as_ref()
    }
}

/// The one crypto provider.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS by the generation of its world, for all workers: looked at when one takes up a world, never for a connection.
#[derive(Default)]
pub(crate) struct Registry(RwLock<BTreeMap<u64, Arc<Tls>>>);

impl Registry {
    /// That of a world; nothing for one that was never published.
    pub(crate) fn of(&self, generation: u64) -> Arc<Tls> {
        let all = self
            .0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all.get(&generation).cloned().unwrap_or_default()
    }

    /// That of the newest world.
    pub(crate) fn newest(&self) -> Arc<Tls> {
        let all = self
            .0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all.last_key_value()
            .map(|(_, tls)| tls.clone())
            .unwrap_or_default()
    }

    /// Adds that of a new world, and lets go of those that are not among `alive`.
    pub(crate) fn publish(&self, generation: u64, tls: Arc<Tls>, alive: &[u64]) {
        let mut all = self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all.retain(|known, _| alive.contains(known));
        all.insert(generation, tls);
    }
}
