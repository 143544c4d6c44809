//! `evenkeel drill`: a server is taken out as a crash would, and what that cost is told.

use std::fmt::Write as _;
use std::process::ExitCode;

use admin::client::segment;
use serde_json::Value;

use crate::cli::DrillArgs;
use crate::exit;
use crate::remote::{self, Done, number, text};
use crate::table::aligned;

/// Runs the command.
///
/// # Errors
/// What the system refused.
pub(crate) fn run(args: &DrillArgs) -> anyhow::Result<ExitCode> {
    remote::with_client(&args.remote, async |client| {
        let path = format!(
            "{}/drill?for={}&force={}",
            remote::path(&args.which),
            segment(&args.length),
            args.force
        );
        let (report, _) = remote::ask(client.post(&path).await?, &[200])?;
        Ok(Done {
            text: report_text(&report),
            code: match number(&report, "failed") {
                0 => exit::WELL,
                _ => ExitCode::from(exit::WRONG),
            },
            json: report,
        })
    })
}

/// A report in words.
fn report_text(report: &Value) -> String {
    let ended = match text(report, "ended_by") {
        "operator" => ", ended by its operator",
        "removed" => ", ended because the config has let go of it",
        "upgrade" => ", ended by an upgrade",
        _ => "",
    };
    let mut out = format!(
        "{} of pool {} was out for {}{ended}\n",
        text(report, "server"),
        text(report, "pool"),
        shown(number(report, "out_ms")),
    );
    let count = |key| number(report, key).to_string();
    let since = |key| report.get(key).and_then(Value::as_u64).map(shown);
    let met = number(report, "requests") + number(report, "in_vain") + number(report, "failed");
    let untold = "no traffic to judge by".to_owned();
    let settled = match since("settled_ms") {
        _ if met == 0 => untold.clone(),
        Some(_) if number(report, "in_vain") == 0 && number(report, "failed") == 0 => {
            "at once: no request met it".to_owned()
        }
        Some(after) => format!("after {after}"),
        None => "not while it was out".to_owned(),
    };
    let unpicked = match since("unpicked_ms") {
        Some(after) => format!("after {after}"),
        None if met == 0 => untold,
        None if number(report, "in_vain") == 0 => "never, but no request met it".to_owned(),
        None => "never: it was picked all the while".to_owned(),
    };
    let rows = [
        ("requests", count("requests")),
        ("failed", count("failed")),
        ("retried", format!("{}, on other servers", count("retried"))),
        ("settled", settled),
        ("unpicked", unpicked),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    out.push_str(&aligned(&rows, 2));
    let header = ["SERVER", "BEFORE /s", "AFTER /s", "MOST AT ONCE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let rate = |object: &Value, key| {
        let rate = object.get(key).and_then(Value::as_f64);
        format!("{:.1}", rate.unwrap_or(0.0))
    };
    rows.push(vec![
        text(report, "server").to_owned(),
        rate(report, "before_per_second"),
        "out".to_owned(),
    ]);
    let survivors = report.get("survivors").and_then(Value::as_array);
    for survivor in survivors.into_iter().flatten() {
        rows.push(vec![
            text(survivor, "server").to_owned(),
            rate(survivor, "before_per_second"),
            rate(survivor, "after_per_second"),
            number(survivor, "active_max").to_string(),
        ]);
    }
    let _ = write!(out, "{}", aligned(&rows, 0));
    out
}

/// Milliseconds as people read them.
fn shown(ms: u64) -> String {
    if ms < 10_000 {
        format!("{ms} ms")
    } else {
        format!("{:.1} s", ms as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::report_text;

    #[test]
    fn a_report_in_words() {
        let report = json!({
            "pool": "site", "server": "a", "ended_by": "time", "out_ms": 30_000, "requests": 12_000, "failed": 0,
            "retried": 3, "in_vain": 3, "settled_ms": 12, "unpicked_ms": 20, "before_per_second": 200.04,
            "survivors": [{ "server": "b", "before_per_second": 199.9, "after_per_second": 400.0, "active_max": 31 }]
        });
        assert_eq!(
            report_text(&report),
            "\
a of pool site was out for 30.0 s
  requests  12000
  failed    0
  retried   3, on other servers
  settled   after 12 ms
  unpicked  after 20 ms
SERVER  BEFORE /s  AFTER /s  MOST AT ONCE
a       200.0      out
b       199.9      400.0     31
"
        );
    }

    #[test]
    fn without_traffic_nothing_is_said_of_picks() {
        for (in_vain, expected) in [(0, "no traffic to judge by"), (2, "never: it was picked")] {
            let text = report_text(&json!({ "in_vain": in_vain, "unpicked_ms": null }));
            assert!(text.contains(&format!("unpicked  {expected}")), "{text}");
        }
    }
}
