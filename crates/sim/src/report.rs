//! What came of a scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::judge::Rule;

/// What came of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The scenario's seed.
    pub seed: u64,
    /// Requests that came.
    pub requests: u64,
    /// Those that a server answered, if badly.
    pub answered: u64,
    /// Those of them that were answered with 500 or above.
    pub errors: u64,
    /// Those that were answered by the balancer, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Picks, so tries with a server.
    pub tries: u64,
    /// Tries out of the retry budget.
    pub retries: u64,
    /// Probes sent.
    pub probes: u64,
    /// How often a server's verdict changed.
    pub verdicts: u64,
    /// Views built.
    pub views: u64,
    /// Receipts of drains.
    pub receipts: u64,
    /// Waits in the queue.
    pub waits: u64,
    /// Requests that were served by the server that they were bound to.
    pub kept: u64,
    /// Clients that were bound to another one, since theirs could not serve.
    pub moved: u64,
    /// Tries beside others.
    pub hedges: u64,
    /// The lowest and the last of a limit that followed latency, the least of all servers each time.
    pub limits: Option<(u32, u32)>,
    /// Ejections by traffic.
    pub ejections: u64,
    /// Periods whose shares were judged.
    pub windows: u64,
    /// A hash of everything that happened and when: equal for equal runs.
    pub digest: u64,
    /// What must not be, and was; the first few.
    pub violations: Vec<Violation>,
    /// A line for everything that happened, when asked for.
    pub trace: Vec<String>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, from the start of the scenario.
    pub at: Duration,
    /// Which rule it breaks.
    pub rule: Rule,
    /// What happened, in words.
    pub what: String,
}

impl Report {
    /// Whether a rule was broken.
    #[must_use]
    pub fn breaks(&self, rule: Rule) -> bool {
        self.violations.iter().any(|it| it.rule == rule)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "{} requests: {} answered ({} with 5xx), failed {:?}; {} tries, {} of them retries; {} probes, {} verdicts, \
             {} views, {} windows, {} receipts, {} waits, {} kept, {} moved, {} hedges, {} ejections",
            self.requests,
            self.answered,
            self.errors,
            self.failed,
            self.tries,
            self.retries,
            self.probes,
            self.verdicts,
            self.views,
            self.windows,
            self.receipts,
            self.waits,
            self.kept,
            self.moved,
            self.hedges,
            self.ejections,
        )?;
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        if !self.violations.is_empty() {
            write!(
                f,
                "again, with a line for each step: EVENKEEL_SEED={} cargo test -p evenkeel-sim --test seeds",
                self.seed
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, rule, what } = self;
        write!(f, "{:9.3} s: {rule}: {what}", at.as_secs_f64())
    }
}
