//! What is remembered of one exchange, and how the access log shows it.
//!
//! A worker fills a [`Record`] with copied bytes and hands it over; everything here runs off the workers.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use config::LogFormat;
use wire::grpc::Code;

use crate::affinity::End;
use crate::metrics::RetryCause;
use crate::reason::Reason;

/// One finished exchange.
#[derive(Debug, Clone)]
pub struct Record {
    /// Wall time at its start, since the Unix epoch.
    pub wall: Duration,
    /// From the first byte of the request to the last of the response.
    pub took: Duration,
    /// Listener name.
    pub listener: Arc<str>,
    /// Route name, if one matched.
    pub route: Option<Arc<str>>,
    /// The last server that was tried.
    pub server: Option<(Arc<str>, Arc<str>)>,
    /// The client, as trusted proxies tell it.
    pub source: Option<IpAddr>,
    /// Method, as sent; empty when no head was read.
    pub method: String,
    /// Request target, as sent.
    pub target: String,
    /// Host, as sent.
    pub host: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: &'static str,
    /// Status of the answer; 499 when the client left, 0 for TCP.
    pub status: u16,
    /// How a call of gRPC ended, as far as that is known.
    pub grpc: Option<Code>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Why the answer was made here.
    pub reason: Option<Reason>,
    /// Servers tried.
    pub tries: u32,
    /// Tries that came to nothing.
    pub failed: Vec<FailedTry>,
    /// How long it waited in its pool's queue.
    pub waited: Duration,
    /// By what its client is bound, and what came of that; `None` where nothing binds.
    pub affinity: Option<(&'static str, End)>,
    /// `X-Request-ID`, when there is one.
    pub request_id: String,
    /// `User-Agent` and `Referer`, for the common format's readers.
    pub user_agent: String,
    /// For each server that could not be used, why. Only when the answer was made here.
    pub detail: String,
}

/// A try that came to nothing.
#[derive(Debug, Clone)]
pub struct FailedTry {
    /// The name of the server.
    pub server: Arc<str>,
    /// Why.
    pub cause: RetryCause,
    /// The same in words, where it was a handshake.
    pub detail: Option<Arc<str>>,
}

impl Record {
    /// One line, without its end.
    #[must_use]
    pub fn line(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Json => self.json(),
            LogFormat::Common => self.common(),
        }
    }

    fn json(&self) -> String {
        let mut line = String::with_capacity(320);
        let source = self
            .source
            .map(|source| source.to_string())
            .unwrap_or_default();
        line.push('{');
        text(&mut line, "time", &rfc3339(self.wall));
        text(&mut line, "listener", &self.listener);
        if let Some(route) = &self.route {
            text(&mut line, "route", route);
        }
        if let Some((pool, server)) = &self.server {
            text(&mut line, "pool", pool);
            text(&mut line, "server", server);
        }
        text(&mut line, "source", &source);
        text(&mut line, "method", &self.method);
        text(&mut line, "host", &self.host);
        text(&mut line, "target", &self.target);
        text(&mut line, "version", self.version);
        let _ = write!(line, "\"status\":{},", self.status);
        if let Some(code) = self.grpc {
            let _ = write!(line, "\"grpc_status\":{},", code.number());
        }
        if let Some(reason) = self.reason {
            text(&mut line, "reason", reason.name());
        }
        if !self.detail.is_empty() {
            text(&mut line, "detail", &self.detail);
        }
        if !self.request_id.is_empty() {
            text(&mut line, "request_id", &self.request_id);
        }
        if !self.user_agent.is_empty() {
            text(&mut line, "user_agent", &self.user_agent);
        }
        self.json_of_failed(&mut line);
        if let Some((kind, end)) = self.affinity {
            text(&mut line, "affinity", kind);
            text(&mut line, "binding", end.name());
        }
        if !self.waited.is_zero() {
            let _ = write!(
                line,
                "\"waited_ms\":{:.3},",
                self.waited.as_secs_f64() * 1000.0
            );
        }
        let _ = write!(
            line,
            "\"tries\":{},\"bytes_in\":{},\"bytes_out\":{},\"took_ms\":{:.3}}}",
            self.tries,
            self.bytes_in,
            self.bytes_out,
            self.took.as_secs_f64() * 1000.0
        );
        line
    }

    fn json_of_failed(&self, line: &mut String) {
        if self.failed.is_empty() {
            return;
        }
        line.push_str("\"failed\":[");
        for failed in &self.failed {
            line.push('{');
            text(line, "server", &failed.server);
            text(line, "cause", failed.cause.name());
            if let Some(detail) = &failed.detail {
                text(line, "detail", detail);
            }
            line.pop();
            line.push_str("},");
        }
        line.pop();
        line.push_str("],");
    }

    fn common(&self) -> String {
        let source = self
            .source
            .map_or_else(|| "-".to_owned(), |source| source.to_string());
        let mut request = String::new();
        for part in [&*self.method, " ", &*self.target, " ", self.version] {
            // A quote or a control byte in the target must not end the field or the line.
            for c in part.chars() {
                match c {
                    '"' | '\\' => request.extend(['\\', c]),
                    c if c.is_control() => {
                        let _ = write!(request, "\\x{:02x}", u32::from(c));
                    }
                    c => request.push(c),
                }
            }
        }
        format!(
            "{source} - - [{}] \"{request}\" {} {}",
            clf_time(self.wall),
            self.status,
            self.bytes_out
        )
    }
}

fn text(line: &mut String, key: &str, value: &str) {
    let _ = write!(line, "\"{key}\":\"");
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push_str("\",");
}

/// Year, month, day of a day number since the Unix epoch (proleptic Gregorian).
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of year 0, so that the leap day is the last of a year.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Wall time as RFC 3339 has it, in UTC.
#[must_use]
pub fn rfc3339(wall: Duration) -> String {
    let seconds = wall.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        wall.subsec_millis()
    )
}

fn clf_time(wall: Duration) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = wall.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let name = MONTHS
        .get(usize::try_from(month).unwrap_or(1) - 1)
        .copied()
        .unwrap_or("Jan");
    format!(
        "{day:02}/{name}/{year:04}:{:02}:{:02}:{:02} +0000",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            wall: Duration::new(1_709_210_096, 7_000_000),
            took: Duration::from_micros(1500),
            listener: "web".into(),
            route: Some("1".into()),
            server: Some(("site".into(), "a".into())),
            source: Some(IpAddr::from([192, 0, 2, 1])),
            method: "GET".into(),
            target: "/a\"b\n".into(),
            host: "example.com".into(),
            version: "HTTP/1.1",
            status: 200,
            grpc: None,
            bytes_in: 0,
            bytes_out: 5,
            reason: None,
            tries: 1,
            failed: Vec::new(),
            waited: Duration::ZERO,
            affinity: None,
            request_id: String::new(),
            user_agent: String::new(),
            detail: String::new(),
        }
    }

    #[test]
    fn json_escapes_what_a_client_wrote() {
        assert_eq!(
            record().line(LogFormat::Json),
            r#"{"time":"2024-02-29T12:34:56.007Z","listener":"web","route":"1","pool":"site","server":"a","source":"192.0.2.1","method":"GET","host":"example.com","target":"/a\"b\u000a","version":"HTTP/1.1","status":200,"tries":1,"bytes_in":0,"bytes_out":5,"took_ms":1.500}"#
        );
    }

    #[test]
    fn json_says_which_tries_failed_and_why() {
        let try_of = |server: &str, cause, detail: Option<&str>| FailedTry {
            server: server.into(),
            cause,
            detail: detail.map(Into::into),
        };
        let failed = vec![
            try_of("a", RetryCause::ServerHandshake, Some("TLS: \"no\"")),
            try_of("b\"", RetryCause::Status, None),
        ];
        let line = Record {
            failed,
            tries: 3,
            ..record()
        }
        .line(LogFormat::Json);
        let part = r#""status":200,"failed":[{"server":"a","cause":"server_handshake","detail":"TLS: \"no\""},{"server":"b\"","cause":"status"}],"tries":3,"#;
        assert!(line.contains(part), "{line}");
    }

    #[test]
    fn the_end_of_a_call_is_shown() {
        let mut record = record();
        record.grpc = Some(Code::Unavailable);
        let line = record.line(LogFormat::Json);
        assert!(line.contains(r#""status":200,"grpc_status":14,"#), "{line}");
    }

    #[test]
    fn a_wait_is_shown() {
        let mut record = record();
        record.waited = Duration::from_micros(2_500);
        let line = record.line(LogFormat::Json);
        assert!(line.contains(r#""waited_ms":2.500,"tries":1"#), "{line}");
    }

    #[test]
    fn common_is_one_line_whatever_a_client_wrote() {
        assert_eq!(
            record().line(LogFormat::Common),
            r#"192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] "GET /a\"b\x0a HTTP/1.1" 200 5"#
        );
    }

    #[test]
    fn days_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), expected, "{days}");
        }
    }
}
