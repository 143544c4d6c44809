//! What the checks found, and how it is said: the status, the HTTP code, the JSON. Plain values;
//! nothing here runs a check or knows a server.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::time::Duration;

/// What `/health` says of the whole service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Every check is up.
    Healthy,
    /// An optional check is down: the service works, with less.
    Degraded,
    /// A critical check is down: send traffic elsewhere.
    Unhealthy,
    /// The service is about to stop: send nothing new.
    Draining,
}

impl Status {
    /// The word in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }

    /// 200 while the service may get traffic, else 503.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Healthy | Self::Degraded => 200,
            Self::Unhealthy | Self::Draining => 503,
        }
    }
}

/// Why a check is down. It is in the JSON; the text of a failure is so only by
/// [`Builder::expose_errors`](crate::Builder::expose_errors).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The check answered with this error.
    Failed(String),
    /// It took longer than its limit, which is given.
    TimedOut(Duration),
    /// It panicked.
    Panicked,
    /// The runtime was shut down before it could answer.
    Stopped,
}

impl Cause {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::TimedOut(_) => "timeout",
            Self::Panicked => "panicked",
            Self::Stopped => "stopped",
        }
    }
}

/// The last answer of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// As given to [`Check::new`](crate::Check::new).
    pub name: String,
    /// False for an optional check.
    pub critical: bool,
    /// How long this run took; for a timeout, its limit.
    pub latency: Duration,
    /// Why it is down, or `None` when it is up.
    pub down: Option<Cause>,
}

/// What `/health` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Of the whole service.
    pub status: Status,
    /// Since the [`Readiness`](crate::Readiness) was built.
    pub uptime: Duration,
    /// As given to [`Readiness::builder`](crate::Readiness::builder).
    pub version: String,
    /// In the order in which they were added. While draining: as last seen, perhaps none.
    pub checks: Vec<CheckReport>,
    pub(crate) expose_errors: bool,
}

impl Report {
    /// 200 or 503, from the status.
    pub fn http_status(&self) -> u16 {
        self.status.http_status()
    }

    /// The body of `/health`.
    pub fn to_json(&self) -> String {
        // Strings and numbers only: there is nothing here that JSON cannot say.
        serde_json::to_string(&Body::from(self)).unwrap_or_default()
    }
}

/// The status that these checks add up to, draining aside.
pub(crate) fn status_of(checks: &[CheckReport]) -> Status {
    let down = |critical| {
        checks
            .iter()
            .any(|check| check.down.is_some() && check.critical == critical)
    };
    if down(true) {
        Status::Unhealthy
    } else if down(false) {
        Status::Degraded
    } else {
        Status::Healthy
    }
}

#[derive(Serialize)]
struct Body<'a> {
    status: &'static str,
    uptime_secs: u64,
    version: &'a str,
    checks: Checks<'a>,
}

impl<'a> From<&'a Report> for Body<'a> {
    fn from(report: &'a Report) -> Self {
        Self {
            status: report.status.as_str(),
            uptime_secs: report.uptime.as_secs(),
            version: &report.version,
            checks: Checks(report),
        }
    }
}

/// The checks as a map by name that keeps their order.
struct Checks<'a>(&'a Report);

impl Serialize for Checks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.checks.len()))?;
        for check in &self.0.checks {
            map.serialize_entry(&check.name, &Entry::new(check, self.0.expose_errors))?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    status: &'static str,
    latency_ms: u128,
    #[serde(skip_serializing_if = "is_false")]
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn new(check: &'a CheckReport, expose_errors: bool) -> Self {
        let error = match &check.down {
            Some(Cause::Failed(text)) if expose_errors => Some(text.as_str()),
            _ => None,
        };
        Self {
            status: if check.down.is_none() { "up" } else { "down" },
            latency_ms: check.latency.as_millis(),
            optional: !check.critical,
            cause: check.down.as_ref().map(Cause::as_str),
            error,
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, critical: bool, down: Option<Cause>) -> CheckReport {
        CheckReport {
            name: name.into(),
            critical,
            latency: Duration::from_micros(5_400),
            down,
        }
    }

    fn report(checks: Vec<CheckReport>) -> Report {
        Report {
            status: status_of(&checks),
            uptime: Duration::from_secs(3600),
            version: "1.2.3".into(),
            checks,
            expose_errors: false,
        }
    }

    #[test]
    fn the_documented_json() {
        let report = report(vec![check("database", true, None)]);
        assert_eq!(
            report.to_json(),
            r#"{"status":"healthy","uptime_secs":3600,"version":"1.2.3","checks":{"database":{"status":"up","latency_ms":5}}}"#
        );
        assert_eq!(report.http_status(), 200);
    }

    #[test]
    fn error_text_is_said_only_when_asked_for() {
        let failed = Cause::Failed("password for \"app\" refused".into());
        let mut report = report(vec![check("database", true, Some(failed))]);
        assert!(!report.to_json().contains("password"));
        assert!(report.to_json().contains(r#""cause":"failed""#));
        report.expose_errors = true;
        let said = r#""error":"password for \"app\" refused""#;
        assert!(report.to_json().contains(said));
    }

    #[test]
    fn a_critical_check_outweighs_optional_ones() {
        let down = || Some(Cause::Panicked);
        let cases = [
            (vec![], Status::Healthy, 200),
            (vec![check("a", true, None)], Status::Healthy, 200),
            (vec![check("a", false, down())], Status::Degraded, 200),
            (
                vec![check("a", false, down()), check("b", true, down())],
                Status::Unhealthy,
                503,
            ),
        ];
        for (checks, status, code) in cases {
            let report = report(checks);
            assert_eq!((report.status, report.http_status()), (status, code));
        }
    }
}
