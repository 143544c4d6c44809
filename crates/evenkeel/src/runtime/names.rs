//! Looks the names of a config up before it is taken up, so that its first requests find their servers.
//!
//! Only a head start: the publisher asks again when an answer is due, and for what is missing here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agents::Resolver;
use config::{Address, Snapshot};
use control::message::Event;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// All look-ups together.
const LOOK_UP_MAX: Duration = Duration::from_secs(2);
/// Look-ups that are out at once.
const AT_ONCE_MAX: usize = 64;

/// The names that a config's servers have.
pub(super) fn of(snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
    let servers = snapshot.pools.iter().flat_map(|pool| &pool.servers);
    servers
        .filter_map(|server| match &server.address {
            Address::Name(name, _) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

/// The answers that came in time.
pub(super) async fn look_up(names: BTreeSet<Arc<str>>) -> Vec<Event> {
    let until = Instant::now() + LOOK_UP_MAX;
    let resolver = Arc::new(Resolver::system());
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let mut asked = JoinSet::new();
    for name in names {
        let (resolver, places) = (resolver.clone(), places.clone());
        asked.spawn(async move {
            let _place = places.acquire().await;
            let answer = resolver.resolve(&name).await;
            Event::Resolved { name, answer }
        });
    }
    let mut answers = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await {
        answers.extend(answer.ok().filter(is_answered));
    }
    answers
}

fn is_answered(event: &Event) -> bool {
    matches!(event, Event::Resolved { answer: Ok(_), .. })
}
