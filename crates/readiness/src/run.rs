//! Runs the checks and keeps what they found: one run at a time however many ask, each check in a
//! task of its own with its own limit, and a panic in one is an answer, not a crash.
//! How an answer is served is left to the router or to the caller.

use crate::check::Check;
use crate::report::{Cause, CheckReport, Report, Status, status_of};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// How long results are kept unless the builder says otherwise.
const KEEP_DEFAULT: Duration = Duration::from_secs(1);

/// What a service says about its own health. Clones share one state, so that one may serve and
/// another be told that the service drains.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
}

/// Collects the checks; see [`Readiness::builder`].
#[derive(Debug)]
pub struct Builder {
    version: String,
    keep: Duration,
    expose_errors: bool,
    checks: Vec<Check>,
}

struct Shared {
    version: String,
    keep: Duration,
    expose_errors: bool,
    checks: Vec<Arc<Check>>,
    started: Instant,
    draining: AtomicBool,
    /// What the last run found, and when it ended.
    kept: RwLock<Option<(Instant, Vec<CheckReport>)>>,
    /// Held by the one run at a time; whoever comes meanwhile waits here for its results.
    running: tokio::sync::Mutex<()>,
}

impl Readiness {
    /// Starts a description of this service; `version` is said in `/health`, and
    /// `env!("CARGO_PKG_VERSION")` is the usual one.
    pub fn builder(version: impl Into<String>) -> Builder {
        Builder {
            version: version.into(),
            keep: KEEP_DEFAULT,
            expose_errors: false,
            checks: Vec::new(),
        }
    }

    /// What `/health` answers now: the kept results while they are fresh, else those of a run,
    /// which concurrent callers share. A caller that goes away does not end the run for others.
    ///
    /// While draining it answers at once with what was last seen: a slow check must not delay
    /// the word that this service goes away.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time enabled.
    pub async fn report(&self) -> Report {
        let checks = if self.is_draining() {
            self.shared.last()
        } else {
            match self.shared.fresh() {
                Some(checks) => checks,
                None => self.run_or_join().await,
            }
        };
        // Looked at again, since the switch may have been thrown while the checks ran.
        let status = if self.is_draining() {
            Status::Draining
        } else {
            status_of(&checks)
        };
        Report {
            status,
            uptime: self.shared.started.elapsed(),
            version: self.shared.version.clone(),
            checks,
            expose_errors: self.shared.expose_errors,
        }
    }

    /// From `true` on `/health` answers 503 `draining`, so that balancers send nothing new. Throw
    /// it when told to stop, go on serving for at least one interval of the probers, then stop.
    pub fn set_draining(&self, draining: bool) {
        self.shared.draining.store(draining, Ordering::Relaxed);
    }

    /// What [`set_draining`](Self::set_draining) last said.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    async fn run_or_join(&self) -> Vec<CheckReport> {
        let shared = Arc::clone(&self.shared);
        // In a task of its own: a prober that hangs up early must not cost a second run.
        let run = tokio::spawn(async move {
            let _one_at_a_time = shared.running.lock().await;
            if let Some(checks) = shared.fresh() {
                return checks;
            }
            let checks = run_all(&shared.checks).await;
            shared.store(checks.clone());
            checks
        });
        run.await.unwrap_or_else(|_| {
            let stopped =
                |check: &Arc<Check>| answered(check, Duration::ZERO, Some(Cause::Stopped));
            self.shared.checks.iter().map(stopped).collect()
        })
    }
}

impl Shared {
    fn fresh(&self) -> Option<Vec<CheckReport>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let (ended, checks) = kept.as_ref()?;
        (ended.elapsed() < self.keep).then(|| checks.clone())
    }

    fn last(&self) -> Vec<CheckReport> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref()
            .map_or_else(Vec::new, |(_, checks)| checks.clone())
    }

    fn store(&self, checks: Vec<CheckReport>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((Instant::now(), checks));
    }
}

/// All checks side by side; it takes as long as the slowest. Each runs in a task of its own, so
/// that a panic ends only that one.
async fn run_all(checks: &[Arc<Check>]) -> Vec<CheckReport> {
    let started = Instant::now();
    let runs: Vec<_> = checks
        .iter()
        .map(|check| (check, tokio::spawn(run_one(Arc::clone(check)))))
        .collect();
    let mut reports = Vec::with_capacity(runs.len());
    for (check, run) in runs {
        reports.push(run.await.unwrap_or_else(|error| {
            let cause = if error.is_panic() {
                Cause::Panicked
            } else {
                Cause::Stopped
            };
            answered(check, started.elapsed(), Some(cause))
        }));
    }
    reports
}

async fn run_one(check: Arc<Check>) -> CheckReport {
    let started = Instant::now();
    match tokio::time::timeout(check.timeout, (check.ask)()).await {
        Ok(Ok(())) => answered(&check, started.elapsed(), None),
        Ok(Err(text)) => answered(&check, started.elapsed(), Some(Cause::Failed(text))),
        Err(_) => answered(&check, check.timeout, Some(Cause::TimedOut(check.timeout))),
    }
}

fn answered(check: &Check, latency: Duration, down: Option<Cause>) -> CheckReport {
    CheckReport {
        name: check.name.clone(),
        critical: check.critical,
        latency,
        down,
    }
}

impl Builder {
    /// Adds a critical check with a limit of 2 s; [`with`](Self::with) takes one with options.
    #[must_use]
    pub fn check<F, A, E>(self, name: impl Into<String>, ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.with(Check::new(name, ask))
    }

    /// Adds a check. It takes the place of an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, check: Check) -> Self {
        match self
            .checks
            .iter_mut()
            .find(|other| other.name == check.name)
        {
            Some(earlier) => *earlier = check,
            None => self.checks.push(check),
        }
        self
    }

    /// How long results are kept, by default 1 s: checks run at most this often, however many
    /// probers there are. Zero runs them for each probe, though still one run at a time.
    #[must_use]
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Says the error text of a failed check in `/health`. Off by default, since drivers like to
    /// name hosts, users and more in their errors, and `/health` is often open to everyone.
    #[must_use]
    pub fn expose_errors(mut self) -> Self {
        self.expose_errors = true;
        self
    }

    /// The finished description; uptime counts from here.
    pub fn build(self) -> Readiness {
        Readiness {
            shared: Arc::new(Shared {
                version: self.version,
                keep: self.keep,
                expose_errors: self.expose_errors,
                checks: self.checks.into_iter().map(Arc::new).collect(),
                started: Instant::now(),
                draining: AtomicBool::new(false),
                kept: RwLock::new(None),
                running: tokio::sync::Mutex::new(()),
            }),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("version", &self.shared.version)
            .field("checks", &self.shared.checks)
            .field("draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
