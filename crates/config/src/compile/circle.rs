//! Listeners that send to their own addresses.

use super::PlacedBind;
use crate::diagnostic::{Kind, Report};
use crate::snapshot::{Address, Bind, Listener, Pool, Protocol, Target};

/// Warns of them: one request would go round until it has taken every connection that there is.
pub(super) fn warn_circles(
    listeners: &[Listener],
    pools: &[Pool],
    binds: &[PlacedBind],
    report: &mut Report,
) {
    for listener in listeners {
        let mut led_to: Vec<usize> = targets(listener)
            .flat_map(Target::destinations)
            .map(|to| to.pool)
            .collect();
        led_to.sort_unstable();
        led_to.dedup();
        for pool in led_to.into_iter().filter_map(|at| pools.get(at)) {
            for (at, bind) in listener.binds.iter().enumerate() {
                if !understands(listener, at, pool) {
                    continue;
                }
                let own = pool.servers.iter().find(|it| leads_to(&it.address, bind));
                let placed = binds.iter().find(|placed| placed.bind == *bind);
                if let (Some(server), Some(placed)) = (own, placed) {
                    let message = format!(
                        "the listener sends to itself: the server `{}` of the pool `{}` is this address, and one request would go round until no connection is left",
                        server.name, pool.name
                    );
                    report.warn(Kind::Conflict, placed.span, message);
                }
            }
        }
    }
}

fn targets(listener: &Listener) -> Box<dyn Iterator<Item = &Target> + '_> {
    match &listener.protocol {
        Protocol::Http(http) => Box::new(http.routes.iter().map(|route| &route.target)),
        Protocol::Tcp(tcp) => {
            let routes = tcp.routes.iter().map(|route| &route.target);
            Box::new(std::iter::once(&tcp.target).chain(routes))
        }
    }
}

/// Whether the bind with this index takes what the pool sends: TLS or none.
fn understands(listener: &Listener, at: usize, pool: &Pool) -> bool {
    let ends_tls = listener.tls.get(at).is_some_and(Option::is_some);
    let takes_any = matches!(listener.protocol, Protocol::Tcp(_)) && !ends_tls;
    takes_any || ends_tls == pool.tls.is_some()
}

/// Whether a connection to the address surely arrives there. A wildcard takes what comes to this machine, and of other
/// addresses than loopback nobody knows whose they are.
fn leads_to(address: &Address, bind: &Bind) -> bool {
    match (address, bind) {
        (Address::Unix(path), Bind::Unix(bound)) => **path == **bound,
        (
            Address::Ip(to),
            Bind::Tcp {
                address: bound,
                dual_stack,
                ..
            },
        ) => {
            let (ip, bound_ip) = (to.ip().to_canonical(), bound.ip().to_canonical());
            let is_here = ip.is_loopback() || ip.is_unspecified();
            let takes = *dual_stack || ip.is_ipv4() == bound_ip.is_ipv4();
            to.port() == bound.port()
                && (ip == bound_ip || bound_ip.is_unspecified() && is_here && takes)
        }
        _ => false,
    }
}
