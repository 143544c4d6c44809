//! Does what the publisher's actions ask for on tokio, and reports each end as an event.
//!
//! The loop that owns the publisher is not here, nor is any decision.

use std::sync::Arc;

use balance::health::{Cause, Outcome};
use control::message::Event;
use control::publisher::{Action, AgentProbe, Probe};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::agent_check;
use crate::probe::probe_and_hear;
use crate::resolve::Resolver;
use crate::tls::Secure;

/// Probes that are out at once; the others wait for their turn, and their time begins then.
const PROBES_MAX: usize = 1024;
/// Look-ups that are out at once.
const LOOKUPS_MAX: usize = 64;

/// Where events go; called from the runtime's threads.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// Sends probes and looks names up, without ever blocking its caller.
pub struct Agents {
    runtime: Handle,
    report: Report,
    resolver: Arc<Resolver>,
    secure: Secure,
    probes: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Agents {
    /// Works on `runtime`, which needs its I/O and time drivers, and reports to `report`. `secure` says how servers are
    /// spoken to whose pools have TLS.
    #[must_use]
    pub fn new(runtime: Handle, resolver: Resolver, secure: Secure, report: Report) -> Self {
        Self {
            runtime,
            report,
            resolver: Arc::new(resolver),
            secure,
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Begins a probe or a look-up, from any thread; any other action is given back to its caller.
    pub fn perform(&self, action: Action) -> Option<Action> {
        match action {
            Action::Probe(probe) => self.send(probe),
            Action::AskAgent(probe) => self.ask_agent(probe),
            Action::Resolve(name) => self.resolve(name),
            other => return Some(other),
        }
        None
    }

    fn send(&self, what: Probe) {
        let (turn, secure) = (self.probes.clone(), self.secure.clone());
        let pending = Pending {
            report: self.report.clone(),
            event: Some(Event::Probed {
                member: what.member,
                probe: what.number,
                outcome: Outcome::Failure(Cause::Failed("the probe was given up".into())),
            }),
        };
        self.runtime.spawn(async move {
            let _turn = turn.acquire().await;
            let (member, number) = (what.member, what.number);
            let (outcome, says) = probe_and_hear(&what, &secure).await;
            if let Some(state) = says {
                (pending.report)(Event::Says {
                    member,
                    probe: number,
                    state,
                });
            }
            pending.end(match outcome {
                Some(outcome) => Event::Probed {
                    member,
                    probe: number,
                    outcome,
                },
                None => Event::NotProbed {
                    member,
                    probe: number,
                },
            });
        });
    }

    fn ask_agent(&self, what: AgentProbe) {
        let turn = self.probes.clone();
        let (member, number) = (what.member, what.number);
        let pending = Pending {
            report: self.report.clone(),
            event: Some(Event::AgentSaid {
                member,
                number,
                answer: Err("the check was given up".into()),
            }),
        };
        self.runtime.spawn(async move {
            let _turn = turn.acquire().await;
            let answer = agent_check::ask(&what).await;
            pending.end(Event::AgentSaid {
                member,
                number,
                answer,
            });
        });
    }

    fn resolve(&self, name: Arc<str>) {
        let (turn, resolver) = (self.lookups.clone(), self.resolver.clone());
        let pending = Pending {
            report: self.report.clone(),
            event: Some(Event::Resolved {
                name: name.clone(),
                answer: Err("the look-up was given up".to_owned()),
            }),
        };
        self.runtime.spawn(async move {
            let _turn = turn.acquire().await;
            let answer = resolver.resolve(&name).await;
            pending.end(Event::Resolved { name, answer });
        });
    }
}

/// Reports when it is dropped, whatever it then holds: the publisher waits for each end, so none may be lost to a panic.
struct Pending {
    report: Report,
    event: Option<Event>,
}

impl Pending {
    fn end(mut self, event: Event) {
        self.event = Some(event);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            (self.report)(event);
        }
    }
}

#[cfg(test)]
mod tests;
