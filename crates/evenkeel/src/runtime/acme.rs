//! Automatic certificates: from the room that asks for them to the one that shows them, and into the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agents::acme::{Hooks, Notice, wanted};
use agents::{Acme, Secure};
use config::Snapshot;
use control::world::Hub;
use proxy::Engine;
use tokio::runtime::Handle;

use super::limits;
use crate::describe;

/// What keeps certificates for this engine; what a config finds in its stores is taken up.
///
/// # Errors
/// Every store that cannot be used, in words for the user.
pub(super) fn start(
    hub: &Arc<Hub>,
    engine: &Engine,
    secure: Secure,
    snapshot: &Snapshot,
) -> Result<Acme, Vec<String>> {
    let issued = engine.issued().clone();
    let hooks = Hooks {
        hub: hub.clone(),
        put: Box::new(move |certificate| issued.put(certificate).map_err(|error| error.message)),
        tell: Box::new(tell),
        secure,
        seed: limits::seed(),
    };
    let acme = Acme::new(Handle::current(), hooks);
    acme.prepare(snapshot)?;
    Ok(acme)
}

/// Keeps certificates for a config that was taken up.
pub(super) fn take_up(acme: &mut Acme, engine: &Engine, snapshot: &Snapshot) {
    acme.take_up(snapshot);
    let files: BTreeSet<String> = wanted(snapshot)
        .iter()
        .flat_map(|(issuer, domains)| domains.iter().map(|domain| issuer.file(domain)))
        .collect();
    engine.issued().retain(|file| files.contains(file));
}

fn tell(notice: Notice) {
    match notice {
        Notice::Ordering { domain, directory } => {
            tracing::info!(%domain, %directory, "certificate: asked for");
        }
        Notice::Issued {
            domain,
            not_after,
            took,
        } => tracing::info!(
            %domain,
            expires = describe::wall(not_after),
            took_ms = milliseconds(took),
            "certificate: issued, in use"
        ),
        Notice::TakenUp { domain, not_after } => tracing::info!(
            %domain,
            expires = describe::wall(not_after),
            "certificate: taken from the store, in use"
        ),
        Notice::Failed {
            domain,
            problem,
            wait,
            has_certificate: true,
        } => tracing::warn!(
            %domain,
            %problem,
            again_in = describe::duration(wait),
            "certificate: not renewed; the one that is there stays in use"
        ),
        Notice::Failed {
            domain,
            problem,
            wait,
            has_certificate: false,
        } => tracing::error!(
            %domain,
            %problem,
            again_in = describe::duration(wait),
            "certificate: there is none, and clients that ask for this name are refused"
        ),
        Notice::Unusable { domain, why } => {
            tracing::error!(%domain, "certificate: {why}");
        }
        Notice::AccountGone { directory } => tracing::warn!(
            %directory,
            "the authority does not know our account any more: it is set aside, and another one made"
        ),
        Notice::Store { folder, why } => {
            tracing::error!(%folder, "the store of certificates cannot be used: {why}");
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
