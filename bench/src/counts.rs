//! `cargo xtask count`: instructions of our own work by callgrind, which do not wobble with the machine, beside a
//! stored baseline. What is counted is in `cases.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::peers::sibling;
use crate::process::which;

/// Two runs, so that what does not depend on their number cancels.
const TIMES: (u64, u64) = (1_000, 3_000);
/// A rise above the first is reported, above the second fails.
const RISE: (f64, f64) = (0.02, 0.05);
const BASELINE: &str = "bench/counts.json";

/// And fewer instructions than this are no rise: another C library or processor may cost them.
const SLACK: f64 = 4.0;

const USAGE: &str = "\
cargo xtask count [NAME]… [--bless]

  NAME      only what begins so: decode, encode, record, route, pick/maglev, build/maglev/100 …
  --bless   what was counted becomes the baseline; say in the commit what was bought for it
";

/// What was counted once, and with which compiler: another one's code cannot be compared.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    rustc: String,
    counts: BTreeMap<String, f64>,
}

/// What a count is beside its baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Same,
    More,
    TooMuch,
}

pub(crate) fn run(args: &[&str], root: &Path) -> Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        args.iter().partition(|arg| arg.starts_with('-'));
    let bless = options == ["--bless"];
    ensure!(bless || options.is_empty(), "{USAGE}");
    which("valgrind").context("valgrind is missing: apt-get install valgrind")?;
    let path = root.join(BASELINE);
    let mut baseline: Baseline = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).context(BASELINE)?,
        Err(_) => Baseline::default(),
    };
    let rustc = rustc()?;
    let same_compiler = rustc == baseline.rustc;
    let mut failed = Vec::new();
    println!(
        "{:<34}{:>12}{:>12}{:>9}",
        "", "instructions", "baseline", ""
    );
    for name in wanted(&names)? {
        let count = instructions(&name)?;
        let before = baseline.counts.get(&name).copied();
        let verdict = judge(count, before);
        show(&name, count, before, verdict);
        if verdict == Verdict::TooMuch {
            failed.push(name.clone());
        }
        if bless {
            baseline.counts.insert(name, (count * 10.0).round() / 10.0);
        }
    }
    if bless {
        baseline.rustc = rustc;
        std::fs::write(&path, serde_json::to_string_pretty(&baseline)? + "\n")?;
        println!("wrote {BASELINE}");
        return Ok(());
    }
    if !same_compiler {
        println!(
            "the baseline is of {}, this is {rustc}: nothing is judged; cargo xtask count --bless makes a new one",
            baseline.rustc
        );
    }
    if !failed.is_empty() && same_compiler {
        bail!(
            "over {:.0} % more: {}; if it is worth it: cargo xtask count --bless, in a commit of its own that says what \
             was bought for it",
            RISE.1 * 100.0,
            failed.join(", ")
        );
    }
    Ok(())
}

fn judge(count: f64, before: Option<f64>) -> Verdict {
    let Some(before) = before else {
        return Verdict::New;
    };
    match count / before - 1.0 {
        _ if count - before < SLACK => Verdict::Same,
        rise if rise > RISE.1 => Verdict::TooMuch,
        rise if rise > RISE.0 => Verdict::More,
        _ => Verdict::Same,
    }
}

fn show(name: &str, count: f64, before: Option<f64>, verdict: Verdict) {
    let known = before.map_or("-".into(), |before| format!("{before:.1}"));
    let rise = before.map_or(0.0, |before| (count / before - 1.0) * 100.0);
    let verdict = match verdict {
        Verdict::New => "  not in the baseline",
        Verdict::Same => "",
        Verdict::More => "  more",
        Verdict::TooMuch => "  TOO MUCH",
    };
    println!("{name:<34}{count:>12.1}{known:>12}{rise:>8.1}%{verdict}");
}

/// The cases that begin with one of `names`, or all; a name that is not in the list is taken as it is.
fn wanted(names: &[&str]) -> Result<Vec<String>> {
    let list = Command::new(sibling("count")?).arg("--list").output()?;
    let list = String::from_utf8(list.stdout)?;
    let all: Vec<String> = list.lines().map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(all);
    }
    let of = |start: &&str| {
        let begins = |name: &&String| name.starts_with(start);
        let found: Vec<String> = all.iter().filter(begins).cloned().collect();
        if found.is_empty() {
            vec![(*start).to_owned()]
        } else {
            found
        }
    };
    Ok(names.iter().flat_map(of).collect())
}

fn rustc() -> Result<String> {
    let said = Command::new("rustc")
        .arg("--version")
        .output()
        .context("rustc")?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Instructions of one turn.
fn instructions(name: &str) -> Result<f64> {
    let (few, many) = (total(name, TIMES.0)?, total(name, TIMES.1)?);
    Ok(many.saturating_sub(few) as f64 / (TIMES.1 - TIMES.0) as f64)
}

fn total(name: &str, times: u64) -> Result<u64> {
    let mut valgrind = Command::new(which("valgrind").context("valgrind is missing")?);
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind
        .arg(sibling("count")?)
        .arg(name)
        .arg(times.to_string());
    // The environment lies on the stack and moves it.
    let output = valgrind.env_clear().output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {said}");
    let line = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = line.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(count.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_told_above_two_percent_and_too_much_above_five() {
        let cases = [
            (100.0, None, Verdict::New),
            (1_000.0, Some(1_000.0), Verdict::Same),
            (1_019.0, Some(1_000.0), Verdict::Same),
            (1_021.0, Some(1_000.0), Verdict::More),
            (1_051.0, Some(1_000.0), Verdict::TooMuch),
            (500.0, Some(1_000.0), Verdict::Same),
            // Three instructions of fifty are no reason.
            (53.0, Some(50.0), Verdict::Same),
            (56.0, Some(50.0), Verdict::TooMuch),
        ];
        for (count, before, expected) in cases {
            assert_eq!(judge(count, before), expected, "{count} {before:?}");
        }
    }
}
