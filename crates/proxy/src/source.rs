//! Where the clients of a pool come from that are bound by their addresses: counted, so that one that sends too much is
//! told of.

use std::cell::RefCell;
use std::net::IpAddr;

use config::Affinity;
use control::learnt::network_of;
use control::message::{Event, Message};
use control::pick::LocalPool;

use crate::net;
use crate::worker::Worker;

/// Counts a request or connection, where that is wanted.
pub(crate) fn count(
    worker: &Worker,
    affinity: &Affinity,
    pool: &RefCell<LocalPool>,
    source: IpAddr,
) {
    let Some(ipv6_prefix) = affinity.kind.source_prefix() else {
        return;
    };
    if affinity.source_alarm.is_none() {
        return;
    }
    let mut pool = pool.borrow_mut();
    if let Some(counted) = pool.count_source(network_of(source, ipv6_prefix), net::now()) {
        let event = Event::Sources {
            pool: pool.state.name.clone(),
            teller: (worker.number, pool.state.group),
            counted,
        };
        worker.hub.send(Message::Event(event));
    }
}
