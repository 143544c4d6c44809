//! One named check: what it asks, how long it may take, and whether the service can do without.
//! It only describes; running checks is the duty of `run`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// How long a check may take unless it says otherwise.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// A named check of something that the service needs, such as its database.
///
/// ```
/// use evenkeel_readiness::{Check, Readiness};
/// use std::time::Duration;
///
/// let cache = Check::new("cache", || async { Err::<(), _>("connection refused") })
///     .timeout(Duration::from_millis(200))
///     .optional();
/// let readiness = Readiness::builder("1.2.3").with(cache).build();
/// ```
pub struct Check {
    pub(crate) name: String,
    pub(crate) timeout: Duration,
    pub(crate) critical: bool,
    pub(crate) ask: Box<dyn Fn() -> Answer + Send + Sync>,
}

impl Check {
    /// A critical check that may take 2 s. `Ok` is up, `Err` is down.
    ///
    /// `ask` is called for each run. It must not block its thread, which no timeout could end: put
    /// blocking work into `tokio::task::spawn_blocking`, with a limit of its own.
    pub fn new<F, A, E>(name: impl Into<String>, ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self {
            name: name.into(),
            timeout: TIMEOUT_DEFAULT,
            critical: true,
            ask: Box::new(move || {
                let answer = ask();
                Box::pin(async move { answer.await.map_err(|error| error.to_string()) })
            }),
        }
    }

    /// How long one run may take; past it the check is down and its future is dropped. Keep it
    /// below the prober's own timeout (Evenkeel's default is 5 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The service can do without: when this check is down, `/health` says `degraded` with 200
    /// instead of `unhealthy` with 503, and the balancer keeps sending traffic.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.critical = false;
        self
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("critical", &self.critical)
            .finish_non_exhaustive()
    }
}
