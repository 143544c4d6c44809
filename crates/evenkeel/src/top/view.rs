//! What is shown: two looks at an instance become lines, or JSON. Knows no terminal and no clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::remote::{capacity_text, cause_and_note, number, text};
use crate::table::aligned;
use crate::terminal::{Line, Style};

/// What the API said at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When, on a clock of the caller's.
    pub(super) at: Duration,
    pub(super) health: Value,
    /// Each with its `servers`.
    pub(super) pools: Vec<Value>,
}

/// What is new since the look before.
pub(super) struct Frame<'a> {
    now: &'a Sample,
    /// The look before, with the time between; `None` for the first.
    before: Option<(&'a Sample, Duration)>,
}

/// Rates of a pool in a second.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    requests: f64,
    failed: f64,
    retried: f64,
}

impl<'a> Frame<'a> {
    pub(super) fn new(before: Option<&'a Sample>, now: &'a Sample) -> Self {
        let before = before.map(|before| (before, now.at.saturating_sub(before.at)));
        Self {
            now,
            before: before.filter(|(_, time)| !time.is_zero()),
        }
    }

    /// A title, and a table for each pool. `trouble`: why there is no newer look.
    pub(super) fn lines(&self, url: &str, trouble: &str) -> Vec<Line> {
        let mut lines = vec![self.title(url)];
        if !trouble.is_empty() {
            lines.push(vec![(Style::Bad, format!("no news: {trouble}"))]);
        }
        for pool in &self.now.pools {
            lines.push(Line::new());
            lines.push(self.pool(pool));
            if let Some(capacity) = capacity_text(pool) {
                let style = if capacity.ends_with("ALARM") {
                    Style::Bad
                } else {
                    Style::Dim
                };
                lines.push(vec![(style, format!("  {capacity}"))]);
            }
            lines.extend(self.servers(pool));
        }
        lines
    }

    /// The latest look, with rates in a second.
    pub(super) fn json(&self) -> Value {
        let mut pools = self.now.pools.clone();
        for pool in &mut pools {
            let rates = self.rates(pool);
            let per_server: Vec<f64> = list(pool).map(|server| self.picked(server)).collect();
            let Some(object) = pool.as_object_mut() else {
                continue;
            };
            object.insert("per_second".to_owned(), tenths(rates.requests));
            object.insert("failed_per_second".to_owned(), tenths(rates.failed));
            object.insert("retried_per_second".to_owned(), tenths(rates.retried));
            let servers = object.get_mut("servers").and_then(Value::as_array_mut);
            for (server, rate) in servers.into_iter().flatten().zip(per_server) {
                if let Some(server) = server.as_object_mut() {
                    server.insert("per_second".to_owned(), tenths(rate));
                }
            }
        }
        let time = self.before.map_or(Duration::ZERO, |(_, time)| time);
        json!({
            "health": self.now.health,
            "over_ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            "pools": pools,
        })
    }

    fn title(&self, url: &str) -> Line {
        let health = &self.now.health;
        let status = text(health, "status");
        let style = match status {
            "healthy" => Style::Good,
            _ => Style::Warn,
        };
        vec![
            (
                Style::Bold,
                format!("Evenkeel {}  ", text(health, "version")),
            ),
            (style, status.to_owned()),
            (
                Style::Plain,
                format!("  up {} s  {url}", number(health, "uptime_secs")),
            ),
        ]
    }

    fn pool(&self, pool: &Value) -> Line {
        let Rates {
            requests,
            failed,
            retried,
        } = self.rates(pool);
        let (usable, servers) = (number(pool, "usable"), list(pool).count() as u64);
        let mut line = vec![
            (Style::Bold, text(pool, "name").to_owned()),
            (Style::Plain, format!("  {}  ", text(pool, "balance"))),
            (
                if usable < servers {
                    Style::Warn
                } else {
                    Style::Plain
                },
                format!("{usable} of {servers} usable"),
            ),
        ];
        if self.before.is_some() {
            line.push((Style::Plain, format!("  {requests:.1} req/s")));
            let style = if failed > 0.0 {
                Style::Bad
            } else {
                Style::Plain
            };
            line.push((style, format!("  {failed:.1} failed/s")));
            let style = if retried > 0.0 {
                Style::Warn
            } else {
                Style::Plain
            };
            line.push((style, format!("  {retried:.1} retried/s")));
        }
        let mean = pool.pointer("/capacity/mean_ms").and_then(Value::as_f64);
        if let Some(mean) = mean {
            line.push((Style::Plain, format!("  {mean:.1} ms")));
        }
        let waiting = number(pool, "waiting");
        if waiting > 0 {
            line.push((Style::Warn, format!("  {waiting} wait")));
        }
        line
    }

    fn servers(&self, pool: &Value) -> Vec<Line> {
        let header = [
            "SERVER", "STATE", "HEALTH", "WEIGHT", "ACTIVE", "REQ/S", "SHARE", "CAUSE",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let mut styles = vec![Style::Dim];
        let all: f64 = list(pool).map(|server| self.picked(server)).sum();
        for server in list(pool) {
            let rate = self.picked(server);
            let (rate_text, share) = match (self.before, all > 0.0) {
                (None, _) => (String::new(), String::new()),
                (_, false) => (format!("{rate:.1}"), "-".to_owned()),
                (_, true) => (format!("{rate:.1}"), format!("{:.0} %", rate * 100.0 / all)),
            };
            rows.push(vec![
                text(server, "name").to_owned(),
                text(server, "state").to_owned(),
                text(server, "health").to_owned(),
                number(server, "weight").to_string(),
                number(server, "active").to_string(),
                rate_text,
                share,
                cause_and_note(server),
            ]);
            styles.push(style(server));
        }
        if self.before.is_none() {
            // There are no rates yet.
            for row in &mut rows {
                for column in [5, 6] {
                    if let Some(cell) = row.get_mut(column) {
                        cell.clear();
                    }
                }
            }
        }
        let table = aligned(&rows, 2);
        let lines = table.lines().zip(styles);
        lines
            .map(|(line, style)| vec![(style, line.to_owned())])
            .collect()
    }

    /// Picks of a server in a second. Its total begins anew when the process does.
    fn picked(&self, server: &Value) -> f64 {
        let Some((before, time)) = self.before else {
            return 0.0;
        };
        let is_it = |other: &&Value| {
            text(other, "name") == text(server, "name")
                && text(other, "pool") == text(server, "pool")
        };
        let earlier = before.pools.iter().flat_map(list).find(is_it);
        per_second(earlier, server, "picks", time)
    }

    fn rates(&self, pool: &Value) -> Rates {
        let Some((before, time)) = self.before else {
            return Rates::default();
        };
        let is_it = |other: &&Value| text(other, "name") == text(pool, "name");
        let earlier = before.pools.iter().find(is_it);
        let picked: f64 = list(pool).map(|server| self.picked(server)).sum();
        let retried = per_second(earlier, pool, "retried", time);
        Rates {
            requests: (picked - retried).max(0.0),
            failed: per_second(earlier, pool, "failed", time),
            retried,
        }
    }
}

fn list(pool: &Value) -> impl Iterator<Item = &Value> {
    let servers = pool.get("servers").and_then(Value::as_array);
    servers.into_iter().flatten()
}

/// What a total grew by; one that was not there before says nothing yet.
fn per_second(before: Option<&Value>, now: &Value, key: &str, time: Duration) -> f64 {
    let Some(before) = before else {
        return 0.0;
    };
    number(now, key).saturating_sub(number(before, key)) as f64 / time.as_secs_f64()
}

fn tenths(number: f64) -> Value {
    ((number * 10.0).round() / 10.0).into()
}

fn style(server: &Value) -> Style {
    match (text(server, "state"), text(server, "health")) {
        ("ready", "healthy") => Style::Plain,
        (_, "unhealthy" | "ejected") => Style::Bad,
        _ => Style::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, picks: [u64; 2], failed: u64, retried: u64) -> Sample {
        let server = |name: &str, health: &str, picks: u64| {
            json!({ "pool": "site", "name": name, "state": "ready", "health": health, "weight": 1, "active": 2,
                    "picks": picks, "cause": "why", "note": "" })
        };
        Sample {
            at: Duration::from_secs(seconds),
            health: json!({ "status": "healthy", "version": "0.1.0", "uptime_secs": 7 }),
            pools: vec![json!({
                "name": "site", "balance": "round_robin", "usable": 1, "waiting": 3, "failed": failed,
                "retried": retried, "capacity": { "load": 4.0, "mean_ms": 2.5, "alarm": false },
                "servers": [server("a", "healthy", picks[0]), server("b", "ejected", picks[1])]
            })],
        }
    }

    fn plain(frame: &Frame<'_>, trouble: &str) -> String {
        super::super::plain(&frame.lines("http://x", trouble))
    }

    #[test]
    fn rates_are_between_two_looks() {
        let (before, now) = (sample(10, [100, 50], 0, 4), sample(12, [300, 50], 2, 8));
        assert_eq!(
            plain(&Frame::new(Some(&before), &now), ""),
            "\
Evenkeel 0.1.0  healthy  up 7 s  http://x

site  round_robin  1 of 2 usable  98.0 req/s  1.0 failed/s  2.0 retried/s  2.5 ms  3 wait
  load 4.0
  SERVER  STATE  HEALTH   WEIGHT  ACTIVE  REQ/S  SHARE  CAUSE
  a       ready  healthy  1       2       100.0  100 %  why
  b       ready  ejected  1       2       0.0    0 %    why
"
        );
        let json = Frame::new(Some(&before), &now).json();
        assert_eq!(
            (&json["over_ms"], &json["pools"][0]["per_second"]),
            (&2000.into(), &98.0.into())
        );
        assert_eq!(json["pools"][0]["servers"][0]["per_second"], 100.0);
    }

    #[test]
    fn the_first_look_has_no_rates_and_one_that_fails_leaves_the_last() {
        let now = sample(10, [100, 50], 0, 0);
        let text = plain(&Frame::new(None, &now), "nothing answers");
        assert!(text.contains("\nno news: nothing answers\n"), "{text}");
        assert!(!text.contains("req/s") && !text.contains("150"), "{text}");
        assert!(
            text.contains("  a       ready  healthy  1       2       why\n"),
            "{text}"
        );
        // A process that began anew counts from zero.
        let after = sample(11, [5, 5], 0, 0);
        assert!(plain(&Frame::new(Some(&now), &after), "").contains("  0.0 req/s"));
    }
}
