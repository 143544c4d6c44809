//! Outcomes in words: a line for the terminal, the table of `docs/reliability.md`.

use super::{Outcome, Scenario};
use std::time::Duration;

/// One line (more when a promise was broken) for the terminal.
pub fn line(scenario: &Scenario, outcome: &Outcome) -> String {
    let Outcome {
        steps,
        lost,
        told,
        cut,
        retried,
        longest,
        p99,
        ..
    } = outcome;
    let mut text = format!(
        "{:<16} {}; {steps}; lost {lost}, told {told}, cut {cut}, retried {retried}; p99 {}, longest {}",
        scenario.name,
        load(outcome),
        time(*p99),
        time(*longest)
    );
    for broken in &outcome.broken {
        text.push_str(&format!("\n  BROKEN PROMISE: {broken}"));
    }
    text
}

/// The whole page.
pub fn document(rows: &[(&Scenario, Outcome)], machine: &str) -> String {
    let mut text = format!(
        "# What is lost when things go wrong\n\n\
         Written by `cargo xtask reliability`, which anyone can run: the release binary, real servers (nginx where no\n\
         other is named) and clients that keep their connections and never retry, all on one machine. {machine}\n\n\
         *Lost* is what was promised and not held: a broken answer, none, or one that says 5xx. *Told* is an answer by\n\
         Evenkeel with the status and the reason that the promise names; *cut* an answer that its server broke off.\n\
         *Retried* counts further tries on another server, which no client saw.\n\n\
         | fault | load held | lost | told | cut | retried | 99 % within | longest |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for (scenario, outcome) in rows {
        let Scenario { name, fault, .. } = scenario;
        let Outcome {
            steps,
            lost,
            told,
            cut,
            retried,
            longest,
            p99,
            ..
        } = outcome;
        text.push_str(&format!(
            "| `{name}`: {fault} ({steps}) | {} | {lost} | {told} | {cut} | {retried} | {} | {} |\n",
            load(outcome),
            time(*p99),
            time(*longest)
        ));
    }
    text.push_str("\n## What is promised\n\n| name | promise |\n| --- | --- |\n");
    for (scenario, _) in rows {
        let Scenario { name, promise, .. } = scenario;
        text.push_str(&format!("| `{name}` | {promise} |\n"));
    }
    text.push_str(
        "\nOne alone: `cargo xtask reliability --only kill`. The short form of all: `--quick`. The exit code is 1 when a\n\
         promise was broken.\n",
    );
    text
}

fn load(outcome: &Outcome) -> String {
    let rate = outcome.requests as f64 / outcome.lasted.as_secs_f64().max(0.001);
    format!(
        "{} requests, {rate:.0}/s, {} connections",
        grouped(outcome.requests),
        outcome.connects
    )
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_as_people_read_them() {
        let numbers = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(time(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(time(Duration::from_millis(2010)), "2.01 s");
    }
}
